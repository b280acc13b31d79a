"""Line protocol, as InfluxDB 1.x and later read it.

Source of the facts: the published parser (influxdata/influxdb, models/points.go and
pkg/escape), a real 1.6.7 that was asked, and InfluxData's documentation of line protocol. What the
parsers of 1.x, 2.x and 3.x read differently, as a backslash before what is escaped, is not written.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import repeat
from typing import Literal, TypeAlias

from shardtool.export.cells import Cells
from shardtool.export.left import Left
from shardtool.export.values import NoValueError, Texts, Value
from shardtool.export.windows import Part, Window, repeated, sharing
from shardtool.influxdb.keys import time_and_sequence

Sequences: TypeAlias = Literal["auto", "tag", "field", "none"]

SEQUENCE = "sequence_number"
# Nanoseconds of 64 bits, less the few that 1.x keeps for itself: whole microseconds within them.
FIRST_US, LAST_US = -9_223_372_036_854_775, 9_223_372_036_854_775
_INT64_END = 1 << 63
_EXACT = 1 << 53  # a float holds every integer up to here
# A key (measurement, tags, and a field's key) of more bytes is refused; some are for the tag.
_MOST_KEY = 65_535 - 100
# Characters of a line after which it goes on in another one with the same tags and time, of which
# a database makes one point again. influx -import sends 5,000 lines in one request, and a server
# takes one of 25 MB.
_LINE = 4000

_UNSPEAKABLE = re.compile(r"[\0\t\n\r]")
_ESCAPED_STRING = re.compile(r'(["\\])')
# The parsers disagree on a backslash before what may be escaped (1.6.7 makes `=` of a measurement
# `\\=`), and at a name's end it would escape what follows.
_AMBIGUOUS = re.compile(r'\\(?:[,= "\\]|\Z)')


@dataclass(frozen=True)
class Style:
    """What the operator chose.

    Args:
        sequence: where a point's sequence number goes; 'auto': into a tag where points of a
            series share a time, nowhere else.
        floats: integers are written as floats.
        line_feeds: strings with line feeds are written.
    """

    sequence: Sequences = "auto"
    floats: bool = False
    line_feeds: bool = False


def header(database: str) -> bytes:
    """Return what a file begins with: what tells influx -import the database; others skip it.

    A name that can't stand there (it is cut at a colon, and ends with the line) is left out.
    """
    if (
        not database
        or database != database.strip()
        or not database.isprintable()
        or ":" in database
    ):
        return b"# DML\n"
    return f"# DML\n# CONTEXT-DATABASE: {database}\n".encode()


class Line:
    """Writes windows as lines."""

    def __init__(self, left: Left, style: Style) -> None:
        """Take what is not written, and how to write."""
        self._left = left
        self._style = style
        self._texts = Texts(self._text)

    def written(self, window: Window) -> tuple[bytes, int, int]:
        """Return a window's lines, and how many points and values are in them."""
        measurement, trouble = _measurement(window.series)

        def problem(part: Part) -> str:
            return trouble or self._trouble_with(part, len(measurement.encode()))

        cells = Cells.of(window, self._texts, problem, self._left)
        if not cells.parts:
            return b"", 0, 0
        self._leave_points(cells)
        identities = list(map(time_and_sequence, cells.points))
        times = [time_us * 1000 for time_us, _ in identities]
        tags = self._tags(cells, identities)
        extra = [f",{SEQUENCE}={sequence}i" for _, sequence in identities]
        rows = _Rows(measurement, times, tags, extra if self._style.sequence == "field" else None)
        lines = rows.full(cells) if cells.is_full else None
        if lines is not None and max(map(len, lines), default=0) <= _LINE:
            return "".join(lines).encode(), len(lines), cells.values
        points, lines = rows.gaps(cells)
        return "".join(lines).encode(), points, cells.values

    def _leave_points(self, cells: Cells) -> None:
        """Leave those that no line can identify."""
        times = [time_us for time_us, _ in map(time_and_sequence, cells.points)]
        if not FIRST_US <= times[0] <= times[-1] <= LAST_US:
            beyond = [n for n, time_us in enumerate(times) if not FIRST_US <= time_us <= LAST_US]
            cells.leave(beyond, "time", self._left)
        if self._style.sequence in ("field", "none"):
            cells.leave(repeated(cells.points, cells.window), "same-time", self._left)
        if self._style.sequence == "field":
            sequences = [sequence for _, sequence in map(time_and_sequence, cells.points)]
            large = [n for n, sequence in enumerate(sequences) if sequence >= _INT64_END]
            cells.leave(large, "sequence", self._left)

    def _tags(self, cells: Cells, identities: list[tuple[int, int]]) -> Iterable[str]:
        if self._style.sequence == "tag":
            return [f",{SEQUENCE}={sequence}" for _, sequence in identities]
        if self._style.sequence == "auto":
            places = sharing(cells.points, cells.window)
            if places:
                tags = [""] * len(identities)
                for place in places:
                    tags[place] = f",{SEQUENCE}={identities[place][1]}"
                return tags
        return repeat("")

    def _text(self, value: Value) -> str:
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, str):
            if "\n" in value and not self._style.line_feeds:
                raise NoValueError("newline")
            return '"' + _ESCAPED_STRING.sub(r"\\\1", value) + '"'
        if isinstance(value, int):
            if not self._style.floats:
                return f"{value}i"
            if abs(value) > _EXACT:
                raise NoValueError("integer")
            return repr(float(value))
        if math.isfinite(value):
            return repr(value)
        raise NoValueError("number")

    def _trouble_with(self, part: Part, taken: int) -> str:
        if not part.column.is_named:
            return "unnamed"
        column = part.column.name.column
        if column == "time" or (column == SEQUENCE and self._style.sequence != "none"):
            return "reserved"
        field, trouble = _field(column)
        return trouble or ("long" if taken + len(field.encode()) > _MOST_KEY else "")


