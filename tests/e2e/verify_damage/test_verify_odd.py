"""No rights, no room, odd old shards, and what came after the marker."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures import Column, Node, Row
from fixtures.encode import microseconds
from shardtool.cli.app import main
from tests.conftest import Hold, Mount, Run, Unprivileged
from tests.e2e.proof_world import (
    AT,
    Capture,
    agrees,
    document,
    new_of,
    one_line,
    receipts,
    rewrite,
    verdicts,
    verify,
)
from tests.e2e.verify_damage.world import empty
from tests.needs import needs_root

pytestmark = pytest.mark.preloaded


def as_nobody(unprivileged: Unprivileged, data: Path) -> subprocess.CompletedProcess[str]:
    """Run `verify --json` as another user, within this process's Python: its own may be out of
    that user's reach."""
    codecs = ("encodings.ascii", "encodings.raw_unicode_escape")
    for module in ("shardtool.cli.verify", "rocksdict", "lmdb", "re2", *codecs):
        importlib.import_module(module)

    def run() -> tuple[int, str, str]:
        stdout, stderr = io.StringIO(), io.StringIO()
        sys.argv = ["shardtool", "--data", str(data), "verify", "--json"]
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            code = main()
        return code, stdout.getvalue(), stderr.getvalue()

    code, stdout, stderr = unprivileged(run)
    return subprocess.CompletedProcess([], code, stdout, stderr)


@needs_root
def test_where_receipts_cant_be_kept_the_result_is_the_same_with_a_warning(
    public: Node, unprivileged: Unprivileged
) -> None:
    done = as_nobody(unprivileged, public.path)
    assert verdicts({s["id"]: s for s in document(done)["shards"]}) == {"00001": "proven"}
    line = one_line(done, 0)
    assert "proofs/00001.json: expected to write a receipt" in line
    assert "ermission denied" in line
    assert not (public.db / ".shardtool").exists()


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("db/shard_db/00001/000003.log", "engine-unreadable"),
        ("db/shard_db/00001", "unreadable"),
        ("raft/log", "catalogue-unreadable"),
        ("raft", "catalogue-unreadable"),
    ],
)
@needs_root
def test_without_the_rights_to_read_a_shard_is_unreadable(
    place: str, reason: str, public: Node, unprivileged: Unprivileged
) -> None:
    (public.path / place).chmod(0)
    done = as_nobody(unprivileged, public.path)
    (shard,) = document(done)["shards"]
    assert done.returncode == 3
    assert shard["verdict"] == "unreadable"
    assert shard["reasons"][0] == reason
    assert "ermission denied" in shard["details"][0]


@needs_root
def test_without_the_rights_to_read_a_new_shard_the_old_one_is_unreadable(
    public: Node, unprivileged: Unprivileged
) -> None:
    new = new_of(public, 1).path
    new.chmod(0)
    (shard,) = document(as_nobody(unprivileged, public.path))["shards"]
    assert (shard["verdict"], shard["reasons"]) == ("unreadable", ["engine-unreadable"])
    assert str(new) in shard["details"][0]


def test_a_tmpdir_without_room_for_links_is_one_line_and_1(
    proven: Node, shardtool: Run, tmp_path: Path, mount: Mount
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    mount(scratch)
    options = "remount,nr_inodes=6"
    subprocess.run(["mount", "-o", options, str(scratch)], check=True, capture_output=True)
    done = shardtool("--data", proven.path, "verify", "--json", env={"TMPDIR": str(scratch)})
    line = one_line(done, 1)
    assert str(scratch) in line
    assert "No space left" in line
    assert done.stdout == ""
    assert list(scratch.iterdir()) == []
    assert receipts(proven.path) == []


def test_a_list_that_does_not_fit_tmpdir_is_one_line_and_1(
    tmp_path: Path, shardtool: Run, mount: Mount
) -> None:
    node = Node(tmp_path / "data", version="0.8")
    node.old_shard(1, points=3000)
    node.mark(1)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    mount(scratch, size="64k")
    done = shardtool("--data", node.path, "verify", "--list", env={"TMPDIR": str(scratch)})
    line = one_line(done, 1)
    assert "No space left" in line
    assert list(scratch.iterdir()) == []


@pytest.mark.slow
def test_a_tmpdir_on_another_file_system_does(
    capture: Capture, shardtool: Run, tmp_path: Path, mount: Mount
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    mount(scratch, size="4m")
    data = capture("migrated-08")
    agrees(verify(shardtool, data, env={"TMPDIR": str(scratch)}), "migrated-08")


def a_link(node: Node) -> None:
    """Make shard 1 a link to a directory elsewhere."""
    shard = node.shard_db / "00001"
    shard.rename(node.path / "elsewhere")
    shard.symlink_to(node.path / "elsewhere")


def a_file(node: Node) -> None:
    """Make shard 1 a file."""
    shutil.rmtree(node.shard_db / "00001")
    (node.shard_db / "00001").write_bytes(b"file")


def foreign(node: Node) -> None:
    """Put a file into shard 1 that no LevelDB writes."""
    (node.shard_db / "00001/notes.txt").touch()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (a_link, "symlink"),
        (a_file, "not-a-shard"),
        (empty, "no-marker"),
        (foreign, "foreign-files"),
    ],
)
def test_what_is_no_sound_shard_is_suspect_and_hides_no_other(
    make: Callable[[Node], None], reason: str, proven: Node, shardtool: Run
) -> None:
    make(proven)
    done = shardtool("--data", proven.path, "verify", "--json")
    shards = {one["id"]: one for one in document(done)["shards"]}
    assert done.returncode == 3
    assert verdicts(shards) == {"00001": "suspect", "00002": "proven"}
    assert reason in shards["00001"]["reasons"]
    # Nor does prune take it, proof or no proof.
    assert shardtool("--data", proven.path, "prune", "--yes").returncode == 3
    assert sorted(os.listdir(proven.shard_db)) == ["00001"]


