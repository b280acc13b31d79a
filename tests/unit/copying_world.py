"""A small node, a bag to copy it into, and what another process does to it meanwhile."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from shardtool.disk.durable import READ_DIRECTORY, opened
from shardtool.errors import ShardtoolError
from shardtool.snapshots.copying import Copy, survey_sources
from shardtool.snapshots.metadata import CONFIG
from tests.real.snapshot_world import make_node

FREE_ROOM = "free room there, or name another place"
KINDS = ("file", "directory", "link")
PIECES = 7
"""In how many pieces the node below is copied: three of wal/log.1, one of each other file."""
Act = Callable[[], object]


class Acting:
    """A counter that has something done, as another process could, at the n-th piece of work."""

    def __init__(self, acts: Mapping[int, Act] | None = None) -> None:
        """Take what is to be done, by its number: from 1."""
        self._acts = acts or {}
        self.pieces = self.done = 0

    def advance(self, count: int) -> None:
        """Count it, and have something done."""
        self.done += count
        self.pieces += 1
        self._acts.get(self.pieces, lambda: None)()


@dataclass
class World:
    """A node and a bag to copy it into.

    Args:
        node: the node's directory.
        bag: the bag's.
        pauses: how long was waited before each pass, in s.
        acts: what else to have done instead of waiting, by the number of the pass from 1.
        disk: what stands for the disk that wal is on, where that is not the node's.
    """

    node: Path
    bag: Path
    pauses: list[float] = field(default_factory=list)
    acts: dict[int, Act] = field(default_factory=dict)
    disk: Path | None = None

    @property
    def sources(self) -> dict[str, Path]:
        wal = (self.disk or self.node) / "wal"
        return {"raft": self.node / "raft", "wal": wal, CONFIG: self.node / CONFIG}

    @property
    def size(self) -> int:
        """How many bytes there are to be copied."""
        return sum(len(content) for content in tree(self.sources).values() if content)

    def with_wal_on_a_disk_of_its_own(self) -> World:
        """Have wal elsewhere."""
        self.disk = self.node.with_name("disk")
        self.disk.mkdir()
        (self.node / "wal").rename(self.disk / "wal")
        return self

    def take_away(self) -> None:
        """Have wal's disk be gone: nothing in it changes."""
        assert self.disk is not None
        self.disk.rename(self.disk.with_name("away"))

    def bring_back(self) -> None:
        """Have wal's disk be there again, as it was."""
        assert self.disk is not None
        self.disk.with_name("away").rename(self.disk)

    def wait(self, seconds: float) -> None:
        """Take note of a pause."""
        self.pauses.append(seconds)
        self.acts.get(len(self.pauses), lambda: None)()

    def copy(self, counter: Acting | None = None, *, live: bool = False) -> Copy:
        """Copy the node, and insist that the bag has what the node has now."""
        job = Copy(self.sources, self.bag.parent, live=live, free_room=FREE_ROOM)
        with opened(self.bag, READ_DIRECTORY) as target:
            job.run(target, counter or Acting())
        there = tree(self.sources)
        assert tree({name: self.bag / "data" / name for name in self.sources}) == there
        assert job.entries == [e for e in survey_sources(self.sources) if e.kind in KINDS]
        assert job.digests() == {
            f"data/{path}": hashlib.sha256(content).hexdigest()
            for path, content in there.items()
            if content is not None
        }
        return job

    def refusal(self, counter: Acting | None = None, *, live: bool = False) -> str:
        """Return the line with which a copy ends that can't be made."""
        with pytest.raises(ShardtoolError) as told:
            self.copy(counter, live=live)
        return str(told.value)


def tree(tops: Mapping[str, Path]) -> dict[str, bytes | None]:
    """Return the bytes of each file in `tops`, and None for each directory, by their paths."""
    return {
        str(Path(name, path.relative_to(top))): path.read_bytes() if path.is_file() else None
        for name, top in tops.items()
        for path in (top, *top.rglob("*"))
        if not path.is_symlink() and (path.is_file() or path.is_dir())
    }


def append(path: Path, content: bytes = b"more") -> None:
    with path.open("ab") as file:
        file.write(content)


def overwrite(path: Path) -> None:
    """Write another byte, and give it the times that it had: only its change time tells.

    That is the tick's in which it is written, where the file system's times are no finer.
    """
    threading.Event().wait(0.02)
    times = path.stat()
    with path.open("r+b") as file:
        file.write(b"!")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def exchange(path: Path) -> None:
    """Put another file of the same bytes in its place, as who writes a file anew does."""
    path.with_name("new").write_bytes(path.read_bytes())
    path.with_name("new").rename(path)


def append_to_two(node: Path) -> None:
    """Write to the last and then to the first of them."""
    append(node / "wal/empty")
    append(node / "raft/log")


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "grown": (lambda node: append(node / "wal/log.1"), "wal/log.1"),
    "cut": (lambda node: os.truncate(node / "wal/log.1", 7), "wal/log.1"),
    "cut to nothing": (lambda node: os.truncate(node / "raft/name", 0), "raft/name"),
    "other bytes": (lambda node: overwrite(node / "raft/name"), "raft/name"),
    "other bytes of what was read": (lambda node: overwrite(node / "raft/log"), "raft/log"),
    "config": (lambda node: append(node / CONFIG), CONFIG),
    "mode": (lambda node: (node / "raft/name").chmod(0o640), "raft/name"),
    "time": (lambda node: os.utime(node / "raft/snapshot"), "raft/snapshot"),
    "new": (lambda node: (node / "wal/new").touch(), "wal"),
    "new directory": (lambda node: (node / "raft/snapshot/new").mkdir(), "raft/snapshot"),
    "gone": (lambda node: (node / "wal/log.1").unlink(), "wal"),
    "gone after it was read": (lambda node: (node / "raft/log").unlink(), "raft"),
    "exchanged": (lambda node: exchange(node / "wal/log.1"), "wal"),
    "renamed": (lambda node: (node / "wal/log.1").rename(node / "wal/log.2"), "wal"),
    "directory renamed": (
        lambda node: (node / "raft/snapshot").rename(node / "raft/other"),
        "raft",
    ),
    "the first of two": (append_to_two, "raft/log"),
}


def node_and_bag(root: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Make both in `root`, and have nobody wait between two passes."""
    node = make_node(root / "node")
    (node / "raft/snapshot/1").write_bytes(b"a raft snapshot\n")
    # What is done to it has another time, be the file system's times as coarse as they may.
    for path in (node, *node.rglob("*")):
        os.utime(path, ns=(1, 1_400_000_000_000_000_000), follow_symlinks=False)
    (root / "store/bag/data").mkdir(parents=True)
    world = World(node, root / "store/bag")
    monkeypatch.setattr(time, "sleep", world.wait)
    return world
