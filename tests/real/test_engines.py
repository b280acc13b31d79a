"""Shards of every engine read through links: all of their pairs, or an error that says where."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures import Node, Row, leveldb, read
from fixtures.encode import Pair
from fixtures.engines import Engine, Storage
from shardtool.influxdb import engines
from shardtool.influxdb.engines import EngineError, open_shard
from tests.conftest import Listing
from tests.needs import needs_plyvel

KINDS: tuple[tuple[Engine, Storage], ...] = (
    ("leveldb", "log"),
    ("leveldb", "tables"),
    ("hyperleveldb", "tables"),
    ("rocksdb", "log"),
    ("lmdb", "log"),
)
MIB = 1 << 20
OF_2014 = "58dd95fc1608da7d8e9ef4418a8f7a8c003f12accebda4608bd29513be944aa4"


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


def refusal(shard: Path, engine: str, scratch: Path) -> str:
    """Read a shard that can't be read to its end; return the error, which names it."""
    with pytest.raises(EngineError) as caught:
        all_pairs(shard, engine, scratch)
    assert str(shard) in str(caught.value)
    assert str(scratch) not in str(caught.value)
    return str(caught.value)


def same_or_refused(shard: Path, engine: str, scratch: Path, expected: list[Pair]) -> None:
    """Insist that a damaged shard gives what it held, or an error: never something else."""
    try:
        found = all_pairs(shard, engine, scratch)
    except EngineError as error:
        assert str(shard) in str(error)
    else:
        assert found == expected


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("links")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """Make a new shard of each kind; tests that damage one take a copy."""
    node = Node(tmp_path_factory.mktemp("node") / "data", version="0.8", lmdb_map_size=MIB)
    return {
        (engine, storage): node.new_shard(number, engine, points=900, storage=storage)
        for number, (engine, storage) in enumerate(KINDS, 1)
    }


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an old shard with one table of many blocks."""
    node = Node(tmp_path_factory.mktemp("node") / "data")
    return node.old_shard(1, points=6000, storage="tables")


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an old shard that is a log of several blocks."""
    return Node(tmp_path_factory.mktemp("node") / "data").old_shard(1, points=600)


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[Path], Path]:
    return lambda shard: Path(shutil.copytree(shard, tmp_path / shard.name))


# -- what is there --


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


# -- what is damaged --


