"""Hostile trees under every command: no crash, no escape code, nothing outside touched.

What is wrong with one shard hides no other: shard 2 is sound in each of these directories, and
is deleted wherever shards can be deleted at all.
"""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fixtures import Node
from tests.conftest import COMMAND, REPOSITORY, Listing, Mount, Run
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
from tests.needs import lacking

List = Callable[[Path], Listing]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with two_shards(tmp_path / "data") as made:
        yield made


# -- links --

# Each level of a node at which 0.8 or shardtool has a name. db, shard_db, shard_db_v2, raft and
# wal may be links (an operator's, to another disk), and are followed: they are not here.
LEVELS = [
    SHARD,
    f"{SHARD}/CURRENT",
    f"{SHARD}/MIGRATED",
    f"{SHARD}/000003.log",
    f"{SHARD}/LOCK",
    "db/shard_db_v2/00001",
    "db/shard_db_v2/00001/type",
    "db/shard_db_v2/00001/000003.log",
    "raft/log",
    "raft/snapshot",
    "wal/log.1",
    "config.toml",
    "db/.shardtool",
    "db/.shardtool/journal",
    "db/.shardtool/proofs",
    "db/.shardtool/proofs/00001.json",
    "db/.shardtool/trash",
    "snapshots/SNAPSHOT",
    "snapshots/SNAPSHOT/data",
    "snapshots/SNAPSHOT/data/raft/log",
    "snapshots/SNAPSHOT/shardtool.json",
]


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
def test_a_link_at_any_level_leads_no_command_outside(
    level: str, node: Node, alone: Run, listing: List, tmp_path: Path
) -> None:
    for words in (("verify", "-q"), ("backup", "-q"), ("backup", "-q")):
        assert alone("--data", node.path, *words).returncode == 0
    (node.db / ".shardtool/trash").mkdir()
    (node.db / ".shardtool/journal").touch()
    snapshot = sorted(os.listdir(node.path / "snapshots"))[0]
    place, outside = node.path / level.replace("SNAPSHOT", snapshot), tmp_path / "outside"
    outside.mkdir()
    (outside / "beside").write_bytes(b"somebody's")
    place.rename(outside / "there")
    place.symlink_to(outside / "there")
    before = listing(outside)
    every_command(alone, node.path, tmp_path / "x.lp", LOOKING)
    assert listing(outside) == before
    every_command(alone, node.path, tmp_path / "x.lp", CHANGING)
    # A link that the server's own owner has in raft or wal is restored as a link.
    assert listing(outside) == before
    if ".shardtool" not in level or "proofs" in level:
        assert "00002" not in old_shards(node.path)


# -- what is no file of a shard --


def _socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's path may have 108 bytes
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def _device(path: Path, kind: int) -> None:
    try:
        os.mknod(path, kind | 0o644, os.makedev(1, 3) if kind == stat.S_IFCHR else os.makedev(7, 0))
    except PermissionError:
        lacking("the right to make device files")


