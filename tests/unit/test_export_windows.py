"""Points put together from columns: nothing is lost, doubled or out of order, in bounded memory."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardtool.export import windows as module
from shardtool.export.columns import Column, Selection, columns_of
from shardtool.export.windows import Window, place_of, repeated, sharing, windows
from shardtool.influxdb.engines import EngineError, Pair
from shardtool.influxdb.keys import LAST_ID_KEY, new_column_id, time_bytes
from shardtool.proof.columns import Name

Cell = tuple[int, int, int]
"""Column, time and sequence number."""


class Memory:
    """A reader of pairs in memory that counts what is asked of it."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self.path = Path("/shard")
        self.given = self.given_bytes = 0
        self._pairs = sorted(pairs)
        self._keys = [key for key, _ in self._pairs]

    def pairs(self, start: bytes) -> MemoryStream:
        return MemoryStream(self, self._pairs, bisect_left(self._keys, start))

    def value(self, key: bytes) -> bytes | None:
        return dict(self._pairs).get(key)

    def tables(self) -> list[tuple[bytes, int]]:
        return []


class MemoryStream:
    def __init__(self, reader: Memory, pairs: list[Pair], at: int) -> None:
        self._reader = reader
        self._pairs = pairs
        self._at = at

    def take(self, count: int) -> list[Pair]:
        found = self._pairs[self._at : self._at + count]
        self._at += len(found)
        self._reader.given += len(found)
        self._reader.given_bytes += sum(len(value) for _, value in found)
        return found


def key_of(cell: Cell) -> bytes:
    column, time, sequence = cell
    return new_column_id(column) + time_bytes(time) + sequence.to_bytes(8, "big")


def columns(count: int, series: str = "s") -> list[Column]:
    return [Column(new_column_id(n), Name("d", series, f"c{n}")) for n in range(1, count + 1)]


def rows(found: Sequence[Window]) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """Return the points of windows with what they have by column id."""
    every: list[tuple[bytes, dict[bytes, bytes]]] = []
    for window in found:
        points = window.points()
        row: dict[bytes, dict[bytes, bytes]] = {suffix: {} for suffix in points.suffixes}
        for part, suffixes in zip(window.parts, points.columns, strict=True):
            for suffix, value in zip(suffixes, part.values, strict=True):
                row[suffix][part.column.id] = value
        assert points.is_full == all(len(one) == len(window.parts) for one in row.values())
        every += row.items()
    return every


cells = st.sets(st.tuples(st.integers(1, 5), st.integers(-3, 12), st.integers(0, 4)), max_size=120)


