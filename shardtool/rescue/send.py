"""Send points, so that what the server refuses is known to the point and the rest goes through.

Sending the same point twice changes nothing: identity and values are the same. So whatever fails
on the way is sent again, and a run that was cut off anywhere is gone on with by the next one.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from shardtool.errors import ShardtoolError
from shardtool.proof.columns import Name
from shardtool.rescue.points import Batch, Entry, Unsendable


class Writer(Protocol):
    """A running server."""

    def write_points(self, database: str, body: bytes) -> str:
        """Write points; return why the server refused them, in its own words, or nothing.

        Raises:
            ShardtoolError: it is not reachable, or refuses the user.
        """


@dataclass(frozen=True)
class Refused:
    """A value that the server refused, and its words."""

    value: Unsendable
    text: str


@dataclass
class Sender:
    """Sends batches to a server.

    Args:
        writer: the server.
        pause: seconds to rest after each 10,000 points.
        told: told of each batch that was taken, or the part of one.
        sent: values that the server took so far.
    """

    writer: Writer
    pause: float
    told: Callable[[Batch], None]
    sent: int = 0
    _points: int = 0
    _refused: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By series, since the last of it was taken."""
    _in_a_row: int = 0
    _series_in_a_row: set[tuple[str, str]] = field(default_factory=set)

    def send(self, batch: Batch) -> Iterator[Refused]:
        """Send a batch; yield what of it was refused, when all the rest of it is written.

        A refused one is cut in halves until what is refused is a single value; of a series of
        which very many are refused, until it is few.

        Raises:
            ShardtoolError: the server can't be written to at all.
        """
        waiting = [batch]
        while waiting:
            part = waiting.pop()
            text = self.writer.write_points(part.database, part.body())
            if not text:
                self._take(part)
            elif len(part.entries) > 1 or part.values > self._fewest(part.entries[0]):
                waiting += reversed(part.halves())
            else:
                yield from _all_of(part.entries[0], text)
                self._refuse(part.entries[0], text)

    def _fewest(self, entry: Entry) -> int:
        """Return of how many values of a series the server is not asked which it refuses."""
        return _FEW if self._refused[entry.database, entry.series] >= _MANY else 1

    def _refuse(self, entry: Entry, text: str) -> None:
        key = entry.database, entry.series
        self._refused[key] += 1
        self._in_a_row += 1
        self._series_in_a_row.add(key)
        if self._in_a_row >= _MOST_IN_A_ROW and len(self._series_in_a_row) >= _MOST_SERIES_IN_A_ROW:
            raise ShardtoolError(
                f"the server refused {self._in_a_row} times one after the other, values of "
                f"{len(self._series_in_a_row)} series, the last time with '{text}': put that right"
            )

    def _take(self, part: Batch) -> None:
        for entry in part.entries:
            self._refused.pop((entry.database, entry.series), None)
        self._in_a_row = 0
        self._series_in_a_row.clear()
        self.sent += part.values
        self._points += part.points
        self.told(part)
        if self._points >= _PAUSE_POINTS:
            self._points = 0
            time.sleep(self.pause)


def _all_of(entry: Entry, text: str) -> Iterator[Refused]:
    for point in entry.points:
        for column in entry.columns:
            name = Name(entry.database, entry.series, column)
            yield Refused(Unsendable(name, point.time_us, point.sequence, "refused"), text)


_PAUSE_POINTS = 10_000
_MANY, _FEW = 200, 64
# A server that refuses everything is full or broken; what is in single values is not to blame.
_MOST_IN_A_ROW, _MOST_SERIES_IN_A_ROW = 600, 3
