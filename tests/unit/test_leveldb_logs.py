"""What may be in a LevelDB's files: its own batches and edits, and nothing that RocksDB adds."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures import leveldb as written
from fixtures.encode import moment, uvarint
from shardtool.influxdb import leveldb
from shardtool.influxdb.leveldb import LevelDBError, what_is_wrong

KEY = b"K" * 24
MANIFEST = "MANIFEST-000002"
Entry = tuple[bytes, bytes | None]


def batch(entries: bytes, count: int, sequence: int = 1) -> bytes:
    return struct.pack("<QI", sequence, count) + entries


def string(content: bytes) -> bytes:
    return uvarint(len(content)) + content


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Make a LevelDB of one log with one value."""
    directory = tmp_path / "00001"
    written.create(directory, name="x", at=moment(0))
    written.append(directory, [(KEY, b"\x28\x01")])
    return directory


def add(directory: Path, record: bytes, name: str = written.LOG_NAME) -> int:
    """Append a record to a log or a manifest; return where it begins."""
    with (directory / name).open("ab") as file:
        begin = file.tell()
        written.RecordWriter(file, begin).add(record)
    return begin


def refusal(
    directory: Path, checked: Callable[[Path], None] = leveldb.check, at: int | None = None
) -> str:
    with pytest.raises(LevelDBError) as caught:
        checked(directory)
    assert at is None or f"at offset {at}:" in str(caught.value)
    return str(caught.value)


# -- batches --


@given(
    st.lists(
        st.tuples(
            st.binary(max_size=40) | st.integers(127, 70_000).map(bytes),
            st.none() | st.binary(max_size=40) | st.integers(127, 70_000).map(bytes),
        ),
        max_size=20,
    )
)
def test_whatever_leveldb_writes_is_right_and_none_of_it_may_be_missing(
    pairs: list[Entry],
) -> None:
    for count, body in written.batches(pairs):
        assert what_is_wrong(batch(body, count)) is None
        assert what_is_wrong(batch(body, count + 1)) is not None
        assert what_is_wrong(batch(body[:-1], count)) is not None
        assert what_is_wrong(batch(body + b"\0", count)) is not None


@pytest.mark.parametrize("cut", range(12 + 2 + 24 + 2))
def test_a_batch_that_is_cut_anywhere_is_wrong(cut: int) -> None:
    whole = batch(b"\x01" + string(KEY) + string(b"V"), 1)
    assert what_is_wrong(whole[:cut]) is not None
    # A head that counts only what is left of it does not make it right.
    assert cut <= 12 or what_is_wrong(batch(whole[12:cut], 0)) is not None


@pytest.mark.parametrize(
    "entry",
    [
        b"\x02" + string(KEY) + string(b"V"),
        b"\x03" + string(KEY),
        b"\x04\x00" + string(KEY),
        b"\x05\x00" + string(KEY) + string(b"V"),
        b"\x07" + string(KEY),
        b"\x09",
        b"\x0d",
        b"\x0f" + string(b"A") + string(b"Z"),
        b"\x81\x00" + string(KEY) + string(b"V"),
    ],
)
def test_an_entry_that_only_rocksdb_knows_is_an_error_of_a_leveldb_alone(
    entry: bytes, database: Path
) -> None:
    put = b"\x01" + string(KEY) + string(b"V")
    at = add(database, batch(put + entry, 2, sequence=2))
    message = refusal(database, at=at)
    assert written.LOG_NAME in message
    assert f"byte {12 + len(put)} " in message
    assert f"tag {entry[0]}" in message
    leveldb.check_form(database)


def test_an_error_in_a_record_of_several_blocks_tells_where_it_begins(database: Path) -> None:
    put = b"\x01" + string(KEY) + string(bytes(100_000))
    at = add(database, batch(put + b"\x07" + string(KEY), 2))
    assert f"byte {12 + len(put)} " in refusal(database, at=at)


def test_a_length_of_endless_digits_is_an_error_at_once() -> None:
    begun = time.process_time()
    assert what_is_wrong(batch(b"\x01" + b"\xff" * 5_000_000, 1)) is not None
    assert time.process_time() - begun < 1


# -- manifests --


@pytest.mark.parametrize(
    "edit", [b"\x08\x01", b"\x0a\x01", b"\x64\x00\x05\x01\x01a\x01b\x01\x01", b"\xc8\x01\x00"]
)
def test_an_edit_that_leveldb_does_not_know_is_an_error_of_a_leveldb_alone(
    edit: bytes, database: Path
) -> None:
    at = add(database, edit, MANIFEST)
    assert f"{MANIFEST}: at offset {at}" in refusal(database)
    leveldb.check_form(database)


@pytest.mark.parametrize("edit", [b"\x01\x05abc", b"\x02", b"\x02\x83", b"\x07\x00\x05\x01\x01a"])
def test_an_edit_that_is_cut_is_an_error(edit: bytes, database: Path) -> None:
    at = add(database, edit, MANIFEST)
    assert "whole edit" in refusal(database, at=at)


