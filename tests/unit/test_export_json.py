"""0.8's JSON: every value once with its type, no nulls, and what it can't hold is listed."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given

from shardtool.export.json08 import Json08
from shardtool.export.left import Left
from tests.unit.test_export_line import NAMES, POINTS, Points, same, window_of


def survives(*identity: int) -> bool:
    """Say whether an identity is the same after 0.8 has read it as float64s, and a year of RFC
    3339."""
    is_year = -62_135_596_800 <= identity[0] // 1_000_000 < 253_402_300_800
    return is_year and all(int(float(number)) == number for number in identity)


@given(series=NAMES, points=POINTS)
def test_a_reader_finds_each_value_once_with_its_type_or_it_is_listed(
    series: str, points: Points
) -> None:
    left = Left("00001")
    window = window_of(series, points)
    content, count, values = Json08(left).written(window)
    rest = [json.loads(line) for line in left.take().splitlines()]
    found = {}
    rows = 0
    for line in content.decode("ascii").splitlines():
        (document,) = json.loads(line)
        assert document["name"] == series
        assert document["columns"][:2] == ["time", "sequence_number"]
        for time_us, sequence, *cells in document["points"]:
            rows += 1
            for name, value in zip(document["columns"][2:], cells, strict=True):
                assert value is not None
                assert (time_us, sequence, name) not in found
                found[time_us, sequence, name] = value
    assert (rows, len(found)) == (count, values)
    expected = {
        (us, sequence, name): value
        for (us, sequence), cells in points.items()
        for name, value in cells.items()
    }
    for one in rest:
        value = expected.pop((one["time_us"], one["sequence_number"], one["column"]))
        assert (
            one["column"] in ("time", "sequence_number")
            or not survives(one["time_us"], one["sequence_number"])
            or not math.isfinite(float(value))
        )
    assert all(survives(time_us, sequence) for time_us, sequence, _ in found)
    assert found.keys() == expected.keys()
    assert all(same(found[key], value) for key, value in expected.items())


def test_points_are_grouped_by_what_they_have() -> None:
    points: Points = {(1, 1): {"a": 1, "b": 2}, (2, 1): {"a": 3}, (3, 1): {"a": 5, "b": 6.0}}
    content, count, values = Json08(Left("00001")).written(window_of("s", points))
    assert content.decode().splitlines() == [
        '[{"name":"s","columns":["time","sequence_number","a","b"],"points":[[1,1,1,2],[3,1,5,6.0]]}]',
        '[{"name":"s","columns":["time","sequence_number","a"],"points":[[2,1,3]]}]',
    ]
    assert (count, values) == (3, 5)


def test_a_line_holds_no_more_than_a_request_should() -> None:
    points: Points = {(n, 1): {"v": n} for n in range(2500)}
    content, _, _ = Json08(Left("00001")).written(window_of("s", points))
    lines = [json.loads(line) for line in content.splitlines()]
    assert [len(document["points"]) for (document,) in lines] == [1000, 1000, 500]


@pytest.mark.parametrize(
    ("time_us", "sequence", "why"),
    [
        (1, (1 << 53) + 1, "sequence"),
        (1, (1 << 64) - 1, "sequence"),
        ((1 << 53) + 1, 1, "time"),
        (1 << 62, 1, "time"),
        (253_402_300_800_000_000, 1, "time"),
        (-62_135_596_800_000_064, 1, "time"),
        (1 << 53, 1 << 53, ""),
        (253_402_300_799_999_968, 1, ""),
        (-(1 << 53), 1 << 63, ""),
    ],
)
def test_a_point_that_0_8_would_read_as_another_is_left(
    time_us: int, sequence: int, why: str
) -> None:
    left = Left("00001")
    points: Points = {(0, 1): {"a": 1.0}, (time_us, sequence): {"a": 2.0}}
    _, _, values = Json08(left).written(window_of("s", points))
    assert [json.loads(line)["why"] for line in left.take().splitlines()] == [why] * bool(why)
    assert values == 2 - bool(why)
