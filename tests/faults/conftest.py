"""What the races and the swaps share: a node of the server's user, and what lies beside it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fixtures import Node
from tests.conftest import Listing, Run
from tests.faults.races_world import SECRET, Outside
from tests.preloaded import run_alone

ROOM = 1 << 30
"""Bytes that must be free in memory: the largest of these trees has a hundredth."""


@pytest.fixture
def outside(public_path: Path, listing: Callable[[Path], Listing]) -> Iterator[Outside]:
    """What looks like a marked shard, and like raft and wal, of root's."""
    node = Node(public_path / "elsewhere", version="0.8")
    node.old_shard(2, points=4)
    node.mark(2)
    place = node.shard_db / "00002"
    (place / "snapshot").mkdir()
    for name in ("log", "secret", "snapshot/secret", "log.1"):
        (place / name).write_bytes(SECRET)
        (place / name).chmod(0o640)
    os.utime(place, ns=(1, 1_400_000_000_123_456_789))
    place.chmod(0o750)
    found = Outside(place, listing)
    found.remember()
    yield found
    assert found.is_untouched()


@pytest.fixture
def original(public_path: Path) -> Path:
    """A node with three marked shards, of which nothing is anybody's but nobody's."""
    node = Node(public_path / "original", version="0.8")
    for number in (1, 2, 3):
        node.old_shard(number, points=4)
        node.mark(number)
    return node.path


@pytest.fixture
def alone() -> Run:
    """Run shardtool without its start, where no other processes are: for hundreds of runs."""
    return run_alone


@pytest.fixture
def memory_path() -> Iterator[Path]:
    """Make a directory that every user can reach, in memory where there is room: for trees that
    are made anew hundreds of times, which takes a file system on a disk most of the time."""
    memory = Path("/dev/shm")
    has_room = memory.is_dir() and shutil.disk_usage(memory).free > ROOM
    path = Path(tempfile.mkdtemp(prefix="shardtool-test-", dir=memory if has_room else None))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)
