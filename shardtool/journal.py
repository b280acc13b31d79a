"""The journal: what was done to a node, when, on what evidence. Written before and after.

One JSON object a line in db/.shardtool/journal, appended and synced. A line that a power cut
has torn is passed over by the reader and closed by the next writer; no line is ever changed.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shardtool.datadir.layout import Layout
from shardtool.disk.durable import (
    READ_DIRECTORY_ITSELF,
    give_to_owner_of,
    make_directories,
    opened,
    opened_quietly,
    sync_directory,
    write_all,
)
from shardtool.errors import ShardtoolError, reason_of

SCHEMA = "shardtool/journal/1"
# Closes a torn line so that it can never be read: one that lacks nothing but its end was not
# there for whoever read it meanwhile, and must not appear later.
_TORN = " (torn)\n"


@dataclass(frozen=True)
class History:
    """What a journal holds.

    Args:
        records: in the order in which they were written.
        damaged: numbers of the lines that can't be read (torn by a power cut, or tampered with).
    """

    records: tuple[dict[str, Any], ...]
    damaged: tuple[int, ...] = ()


class Journal:
    """A node's journal."""

    def __init__(self, layout: Layout) -> None:
        """Name the journal of `layout`; nothing is opened or created yet."""
        self._db = layout.db
        self._is_named = False  # its name, and its directory's, are durable
        self.path: Path = layout.own / "journal"

    def append(self, event: str, **fields: Any) -> None:
        """Write one record and sync it; see append_all."""
        self.append_all([{"event": event, **fields}])

    def append_all(self, records: Iterable[dict[str, Any]]) -> None:
        """Write records, in one write where the kernel allows, and sync them.

        When this returns they are on disk; when it raises, each is there whole or not at all
        as far as a reader can tell.

        Raises:
            ShardtoolError: the journal can't be written: nothing may be done without it.
        """
        now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        lines = [json.dumps({"schema": SCHEMA, "time": now, **r}) + "\n" for r in records]
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            make_directories(self.path.parent, like=self._db)
            is_new = not os.path.lexists(self.path)
            # db/.shardtool itself must be no link either: nothing is to be written elsewhere.
            with (
                opened(self.path.parent, READ_DIRECTORY_ITSELF) as own,
                opened(self.path.name, flags, dir_fd=own) as journal,
            ):
                entry = os.fstat(journal)
                if not stat.S_ISREG(entry.st_mode):
                    raise ShardtoolError(
                        f"{self.path}: expected the journal, found no regular file; move it away"
                    )
                torn = entry.st_size and os.pread(journal, 1, entry.st_size - 1) != b"\n"
                write_all(journal, (_TORN * bool(torn) + "".join(lines)).encode("ascii"))
                os.fsync(journal)
                if is_new and not entry.st_size and entry.st_nlink == 1:  # else another's, by now
                    give_to_owner_of(self._db, journal)
                if not self._is_named:
                    # A run that was killed may have made it and not have come to this.
                    os.fsync(own)
                    sync_directory(self.path.parents[1])
                    self._is_named = True
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            advice = "; a few KB free elsewhere on that disk are enough" if full else ""
            raise ShardtoolError(
                f"{self.path}: expected to write the journal, found: {reason_of(error)}; "
                f"nothing is done without it{advice}"
            ) from None

    def sync(self) -> None:
        """Make durable what is in it: a run that was killed may not have come to that.

        Raises:
            ShardtoolError: it can't be synced, or there is none.
        """
        try:
            with (
                opened(self.path.parent, READ_DIRECTORY_ITSELF) as own,
                opened(
                    self.path.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=own
                ) as f,
            ):
                os.fsync(f)
                os.fsync(own)
        except OSError as error:
            raise ShardtoolError(
                f"{self.path}: expected to sync the journal, found: {reason_of(error)}; "
                "nothing is done without it"
            ) from None

    def read(self) -> History:
        """Return what the journal holds; an absent one holds nothing.

        Raises:
            ShardtoolError: it is there but can't be read.
        """
        records, damaged = [], []
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
            with opened_quietly(self.path, flags) as descriptor:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise ShardtoolError(
                        f"{self.path}: expected the journal, found no regular file; move it away"
                    )
                with open(descriptor, "rb", closefd=False) as lines:
                    for number, line in enumerate(lines, 1):
                        record = _record(line)
                        if record is None:
                            damaged.append(number)
                        else:
                            records.append(record)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise ShardtoolError(
                f"{self.path}: expected to read the journal, found: {reason_of(error)}; "
                "run this as the server's user or as root"
            ) from None
        return History(tuple(records), tuple(damaged))


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        return None
    return record if isinstance(record.get("event"), str) else None