def test_every_edit_of_leveldbs_is_let_through(database: Path) -> None:
    key = string(KEY + bytes(8))
    add(database, b"\x05\x01" + key + b"\x06\x00\x05" + b"\x07\x01\x07\x80\x20" + key * 2, MANIFEST)
    add(database, b"\x02\x03\x09\x00\x03\x08\x04\xff\x01", MANIFEST)
    leveldb.check(database)


def test_a_previous_log_that_rocksdb_would_not_read_is_an_error(database: Path) -> None:
    assert "previous log" in refusal(database, at=add(database, b"\x09\x02", MANIFEST))


# -- CURRENT --


@pytest.mark.parametrize("check", [leveldb.check, leveldb.check_form])
@pytest.mark.parametrize(
    "content", [b"", b"\n", b"MANIFEST-000002", b"/MANIFEST-000002\n", b"MANIFEST-000009\n"]
)
def test_a_current_that_leveldb_did_not_write_is_an_error(
    content: bytes, check: Callable[[Path], None], database: Path
) -> None:
    (database / "CURRENT").write_bytes(content)
    assert "CURRENT" in refusal(database, check)


@pytest.mark.parametrize("check", [leveldb.check, leveldb.check_form])
@pytest.mark.parametrize("name", ["CURRENT", "IDENTITY", "OPTIONS-000005", MANIFEST, "000003.log"])
def test_a_file_of_absurd_size_is_an_error_and_not_read(
    name: str, check: Callable[[Path], None], database: Path
) -> None:
    with (database / name).open("ab") as file:
        file.truncate(50 << 30)
    assert f"{name}: expected" in refusal(database, check)


# -- the ends of logs --


def test_a_hole_behind_the_last_record_is_not_read(database: Path) -> None:
    os.truncate(database / written.LOG_NAME, 4 << 30)
    begun = time.process_time()
    leveldb.check(database)
    assert time.process_time() - begun < 1


@pytest.mark.parametrize("place", [100_001, (3 << 20) - 1, 3 << 20])
def test_a_byte_that_is_not_zero_behind_zeros_is_an_error(place: int, database: Path) -> None:
    size = (database / written.LOG_NAME).stat().st_size
    with (database / written.LOG_NAME).open("r+b") as file:
        file.seek(place)
        file.write(b"\x01")
    assert "found zeros" in refusal(database, at=size)
    assert "found zeros" in refusal(database, leveldb.check_form, at=size)


def test_zeros_that_a_disk_holds_are_told_from_values(database: Path) -> None:
    with (database / written.LOG_NAME).open("ab") as file:
        file.write(bytes(5 << 20))
    leveldb.check(database)
    with (database / written.LOG_NAME).open("ab") as file:
        file.write(b"\0\0\x01")
    assert "found zeros" in refusal(database)


def test_a_file_system_that_knows_no_holes_is_read_through(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lseek(*_: int) -> int:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "lseek", lseek)
    with (database / written.LOG_NAME).open("ab") as file:
        file.write(bytes(5 << 20))
        file.flush()
        leveldb.check(database)
        file.write(b"\x01")
    assert "found zeros" in refusal(database)


@pytest.mark.parametrize("zeros", [0, 1, 6, 7, 500])
def test_a_wrong_length_hides_no_record_though_zeros_follow(zeros: int, database: Path) -> None:
    log = database / written.LOG_NAME
    for sequence in range(2, 6):
        written.append(database, [(KEY, b"\x28\x02")], sequence=sequence)
    content = bytearray(log.read_bytes() + bytes(zeros))
    content[5] ^= 0x40  # the first record's length: now it ends behind the file
    log.write_bytes(content)
    assert "length" in refusal(database, at=0)
    assert "length" in refusal(database, leveldb.check_form, at=0)


@pytest.mark.parametrize("zeros", [0, 20_000])
def test_a_log_made_to_take_long_is_refused_soon(zeros: int, database: Path) -> None:
    size = leveldb.BLOCK - 1
    content = bytearray(size)
    for at in range(0, size - zeros - 7, 7):
        struct.pack_into("<IHB", content, at, 0xDEADBEEF, size - at - 7, 1)
    struct.pack_into("<IHB", content, 0, 0, leveldb.BLOCK - 7, 1)
    (database / written.LOG_NAME).write_bytes(content)
    begun = time.process_time()
    assert "length" in refusal(database, at=0)
    assert time.process_time() - begun < 2


# -- the order of batches --


def one_put(sequence: int) -> bytes:
    return batch(b"\x01" + string(KEY) + string(b"v"), 1, sequence)


def test_a_sequence_number_that_falls_within_a_log_is_an_error(database: Path) -> None:
    # RocksDB would take the last one for the highest, and pass over all above it.
    add(database, one_put(100_000))
    fallen = add(database, one_put(1_000))
    assert "a sequence number from 100001 on" in refusal(database, at=fallen)
    leveldb.check(database, in_order=False)


def test_sequence_numbers_may_leave_gaps(database: Path) -> None:
    for sequence in (10, 11, 5_000):
        add(database, one_put(sequence))
    leveldb.check(database)


def test_a_log_that_is_older_than_the_manifest_needs_may_hold_anything(database: Path) -> None:
    (database / "000001.log").write_bytes(b"\xff" * 100)
    leveldb.check(database)
    (database / "000009.log").write_bytes(b"\xff" * 100)
    assert refusal(database).startswith("000009.log")
