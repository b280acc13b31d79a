"""From lost values to points that a 0.8.3 takes over HTTP as what they are; and what it can't.

Pure. The facts are of 0.8.3's published source (common/serialize_series.go) and FORMATS.md
(HTTP, "Writing"): times and sequence numbers pass through a float64; a number without point or
exponent becomes an int64, every other a double; and a null deletes what the server has. So a point
is sent with those columns that it lacks and with no others.
"""

from __future__ import annotations

import functools
import heapq
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from shardtool.influxdb import identity
from shardtool.influxdb.keys import time_and_sequence
from shardtool.influxdb.messages import MessageError, parse, stored, value_of
from shardtool.proof.columns import Name
from shardtool.rescue.spool import Value
from shardtool.words import is_utf8

# The server takes these two columns for the point's identity, whatever was meant.
_RESERVED = ("time", "sequence_number")


class Point(NamedTuple):
    """A point to send: its identity, and the JSON of each of its values by column.

    `copies`: how many more values there are of it in other shards, the same ones.
    """

    time_us: int
    sequence: int
    values: tuple[tuple[str, str], ...]
    copies: int = 0


class Unsendable(NamedTuple):
    """A value that can't be sent: its column, its key, and a word that says why."""

    name: Name
    time_us: int
    sequence: int
    why: str


WHY = {
    "sequence": "its sequence number does not survive the float64 that 0.8 reads it as",
    "time": "its time does not survive the float64 that 0.8 reads it as, or is no year of RFC 3339",
    "number": "it is a NaN or an infinity, which JSON does not have",
    "bytes": "it is a string or a name that is no UTF-8, which JSON can't carry",
    "name": "its column is called as the point's identity, or a name is empty or has no URL",
    "ambiguous": "two series can be meant by its name in the shard's index (a `~` in one)",
    "unnamed": "the shard's index does not have its column",
    "unreadable": "its bytes are not what 0.8 writes for any value",
    "contradicted": "a later shard has another value under its time and sequence number",
    "refused": "the server refused it",
}


def json_of(content: bytes) -> str:
    """Given a FieldValue, return the JSON that 0.8.3 reads and stores as the same bytes.

    Raises:
        ValueError: there is none; the text is a word of WHY.
    """
    try:
        value = value_of(parse("FieldValue", content))
    except MessageError:
        raise ValueError("unreadable") from None
    if value is None or stored(value) != content:
        raise ValueError("unreadable")
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("number")
        text = repr(value)
        # Without point or exponent it would become an integer.
        return text if "." in text or "e" in text else text + ".0"
    if isinstance(value, str) and not is_utf8(value):
        raise ValueError("bytes")
    return json.dumps(value)


def trouble_with_name(name: Name) -> str:
    """Return the word of WHY for a column that can't be named in a request; empty if it can."""
    if not all(map(is_utf8, (name.database, name.series, name.column))):
        return "bytes"
    # The server splits paths at slashes after decoding them (the pat library).
    # ... and no database's name holds a percent sign (captures' releases refuse to make one).
    has_path = name.database and not {"/", "%"} & set(name.database)
    is_named = has_path and name.series and name.column
    return "" if is_named and name.column not in _RESERVED else "name"


def trouble_with_identity(time_us: int, sequence: int) -> str:
    """Return the word of WHY for an identity that would arrive as another; empty for others.

    It is stricter than what is known: that 2^63 arrives was seen of 0.7.3 alone, and rescue sends.
    """
    large = "sequence" if sequence >= 1 << 63 else ""
    return identity.trouble_with_identity(time_us, sequence) or large


@dataclass(frozen=True)
class Run:
    """The lost values of one column in one shard, in the order of their keys."""

    name: Name
    values: Iterator[Value]
    is_sure: bool = True
    """Whose column it is, is certain."""
    is_sent: bool = True
    """They are to be sent; otherwise they only stand in the way of other contents."""


def points_of(runs: Sequence[Run]) -> Iterator[Point | Unsendable]:
    """Yield the points of one series, in order, and what of them can't be sent.

    Args:
        runs: of the series' columns; of several with the same column the first counts, and what
            others have under the same key is either the same or told.
    """
    troubles = [_trouble_with(run) for run in runs]
    merged = heapq.merge(
        *(_numbered(number, run.values) for number, run in enumerate(runs)),
        key=lambda found: (found[1].suffix, found[0]),
    )
    for suffix, together in itertools.groupby(merged, key=lambda found: found[1].suffix):
        identity = time_and_sequence(suffix)
        trouble = trouble_with_identity(*identity)
        seen: dict[str, bytes] = {}
        values: dict[str, str] = {}
        copies = 0
        for number, value in together:
            name = runs[number].name
            why = troubles[number] or trouble
            is_first = seen.setdefault(name.column, value.stored) == value.stored
            if not runs[number].is_sent:
                continue
            if not is_first:
                why = "contradicted"
            elif name.column in values:
                copies += 1
                continue
            try:
                text = "" if why else json_of(value.stored)
            except ValueError as error:
                why = str(error)
            if why:
                yield Unsendable(name, *identity, why)
            else:
                values[name.column] = text
        if values:
            yield Point(*identity, tuple(sorted(values.items())), copies)


def _trouble_with(run: Run) -> str:
    if not run.name.database:
        return "unnamed"
    return trouble_with_name(run.name) if run.is_sure else "ambiguous"


