"""The list of lost values: a JSON line each, held back until all of a shard is known."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from shardtool.influxdb.keys import time_and_sequence
from shardtool.influxdb.messages import MessageError, parse, value_of
from shardtool.proof.prove import Lost
from shardtool.proof.scratch import SpoolFile

_CHUNK = 1 << 16
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TYPES = {str: "string", bool: "bool", int: "int64", float: "double", type(None): "null"}


class Listing:
    """Collects a shard's lost values as JSON lines, in order."""

    def __init__(self, shard: str) -> None:
        """Begin the list of `shard`; what does not fit memory waits in TMPDIR."""
        self._shard = shard
        self._lines = SpoolFile()
        self._open_column = SpoolFile()

    def add(self, lost: Lost) -> None:
        """Add a value; one without a cause waits for the end of its column."""
        into = self._lines if lost.cause else self._open_column
        into.write(json.dumps(_document(self._shard, lost)).encode() + b"\n")

    def column_ends(self, cause: str) -> None:
        """Move the values without a cause into the list: this is their cause."""
        if not self._open_column.tell():
            return
        self._open_column.seek(0)
        for line in self._open_column:
            document = json.loads(line) | {"cause": cause}
            self._lines.write(json.dumps(document).encode() + b"\n")
        self._open_column.seek(0)
        self._open_column.truncate()

    def chunks(self) -> Iterator[bytes]:
        """Yield the whole list in pieces of whole lines."""
        self._lines.seek(0)
        while lines := self._lines.readlines(_CHUNK):
            yield b"".join(lines)


def _document(shard: str, lost: Lost) -> dict[str, Any]:
    time_us, sequence = time_and_sequence(lost.suffix)
    document: dict[str, Any] = {
        "shard": shard,
        "database": lost.name.database,
        "series": lost.name.series,
        "column": lost.name.column,
        "time": iso_us(time_us),
        "time_us": time_us,
        "sequence_number": sequence,
        **_value("", lost.stored),
        "cause": lost.cause,
    }
    if lost.found is not None:
        document |= _value("found_", lost.found)
    return document


def _value(prefix: str, stored: bytes) -> dict[str, Any]:
    try:
        value = value_of(parse("FieldValue", stored))
    except MessageError:
        return {f"{prefix}type": "unreadable", f"{prefix}value": stored.hex()}
    kind = _TYPES[type(value)]
    if isinstance(value, float) and not math.isfinite(value):
        value = str(value)  # JSON has no word for it: "inf", "-inf", "nan"
    return {f"{prefix}type": kind, f"{prefix}value": value}


def iso_us(time_us: int) -> str:
    """Return a time in us since the epoch as ISO 8601 UTC; beyond the calendar the nearest."""
    try:
        moment = _EPOCH + timedelta(microseconds=time_us)
    except OverflowError:
        moment = (datetime.max if time_us > 0 else datetime.min).replace(tzinfo=UTC)
    return moment.isoformat().replace("+00:00", "Z")
