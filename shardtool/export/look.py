"""What a shard has, as is found out before it is read; and how much of it is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from shardtool.export.columns import Column, Selection
from shardtool.export.fieldtypes import digest_of
from shardtool.export.windows import Window
from shardtool.influxdb.engines import ReaderBothWays
from shardtool.influxdb.keys import ID_BYTES

_TIME_BYTES = 8
# Of a series' name no more than this is kept, and of so many series: there are thousands of shards.
_DIGEST, _MOST_SERIES = 8, 1024


@dataclass(frozen=True)
class Look:
    """What a shard has of what is wanted, before it is read.

    Args:
        databases: of the columns that are wanted.
        named: of all columns of wanted databases.
        times: the first and the last of the values' times, as keys hold them; None for no values,
            and where nobody asks.
        series: digests of the series that have values, in order and joined; None where they are
            too many to say, or nobody asks.
        torn: the logs that end in the midst of a record, in words.
        word: why it can't be read; see Outcome.
        detail: what was met, in words.
    """

    databases: frozenset[str] = frozenset()
    named: frozenset[str] = frozenset()
    times: tuple[bytes, bytes] | None = None
    series: bytes | None = None
    torn: tuple[str, ...] = ()
    word: str = ""
    detail: str = ""

    def overlaps(self) -> Callable[[Look], bool]:
        """Return what says of another one whether values of both may have one series and time.

        It holds the digests apart from each other, which is not for thousands of shards at once.
        """
        digests, times = self.digests(), self.times

        def overlap(other: Look) -> bool:
            if times is None or not other.reaches(*times):
                return False
            if digests is None or other.series is None:
                return True
            return not digests.isdisjoint(_cut(other.series))

        return overlap

    def reaches(self, first: bytes, last: bytes) -> bool:
        """Say whether values may be of times between two."""
        return self.times is not None and self.times[0] <= last and first <= self.times[1]

    def digests(self) -> frozenset[bytes] | None:
        """Return `series` as a set of what series_digest returns."""
        return None if self.series is None else frozenset(_cut(self.series))


def databases_of(columns: Sequence[Column]) -> frozenset[str]:
    """Return the databases of columns."""
    return frozenset(column.name.database for column in columns if column.is_named)


def series_of(columns: Sequence[Column]) -> bytes | None:
    """Return digests of the series of columns, as Look has them; None where they are too many."""
    names = {(c.name.database, c.name.series) for c in columns if c.is_named}
    if len(names) > _MOST_SERIES:
        return None
    return b"".join(sorted(series_digest(*name) for name in names))


def series_digest(database: str, series: str) -> bytes:
    """Return what stands for a series."""
    return digest_of(database, series)[:_DIGEST]


def _cut(digests: bytes) -> Iterator[bytes]:
    return (digests[at : at + _DIGEST] for at in range(0, len(digests), _DIGEST))


def times_of(
    reader: ReaderBothWays, columns: Sequence[Column], selection: Selection
) -> tuple[bytes, bytes] | None:
    """Return the first and the last time of columns, within those that are wanted."""
    firsts, lasts = [], []
    for column in columns:
        for key, _ in reader.pairs(column.id + selection.low).take(1):
            if column.id <= key < column.id + selection.high:
                last = reader.last(column.id + selection.high) or key
                firsts.append(key[ID_BYTES:])
                lasts.append(last[ID_BYTES:])
    return (min(firsts)[:_TIME_BYTES], max(lasts)[:_TIME_BYTES]) if firsts else None


class Begun:
    """How many of a shard's columns were read: what its progress is told by."""

    def __init__(self, columns: Sequence[Column]) -> None:
        """Begin with none of `columns`, which are in the order in which they are read."""
        self._count = max(len(columns), 1)
        self._ends: dict[tuple[str, str], int] = {}
        for place, column in enumerate(columns):
            self._ends[column.name.database, column.name.series] = place + 1

    def part(self, window: Window) -> float:
        """Return how much of the shard is done with, from 0 to 1, when a window is."""
        return self._ends.get((window.database, window.series), 0) / self._count
