"""Lost values become points that arrive as they were; what can't be sent is told, never rounded."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.encode import field_value
from shardtool.proof.columns import Name
from shardtool.rescue.points import (
    WHY,
    Entry,
    Point,
    Run,
    Unsendable,
    batches_of,
    entries_of,
    json_of,
    points_of,
    trouble_with_identity,
    trouble_with_name,
)
from shardtool.rescue.spool import Value

CPU = Name("test", "cpu", "v")
U64 = (1 << 64) - 1


def suffix(time_us: int, sequence: int = 10_001) -> bytes:
    """Return a key without its column."""
    return struct.pack(">QQ", time_us + (1 << 63), sequence)


def run(column: str, *times: int, value: Any = 1) -> Run:
    """Return the lost values of a column of cpu."""
    values = (Value(suffix(time), field_value(value), "name", False) for time in times)
    return Run(Name("test", "cpu", column), values)


# -- values --


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3, "3"),
        ((1 << 63) - 1, "9223372036854775807"),
        (-(1 << 63), "-9223372036854775808"),
        (3.0, "3.0"),
        (-0.0, "-0.0"),
        (1e22, "1e+22"),
        (5e-324, "5e-324"),
        (0.1, "0.1"),
        (True, "true"),
        (False, "false"),
        ("", '""'),
        ('"\\\n\x00é😀', r'"\"\\\n\u0000\u00e9\ud83d\ude00"'),
    ],
)
def test_a_value_is_written_so_that_it_arrives_as_its_type(value: Any, text: str) -> None:
    assert json_of(field_value(value)) == text


@pytest.mark.parametrize(
    ("stored", "why"),
    [
        (field_value(math.nan), "number"),
        (field_value(math.inf), "number"),
        (field_value(-math.inf), "number"),
        (b"\x0a\x01\xff", "bytes"),
        (b"\xff\xff", "unreadable"),
        (field_value(None), "unreadable"),
        (b"", "unreadable"),
        (b"\x28\x81\x00", "unreadable"),  # two bytes for a one: 0.8 would write other ones
        (b"\x28\x01\x20\x01", "unreadable"),  # a one and a true
    ],
)
def test_what_json_does_not_have_is_told_and_not_rounded(stored: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=f"^{why}$"):
        json_of(stored)
    assert why in WHY


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_double_comes_back_as_itself_and_never_as_an_integer(value: float) -> None:
    text = json_of(field_value(value))
    assert struct.pack(">d", json.loads(text)) == struct.pack(">d", value)
    assert isinstance(json.loads(text), float)


@pytest.mark.parametrize(
    ("time_us", "sequence", "why"),
    [
        (0, 1, ""),
        (-1, 0, ""),
        (1 << 53, 1 << 53, ""),
        ((1 << 53) + 1, 1, "time"),
        ((1 << 53) + 2, 1, ""),
        (1, 990_000_000_000_010_001, "sequence"),
        (1, 990_000_000_000_009_984, ""),
        (1, U64, "sequence"),
        (1, 1 << 63, "sequence"),
        (-62_135_596_800_000_000, 1, ""),
        (-62_135_596_800_000_001, 1, "time"),
        (253_402_300_800_000_000, 1, "time"),
    ],
)
def test_an_identity_that_a_float64_changes_can_not_be_sent(
    time_us: int, sequence: int, why: str
) -> None:
    assert trouble_with_identity(time_us, sequence) == why


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (CPU, ""),
        (Name("a~b", 'say "hi"\n', "~\\😀"), ""),
        (Name("test", "cpu", "time"), "name"),
        (Name("test", "cpu", "sequence_number"), "name"),
        (Name("", "", "#0100000000000000"), "name"),
        (Name("a/b", "cpu", "v"), "name"),
        (Name("a%b", "cpu", "v"), "name"),
        (Name("test", "", "v"), "name"),
        (Name("test", "cpu", ""), "name"),
        (Name("test", "c\udcff", "v"), "bytes"),
    ],
)
def test_a_name_that_no_request_can_hold_is_told(name: Name, why: str) -> None:
    assert trouble_with_name(name) == why


# -- points --


def test_columns_of_the_same_time_and_sequence_become_one_point() -> None:
    assert list(points_of([run("a", 1, 2), run("b", 2, 3, value="x")])) == [
        Point(1, 10_001, (("a", "1"),)),
        Point(2, 10_001, (("a", "1"), ("b", '"x"'))),
        Point(3, 10_001, (("b", '"x"'),)),
    ]


def test_of_a_point_what_can_be_sent_is_and_the_rest_is_told() -> None:
    found = list(points_of([run("a", 1), run("b", 1, value=math.nan), run("time", 1)]))
    assert found == [
        Unsendable(Name("test", "cpu", "b"), 1, 10_001, "number"),
        Unsendable(Name("test", "cpu", "time"), 1, 10_001, "name"),
        Point(1, 10_001, (("a", "1"),)),
    ]


VALUES = st.sampled_from([1, 2, "", "x", math.inf])
CELLS = st.dictionaries(
    st.tuples(st.integers(0, 6), st.integers(1, 2), st.sampled_from("abc")), st.integers(0, 9)
)


@given(CELLS, st.integers(1, 4), st.integers(1, 300))
def test_entries_hold_each_value_once_and_only_points_with_the_same_columns(
    cells: dict[tuple[int, int, str], int], most_points: int, most_bytes: int
) -> None:
    runs = [
        Run(
            Name("test", "cpu", column),
            iter(
                [
                    Value(suffix(time, sequence), field_value(value), "future", False)
                    for (time, sequence, name), value in sorted(cells.items())
                    if name == column
                ]
            ),
        )
        for column in "abc"
    ]
    points = [found for found in points_of(runs) if isinstance(found, Point)]
    assert len(points) == len({key[:2] for key in cells})
    found: dict[tuple[int, int, str], int] = {}
    for entry in entries_of("test", "cpu", points, most_points=most_points, most_bytes=most_bytes):
        assert 0 < len(entry.points) <= most_points
        body = json.loads(entry.json)
        assert body["columns"] == ["time", "sequence_number", *entry.columns]
        for time, sequence, *values in body["points"]:
            assert None not in values  # a null deletes
            for column, value in zip(entry.columns, values, strict=True):
                assert (time, sequence, column) not in found
                found[time, sequence, column] = value
    assert found == cells


SERIES = st.tuples(st.sampled_from("de"), st.sampled_from("xyz"), st.integers(1, 4))


@given(st.lists(SERIES), st.integers(4, 9), st.integers(1, 400))
def test_batches_hold_each_entry_once_and_never_two_of_one_series(
    series: list[tuple[str, str, int]], most_points: int, most_bytes: int
) -> None:
    entries = [
        Entry(database, name, ("v",), tuple(Point(time, 1, (("v", "1"),)) for time in range(many)))
        for database, name, many in series
    ]
    batches = list(batches_of(entries, most_points=most_points, most_bytes=most_bytes))
    found = [entry for batch in batches for entry in batch.entries]
    assert sorted(found, key=repr) == sorted(entries, key=repr)
    for batch in batches:
        assert {entry.database for entry in batch.entries} == {batch.database}
        assert len({entry.series for entry in batch.entries}) == len(batch.entries)
        assert batch.points <= most_points
        assert len(batch.entries) == 1 or sum(len(e.json) for e in batch.entries) <= most_bytes
        assert json.loads(batch.body()) == [json.loads(entry.json) for entry in batch.entries]


@given(
    st.lists(st.dictionaries(st.tuples(st.integers(0, 4), st.sampled_from("ab")), VALUES)),
)
def test_of_several_shards_the_first_counts_and_what_others_have_else_is_told(
    shards: list[dict[tuple[int, str], Any]],
) -> None:
    runs = [
        Run(
            Name("test", "cpu", column),
            iter(
                [
                    Value(suffix(time), field_value(value), "name", False)
                    for (time, name), value in sorted(cells.items())
                    if name == column
                ]
            ),
        )
        for cells in shards
        for column in "ab"
    ]
    first: dict[tuple[int, str], Any] = {}
    for cells in reversed(shards):
        first |= cells
    unsent = {key for key, value in first.items() if value is math.inf}
    found = list(points_of(runs))
    points = [one for one in found if isinstance(one, Point)]
    told = [one for one in found if isinstance(one, Unsendable)]
    sent = {(p.time_us, column): text for p in points for column, text in p.values}
    assert sent == {
        key: json_of(field_value(value)) for key, value in first.items() if key not in unsent
    }
    others = [
        (key, "contradicted") for cells in shards for key, v in cells.items() if v != first[key]
    ]
    same = [(key, "number") for cells in shards for key, v in cells.items() if v is math.inf]
    assert sorted(((one.time_us, one.name.column), one.why) for one in told) == sorted(
        [*others, *(one for one in same if one[0] in unsent)]
    )
