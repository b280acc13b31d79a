"""`shardtool status --prometheus`: the file, what is in it, and what becomes of it in trouble."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fixtures import Node
from shardtool.cli.standing import standing
from shardtool.cli.textfile import look_and_write
from shardtool.errors import ShardtoolError
from tests.conftest import COMMAND, REPOSITORY, Listing, Mount, Run, Unprivileged
from tests.e2e.proof_world import Capture, one_line
from tests.needs import lacking, needs_root

pytestmark = pytest.mark.preloaded


def samples(path: Path) -> dict[str, float]:
    """Return the samples of a file, by name and labels but `data`: 'old_shards{marked}'."""
    found = {}
    for family in text_string_to_metric_families(path.read_text()):
        for sample in family.samples:
            (other,) = [v for k, v in sample.labels.items() if k != "data"] or [""]
            name = sample.name.removeprefix("shardtool_")
            found[f"{name}{{{other}}}" if other else name] = sample.value
    return found


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Make the collector's directory and return the file."""
    (tmp_path / "collector").mkdir()
    return tmp_path / "collector" / "shardtool.prom"


@pytest.fixture
def promtool() -> str:
    """Return Prometheus' own tool."""
    found = shutil.which("promtool")
    if found is None:
        lacking("promtool (apt install prometheus)")
    return found


