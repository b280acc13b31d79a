"""InfluxDB's own log: read as it grows, and what the migrator says in it.

It knows the file and the migrator's words; it must not know shards on disk or the API. A log may
be rotated or cut short while it is read, may hold any bytes and need never end; the names in it
are whatever clients wrote, newlines included.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shardtool.disk.durable import open_quietly
from shardtool.errors import ShardtoolError, reason_of

# FORMATS.md, "The migration": `[2026/11/24 16:19:56 UTC] [INFO] (source) text`. The source is a
# Go function's name and a line number, parentheses included.
_HEADER = re.compile(
    rb"\[\d{4}/\d\d/\d\d \d\d:\d\d:\d\d [^\]\n]{1,40}\] \[([A-Z]{4})\] \((\S+:\d+)\) "
)
_START = b") Starting Migration\n"

_CHUNK = 1 << 18
_MOST_A_POLL = 16 << 20  # bytes read before whoever follows is told; the rest comes the next time
_MOST_BACK = 64 << 20  # bytes that are searched for the beginning of a migration
_LONGEST = 1 << 12  # bytes of one entry that are kept
_REMEMBERED = 64  # bytes before the place reached: a log that was cut and grew again differs there
_MOST_TROUBLES = 10_000  # that are kept; the rest is counted
_MOST_REFUSED = 100_000

# captures/migrated-08/influxdb.log, line 2: the first that a server says of itself.
_SERVER_STARTS = "Starting Influx Server "
_FIELDS = "Error looking up fields for "
_AGAIN = "Error migrating "
_GETTING = "Migration error getting shard: "
_MARKING = "Problem writing migration marker for shard "


@dataclass(frozen=True)
class Entry:
    """One entry of the log: a line, or several where a name in it holds newlines.

    Args:
        level: 'INFO', 'WARN', 'EROR' or another of four letters.
        source: the function that wrote it, with its package and line.
        text: what it says, undecodable bytes as surrogates.
    """

    level: str
    source: str
    text: str

    @property
    def is_migrators(self) -> bool:
        """The migrator wrote it, or the request that starts one."""
        # 'github.com/influxdb/influxdb/migration.(*DataMigrator).migrateDir:83'
        name = self.source.rpartition("/")[2]
        return name.startswith("migration.") or ".migrateData." in name


@dataclass(frozen=True)
class Trouble:
    """An error that the migrator logged.

    Args:
        shard: the old shard that it was in; empty where the log does not tell.
        series: as the migrator names it; empty where it is about no single one.
        text: the whole message.
    """

    shard: str
    series: str
    text: str


class LogReader:
    """Reads the entries that are appended to a log, across rotation and truncation."""

    def __init__(self, path: Path, *, of_last_migration: bool = False) -> None:
        """Open the log at its end.

        Args:
            path: of the log; it need not be there yet.
            of_last_migration: begin where the last migration began instead. Where that can't be
                found in the last 64 MiB, these are read: the log may have been rotated since.

        Raises:
            ShardtoolError: it is there and can't be read, or is no regular file.
        """
        self.path = path
        self._file: int | None = None
        self._at = 0
        self._tail = b""  # what stands just before _at
        self._line = b""  # a line whose end was not there yet
        self._entry: list[bytes] = []  # lines of an entry that may go on
        self._kept = 0
        try:
            file = self._open()
        except FileNotFoundError:
            return
        except OSError as error:
            raise ShardtoolError(
                f"{path}: expected InfluxDB's log, found: {reason_of(error)}; "
                "name it with --log, and run this as the server's user or as root"
            ) from None
        size = os.fstat(file).st_size
        self._go_to(_last_start(file, size) if of_last_migration else size)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def poll(self) -> Iterator[Entry]:
        """Yield the entries that were completed since the last call, 16 MiB of log at the most.

        An entry counts as complete when another follows it or when nothing more came until the
        next call. Raises nothing: what can't be read now may be there the next time.
        """
        had_something = False
        for chunk in self._chunks():
            had_something = True
            yield from self._entries_in(chunk)
        if not had_something and not self._line:
            yield from self._complete()

    # -- the file --

    def _open(self) -> int:
        # O_NONBLOCK: a FIFO must not make us wait for a writer.
        file = open_quietly(self.path, os.O_RDONLY | os.O_NONBLOCK)
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            raise ShardtoolError(
                f"{self.path}: expected InfluxDB's log, found no regular file; name it with --log"
            )
        self._file, self._at, self._tail, self._line = file, 0, b"", b""
        return file

    def _go_to(self, offset: int) -> None:
        self._at = offset
        if self._file is not None:
            begin = max(0, offset - _REMEMBERED)
            self._tail = os.pread(self._file, offset - begin, begin)

    def _chunks(self) -> Iterator[bytes]:
        left = _MOST_A_POLL
        try:
            # Twice: the rest of a file that was renamed away, then the one in its place.
            for _ in range(2):
                if self._file is None:
                    self._open()
                self._begin_again_where_cut()
                while left > 0 and (chunk := self._read()):
                    left -= len(chunk)
                    yield chunk
                if left <= 0 or not self._was_replaced():
                    return
                self.close()
        except (OSError, ShardtoolError):
            return

    def _read(self) -> bytes:
        if self._file is None:
            return b""
        chunk = os.pread(self._file, _CHUNK, self._at)
        self._at += len(chunk)
        self._tail = (self._tail + chunk)[-_REMEMBERED:]
        return chunk

    def _begin_again_where_cut(self) -> None:
        """Go to the beginning of a log that was cut short, though it may have grown since."""
        if self._file is None:
            return
        begin = self._at - len(self._tail)
        if os.pread(self._file, len(self._tail), begin) != self._tail:
            self._go_to(0)
            self._line = b""

    def _was_replaced(self) -> bool:
        if self._file is None:
            return True
        there, here = os.stat(self.path), os.fstat(self._file)
        return (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino)

    # -- its lines --

    def _entries_in(self, chunk: bytes) -> Iterator[Entry]:
        *lines, rest = (self._line + chunk).split(b"\n")
        for line in lines:
            if _HEADER.match(line):
                yield from self._complete()
            elif not self._entry:
                continue  # we began in the middle of an entry
            self._keep(line)
        # Of a line without end the beginning is kept: whose it is, and where.
        self._line = rest[:_LONGEST]

    def _keep(self, line: bytes) -> None:
        if self._kept < _LONGEST:
            self._entry.append(line[: _LONGEST - self._kept])
            self._kept += len(line) + 1

    def _complete(self) -> Iterator[Entry]:
        whole = b"\n".join(self._entry)
        self._entry, self._kept = [], 0
        header = _HEADER.match(whole)
        if header:
            level, source = header[1].decode("ascii"), os.fsdecode(header[2])
            text = whole[header.end() :].decode("utf-8", "surrogateescape")
            yield Entry(level, source, text)


def _last_start(file: int, size: int) -> int:
    """Return where the line stands with which the last migration began."""
    floor = max(0, size - _MOST_BACK)
    end = size
    while end > floor:
        begin = max(floor, end - _CHUNK)
        # What lies across the border of two pieces is found with the earlier one.
        piece = os.pread(file, end - begin + 2048, begin)
        at = piece.rfind(_START)
        while at >= 0:
            line = piece.rfind(b"\n", 0, at) + 1
            header = _HEADER.match(piece, line)
            if header and header.end() == at + 2 and b".migrateData." in header[2]:
                return begin + line
            at = piece.rfind(_START, 0, at)
        end = begin
    return floor


class MigrationLog:
    """What the migrator has said since a log was opened: where it is, and what went wrong."""

    def __init__(self, reader: LogReader | None) -> None:
        """Begin with nothing said.

        Args:
            reader: of the log; None where there is none to be found, so that nothing is said.
        """
        self.reader = reader
        self.shard = ""
        """The old shard that it named last."""
        self.lines = 0
        """How many entries of the migrator there were: it moves when this does."""
        self.troubles: list[Trouble] = []
        """Its errors, each once, the first 10,000 of them."""
        self.more_troubles = 0
        """How many errors there were beyond those."""
        self.refused: set[str] = set()
        """Old shards that it could not open, or not mark."""
        self.restarts = 0
        """How often the server was started since: a migration ends with its server."""
        self._known: set[Trouble] = set()

    def close(self) -> None:
        """Close the log."""
        if self.reader is not None:
            self.reader.close()

    def poll(self) -> None:
        """Read what was appended since the last call."""
        if self.reader is not None:
            for entry in self.reader.poll():
                self.take(entry)

    def take(self, entry: Entry) -> None:
        """Take note of one entry; those of others than the migrator are passed over, but for the
        one with which a server starts."""
        if entry.text.startswith(_SERVER_STARTS) and entry.source.startswith("main."):
            self.restarts += 1
        if not entry.is_migrators:
            return
        self.lines += 1
        if entry.level in ("EROR", "CRIT"):
            self._take_error(entry.text)
            return
        words = entry.text.split(" ")
        if words[0] == "Migrating" and len(words) == 2:
            # A directory may be called anything, but a shard's name holds no blank, and the
            # migrator's other lines with this word do.
            self.shard = words[1]
        elif entry.text == "Starting Migration":
            # Whoever starts another has perhaps put right what was wrong.
            self.shard = ""
            self.refused.clear()

    def _take_error(self, text: str) -> None:
        if text.startswith(_MARKING):
            self._refuse(text[len(_MARKING) :].partition(": ")[0])
        elif text.startswith(_GETTING) and self.shard:
            self._refuse(self.shard)
        # 0.8.3 logs an error of a query twice: where it arises, and with these words before it.
        told = text.removeprefix(_AGAIN) if text.startswith(_AGAIN + _FIELDS) else text
        trouble = Trouble(self.shard, series_of(told), told)
        if trouble in self._known:
            return
        if len(self.troubles) >= _MOST_TROUBLES:
            self.more_troubles += 1
            return
        self._known.add(trouble)
        self.troubles.append(trouble)

    def _refuse(self, shard: str) -> None:
        if len(self.refused) < _MOST_REFUSED:
            self.refused.add(shard)


def series_of(text: str) -> str:
    """Given an error's text, return the series that it is about, or nothing.

    Example: "Error looking up fields for cpu: Field load doesn't exist in series cpu" -> 'cpu'.
    """
    if text.startswith("Problem migrating series "):
        return text.removeprefix("Problem migrating series ")
    if not text.startswith(_FIELDS):
        return ""
    rest = text[len(_FIELDS) :]
    # The name may hold ': ' too; the server's own messages end with the name again.
    for at in re.finditer(": ", rest[:4096]):
        name, reason = rest[: at.start()], rest[at.end() :]
        if reason.endswith((f" in series {name}", f"for series: {name}")):
            return name
    return rest.partition(": ")[0]