def _deep(path: Path, levels: int = 1000) -> None:
    path.mkdir()
    at = os.open(path, os.O_DIRECTORY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=at)
        below = os.open("d", os.O_DIRECTORY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


ODD: dict[str, Callable[[Path], Any]] = {
    "a FIFO": lambda shard: os.mkfifo(shard / "000009.ldb"),
    "a socket": lambda shard: _socket(shard / "000009.ldb"),
    "a character device": lambda shard: _device(shard / "000009.ldb", stat.S_IFCHR),
    "a block device": lambda shard: _device(shard / "000009.ldb", stat.S_IFBLK),
    "a name of 255 bytes": lambda shard: (shard / ("x" * 255)).touch(),
    "a name that is not UTF-8": lambda shard: Path(
        os.fsdecode(bytes(shard) + b"/\xff\xfe")
    ).touch(),
    "a name with newlines": lambda shard: (shard / "a\nshardtool: all is well\n").touch(),
    "a name with escape codes": lambda shard: (shard / "\x1b[2J\x1b]0;title\x07\r").touch(),
    "a name that is an option": lambda shard: (shard / "--yes").touch(),
    "a tree 1,000 deep": lambda shard: _deep(shard / "deep"),
    "a sparse table of 2^40 bytes": lambda shard: _sparse(shard / "000009.ldb"),
    "a link to itself": lambda shard: (shard / "000009.ldb").symlink_to("000009.ldb"),
    "a directory like a table": lambda shard: (shard / "000009.ldb").mkdir(),
}


@pytest.mark.slow
@pytest.mark.parametrize("where", [SHARD, "db/shard_db db/shard_db_v2/00001", "raft wal"])
@pytest.mark.parametrize("kind", ODD)
def test_no_command_stumbles_over(
    kind: str, where: str, node: Node, alone: Run, tmp_path: Path
) -> None:
    for place in where.split():
        ODD[kind](node.path / place)
    every_command(alone, node.path, tmp_path / "x.lp", LOOKING)
    if "raft" in where and kind == "a sparse table of 2^40 bytes":
        commands = [words for words in CHANGING if words[0] != "backup"]  # it has no room for it
    else:
        commands = CHANGING
    every_command(alone, node.path, tmp_path / "x.lp", commands)
    assert "00002" not in old_shards(node.path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ODD)
def test_prune_leaves_a_shard_alone_that_holds(kind: str, node: Node, shardtool: Run) -> None:
    shard = node.path / SHARD
    ODD[kind](shard)
    done = shardtool("--data", node.path, *PRUNE)
    found = document(done)
    if kind == "a sparse table of 2^40 bytes":
        # Written after the marker, and as large as it likes: nobody has read it.
        assert kept(found) == {"00001": ["written-after-marker"]}
    assert found["deleted"] == ["00002"]
    assert (done.returncode, old_shards(node.path)) == (3, ["00001"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ODD)
def test_a_removal_that_was_begun_ends_whatever_somebody_put_there(
    kind: str, node: Node, shardtool: Run, listing: List, tmp_path: Path
) -> None:
    left = begun(node, shardtool)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"somebody's")
    os.link(outside / "file", left / "hard link")
    (left / "link").symlink_to(outside)
    ODD[kind](left)
    before = listing(outside)
    done = shardtool("--data", node.path, *PRUNE)
    assert document(done)["finished"] == ["00001"], done.stderr
    assert (done.returncode, in_trash(node.path), old_shards(node.path)) == (0, [], [])
    assert listing(outside) == before


# -- very many --

MANY = 1_000_000
MOST_MEMORY = 160 << 20


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_million_files_are_counted_and_deleted_in_bounded_memory(
    node: Node, mount: Mount, tmp_path: Path
) -> None:
    target = tmp_path / "many"
    target.mkdir()
    mount(target, size="6g")
    data = target / "data"
    shutil.copytree(node.path, data, symlinks=True)
    shard = data / SHARD
    marked = (shard / "MIGRATED").stat().st_mtime_ns
    directory = os.open(shard, os.O_DIRECTORY)
    for number in range(MANY):
        os.mknod(f"{number + 100_000:06d}.ldb", 0o100644, dir_fd=directory)
    os.close(directory)
    os.utime(shard / "MIGRATED", ns=(marked, max(marked, 1_412_266_800_000_000_000)))
    for words in (("status", "--json"), PRUNE):
        said, memory = measured(data, *words)
        assert memory < MOST_MEMORY, (words, memory)
        if words[0] == "status":
            first = document(subprocess.CompletedProcess([], 0, said, ""))["old_shards"][0]
            assert first["files"] == MANY + 6
    assert old_shards(data) == []
    assert in_trash(data) == []


# A process of its own between: ru_maxrss begins with what the one has that starts a process.
_MEASURED = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
sys.exit(done.returncode)
"""


def measured(data: Path, *words: str) -> tuple[str, int]:
    """Run a command; return what it said, and the most memory that one of its processes had."""
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, *COMMAND, "--data", str(data), *words],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, int(done.stderr.splitlines()[-1]) << 10
