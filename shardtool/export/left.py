"""Values that a form can't hold: listed as JSON lines, not changed and not dropped in silence."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

from shardtool.export.values import NoValueError, decoded
from shardtool.export.windows import Part
from shardtool.influxdb.keys import ID_BYTES, time_and_sequence
from shardtool.influxdb.messages import parse, text
from shardtool.proof.columns import Name
from shardtool.proof.listing import iso_us

WHY = {
    "number": "NaN or an infinity, which the format has no word for",
    "bytes": "a string or a name that is no UTF-8",
    "name": "a name that the format has no spelling for: empty, with a line feed, tab, carriage "
    "return or NUL, with a backslash before what is escaped or at its end, or that begins with #",
    "reserved": "a column whose name means something else there: time or sequence_number",
    "newline": "a string with a line feed: influx -import would double it; see --line-feeds",
    "time": "a time that nanoseconds in 64 bits can't reach, or that 0.8 would refuse (no year of "
    "RFC 3339) or read as another one",
    "sequence": "a point whose sequence number does not fit the field, or that 0.8 would read as "
    "another one",
    "contradicted": "a later shard has another value under its time and sequence number",
    "same-time": "a point that would replace another of its series, of the same time",
    "type": "a value of another type than the first one of its field in the file: a database of "
    "today takes one type for a field",
    "integer": "an integer that a float can't hold exactly",
    "long": "names of more than 65,000 bytes together",
    "unnamed": "nobody has a name for the column: it is called by its id",
    "null": "a null, or nothing at all",
    "unreadable": "its bytes are no value of InfluxDB's",
}
_TYPES = {str: "string", bool: "bool", int: "int64", float: "double"}


class Left:
    """Collects what could not go out, in one shard."""

    def __init__(self, shard: str) -> None:
        """Begin with nothing left."""
        self.counts: Counter[str] = Counter()
        self._shard = shard
        self._lines: list[str] = []

    def add(self, name: Name, point: bytes, stored: bytes, why: str) -> None:
        """Take a value: its column, its key without the id, what is stored, a word of WHY."""
        time_us, sequence = time_and_sequence(point)
        document = {
            "shard": self._shard,
            "database": name.database,
            "series": name.series,
            "column": name.column,
            "time": iso_us(time_us),
            "time_us": time_us,
            "sequence_number": sequence,
            **_value(stored),
            "why": why,
        }
        self.counts[why] += 1
        self._lines.append(json.dumps(document))

    def add_part(self, part: Part, why: str) -> None:
        """Take all that a window has of one of its columns."""
        for key, stored in zip(part.keys, part.values, strict=True):
            self.add(part.column.name, key[ID_BYTES:], stored, why)

    def take(self) -> bytes:
        """Return the lines since the last call."""
        lines, self._lines = self._lines, []
        return "".join(f"{line}\n" for line in lines).encode()


def _value(stored: bytes) -> dict[str, Any]:
    try:
        value = decoded(stored)
    except NoValueError as error:
        word = str(error)
        if word == "bytes":  # each byte that is none stands as one surrogate
            return {"type": "string", "value": _string(stored)}
        return {"type": word, "value": stored.hex()}
    if isinstance(value, float) and not math.isfinite(value):
        return {"type": "double", "value": str(value)}  # JSON has no word for it
    return {"type": _TYPES[type(value)], "value": value}


def _string(stored: bytes) -> str:
    return text(parse("FieldValue", stored).string_value)
