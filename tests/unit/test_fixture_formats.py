"""The fixtures' encoders, taken apart again by code that shares nothing with them."""

from __future__ import annotations

import io
import json
import struct
from datetime import UTC, datetime
from pathlib import Path

import google_crc32c
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures import encode, leveldb, raft, wal
from fixtures.migration import Moving, another, from_the_end

INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
UINT64 = st.integers(0, (1 << 64) - 1)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
VALUES = st.one_of(NAMES, st.booleans(), INT64, st.floats(allow_nan=False))


def unframe(data: bytes) -> list[bytes]:
    """Read LevelDB's log format, after its documentation; checks every checksum and length."""
    records: list[bytes] = []
    open_record: bytearray | None = None
    offset = 0
    while offset < len(data):
        left = 32768 - offset % 32768
        if left < 7:
            assert data[offset : offset + left] == bytes(min(left, len(data) - offset))
            offset += left
            continue
        masked, length, kind = struct.unpack_from("<IHB", data, offset)
        assert length <= left - 7, "a fragment crosses a block"
        fragment = data[offset + 7 : offset + 7 + length]
        assert len(fragment) == length
        rotated = (masked - 0xA282EAD8) % (1 << 32)
        crc = (rotated >> 17 | rotated << 15) % (1 << 32)
        assert crc == google_crc32c.value(bytes([kind]) + fragment)
        assert (kind in (1, 2)) == (open_record is None), f"a fragment of type {kind} out of place"
        open_record = (open_record if open_record is not None else bytearray()) + fragment
        if kind in (1, 4):
            records.append(bytes(open_record))
            open_record = None
        offset += 7 + length
    assert open_record is None, "the last record has no end"
    return records


def read_batch(body: bytes) -> list[tuple[bytes, bytes | None]]:
    """Read the records of a LevelDB WriteBatch."""
    found: list[tuple[bytes, bytes | None]] = []
    offset = 0
    while offset < len(body):
        kind, strings = body[offset], []
        offset += 1
        for _ in range(2 if kind else 1):
            length, offset = encode.read_uvarint(body, offset)
            strings.append(body[offset : offset + length])
            offset += length
        found.append((strings[0], strings[1] if kind else None))
    return found


@given(st.lists(st.binary(max_size=200) | st.integers(0, 100_000).map(bytes), max_size=8))
@settings(deadline=None)
def test_records_of_any_size_come_back_from_the_log(records: list[bytes]) -> None:
    file = io.BytesIO()
    writer = leveldb.RecordWriter(file)
    for record in records:
        writer.add(record)
    assert unframe(file.getvalue()) == records


@pytest.mark.parametrize("left", range(20))
def test_a_record_may_begin_anywhere_at_the_end_of_a_block(left: int) -> None:
    first = bytes(leveldb.BLOCK - 7 - left)
    file = io.BytesIO()
    writer = leveldb.RecordWriter(file)
    for record in (first, b"", b"second"):
        writer.add(record)
    assert unframe(file.getvalue()) == [first, b"", b"second"]


@given(st.lists(st.binary(min_size=1, max_size=70_000), min_size=2, max_size=5))
@settings(deadline=None, max_examples=30)
def test_a_log_that_is_written_in_pieces_equals_one_written_at_once(records: list[bytes]) -> None:
    whole, pieces = io.BytesIO(), io.BytesIO()
    writer = leveldb.RecordWriter(whole)
    for record in records:
        writer.add(record)
        leveldb.RecordWriter(pieces, offset=pieces.tell()).add(record)
    assert pieces.getvalue() == whole.getvalue()


@given(st.lists(st.tuples(st.binary(max_size=40), st.none() | st.binary(max_size=300))))
def test_pairs_come_back_from_the_batches(pairs: list[tuple[bytes, bytes | None]]) -> None:
    counted = list(leveldb.batches(pairs))
    assert [pair for _, body in counted for pair in read_batch(body)] == pairs
    assert sum(count for count, _ in counted) == len(pairs)


def test_many_pairs_make_many_batches_of_bounded_size() -> None:
    big = list(leveldb.batches((bytes(24), bytes(100_000)) for _ in range(30)))
    small = list(leveldb.batches((bytes(24), b"x") for _ in range(2500)))
    assert max(len(body) for _, body in big) < 1_300_000
    assert [count for count, _ in small] == [1000, 1000, 500]


def test_appending_goes_on_with_the_sequence_numbers(tmp_path: Path) -> None:
    leveldb.create(tmp_path / "db", name="/db", at=datetime(2014, 1, 1, tzinfo=UTC))
    following = leveldb.append(tmp_path / "db", [(b"a", b"1"), (b"b", b"2")])
    last = leveldb.append(tmp_path / "db", [(b"a", None)], sequence=following)
    records = unframe((tmp_path / "db" / leveldb.LOG_NAME).read_bytes())
    assert [struct.unpack_from("<QI", record) for record in records] == [(1, 2), (3, 1)]
    assert (following, last) == (3, 4)


@given(st.binary(min_size=8, max_size=8), INT64, UINT64)
def test_a_value_key_comes_apart_again(column_id: bytes, time_us: int, sequence: int) -> None:
    key = encode.value_key(column_id, time_us, sequence)
    assert len(key) == 24
    assert encode.split_value_key(key) == (column_id, time_us, sequence)