@pytest.mark.slow
def test_the_file_says_what_status_says(capture: Capture, shardtool: Run, target: Path) -> None:
    data = capture("migrated-08")
    assert shardtool("verify", "--data", data, "-q").returncode == 3
    before = time.time()
    done = shardtool("status", "--data", data, "--prometheus", target, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    document, found = json.loads(done.stdout), samples(target)
    totals = document["totals"]
    assert found["old_shards{proven}"] == totals["proven"] == 13
    assert found["old_shards{incomplete}"] == totals["incomplete"] == 14
    assert found["old_allocated_bytes"] == totals["old_allocated_bytes"]
    assert found["reclaimable_bytes"] == totals["reclaimable_bytes"]
    assert found["filesystem_size_bytes"] == document["filesystem"]["total_bytes"]
    assert found[f"stage{{{document['stage']}}}"] == 1
    assert found[f"next_info{{{document['next']}}}"] == 1
    assert found["lost_values{name}"] + found["lost_values{future}"] == 440
    assert found["proofs"] == 27
    assert found["status_success"] == 1
    for name in ("status_last_run_timestamp_seconds", "last_run_timestamp_seconds{verify}"):
        assert before - 60 <= found[name] <= time.time()
    assert found["status_duration_seconds"] < 60


@pytest.mark.slow
def test_promtool_has_nothing_to_say_against_it(
    capture: Capture, shardtool: Run, target: Path, promtool: str
) -> None:
    data = capture("migrated-08")
    shardtool("verify", "--data", data, "-q")
    shardtool("prune", "--data", data, "--yes", "-q")
    for node in (data, data / "nowhere"):
        shardtool("status", "--data", node, "--prometheus", target)
        done = subprocess.run(
            [promtool, "check", "metrics"],
            stdin=target.open(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_a_prune_is_in_it_by_the_journal(proven: Node, shardtool: Run, target: Path) -> None:
    assert shardtool("prune", "1", "--data", proven.path, "--yes", "-q").returncode == 0
    shardtool("status", "--data", proven.path, "--prometheus", target)
    found = samples(target)
    assert found["deleted_shards_total"] == 1
    assert found["freed_bytes_total"] > 0
    assert found["last_run_success{prune}"] == 1


def test_snapshots_are_in_it_wherever_they_are(
    proven: Node, tmp_path: Path, shardtool: Run, target: Path
) -> None:
    words = ("status", "--data", proven.path, "--prometheus", target)
    assert shardtool("backup", "--data", proven.path, "--to", tmp_path / "s").returncode == 0
    shardtool(*words)
    assert samples(target)["snapshots"] == 0
    shardtool(*words, env={"SHARDTOOL_SNAPSHOTS": str(tmp_path / "s")})
    assert samples(target)["snapshots"] == 1


def test_snapshots_in_a_bucket_are_not_counted_as_none(
    proven: Node, shardtool: Run, target: Path
) -> None:
    env = {"SHARDTOOL_SNAPSHOTS": "s3://backups/influxdb"}
    shardtool("status", "--data", proven.path, "--prometheus", target, env=env)
    assert "snapshots" not in samples(target)


def test_people_are_told_in_a_line_and_quiet_is_a_line(
    proven: Node, shardtool: Run, target: Path
) -> None:
    words = ("status", "--data", proven.path, "--prometheus", target)
    told = shardtool(*words).stdout.splitlines()
    assert told[-1] == f"metrics: {target.stat().st_size:,} bytes in {target}"
    assert shardtool(*words, "-q").stdout.count("\n") == 1
    assert shardtool(*words, "-qq").stdout == ""


def test_everybody_may_read_it_and_nothing_else_is_left(
    proven: Node, shardtool: Run, target: Path, listing: Callable[[Path], Listing]
) -> None:
    before = listing(proven.path)
    shardtool("status", "--data", proven.path, "--prometheus", target, umask=0o077)
    assert stat.S_IMODE(target.stat().st_mode) == 0o644
    assert [path.name for path in target.parent.iterdir()] == ["shardtool.prom"]
    assert listing(proven.path) == before


# -- trouble --


@pytest.mark.parametrize("words", [["--data", "no"], ["--influx-config", "no.toml"]])
def test_a_look_that_fails_says_so_in_the_file_and_keeps_its_exit_code(
    words: list[str], shardtool: Run, target: Path
) -> None:
    target.write_text("shardtool_old_shards 7\n")
    line = one_line(shardtool("status", *words, "--prometheus", target, cwd=target.parent), 1)
    assert "No such file" in line
    found = samples(target)
    assert found["status_success"] == 0
    assert time.time() - found["status_last_run_timestamp_seconds"] < 600
    assert not any(name.startswith("old_shards") for name in found)
    assert f'data="{target.parent / words[1]}"' in target.read_text()


def test_an_interrupted_look_says_so_too(proven: Node, target: Path, strace: None) -> None:
    signalled = ["strace", "-o", "/dev/null", "-e", "inject=statfs:signal=TERM:when=1"]
    words = ["status", "--data", str(proven.path), "--prometheus", str(target)]
    done = subprocess.run(
        [*signalled, *COMMAND, *words],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "SIGTERM" in one_line(done, 130)
    assert samples(target)["status_success"] == 0


def test_a_file_that_can_not_be_written_is_one_line(
    proven: Node, shardtool: Run, tmp_path: Path
) -> None:
    words = ("status", "--data", proven.path, "--prometheus")
    line = one_line(shardtool(*words, tmp_path / "none" / "x.prom"), 1)
    assert "expected to write the metrics, found: No such file" in line
    (tmp_path / "dir.prom").mkdir()
    assert "Is a directory" in one_line(shardtool(*words, tmp_path / "dir.prom"), 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "dir.prom"]


def test_on_a_full_disk_the_last_file_stands(
    proven: Node, shardtool: Run, tmp_path: Path, mount: Mount
) -> None:
    (tmp_path / "disk").mkdir()
    mount(tmp_path / "disk", size="64k")
    target = tmp_path / "disk" / "x.prom"
    words = ("status", "--data", proven.path, "--prometheus", target)
    assert shardtool(*words).returncode == 0
    before = target.read_bytes()
    with (tmp_path / "disk" / "filler").open("wb", buffering=0) as filler:
        for _ in range(64):
            try:
                filler.write(bytes(1024))
            except OSError:
                break
    assert "No space left" in one_line(shardtool(*words), 1)
    assert target.read_bytes() == before
    assert sorted(path.name for path in target.parent.iterdir()) == ["filler", "x.prom"]


@needs_root
def test_without_rights_it_is_one_line(public_path: Path, unprivileged: Unprivileged) -> None:
    node = Node(public_path / "data", version="0.8")
    for path in node.path.rglob("*"):
        path.chmod(0o755)
    (public_path / "collector").mkdir(mode=0o755)
    file = str(public_path / "collector" / "x.prom")
    args = argparse.Namespace(data=str(node.path), influx_config=None, prometheus=file)
    with pytest.raises(ShardtoolError, match="write the metrics, found: Permission denied"):
        unprivileged(lambda: look_and_write(args, standing))


@pytest.mark.parametrize("name", ["x", "x.prom.txt", "", ".prom", "x.prom/", "x.PROM"])
def test_what_the_collector_does_not_read_is_wrong_usage(
    name: str, proven: Node, shardtool: Run, tmp_path: Path
) -> None:
    done = shardtool("status", "--data", proven.path, f"--prometheus={name}", cwd=tmp_path)
    assert ".prom" in one_line(done, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize("place", ["db", "raft", "wal", "db/shard_db", "db/.shardtool"])
def test_nothing_is_written_among_influxdbs_files(
    place: str, proven: Node, shardtool: Run, tmp_path: Path, listing: Callable[[Path], Listing]
) -> None:
    (proven.path / place).mkdir(exist_ok=True)
    (tmp_path / "link").symlink_to(proven.path / place)
    before = listing(proven.path)
    for directory in (proven.path / place, tmp_path / "link"):
        done = shardtool("status", "--data", proven.path, "--prometheus", directory / "x.prom")
        assert "InfluxDB's" in one_line(done, 2)
    assert listing(proven.path) == before


def test_nothing_is_written_among_the_files_of_a_node_that_can_not_be_found(
    tmp_path: Path, shardtool: Run, listing: Callable[[Path], Listing]
) -> None:
    (tmp_path / "db").mkdir()
    (tmp_path / "db" / "shard_db").write_text("")
    (tmp_path / "config.toml").write_text("[storage\n")
    before = listing(tmp_path)
    target = tmp_path / "db" / "x.prom"
    for name, path in (("--data", tmp_path), ("--influx-config", tmp_path / "config.toml")):
        one_line(shardtool("status", name, path, "--prometheus", target), 1)
    assert listing(tmp_path) == before


def test_nothing_is_written_through_a_link(
    proven: Node, shardtool: Run, tmp_path: Path, target: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    target.symlink_to(victim)
    # Every name that the temporary file could have: a link to the victim.
    script = 'for n in $(seq $$ $(($$ + 40))); do ln -s "$1" "$2.$n"; done; shift 2; exec "$@"'
    hidden = target.with_name(f".{target.name}")
    words = ["status", "-q", "--data", str(proven.path), "--prometheus", str(target)]
    subprocess.run(
        ["sh", "-c", script, "sh", str(victim), str(hidden), *COMMAND, *words],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        check=True,
        capture_output=True,
    )
    assert victim.read_text() == "precious"
    assert not target.is_symlink()
    assert samples(target)["status_success"] == 1


def test_what_killed_runs_left_goes_and_what_is_being_written_stays(
    proven: Node, shardtool: Run, target: Path
) -> None:
    names = (".shardtool.prom.12", ".shardtool.prom.13", ".other.prom.12", ".shardtool.prom.x")
    for name in names:
        (target.parent / name).write_text("")
        os.utime(target.parent / name, (1, 1 if name[-1] != "3" else time.time()))
    shardtool("status", "--data", proven.path, "--prometheus", target)
    left = {path.name for path in target.parent.iterdir()}
    assert left == {"shardtool.prom", *names[1:]}


@pytest.mark.slow
@pytest.mark.parametrize("name", ['a"b', "a\\nb", "a\nb", '"} 1\nforged 1\n#', "\x1b[31m", b"\xff"])
def test_a_hostile_directory_name_stays_in_its_label(
    name: str | bytes, tmp_path: Path, shardtool: Run, target: Path
) -> None:
    node = Node(tmp_path / os.fsdecode(name), version="0.8")
    for data in (node.path, node.path / "nowhere"):
        shardtool("status", "--data", data, "--prometheus", target)
        text = target.read_text()
        assert text.replace("\n", "").isprintable()
        assert all(line.startswith(("shardtool_", "# ")) for line in text.splitlines())
        assert samples(target)["status_success"] == (data == node.path)


@pytest.mark.slow
def test_two_at_once_leave_a_whole_file(proven: Node, target: Path) -> None:
    words = [*COMMAND, "status", "--data", str(proven.path), "--prometheus", str(target)]
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    runs = [subprocess.Popen(words, env=env, stdout=subprocess.DEVNULL) for _ in range(4)]
    assert [run.wait() for run in runs] == [0] * 4
    assert samples(target)["status_success"] == 1
    assert [path.name for path in target.parent.iterdir()] == ["shardtool.prom"]


@pytest.mark.parametrize("other", ["--watch", "--nagios"])
def test_what_can_not_be_together_is_wrong_usage_and_what_can_is_done(
    other: str, proven: Node, shardtool: Run, target: Path
) -> None:
    done = shardtool("status", "--data", proven.path, "--prometheus", target, other)
    if other == "--watch":
        one_line(done, 2)
    else:
        assert (done.returncode, done.stdout.count("\n")) == (0, 1)
    assert target.exists() is (other == "--nagios")


def test_a_plain_status_imports_nothing_of_it(proven: Node) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-X",
            "importtime",
            "-m",
            "shardtool",
            "--data",
            str(proven.path),
            "status",
        ],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=True,
    )
    for module in ("prometheus_client", "shardtool.monitor", "cli.mail", "cli.textfile", "plugin"):
        assert module not in done.stderr
