"""Locks: the one that shardtool takes, and a look at those of others that takes none."""

from __future__ import annotations

import contextlib
import enum
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shardtool.disk.durable import READ_DIRECTORY, opened
from shardtool.errors import AnotherShardtoolError

# struct flock on 64-bit Linux: l_type, l_whence, l_start, l_len, l_pid, padding.
_FLOCK = struct.Struct("hhqqi0q")


@contextlib.contextmanager
def exclusive(directory: Path, *, purpose: str) -> Iterator[None]:
    """Hold the one lock on `directory` while the block runs.

    The lock is a flock on the directory itself: no lock file to leave behind, nothing written,
    and the kernel lets go of it when the process dies, however it dies.

    Args:
        directory: the directory to lock; it must exist.
        purpose: what the lock guards, for the message: "data directory", "snapshot directory".

    Raises:
        AnotherShardtoolError: another process holds it; the message names its pid where the
            kernel tells.
        OSError: the directory can't be opened.
    """
    with opened(directory, READ_DIRECTORY) as descriptor:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = _flock_holder(descriptor)
            who = f"pid {pid}" if pid else "another process"
            raise AnotherShardtoolError(
                f"{directory}: expected to be the only shardtool on this {purpose}, "
                f"found {who} at work on it; wait for it to end"
            ) from None
        yield


def _flock_holder(descriptor: int) -> int | None:
    """Given a descriptor on a file that is flocked, return the holder's pid if it can be seen."""
    entry = os.fstat(descriptor)
    # proc(5): major and minor in hex, the inode in decimal.
    wanted = f"{os.major(entry.st_dev):02x}:{os.minor(entry.st_dev):02x}:{entry.st_ino}"
    try:
        with open("/proc/locks", encoding="ascii", errors="replace") as lines:
            for line in lines:
                fields = line.split()
                if fields[1:2] == ["FLOCK"] and fields[5] == wanted:
                    return int(fields[4]) or None
    except (OSError, ValueError, IndexError):
        pass  # a courtesy in a message; without it the message says "another process"
    return None


class Lock(enum.Enum):
    """What a look at a lock file shows."""

    FREE = "free"
    HELD = "held"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class LockState:
    """A lock file as another process would find it: its state, and the holder's pid if held.

    `pid` is None where the kernel does not tell: a holder in another pid namespace.
    """

    state: Lock
    pid: int | None = None


def look_at_lock(name: str, *, dir_fd: int) -> LockState:
    """Say whether another process has a write lock on file `name` in `dir_fd`, taking none.

    LevelDB and RocksDB hold a POSIX lock on their LOCK file while a database is open
    (FORMATS.md, "Who has what open"). F_GETLK asks what would be in the way and changes
    nothing. Beware: closing any descriptor of a file drops this process's own POSIX locks on
    it, so a process that holds such a lock must not look at it through this function.

    Returns:
        FREE where there is no such file or no lock, UNKNOWN where it can't be opened or is
        no regular file.
    """
    try:
        with opened(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=dir_fd) as lock:
            if not stat.S_ISREG(os.fstat(lock).st_mode):
                return LockState(Lock.UNKNOWN)
            question = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            answer = fcntl.fcntl(lock, fcntl.F_GETLK, question)
    except FileNotFoundError:
        return LockState(Lock.FREE)
    except OSError:
        return LockState(Lock.UNKNOWN)
    kind, _, _, _, pid = _FLOCK.unpack(answer)
    if kind == fcntl.F_UNLCK:
        return LockState(Lock.FREE)
    return LockState(Lock.HELD, pid if pid > 0 else None)
