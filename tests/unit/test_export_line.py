"""Line protocol, read back by a parser that is not ours; and what it can't hold, listed."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from line_protocol_parser import parse_line

from fixtures.encode import field_value
from shardtool.export.columns import Column
from shardtool.export.fieldtypes import FieldTypes
from shardtool.export.left import WHY, Left
from shardtool.export.line import FIRST_US, LAST_US, Line, Sequences, Style, header
from shardtool.export.values import Value
from shardtool.export.windows import Part, Window
from shardtool.influxdb.keys import new_column_id, time_bytes
from shardtool.proof.columns import Name

Points = dict[tuple[int, int], dict[str, Value]]
"""Values by column, by time and sequence number."""

# Everything that means something to a parser, and what merely looks as if. This parser, which is
# written in C, takes no NUL anywhere; InfluxDB's own does in strings (tests/real).
AWKWARD = st.text(st.sampled_from(list("ab,= \\\"'#~%:i\n\t\r\0ä☃\u2028\x0b\x85")), max_size=6)
NAMES = st.one_of(AWKWARD, st.text(max_size=8))
VALUES = st.one_of(
    AWKWARD.map(lambda text: text.replace("\0", "")),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20),
    st.booleans(),
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.floats(allow_subnormal=False),
)
US = st.integers(-(1 << 63), (1 << 63) - 1)
IDENTITIES = st.tuples(
    st.one_of(
        US, st.integers(-2, 2), st.sampled_from([FIRST_US - 1, FIRST_US, LAST_US, LAST_US + 1])
    ),
    st.one_of(st.integers(0, 3), st.integers(0, (1 << 64) - 1)),
)
POINTS = st.dictionaries(
    IDENTITIES, st.dictionaries(NAMES, VALUES, min_size=1, max_size=4), min_size=1, max_size=6
)


def window_of(series: str, points: Points, database: str = "db") -> Window:
    """Return points as the reader of shards gives them."""
    names = sorted({name for values in points.values() for name in values})
    parts = []
    for number, name in enumerate(names, 1):
        column = Column(new_column_id(number), Name(database, series, name))
        cells = sorted(
            (column.id + time_bytes(us) + sequence.to_bytes(8, "big"), field_value(values[name]))
            for (us, sequence), values in points.items()
            if name in values
        )
        parts.append(Part(column, [key for key, _ in cells], [value for _, value in cells]))
    return Window(tuple(parts), b"\xff" * 16)


def written(window: Window, **style: Any) -> tuple[list[str], list[dict[str, Any]]]:
    """Return a window's lines, and what is left of it; the counts that are told agree with both."""
    left = Left("00001")
    content, points, values = Line(left, Style(**style)).written(window)
    rest = [json.loads(line) for line in left.take().splitlines()]
    assert sum(left.counts.values()) == len(rest)
    assert {one["why"] for one in rest} <= set(WHY)
    assert values + len(rest) == window.values
    assert points <= len(window.points().suffixes)
    text = content.decode()
    return [line for line in text.split("\n") if line] if "\n" in text else [], rest


def parsed(lines: list[str]) -> list[tuple[str, dict[str, str], str, Value, int]]:
    """Return (measurement, tags, field, value, time in ns) of each field."""
    found = []
    for line in lines:
        point = parse_line(line)
        for name, value in point["fields"].items():
            found.append((point["measurement"], point["tags"], name, value, point["time"]))
    return found


def same(one: Value, other: Value) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.copysign(1, one) == math.copysign(1, other) and one == other
    return type(one) is type(other) and one == other


