"""Parquet: a row for each value, with a column for each type that InfluxDB has.

Long and not wide: shards of one series may have other columns, and a column of 0.8 may hold values
of several types. pyarrow, an extra, is imported here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, BinaryIO

from shardtool.errors import UsageError
from shardtool.export.left import Left
from shardtool.export.values import NoValueError, Value, decoded
from shardtool.export.windows import Part, Window
from shardtool.influxdb.keys import ID_BYTES, time_and_sequence

# Rows, and bytes of their values, that windows are collected up to: a batch and its stream have a
# cost of their own, and a window may be one value.
_BATCH_ROWS = 1 << 14
_BATCH_BYTES = 4 << 20
_GROUP_ROWS = 1 << 18
_GROUP_BYTES = 64 << 20
# Of the values' columns, in the order of the schema.
_TYPES: tuple[type, ...] = (float, int, bool, str)
_FIRST_VALUE = 5


def arrow() -> Any:
    """Return pyarrow.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import pyarrow
    except ImportError:
        raise UsageError(
            "--format parquet needs pyarrow, which is not installed: "
            "pip install 'shardtool[parquet]'"
        ) from None
    return pyarrow


def schema() -> Any:
    """Return the columns of a file: a name, a time and a sequence number for each value, and the
    value under its type; the other three are null.

    Every time that a key can hold fits: the type has 64 bits of microseconds.
    """
    pa = arrow()
    return pa.schema(
        [
            pa.field("database", pa.string(), nullable=False),
            pa.field("series", pa.string(), nullable=False),
            pa.field("column", pa.string(), nullable=False),
            pa.field("time", pa.timestamp("us", tz="UTC"), nullable=False),
            pa.field("sequence_number", pa.uint64(), nullable=False),
            pa.field("value_float", pa.float64()),
            pa.field("value_int", pa.int64()),
            pa.field("value_bool", pa.bool_()),
            pa.field("value_string", pa.string()),
        ]
    )


class _Rows:
    """Values that are to be written, as columns."""

    def __init__(self) -> None:
        self.databases: list[str] = []
        self.series: list[str] = []
        self.columns: list[str] = []
        self.keys: list[bytes] = []
        self.values: list[Value] = []
        self.points = 0
        self.bytes = 0

    @property
    def is_enough(self) -> bool:
        return len(self.keys) >= _BATCH_ROWS or self.bytes >= _BATCH_BYTES


class Parquet:
    """Writes windows as Arrow's record batches, which a Sink puts into a file."""

    def __init__(self, left: Left) -> None:
        """Take what is not written."""
        self._left = left
        self._schema = schema()
        self._rows = _Rows()

    def written(self, window: Window) -> tuple[bytes, int, int]:
        """Return values as an Arrow stream, and how many points and values are in it: those of
        this window and of windows before it, or nothing yet."""
        rows = self._rows
        begin = len(rows.keys)
        for part in window.parts:
            why = _trouble_with(part)
            if why:
                self._left.add_part(part, why)
                continue
            found = self._good(part)
            rows.columns += [part.column.name.column] * len(found)
            rows.keys += [key for key, _ in found]
            rows.values += [value for _, value in found]
            rows.bytes += sum(map(len, part.values))
        count = len(rows.keys) - begin
        rows.databases += [window.database] * count
        rows.series += [window.series] * count
        rows.points += len({key[ID_BYTES:] for key in rows.keys[begin:]})
        return self.rest() if rows.is_enough else (b"", 0, 0)

    def rest(self) -> tuple[bytes, int, int]:
        """Return what `written` kept for later, as it does."""
        rows, self._rows = self._rows, _Rows()
        if not rows.keys:
            return b"", 0, 0
        pa = arrow()
        buffer = pa.BufferOutputStream()
        with pa.ipc.new_stream(buffer, self._schema) as stream:
            stream.write_batch(self._batch(rows))
        return buffer.getvalue().to_pybytes(), rows.points, len(rows.values)

    def _batch(self, rows: _Rows) -> Any:
        pa = arrow()
        times, sequences = zip(
            *[time_and_sequence(key[ID_BYTES:]) for key in rows.keys], strict=True
        )
        return pa.record_batch(
            [
                _texts(rows.databases),
                _texts(rows.series),
                _texts(rows.columns),
                pa.array(times, pa.int64()).cast(self._schema.field("time").type),
                pa.array(sequences, pa.uint64()),
                *(self._typed(rows.values, place, of) for place, of in enumerate(_TYPES)),
            ],
            schema=self._schema,
        )

    def _typed(self, values: Sequence[Value], place: int, of: type) -> Any:
        """Return the values of one type, null where they are of another."""
        pa = arrow()
        kind = self._schema.field(_FIRST_VALUE + place).type
        if not any(type(value) is of for value in values):
            return pa.nulls(len(values), kind)
        return pa.array([value if type(value) is of else None for value in values], kind)

    def _good(self, part: Part) -> list[tuple[bytes, Value]]:
        """Return keys and values of a part; what is none is left."""
        found = []
        for key, stored in zip(part.keys, part.values, strict=True):
            try:
                found.append((key, decoded(stored)))
            except NoValueError as error:
                self._left.add(part.column.name, key[ID_BYTES:], stored, str(error))
        return found


class Sink:
    """Puts record batches into a Parquet file, in row groups of bounded size."""

    def __init__(self, file: BinaryIO) -> None:
        """Begin a file."""
        import pyarrow.parquet

        self._pa = arrow()
        self._schema = schema()
        self._file = pyarrow.parquet.ParquetWriter(file, self._schema, compression="zstd")
        self._held: list[Any] = []
        self._rows = self._bytes = 0

    def write(self, stream: bytes) -> None:
        """Take what Parquet.written returned."""
        for batch in self._pa.ipc.open_stream(stream):
            self._held.append(batch)
            self._rows += batch.num_rows
            self._bytes += batch.nbytes
            if self._rows >= _GROUP_ROWS or self._bytes >= _GROUP_BYTES:
                self._flush()

    def close(self) -> None:
        """End the file."""
        self._flush()
        self._file.close()

    def _flush(self) -> None:
        if self._held:
            table = self._pa.Table.from_batches(self._held, schema=self._schema)
            self._file.write_table(table, row_group_size=max(self._rows, 1))
        self._held, self._rows, self._bytes = [], 0, 0


def _texts(texts: Sequence[str]) -> Any:
    """Return names as an array: most are the same as the one before them."""
    pa = arrow()
    if texts[0] == texts[-1] and len(set(texts)) == 1:
        return pa.repeat(texts[0], len(texts))
    return pa.array(texts, pa.string())


def _trouble_with(part: Part) -> str:
    if not part.column.is_named:
        return "unnamed"
    name = part.column.name
    try:
        "".join((name.database, name.series, name.column)).encode()
    except UnicodeEncodeError:
        return "bytes"
    return ""