@needs_plyvel
def test_a_corrupt_block_in_the_middle_of_a_table_is_an_error(
    tables: Path, copied: Callable[[Path], Path], scratch: Path
) -> None:
    shard = copied(tables)
    (table,) = shard.glob("*.ldb")
    content = bytearray(table.read_bytes())
    content[len(content) // 2] ^= 0x40
    table.write_bytes(content)
    assert "checksum" in refusal(shard, "leveldb", scratch)


@needs_plyvel
def test_a_block_size_that_ends_just_before_the_corrupt_block_hides_nothing(
    tables: Path, copied: Callable[[Path], Path], scratch: Path
) -> None:
    shard = copied(tables)
    (table,) = shard.glob("*.ldb")
    content = bytearray(table.read_bytes())
    content[len(content) // 2] ^= 0x40
    table.write_bytes(content)
    with open_shard(shard, "leveldb", scratch) as reader:
        stream = reader.pairs(b"")
        readable = 0
        with pytest.raises(EngineError):
            while stream.take(1):
                readable += 1
    assert readable
    with open_shard(shard, "leveldb", scratch) as reader:
        stream = reader.pairs(b"")
        stream.take(readable)
        with pytest.raises(EngineError):
            stream.take(1)


@pytest.mark.slow
@needs_plyvel
@settings(max_examples=40)
@given(data=st.data())
def test_a_flipped_bit_anywhere_in_a_table_gives_an_error_or_the_same(
    data: st.DataObject, tables: Path, scratch: Path
) -> None:
    (name,) = (path.name for path in tables.glob("*.ldb"))
    damaged_or_same(data, tables, name, scratch)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["000003.log", "MANIFEST-000002", "CURRENT"])
@settings(max_examples=40)
@given(data=st.data())
def test_a_flipped_bit_anywhere_in_a_log_or_manifest_gives_an_error_or_the_same(
    data: st.DataObject, name: str, log: Path, scratch: Path
) -> None:
    damaged_or_same(data, log, name, scratch)


def damaged_or_same(data: st.DataObject, shard: Path, name: str, scratch: Path) -> None:
    """Flip a bit of a file, likely one near a record's head, read, and put it back."""
    file = shard / name
    content = file.read_bytes()
    heads = list(headers(content)) if name.endswith(".log") or "MANIFEST" in name else [0]
    anywhere = st.integers(0, len(content) - 1)
    near = st.builds(
        lambda head, off: min(head + off, len(content) - 1),
        st.sampled_from(heads),
        st.integers(0, 8),
    )
    at, bit = data.draw(st.one_of(anywhere, near)), data.draw(st.integers(0, 7))
    expected = list(read.pairs(shard))
    damaged = bytearray(content)
    damaged[at] ^= 1 << bit
    try:
        file.write_bytes(damaged)
        same_or_refused(shard, "leveldb", scratch, expected)
    finally:
        file.write_bytes(content)


def headers(content: bytes) -> Iterator[int]:
    """Yield where the records of a file in LevelDB's log format begin."""
    at = 0
    while at < len(content):
        left = leveldb.BLOCK - at % leveldb.BLOCK
        if left < 7:
            at += left
            continue
        yield at
        at += 7 + int.from_bytes(content[at + 4 : at + 6], "little")


def test_no_bit_of_any_records_head_can_hide_what_follows(
    log: Path, copied: Callable[[Path], Path], scratch: Path
) -> None:
    """RocksDB alone takes some of these for the end of the log, and says nothing."""
    shard = copied(log)
    file = shard / "000003.log"
    content = file.read_bytes()
    for head in headers(content):
        for bit in range(8 * 3):
            damaged = bytearray(content)
            damaged[head + 4 + bit // 8] ^= 1 << bit % 8
            file.write_bytes(damaged)
            refusal(shard, "leveldb", scratch)


def test_a_hole_of_zeros_in_a_log_is_an_error(
    log: Path, copied: Callable[[Path], Path], scratch: Path
) -> None:
    shard = copied(log)
    file = shard / "000003.log"
    content = file.read_bytes()
    first, second, *_ = headers(content)
    # Exactly one record: to a reader that is room which nobody has used.
    file.write_bytes(bytes(second - first) + content[second:])
    assert "000003.log" in refusal(shard, "leveldb", scratch)


def test_zeros_after_the_last_record_are_preallocated_room(
    log: Path, copied: Callable[[Path], Path], scratch: Path
) -> None:
    shard = copied(log)
    with (shard / "000003.log").open("ab") as file:
        file.write(bytes(100_000))
    assert all_pairs(shard, "leveldb", scratch) == list(read.pairs(log))


@pytest.mark.parametrize("cut", [1, 3, 20, 200])
def test_a_logs_torn_tail_is_dropped_as_the_server_drops_it(
    cut: int, log: Path, copied: Callable[[Path], Path], scratch: Path
) -> None:
    shard = copied(log)
    file = shard / "000003.log"
    file.write_bytes(file.read_bytes()[:-cut])
    found = all_pairs(shard, "leveldb", scratch)
    assert found == list(read.pairs(shard))
    assert 0 < len(found) < len(list(read.pairs(log)))


def test_a_missing_log_is_an_error(
    log: Path, copied: Callable[[Path], Path], scratch: Path
) -> None:
    shard = copied(log)
    (shard / "000003.log").unlink()
    assert "000003.log" in refusal(shard, "leveldb", scratch)


@pytest.mark.parametrize("keep", [0, 1, 20, 26, 49])
def test_a_manifest_that_is_cut_anywhere_is_an_error(
    keep: int, log: Path, copied: Callable[[Path], Path], scratch: Path
) -> None:
    shard = copied(log)
    manifest = shard / "MANIFEST-000002"
    manifest.write_bytes(manifest.read_bytes()[:keep])
    assert ("whole record" if keep else "MANIFEST") in refusal(shard, "leveldb", scratch)


@needs_plyvel
def test_a_manifest_cut_between_two_records_is_an_error(tmp_path: Path, scratch: Path) -> None:
    """It then tells of an earlier state, when the table's values were in a log."""
    import plyvel

    shard = tmp_path / "00001"
    with plyvel.DB(str(shard), create_if_missing=True, write_buffer_size=1 << 16) as database:
        for number in range(5000):
            database.put(struct.pack(">QQQ", 1, number, 1), os.urandom(50))
    (manifest,) = shard.glob("MANIFEST-*")
    content = manifest.read_bytes()
    cuts = list(headers(content))[1:]
    assert len(cuts) > 3
    for cut in cuts:
        manifest.write_bytes(content[:cut])
        refusal(shard, "leveldb", scratch)


@needs_plyvel
@pytest.mark.parametrize("damage", ["cut", "empty", "gone", "appended"])
def test_a_table_that_is_not_what_the_manifest_says_is_an_error(
    damage: str, tables: Path, copied: Callable[[Path], Path], scratch: Path
) -> None:
    shard = copied(tables)
    (table,) = shard.glob("*.ldb")
    content = table.read_bytes()
    table.unlink()
    if damage != "gone":
        wanted = {"cut": content[:-1], "empty": b"", "appended": content + b"\0"}
        table.write_bytes(wanted[damage])
    refusal(shard, "leveldb", scratch)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind[0] != "lmdb"])