@given(cells=cells, pairs=st.integers(1, 40), open_streams=st.sampled_from([1, 64]))
def test_windows_hold_each_value_once_in_order(
    cells: set[Cell], pairs: int, open_streams: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_PAIRS", pairs)
        patch.setattr(module, "_LEAST_SHARE", 1)
        patch.setattr(module, "_OPEN", open_streams)
        reader = Memory([(key_of(cell), repr(cell).encode()) for cell in cells])
        found = list(windows(reader, columns(5), Selection()))
    every = rows(found)
    suffixes = [suffix for suffix, _ in every]
    assert all(one < other for one, other in pairwise(suffixes))
    expected: dict[bytes, dict[bytes, bytes]] = {}
    for cell in cells:
        key = key_of(cell)
        expected.setdefault(key[8:], {})[key[:8]] = repr(cell).encode()
    assert dict(every) == expected
    if pairs >= 5:
        assert all(window.values <= max(pairs, 5) + 5 for window in found)


@given(cells=cells, pairs=st.integers(1, 20))
def test_points_that_share_a_time_are_told_wherever_windows_end(
    cells: set[Cell], pairs: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_PAIRS", pairs)
        patch.setattr(module, "_LEAST_SHARE", 1)
        reader = Memory([(key_of(cell), b"") for cell in cells])
        shared: set[bytes] = set()
        later: set[bytes] = set()
        for window in windows(reader, columns(5), Selection()):
            suffixes = window.points().suffixes
            shared |= {suffixes[n] for n in sharing(suffixes, window)}
            later |= {suffixes[n] for n in repeated(suffixes, window)}
    points = {key_of(cell)[8:] for cell in cells}
    by_time: dict[bytes, list[bytes]] = {}
    for point in sorted(points):
        by_time.setdefault(point[:8], []).append(point)
    alone = {found[0] for found in by_time.values() if len(found) == 1}
    assert shared == points - alone
    assert later == {point for found in by_time.values() for point in found[1:]}


@given(cells=cells, stop=st.integers(0, 10), pairs=st.integers(1, 30))
def test_a_reader_that_begins_again_at_a_place_misses_nothing(
    cells: set[Cell], stop: int, pairs: int
) -> None:
    both = [*columns(3), *[Column(c.id, Name("d", "t", "x")) for c in columns(5)[3:]]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_PAIRS", pairs)
        patch.setattr(module, "_LEAST_SHARE", 1)
        reader = Memory([(key_of(cell), b"") for cell in cells])
        whole = rows(list(windows(reader, both, Selection())))
        found: list[Window] = []
        place = None
        for window in windows(reader, both, Selection()):
            if len(found) == stop:
                break
            found.append(window)
            place = place_of(window)
        found += windows(reader, both, Selection(), place)
    assert rows(found) == whole


@given(cells=cells, low=st.integers(-4, 13), high=st.integers(-4, 13))
def test_only_wanted_times_are_read(cells: set[Cell], low: int, high: int) -> None:
    reader = Memory([(key_of(cell), b"") for cell in cells])
    selection = Selection(from_us=low, until_us=high)
    found = rows(list(windows(reader, columns(5), selection)))
    assert {s for s, _ in found} == {key_of(c)[8:] for c in cells if low <= c[1] < high}


def test_a_choice_among_values_is_asked_for_each_once() -> None:
    cells = [(column, time, 1) for column in (1, 2) for time in range(50)]
    other = (3, 7, 1)  # of a column that nothing is wanted of
    reader = Memory([(key_of(cell), b"") for cell in [*cells, other]])
    asked: list[bytes] = []

    class Odd:
        def has(self, column: Column) -> bool:
            return column.id != columns(3)[2].id

        def of(self, column: Column, pairs: Sequence[Pair]) -> Sequence[Pair]:
            asked.extend(key for key, _ in pairs)
            assert all(key.startswith(column.id) for key, _ in pairs)
            return self.among(pairs)

        def among(self, pairs: Sequence[Pair]) -> Sequence[Pair]:
            return [pair for pair in pairs if pair[0][-9] % 2]

    found = list(windows(reader, columns(3), Selection(), choice=Odd()))
    assert sorted(asked) == sorted(map(key_of, cells))
    assert sum(window.values for window in found) == 50


def test_thousands_of_columns_are_read_once_and_a_little_more() -> None:
    cells = [(column, time, 1) for column in range(1, 3001) for time in range(3)]
    reader = Memory([(key_of(cell), b"") for cell in cells])
    found = list(windows(reader, columns(3000), Selection()))
    assert sum(window.values for window in found) == len(cells)
    assert [len(row) for _, row in rows(found)] == [3000] * 3
    assert reader.given < 3 * len(cells)


def test_large_values_are_read_few_at_a_time() -> None:
    cells = [(column, time, 1) for column in (1, 2) for time in range(200)]
    value = bytes(1 << 20)
    reader = Memory([(key_of(cell), value) for cell in cells])
    for window in windows(reader, columns(2), Selection()):
        assert window.values * len(value) <= 48 << 20


def test_a_key_of_another_length_is_an_error() -> None:
    reader = Memory([(key_of((1, 1, 1)) + b"\0", b"")])
    with pytest.raises(EngineError, match="keys of 24 bytes"):
        list(windows(reader, columns(1), Selection()))


def test_columns_that_no_index_has_are_found_and_kept_apart() -> None:
    cells = [(1, 5, 1), (2, 5, 1), (3, 5, 1)]
    pairs = [(key_of(cell), b"") for cell in cells]
    reader = Memory([(LAST_ID_KEY, b"x"), (bytes(24), b""), *pairs, (b"\xff" * 24, b"")])

    def namer(column_id: bytes) -> Column:
        number = int.from_bytes(column_id, "big")
        name = Name("d", "s", "c") if number == 2 else Name("", "", f"#{number}")
        return Column(column_id, name)

    found = columns_of(reader, namer, Selection())
    assert [(column.name.column, column.is_named) for column in found] == [
        ("#1", False),
        ("#3", False),
        ("c", True),
    ]
    assert len(list(windows(reader, found, Selection()))) == 3


def test_a_reader_that_begins_again_knows_the_last_point_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_PAIRS", 40)
    reader = Memory([(key_of((1, 7, sequence)), b"") for sequence in range(100)])
    first = next(windows(reader, columns(1), Selection()))
    again = list(windows(reader, columns(1), Selection(), place_of(first)))
    later = [len(repeated(window.points().suffixes, window)) for window in [first, *again]]
    assert sum(later) == 99


@pytest.mark.parametrize("small", [0, 300])
def test_large_values_of_many_columns_are_read_one_by_one(small: int) -> None:
    """However many values were small before."""
    large = bytes(1 << 20)
    cells = [(column, time, 1) for column in range(1, 61) for time in range(small + 9)]
    reader = Memory([(key_of(cell), large if cell[1] >= small else b"") for cell in cells])
    gone = most = 0
    for window in windows(reader, columns(60), Selection()):
        points = window.points().suffixes
        assert sharing(points, window) == []
        most = max(most, reader.given_bytes - gone)
        gone += sum(len(value) for part in window.parts for value in part.values)
    assert gone == 60 * 9 * len(large)
    # Two of each column have to be there; the others are what all are read ahead by, and one more.
    assert most <= (2 * 60 + 16 + 9) * len(large)
