"""Line protocol, as InfluxDB 1.x and later read it.

Source of the facts: the published parser (influxdata/influxdb, models/points.go and
pkg/escape), a real 1.6.7 that was asked, and InfluxData's documentation of line protocol. What the
parsers of 1.x, 2.x and 3.x read differently, as a backslash before what is escaped, is not written.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import repeat
from typing import Literal, TypeAlias

from shardtool.export.cells import Cells
from shardtool.export.fieldtypes import FieldTypes
from shardtool.export.left import Left
from shardtool.export.rivals import Later, leave_other_types
from shardtool.export.values import NoValueError, Texts, Value
from shardtool.export.windows import Part, Window, sharing
from shardtool.influxdb.keys import time_and_sequence, time_bytes, time_of
from shardtool.proof.columns import Name

Sequences: TypeAlias = Literal["auto", "tag", "field", "none"]

SEQUENCE = "sequence_number"
# Nanoseconds of 64 bits, less the few that 1.x keeps for itself: whole microseconds within them.
FIRST_US, LAST_US = -9_223_372_036_854_775, 9_223_372_036_854_775
# The same as keys without column ids have it.
_FIRST, _END = time_bytes(FIRST_US), time_bytes(LAST_US + 1)
_TIME_BYTES = 8
_SEQUENCE_END = (1 << 63).to_bytes(8, "big")
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

    def __init__(self, left: Left, style: Style, types: FieldTypes | None = None) -> None:
        """Take what is not written, how to write, and the types of the file's fields."""
        self._left = left
        self._style = style
        self._types = FieldTypes() if types is None else types
        self._texts = Texts(self._text)
        self._later = Later(self._types)

    def written(self, window: Window) -> tuple[bytes, int, int]:
        """Return a window's lines, and how many points and values are in them."""
        measurement, trouble = _measurement(window.series)
        taken = len(measurement.encode())

        def problem(part: Part) -> str:
            if not part.column.is_named:
                return "unnamed"
            return trouble or self._trouble_with(part.column.name.column, taken)

        cells = Cells(window, self._texts, problem, self._left)
        self._leave(cells, window)
        if not cells.columns:
            return b"", 0, 0
        rows = _Rows(measurement, self._tag(cells.every, window), self._extra)
        points, values = cells.points, cells.values
        wide = sum(max(map(len, column.texts)) for column in cells.columns)
        is_simple = cells.is_full and wide <= _LINE
        if is_simple:
            return "".join(rows.full(cells, points)).encode(), len(points), values
        # Line by line, since they may be large.
        return b"".join(map(str.encode, rows.portions(cells))), len(points), values

    def rest(self) -> tuple[bytes, int, int]:
        """Return what `written` kept for later, as it does: nothing."""
        return b"", 0, 0

    def can_say(self, name: Name, point: bytes, stored: bytes) -> bool:
        """Say whether a value can be in a file at all, whatever else is in it.

        Args:
            name: its column.
            point: its key without the column id.
            stored: what is stored.
        """
        measurement, trouble = _measurement(name.series)
        if trouble or self._trouble_with(name.column, len(measurement.encode())):
            return False
        if self._style.sequence == "field" and point[_TIME_BYTES:] >= _SEQUENCE_END:
            return False
        return not isinstance(self._texts.of([stored])[0], NoValueError)

    def _leave(self, cells: Cells, window: Window) -> None:
        """Leave what no line can say or identify."""
        every = cells.every
        if every[0] < _FIRST or every[-1] >= _END:
            cells.leave_points({key for key in every if not _FIRST <= key < _END}, "time")
        if self._style.sequence == "field":
            large = {key for key in every if key[_TIME_BYTES:] >= _SEQUENCE_END}
            if large:
                cells.leave_points(large, "sequence")
        if self._style.sequence in ("field", "none"):
            self._later.leave(cells, window)
        else:
            leave_other_types(cells, self._types)

    def _tag(self, every: Sequence[bytes], window: Window) -> Callable[[bytes], str] | None:
        """Return what gives the tag of a point, None where no point of a window has any."""
        if self._style.sequence == "tag":
            return lambda point: f",{SEQUENCE}={time_and_sequence(point)[1]}"
        places = sharing(every, window) if self._style.sequence == "auto" else ()
        if not places:
            return None
        shared = {every[place] for place in places}
        return lambda point: f",{SEQUENCE}={time_and_sequence(point)[1]}" if point in shared else ""

    @property
    def _extra(self) -> Callable[[bytes], str] | None:
        """What gives another field of a point."""
        if self._style.sequence != "field":
            return None
        return lambda point: f",{SEQUENCE}={time_and_sequence(point)[1]}i"

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

    def _trouble_with(self, column: str, taken: int) -> str:
        if column == "time" or (column == SEQUENCE and self._style.sequence != "none"):
            return "reserved"
        field, trouble = _field(column)
        return trouble or ("long" if taken + len(field.encode()) > _MOST_KEY else "")


class _Rows:
    """Puts lines together: measurement and tag, fields, time."""

    def __init__(
        self,
        measurement: str,
        tag: Callable[[bytes], str] | None,
        extra: Callable[[bytes], str] | None,
    ) -> None:
        self._measurement = measurement
        self._tag = tag
        self._extra = extra

    def full(self, cells: Cells, points: Sequence[bytes]) -> list[str]:
        """Return a line for each point, where each has all columns."""
        names = [_field(column.name.column)[0] for column in cells.columns]
        fields = ",".join(f"{_percent(name)}=%s" for name in names)
        line = f"{_percent(self._measurement)}%s {fields}%s %d\n"
        # What is the same for all of them has no end.
        tags = repeat("") if self._tag is None else map(self._tag, points)
        extra = repeat("") if self._extra is None else map(self._extra, points)
        times = [time_of(point) * 1000 for point in points]
        return list(map(line.__mod__, zip(tags, *cells.texts, extra, times, strict=False)))

    def portions(self, cells: Cells) -> Iterator[str]:
        """Yield lines of what each point has: one or more."""
        names = [_field(column.name.column)[0] for column in cells.columns]
        for point, row in cells.rows():
            begin = self._measurement + ("" if self._tag is None else self._tag(point))
            extra = "" if self._extra is None else self._extra(point)
            time_ns = time_of(point) * 1000
            for fields in _portions([f"{names[place]}={text}" for place, text in row]):
                yield f"{begin} {fields}{extra} {time_ns}\n"


def _portions(fields: Sequence[str]) -> Iterator[str]:
    """Yield fields joined, as many at a time as a line takes; at least one."""
    if len(fields) == 1:
        yield fields[0]
        return
    begin = length = 0
    for place, text in enumerate(fields):
        if length and length + len(text) > _LINE:
            yield ",".join(fields[begin:place])
            begin, length = place, 0
        length += len(text) + 1
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
