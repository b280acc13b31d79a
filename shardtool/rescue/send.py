"""Send points, so that what the server refuses is known to the point and the rest goes through.

Sending the same point twice changes nothing: identity and values are the same. So whatever fails
on the way is sent again, and a run that was cut off anywhere is gone on with by the next one.
"""

from __future__ import annotations

import time
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
    _refused_in_a_row: int = 0
    _given_up: dict[tuple[str, str], str] = field(default_factory=dict)
    _given_up_in_a_row: int = 0

    def send(self, batch: Batch) -> Iterator[Refused]:
        """Send a batch; yield what of it was refused, when all the rest of it is written.

        A refused one is cut in halves until what is refused is a single value. A series of which
        very many are refused is refused as a whole: it is not asked for the rest one by one.

        Raises:
            ShardtoolError: the server can't be written to at all.
        """
        waiting = [batch]
        while waiting:
            part = waiting.pop()
            for entry in part.entries:
                if text := self._given_up.get((entry.database, entry.series)):
                    yield from _all_of(entry, text)
            left = [e for e in part.entries if (e.database, e.series) not in self._given_up]
            if not left:
                continue
            part = Batch(tuple(left))
            text = self.writer.write_points(part.database, part.body())
            if not text:
                self._take(part)
            elif part.values > 1:
                waiting += reversed(part.halves())
            else:
                yield from _all_of(part.entries[0], text)
                self._refuse(part.entries[0], text)

    def _refuse(self, entry: Entry, text: str) -> None:
        self._refused_in_a_row += 1
        if self._refused_in_a_row < _MOST_IN_A_ROW:
            return
        self._refused_in_a_row = 0
        self._given_up[entry.database, entry.series] = text
        self._given_up_in_a_row += 1
        if self._given_up_in_a_row >= _MOST_SERIES_IN_A_ROW:
            raise ShardtoolError(
                f"the server refused {_MOST_IN_A_ROW * _MOST_SERIES_IN_A_ROW} values one after "
                f"the other, of {_MOST_SERIES_IN_A_ROW} series, the last with '{text}': put that "
                "right"
            )

    def _take(self, part: Batch) -> None:
        self._refused_in_a_row = self._given_up_in_a_row = 0
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
# A server that refuses everything is full or broken; what is in single values is not to blame.
_MOST_IN_A_ROW, _MOST_SERIES_IN_A_ROW = 200, 3
