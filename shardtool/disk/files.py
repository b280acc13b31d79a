"""What readers of files that others write share: opening a hostile one, telling zeros, a
directory for links to them."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from shardtool.disk.durable import opened_quietly

_CHUNK = 1 << 20  # bytes read at a time


@contextlib.contextmanager
def opened_file(path: Path, limit: int) -> Iterator[tuple[BinaryIO, int]]:
    """Open a regular file for reading; yield it and its size in bytes.

    Args:
        path: the file; a link is not followed.
        limit: bytes that it may have.

    Raises:
        OSError: it can't be opened, is no regular file, or is larger.
    """
    # O_NONBLOCK: opening a FIFO must not wait for a writer.
    with opened_quietly(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK) as descriptor:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(0, "no regular file")
        if found.st_size > limit:
            raise OSError(0, f"{found.st_size} bytes, more than the {limit} it may have")
        with open(descriptor, "rb", closefd=False) as file:
            yield file, found.st_size


@contextlib.contextmanager
def temporary_directory(*, prefix: str = "", parent: Path | None = None) -> Iterator[Path]:
    """Make a directory of its owner's alone and yield it; at the end it goes, as far as it can.

    Not tempfile's own, which sets the mode of what it can't remove and, until Python 3.11.8 and
    3.12.1, follows a link to do so: in a directory of links that is the mode of a user's file.

    Args:
        prefix: what its name begins with.
        parent: where it is made; None for the usual place.

    Raises:
        OSError: it can't be made.
    """
    path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def zeros_until_end(file: BinaryIO) -> bool:
    """Say whether nothing but zeros follows in a file."""
    while chunk := file.read(_CHUNK):
        if not is_zero(chunk):
            return False
    return True


def is_zero(data: bytes) -> bool:
    """Say whether these bytes are all zero."""
    return not data.strip(b"\0")
