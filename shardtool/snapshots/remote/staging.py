"""A private directory for what goes to a bucket or comes from it; nothing of it outlives us.

It lies in $TMPDIR, else in /var/tmp, for /tmp may be memory. A kill -9 leaves it there, under a
name by which the next run of the same user knows it and removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from shardtool.disk.durable import READ_DIRECTORY, READ_DIRECTORY_ITSELF, opened
from shardtool.disk.remove import remove_tree
from shardtool.errors import ShardtoolError, reason_of
from shardtool.snapshots.store import PRIVATE_DIRECTORY, told

OTHER_ROOM = "set TMPDIR to another directory"
_PREFIX = "shardtool-s3-"
_OURS = re.compile(rf"{_PREFIX}\w+", re.ASCII)
_STORE = "store"


@contextlib.contextmanager
def staging() -> Iterator[Path]:
    """Make an empty store that is removed when the block ends, however it ends.

    Raises:
        ShardtoolError: it can't be made, or not be removed.
    """
    place = _place()
    with contextlib.ExitStack() as stack:
        with told(place, "to make a directory in it", OTHER_ROOM):
            top = stack.enter_context(opened(place, READ_DIRECTORY))
            _remove_leftovers(top)
        left: list[str] = []
        made: Path | None = None
        try:
            with told(place, "to make a directory in it", OTHER_ROOM):
                while made is None or not _locked(made.name, top, stack):
                    made = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
            yield made / _STORE
        finally:
            if made is not None:
                left = _removed(made.name, top)
    if left:
        raise ShardtoolError(
            f"{made}: expected to remove what was staged, found: {left[0]}; remove it by hand, "
            "it holds password hashes"
        )


def _locked(name: str, top: int, stack: contextlib.ExitStack) -> bool:
    """Lock a new directory until `stack` ends, and make the store in it.

    Returns:
        Whether it is ours: who looks for leftovers just then may have got hold of it first.
    """
    try:
        lock = stack.enter_context(opened(name, READ_DIRECTORY_ITSELF, dir_fd=top))
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.mkdir(_STORE, PRIVATE_DIRECTORY, dir_fd=lock)
    except (BlockingIOError, FileNotFoundError):
        return False
    return True


def _place() -> Path:
    """Return the directory for large temporary things."""
    named = os.environ.get("TMPDIR")
    if named:
        return Path(named).absolute()
    usual = Path("/var/tmp")
    return usual if os.access(usual, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())


def _removed(name: str, top: int) -> list[str]:
    """Remove a staging directory from inside: nothing of it is ever among others' names.

    Returns:
        What is left, as 'name: reason'.
    """
    try:
        with opened(name, READ_DIRECTORY_ITSELF, dir_fd=top) as directory:
            left = [
                failure
                for inside in os.listdir(directory)
                for failure in remove_tree(directory, inside).failures
            ]
        if not left:
            os.rmdir(name, dir_fd=top)
    except FileNotFoundError:
        return []
    except OSError as error:
        return [f"{name}: {reason_of(error)}"]
    return left


def _remove_leftovers(top: int) -> None:
    """Remove what killed runs of this user left: ours by name and owner, and locked by nobody."""
    for name in sorted(os.listdir(top)):
        if not _OURS.fullmatch(name):
            continue
        with (
            contextlib.suppress(OSError),
            opened(name, READ_DIRECTORY_ITSELF, dir_fd=top) as directory,
        ):
            found = os.fstat(directory)
            if found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) == PRIVATE_DIRECTORY:
                fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _removed(name, top)
