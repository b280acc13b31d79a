"""What the tests of the fixtures share."""

from __future__ import annotations

from pathlib import Path

from fixtures import (
    Column,
    Node,
    Row,
)
from fixtures.encode import (
    new_id,
    old_id,
    split_value_key,
)
from fixtures.engines import Engine
from fixtures.read import values

ENGINES: list[Engine] = ["leveldb", "hyperleveldb", "rocksdb", "lmdb"]


def contents(shard: Path, columns: dict[bytes, Column]) -> dict[tuple[Column, int, int], bytes]:
    """Read a shard's values by column name, time and sequence."""
    found = {}
    for key, value in values(shard):
        column_id, time_us, sequence = split_value_key(key)
        found[columns[column_id], time_us, sequence] = value
    return found


def old_contents(node: Node, shard_id: int) -> dict[tuple[Column, int, int], bytes]:
    """Read the values of one of a node's old shards."""
    shard = node.old[shard_id]
    return contents(shard.path, {old_id(n): column for column, n in shard.columns.items()})


def new_contents(node: Node) -> dict[tuple[Column, int, int], bytes]:
    """Read the values of all of a node's new shards."""
    columns = {new_id(number): column for column, number in node.ids.items()}
    found: dict[tuple[Column, int, int], bytes] = {}
    for shard in node.new.values():
        found |= contents(shard.path, columns)
    return found


AWKWARD = [
    Row("test", "cpu", "value", -1, 1, 0.5),
    Row("test", "cpu", "value", 0, (1 << 64) - 1, -0.0),
    Row("test", "cpu", "text", 1, 10_001, ""),
    Row("test", "cpu", "text", 2, 10_001, "é" * 50_000),
    Row("test~a", 'b~"c\\', "~", 3, 10_001, True),
    Row("test", "new\nline", "n", 4, 10_001, -(1 << 63)),
    Row("sixteen~", "bytes~x", "n", 5, 10_001, 7),
]