@pytest.mark.parametrize("pattern", ["MANIFEST-*", "CURRENT"])
@pytest.mark.parametrize("content", [None, b"", b"\xaa" * 99])
def test_a_missing_or_foreign_manifest_or_current_is_an_error(
    kind: tuple[str, str],
    pattern: str,
    content: bytes | None,
    sound: dict[tuple[str, str], Path],
    copied: Callable[[Path], Path],
    scratch: Path,
) -> None:
    shard = copied(sound[kind])
    for file in shard.glob(pattern):
        file.unlink()
        if content is not None:
            file.write_bytes(content)
    refusal(shard, kind[0], scratch)


@pytest.mark.parametrize("size", [0, 1, 4096, 8192, 40_000])
def test_an_lmdb_cut_short_is_an_error_and_not_the_end_of_the_process(
    size: int,
    sound: dict[tuple[str, str], Path],
    copied: Callable[[Path], Path],
    scratch: Path,
) -> None:
    shard = copied(sound["lmdb", "log"])
    os.truncate(shard / "data.mdb", size)
    refusal(shard, "lmdb", scratch)


def test_an_lmdb_of_garbage_is_an_error(
    sound: dict[tuple[str, str], Path], copied: Callable[[Path], Path], scratch: Path
) -> None:
    shard = copied(sound["lmdb", "log"])
    (shard / "data.mdb").write_bytes(random.Random(1).randbytes(MIB))
    refusal(shard, "lmdb", scratch)


def test_an_lmdb_whose_pages_are_out_of_order_is_an_error(
    sound: dict[tuple[str, str], Path], copied: Callable[[Path], Path], scratch: Path
) -> None:
    """It has no checksums: without this, a key that came by accident could pass for a value."""
    shard = copied(sound["lmdb", "log"])
    expected = list(read.pairs(shard))
    content = (shard / "data.mdb").read_bytes()
    key = expected[1000][0]
    assert content.count(key) >= 1
    (shard / "data.mdb").write_bytes(content.replace(key, b"\0" * 8 + key[8:]))
    assert "order" in refusal(shard, "lmdb", scratch)


@pytest.mark.parametrize("engine", ["", "sqlite", "LevelDB", "leveldb\n", "unknown"])
def test_an_engine_that_nobody_knows_is_an_error(engine: str, log: Path, scratch: Path) -> None:
    refusal(log, engine, scratch)


@pytest.mark.parametrize("engine", ["leveldb", "hyperleveldb", "rocksdb", "lmdb"])
@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: None])
def test_an_empty_a_missing_or_no_directory_is_an_error(
    engine: str, make: Callable[[Path], None], tmp_path: Path, scratch: Path
) -> None:
    make(tmp_path / "00001")
    refusal(tmp_path / "00001", engine, scratch)
    assert engine != "lmdb" or not (tmp_path / "00001/data.mdb").exists()


def test_a_shard_that_is_a_link_is_an_error(log: Path, tmp_path: Path, scratch: Path) -> None:
    (tmp_path / "00001").symlink_to(log)
    refusal(tmp_path / "00001", "leveldb", scratch)


