"""Where a run keeps what goes when it ends: links to shards' files in memory, all else on disk."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shardtool.disk.durable import READ_DIRECTORY_ITSELF, opened
from shardtool.disk.files import temporary_directory
from shardtool.errors import ShardtoolError, reason_of
from shardtool.influxdb.engines import no_room

_PREFIX = "shardtool-links-"
_NAMED_BY = ("TMPDIR", "TEMP", "TMP")  # what tempfile goes by
_MEMORY = Path("/dev/shm")
# When the last session of a user ends, logind removes all that is theirs in /dev/shm, in use or
# not (logind.conf(5), RemoveIPC=), but for root and users of the system.
_LAST_SYSTEM_USER = 999
# For each child. A link takes 1 kB, which is never swapped out, and 100 GB of shards have 50,000.
_MEMORY_FREE = 1 << 30  # bytes
_LINKS_FREE = 200_000
# Engines write diaries there. A container has 64 MB, and maybe a limit that none of these tells.
_ROOM_FREE = 128 << 20  # bytes
_SPOOL_IN_MEMORY = 1 << 20  # bytes


@contextlib.contextmanager
def directory_for_links(children: int) -> Iterator[Path]:
    """Make a directory for links to the files of shards and yield it; it goes as
    scratch_directory's does.

    It is in memory, but where TMPDIR names another place or memory is short: a disk's file system
    has to write down each link and that it went, which takes longer than to read a small file.

    Args:
        children: so many processes make links at the same time.

    Raises:
        ShardtoolError: it can't be made.
    """
    with contextlib.ExitStack() as stack:
        path = None
        with contextlib.suppress(OSError):
            # Whatever this run is given: what a kill left in memory is there until a reboot.
            _sweep(_MEMORY)
            if not any(map(os.environ.get, _NAMED_BY)) and _may_use_memory(children):
                path = _made_and_locked(_MEMORY, stack)
        if path is None:
            path = stack.enter_context(scratch_directory())
        else:
            with contextlib.suppress(OSError):
                _sweep(Path(tempfile.gettempdir()))
        yield path


def _may_use_memory(children: int) -> bool:
    import psutil

    room = os.statvfs(_MEMORY)
    return bool(
        os.geteuid() <= _LAST_SYSTEM_USER
        and psutil.virtual_memory().available >= children * _MEMORY_FREE
        # None at all: as much, or as many, as there is memory.
        and (room.f_bavail * room.f_frsize >= _ROOM_FREE or not room.f_blocks)
        and (room.f_favail >= children * _LINKS_FREE or not room.f_files)
    )


@contextlib.contextmanager
def childs_directory(links: Path) -> Iterator[Path]:
    """Make a directory for one child's links and yield it; it goes at the end.

    Raises:
        ShardtoolError: there is no room for it.
    """
    with contextlib.ExitStack() as stack:
        try:
            path = stack.enter_context(temporary_directory(parent=links))
        except OSError as error:
            raise no_room(links, reason_of(error)) from None
        yield path


class SpoolFile(tempfile.SpooledTemporaryFile[bytes]):
    """A file without a name, which is in memory until it is large, and then in TMPDIR.

    What it can't take is raised as ShardtoolError.
    """

    def __init__(self) -> None:
        """Begin in memory."""
        super().__init__(_SPOOL_IN_MEMORY)

    def write(self, data: Any) -> int:
        """Append bytes, as any file does."""
        try:
            return super().write(data)
        except OSError as error:
            raise _no_room_for_spool(error) from None

    def seek(self, *place: int) -> int:
        """Go to a place, as any file does; what was held back is written first."""
        try:
            return super().seek(*place)
        except OSError as error:
            raise _no_room_for_spool(error) from None

    def close(self) -> None:
        """Close it; what could not be written was told before, and goes."""
        with contextlib.suppress(OSError):
            super().close()


def place_of_spools() -> str:
    """Return the directory of temporary files, or these words where there is none."""
    try:
        return tempfile.gettempdir()
    except OSError:
        return "temporary files"


def _no_room_for_spool(error: OSError) -> ShardtoolError:
    return ShardtoolError(
        f"{place_of_spools()}: expected room for values that are lost, found: "
        f"{reason_of(error)}; set TMPDIR to a directory with more"
    )


@contextlib.contextmanager
def scratch_directory() -> Iterator[Path]:
    """Make a directory in TMPDIR and yield it; it goes at the end, and so do those of runs that
    were killed.

    Raises:
        ShardtoolError: it can't be made.
    """
    with contextlib.ExitStack() as stack:
        try:
            parent = tempfile.gettempdir()
            _sweep(Path(parent))
            path = _made_and_locked(Path(parent), stack)
        except OSError as error:
            raise ShardtoolError(
                f"{place_of_spools()}: expected a directory that can be written, "
                f"found: {reason_of(error)}; set TMPDIR to one"
            ) from None
        yield path


def _made_and_locked(parent: Path, stack: contextlib.ExitStack) -> Path:
    """Make a directory with a lock on it, which tells other runs that it is in use."""
    while True:
        with contextlib.ExitStack() as made:
            path = made.enter_context(temporary_directory(prefix=_PREFIX, parent=parent))
            # Before the lock is on it, another run may sweep it away: then there is a next one.
            with contextlib.suppress(FileNotFoundError, BlockingIOError):
                descriptor = made.enter_context(opened(path, READ_DIRECTORY_ITSELF))
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if path.exists():
                    stack.push(made.pop_all())
                    return path


def _sweep(parent: Path) -> None:
    """Remove what killed runs of this user left in `parent`: links, and engines' diaries."""
    for path in parent.glob(f"{_PREFIX}*"):
        with (
            contextlib.suppress(OSError),
            opened(path, READ_DIRECTORY_ITSELF) as descriptor,
        ):
            if os.fstat(descriptor).st_uid == os.geteuid():
                # Whoever still works there holds this lock.
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path)
