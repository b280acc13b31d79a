"""The pending file: a restore whose swap has begun and not ended."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from shardtool.datadir.layout import Layout
from shardtool.disk.copy import read_bounded
from shardtool.disk.durable import READ_DIRECTORY_ITSELF, opened, replace_file
from shardtool.errors import ShardtoolError
from shardtool.snapshots.metadata import DIRECTORIES, is_id
from shardtool.snapshots.store import told

SCHEMA = "shardtool/pending-restore/2"
_MOST_BYTES = 1 << 16


@dataclass(frozen=True)
class Staged:
    """What was staged for one place: by this it is known again, under whichever name.

    A rename changes neither number. The time is that of the snapshot, so that a directory that
    somebody made later is not taken for it, even where the file system gave it the same inode.

    Args:
        place: where it was to go, for people: a node may have moved since.
        inode: the number of the staged directory.
        mtime_ns: when its content changed last, in ns since the epoch.
    """

    place: str
    inode: int
    mtime_ns: int


@dataclass(frozen=True)
class Pending:
    """A restore whose swap has begun and not ended.

    Args:
        snapshot: the id of the snapshot that is being put in place.
        path: where that snapshot lies.
        stamp: the UTC time in the names of what is staged and set aside.
        staged: what was staged, in the order of the moves: raft, wal.
    """

    snapshot: str
    path: str
    stamp: str
    staged: tuple[Staged, ...]


def pending_restore(layout: Layout) -> Pending | None:
    """Return the restore that was interrupted in the middle of its swap, or None. Pure read.

    Raises:
        ShardtoolError: the pending file is there but can't be read.
    """
    path = layout.pending_restore
    with contextlib.ExitStack() as stack:
        # A link would be read elsewhere: what is pending there is not pending here.
        with told(layout.own, "a directory of shardtool's own", "move it away"):
            try:
                own = stack.enter_context(opened(layout.own, READ_DIRECTORY_ITSELF))
            except FileNotFoundError:
                return None
        return _pending_in(own, path)


def _pending_in(own: int, path: Path) -> Pending | None:
    advice = "see that raft and wal belong together, then remove it"
    with told(path, "what shardtool wrote when a restore began", advice):
        try:
            content = read_bounded(path.name, _MOST_BYTES, dir_fd=own)
        except FileNotFoundError:
            return None
        try:
            found = json.loads(content)
            staged = tuple(Staged(**fields) for fields in found["staged"])
            sound = found["schema"] == SCHEMA and is_id(found["stamp"]) and is_id(found["snapshot"])
            sound = sound and len(staged) == len(DIRECTORIES) and all(map(_is_sound, staged))
            if sound and isinstance(found["path"], str):
                return Pending(found["snapshot"], found["path"], found["stamp"], staged)
        except (ValueError, TypeError, KeyError, RecursionError):
            pass
        raise OSError(0, "something else", str(path))


def _is_sound(staged: Staged) -> bool:
    return isinstance(staged.place, str) and type(staged.inode) is type(staged.mtime_ns) is int


def refuse_half_restored(layout: Layout) -> None:
    """Refuse to take the directory for a whole one while a restore's swap is unfinished.

    Raises:
        ShardtoolError: one is pending.
    """
    pending = pending_restore(layout)
    if pending is not None:
        raise ShardtoolError(
            f"{layout.name}: expected raft and wal that belong together, found the restore of "
            f"{pending.snapshot} interrupted in its swap; shardtool restore finishes it"
        )


def write_pending(layout: Layout, pending: Pending) -> None:
    """Write the pending file: it is there whole, or not at all.

    Raises:
        OSError: it can't be written.
    """
    name = layout.pending_restore.name
    content = json.dumps({"schema": SCHEMA, **asdict(pending)}).encode("ascii") + b"\n"
    # db/.shardtool must be no link: nothing is to be written elsewhere, or removed there.
    with opened(layout.own, READ_DIRECTORY_ITSELF) as own:
        replace_file(own, name, content, new=f"{name}.new", like=layout.db)


def remove_pending(layout: Layout) -> None:
    """Remove the pending file, for good.

    Raises:
        OSError: it can't be removed.
    """
    with opened(layout.own, READ_DIRECTORY_ITSELF) as own:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(layout.pending_restore.name, dir_fd=own)
        os.fsync(own)
