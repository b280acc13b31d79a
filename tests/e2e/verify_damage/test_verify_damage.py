"""A shard that can't be read, or whose tables no manifest names, is told and hides no other."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fixtures import Node
from tests.conftest import Run
from tests.e2e.proof_world import (
    Capture,
    document,
    kept,
    new_of,
    prune,
    receipts,
    verdicts,
    verify,
)
from tests.e2e.verify_damage.world import one
from tests.needs import needs_plyvel

pytestmark = pytest.mark.preloaded


def corrupt(file: Path) -> None:
    """Turn one byte in the middle of a file."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)


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


@pytest.mark.slow
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


@pytest.mark.slow
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
