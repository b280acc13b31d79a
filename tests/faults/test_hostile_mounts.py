"""Hard links to outside, mounts and immutable files: what is somebody else's stays as it is."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fixtures import Node
from tests.conftest import Listing, Mount, Run
from tests.e2e.proof_world import document, in_trash, kept, old_shards
from tests.faults.hostile_world import (
    CHANGING,
    LOOKING,
    PRUNE,
    SHARD,
    begun,
    every_command,
    two_shards,
)
from tests.needs import lacking, needs_root

List = Callable[[Path], Listing]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with two_shards(tmp_path / "data") as made:
        yield made


def test_what_has_a_name_outside_stays_there_to_the_byte(
    node: Node, shardtool: Run, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    for file in (node.path / SHARD).iterdir():
        os.link(file, outside / file.name)
    names = sorted(os.listdir(outside))
    before = {name: (outside / name).stat() for name in names}
    content = {name: (outside / name).read_bytes() for name in names}
    planned = document(shardtool("--data", node.path, "prune", "--dry-run", "--json", "1"))
    found = document(shardtool("--data", node.path, "prune", "--yes", "--json", "1"))
    assert found["deleted"] == ["00001"]
    # Of the files nothing comes back, as it was said before.
    size = (node.path / "db/shard_db/00002").stat().st_blocks * 512
    assert planned["reclaimable_bytes"] == found["freed_bytes"] == size
    assert {name: (outside / name).read_bytes() for name in names} == content
    for name in names:
        now = (outside / name).stat()
        assert (now.st_mode, now.st_uid, now.st_mtime_ns, now.st_ino) == (
            before[name].st_mode,
            before[name].st_uid,
            before[name].st_mtime_ns,
            before[name].st_ino,
        )


@pytest.mark.slow
@pytest.mark.parametrize("what", ["a directory", "a file"])
def test_what_is_mounted_inside_a_shard_stays_with_all_that_is_in_it(
    what: str, node: Node, mount: Mount, shardtool: Run, listing: List, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"somebody's")
    shard = node.path / SHARD
    if what == "a directory":
        (shard / "in").mkdir()
        mount(shard / "in", source=outside)
    else:
        mount(shard / "LOG", source=outside / "file")
    before = listing(outside)
    done = shardtool("--data", node.path, *PRUNE)
    assert (done.returncode, old_shards(node.path)) == (3, ["00001"])
    assert "mount-point" in kept(document(done))["00001"]
    every_command(shardtool, node.path, tmp_path / "x.lp", LOOKING + CHANGING)
    assert listing(outside) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    "place",
    [
        "raft/in",
        "wal/in",
        "db/shard_db_v2/00001/in",
        "db/shard_db/in",
        "db/.shardtool/in",
        "db/.shardtool/proofs/00001.json",
        "db/.shardtool/trash/00007.20261124T175153Z-1/in",
    ],
)
def test_what_is_mounted_anywhere_else_in_the_node_is_not_changed_either(
    place: str, node: Node, mount: Mount, shardtool: Run, listing: List, tmp_path: Path
) -> None:
    assert shardtool("--data", node.path, "backup", "-q").returncode == 0
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"somebody's")
    (outside / "below").mkdir()
    (outside / "below" / "file").write_bytes(b"somebody's")
    (node.path / place).mkdir(parents=True)
    mount(node.path / place, source=outside)
    before = listing(outside)
    every_command(shardtool, node.path, tmp_path / "x.lp", LOOKING + CHANGING)
    assert listing(outside) == before


def test_a_removal_that_was_begun_stops_at_what_somebody_mounted_there(
    node: Node, mount: Mount, shardtool: Run, listing: List, tmp_path: Path
) -> None:
    left = begun(node, shardtool)
    (left / "below").mkdir()
    (left / "below/in").mkdir()
    (left / "file").touch()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"somebody's")
    mount(left / "below/in", source=outside)
    before = listing(outside)
    done = shardtool("--data", node.path, *PRUNE)
    assert (done.returncode, document(done)["finished"]) == (1, [])
    assert "Device or resource busy" in done.stderr
    assert listing(outside) == before
    (lifted,) = left.parent.iterdir()  # out of the shard, of which nothing else is left
    assert os.listdir(lifted) == ["in"]
    left.mkdir()
    lifted.rename(left / "below")  # where it can be unmounted


@pytest.fixture
def immutable(tmp_path: Path) -> Iterator[Callable[[Path], None]]:
    """Make files immutable until the test ends, as `chattr +i` does, wherever they are then."""
    made: set[int] = set()

    def make(path: Path) -> None:
        if shutil.which("chattr") is None:
            lacking("chattr")
        done = subprocess.run(["chattr", "+i", str(path)], capture_output=True, check=False)
        if done.returncode:
            lacking("a file system with immutable files")
        made.add(path.stat().st_ino)

    yield make
    for path in tmp_path.rglob("*"):
        if path.lstat().st_ino in made:
            release(path)


def release(path: Path) -> None:
    """Make a file changeable again."""
    subprocess.run(["chattr", "-i", str(path)], check=True)


@needs_root
def test_an_immutable_file_keeps_its_shard_in_the_trash_and_the_next_prune_ends_it(
    node: Node, immutable: Callable[[Path], None], shardtool: Run
) -> None:
    immutable(node.path / SHARD / "000003.log")
    done = shardtool("--data", node.path, *PRUNE)
    found = document(done)
    assert (done.returncode, found["deleted"]) == (1, ["00002"])
    (failed,) = found["failed"]
    assert failed["id"] == "00001"
    assert "000003.log: Operation not permitted" in failed["error"]
    assert old_shards(node.path) == []
    (name,) = in_trash(node.path)
    assert shardtool("--data", node.path, *PRUNE).returncode == 1
    release(node.db / ".shardtool/trash" / name / "000003.log")
    done = shardtool("--data", node.path, *PRUNE)
    assert (done.returncode, in_trash(node.path)) == (0, [])


@needs_root
def test_an_immutable_shard_stays_in_its_place(
    node: Node, immutable: Callable[[Path], None], shardtool: Run
) -> None:
    immutable(node.path / SHARD)
    done = shardtool("--data", node.path, *PRUNE)
    (failed,) = document(done)["failed"]
    assert (done.returncode, failed["id"]) == (1, "00001")
    assert "can't be renamed into the trash: Operation not permitted" in failed["error"]
    assert (old_shards(node.path), in_trash(node.path)) == (["00001"], [])