class _Rows:
    """Puts lines together: measurement and tag, fields, time."""

    def __init__(
        self,
        measurement: str,
        times: Sequence[int],
        tags: Iterable[str],
        extra: Sequence[str] | None,
    ) -> None:
        self._measurement = measurement
        self._times = times
        self._tags = tags
        # What is the same for all of them has no end.
        self._extra: Iterable[str] = repeat("") if extra is None else extra

    def full(self, cells: Cells) -> list[str]:
        """Return a line for each point, where each has all columns."""
        names = [_field(part.column.name.column)[0] for part in cells.parts]
        fields = ",".join(f"{_percent(name)}=%s" for name in names)
        line = f"{_percent(self._measurement)}%s {fields}%s %d\n"
        rows = zip(self._tags, *cells.texts, self._extra, self._times, strict=False)
        return list(map(line.__mod__, rows))

    def gaps(self, cells: Cells) -> tuple[int, list[str]]:
        """Return how many points there are, and lines of what each of them has: one or more."""
        columns = [
            [text and f"{name}={text}" for text in texts]
            for part, texts in zip(cells.parts, cells.texts, strict=True)
            for name in [_field(part.column.name.column)[0]]
        ]
        points, lines = 0, []
        rows = zip(self._tags, self._extra, self._times, *columns, strict=False)
        for tag, extra, time_ns, *row in rows:
            begin = self._measurement + tag
            fields = list(filter(None, row))
            points += bool(fields)
            for some in _portions(fields):
                lines.append(f"{begin} {some}{extra} {time_ns}\n")
        return points, lines


def _portions(fields: Sequence[str]) -> Iterator[str]:
    """Yield fields joined, as many at a time as a line takes; at least one."""
    begin = length = 0
    for place, text in enumerate(fields):
        if length and length + len(text) > _LINE:
            yield ",".join(fields[begin:place])
            begin, length = place, 0
        length += len(text) + 1
    if fields:
        yield ",".join(fields[begin:])


def _percent(text: str) -> str:
    return text.replace("%", "%%")


@lru_cache(maxsize=1024)
def _measurement(name: str) -> tuple[str, str]:
    """Given the name of a series, return how a line begins, and why none can ('' where it can)."""
    if name.startswith("#"):
        return "", "name"  # a comment
    return _spelled(name, r"([, ])")


@lru_cache(maxsize=16384)
def _field(name: str) -> tuple[str, str]:
    """Given the name of a column, return a field's key, and why it can't be one."""
    return _spelled(name, r"([,= ])")


def _spelled(name: str, special: str) -> tuple[str, str]:
    try:
        name.encode()
    except UnicodeEncodeError:
        return "", "bytes"
    if not name or _UNSPEAKABLE.search(name) or _AMBIGUOUS.search(name):
        return "", "name"
    return re.sub(special, r"\\\1", name), ""
