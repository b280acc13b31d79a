"""What InfluxDB's answers say: their JSON taken apart, nothing taken on trust. No HTTP here."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from shardtool.influxdb import shapes
from shardtool.influxdb.model import ClusterServer, Space
from shardtool.influxdb.query import Value

T = TypeVar("T")

# 'InfluxDB v0.8.3 (git: fbf9a47405) (leveldb: 1.23)'; from 0.9 on the number alone.
_VERSION = re.compile(r"InfluxDB v([\w.+~-]{1,40})(?:\s|$)|v?(\d+\.\d+[\w.+~-]{0,36})$", re.ASCII)


_ARRAY, _OBJECT = re.compile(rb"\s*\["), re.compile(rb"\s*\{")
_HARMLESS_BYTES = 16 << 20
"""The worst that so long an answer can be made of takes less than half a gigabyte."""
_MEMORY_BYTES = 512 << 20
"""What a longer one may take. A configuration of 200,000 columns takes some 100 MB."""


class Point(NamedTuple):
    """A point's identity and the value of one column: time in microseconds, sequence, value."""

    time_us: int
    sequence: int
    value: Value


class BrokenAnswerError(Exception):
    """An answer came, but it is not what the server says to this request."""


def version_in(header: str) -> str | None:
    """Return the version that X-Influxdb-Version names, such as '0.8.3'; None where it is none."""
    found = _VERSION.match(header)
    return (found[1] or found[2]) if found else None


def databases_in(body: bytes) -> frozenset[str]:
    """Return the names that GET /db lists. Raises BrokenAnswerError."""
    return frozenset(_listed(body, "name", lambda one: shapes.text(one["name"], "name")))


def servers_in(body: bytes) -> tuple[ClusterServer, ...]:
    """Return the servers that GET /cluster/servers lists, of 0.8 or 0.7, by id.

    `isUp` is not looked at: it is false on a healthy single node. Raises BrokenAnswerError.
    """

    def taken(one: Mapping[str, object]) -> ClusterServer:
        return ClusterServer(
            id=shapes.number(one.get("id"), "id"),
            raft_name=shapes.text(one.get("raftName"), "raftName"),
            is_leader=one.get("isLeader") is True,
            state=shapes.text(one.get("stateName"), "stateName"),
            address=shapes.text(one.get("protobufConnectString"), "protobufConnectString"),
        )

    return tuple(sorted(_listed(body, "id", taken), key=lambda server: server.id))


def spaces_in(body: bytes) -> dict[str, tuple[Space, ...]]:
    """Return what GET /cluster/shard_spaces lists, per database, the newest first.

    Raises BrokenAnswerError.
    """
    found: dict[str, list[Space]] = {}
    for space in _listed(body, "database", lambda one: shapes.space(one, "a shard space")):
        found.setdefault(space.database, []).append(space)
    return {database: tuple(several) for database, several in found.items()}


def configuration_in(body: bytes) -> Mapping[str, object]:
    """Return what GET /cluster/configuration says, taken apart no further.

    Raises BrokenAnswerError.
    """
    if not _OBJECT.match(body):
        raise BrokenAnswerError(f"'{body[:500].decode(errors='replace')}'")
    found = documents(body)
    document = next(found)
    if not isinstance(document, dict) or "MetaStore" not in document:
        raise BrokenAnswerError("something without 'MetaStore' for a configuration")
    if next(found, None) is not None:
        raise BrokenAnswerError("more than one JSON document")
    return document


def _listed(body: bytes, key: str, take: Callable[[dict[str, object]], T]) -> list[T]:
    """Return what `take` makes of each object in an array; each must have `key`."""
    # An array's elements are documents too, so an empty body would pass for an empty list.
    if not _ARRAY.match(body):
        raise BrokenAnswerError(f"'{body[:500].decode(errors='replace')}'")
    found = []
    for one in documents(body):
        if not isinstance(one, dict) or key not in one:
            raise BrokenAnswerError(f"a list of something without {key!r}")
        try:
            found.append(take(one))
        except shapes.ShapeError as error:
            raise BrokenAnswerError(str(error)) from None
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def _integer(text: str) -> int | float:
    """Return a number without point: exact, and -0 as the double that it is (int has no -0)."""
    return -0.0 if text == "-0" else int(text)


_PLAIN = json.JSONDecoder(parse_constant=_no_constant)
# A function call per number is slow, so only where there is a -0.
_WITH_MINUS_ZERO = json.JSONDecoder(parse_constant=_no_constant, parse_int=_integer)
_MINUS_ZERO = re.compile(r"-0[],}\s]")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
# Each escape from its backslash on, so that an escaped backslash begins no other; a pair is one.
_ESCAPE = re.compile(r"\\(?:u[dD][89abAB]..\\u[dD][c-fC-F]|(u[dD][89a-fA-F])|.)", re.S)


def documents(body: bytes) -> Iterator[Any]:
    """Yield the JSON documents of an answer, which follow each other with nothing in between.

    Raises: BrokenAnswerError where something else stands there. That is how an error looks which
    comes when the first points are out already: its text follows the last document. Also where
    text holds half a surrogate pair, which is no character and can't be encoded (Go's encoding/json
    sends none), and where the documents would take too much memory.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise BrokenAnswerError("bytes that are no UTF-8") from None
    if _SURROGATE.search(text) and any(found[1] for found in _ESCAPE.finditer(text)):
        raise BrokenAnswerError("half a surrogate pair, which is no character")
    _require_room(body, text)
    decoder = _WITH_MINUS_ZERO if _MINUS_ZERO.search(text) else _PLAIN
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        try:
            document, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            raise BrokenAnswerError(f"'{text[at : at + 500]}'") from None
        # Without chunked=true, and from a server that doesn't know it: all of them in an array.
        yield from document if isinstance(document, list) else (document,)


def _require_room(body: bytes, text: str) -> None:
    """Raise BrokenAnswerError where documents may take more memory than any configuration does.

    Counted by what CPython makes of it, at the most: an object, an array, a key or a value.
    """
    if len(body) <= _HARMLESS_BYTES:
        return
    parts = 240 * body.count(b"{") + 100 * body.count(b"[")
    parts += 80 * (body.count(b",") + body.count(b":"))
    if len(body) + 2 * sys.getsizeof(text) + parts > _MEMORY_BYTES:
        raise BrokenAnswerError(f"what would take more than {_MEMORY_BYTES >> 20} MiB of memory")


def points_in(
    document: Any, series: str, column: str, start_us: int, end_us: int
) -> Iterator[Point]:
    """Yield a column's points in a document {"name", "columns", "points"}, null left out."""
    try:
        name, columns, points = document["name"], document["columns"], document["points"]
        if name != series or not points:
            return
        if columns[:2] != ["time", "sequence_number"]:
            raise BrokenAnswerError("columns that don't begin with time and sequence_number")
        if column not in columns[2:]:
            return
        place = columns.index(column, 2)
        for point in points:
            time_us, sequence, value = point[0], point[1], point[place]
            if value is None:
                continue
            if type(time_us) is not int or type(sequence) is not int or not _is_value(value):
                raise BrokenAnswerError("a point that is not time, sequence_number and values")
            if start_us <= time_us < end_us:
                yield Point(time_us, sequence, value)
    except (TypeError, KeyError, IndexError, AttributeError):
        raise BrokenAnswerError("a series without name, columns and points") from None


def _is_value(value: object) -> bool:
    return isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))
