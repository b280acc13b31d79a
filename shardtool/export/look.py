"""What a shard has, as is found out before it is read; and how much of it is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shardtool.export.columns import Column, Selection
from shardtool.export.windows import Window
from shardtool.influxdb.engines import ReaderBothWays
from shardtool.influxdb.keys import ID_BYTES

_TIME_BYTES = 8


@dataclass(frozen=True)
class Look:
    """What a shard has of what is wanted, before it is read.

    Args:
        databases: of the columns that are wanted.
        named: of all columns of wanted databases.
        times: the first and the last of the values' times, as keys hold them; None for no values,
            and where nobody asks.
        torn: the logs that end in the midst of a record, in words.
        word: why it can't be read; see Outcome.
        detail: what was met, in words.
    """

    databases: frozenset[str] = frozenset()
    named: frozenset[str] = frozenset()
    times: tuple[bytes, bytes] | None = None
    torn: tuple[str, ...] = ()
    word: str = ""
    detail: str = ""

    def overlaps(self, other: Look) -> bool:
        """Say whether values of both may have one time."""
        if self.times is None or other.times is None:
            return False
        return self.times[0] <= other.times[1] and other.times[0] <= self.times[1]


def databases_of(columns: Sequence[Column]) -> frozenset[str]:
    """Return the databases of columns."""
    return frozenset(column.name.database for column in columns if column.is_named)


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
