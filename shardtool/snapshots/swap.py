"""Swap what a restore has staged into its place, by renames.

Between the first and the last rename a small pending file stands in db/.shardtool: whoever
finds it finishes the swap, which needs nothing but the names.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shlex
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from shardtool.datadir.layout import Layout
from shardtool.disk.durable import (
    READ_DIRECTORY,
    opened,
    opened_quietly,
    sync_directory,
)
from shardtool.errors import ShardtoolError
from shardtool.journal import Journal
from shardtool.snapshots.address import Place
from shardtool.snapshots.moves import Move, moves_for
from shardtool.snapshots.pending import (
    Pending,
    Staged,
    pending_restore,
    remove_pending,
    write_pending,
)
from shardtool.snapshots.staging import remove_staged
from shardtool.snapshots.store import describe, told


def pending_of(snapshot: str, path: Place, stamp: str, moves: tuple[Move, ...]) -> Pending:
    """Return what goes into the pending file, once everything is staged.

    Raises:
        ShardtoolError: what was staged is not there any more.
    """
    staged = []
    for move in moves:
        with told(move.staged, "what was staged just now", "run restore again"):
            found = os.stat(move.staged, follow_symlinks=False)
        staged.append(Staged(str(move.place), found.st_ino, found.st_mtime_ns))
    return Pending(snapshot, str(path), stamp, tuple(staged))


def begin(
    layout: Layout, pending: Pending, moves: tuple[Move, ...], check: Callable[[], object]
) -> None:
    """Write journal and pending file: from here on the swap is finished by whoever comes.

    When this raises, nothing has been moved and what was staged is gone, or the pending file
    stands. An older pending file, of a restore that can't be finished, is replaced by one
    rename: at no moment is the node without one.

    Args:
        layout: the node.
        pending: the restore.
        moves: its moves, staged.
        check: raises where something is in the way by now; staging takes its time.

    Raises:
        ShardtoolError, OSError: one of them can't be written.
    """
    try:
        check()
        Journal(layout).append(
            "restore-intent",
            **asdict(pending),
            moves=[{"place": str(move.place), "aside": str(move.aside)} for move in moves],
        )
        write_pending(layout, pending)
    except BaseException:
        if not _may_stand(layout, pending):
            remove_staged(moves)
        raise


def _may_stand(layout: Layout, pending: Pending) -> bool:
    try:
        return pending_restore(layout) == pending
    except ShardtoolError:
        return True  # what can't be read may be it: what was staged must not go


def finish(layout: Layout, pending: Pending) -> tuple[Path, ...]:
    """Swap, write the journal, remove the pending file; safe to do again after a kill.

    Returns:
        The names under which the old raft and wal are now.

    Raises:
        ShardtoolError, OSError: it could not be finished; the pending file stands.
    """
    moves = moves_for(layout, pending.stamp)
    problem = why_unfinishable(layout, pending)
    if problem:
        raise ShardtoolError(problem)
    try:
        # Of a killed run the pending file may be in memory alone, and it is what tells of a half.
        sync_directory(layout.own)
        aside = _swap(moves, pending)
    except OSError as error:
        raise ShardtoolError(
            f"{layout.name}: expected to set raft and wal aside and to put the staged ones in "
            f"their places, found: {describe(error)}; nothing is lost: correct that and run "
            f"restore again, or go back by hand: {_way_back(layout, moves, pending)}"
        ) from None
    Journal(layout).append(
        "restored",
        snapshot=pending.snapshot,
        path=pending.path,
        stamp=pending.stamp,
        set_aside=[str(path) for path in aside],
    )
    remove_pending(layout)
    return aside


def _swap(moves: tuple[Move, ...], pending: Pending) -> tuple[Path, ...]:
    """Set aside what is in the places and put what is staged there; safe to do again.

    All old ones go first: from then on the old set is whole under its names aside, and the
    new one whole under its staged names or in place. Both renames of a place are made in one
    directory, in which what was staged for it was seen: its path may lead to another node's by now.

    Returns:
        The names under which something was set aside, by this call or the one it finishes.

    Raises:
        OSError: a rename failed, or what was staged is not in that directory.
    """
    with contextlib.ExitStack() as stack:
        waiting = []
        for move, staged in zip(moves, pending.staged, strict=True):
            parent = stack.enter_context(opened(move.place.parent, READ_DIRECTORY))
            os.fsync(parent)  # what a killed run has renamed may be in memory alone
            if not _is_it(move.place.name, staged, dir_fd=parent):
                if not _is_it(move.staged.name, staged, dir_fd=parent):
                    raise OSError(0, "something else", str(move.staged))
                waiting.append((move, parent))
        for move, parent in waiting:
            if _is_taken(move.place.name, dir_fd=parent):
                aside = _free_name(move.aside.name, dir_fd=parent)
                os.rename(move.place.name, aside, src_dir_fd=parent, dst_dir_fd=parent)
                os.fsync(parent)
        for move, parent in waiting:
            os.rename(move.staged.name, move.place.name, src_dir_fd=parent, dst_dir_fd=parent)
            os.fsync(parent)
    return set_aside(moves)


def _is_it(path: Path | str, staged: Staged, *, dir_fd: int | None = None) -> bool:
    """Say whether what was staged is at `path` now."""
    try:
        found = os.stat(path, dir_fd=dir_fd, follow_symlinks=False)
    except OSError:
        return False
    return (found.st_ino, found.st_mtime_ns) == (staged.inode, staged.mtime_ns)


def is_swapped(layout: Layout, pending: Pending) -> bool:
    """Say whether all that was staged is in its place: a kill came after the last rename."""
    moves = moves_for(layout, pending.stamp)
    return all(
        _is_it(move.place, staged) for move, staged in zip(moves, pending.staged, strict=True)
    )


def why_unfinishable(layout: Layout, pending: Pending) -> str:
    """Say why the pending restore can't be finished, and how to get out; empty where it can.

    Each place must hold what was staged for it, or that must still be under its staged name:
    known by its inode, for what a name stands for may have been replaced.
    """
    moves = moves_for(layout, pending.stamp)
    lost = [
        move
        for move, staged in zip(moves, pending.staged, strict=True)
        if not _is_it(move.place, staged) and not _is_it(move.staged, staged)
    ]
    if not lost:
        return ""
    begun_for = [staged.place for staged in pending.staged]
    moved = begun_for != [str(move.place) for move in moves]
    elsewhere = f" (it was begun for {' and '.join(begun_for)})" if moved else ""
    return (
        f"{layout.name}: expected what the interrupted restore of {pending.snapshot} had staged, "
        f"found {' and '.join(str(move.staged) for move in lost)} gone or changed{elsewhere}; "
        f"{_where_things_are(moves, pending)}; restore a snapshot anew, which deletes nothing: "
        f"shardtool restore ID --yes; or go back by hand: {_way_back(layout, moves, pending)}"
    )


def _where_things_are(moves: tuple[Move, ...], pending: Pending) -> str:
    told_of = []
    for move, staged in zip(moves, pending.staged, strict=True):
        if _is_it(move.place, staged):
            what = "is the restored one"
        elif os.path.lexists(move.place):
            what = "is not the restored one"
        else:
            what = "is missing"
        aside = set_aside((move,))
        before = f", the one before it is {aside[0]}" if aside else ""
        told_of.append(f"{move.place} {what}{before}")
    return "; ".join(told_of)


def _way_back(layout: Layout, moves: tuple[Move, ...], pending: Pending) -> str:
    """Return the shell's words that put back what was set aside, and delete nothing of it.

    What the restore put where nothing was goes out of the way too: it is half of a set.
    """
    words = []
    for move, staged in zip(moves, pending.staged, strict=True):
        aside = set_aside((move,))
        if os.path.lexists(move.place) and (aside or _is_it(move.place, staged)):
            away = _free_name(f"{move.place}.half-restored")
            words.append(f"mv -T {shlex.quote(str(move.place))} {shlex.quote(away)}")
        if aside:
            words.append(f"mv -T {shlex.quote(str(aside[0]))} {shlex.quote(str(move.place))}")
    return " && ".join([*words, f"rm {shlex.quote(str(layout.pending_restore))}"])


def set_aside(moves: tuple[Move, ...]) -> tuple[Path, ...]:
    """Return the names under which restores have set aside what was in the places."""
    return tuple(path for move in moves for path in _names_aside(move))


def _free_name(name: str, *, dir_fd: int | None = None) -> str:
    """Return `name`, or name-2 and so on where that is taken: a server that was started on a
    half-restored directory makes new ones, and they are nobody's to lose.

    Raises:
        OSError: a thousand of them are taken.
    """
    names = (name if n == 1 else f"{name}-{n}" for n in range(1, 1000))
    found = next((name for name in names if not _is_taken(name, dir_fd=dir_fd)), None)
    if found is None:
        raise OSError(errno.EEXIST, "all names like it are taken", name)
    return found


def _is_taken(name: str, *, dir_fd: int | None) -> bool:
    try:
        os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _names_aside(move: Move) -> list[Path]:
    """Return the names of one restore, the first of them first."""
    if not move.aside.parent.is_dir():
        return []
    ours = re.compile(f"{re.escape(move.aside.name)}(-\\d{{1,3}})?", re.ASCII)
    with opened_quietly(move.aside.parent, READ_DIRECTORY) as directory:
        names = sorted(filter(ours.fullmatch, os.listdir(directory)), key=lambda n: (len(n), n))
    return [move.aside.with_name(name) for name in names]
