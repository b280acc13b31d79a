"""JSON as InfluxDB 0.8 takes it over HTTP: POST /db/DB/series?time_precision=u, a line at a time.

Source of the facts: FORMATS.md (HTTP, "Writing"). A number without point or exponent is an int64,
every other a double; times and sequence numbers pass through a float64. A null deletes what the
server has, so points are grouped by the columns that they have, and nobody gets a null.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator

from shardtool.export.cells import Cells
from shardtool.export.left import Left
from shardtool.export.values import NoValueError, Texts, Value
from shardtool.export.windows import Part, Window
from shardtool.influxdb.identity import trouble_with_identity
from shardtool.influxdb.keys import time_and_sequence, time_bytes
from shardtool.words import is_utf8

_IDENTITY = ("time", "sequence_number")
_POINTS = 1000  # of one line, which is one request
# All times and sequence numbers within these arrive as what they are.
_FIRST, _END = time_bytes(-(1 << 53)), time_bytes(1 << 53)
_SEQUENCE_END = (1 << 53).to_bytes(8, "big")
_TIME_BYTES = 8


class Json08:
    """Writes windows as documents, a line each."""

    def __init__(self, left: Left) -> None:
        """Take what is not written."""
        self._left = left
        self._texts = Texts(_text)

    def written(self, window: Window) -> tuple[bytes, int, int]:
        """Return a window's lines, and how many points and values are in them."""
        trouble = "" if is_utf8(window.series) else "bytes"

        def problem(part: Part) -> str:
            return trouble or _trouble_with(part)

        cells = Cells(window, self._texts, problem, self._left)
        _leave_changing(cells)
        points, lines = 0, []
        for columns, rows in _groups(cells):
            points += len(rows)
            names = json.dumps([*_IDENTITY, *columns], separators=(",", ":"))
            head = f'[{{"name":{json.dumps(window.series)},"columns":{names},"points":['
            for begin in range(0, len(rows), _POINTS):
                lines.append(f"{head}{','.join(rows[begin : begin + _POINTS])}]}}]\n")
        return "".join(lines).encode(), points, cells.values

    def rest(self) -> tuple[bytes, int, int]:
        """Return what `written` kept for later, as it does: nothing."""
        return b"", 0, 0


def _leave_changing(cells: Cells) -> None:
    """Leave points that 0.8 would read as others, and then may take two for one, or refuse: and
    then all of their request."""
    every = cells.every
    largest = max(point[_TIME_BYTES:] for point in every)
    if every[0] >= _FIRST and every[-1] < _END and largest < _SEQUENCE_END:
        return
    gone: dict[str, set[bytes]] = {}
    for point in every:
        if why := trouble_with_identity(*time_and_sequence(point)):
            gone.setdefault(why, set()).add(point)
    for why, points in gone.items():
        cells.leave_points(points, why)


def _groups(cells: Cells) -> Iterator[tuple[list[str], list[str]]]:
    """Yield columns, and the points that have these and no others."""
    names = [column.name.column for column in cells.columns]
    if cells.is_full and names:
        form = f"[%d,%d,{','.join(['%s'] * len(names))}]"
        identities = map(time_and_sequence, cells.points)
        rows = zip(*cells.texts, strict=True)
        yield (
            names,
            [form % (*identity, *texts) for identity, texts in zip(identities, rows, strict=True)],
        )
        return
    groups: dict[tuple[int, ...], list[str]] = {}
    for point, row in cells.rows():
        time_us, sequence = time_and_sequence(point)
        values = ",".join(text for _, text in row)
        groups.setdefault(tuple(place for place, _ in row), []).append(
            f"[{time_us},{sequence},{values}]"
        )
    for places, points in groups.items():
        yield [names[place] for place in places], points


def _text(value: Value) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        raise NoValueError("number")
    return json.dumps(value)


def _trouble_with(part: Part) -> str:
    if not part.column.is_named:
        return "unnamed"
    column = part.column.name.column
    if column in _IDENTITY:
        return "reserved"
    return "" if is_utf8(column) else "bytes"