@pytest.mark.parametrize(
    ("engine", "name"),
    [
        ("leveldb", "000003.log"),
        ("leveldb", "CURRENT"),
        ("rocksdb", "CURRENT"),
        ("lmdb", "data.mdb"),
    ],
)
@pytest.mark.parametrize("how", ["symlink", "fifo", "directory"])
def test_a_file_that_is_no_file_is_an_error_and_nothing_waits(
    engine: str,
    name: str,
    how: str,
    sound: dict[tuple[str, str], Path],
    copied: Callable[[Path], Path],
    scratch: Path,
) -> None:
    shard = copied(sound[engine, "log"])
    file = shard / name
    file.rename(shard.parent / name)
    if how == "symlink":
        file.symlink_to(shard.parent / name)
    elif how == "fifo":
        os.mkfifo(file)
    else:
        file.mkdir()
    assert name in refusal(shard, engine, scratch)


def test_deleted_and_overwritten_keys_are_what_was_written_last(
    tmp_path: Path, scratch: Path
) -> None:
    node = Node(tmp_path / "data")
    rows = [Row("db", "s", "c", time, 1, 1) for time in range(5)]
    shard = node.old_shard(1, rows=rows)
    keys = [key for key, _ in read.values(shard)]
    leveldb.append(shard, [(keys[0], None), (keys[1], b"\x28\x07")], sequence=100)
    found = dict(all_pairs(shard, "leveldb", scratch))
    assert keys[0] not in found
    assert found[keys[1]] == b"\x28\x07"


def test_an_engine_that_ends_too_early_without_a_word_is_an_error(
    log: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = list(read.pairs(log))
    monkeypatch.setattr(engines._Rocks, "items", lambda self, start: iter(expected[:100]))
    assert expected[99][0].hex() in refusal(log, "leveldb", scratch)


# -- what RocksDB would read and LevelDB would not --


@pytest.mark.parametrize("entry", [b"\x07\x18%b", b"\x0f\x18%b\x19%b\0", b"\x04\0\x18%b"])
def test_a_deletion_that_only_rocksdb_obeys_makes_an_old_shard_unreadable(
    entry: bytes, log: Path, copied: Callable[[Path], Path], scratch: Path
) -> None:
    shard = copied(log)
    key = next(read.values(shard))[0]
    record = struct.pack("<QI", 10**6, 1) + entry % ((key,) * entry.count(b"%b"))
    at = (shard / "000003.log").stat().st_size
    with (shard / "000003.log").open("ab") as file:
        leveldb.RecordWriter(file, at).add(record)
    for engine in ("leveldb", "hyperleveldb"):
        message = refusal(shard, engine, scratch)
        assert f"{shard}/000003.log: at offset {at}: " in message
        assert f"tag {entry[0]}" in message


@pytest.mark.parametrize("engine", ["leveldb", "hyperleveldb"])
def test_a_rocksdb_that_calls_itself_a_leveldb_is_unreadable(
    engine: str, sound: dict[tuple[str, str], Path], scratch: Path
) -> None:
    """LevelDB, which the server would open it with, reads none of it."""
    assert "tag" in refusal(sound["rocksdb", "log"], engine, scratch)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind[0] != "lmdb"])
@pytest.mark.parametrize("pattern", ["CURRENT", "IDENTITY", "MANIFEST-*", "*.log"])
def test_a_file_of_fifty_gigabytes_of_nothing_is_an_error_at_once(
    kind: tuple[str, str],
    pattern: str,
    sound: dict[tuple[str, str], Path],
    copied: Callable[[Path], Path],
    scratch: Path,
) -> None:
    shard = copied(sound[kind])
    name = max((path.name for path in shard.glob(pattern)), default=pattern)
    with (shard / name).open("ab") as file:
        file.truncate(50 << 30)
    assert f"{shard}/{name}: expected" in refusal(shard, kind[0], scratch)


def test_all_shards_of_a_server_are_let_through(
    capture: Callable[[str], Path], scratch: Path
) -> None:
    data = capture("migrated-08")
    shards = [*data.glob("db/shard_db/*"), *data.glob("db/shard_db_v2/*")]
    assert len(shards) > 90
    for shard in shards:
        with open_shard(shard, "leveldb", scratch):
            pass
