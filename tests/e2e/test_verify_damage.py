"""`shardtool verify` on what is damaged, forbidden or odd: one line, its code, the others read."""

from __future__ import annotations

import base64
import contextlib
import importlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
    kept,
    new_of,
    one_line,
    prune,
    receipts,
    rewrite,
    verdicts,
    verify,
)
from tests.needs import needs_plyvel, needs_root

# -- what can't be read --


def corrupt(file: Path) -> None:
    """Turn one byte in the middle of a file."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)


def one(shard: Path, pattern: str) -> Path:
    """Return the one file of a shard that a pattern matches."""
    (file,) = shard.glob(pattern)
    return file


def linked(path: Path, elsewhere: Path) -> None:
    """Move a file or directory elsewhere and leave a link to it."""
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def replaced(shard: Path) -> None:
    """Put a file in the place of a directory."""
    shutil.rmtree(shard)
    shard.touch()


def fifo(file: Path) -> None:
    """Put a FIFO in the place of a file."""
    file.unlink()
    os.mkfifo(file)


OLD_DAMAGE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a table is corrupt": ("000005.ldb", lambda shard: corrupt(shard / "000005.ldb")),
    "a table is cut short": ("000005.ldb", lambda shard: os.truncate(shard / "000005.ldb", 2000)),
    "a table is empty": ("000005.ldb", lambda shard: os.truncate(shard / "000005.ldb", 0)),
    "a table is gone": ("000005", lambda shard: (shard / "000005.ldb").unlink()),
    "the MANIFEST is gone": ("MANIFEST-", lambda shard: one(shard, "MANIFEST-*").unlink()),
    "the MANIFEST is corrupt": ("", lambda shard: corrupt(one(shard, "MANIFEST-*"))),
    "CURRENT is garbage": ("CURRENT", lambda shard: (shard / "CURRENT").write_bytes(b"\0" * 16)),
    "the log is corrupt": (
        ".log",
        lambda shard: one(shard, "*.log").write_bytes(b"\x07" * 7 + b"garbage" * 9000),
    ),
}


@pytest.mark.parametrize("damage", OLD_DAMAGE)
def test_a_damaged_old_shard_is_unreadable_and_hides_no_other(
    damage: str, capture: Capture, shardtool: Run
) -> None:
    data = capture("migrated-08")
    for path in (data / "db/shard_db").iterdir():
        if path.name not in ("00002", "00003", "00012"):
            shutil.rmtree(path)
    file, harm = OLD_DAMAGE[damage]
    shard = data / "db/shard_db/00002"
    harm(shard)
    done = shardtool("--data", data, "verify", "--json")
    shards = {one["id"]: one for one in document(done)["shards"]}
    assert done.returncode == 3
    assert verdicts(shards) == {"00002": "unreadable", "00003": "proven", "00012": "proven"}
    assert shards["00002"]["reasons"][0] == "engine-unreadable"
    assert f"{shard}" in shards["00002"]["details"][0]
    assert file in shards["00002"]["details"][0]
    assert receipts(data) == ["00003.json", "00012.json"]


NEW_DAMAGE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "its log is corrupt": ("", lambda shard: corrupt(shard / "000003.log")),
    "the MANIFEST is gone": ("MANIFEST-", lambda shard: one(shard, "MANIFEST-*").unlink()),
    "CURRENT is gone": ("CURRENT", lambda shard: (shard / "CURRENT").unlink()),
    "its engine is unknown": ("", lambda shard: (shard / "type").write_bytes(b"sled")),
    "its type ends in a newline": ("", lambda shard: (shard / "type").write_bytes(b"leveldb\n")),
    "its engine is another": ("", lambda shard: (shard / "type").write_bytes(b"lmdb")),
    "a file is a link": (
        "000003.log",
        lambda shard: linked(shard / "000003.log", shard.parent / "log"),
    ),
    "it is a link": ("", lambda shard: linked(shard, shard.parents[1] / "x")),
    "it is a file": ("", replaced),
}


@pytest.mark.parametrize("damage", NEW_DAMAGE)
def test_a_damaged_new_shard_makes_those_unreadable_that_need_it(
    damage: str, tmp_path: Path, shardtool: Run
) -> None:
    node = Node(tmp_path / "data", version="0.8")
    for number in (1, 50):  # a year apart: no new shard has values of both
        node.old_shard(number, points=10)
        node.migrate(number)
    file, harm = NEW_DAMAGE[damage]
    new = new_of(node, 1).path
    harm(new)
    done = shardtool("--data", node.path, "verify", "--json")
    shards = {one["id"]: one for one in document(done)["shards"]}
    assert done.returncode == 3
    assert verdicts(shards) == {"00001": "unreadable", "00050": "proven"}
    assert shards["00001"]["reasons"] == ["engine-unreadable"]
    (detail,) = shards["00001"]["details"]
    assert str(new) in detail
    assert file in detail


def test_a_new_shard_that_is_gone_has_lost_its_values(proven: Node, shardtool: Run) -> None:
    shutil.rmtree(new_of(proven, 1).path)
    shards = verify(shardtool, proven.path)
    assert shards["00001"]["verdict"] == "incomplete"
    assert shards["00001"]["missing"] > 0


def test_a_directory_of_a_shard_that_raft_does_not_know_is_no_storage(
    proven: Node, shardtool: Run
) -> None:
    """0.8 answers nothing from it: what is only there is lost (FORMATS.md, phantom shards)."""
    new = new_of(proven, 1).path
    new.rename(new.with_name("00099"))
    assert verify(shardtool, proven.path)["00001"]["verdict"] == "incomplete"


RAFT_DAMAGE: dict[str, tuple[str, Callable[[Node], object]]] = {
    "garbage in the middle of the log": (
        "raft/log: at offset ",
        lambda node: splice(node.raft / "log", b"garbage!garbage!"),
    ),
    "no raft directory": ("raft/log: ", lambda node: shutil.rmtree(node.raft)),
    "no log": ("raft/log: ", lambda node: (node.raft / "log").unlink()),
    "an empty log": ("raft/log: ", lambda node: os.truncate(node.raft / "log", 0)),
    "a log that is a link": (
        "raft/log: ",
        lambda node: linked(node.raft / "log", node.raft / "x"),
    ),
    "a log that is a FIFO": (
        "raft/log: ",
        lambda node: fifo(node.raft / "log"),
    ),
    "a snapshot's gob cut short": (".ss: ", lambda node: cut_gob(node.compact_raft(keep=2))),
    "a snapshot with a wrong checksum": (".ss: ", lambda node: corrupt(node.compact_raft(keep=2))),
    "a gap between snapshot and log": (
        "raft/log: ",
        lambda node: node.compact_raft(keep=2).unlink(),
    ),
}


def splice(file: Path, garbage: bytes) -> None:
    """Put garbage between two entries in the middle of a raft log."""
    content = file.read_bytes()
    heads = [match.start() for match in re.finditer(rb"[ 0-9a-f]{7}[0-9a-f]\n\x08", content)]
    at = heads[len(heads) // 2]
    file.write_bytes(content[:at] + garbage + content[at:])


def cut_gob(snapshot: Path) -> None:
    """Cut a snapshot's gob short, under a checksum that is right."""
    document = json.loads(snapshot.read_bytes()[9:])
    state = base64.b64decode(document["state"])
    document["state"] = base64.b64encode(state[: len(state) // 2]).decode()
    body = json.dumps(document).encode()
    snapshot.write_bytes(b"%08x\n" % zlib.crc32(body) + body)


@pytest.mark.slow
@pytest.mark.parametrize("damage", RAFT_DAMAGE)
def test_without_a_sound_catalogue_every_shard_is_unreadable(
    damage: str, proven: Node, shardtool: Run
) -> None:
    named, harm = RAFT_DAMAGE[damage]
    harm(proven)
    done = shardtool("--data", proven.path, "verify", "--json")
    shards = {one["id"]: one for one in document(done)["shards"]}
    assert done.returncode == 3
    assert done.stderr == ""
    assert set(verdicts(shards).values()) == {"unreadable"}
    for shard in shards.values():
        assert shard["reasons"] == ["catalogue-unreadable"]
        assert str(proven.raft) in shard["details"][0]
        assert named in shard["details"][0], shard["details"]
    assert receipts(proven.path) == []
    assert shardtool("--data", proven.path, "prune", "--yes").returncode == 3
    assert sorted(os.listdir(proven.shard_db)) == ["00001", "00002"]


def test_a_torn_tail_of_the_raft_log_is_what_a_power_cut_leaves(
    proven: Node, shardtool: Run
) -> None:
    with (proven.raft / "log").open("ab") as log:
        log.write(b"      90\n\x08\x63torn")
    assert set(verdicts(verify(shardtool, proven.path)).values()) == {"proven"}


@pytest.mark.parametrize("by", ["0.7", "0.8"])
def test_a_compacted_raft_gives_the_same(by: Any, proven: Node, shardtool: Run) -> None:
    proven.compact_raft(keep=3, by=by)
    assert set(verdicts(verify(shardtool, proven.path)).values()) == {"proven"}


# -- rights and room --


@pytest.fixture
def public(public_path: Path) -> Node:
    """A node with one proven shard, which other users can reach."""
    node = Node(public_path / "data", version="0.8")
    node.old_shard(1, points=10)
    node.migrate(1)
    for directory in (node.raft, node.raft / "snapshot"):
        directory.chmod(0o755)
    for file in (node.raft / "log", node.raft / "name"):
        file.chmod(0o644)
    for directory in (node.path, node.db, node.shard_db, node.shard_db_v2):
        directory.chmod(0o755)
    for shard in (*node.shard_db.iterdir(), *node.shard_db_v2.iterdir()):
        shard.chmod(0o755)
    return node


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


# -- odd old shards --


def a_link(node: Node) -> None:
    """Make shard 1 a link to a directory elsewhere."""
    shard = node.shard_db / "00001"
    shard.rename(node.path / "elsewhere")
    shard.symlink_to(node.path / "elsewhere")


def a_file(node: Node) -> None:
    """Make shard 1 a file."""
    shutil.rmtree(node.shard_db / "00001")
    (node.shard_db / "00001").write_bytes(b"file")


def empty(node: Node) -> None:
    """Make shard 1 an empty directory."""
    shutil.rmtree(node.shard_db / "00001")
    (node.shard_db / "00001").mkdir()


def foreign(node: Node) -> None:
    """Put a file into shard 1 that no LevelDB writes."""
    (node.shard_db / "00001/notes.txt").touch()


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


# -- what came after the marker --


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


# -- tables that no manifest names --


@needs_plyvel
def test_a_table_that_its_manifest_does_not_name_is_nothing_proven(
    tmp_path: Path, shardtool: Run
) -> None:
    node = Node(tmp_path / "data", version="0.8")
    shard = node.old_shard(1, points=50, storage="tables")
    (table,) = shard.glob("*.ldb")
    # As after `rm CURRENT`: who opens the shard then makes an empty LevelDB in it.
    other = Node(tmp_path / "other").old_shard(1, rows=[])
    for file in shard.iterdir():
        if file != table:
            file.unlink()
    for file in other.iterdir():
        shutil.copy2(file, shard / file.name)
    node.mark(1)
    done = shardtool("--data", node.path, "verify")
    assert done.returncode == 3
    assert table.name in done.stdout
    assert kept(prune(shardtool, node.path, "--yes")) == {"00001": ["engine-unreadable"]}
    assert table.exists()
