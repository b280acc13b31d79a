"""A snapshot of a small node, what is done between two steps of a restore, and what those were."""

from __future__ import annotations

import codecs
import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from shardtool.datadir.layout import Layout, find_layout
from shardtool.datadir.server import Search
from shardtool.disk.copy import Meter
from shardtool.disk.durable import READ_DIRECTORY, opened
from shardtool.snapshots.backup import Backup, Onward, take_snapshot
from shardtool.snapshots.metadata import Metadata
from shardtool.snapshots.moves import Move, moves_for
from shardtool.snapshots.staging import stage
from shardtool.snapshots.verify import Verification
from tests.real.snapshot_world import Uncounted

STAMP = "20261127T080000Z"
_STAMP_S = 1_795_766_400.0
_NOBODY_SEEN = Search()
_MOST_CPU_S = 5.0  # a hundred times what a small node takes


@dataclass(frozen=True)
class Taken:
    """A snapshot that was taken.

    Args:
        layout: the node.
        path: the snapshot's directory.
        store: a descriptor on the store's.
        verified: what its verification found.
    """

    layout: Layout
    path: Path
    store: int
    verified: Verification

    @property
    def metadata(self) -> Metadata:
        assert self.verified.metadata is not None
        return self.verified.metadata

    @property
    def moves(self) -> tuple[Move, ...]:
        """Where raft and wal go."""
        return moves_for(self.layout, STAMP)

    def staged(self, *moves: Move, meter: Meter = Uncounted) -> tuple[str, ...]:
        """Stage raft and wal, or those of `moves`; return the warnings."""
        return stage(self.store, self.verified, moves or self.moves, meter)


def take(
    node: Path,
    store: Path,
    meter: Meter = Uncounted,
    *,
    live: bool = False,
    search: Search = _NOBODY_SEEN,
    onward: Onward | None = None,
) -> Backup:
    """Take a snapshot of `node` into the directory `store`."""
    layout = find_layout(str(node), None, {})
    with _ended():
        return take_snapshot(layout, store, meter, live=live, search=search, onward=onward)


@contextlib.contextmanager
def _ended() -> Iterator[None]:
    """Fail what goes round for ever, such as a search for a free name where all are taken.

    Whoever kills the tests for that leaves their mounts behind.
    """

    def fail(number: int, frame: object) -> None:
        pytest.fail("it goes round for ever")

    before = signal.signal(signal.SIGPROF, fail)
    signal.setitimer(signal.ITIMER_PROF, _MOST_CPU_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def stopped_clock(monkeypatch: pytest.MonkeyPatch) -> str:
    """Have it be STAMP's time for as long as the test runs; return STAMP."""
    monkeypatch.setattr(time, "time", lambda: _STAMP_S)
    return STAMP


@contextlib.contextmanager
def taken(node: Path, store: Path) -> Iterator[Taken]:
    """Take a snapshot of `node` into the new directory `store`."""
    store.mkdir()
    made = take(node, store)
    with opened(store, READ_DIRECTORY) as descriptor:
        yield Taken(find_layout(str(node), None, {}), made.path, descriptor, made.verified)


@contextlib.contextmanager
def rights_of(uid: int, gid: int) -> Iterator[None]:
    """Act as another user in this very process: mutants are met here, and not in a child."""
    # Python's own files may be out of that user's reach, and what it did not find once it does
    # not look for again: it has to have them before.
    for codec in ("ascii", "utf-8"):
        codecs.lookup(codec)
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def acting(doing: str, act: Callable[[], object]) -> Meter:
    """Return a meter that has `act` done whenever `doing` begins, as another process could."""

    def meter(begun: str, total: int) -> Uncounted:
        if begun == doing:
            act()
        return Uncounted(begun, total)

    return meter


@dataclass
class Steps:
    """What makes things durable or open to others, in its order: 'sync raft', 'chmod raft 755'."""

    seen: list[str]

    def meter(self, doing: str, total: int) -> Uncounted:
        """Note what begins."""
        self.seen.append(doing)
        return Uncounted(doing, total)


def noted(monkeypatch: pytest.MonkeyPatch) -> Steps:
    """Have syncs, modes and renames noted; they are made all the same."""
    seen: list[str] = []
    fsync, fchmod, rename = os.fsync, os.fchmod, os.rename

    def name_of(descriptor: int) -> str:
        return Path(f"/proc/self/fd/{descriptor}").readlink().name

    def synced(descriptor: int) -> None:
        seen.append(f"sync {name_of(descriptor)}")
        fsync(descriptor)

    def changed(descriptor: int, mode: int) -> None:
        seen.append(f"chmod {name_of(descriptor)} {mode:o}")
        fchmod(descriptor, mode)

    def renamed(old: str, new: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        seen.append(f"rename {old} {new}")
        rename(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "fchmod", changed)
    monkeypatch.setattr(os, "rename", renamed)
    return Steps(seen)
