"""What a running cluster answers: which of the wanted values it has, and which it has not."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import pytest

from shardtool.influxdb.answers import Point
from shardtool.influxdb.api import Api
from shardtool.influxdb.messages import stored
from shardtool.influxdb.query import EARLIEST_US, LATEST_US, CannotAskError
from shardtool.proof.asking import ApiAsker
from shardtool.proof.columns import Name
from shardtool.proof.compare import Wanted

NAME = Name("test", "cpu", "idle")
NULL = b"\x30\x01"


class Answers(Api):
    """A connection on which `answer` comes, whatever is asked."""

    def __init__(self, *answer: tuple[int, int, Any]) -> None:
        super().__init__("http://127.0.0.1:1", "root", "root")
        self.answer = answer
        self.asked: list[tuple[str, str, str, int, int]] = []

    def points(
        self, database: str, series: str, column: str, start_us: int, end_us: int
    ) -> Iterator[Point]:
        self.asked.append((database, series, column, start_us, end_us))
        yield from (Point(*point) for point in self.answer)


def at(time_us: int, sequence: int = 1) -> bytes:
    return struct.pack(">QQ", time_us + (1 << 63), sequence)


def wanted(*times: int) -> Wanted:
    return Wanted({at(time): stored(time) for time in times}, {})


def strike(values: Wanted, *answer: tuple[int, int, Any]) -> int:
    with Answers(*answer) as api:
        return ApiAsker(api).strike_out(NAME, values)


def test_nothing_is_asked_where_nothing_is_missing() -> None:
    with Answers() as api:
        assert ApiAsker(api).strike_out(NAME, wanted()) == 0
    assert api.asked == []


def test_the_whole_time_of_what_is_missing_is_asked_for() -> None:
    with Answers() as api:
        assert ApiAsker(api).strike_out(NAME, wanted(30, 10, 20)) == 0
    assert api.asked == [("test", "cpu", "idle", 10, 31)]


def test_what_the_answer_holds_is_missing_no_more() -> None:
    values = wanted(10, 20, 30, 40)
    values.different |= {at(10): b"other", at(40): b"other"}
    assert strike(values, (10, 1, 10), (20, 1, 20), (30, 1, 30)) == 3
    assert values.missing == {at(40): stored(40)}
    assert values.different == {at(40): b"other"}
    assert values.unanswered == set()


def test_points_that_nobody_asked_for_and_those_that_come_twice_count_nothing() -> None:
    values = wanted(10, 20)
    answer = [(9, 1, 9), (10, 2, 10), (10, 1, 10), (10, 1, 10), (10, 1, 7), (20, 1, 20)]
    assert strike(values, *answer) == 2
    assert (values.missing, values.different) == ({}, {})


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        (stored(10), 11),
        (stored(10), 10.0),
        (stored(1), True),
        (stored("10"), 10),
        (NULL, 10),
        (b"\xff\xff", 10),
    ],
)
def test_another_value_leaves_it_missing_and_different(kept: bytes, said: Any) -> None:
    values = Wanted({at(10): kept}, {})
    assert strike(values, (10, 1, said)) == 0
    assert (values.missing, values.different) == ({at(10): kept}, {at(10): b""})


def test_what_a_shard_has_instead_is_told_rather_than_what_an_answer_has() -> None:
    values = Wanted({at(10): stored(10)}, {at(10): b"other"})
    assert strike(values, (10, 1, 11)) == 0
    assert values.different == {at(10): b"other"}


def test_times_that_no_query_reaches_are_unanswered() -> None:
    times = EARLIEST_US - 1, EARLIEST_US, LATEST_US - 1, LATEST_US
    values = Wanted({at(time): stored(1) for time in times}, {}, unanswered={at(7)})
    assert strike(values) == 0
    assert values.unanswered == {at(7), at(EARLIEST_US - 1), at(LATEST_US)}
    assert len(values.missing) == 4


def test_a_name_that_no_query_can_hold_leaves_all_unanswered() -> None:
    class CannotAsk(Answers):
        def points(self, *asked: Any) -> Iterator[Point]:
            yield Point(10, 1, 10)
            raise CannotAskError("no UTF-8")

    values = wanted(10, 20, 30)
    with CannotAsk() as api:
        assert ApiAsker(api).strike_out(NAME, values) == 1
    assert set(values.missing) == values.unanswered == {at(20), at(30)}