def test_a_shard_that_another_process_has_locked_is_busy(
    proven: Node, shardtool: Run, hold: Hold
) -> None:
    pid = hold(proven.shard_db / "00001/LOCK", "lock")
    done = shardtool("--data", proven.path, "verify", "--json")
    shards = {one["id"]: one for one in document(done)["shards"]}
    assert done.returncode == 3
    assert verdicts(shards) == {"00001": "busy", "00002": "proven"}
    assert shards["00001"]["reasons"] == ["locked", "open-files"]
    assert str(pid) in shards["00001"]["details"][0]
    assert receipts(proven.path) == ["00002.json"]


def test_a_new_shard_that_a_server_has_open_is_read_beside_it(
    proven: Node, shardtool: Run, hold: Hold
) -> None:
    hold(new_of(proven, 1).path / "LOCK", "lock")
    assert set(verdicts(verify(shardtool, proven.path)).values()) == {"proven"}


def test_an_lmdb_that_a_server_has_open_makes_its_old_shard_busy(
    tmp_path: Path, shardtool: Run, hold: Hold
) -> None:
    node = Node(tmp_path / "data", version="0.8", default_engine="lmdb", lmdb_map_size=1 << 20)
    node.old_shard(1, points=10)
    node.migrate(1)
    assert verdicts(verify(shardtool, node.path, "--again")) == {"00001": "proven"}
    hold(new_of(node, 1).path / "lock.mdb", "lock")
    shards = verify(shardtool, node.path, "--again")
    assert verdicts(shards) == {"00001": "busy"}
    assert shards["00001"]["reasons"] == ["in-use"]


@pytest.mark.slow
@pytest.mark.parametrize("migrated", [True, False], ids=["found", "lost"])
def test_values_written_after_the_marker_are_looked_for_like_all_others(
    migrated: bool, proven: Node, shardtool: Run
) -> None:
    row = Row("test", "cpu", "n", microseconds(proven.old[1].start) + 7, 70_001, 7)
    proven.write_old(1, [row])
    if migrated:
        proven.write_new([row])
    before = document(shardtool("--data", proven.path, "status", "--json"))["old_shards"][0]
    assert (before["verdict"], before["reasons"]) == ("suspect", ["written-after-marker"])
    shards = verify(shardtool, proven.path)
    assert shards["00001"]["missing"] == (0 if migrated else 1)
    after = document(shardtool("--data", proven.path, "status", "--json"))["old_shards"][0]
    assert after["verdict"] == shards["00001"]["verdict"]
    wanted = ("proven", []) if migrated else ("incomplete", ["values-missing"])
    assert (after["verdict"], after["reasons"]) == wanted


@pytest.mark.slow
def test_status_counts_what_is_proven_and_incomplete(capture: Capture, shardtool: Run) -> None:
    data = capture("migrated-08")
    verify(shardtool, data)
    done = shardtool("--data", data, "status", "--json")
    status = document(done)
    assert done.returncode == 0
    counts = {key: status["totals"][key] for key in ("marked", "proven", "incomplete")}
    assert counts == {"marked": 0, "proven": 13, "incomplete": 14}
    proven = [shard for shard in status["old_shards"] if shard["verdict"] == "proven"]
    reclaimable = sum(shard["reclaimable_bytes"] for shard in proven)
    assert status["totals"]["reclaimable_bytes"] == reclaimable > 0
    others = [shard for shard in status["old_shards"] if shard["verdict"] != "proven"]
    assert {shard["reclaimable_bytes"] for shard in others} == {0}


def test_a_value_that_is_found_elsewhere_than_its_time_says_is_missing(
    tmp_path: Path, shardtool: Run
) -> None:
    """0.8 looks for a value in the shard of its time only."""
    node = Node(tmp_path / "data", version="0.8")
    node.old_shard(1, points=10)
    node.migrate(1)
    node.old_shard(50, points=10)
    node.migrate(50)
    new, other = new_of(node, 1), new_of(node, 50)
    from fixtures import pairs

    moved = [pair for pair in pairs(new.path) if len(pair[1])]
    assert other.store is not None
    other.store.write(moved)
    rewrite(new.path, lambda key, value: not value)
    assert verify(shardtool, node.path)["00001"]["missing"] > 0


def test_columns_of_one_name_in_other_shards_are_told_apart(tmp_path: Path, shardtool: Run) -> None:
    """Column ids are per old shard: the id of one shard means nothing in the next."""
    node = Node(tmp_path / "data", version="0.8")
    node.old_shard(1, rows=[Row("a", "s", "v", AT, 10_001, 1)])
    node.old_shard(2, rows=[Row("b", "s", "v", AT, 10_001, 1)])
    node.migrate(1)
    node.mark(2)
    shards = verify(shardtool, node.path)
    assert verdicts(shards) == {"00001": "proven", "00002": "incomplete"}
    assert Column("b", "s", "v") not in node.ids
