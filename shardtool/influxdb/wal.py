"""The write-ahead log: what was written and may not be in a shard yet (FORMATS.md, "wal/").

Knows log.N alone. index.N only says where to begin, and `bookmark` is often missing.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from shardtool.disk.durable import READ_DIRECTORY_ITSELF, opened_quietly
from shardtool.disk.files import is_zero, opened_file, zeros_until_end
from shardtool.errors import ShardtoolError, reason_of
from shardtool.influxdb import messages
from shardtool.influxdb.errors import LogError

WRITE = 1
"""The type of a request that writes points."""

MAX_LOG = 64 << 30
# The server takes no larger body over HTTP than it has memory for; its clients send some MB.
_MAX_ENTRY = 64 << 20
_HEAD = struct.Struct(">III")
_LOG_NAME = re.compile(r"log\.(\d{1,20})")
_CHUNK = 1 << 20
# How far and how often to look for another request behind one that ends after the file.
_LOOK = 64 << 20
_LOOKS = 10_000
_SIGNATURE = 3  # bytes
# How a request begins: a type, then a database (FORMATS.md; goproto writes fields in order).
_FIRST_FIELDS = re.compile(rb"\x10[\x01-\x0f]\x1a")
_BEYOND = "the server cuts its WAL off there: copy it (shardtool backup) before you start it again"


class WalError(ShardtoolError):
    """The WAL can't be read: path (and offset), expected, found and what to do."""


@dataclass(frozen=True)
class Point:
    """A point. `values` stand in the order of the series' columns; None is a null."""

    time_us: int
    sequence: int
    values: tuple[str | bool | int | float | None, ...]


@dataclass(frozen=True)
class Series:
    """Points of one series. 0.7 names its columns; 0.8 gives their ids, where it knows them."""

    name: str
    columns: tuple[str, ...]
    column_ids: tuple[int, ...]
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Request:
    """One request. `kind` is WRITE for points; from `offset` on it takes `length` bytes."""

    number: int
    shard_id: int
    kind: int
    database: str
    series: tuple[Series, ...]
    query: str
    offset: int
    length: int

    @property
    def end(self) -> int:
        """The offset at which the next one begins."""
        return self.offset + self.length


def log_files(wal: Path) -> list[Path]:
    """Return the log.N of the directory `wal` in the order in which they were written.

    Raises:
        WalError: the directory can't be read.
    """
    try:
        with opened_quietly(wal, READ_DIRECTORY_ITSELF) as descriptor:
            names = os.listdir(descriptor)
    except OSError as error:
        raise WalError(
            f"{wal}: expected the WAL's directory, found: {reason_of(error)}; {_advice(error)}"
        ) from None
    numbers = sorted(
        (int(match[1]), name) for name in names if (match := _LOG_NAME.fullmatch(name))
    )
    return [wal / name for _, name in numbers]


def requests(log: Path) -> Iterator[Request]:
    """Read the requests of one log.N, one by one (FORMATS.md, "wal/").

    The tail may be preallocated zeros, or a request that ends after the file; it ends there.

    Yields:
        The requests in order.

    Raises:
        WalError: it can't be read, or there is garbage in it.
    """
    try:
        with opened_file(log, MAX_LOG) as (file, size):
            yield from parse_log(file, size)
    except LogError as error:
        raise WalError(f"{log}: {error}; {_BEYOND}") from None
    except OSError as error:
        raise WalError(
            f"{log}: expected a log of the WAL, found: {reason_of(error)}; {_advice(error)}"
        ) from None


def parse_log(file: BinaryIO, size: int) -> Iterator[Request]:
    """Read the requests of a log.N of `size` bytes from a file at its beginning.

    What a running server appends beyond `size` meanwhile is not read.

    Raises:
        LogError: at garbage that no torn write explains.
    """
    offset = 0
    while offset + _HEAD.size <= size:
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size:
            return  # cut while it is being read
        number, shard_id, length = _HEAD.unpack(head)
        if not length:
            if is_zero(head) and zeros_until_end(file):
                return
            raise LogError(offset, f"expected a request, found one of no bytes: {head!r}")
        if offset + _HEAD.size + length > size:
            _require_torn(file, offset, size)
            return
        if length > _MAX_ENTRY:
            raise LogError(offset, f"expected up to {_MAX_ENTRY} bytes, found {length}")
        body = file.read(length)
        if len(body) < length:
            return
        if is_zero(body) and zeros_until_end(file):
            return  # the head was on disk before the body was
        yield _request(number, shard_id, body, offset)
        offset += _HEAD.size + length


def _require_torn(file: BinaryIO, offset: int, size: int) -> None:
    """Raise LogError where a log does not end as a write that a power cut tore.

    That is the beginning of a request, or nothing of it but its head: no garbage, and nothing
    whole behind it.
    """
    begin = offset + _HEAD.size
    rest = file.read(min(_LOOK, size - begin))
    for match in islice(_FIRST_FIELDS.finditer(rest, _HEAD.size), _LOOKS):
        at = match.start() - _HEAD.size
        if _is_request(rest, at):
            raise LogError(
                offset,
                "expected a request, found one that ends after the file, with another request "
                f"behind it at offset {begin + at}",
            )
    if len(rest) >= _SIGNATURE and not (_FIRST_FIELDS.match(rest) or is_zero(rest[:_SIGNATURE])):
        raise LogError(offset, f"expected a request, found {size - offset} bytes of something else")


def _is_request(data: bytes, at: int) -> bool:
    number, shard_id, length = _HEAD.unpack_from(data, at)
    start = at + _HEAD.size
    if not 0 < length <= min(len(data) - start, _CHUNK):
        return False
    try:
        found = messages.parse("Request", data[start : start + length])
    except messages.MessageError:
        return False
    return bool(found.request_number == number and found.shard_id == shard_id and found.database)


def _request(number: int, shard_id: int, body: bytes, offset: int) -> Request:
    try:
        found = messages.parse("Request", body)
    except messages.MessageError as error:
        raise LogError(offset, str(error)) from None
    for name, expected in (("request_number", number), ("shard_id", shard_id)):
        if found.HasField(name) and getattr(found, name) != expected:
            raise LogError(
                offset, f"expected {name} {expected} as before it, found {getattr(found, name)}"
            )
    return Request(
        number=number,
        shard_id=shard_id,
        kind=found.type,
        database=messages.text(found.database),
        series=tuple(map(_series, found.multi_series)),
        query=messages.text(found.query),
        offset=offset,
        length=_HEAD.size + len(body),
    )


def _series(found: Any) -> Series:
    return Series(
        name=messages.text(found.name),
        columns=tuple(map(messages.text, found.fields)),
        column_ids=tuple(found.field_ids),
        points=tuple(
            Point(
                time_us=point.timestamp,
                sequence=point.sequence_number,
                values=tuple(map(messages.value_of, point.values)),
            )
            for point in found.points
        ),
    )


def _advice(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "run this as the server's user or as root"
    return "give the directory that [wal] dir in InfluxDB's config names"
