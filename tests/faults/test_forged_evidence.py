"""Markers, receipts and journals that somebody forged, or brought from another directory.

On such evidence prune deletes nothing, and what is sound beside it
goes all the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fixtures import Node
from tests.conftest import Run
from tests.e2e.proof_world import document, kept, old_shards, prune, receipts, verify


def make_node(path: Path, *, lose: int = 1) -> Node:
    """Make a node whose shard 1 loses values and whose shard 2 is proven."""
    node = Node(path, version="0.8")
    for number in (1, 2):
        node.old_shard(number, points=5, databases={"test": ("cpu",)})
    node.migrate(2)
    node.migrate(1, lose=lose)
    return node


@pytest.fixture
def forged(tmp_path: Path) -> Node:
    """The node on which evidence is forged; what shard 1 loses nobody else has."""
    return make_node(tmp_path / "data")


# -- markers --


def _as_link(marker: Path, outside: Path) -> None:
    marker.rename(outside)
    marker.symlink_to(outside)


def _as_socket(marker: Path, outside: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(outside))
    outside.rename(marker)


def told_of(path: Path) -> tuple[object, ...]:
    """Return what tells that a file outside is as it was; nothing where there is none."""
    if not path.exists():
        return ()
    found = path.lstat()
    return found.st_mode, found.st_mtime_ns, found.st_ctime_ns, path.read_bytes()


def _as_terabyte(marker: Path) -> None:
    with marker.open("wb") as file:
        file.truncate(1 << 40)


MARKERS: dict[str, tuple[str, Callable[[Path, Path], Any]]] = {
    "a link": ("marker-not-a-file", _as_link),
    "a link to nothing": ("marker-not-a-file", lambda m, o: m.symlink_to("nothing")),
    "a directory": ("marker-not-a-file", lambda m, o: m.mkdir()),
    "a FIFO": ("marker-not-a-file", lambda m, o: os.mkfifo(m)),
    "a socket": ("marker-not-a-file", _as_socket),
    "an empty file": ("marker-content", lambda m, o: m.touch()),
    "other words": ("marker-content", lambda m, o: m.write_bytes(b"gone.\n")),
    "its word and more": ("marker-content", lambda m, o: m.write_bytes(b"done.\n\n")),
    "its word and zeros": ("marker-content", lambda m, o: m.write_bytes(b"done.\n" + bytes(4096))),
    "a terabyte": ("marker-content", lambda m, o: _as_terabyte(m)),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", MARKERS)
def test_a_shard_whose_marker_is_forged_stays_and_its_neighbour_goes(
    kind: str, forged: Node, shardtool: Run, tmp_path: Path
) -> None:
    word, make = MARKERS[kind]
    marker = forged.shard_db / "00002/MIGRATED"
    if kind != "a link":
        marker.unlink()
    make(marker, tmp_path / "outside")
    outside = tmp_path / "outside"
    before = told_of(outside)
    found = prune(shardtool, forged.path, "--trust", "marker", "--yes")
    assert (found["deleted"], kept(found)) == (["00001"], {"00002": [word]})
    assert prune(shardtool, forged.path, "--yes")["deleted"] == []
    assert old_shards(forged.path) == ["00002"]
    assert kind != "a link" or told_of(outside) == before


@pytest.mark.parametrize("days", [1, 36_500])
def test_a_marker_dated_in_the_future_is_no_evidence_by_itself(
    days: int, forged: Node, shardtool: Run
) -> None:
    later = time.time_ns() + days * 86_400_000_000_000
    for name in ("00001", "00002"):
        os.utime(forged.shard_db / name / "MIGRATED", ns=(later, later))
    found = prune(shardtool, forged.path, "--trust", "marker", "--yes")
    assert found["deleted"] == []
    assert set(map(tuple, kept(found).values())) == {("marker-in-future",)}
    # A proof looks at each value as it is now, whatever the marker's time.
    found = prune(shardtool, forged.path, "--yes")
    assert (found["deleted"], kept(found)) == (["00002"], {"00001": ["values-missing"]})


def test_a_marker_dated_before_the_shards_last_write_is_no_evidence_by_itself(
    forged: Node, shardtool: Run
) -> None:
    os.utime(forged.shard_db / "00001/MIGRATED", ns=(0, 0))
    found = prune(shardtool, forged.path, "--trust", "marker", "--yes")
    assert (found["deleted"], kept(found)) == (["00002"], {"00001": ["written-after-marker"]})


# -- receipts --


def signed(document: dict[str, Any]) -> str:
    """Give a receipt the checksum that shardtool would give it."""
    document.pop("sha256", None)
    content = json.dumps(document, ensure_ascii=True, sort_keys=True).encode("ascii")
    return json.dumps({**document, "sha256": hashlib.sha256(content).hexdigest()})


def receipt_of(node: Path, name: str) -> Path:
    return node / "db/.shardtool/proofs" / f"{name}.json"


def stays_for_want_of_proof(node: Node, run: Run) -> None:
    """Assert that no receipt of shard 1 holds, and that its values are looked for anew."""
    found = prune(run, node.path, "--no-verify", "--yes", "1")
    assert (found["deleted"], kept(found)) == ([], {"00001": ["not-proven"]})
    found = prune(run, node.path, "--yes")
    assert (found["deleted"], kept(found)) == (["00002"], {"00001": ["values-missing"]})
    assert old_shards(node.path) == ["00001"]


def test_receipts_of_another_node_are_none_here(
    forged: Node, shardtool: Run, tmp_path: Path
) -> None:
    whole = make_node(tmp_path / "whole", lose=0)
    assert {s["verdict"] for s in verify(shardtool, whole.path).values()} == {"proven"}
    shutil.copytree(whole.db / ".shardtool", forged.db / ".shardtool")
    assert receipts(forged.path) == ["00001.json", "00002.json"]
    stays_for_want_of_proof(forged, shardtool)


def test_receipts_of_the_very_directory_that_was_copied_are_none_in_the_copy(
    tmp_path: Path, shardtool: Run
) -> None:
    whole = make_node(tmp_path / "whole", lose=0)
    verify(shardtool, whole.path)
    shutil.copytree(whole.path, tmp_path / "copy", symlinks=True)
    found = prune(shardtool, tmp_path / "copy", "--no-verify", "--yes")
    assert found["deleted"] == []
    assert set(map(tuple, kept(found).values())) == {("not-proven",)}


def test_a_directory_that_was_moved_keeps_its_receipts(tmp_path: Path, shardtool: Run) -> None:
    whole = make_node(tmp_path / "whole", lose=0)
    verify(shardtool, whole.path)
    moved = whole.path.rename(tmp_path / "moved")
    found = prune(shardtool, moved, "--no-verify", "--yes")
    assert sorted(found["deleted"]) == ["00001", "00002"]


EDITS: dict[str, Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]] = {
    "of another node's finding": lambda mine, theirs: theirs,
    "with the old side of another node's": lambda mine, theirs: {
        **theirs,
        "new_states": mine["new_states"],
        "basis": mine["basis"],
    },
    "with the new side of another node's": lambda mine, theirs: {
        **theirs,
        "old_state": mine["old_state"],
    },
    "resting on no new shard": lambda mine, theirs: {
        **mine,
        "missing": 0,
        "losses": [],
        "new_states": {},
    },
    "of the other shard": lambda mine, theirs: {
        **mine,
        "shard": "00002",
        "missing": 0,
        "losses": [],
    },
    "with a new shard outside": lambda mine, theirs: {
        **mine,
        "missing": 0,
        "losses": [],
        "new_states": {"../shard_db/00001": mine["old_state"]},
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("edit", EDITS)
def test_a_receipt_with_a_right_checksum_and_a_wrong_fingerprint_holds_not(
    edit: str, forged: Node, shardtool: Run, tmp_path: Path
) -> None:
    whole = make_node(tmp_path / "whole", lose=0)
    verify(shardtool, whole.path)
    verify(shardtool, forged.path)
    theirs = json.loads(receipt_of(whole.path, "00001").read_text())
    place = receipt_of(forged.path, "00001")
    place.write_text(signed(EDITS[edit](json.loads(place.read_text()), theirs)))
    stays_for_want_of_proof(forged, shardtool)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["link", "FIFO", "directory", "link of the directory"])
def test_a_receipt_that_is_no_file_of_its_own_is_none_and_nothing_waits(
    kind: str, forged: Node, shardtool: Run, tmp_path: Path
) -> None:
    verify(shardtool, forged.path)
    place = receipt_of(forged.path, "00002")
    outside = tmp_path / "outside"
    if kind == "link of the directory":
        place.parent.rename(outside)
        place.parent.symlink_to(outside)
    else:
        place.rename(outside)
        {"link": lambda: place.symlink_to(outside), "FIFO": lambda: os.mkfifo(place)}.get(
            kind, place.mkdir
        )()
    found = prune(shardtool, forged.path, "--no-verify", "--yes", "2")
    assert (found["deleted"], kept(found)) == ([], {"00002": ["not-proven"]})
    assert old_shards(forged.path) == ["00001", "00002"]


# -- the journal and the trash --


def test_another_directorys_journal_lets_nothing_of_the_trash_go(
    forged: Node, shardtool: Run, tmp_path: Path
) -> None:
    other = make_node(tmp_path / "other", lose=0)
    assert sorted(prune(shardtool, other.path, "--yes")["deleted"]) == ["00001", "00002"]
    shutil.copytree(other.db / ".shardtool", forged.db / ".shardtool")
    journal = (forged.db / ".shardtool/journal").read_text().splitlines()
    intents = [one for one in map(json.loads, journal) if one["event"] == "intent"]
    (name,) = [one["trash"] for one in intents if one["shard"] == "00001"]
    # Its names are known to the journal, and its inode is another.
    shutil.copytree(forged.shard_db / "00001", forged.db / ".shardtool/trash" / name)
    done = shardtool("--data", forged.path, "prune", "--yes", "--json")
    assert done.returncode == 3
    assert document(done)["deleted"] == ["00002"]
    assert (forged.db / ".shardtool/trash" / name / "CURRENT").exists()
    assert old_shards(forged.path) == ["00001"]
