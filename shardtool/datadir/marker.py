"""The marker that 0.8 writes into an old shard that it is done with: the file MIGRATED."""

from __future__ import annotations

import os
import stat
import time
from dataclasses import dataclass

from shardtool.disk.durable import opened_quietly
from shardtool.errors import reason_of

MARKER = "MIGRATED"
# FORMATS.md, "db/shard_db/NNNNN": exactly these bytes.
CONTENT = b"done.\n"
_CLOCK_SKEW = 60 * 1_000_000_000  # ns; what a file server's clock may be ahead of ours


@dataclass(frozen=True)
class Marker:
    """What stands under the marker's name.

    Args:
        present: something has the name.
        written_at_ns: its mtime in ns since the epoch; None where there is none.
        problem: empty for a sound marker, else a reason word: 'marker-not-a-file',
            'marker-content', 'marker-in-future' or 'marker-unreadable'.
        detail: what was found instead, in words.
    """

    present: bool = False
    written_at_ns: int | None = None
    problem: str = ""
    detail: str = ""

    @property
    def valid(self) -> bool:
        """A marker as 0.8 writes it: a regular file with exactly its bytes."""
        return self.present and not self.problem


def read_marker(shard: int) -> Marker:
    """Look at the marker in the directory that descriptor `shard` is open on.

    Raises nothing: what can't be read is a marker with a problem.
    """
    try:
        entry = os.stat(MARKER, dir_fd=shard, follow_symlinks=False)
    except FileNotFoundError:
        return Marker()
    except OSError as error:
        return Marker(True, None, "marker-unreadable", reason_of(error))
    written = entry.st_mtime_ns
    if not stat.S_ISREG(entry.st_mode):
        kind = stat.filemode(entry.st_mode)[0]
        found = {"d": "a directory", "l": "a link"}.get(kind, "no regular file")
        return Marker(True, written, "marker-not-a-file", found)
    try:
        # O_NONBLOCK: should it have become a FIFO since, opening must not wait for a writer.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        with opened_quietly(MARKER, flags, dir_fd=shard) as file:
            content = os.read(file, len(CONTENT) + 1)
    except FileNotFoundError:
        return Marker()
    except OSError as error:
        return Marker(True, written, "marker-unreadable", reason_of(error))
    if content != CONTENT:
        return Marker(True, written, "marker-content", _difference(content, entry.st_size))
    if written > time.time_ns() + _CLOCK_SKEW:
        # Whatever 0.7 writes after a rollback would be older than such a marker.
        return Marker(True, written, "marker-in-future", "its time is later than now")
    return Marker(True, written)


def _difference(content: bytes, size: int) -> str:
    if not content:
        return "an empty file"
    return f"{size} bytes that begin with {content!r}, not {CONTENT!r}"
