"""What the tests of the engines share."""

from __future__ import annotations

from pathlib import Path

from fixtures.encode import Pair
from fixtures.engines import Engine, Storage
from shardtool.influxdb.engines import EngineError, open_shard

KINDS: tuple[tuple[Engine, Storage], ...] = (
    ("leveldb", "log"),
    ("leveldb", "tables"),
    ("hyperleveldb", "tables"),
    ("rocksdb", "log"),
    ("lmdb", "log"),
)


MIB = 1 << 20


def all_pairs(
    shard: Path, engine: str, scratch: Path, *, start: bytes = b"", count: int = 500
) -> list[Pair]:
    """Read a shard from `start` to its end, `count` pairs at a time."""
    found: list[Pair] = []
    with open_shard(shard, engine, scratch) as reader:
        stream = reader.pairs(start)
        while block := stream.take(count):
            found += block
    return found


def same_or_refused(shard: Path, engine: str, scratch: Path, expected: list[Pair]) -> None:
    """Insist that a damaged shard gives what it held, or an error: never something else."""
    try:
        found = all_pairs(shard, engine, scratch)
    except EngineError as error:
        assert str(shard) in str(error)
    else:
        assert found == expected
