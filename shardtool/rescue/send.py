"""Send points, so that what the server refuses is known to the point and the rest goes through.

Sending the same point twice changes nothing: identity and values are the same. So whatever fails
on the way is sent again, and a run that was cut off anywhere is gone on with by the next one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from shardtool.errors import ShardtoolError
from shardtool.proof.columns import Name
from shardtool.rescue.points import Batch, Unsendable


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

    def send(self, batch: Batch) -> Iterator[Refused]:
        """Send a batch; yield what of it was refused, when all the rest of it is written.

        A refused one is cut in halves until what is refused is a single value.

        Raises:
            ShardtoolError: the server can't be written to at all.
        """
        waiting = [batch]
        while waiting:
            part = waiting.pop()
            text = self.writer.write_points(part.database, part.body())
            if not text:
                self._take(part)
            elif part.values > 1:
                waiting += reversed(part.halves())
            else:
                self._refused_in_a_row += 1
                if self._refused_in_a_row >= _MOST_IN_A_ROW:
                    raise ShardtoolError(
                        f"the server refused {_MOST_IN_A_ROW} values one after the other, the last "
                        f"with '{text}': put that right, and run rescue again"
                    )
                (entry,) = part.entries
                (point,), (column,) = entry.points, entry.columns
                name = Name(entry.database, entry.series, column)
                yield Refused(Unsendable(name, point.time_us, point.sequence, "refused"), text)

    def _take(self, part: Batch) -> None:
        self._refused_in_a_row = 0
        self.sent += part.values
        self._points += part.points
        self.told(part)
        if self._points >= _PAUSE_POINTS:
            self._points = 0
            time.sleep(self.pause)


_PAUSE_POINTS = 10_000
_MOST_IN_A_ROW = 500
"""A server that refuses everything is full or broken; what is in single values is not to blame."""