@given(INT64, INT64)
def test_value_keys_sort_by_time(one: int, other: int) -> None:
    keys = encode.value_key(bytes(8), one, 5), encode.value_key(bytes(8), other, 5)
    assert (one < other) == (keys[0] < keys[1])


@given(st.integers(0, (1 << 56) - 1))
def test_a_column_id_stands_at_the_front_of_its_eight_bytes(number: int) -> None:
    encoded = encode.old_id(number)
    assert len(encoded) == 8
    assert encode.read_uvarint(encoded)[0] == number
    assert encode.new_id(number) == number.to_bytes(8, "big")


@pytest.mark.parametrize(
    ("number", "encoded"), [(1, "0100000000000000"), (300, "ac02000000000000")]
)
def test_column_ids_are_those_of_the_format(number: int, encoded: str) -> None:
    assert encode.old_id(number).hex() == encoded


def test_an_id_that_needs_nine_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match="8 bytes"):
        encode.old_id(1 << 56)


@given(VALUES)
def test_a_value_comes_back_with_its_type(value: encode.Value) -> None:
    found = encode.parse_field_value(encode.field_value(value))
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (None, "3001"),
        (True, "2001"),
        (False, "2000"),
        (19, "2813"),
        (-1, "28ffffffffffffffffff01"),
        (1.0, "19000000000000f03f"),
        ("ancient", "0a07616e6369656e74"),
        ("", "0a00"),
    ],
)
def test_field_values_are_those_of_the_format(value: encode.Value | None, encoded: str) -> None:
    assert encode.field_value(value).hex() == encoded


@given(VALUES)
def test_another_value_differs_but_has_the_same_type(value: encode.Value) -> None:
    encoded = encode.field_value(value)
    assert another(encoded) != encoded
    assert type(encode.parse_field_value(another(encoded))) is type(value)


@given(st.datetimes(min_value=datetime(1, 1, 2)).map(lambda moment: moment.replace(tzinfo=UTC)))
def test_moments_are_exact_to_the_microsecond(moment: datetime) -> None:
    assert encode.moment(encode.microseconds(moment)) == moment


@given(NAMES)
def test_go_json_is_json_without_html(text: str) -> None:
    encoded = encode.go_json({"name": text})
    assert json.loads(encoded) == {"name": text}
    assert encoded.endswith(b"}\n")
    assert not set(b"<>&") & set(encoded)


@given(st.lists(st.lists(st.tuples(NAMES, st.none() | NAMES), max_size=5), max_size=3))
def test_raft_entries_come_back_in_order(eras: list[list[tuple[str, str | None]]]) -> None:
    log = raft.encode_log([[raft.Command(*one) for one in era] for era in eras])
    found = raft.read_log(log)
    wanted = [(term, *one) for term, era in enumerate(eras) for one in era]
    assert [entry.index for entry in found] == list(range(1, len(wanted) + 1))
    assert [
        (entry.term, entry.name, None if entry.command is None else json.loads(entry.command))
        for entry in found
    ] == wanted


def test_a_torn_raft_log_is_noticed() -> None:
    first = raft.encode_log([[raft.create_db("test")]])
    log = raft.encode_log([[raft.create_db("test"), raft.create_db("metrics")]])
    for end in {*range(1, len(log))} - {len(first)}:
        with pytest.raises(ValueError, match=r"expected|ends at"):
            raft.read_log(log[:end])


POINTS = st.builds(
    wal.Point, INT64, UINT64, st.lists(st.none() | VALUES, min_size=1, max_size=4).map(tuple)
)
REQUESTS = st.builds(
    wal.Request,
    st.integers(1, (1 << 32) - 1),
    st.integers(1, (1 << 32) - 1),
    NAMES,
    NAMES,
    st.lists(NAMES, min_size=1, max_size=4).map(tuple),
    st.lists(POINTS, max_size=4).map(tuple),
)


@given(st.lists(REQUESTS, max_size=5), st.integers(0, 100))
def test_wal_requests_come_back_up_to_the_preallocated_zeros(
    requests: list[wal.Request], zeros: int
) -> None:
    log, index = wal.encode(requests)
    assert wal.read_log(log + bytes(zeros)) == requests
    assert index == b"1\n"


def test_the_wal_index_has_a_line_per_thousand_requests() -> None:
    requests = [
        wal.Request(number, 1, "test", "cpu", ("n",), (wal.Point(0, 1, (number,)),))
        for number in range(5, 2505)
    ]
    log, index = wal.encode(requests)
    lines = [line.split(b",") for line in index.splitlines()[1:]]
    assert [(int(line[0]), int(line[2])) for line in lines] == [(5, 1004), (1005, 2004)]
    for first, begin, last, end in lines:
        for number, offset in ((first, begin), (last, end)):
            assert struct.unpack_from(">I", log, int(offset)) == (int(number),)


@given(st.integers(0, 3000), st.integers(0, 1500))
@settings(max_examples=30, deadline=None)
def test_places_are_counted_from_the_end(count: int, window: int) -> None:
    column = encode.Column("test", "cpu", "n")
    values = [Moving(column, number, 0, b"") for number in range(count)]
    found = list(from_the_end(values, window))
    assert [value for _, value in found] == values
    assert [place for place, _ in found] == [
        min(place, window + 1) for place in range(count, 0, -1)
    ]
