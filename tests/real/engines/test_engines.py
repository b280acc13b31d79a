"""What is in a shard of each engine is read, all of it."""

from __future__ import annotations

import hashlib
import random
import struct
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fixtures import read
from fixtures.engines import Store
from shardtool.influxdb import leveldb
from shardtool.influxdb.engines import open_shard
from tests.conftest import Listing
from tests.needs import needs_plyvel
from tests.real.engines.world import KINDS, all_pairs, same_or_refused

OF_2014 = "58dd95fc1608da7d8e9ef4418a8f7a8c003f12accebda4608bd29513be944aa4"


@pytest.mark.parametrize("kind", KINDS)
def test_every_engine_gives_exactly_what_is_in_the_shard(
    kind: tuple[str, str], sound: dict[tuple[str, str], Path], scratch: Path
) -> None:
    assert all_pairs(sound[kind], kind[0], scratch) == list(read.pairs(sound[kind]))


@pytest.mark.parametrize("kind", KINDS)
def test_any_start_and_any_block_size_give_the_rest_from_there(
    kind: tuple[str, str], sound: dict[tuple[str, str], Path], scratch: Path
) -> None:
    expected = list(read.pairs(sound[kind]))
    chance = random.Random(7)
    starts = [key for key, _ in chance.sample(expected, 6)]
    starts += [key + b"\0" for key in starts[:2]] + [key[:11] for key in starts[:2]]
    starts += [b"", b"\0", b"\xff" * 24, b"\xff" * 25, b"\xff" * 40]
    for start in starts:
        rest = [pair for pair in expected if pair[0] >= start]
        for count in (1, 7, len(rest), 100_000):
            if count == 1 and len(rest) > 1000:
                continue
            if count:
                found = all_pairs(sound[kind], kind[0], scratch, start=start, count=count)
                assert found == rest


@pytest.mark.parametrize(
    ("name", "engine"),
    [
        ("ldb112-sst-64k-bloom", "leveldb"),
        ("ldb115-log", "leveldb"),
        ("hyper-mixed", "hyperleveldb"),
        ("rocks-mixed-64k-bloom", "rocksdb"),
    ],
)
def test_what_the_engines_of_2014_wrote_is_read_to_the_byte(
    name: str, engine: str, capture: Callable[[str], Path], scratch: Path
) -> None:
    digest = hashlib.sha256()
    for key, value in all_pairs(capture("shards-2014") / name, engine, scratch):
        digest.update(struct.pack(">I", len(key)) + key + struct.pack(">I", len(value)) + value)
    assert digest.hexdigest() == OF_2014


@pytest.mark.parametrize("kind", KINDS)
def test_reading_leaves_the_shard_as_it_was(
    kind: tuple[str, str],
    sound: dict[tuple[str, str], Path],
    scratch: Path,
    listing: Callable[[Path], Listing],
) -> None:
    shard = sound[kind]

    def state() -> tuple[Listing, dict[str, int]]:
        return listing(shard), {path.name: path.stat().st_nlink for path in shard.iterdir()}

    before = state()
    all_pairs(shard, kind[0], scratch)
    assert state() == before
    assert list(scratch.iterdir()) == []


def test_a_shard_that_is_renamed_is_read_on_to_its_end(
    tables: Path, copied: Callable[[Path], Path], scratch: Path
) -> None:
    shard = copied(tables)
    expected = list(read.pairs(shard))
    with open_shard(shard, "leveldb", scratch) as reader:
        stream = reader.pairs(b"")
        found = stream.take(10)
        shard.rename(shard.with_name("elsewhere"))
        Path(shard).mkdir()  # something else has its name now
        while block := stream.take(1000):
            found += block
    assert found == expected


@needs_plyvel
def test_many_tables_are_read_under_a_low_limit_of_open_files(
    tmp_path: Path, scratch: Path, file_limit: Callable[[int], None]
) -> None:
    import plyvel

    shard = tmp_path / "00001"
    expected = []
    for number in range(90):
        # Each opening turns the log before it into a table, and none of these overlap.
        database = plyvel.DB(str(shard), create_if_missing=True)
        pair = (struct.pack(">QQQ", 1, number, 1), b"\x28\x01")
        database.put(*pair)
        expected.append(pair)
        database.close()
    # More tables than a process may have open files: they are opened as they are needed, or
    # it is said that they could not be.
    file_limit(64)
    same_or_refused(shard, "leveldb", scratch, expected)


@pytest.mark.slow
@needs_plyvel
def test_tables_that_are_made_here_are_those_of_a_database_at_rest(tmp_path: Path) -> None:
    """LevelDB compacts them meanwhile: a close in its midst left tables that nothing names."""
    chance, path = random.Random(1), tmp_path / "store"
    store = Store.create(path, name="store", at=datetime.now(UTC), storage="tables")
    store.write((chance.randbytes(16), chance.randbytes(300)) for _ in range(400_000))
    leveldb.check(path, is_at_rest=True)
