"""Which columns an open shard holds values of, what they are called, and which are wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from shardtool.influxdb.catalogue import Catalogue, Dropped
from shardtool.influxdb.engines import EngineError, Reader
from shardtool.influxdb.keys import FIRST_INDEX_KEY, ID_BYTES, LAST_ID_KEY, VALUE_KEY, time_bytes
from shardtool.influxdb.regex import encoded
from shardtool.proof.columns import Name, read_index

NOTHING_KNOWN = Catalogue(frozenset(), {}, {}, (), (), None, Dropped())
"""What is known where raft can't be read: an old shard's index has all of its names."""

_AFTER = b"\xff" * (VALUE_KEY - ID_BYTES + 1)  # sorts behind all of a column's keys


@dataclass(frozen=True, slots=True)
class Column:
    """A column that has values in a shard.

    Args:
        id: the 8 bytes that begin its keys.
        name: its name. One that nobody has a name for is called by its id, with neither database
            nor series.
        is_sure: whose it is, is certain; else the name is the likeliest of those that its key in
            the shard's index can mean.
    """

    id: bytes
    name: Name
    is_sure: bool = True

    @property
    def is_named(self) -> bool:
        return bool(self.name.database or self.name.series)


Namer: TypeAlias = Callable[[bytes], Column]
"""Makes the column of an id."""


@dataclass(frozen=True)
class Selection:
    """Which values are wanted.

    Args:
        databases: their names; empty for all.
        series: RE2's pattern for what the name of a series must have in it; None for any.
        from_us: the first time, us since the epoch; None for no bound.
        until_us: the first time that is too late.
    """

    databases: frozenset[str] = frozenset()
    series: Any = None
    from_us: int | None = None
    until_us: int | None = None

    @property
    def low(self) -> bytes:
        """What follows the column id in the first key that is wanted."""
        return b"" if self.from_us is None else time_bytes(self.from_us)

    @property
    def high(self) -> bytes:
        """What sorts behind all that follows the column id in a key that is wanted."""
        return _AFTER if self.until_us is None else time_bytes(self.until_us)

    def takes(self, column: Column) -> bool:
        """Say whether a column is wanted; one without a name may be any of those that are."""
        if not column.is_named:
            return True
        if self.databases and column.name.database not in self.databases:
            return False
        return self.series is None or bool(self.series.search(encoded(column.name.series)))


def columns_of(reader: Reader, namer: Namer, selection: Selection) -> list[Column]:
    """Return the wanted columns that have values, by database, series, name and id.

    Args:
        reader: the open shard.
        namer: says what a column id is called.
        selection: what is wanted; its times are not looked at.

    Raises:
        EngineError: the shard can't be read.
    """
    wanted = [column for column in map(namer, _ids(reader)) if selection.takes(column)]
    return sorted(wanted, key=lambda c: (c.name.database, c.name.series, c.name.column, c.id))


def old_namer(reader: Reader, catalogue: Catalogue) -> Namer:
    """Return what names the columns of an open old shard: its own index, by the rule of rescue.

    Raises:
        EngineError: the index can't be read.
    """
    index = read_index(reader, catalogue)

    def namer(column_id: bytes) -> Column:
        found = index.column(column_id)
        name = found.owner or found.name
        is_named = bool(name.database or name.series)
        return Column(column_id, name, found.owner is not None or not is_named)

    return namer


def new_namer(catalogue: Catalogue) -> Namer:
    """Return what names the columns of new shards: raft."""
    names = {
        number.to_bytes(ID_BYTES, "big"): Name(database, series, column)
        for database, all_series in catalogue.ids.items()
        for series, columns in all_series.items()
        for column, number in columns.items()
        if 0 <= number < 1 << 64
    }

    def namer(column_id: bytes) -> Column:
        return Column(column_id, names.get(column_id) or Name("", "", f"#{column_id.hex()}"))

    return namer


def _ids(reader: Reader) -> Iterator[bytes]:
    """Yield the ids that values are stored under, known to an index or not: a seek for each."""
    at = b""
    while True:
        pairs = reader.pairs(at).take(1)
        if not pairs or pairs[0][0] >= FIRST_INDEX_KEY:
            return
        key, value = pairs[0]
        # 0.7's counter of ids, and the key that 0.8 puts before all others.
        if key == LAST_ID_KEY or (key == bytes(VALUE_KEY) and not value):
            at = key + b"\0"
            continue
        if len(key) < ID_BYTES:
            raise EngineError(
                f"{reader.path}: expected values under keys of {VALUE_KEY} bytes, "
                f"found a key {key.hex()}"
            )
        yield key[:ID_BYTES]
        at = key[:ID_BYTES] + _AFTER
