"""Where a run keeps what goes when it ends: links to shards' files in memory, all else on disk."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from shardtool.disk.durable import READ_DIRECTORY_ITSELF, opened
from shardtool.disk.files import temporary_directory
from shardtool.errors import ShardtoolError, reason_of

_PREFIX = "shardtool-links-"
_NAMED_BY = ("TMPDIR", "TEMP", "TMP")  # what tempfile goes by
_MEMORY = Path("/dev/shm")
# A link takes 1 kB of memory that is never swapped out, and a shard of 100 GB has 50,000 files:
# less than a tenth of it even so.
_MEMORY_FREE = 1 << 30  # bytes
_LINKS_FREE = 200_000
_SPOOL_IN_MEMORY = 1 << 20  # bytes
_ROOM_FREE = 16 << 20  # bytes, for engines' diaries


@contextlib.contextmanager
def directory_for_links() -> Iterator[Path]:
    """Make a directory for links to the files of shards and yield it; it goes as
    scratch_directory's does.

    It is in memory, but where TMPDIR names another place or memory is short: a disk's file system
    has to write down each link and that it went, which takes longer than to read a small file.

    Raises:
        ShardtoolError: it can't be made.
    """
    with contextlib.ExitStack() as stack:
        path = None
        with contextlib.suppress(OSError):
            # Whatever other runs were given: what a kill left in memory stays there until a reboot.
            _sweep(_MEMORY)
            _sweep(Path(tempfile.gettempdir()))
            if not any(map(os.environ.get, _NAMED_BY)) and _memory_is_free():
                path = _made_and_locked(_MEMORY, stack)
        yield path or stack.enter_context(scratch_directory())


def opened_spool() -> tempfile.SpooledTemporaryFile[bytes]:
    """Return a file without a name, which is in memory until it is large, and then in TMPDIR."""
    return tempfile.SpooledTemporaryFile(_SPOOL_IN_MEMORY)


def _memory_is_free() -> bool:
    import psutil

    room = os.statvfs(_MEMORY)
    return bool(
        psutil.virtual_memory().available >= _MEMORY_FREE
        and room.f_bavail * room.f_frsize >= _ROOM_FREE
        and (room.f_favail >= _LINKS_FREE or not room.f_files)  # 0: as many as there is memory
    )


@contextlib.contextmanager
def scratch_directory() -> Iterator[Path]:
    """Make a directory in TMPDIR and yield it; it goes at the end, and so do those of runs that
    were killed.

    Raises:
        ShardtoolError: it can't be made.
    """
    parent = Path(tempfile.gettempdir())
    with contextlib.ExitStack() as stack:
        try:
            _sweep(parent)
            path = _made_and_locked(parent, stack)
        except OSError as error:
            raise ShardtoolError(
                f"{parent}: expected room for links to the shards' files, "
                f"found: {reason_of(error)}; set TMPDIR to a directory that can be written"
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
