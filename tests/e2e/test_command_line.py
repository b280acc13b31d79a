"""The command as people and scripts meet it: help, errors of one line, codes, streams."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures import Node
from shardtool.cli.app import COMMANDS
from shardtool.cli.exits import TABLE
from tests.conftest import COMMAND, REPOSITORY, Listing, Mount, Run

List = Callable[[Path], Listing]


def one_line(done: subprocess.CompletedProcess[str], code: int) -> str:
    """Assert that a run ended with `code` and one clear line on stderr; return the line."""
    assert done.returncode == code, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("shardtool: ")
    return lines[0]


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_command_has_help_that_fits_80_columns(command: str, shardtool: Run) -> None:
    done = shardtool(*command.split(), "--help")
    assert done.returncode == 0
    assert done.stderr == ""
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert len(done.stdout.splitlines()) > 10


def test_help_lists_every_command_and_every_exit_code(shardtool: Run) -> None:
    text = shardtool("--help").stdout
    assert TABLE in text
    for name, words in COMMANDS.items():
        assert name in text
        assert words in text


def test_the_readme_names_every_command_and_exit_code() -> None:
    readme = (REPOSITORY / "README.md").read_text()
    for code in ("0", "1", "2", "3", "4", "130"):
        assert f"| {code} |" in readme
    for name in ("status", "backup", "prune", "history"):
        assert f"shardtool {name}" in readme


def test_no_command_at_all_shows_the_help_and_is_wrong_usage(shardtool: Run) -> None:
    done = shardtool()
    assert done.returncode == 2
    assert done.stdout == ""
    assert "commands" in done.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["stauts"], "did you mean status?"),
        (["status", "--colour"], "--colour"),
        (["prune", "--trust", "me"], "marker"),
        (["prune", "--older-than", "soon"], "duration"),
        (["prune", "--until-free", "lots"], "size"),
        (["--data", "a", "--influx-config", "b", "status"], "give one of them"),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(
    words: list[str], expected: str, shardtool: Run
) -> None:
    assert expected in one_line(shardtool(*words), 2)


def test_data_is_taken_before_and_after_the_command(tmp_path: Path, shardtool: Run) -> None:
    node = Node(tmp_path / "data")
    node.old_shard(1, points=5)
    before = shardtool("--data", node.path, "status", "--json")
    after = shardtool("status", "--json", "--data", node.path)
    by_environment = shardtool("status", "--json", env={"SHARDTOOL_DATA": str(node.path)})
    assert before.returncode == after.returncode == 0
    ids = [json.loads(d.stdout)["old_shards"][0]["id"] for d in (before, after, by_environment)]
    assert ids == ["00001"] * 3


def test_what_stands_after_the_command_wins_over_what_stands_before(
    tmp_path: Path, shardtool: Run
) -> None:
    node = Node(tmp_path / "data")
    done = shardtool("--data", tmp_path / "nowhere", "status", "-q", "--data", node.path)
    assert done.returncode == 0, done.stderr


def test_the_three_directories_may_lie_apart(tmp_path: Path, shardtool: Run) -> None:
    node = Node(
        tmp_path / "conf",
        db=tmp_path / "a/db",
        raft_dir=tmp_path / "b/raft",
        wal_dir=tmp_path / "c",
    )
    node.old_shard(3, points=5)
    config = tmp_path / "elsewhere.toml"
    config.write_text(
        f'[storage]\ndir = "{node.db}"\n[raft]\ndir = "{node.raft}"\n[wal]\ndir = "{node.wal}"\n'
    )
    done = shardtool("status", "--influx-config", config, "--json")
    assert [shard["id"] for shard in json.loads(done.stdout)["old_shards"]] == ["00003"]


@pytest.mark.preloaded
@pytest.mark.parametrize("command", ["status", "backup", "prune", "history", "snapshots"])
def test_a_directory_that_is_not_there_is_one_line(
    command: str, tmp_path: Path, shardtool: Run
) -> None:
    line = one_line(shardtool(command, "--data", tmp_path / "no\x1b[31m"), 1)
    assert "No such file or directory" in line
    assert "no\\x1b[31m" in line


def test_a_directory_that_is_not_influxdbs_is_one_line(tmp_path: Path, shardtool: Run) -> None:
    assert "db/, raft/ and wal/" in one_line(shardtool("status", "--data", tmp_path), 1)


@pytest.mark.preloaded
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\xff\xfe", "offset 0"),
        (b"[storage\n", "no TOML"),
        (b"[storage]\ndir = 3\n", "[storage]"),
        (b'[storage]\ndir = "here"\n', "absolute"),
        (b"x" * 2_000_000, "1 MiB"),
    ],
)
def test_a_config_that_does_not_do_is_one_line(
    content: bytes, expected: str, tmp_path: Path, shardtool: Run
) -> None:
    config = tmp_path / "config.toml"
    config.write_bytes(content)
    assert expected in one_line(shardtool("status", "--influx-config", config), 1)


def test_a_missing_shard_db_is_nothing_to_do(tmp_path: Path, shardtool: Run) -> None:
    node = Node(tmp_path / "data")
    node.shard_db.rmdir()
    assert shardtool("--data", node.path, "status").returncode == 0
    assert shardtool("--data", node.path, "prune", "--trust", "marker", "--yes").returncode == 0


def test_a_linked_shard_db_is_followed(tmp_path: Path, shardtool: Run) -> None:
    node = Node(tmp_path / "data", version="0.8")
    node.old_shard(1, points=5)
    node.migrate(1)
    node.shard_db.rename(tmp_path / "bigger-disk")
    node.shard_db.symlink_to(tmp_path / "bigger-disk")
    done = shardtool("--data", node.path, "prune", "--trust", "marker", "--yes", "--json")
    assert json.loads(done.stdout)["deleted"] == ["00001"]
    assert list((tmp_path / "bigger-disk").iterdir()) == []


def test_names_from_the_disk_never_reach_the_terminal_raw(tmp_path: Path, shardtool: Run) -> None:
    node = Node(tmp_path / "data", version="0.8")
    node.old_shard(1, points=5)
    (node.shard_db / "\x1b]0;owned\x07").mkdir()
    (node.shard_db / os.fsdecode(b"\xff\n")).write_bytes(b"")
    (node.shard_db / "00001" / "\x1b[2J").write_bytes(b"x")
    for words in (["status"], ["status", "--json"], ["prune", "-n"], ["prune", "-n", "--json"]):
        done = shardtool("--data", node.path, *words)
        assert done.stdout.replace("\n", "").isprintable(), words
        assert "Traceback" not in done.stderr
    shown = shardtool("--data", node.path, "status").stdout
    assert "\\x1b]0;owned\\x07" in shown
    assert "\\xff\\x0a" in shown


def test_json_is_one_document_and_nothing_else(tmp_path: Path, shardtool: Run) -> None:
    node = Node(tmp_path / "data", version="0.8")
    node.old_shard(1, points=5)
    node.migrate(1)
    for words in (
        ["status"],
        ["prune", "-n"],
        ["prune", "--trust", "marker", "--yes"],
        ["history"],
    ):
        done = shardtool("--data", node.path, *words, "--json")
        assert json.loads(done.stdout)["schema"] == f"shardtool/{words[0]}/1"


def test_quiet_is_a_line_at_the_most(tmp_path: Path, shardtool: Run) -> None:
    node = Node(tmp_path / "data", version="0.8")
    for number in (1, 2):
        node.old_shard(number, points=5)
        node.migrate(number)
    for words in (["status"], ["prune", "-n"], ["prune", "1", "--trust", "marker", "--yes"]):
        done = shardtool("--data", node.path, *words, "-q")
        assert done.stdout.count("\n") == 1, done.stdout
        assert done.stderr == ""


def test_a_reader_that_goes_away_gets_no_traceback(tmp_path: Path) -> None:
    node = Node(tmp_path / "data")
    command = f"{sys.executable} -m shardtool --data {node.path} status | true"
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    for _ in range(5):
        done = subprocess.run(
            ["bash", "-c", command], env=env, capture_output=True, text=True, check=False
        )
        assert done.stderr == ""


def test_output_that_can_not_be_written_is_a_failure_of_one_line(tmp_path: Path) -> None:
    node = Node(tmp_path / "data")
    command = [sys.executable, "-m", "shardtool", "--data", str(node.path), "status"]
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command, env=env, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr == "shardtool: No space left on device\n"


def test_a_shard_named_on_the_command_line_must_be_there(tmp_path: Path, shardtool: Run) -> None:
    node = Node(tmp_path / "data", version="0.8")
    node.old_shard(7, points=5)
    assert "00008" in one_line(shardtool("--data", node.path, "prune", "-n", "8"), 1)


def test_only_the_named_shards_are_looked_at(tmp_path: Path, shardtool: Run) -> None:
    node = Node(tmp_path / "data", version="0.8")
    for number in (7, 8, 9):
        node.old_shard(number, points=5)
        node.migrate(number)
    done = shardtool(
        "--data", node.path, "prune", "8", "--trust", "marker", "--yes", "00009", "--json"
    )
    assert sorted(json.loads(done.stdout)["deleted"]) == ["00008", "00009"]
    assert [path.name for path in node.shard_db.iterdir()] == ["00007"]


def test_without_a_terminal_a_deletion_needs_yes(
    tmp_path: Path, shardtool: Run, listing: List
) -> None:
    node = Node(tmp_path / "data", version="0.8")
    node.old_shard(1, points=5)
    node.migrate(1)
    before = listing(node.path)
    done = shardtool("--data", node.path, "prune", "--trust", "marker", "-q")
    assert "--yes" in one_line(done, 2)
    assert listing(node.path) == before


def test_history_tells_what_a_prune_did(tmp_path: Path, shardtool: Run) -> None:
    node = Node(tmp_path / "data", version="0.8")
    node.old_shard(1, points=5)
    node.migrate(1)
    shardtool("--data", node.path, "prune", "--trust", "marker", "--yes")
    events = json.loads(shardtool("--data", node.path, "history", "--json").stdout)["events"]
    assert [event["event"] for event in events] == ["intent", "renamed", "deleted"]
    assert {event["shard"] for event in events} == {"00001"}
    assert events[-1]["evidence"] == "marker"
    shown = shardtool("--data", node.path, "history").stdout
    assert shown.count("00001") == 1
    assert "evidence marker" in shown


def migrated(tmp_path: Path, *numbers: int) -> Node:
    node = Node(tmp_path / "data", version="0.8")
    for number in numbers:
        node.old_shard(number, points=5)
        node.migrate(number)
    return node


def test_a_rerun_with_the_same_names_finishes_what_a_kill_left(
    tmp_path: Path, shardtool: Run
) -> None:
    node = migrated(tmp_path, 1, 2)
    words = ("--data", node.path, "prune", "1", "2", "--trust", "marker", "--yes")
    assert shardtool(*words).returncode == 0
    done = shardtool(*words)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_shard_in_the_trash_that_the_journal_does_not_know_is_never_passed_over(
    tmp_path: Path, shardtool: Run
) -> None:
    node = migrated(tmp_path, 1, 2)
    trash = node.db / ".shardtool/trash"
    trash.mkdir(parents=True)
    (node.shard_db / "00001").rename(trash / "00001.20261124T194436Z-99")
    status = shardtool("--data", node.path, "status")
    assert status.returncode == 3
    assert "not known to the journal" in status.stdout
    pruned = shardtool("--data", node.path, "prune", "--trust", "marker", "--yes")
    assert pruned.returncode == 3
    assert "look at it yourself" in pruned.stdout
    assert (trash / "00001.20261124T194436Z-99/CURRENT").exists()


def test_a_shard_whose_lock_cannot_be_looked_at_is_told_and_not_fine(
    tmp_path: Path, shardtool: Run
) -> None:
    node = migrated(tmp_path, 1)
    (node.shard_db / "00001/LOCK").unlink(missing_ok=True)
    os.mkfifo(node.shard_db / "00001/LOCK")
    done = shardtool("--data", node.path, "status")
    assert done.returncode == 3
    assert "lock-unknown" in done.stdout


@pytest.mark.parametrize("what", ["journal", "trash"])
def test_a_bad_state_of_our_own_never_hides_the_shards(
    what: str, tmp_path: Path, shardtool: Run
) -> None:
    node = migrated(tmp_path, 1)
    (node.db / ".shardtool").mkdir()
    if what == "journal":
        (node.db / ".shardtool/journal").mkdir()
    else:
        (node.db / ".shardtool/journal").write_bytes(b"garbage\n")
    done = shardtool("--data", node.path, "status")
    assert done.returncode == 3
    assert "00001  marked" in done.stdout
    assert "journal" in done.stderr


@pytest.mark.parametrize("number", ["9" * 4300, "-1", "true", '"x"'])
def test_history_shows_a_record_whose_counts_nobody_counted(
    number: str, tmp_path: Path, shardtool: Run
) -> None:
    node = Node(tmp_path / "data", version="0.8")
    (node.db / ".shardtool").mkdir()
    counts = "".join(f', "{name}": {number}' for name in ("missing", "different", "values"))
    record = f'{{"schema": "shardtool/journal/1", "event": "deleted", "lost": 1{counts}}}\n'
    (node.db / ".shardtool/journal").write_text(record)
    done = shardtool("--data", node.path, "history")
    assert (done.returncode, done.stderr) == (0, "")
    assert "deleted" in done.stdout


def test_a_long_stray_name_does_not_widen_the_table(tmp_path: Path, shardtool: Run) -> None:
    node = migrated(tmp_path, 1)
    (node.shard_db / ("n" * 240)).touch()
    for words in (["status"], ["prune", "-n"]):
        rows = shardtool("--data", node.path, *words).stdout.splitlines()
        assert all(len(row) <= 80 for row in rows if "00001" in row)


def test_a_full_disk_is_told_with_a_way_out_and_nothing_is_deleted(
    tmp_path: Path, shardtool: Run, mount: Mount
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount(disk, size="2m")
    node = Node(disk / "data", version="0.8")
    node.old_shard(1, points=5)
    node.migrate(1)
    filler = os.open(disk / "filler", os.O_WRONLY | os.O_CREAT)
    with contextlib.suppress(OSError):
        while True:
            os.write(filler, b"x" * 4096)
    os.close(filler)
    done = shardtool("--data", node.path, "prune", "--trust", "marker", "--yes")
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert (node.shard_db / "00001/CURRENT").exists()
    (disk / "filler").unlink()
    assert shardtool("--data", node.path, "prune", "--trust", "marker", "--yes").returncode == 0


def test_a_closed_stdout_is_no_mistake_of_ours(tmp_path: Path) -> None:
    node = Node(tmp_path / "data")
    script = f'exec "$@" --data {node.path} status >&-'
    done = subprocess.run(
        ["sh", "-c", script, "sh", *COMMAND],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_fifo_as_config_does_not_wait_for_a_writer(tmp_path: Path, shardtool: Run) -> None:
    os.mkfifo(tmp_path / "config.toml")
    line = one_line(shardtool("status", "--influx-config", tmp_path / "config.toml"), 1)
    assert "no regular file" in line