@given(series=NAMES, points=POINTS, sequence=st.sampled_from(["auto", "tag", "field", "none"]))
@example("a,b =c\\d", {(0, 1): {"e,f= g": 'h"i\\', 'x"y': 1.0, "%s": True}}, "tag")
@example("m", {(5, 1): {"v": 1}, (5, 2): {"v": 2, "w": 1.5}}, "auto")
@example("m", {(5, 1): {"v": 1}, (5, 2): {"v": 2, "w": 1.5}}, "none")
@example("%d", {(0, 1 << 63): {"sequence_number": 1, "time": 1, "v": "\\"}}, "field")
def test_a_parser_finds_each_value_once_with_its_type_or_it_is_listed(
    series: str, points: Points, sequence: Sequences
) -> None:
    lines, rest = written(window_of(series, points), sequence=sequence)
    found = parsed(lines)
    expected = {
        (us * 1000, name, number): value
        for (us, number), values in points.items()
        for name, value in values.items()
    }
    for one in rest:
        value = expected.pop((one["time_us"] * 1000, one["column"], one["sequence_number"]))
        if one["type"] == "double" and isinstance(one["value"], str):
            assert not math.isfinite(float(value))
        else:
            assert same(one["value"], value)
    times = [us for us, _ in points]
    seen = []
    for measurement, tags, name, value, time_ns in found:
        assert measurement == series
        assert set(tags) <= {"sequence_number"}
        if sequence == "field" and name == "sequence_number":
            continue
        numbers = [n for ns, column, n in expected if (ns, column) == (time_ns, name)]
        if tags:
            numbers = [int(tags["sequence_number"])]
        assert len(numbers) == 1, "nobody can tell which point it is of"
        assert same(value, expected[time_ns, name, numbers[0]])
        seen.append((time_ns, name, numbers[0]))
        if sequence == "auto":
            assert bool(tags) == (times.count(time_ns // 1000) > 1)
        else:
            assert bool(tags) == (sequence == "tag")
    assert sorted(seen) == sorted(expected)


@pytest.mark.parametrize(
    ("series", "why"),
    [
        ("", "name"),
        ("#a", "name"),
        ("a\nb", "name"),
        ("a\tb", "name"),
        ("a\\", "name"),
        ("a\\ b", "name"),
        ("a\\\\b", "name"),
        ("a\\=b", "name"),
        ("a\udcff", "bytes"),
        ("x" * 65_536, "long"),
    ],
)
def test_a_series_that_can_have_no_line_is_left(series: str, why: str) -> None:
    lines, rest = written(window_of(series, {(1, 1): {"v": 1}}))
    assert lines == []
    assert [one["why"] for one in rest] == [why]


@pytest.mark.parametrize(
    ("column", "why"),
    [("time", "reserved"), ("sequence_number", "reserved"), ('a\\"b', "name"), ("", "name")],
)
def test_a_column_that_can_be_no_field_is_left_and_others_are_not(column: str, why: str) -> None:
    lines, rest = written(window_of("m", {(1, 1): {column: 1, "v": 2}}))
    assert lines == ["m v=2i 1000"]
    assert [(one["column"], one["why"]) for one in rest] == [(column, why)]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_no_number_says_is_left(value: float) -> None:
    lines, rest = written(window_of("m", {(1, 1): {"v": value, "w": 1.5}}))
    assert lines == ["m w=1.5 1000"]
    assert [(one["value"], one["why"]) for one in rest] == [(str(value), "number")]


def test_a_string_with_a_line_feed_is_left_unless_it_is_asked_for() -> None:
    window = window_of("m", {(1, 1): {"v": "a\nb"}})
    assert written(window)[1][0]["why"] == "newline"
    content, _, _ = Line(Left("00001"), Style(line_feeds=True)).written(window)
    assert content == b'm v="a\nb" 1000\n'


def test_integers_are_floats_where_that_is_asked_for_and_exact() -> None:
    points: Points = {(1, 1): {"v": 3}, (2, 1): {"v": 3.5}, (3, 1): {"v": (1 << 53) + 1}}
    lines, rest = written(window_of("m", points), floats=True)
    assert lines == ["m v=3.0 1000", "m v=3.5 2000"]
    assert [one["why"] for one in rest] == ["integer"]


def test_a_tag_is_given_where_points_share_a_time_and_nowhere_else() -> None:
    points: Points = {(1, 1): {"v": 1}, (2, 1): {"v": 2}, (2, 7): {"v": 3}, (3, 1): {"v": 4}}
    lines, _ = written(window_of("m", points))
    assert lines == [
        "m v=1i 1000",
        "m,sequence_number=1 v=2i 2000",
        "m,sequence_number=7 v=3i 2000",
        "m v=4i 3000",
    ]


def test_a_point_that_would_replace_another_is_left() -> None:
    points: Points = {(2, 1): {"v": 2}, (2, 7): {"v": 3}}
    lines, rest = written(window_of("m", points), sequence="field")
    assert lines == ["m v=2i,sequence_number=1i 2000"]
    assert [(one["sequence_number"], one["why"]) for one in rest] == [(7, "same-time")]


def test_a_point_that_replaces_none_in_the_file_is_not_left() -> None:
    points: Points = {(1, 1): {"v": math.nan}, (1, 2): {"v": 2.5}, (1, 3): {"v": 3.5}}
    for sequence in ("none", "field"):
        lines, rest = written(window_of("m", points), sequence=sequence)
        assert len(lines) == 1
        assert lines[0].startswith("m v=2.5")
        assert [(one["sequence_number"], one["why"]) for one in rest] == [
            (1, "number"),
            (3, "same-time"),
        ]


def test_a_field_takes_the_type_of_its_first_value_and_others_are_left() -> None:
    points: Points = {
        (1, 1): {"v": math.nan, "w": 1},
        (2, 1): {"v": 1, "w": 2},
        (3, 1): {"v": 2.5, "w": 3},
        (4, 1): {"v": "x", "w": 4},
        (5, 1): {"v": 3, "w": True},
    }
    lines, rest = written(window_of("m", points))
    assert lines == [
        "m w=1i 1000",
        "m v=1i,w=2i 2000",
        "m w=3i 3000",
        "m w=4i 4000",
        "m v=3i 5000",
    ]
    assert [(one["column"], one["value"], one["why"]) for one in rest] == [
        ("v", "nan", "number"),
        ("v", 2.5, "type"),
        ("v", "x", "type"),
        ("w", True, "type"),
    ]


def test_integers_that_are_written_as_floats_are_of_one_type_with_floats() -> None:
    types = FieldTypes()
    points: Points = {(1, 1): {"v": 1}, (2, 1): {"v": 2.5}}
    line = Line(Left("00001"), Style(floats=True), types)
    assert line.written(window_of("m", points))[0] == b"m v=1.0 1000\nm v=2.5 2000\n"
    assert types.several == {}


def test_fields_of_several_types_are_told_with_that_of_the_file_first() -> None:
    types = FieldTypes()
    points: Points = {(1, 1): {"v": 1, "w": 1}, (2, 1): {"v": "x"}, (3, 1): {"v": True}}
    Line(Left("00001"), Style(), types).written(window_of("m", points))
    assert types.several == {Name("db", "m", "v"): "ibs"}
    Line(Left("00001"), Style(), types).written(window_of("m", {(4, 1): {"v": 0.5}}))
    assert types.several == {Name("db", "m", "v"): "ibsf"}


def test_a_column_that_nobody_has_a_name_for_is_called_unnamed() -> None:
    left = Left("00001")
    column = Column(new_column_id(1), Name("", "", "#01"))
    key = column.id + time_bytes(1) + bytes(8)
    Line(left, Style()).written(Window((Part(column, [key], [field_value(1)]),), b"\xff" * 16))
    assert left.counts == {"unnamed": 1}


def test_a_point_with_very_many_columns_takes_several_lines_of_one_time() -> None:
    point: dict[str, Value] = {f"column{n:04}": n for n in range(3000)}
    for sequence in ("auto", "tag", "field"):
        lines, rest = written(window_of("m", {(1, 1): point}), sequence=sequence)
        assert rest == []
        assert len(lines) > 10
        assert max(map(len, lines)) < 4200
        fields = [field for line in lines for field in parse_line(line)["fields"].items()]
        assert {n: v for n, v in fields if n != "sequence_number"} == point
        assert {(parse_line(line)["time"], str(parse_line(line)["tags"])) for line in lines} == {
            (1000, str({"sequence_number": "1"} if sequence == "tag" else {}))
        }


@pytest.mark.parametrize(
    ("database", "said"),
    [
        ("test", True),
        ("two words", True),
        ("a:b", False),
        ("a\nb", False),
        (" a", False),
        ("", False),
    ],
)
def test_the_header_names_a_database_that_it_can_name(database: str, said: bool) -> None:
    expected = f"# DML\n# CONTEXT-DATABASE: {database}\n" if said else "# DML\n"
    assert header(database) == expected.encode()
