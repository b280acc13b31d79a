"""What a server refuses is known to the value, and all the rest goes through."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardtool.errors import ShardtoolError
from shardtool.rescue.points import (
    Batch,
    Entry,
    Point,
)
from shardtool.rescue.send import Sender


class Picky:
    """A server that refuses whole requests with these (time, column) in them."""

    def __init__(self, refused: Iterable[tuple[int, str]]) -> None:
        self.refused = set(refused)
        self.taken: set[tuple[int, str]] = set()
        self.requests = 0

    def write_points(self, database: str, body: bytes) -> str:
        self.requests += 1
        cells = {
            (p[0], column)
            for entry in json.loads(body)
            for p in entry["points"]
            for column in entry["columns"][2:]
        }
        if cells & self.refused:
            return "no"
        self.taken |= cells
        return ""


def parts_of(points: tuple[Point, ...]) -> list[tuple[str, tuple[Point, ...]]]:
    """Return points as those of three series."""
    return [("x", points[:7]), ("y", points[7:8]), ("z", points[8:])]


@given(st.sets(st.tuples(st.integers(0, 20), st.sampled_from("ab"))))
def test_what_is_refused_is_found_to_the_value_and_all_the_rest_goes_through(
    refused: set[tuple[int, str]],
) -> None:
    points = tuple(Point(time, 1, (("a", "1"), ("b", "2"))) for time in range(21))
    server = Picky(refused)
    sender = Sender(server, 0, lambda entry: None)
    halves = [Entry("test", name, ("a", "b"), part) for name, part in parts_of(points)]
    found = list(sender.send(Batch(tuple(halves))))
    assert {(one.value.time_us, one.value.name.column) for one in found} == refused
    assert server.taken == {(time, c) for time in range(21) for c in "ab"} - refused
    assert sender.sent == len(server.taken)
    assert server.requests <= 1 + len(refused) * 2 * 8


class Unwilling(Picky):
    """A server that refuses some series, whatever of them is asked."""

    def __init__(self, *series: str) -> None:
        super().__init__(())
        self.series = series

    def write_points(self, database: str, body: bytes) -> str:
        if any(entry["name"] in self.series for entry in json.loads(body)):
            self.requests += 1
            return "not that one"
        return super().write_points(database, body)


def entry(series: str, many: int) -> Entry:
    return Entry("test", series, ("v",), tuple(Point(n, 1, (("v", "1"),)) for n in range(many)))


def test_a_series_that_is_refused_and_refused_keeps_no_other_from_going_through() -> None:
    server = Unwilling("x")
    sender = Sender(server, 0, lambda batch: None)
    found = []
    for part in (entry("a", 5), entry("x", 1000), entry("x", 1000), entry("y", 7)):
        found += list(sender.send(Batch((part,))))
    assert len(found) == 2000
    assert {(one.value.name.series, one.text) for one in found} == {("x", "not that one")}
    assert sender.sent == 12
    assert server.requests < 1000


def test_values_that_are_refused_of_one_series_are_not_held_against_another() -> None:
    server = Picky({(time, "v") for time in range(1000)})
    sender = Sender(server, 0, lambda batch: None)
    points = tuple(Point(time, 1, (("v", "1"),)) for time in range(801, 1199))
    bad = tuple(Point(time, 1, (("v", "1"),)) for time in range(199))
    found = list(sender.send(Batch((Entry("test", "a", ("v",), bad),))))
    found += list(sender.send(Batch((Entry("test", "b", ("v",), points[198:]),))))
    assert len(found) == 199 + 1
    assert server.taken == {(time, "v") for time in range(1000, 1199)}


def test_behind_very_many_that_are_refused_of_a_series_the_others_still_go() -> None:
    server = Picky({(time, "v") for time in range(500)})
    sender = Sender(server, 0, lambda batch: None)
    points = tuple(Point(time, 1, (("v", "1"),)) for time in range(2000))
    found = list(sender.send(Batch((Entry("test", "a", ("v",), points),))))
    assert 500 <= len(found) < 500 + 64
    assert len(server.taken) + len(found) == 2000
    assert server.requests < 500


def test_a_server_that_refuses_series_after_series_is_not_asked_for_ever() -> None:
    server = Unwilling("a", "b", "c", "d")
    sender = Sender(server, 0, lambda batch: None)
    with pytest.raises(ShardtoolError, match=r"values of 3 series, the last time with 'not that"):
        for name in "abcd":
            list(sender.send(Batch((entry(name, 1000),))))
    assert server.requests < 2000
