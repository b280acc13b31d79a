"""What readers of files that others write share: opening a hostile one, telling zeros."""

from __future__ import annotations

import contextlib
import os
import stat
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


def zeros_until_end(file: BinaryIO) -> bool:
    """Say whether nothing but zeros follows in a file."""
    while chunk := file.read(_CHUNK):
        if not is_zero(chunk):
            return False
    return True


def is_zero(data: bytes) -> bool:
    """Say whether these bytes are all zero."""
    return not data.strip(b"\0")
