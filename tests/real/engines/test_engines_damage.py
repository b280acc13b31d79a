"""What is damaged is an error, in no engine less than all."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures import Node, Row, leveldb, read
from shardtool.influxdb import engines
from shardtool.influxdb.engines import EngineError, open_shard
from tests.needs import needs_plyvel
from tests.real.engines.world import KINDS, MIB, all_pairs, same_or_refused


def refusal(shard: Path, engine: str, scratch: Path) -> str:
    """Read a shard that can't be read to its end; return the error, which names it."""
    with pytest.raises(EngineError) as caught:
        all_pairs(shard, engine, scratch)
    assert str(shard) in str(caught.value)
    assert str(scratch) not in str(caught.value)
    return str(caught.value)


def spoiled(shard: Path) -> Path:
    """Change a bit in the middle of a shard's only table."""
    (table,) = shard.glob("*.ldb")
    content = bytearray(table.read_bytes())
    content[len(content) // 2] ^= 0x40
    table.write_bytes(content)
    return shard


@needs_plyvel
def test_a_corrupt_block_in_the_middle_of_a_table_is_an_error(
    tables: Path, copied: Callable[[Path], Path], scratch: Path
) -> None:
    shard = spoiled(copied(tables))
    assert "checksum" in refusal(shard, "leveldb", scratch)


@needs_plyvel
def test_a_block_size_that_ends_just_before_the_corrupt_block_hides_nothing(
    tables: Path, copied: Callable[[Path], Path], scratch: Path
) -> None:
    shard = spoiled(copied(tables))
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
