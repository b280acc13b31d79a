"""Points of a series, put together from its columns: streaming, in windows of bounded memory.

A shard holds values column by column, a point is a row of all columns. Each column of a series is
read ahead by its share of a fixed number of pairs; a window is what all of them are read up to.
However many columns there are, only a few iterators stay open: the others are put in their place
again when their share is used up. Nothing is read twice.

A window ends between two times, so that points which share a time are in one window; where there
are more of one time than a window holds, it says so.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Protocol

from shardtool.export.columns import Column, Selection
from shardtool.influxdb.engines import EngineError, Pair, Reader, Stream
from shardtool.influxdb.keys import ID_BYTES, VALUE_KEY

# Pairs that a series is read ahead by, in all of its columns. A pair of small values takes some
# 200 bytes while it is on its way.
_PAIRS = 32768
_BYTES = 16 << 20  # and the bytes of their values
# What a seek costs is worth more than one pair; with very many columns it has to be fewer.
_LEAST_SHARE = 32
_MOST_PAIRS = 200_000
# Of one value nobody can tell whether others of its time follow.
_FEWEST = 2
_OPEN = 64  # iterators; each of them keeps a block of 64 KiB
# Pairs that are read at a time: few before anything is known of their size, and never so many
# that it matters if values suddenly are large.
_FIRST_STEP, _MOST_STEP = 4, 128

_TIME_BYTES = 8


class Choice(Protocol):
    """Chooses among a shard's values by more than names and times, such as those that the new
    storage lacks."""

    def has(self, column: Column) -> bool:
        """Say whether any value of a column may be wanted."""

    def of(self, column: Column, pairs: Sequence[Pair]) -> Sequence[Pair]:
        """Return those of a column's pairs that are wanted.

        It is asked of all pairs of a column that lie within the times, some at a time, in the
        order of their keys.

        Raises:
            EngineError: they can't be those that the choice was made for.
        """

    def among(self, pairs: Sequence[Pair]) -> Sequence[Pair]:
        """Return those of neighbouring pairs of a column, any that the shard has, that are
        wanted."""


@dataclass(frozen=True, slots=True)
class Part:
    """Values of one column: keys of 24 bytes, in order, and what is stored under each."""

    column: Column
    keys: list[bytes]
    values: list[bytes]


@dataclass(frozen=True)
class Window:
    """Neighbouring points of one series.

    Args:
        parts: those of its columns that have values here.
        end: what follows the column id in the last key that may be in it.
        before: time (8 bytes of a key) of the last point before this window; empty for none.
        goes_on: points of the window's only time are still to come.
        beside: of times, the first and the last point that other shards of the run have there.
    """

    parts: tuple[Part, ...]
    end: bytes
    before: bytes = b""
    goes_on: bool = False
    beside: Mapping[bytes, tuple[bytes, bytes]] = field(default_factory=dict)

    @property
    def database(self) -> str:
        return self.parts[0].column.name.database

    @property
    def series(self) -> str:
        return self.parts[0].column.name.series

    @property
    def values(self) -> int:
        """How many there are."""
        return sum(len(part.keys) for part in self.parts)

    @property
    def last_time(self) -> bytes:
        """The time of its last point, as `before` of the next window has it."""
        return max(part.keys[-1][ID_BYTES:] for part in self.parts)[:_TIME_BYTES]

    def points(self) -> Points:
        """Put the columns side by side."""
        first = self.parts[0]
        strides = _strides(first.keys)
        if all(_strides(part.keys) == strides for part in self.parts[1:]):
            suffixes = _suffixes(first.keys)
            return Points(suffixes, [suffixes] * len(self.parts), True)
        columns = [_suffixes(part.keys) for part in self.parts]
        return Points(sorted(set().union(*columns)), columns, False)


@dataclass(frozen=True, slots=True)
class Points:
    """The points of a window.

    Args:
        suffixes: their keys without column ids, in order.
        columns: of each of the window's parts, the points that it has values of, in order.
        is_full: each part has a value of each point.
    """

    suffixes: list[bytes]
    columns: list[list[bytes]]
    is_full: bool


def sharing(suffixes: Sequence[bytes], window: Window) -> list[int]:
    """Return the places of points that share their time with another one of their series, in
    whatever shard.

    Args:
        suffixes: points of the window, in order, as keys without column ids.
        window: the window.
    """
    times = [point[:_TIME_BYTES] for point in suffixes]
    if not times or (
        len(set(times)) == len(times)
        and times[0] != window.before
        and not (window.goes_on or window.beside)
    ):
        return []
    around = [window.before, *times, times[-1] if window.goes_on else b""]
    beside = window.beside
    return [
        n
        for n, time in enumerate(times)
        if time in (around[n], around[n + 2]) or {*beside.get(time, ())} - {suffixes[n]}
    ]


def repeated(suffixes: Sequence[bytes], window: Window) -> list[int]:
    """Return the places of points whose time an earlier one of their series has; see sharing."""
    times = [window.before, *(point[:_TIME_BYTES] for point in suffixes)]
    return [n for n, time in enumerate(times[1:]) if time == times[n]]


@dataclass(frozen=True, slots=True)
class Place:
    """How far a shard was read: all series before this one, and this one up to a key's end.

    `before` is the time of the last point that was read, as the next window has it.
    """

    database: str
    series: str
    end: bytes
    before: bytes


def windows(
    reader: Reader,
    columns: Sequence[Column],
    selection: Selection,
    after: Place | None = None,
    choice: Choice | None = None,
) -> Iterator[Window]:
    """Yield the points of `columns`, series by series, each in the order of time and sequence.

    Args:
        reader: the open shard.
        columns: as columns.columns_of returns them.
        selection: its times bound what is read.
        after: begin behind this place.
        choice: chooses among the values; None takes all.

    Raises:
        EngineError: the shard can't be read.
    """
    if choice is not None:
        columns = [column for column in columns if choice.has(column)]
    for (database, series), group in groupby(columns, _series_of):
        low, before = selection.low, b""
        if after is not None:
            if (database, series) < (after.database, after.series):
                continue
            if (database, series) == (after.database, after.series):
                low, before = after.end + b"\0", after.before
        merge = _Merge(reader, list(group), low, selection.high, choice)
        yield from merge.windows(before)


def _series_of(column: Column) -> tuple[str, str]:
    """Return what columns of one series have in common; one without a name is one by itself."""
    name = column.name
    return name.database, name.series if column.is_named else name.column


class _Merge:
    """The columns of one series, read side by side."""

    def __init__(
        self,
        reader: Reader,
        columns: Sequence[Column],
        low: bytes,
        high: bytes,
        choice: Choice | None,
    ) -> None:
        count = len(columns)
        pairs = max(_PAIRS // count, min(_LEAST_SHARE, _MOST_PAIRS // count), _FEWEST)
        share = _Share(pairs, max(_BYTES // count, 1), stays_open=count <= _OPEN)
        self._ahead = [_Ahead(reader, column, low, high, share, choice) for column in columns]

    def windows(self, before: bytes) -> Iterator[Window]:
        """Yield what there is; `before` is the time of the last point that was read before."""
        while True:
            for ahead in self._ahead:
                ahead.fill()
            end, goes_on = self._end()
            parts = tuple(part for ahead in self._ahead if (part := ahead.until(end)) is not None)
            if not parts:
                return
            window = Window(parts, end, before, goes_on)
            del parts  # it is the receiver's alone, and may be large
            yield window
            before = window.last_time
            del window

    def _end(self) -> tuple[bytes, bool]:
        """Return up to where (included) every column is known, and whether that is in the midst
        of points of one time."""
        going_on = [ahead for ahead in self._ahead if not ahead.is_done]
        if not going_on:
            return b"\xff" * (VALUE_KEY - ID_BYTES), False
        known = min(ahead.last for ahead in going_on)
        time = known[:_TIME_BYTES]
        first = min(ahead.first for ahead in self._ahead if ahead.keys)
        if first[:_TIME_BYTES] < time:
            earlier = int.from_bytes(time, "big") - 1
            return earlier.to_bytes(_TIME_BYTES, "big") + b"\xff" * _TIME_BYTES, False
        return known, True


@dataclass(slots=True)
class _Share:
    """How far one column is read ahead, and whether its iterator stays where it is meanwhile.

    `held` are the bytes of all columns' values: where these are many, a column is read no further
    than it has to be, whatever its own share is.
    """

    pairs: int
    bytes: int
    stays_open: bool
    held: int = 0


class _Ahead:
    """What was read of a column and not given out yet."""

    def __init__(
        self,
        reader: Reader,
        column: Column,
        low: bytes,
        high: bytes,
        share: _Share,
        choice: Choice | None,
    ) -> None:
        self.column = column
        self.keys: list[bytes] = []
        self.is_done = False
        self._values: list[bytes] = []
        self._reader = reader
        self._next = column.id + low
        self._high = column.id + high
        self._share = share
        self._choice = choice
        self._stream: Stream | None = None
        self._held = 0  # bytes of its values
        self._largest = 0  # bytes of a value, of those that were read last

    @property
    def first(self) -> bytes:
        return self.keys[0][ID_BYTES:]

    @property
    def last(self) -> bytes:
        return self.keys[-1][ID_BYTES:]

    def fill(self) -> None:
        """Read on until the share is full; there are a few at least, or the column is done."""
        if self.is_done or len(self.keys) >= self._share.pairs:
            return
        share = self._share
        stream = self._stream or self._reader.pairs(self._next)
        step = self._step(_FIRST_STEP)
        while not self.is_done and len(self.keys) < share.pairs:
            is_much = self._held + self._largest > share.bytes or share.held >= _BYTES
            if is_much and len(self.keys) >= _FEWEST:
                break
            pairs = stream.take(min(step, share.pairs - len(self.keys) + 1))
            self._add(pairs, step)
            step = self._step(2 * step)
        self._stream = stream if share.stays_open and not self.is_done else None

    def _step(self, wanted: int) -> int:
        if self._share.held >= _BYTES:
            return 1
        room = self._share.bytes // (self._largest + 1)
        return max(1, min(wanted, room, _MOST_STEP))

    def _add(self, pairs: list[Pair], step: int) -> None:
        """Take what belongs to the column."""
        mine: Sequence[Pair] = pairs
        if len(pairs) < step or pairs[-1][0] >= self._high:
            end = bisect_left(pairs, self._high, key=_key)
            # A short answer is the shard's end, or less was asked for.
            self.is_done = not pairs or end < len(pairs)
            mine = pairs[:end]
        if not mine:
            return
        self._next = mine[-1][0] + b"\0"
        self._check(mine)
        self._largest = max(len(value) for _, value in mine)
        if self._choice is not None and not (mine := self._choice.of(self.column, mine)):
            return
        keys, values = zip(*mine, strict=True)
        self.keys += keys
        self._values += values
        self._holds(sum(map(len, values)))

    def _holds(self, more: int) -> None:
        self._held += more
        self._share.held += more

    def _check(self, pairs: Sequence[Pair]) -> None:
        if {len(key) for key, _ in pairs} != {VALUE_KEY}:
            odd = next(key for key, _ in pairs if len(key) != VALUE_KEY)
            raise EngineError(
                f"{self._reader.path}: expected values under keys of {VALUE_KEY} bytes, "
                f"found a key {odd[:64].hex()}"
            )

    def until(self, end: bytes) -> Part | None:
        """Give out what there is up to `end` (included); None for nothing."""
        count = bisect_right(self.keys, self.column.id + end)
        if not count:
            return None
        part = Part(self.column, self.keys[:count], self._values[:count])
        self.keys, self._values = self.keys[count:], self._values[count:]
        # What is left is seldom much.
        self._holds(sum(map(len, self._values)) - self._held)
        return part


def _key(pair: Pair) -> bytes:
    return pair[0]


def _suffixes(keys: Sequence[bytes]) -> list[bytes]:
    return [key[ID_BYTES:] for key in keys]


def _strides(keys: Sequence[bytes]) -> tuple[bytes, bytes]:
    # Of three 64-bit words a key the second and the third, for all keys at once.
    words = memoryview(b"".join(keys)).cast("Q")
    return words[1::3].tobytes(), words[2::3].tobytes()


def place_of(window: Window) -> Place:
    """Return how far a shard was read when this window is done with."""
    return Place(*_series_of(window.parts[0].column), window.end, window.last_time)
