"""The state of a shard's directory: a digest that changes when what it holds may have changed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

from shardtool.disk.durable import READ_DIRECTORY_ITSELF, opened_quietly
from shardtool.errors import reason_of
from shardtool.influxdb.engines import EngineError

# What changes while a shard holds the same: the engines' own diaries, and their locks.
_DIARIES = re.compile(r"LOG|LOG\.old.*|LOCK|lock\.mdb")
# What a link that leads to nothing, or to itself, is answered with.
_NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


def state_of(shard: Path) -> str:
    """Return the state of a shard's directory, old or new, as 64 hex digits.

    Names, inodes, modes, sizes and times of all that can hold values or decide how they are
    read, and which directory it is. Nobody can set a ctime, so a file that was changed and whose
    mtime was set back has another state too.

    Raises:
        EngineError: the directory can't be looked at.
    """
    try:
        with opened_quietly(shard, READ_DIRECTORY_ITSELF) as directory:
            return state_in(directory)
    except OSError as error:
        raise EngineError(f"{shard}: can't be looked at: {reason_of(error)}") from None


def make_durable(shard: Path) -> None:
    """Sync all that can hold values in a shard's directory, and its names.

    A server writes without syncing each write: what was read from it may be in memory alone, and
    a power cut would take it along. Nothing is changed by this.

    Raises:
        OSError: a file can't be opened or synced.
    """
    with opened_quietly(shard, READ_DIRECTORY_ITSELF) as directory:
        for name in os.listdir(directory):
            if not _DIARIES.fullmatch(name):
                _with_content(name, directory, os.fsync)
        os.fsync(directory)


def drop_from_memory(shard: Path) -> None:
    """Have what is read next from the files of a shard's directory come from the disk.

    As far as the kernel lets us: what a server has mapped stays. Nothing is changed by this.
    """
    with (
        contextlib.suppress(OSError),
        opened_quietly(shard, READ_DIRECTORY_ITSELF) as directory,
    ):
        for name in os.listdir(directory):
            with contextlib.suppress(OSError):
                _with_content(name, directory, _drop)


def _drop(file: int) -> None:
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)


def _with_content(name: str, directory: int, act: Callable[[int], None]) -> None:
    """Open an entry that has content, and act on it."""
    # What a server has just removed need not be on disk any more.
    with contextlib.suppress(FileNotFoundError):
        if _holds_content(name, directory):
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
            with opened_quietly(name, flags, dir_fd=directory) as file:
                act(file)


def _holds_content(name: str, directory: int) -> bool:
    """Say whether an entry is a file, a directory or a link to one: all else has nothing on disk,
    can't be synced, and may not like to be opened."""
    kind = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
    if stat.S_ISLNK(kind):
        try:
            kind = os.stat(name, dir_fd=directory).st_mode
        except OSError as error:
            if error.errno in _NOWHERE:
                return False
            raise
    return stat.S_ISREG(kind) or stat.S_ISDIR(kind)


def state_in(directory: int) -> str:
    """Return the state of the directory that a descriptor is open on; see state_of.

    Raises:
        OSError: it can't be looked at.
    """
    own = os.fstat(directory)
    digest = hashlib.sha256(b"%d %d\0" % (own.st_dev, own.st_ino))
    for name in sorted(os.listdir(directory)):
        if _DIARIES.fullmatch(name):
            continue
        try:
            entry = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            continue  # a server has just removed it: the state of a moment later
        digest.update(
            b"%s\0%d %o %d %d %d\0"
            % (
                os.fsencode(name),
                entry.st_ino,
                entry.st_mode,
                entry.st_size,
                entry.st_mtime_ns,
                entry.st_ctime_ns,
            )
        )
    return digest.hexdigest()
