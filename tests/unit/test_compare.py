"""Comparing an old shard with new ones, against a model of dicts that fits on a screen."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardtool.influxdb.engines import EngineError, Pair
from shardtool.influxdb.keys import COLUMN_INDEX, LAST_ID_KEY, SERIES_INDEX
from shardtool.proof import compare
from shardtool.proof.compare import Cursor, Digest, Piece, Wanted, look, pieces

OLD, NEW, OTHER = b"\x01" + bytes(7), struct.pack(">Q", 5), struct.pack(">Q", 6)


@dataclass
class FakeReader:
    """A shard that is a list."""

    held: Sequence[Pair]
    path: Path = Path("/shard_db_v2/00007")
    seeks: list[bytes] = field(default_factory=list)

    def pairs(self, start: bytes) -> FakeStream:
        self.seeks.append(start)
        return FakeStream(iter([pair for pair in self.held if pair[0] >= start]))

    def value(self, key: bytes) -> bytes | None:
        return dict(self.held).get(key)

    def tables(self) -> list[tuple[bytes, int]]:
        return []


@dataclass
class FakeStream:
    rest: Iterator[Pair]

    def take(self, count: int) -> list[Pair]:
        return [pair for _, pair in zip(range(count), self.rest, strict=False)]


def shard(of: dict[bytes, bytes]) -> FakeReader:
    return FakeReader(sorted(of.items()))


def suffix(time: int, sequence: int = 1) -> bytes:
    return struct.pack(">QQ", time, sequence)


def nothing(key: bytes) -> None:
    """Watch nothing."""


SUFFIXES = st.builds(suffix, st.integers(0, 40), st.integers(1, 2))
VALUES = st.sampled_from([b"", b"\x20\x01", b"\x28\x07", b"long" * 9])
CONTENTS = st.dictionaries(SUFFIXES, VALUES, max_size=40)
COUNTS = st.sampled_from([1, 2, 3, 5, 8, 9, 100])


# -- pieces --


@settings(max_examples=200)
@given(
    columns=st.dictionaries(st.sampled_from([b"\x01", b"\x02", b"\xac\x02"]), CONTENTS),
    count=COUNTS,
    step=COUNTS,
    room=st.sampled_from([1, 40, 1 << 20]),
    indexed=st.integers(0, 20),
    last_id=st.booleans(),
)
def test_pieces_are_all_values_in_order_and_nothing_of_the_index(
    columns: dict[bytes, dict[bytes, bytes]],
    count: int,
    step: int,
    room: int,
    indexed: int,
    last_id: bool,
) -> None:
    values = {
        column.ljust(8, b"\0") + key: value
        for column, content in columns.items()
        for key, value in content.items()
    }
    # Index keys of 24 bytes among them, which are no values.
    index = {COLUMN_INDEX + b"%016d" % number: b"x" * 8 for number in range(indexed)}
    index |= {SERIES_INDEX + b"a~b": b""} if indexed else {}
    index |= {LAST_ID_KEY: b"\x02" + bytes(7)} if last_id else {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare, "BLOCK", count)
        patch.setattr(compare, "_STEP", step)
        patch.setattr(compare, "_BLOCK_BYTES", room)
        found = list(pieces(shard(values | index), nothing))
    assert all(len(piece.keys) <= count for piece in found)
    assert [p for piece in found for p in zip(piece.keys, piece.values, strict=True)] == sorted(
        values.items()
    )
    assert all({key[:8] for key in piece.keys} == {piece.column} for piece in found)


@pytest.mark.parametrize("odd", [b"", b"\x01", b"\x01" * 23, b"\x01" * 25, b"\x01" * 48])
def test_a_key_that_no_shard_has_is_an_error(odd: bytes) -> None:
    sound = {OLD + suffix(time): b"x" for time in range(5)}
    with pytest.raises(EngineError, match="24 bytes"):
        list(pieces(shard(sound | {odd: b"x"}), nothing))


def test_a_key_so_long_that_it_sorts_behind_its_column_is_an_error_too() -> None:
    # Found by fuzzing: of all ones, and longer than a value's key.
    beyond = OLD + b"\xff" * 17
    after = b"\x02" + bytes(7) + suffix(1)
    with pytest.raises(EngineError, match="keys of 24 bytes"):
        list(pieces(shard({beyond: b"", after: b""}), nothing))


def test_a_value_that_looks_like_its_column_does_not_hide_the_next_column() -> None:
    first, second = OLD + suffix(1), b"\x02" + bytes(7) + suffix(1)
    found = list(pieces(shard({first: b"", second: OLD + b"and more"}), nothing))
    assert [piece.keys for piece in found] == [(first,), (second,)]


def test_a_block_is_full_where_its_values_are_small_and_of_few_where_they_are_large() -> None:
    held = {OLD + suffix(time): b"x" for time in range(compare.BLOCK + 1)}
    assert [len(piece.keys) for piece in pieces(shard(held), nothing)] == [compare.BLOCK, 1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare, "_BLOCK_BYTES", 3000)
        for size, few in (1000, 2), (1499, 2), (1500, 1), (5000, 1):
            held = {OLD + suffix(time): bytes(size) for time in range(70)}
            counts = [len(piece.keys) for piece in pieces(shard(held), nothing)]
            assert counts == [64, *[few] * (6 // few)]  # the first has told how large they are
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare, "_BLOCK_BYTES", 4 * compare.BLOCK)
        held = {OLD + suffix(time): b"four" for time in range(compare.BLOCK)}
        assert [len(piece.keys) for piece in pieces(shard(held), nothing)] == [compare.BLOCK]


def test_the_end_of_each_block_is_told() -> None:
    told: list[bytes] = []
    held = {OLD + suffix(time): b"x" for time in range(5)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare, "BLOCK", 2)
        list(pieces(shard(held), told.append))
    assert told == [OLD + suffix(1), OLD + suffix(3), OLD + suffix(4)]


# -- the digest --


@given(
    values=st.lists(VALUES, min_size=1, max_size=20),
    cuts=st.sets(st.integers(1, 19)),
)
def test_a_digest_does_not_depend_on_how_the_values_are_cut(
    values: list[bytes], cuts: set[int]
) -> None:
    keys = [OLD + suffix(time) for time in range(len(values))]
    whole, cut = Digest(), Digest()
    piece = Piece(OLD, tuple(keys), tuple(values))
    whole.add(piece)
    bounds = [0, *sorted(at for at in cuts if at < len(values)), len(values)]
    for start, end in pairwise(bounds):
        cut.add(piece.part(start, end))
    assert cut.hexdigest() == whole.hexdigest()
    expected = hashlib.sha256(
        hashlib.sha256(b"".join(keys)).digest()
        + hashlib.sha256(b"".join(struct.pack("<I", len(v)) for v in values)).digest()
        + hashlib.sha256(b"".join(values)).digest()
    )
    assert whole.hexdigest() == expected.hexdigest()


def test_a_digest_tells_apart_where_one_value_ends_and_the_next_begins() -> None:
    keys = (OLD + suffix(1), OLD + suffix(2))
    one, other = Digest(), Digest()
    one.add(Piece(OLD, keys, (b"ab", b"c")))
    other.add(Piece(OLD, keys, (b"a", b"bc")))
    assert one.hexdigest() != other.hexdigest()


# -- the cursor --


@st.composite
def requests(draw: st.DrawFn) -> tuple[bytes, bytes, int]:
    column = draw(st.sampled_from([NEW, OTHER, b"\x00" * 8, b"\xff" * 8]))
    low, high = sorted([draw(SUFFIXES), draw(SUFFIXES)])
    return column + low, column + high, draw(COUNTS)


@settings(max_examples=250)
@given(
    one=CONTENTS,
    other=CONTENTS,
    asked=st.lists(requests(), min_size=1, max_size=12),
    up=st.booleans(),
)
def test_a_cursor_never_skips_or_repeats_whatever_it_is_asked_for(
    one: dict[bytes, bytes],
    other: dict[bytes, bytes],
    asked: list[tuple[bytes, bytes, int]],
    up: bool,
) -> None:
    held = {NEW + k: v for k, v in one.items()} | {OTHER + k: v for k, v in other.items()}
    held |= {bytes(24): b"", b"\xff" * 24: b""}
    cursor = Cursor(shard(held))
    for low, high, count in sorted(asked) if up else asked:
        found = [pair for block in cursor.blocks(low, high, count) for pair in block]
        assert found == sorted(pair for pair in held.items() if low <= pair[0] <= high)


@settings(max_examples=120)
@given(content=CONTENTS, asked=st.lists(requests(), min_size=2, max_size=8), data=st.data())
def test_a_cursor_that_is_left_in_the_middle_never_skips_either(
    content: dict[bytes, bytes], asked: list[tuple[bytes, bytes, int]], data: st.DataObject
) -> None:
    """As look leaves it: the first block was the same, and no more was asked for."""
    held = {NEW + key: value for key, value in content.items()}
    cursor = Cursor(shard(held))
    for low, high, count in asked:
        expected = sorted(pair for pair in held.items() if low <= pair[0] <= high)
        blocks = cursor.blocks(low, high, count)
        if data.draw(st.booleans()):
            first = next(blocks, [])
            assert first == expected[: len(first)]
            assert bool(first) == bool(expected)
        else:
            assert [pair for block in blocks for pair in block] == expected


def test_neighbouring_pieces_are_read_without_seeking_again() -> None:
    reader = shard({NEW + suffix(time): b"x" for time in range(200)})
    cursor = Cursor(reader)
    for start in range(0, 200, 20):
        found = cursor.blocks(NEW + suffix(start), NEW + suffix(start + 19), 20)
        assert sum(map(len, found)) == 20
    assert len(reader.seeks) == 1


# -- looking --


def model(
    old: dict[bytes, bytes], new: Sequence[dict[bytes, bytes]]
) -> tuple[dict[bytes, bytes], dict[bytes, set[bytes]]]:
    """Return what is nowhere, and what there is instead, key by key."""
    lost = {key: value for key, value in old.items() if all(one.get(key) != value for one in new)}
    others = {key: {one[key] for one in new if key in one} for key in lost}
    return lost, {key: values for key, values in others.items() if values}


@settings(max_examples=250)
@given(
    old=st.dictionaries(SUFFIXES, VALUES, min_size=1, max_size=30),
    data=st.data(),
    count=COUNTS,
    shards=st.integers(0, 3),
    ids=st.integers(1, 2),
)
def test_what_is_not_found_is_exactly_what_a_model_says(
    old: dict[bytes, bytes], data: st.DataObject, count: int, shards: int, ids: int
) -> None:
    columns = [NEW, OTHER][:ids]
    contents: list[list[dict[bytes, bytes]]] = []  # by shard, by id
    for _ in range(shards):
        by_id = []
        for _ in columns:
            kept = data.draw(st.sets(st.sampled_from(sorted(old)))) if old else set()
            if data.draw(st.booleans()):
                kept = set(old)
            by_id.append(
                {key: old[key] for key in kept}
                | data.draw(st.one_of(st.just({}), st.dictionaries(SUFFIXES, VALUES, max_size=6)))
            )
        contents.append(by_id)
    readers = [
        shard({c + k: v for c, part in zip(columns, by_id, strict=True) for k, v in part.items()})
        for by_id in contents
    ]
    cursors = [Cursor(reader) for reader in readers]
    missing: dict[bytes, bytes] = {}
    different: dict[bytes, bytes] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare, "BLOCK", count)
        for piece in pieces(shard({OLD + k: v for k, v in old.items()}), nothing):
            wanted: Wanted | None = None
            for column in columns:
                wanted, _ = look(piece, column, cursors, wanted)
                if wanted is None:
                    break
            if wanted is not None:
                missing |= wanted.missing
                different |= wanted.different
    lost, others = model(old, [part for by_id in contents for part in by_id])
    assert missing == lost
    assert different.keys() == others.keys()
    assert all(value in others[key] for key, value in different.items())


def test_another_columns_values_are_never_taken_for_these() -> None:
    """All columns of a point share its time and sequence number."""
    piece = Piece(OLD, (OLD + suffix(1), OLD + suffix(2)), (b"\x20\x01", b"\x20\x01"))
    there = shard({OTHER + key[8:]: b"\x20\x01" for key in piece.keys})
    wanted, helpful = look(piece, NEW, [Cursor(there)], None)
    assert wanted is not None
    assert (len(wanted.missing), wanted.different, helpful) == (2, {}, [])


def test_keys_of_other_lengths_that_join_to_the_same_bytes_are_not_the_same() -> None:
    """A hostile new shard: 32 and 16 bytes where two keys of 24 are looked for."""
    column = int.from_bytes(NEW)
    piece = Piece(OLD, (OLD + suffix(1, 7), OLD + suffix(column, 3)), (b"a", b"b"))
    keys = (NEW + suffix(1, 7) + bytes(8), NEW + suffix(3)[:8])
    hostile = shard(dict(zip(keys, (b"a", b"b"), strict=True)))
    wanted, _ = look(piece, NEW, [Cursor(hostile)], None)
    assert wanted is not None
    assert len(wanted.missing) == 2


@pytest.mark.parametrize("length", [16, 17, 23, 25, 31])
def test_odd_keys_in_a_new_shard_are_passed_over(length: int) -> None:
    piece = Piece(OLD, (OLD + suffix(1), OLD + suffix(3)), (b"a", b"b"))
    there = {NEW + key[8:]: value for key, value in zip(piece.keys, piece.values, strict=True)}
    odd = (NEW + suffix(2) + bytes(16))[:length]
    assert look(piece, NEW, [Cursor(shard(there | {odd: b""}))], None)[0] is None
    del there[NEW + suffix(3)]
    wanted, _ = look(piece, NEW, [Cursor(shard(there | {odd: b""}))], None)
    assert wanted is not None
    assert list(wanted.missing) == [suffix(3)]


def test_a_value_that_differs_in_one_shard_and_is_right_in_another_is_found() -> None:
    piece = Piece(OLD, (OLD + suffix(1),), (b"right",))
    wrong, right = (shard({NEW + suffix(1): value}) for value in (b"wrong", b"right"))
    assert look(piece, NEW, [Cursor(wrong), Cursor(right)], None)[0] is None


def test_no_shard_at_all_leaves_everything_missing() -> None:
    piece = Piece(OLD, (OLD + suffix(1),), (b"x",))
    wanted, helpful = look(piece, NEW, [], None)
    assert wanted == Wanted({suffix(1): b"x"}, {})
    assert helpful == []


@pytest.mark.parametrize("column", [NEW, OLD], ids=["another id", "the same id"])
@pytest.mark.parametrize(
    ("there", "missing", "different"),
    [
        ((suffix(2, 1), b"b"), 0, 0),
        ((suffix(2, 2), b"b"), 1, 0),
        ((suffix(2, 1 << 40), b"b"), 1, 0),
        ((suffix(3, 1), b"b"), 1, 0),
        ((suffix(2, 1), b"c"), 0, 1),
        ((suffix(2, 1), b""), 0, 1),
        ((suffix(2, 1), b"b\0"), 0, 1),
    ],
)
def test_a_single_byte_between_two_equal_ends_is_seen(
    there: tuple[bytes, bytes], missing: int, different: int, column: bytes
) -> None:
    old = {suffix(1): b"a", suffix(2): b"b", suffix(9): b"c"}
    new = {suffix(1): b"a", suffix(9): b"c"} | dict([there])
    piece = Piece(OLD, tuple(OLD + key for key in old), tuple(old.values()))
    held = shard({column + key: value for key, value in new.items()})
    wanted, _ = look(piece, column, [Cursor(held)], None)
    found = wanted or Wanted({}, {})
    assert len(found.different) == different
    assert len(found.missing) - len(found.different) == missing


def test_a_value_that_is_found_in_the_end_is_not_different_beside_one_that_is_lost() -> None:
    piece = Piece(OLD, (OLD + suffix(1), OLD + suffix(2)), (b"right", b"lost"))
    wrong, right = (shard({NEW + suffix(1): value}) for value in (b"wrong", b"right"))
    wanted, _ = look(piece, NEW, [Cursor(wrong), Cursor(right)], None)
    assert wanted == Wanted({suffix(2): b"lost"}, {})


def test_the_shards_that_had_any_of_it_are_told() -> None:
    piece = Piece(OLD, (OLD + suffix(1), OLD + suffix(2)), (b"a", b"b"))
    none, first, last, all_of_it = (
        Cursor(shard({NEW + suffix(time): value for time, value in content.items()}))
        for content in ({1: b"other"}, {1: b"a"}, {2: b"b"}, {1: b"a", 2: b"b"})
    )
    assert look(piece, NEW, [none, first, last], None) == (None, [first, last])
    assert look(piece, NEW, [all_of_it, first], None) == (None, [all_of_it])
    wanted, helpful = look(piece, NEW, [none, last], None)
    assert wanted is not None
    assert helpful == [last]
