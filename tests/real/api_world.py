"""A node with rows, served over a real socket, and who asks it; and a look for leaked passwords."""

from __future__ import annotations

import base64
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field

from fixtures import Node, Row
from fixtures.encode import Value
from fixtures.server import Faults
from shardtool.influxdb.answers import Point
from shardtool.influxdb.api import Api

PASSWORD = "corr\u00e9ct-h0rse"
EVER = (-(2**63), 2**63)


@dataclass
class World:
    """A node with rows, served; `api` asks it."""

    api: Api
    faults: Faults
    url: str
    node: Node

    def found(self, series: str, column: str, database: str = "test") -> list[Point]:
        """Return all points of a column, by time and sequence."""
        return sorted(self.api.points(database, series, column, *EVER))


Serve = Callable[..., World]


def row(
    value: Value = 1,
    *,
    series: str = "cpu",
    column: str = "v",
    time_us: int = 1_400_000_000_000_000,
    sequence: int = 10001,
    database: str = "test",
) -> Row:
    """Return a row of which a test says only what it is about."""
    return Row(database, series, column, time_us, sequence, value)


def many(count: int) -> list[Row]:
    """Return rows one second apart."""
    return [row(n, time_us=1_400_000_000_000_000 + n * 1_000_000) for n in range(count)]


@dataclass
class Leaks:
    """Looks for the password in whatever comes out."""

    spellings: tuple[str, ...] = field(
        default=(PASSWORD, "h0rse", base64.b64encode(f"root:{PASSWORD}".encode()).decode())
    )

    def check(self, text: str) -> None:
        assert not any(spelling in text for spelling in self.spellings), text

    def check_error(self, error: BaseException) -> None:
        """Check an error, all that it stands for, and the traceback as Python prints it."""
        self.check("".join(traceback.format_exception(error)))
        seen: list[BaseException] = []
        waiting: list[BaseException | None] = [error]
        while waiting:
            one = waiting.pop()
            if one is not None and one not in seen:
                seen.append(one)
                self.check(f"{one!r} {one} {one.args!r} {getattr(one, '__notes__', '')}")
                request = getattr(one, "_request", None)
                assert request is None, "an error of httpx holds the request, header and all"
                waiting += [one.__cause__, one.__context__]