def _numbered(number: int, values: Iterable[Value]) -> Iterator[tuple[int, Value]]:
    return ((number, value) for value in values)


@dataclass(frozen=True)
class Entry:
    """Points of one series, all with the same columns."""

    database: str
    series: str
    columns: tuple[str, ...]
    points: tuple[Point, ...]

    @property
    def values(self) -> int:
        """How many values it holds."""
        return len(self.columns) * len(self.points)

    @functools.cached_property
    def json(self) -> str:
        """What a request has of it."""
        rows = (
            f"[{','.join((str(p.time_us), str(p.sequence), *(text for _, text in p.values)))}]"
            for p in self.points
        )
        columns = json.dumps([*_RESERVED, *self.columns])
        name = json.dumps(self.series)
        points = ",".join(rows)
        return f'{{"name":{name},"columns":{columns},"points":[{points}]}}'

    def halves(self) -> tuple[Entry, Entry]:
        """Return it cut in two: its points, or where there is one alone its columns."""
        half = len(self.points) // 2
        if half:
            return (
                Entry(self.database, self.series, self.columns, self.points[:half]),
                Entry(self.database, self.series, self.columns, self.points[half:]),
            )
        half = len(self.columns) // 2
        (point,) = self.points
        return self._of_columns(point, 0, half), self._of_columns(point, half, len(self.columns))

    def _of_columns(self, point: Point, start: int, end: int) -> Entry:
        cut = point._replace(values=point.values[start:end])
        return Entry(self.database, self.series, self.columns[start:end], (cut,))


def entries_of(
    database: str, series: str, points: Iterable[Point], *, most_points: int, most_bytes: int
) -> Iterator[Entry]:
    """Yield points of a series as entries, each full or the last of its columns.

    Args:
        database: the series'.
        series: its name.
        points: in any order.
        most_points: that an entry holds.
        most_bytes: of JSON, about; a point that is larger goes alone. All entries that are being
            filled together hold no more.
    """
    filling: dict[tuple[str, ...], list[Point]] = {}
    sizes: dict[tuple[str, ...], int] = {}

    def taken(columns: tuple[str, ...]) -> Entry:
        del sizes[columns]
        return Entry(database, series, columns, tuple(filling.pop(columns)))

    for point in points:
        columns = tuple(column for column, _ in point.values)
        size = 40 + sum(len(text) + 1 for _, text in point.values)
        while sizes and sum(sizes.values()) + size > most_bytes:
            yield taken(max(sizes, key=sizes.__getitem__))
        filling.setdefault(columns, []).append(point)
        sizes[columns] = sizes.get(columns, 0) + size
        if len(filling[columns]) >= most_points:
            yield taken(columns)
    for columns in list(filling):
        yield taken(columns)


@dataclass(frozen=True)
class Batch:
    """What one request holds: entries of one database, each of another series.

    0.8.3 merges entries of one series, fills what one of them lacks with nulls, and a null deletes
    (common.MergeSeries; datastore/shard.go).
    """

    entries: tuple[Entry, ...]

    @property
    def database(self) -> str:
        """Where it goes."""
        return self.entries[0].database

    @property
    def points(self) -> int:
        """How many points it holds."""
        return sum(len(entry.points) for entry in self.entries)

    @property
    def values(self) -> int:
        """How many values it holds."""
        return sum(entry.values for entry in self.entries)

    def body(self) -> bytes:
        """Return the request's body."""
        return f"[{','.join(entry.json for entry in self.entries)}]".encode("ascii")

    def halves(self) -> tuple[Batch, Batch]:
        """Return it cut in two: its entries, or the one that it has."""
        half = len(self.entries) // 2
        if half:
            return Batch(self.entries[:half]), Batch(self.entries[half:])
        first, second = self.entries[0].halves()
        return Batch((first,)), Batch((second,))


class _Filling:
    """A batch that is not full yet."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}  # by series
        self.points = self.size = 0

    def add(self, entry: Entry) -> None:
        self.entries[entry.series] = entry
        self.points += len(entry.points)
        self.size += len(entry.json)


def batches_of(entries: Iterable[Entry], *, most_points: int, most_bytes: int) -> Iterator[Batch]:
    """Yield entries as batches, each full or among the last of its database.

    Args:
        entries: none has more than `most_points`.
        most_points: that a batch holds.
        most_bytes: of JSON; an entry that is larger goes alone. All batches that are being filled
            hold no more than a few times of it.
    """
    # A series' entries go into different ones: those of one set of columns, of another...
    filling: list[_Filling] = []
    database = ""
    for entry in entries:
        if entry.database != database:
            yield from _taken(filling)
            filling, database = [], entry.database
        place = next((one for one in filling if entry.series not in one.entries), None)
        if place is not None and (
            place.points + len(entry.points) > most_points
            or place.size + len(entry.json) > most_bytes
        ):
            filling.remove(place)
            yield from _taken([place])
            place = None
        if place is None:
            if len(filling) == _MOST_FILLING:
                yield from _taken([filling.pop(0)])
            place = _Filling()
            filling.append(place)
        place.add(entry)
    yield from _taken(filling)


_MOST_FILLING = 8


def _taken(filling: list[_Filling]) -> Iterator[Batch]:
    return (Batch(tuple(one.entries.values())) for one in filling)
