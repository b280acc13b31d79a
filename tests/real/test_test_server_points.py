"""What the tests' own server writes: values, identities and places as 0.8.3 has them, on disk."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, get_args
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures import Node, Row
from fixtures.encode import Value, field_value, microseconds
from fixtures.engines import HAVE_PLYVEL, Engine
from fixtures.raft import Space
from fixtures.server import Pace, serve
from tests.needs import lacking
from tests.real.exchanges import send
from tests.real.writes_world import (
    IDENTITY,
    NOON,
    catalogue,
    entry,
    post,
    said,
    stored,
    target,
    values,
    write,
)

ALL = 'select * from "s" where time > 0u and time < 2000000000000000u order asc'
"""Asks for the points of the series s."""


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """A node of 0.8 with a database and no spaces of its own."""
    return Node(tmp_path / "data", version="0.8", databases=["test"], spaces=())


@pytest.fixture
def url(node: Node) -> Iterator[str]:
    """The node, served."""
    with serve(node) as served:
        yield served


# -- what becomes of values -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "value"),
    [
        ("3", 3),
        ("-0", 0),
        ("9223372036854775807", (1 << 63) - 1),
        ("-9223372036854775808", -(1 << 63)),
        ("9223372036854775808", float(1 << 63)),
        ("1" + "0" * 300, 1e300),
        ("3.0", 3.0),
        ("1e3", 1000.0),
        ("-0.0", -0.0),
        ("1e-400", 0.0),
        ("0.1", 0.1),
        ("true", True),
        ("false", False),
        ('""', ""),
        (r'"\ud83d\ude00 \"\\\n\u0000"', '\U0001f600 "\\\n\0'),
        (r'"\ud800x\udc00\ud800\ud83d\ude00"', "\ufffdx\ufffd\ufffd\U0001f600"),
        ('"\u2028"', "\u2028"),
    ],
)
def test_a_value_is_stored_as_the_type_that_it_is_written_as(
    sent: str, value: Value, node: Node, url: str
) -> None:
    body = f'[{{"name":"s","columns":["time","sequence_number","v"],"points":[[5,7,{sent}]]}}]'
    assert said(post(url, body)) == (200, "")
    assert stored(node) == {("s", "v", 5, 7): field_value(value)}


def test_bytes_that_are_no_utf_8_become_replacement_characters_each(node: Node, url: str) -> None:
    body = (
        b'[{"name":"s\xff","columns":["time","sequence_number","v"],"points":[[5,7,"\xe2\x82x"]]}]'
    )
    assert post(url, body).status == 200
    assert values(node) == {("s\ufffd", "v", 5, 7): "\ufffd\ufffdx"}


@pytest.mark.parametrize(
    ("time_sent", "sequence_sent", "time_us", "sequence"),
    [
        ("9007199254740993", "9007199254740993", 9007199254740992, 9007199254740992),
        ("1", "990000000000010001", 1, 990000000000009984),  # seen on 0.8.3, FORMATS.md
        ("-5", "-1", -5, (1 << 64) - 1),
        ("1.9", "2.9", 1, 2),
        ("-1.9", "18446744073709551615", -1, 0),
        ("1e3", "9223372036854775808", 1000, 1 << 63),
        ("1", "13835058055282163712", 1, 3 << 62),
    ],
)
def test_the_identity_passes_through_a_double(
    time_sent: str, sequence_sent: str, time_us: int, sequence: int, node: Node, url: str
) -> None:
    identity = f"{time_sent},{sequence_sent}"
    body = f'[{{"name":"s","columns":["time","sequence_number","v"],"points":[[{identity},1]]}}]'
    assert said(post(url, body)) == (200, "")
    assert list(stored(node)) == [("s", "v", time_us, sequence)]


@pytest.mark.parametrize(("precision", "unit"), [("u", 1), ("m", 1000), ("ms", 1000), ("s", 10**6)])
def test_a_precision_is_the_unit_of_time(precision: str, unit: int, node: Node, url: str) -> None:
    body = json.dumps([entry("s", ["v"], [-3, 1, 1])])
    assert post(url, body, target(precision=precision)).status == 200
    assert list(stored(node)) == [("s", "v", -3 * unit, 1)]


def test_a_point_without_an_identity_gets_the_time_and_the_next_number(node: Node) -> None:
    now = datetime(2015, 3, 1, 12, tzinfo=UTC)
    pace = Pace(now=now)
    bare = {"name": "s", "columns": ["v"], "points": [[1], [2]]}
    with serve(node, pace=pace) as url:
        assert write(url, bare, entry("t", ["v"], [NOON, 5, 0])).status == 200
    with serve(node, pace=pace) as url:  # and goes on after a restart
        assert write(url, bare).status == 200
    found = values(node)
    del found["t", "v", NOON, 5]
    numbers = (10_001, 20_001, 30_001, 40_001)
    wanted = zip(numbers, (1, 2, 1, 2), strict=True)
    assert found == {("s", "v", microseconds(now), number): value for number, value in wanted}


def test_columns_and_series_may_have_any_name(node: Node, url: str) -> None:
    awkward = 'a~b "c" \\ \n \u00fc \U0001f600'
    assert write(url, entry(awkward, [awkward, ""], [NOON, 1, "x", 2])).status == 200
    assert values(node) == {
        (awkward, awkward, NOON, 1): "x",
        (awkward, "", NOON, 1): 2,
    }


def test_series_without_points_are_skipped(node: Node, url: str) -> None:
    empty: list[dict[str, Any]] = [
        {"name": "a", "columns": ["v", "v"], "points": []},
        {"name": "b"},
        {},
    ]
    assert write(url, *empty, entry("s", ["v"], [NOON, 1, 1])).status == 200
    assert catalogue(node.path).ids == {"test": {"s": {"v": 1}}}


VALUES = st.one_of(
    st.booleans(),
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(),
)
TIMES = st.integers(-(10**15), 4 * 10**15)
SEQUENCES = st.integers(0, 1 << 53)
POINTS = st.dictionaries(st.tuples(TIMES, SEQUENCES), st.tuples(VALUES, VALUES), min_size=1)
NAMES = st.text().filter(lambda name: name not in IDENTITY)


@pytest.mark.slow
def test_any_value_is_read_back_as_it_was_written(node: Node, url: str) -> None:
    numbers = count()

    @settings(max_examples=60, deadline=None)
    @given(points=POINTS, names=st.lists(NAMES, min_size=2, max_size=2, unique=True))
    def check(points: dict[tuple[int, int], tuple[Value, Value]], names: list[str]) -> None:
        series = f"s{next(numbers)}"
        sent = entry(series, names, *([*identity, *both] for identity, both in points.items()))
        assert said(write(url, sent)) == (200, "")
        wanted = {
            (series, name, *identity): field_value(value)
            for identity, both in points.items()
            for name, value in zip(names, both, strict=True)
        }
        assert {key: one for key, one in stored(node).items() if key[0] == series} == wanted

    check()


def test_what_was_written_is_answered_to_a_query(url: str) -> None:
    sent = entry("s", ["a", "b"], [NOON, 1, "x", True], [NOON + 1, 2, 1.5, (1 << 62) + 1])
    assert write(url, sent).status == 200
    (found,) = json.loads(send(url, "GET", f"{target()}&q={quote(ALL)}").body)
    assert found["columns"] == [*IDENTITY, "b", "a"]
    assert found["points"] == [[NOON, 1, True, "x"], [NOON + 1, 2, (1 << 62) + 1, 1.5]]


# -- where points go, and what they do there ------------------------------------------------------


def test_points_go_into_the_shards_of_the_space_that_takes_their_series(tmp_path: Path) -> None:
    node = Node(tmp_path / "data", version="0.8", databases=["test"])  # short_term and long_term
    week = 7 * 86_400_000_000
    with serve(node) as url:
        low = entry("low", ["v"], [NOON, 1, 1], [NOON + week, 1, 2])
        assert write(url, low, entry("High", ["v"], [NOON, 1, 3])).status == 200
    shards = catalogue(node.path).real_shards()
    assert sorted(shard.space for shard in shards) == ["long_term", "short_term", "short_term"]
    assert values(node) == {
        ("low", "v", NOON, 1): 1,
        ("low", "v", NOON + week, 1): 2,
        ("High", "v", NOON, 1): 3,
    }


def test_without_a_space_that_matches_default_is_made(tmp_path: Path) -> None:
    few = [Space("few", "/^few/", 7)]
    node = Node(tmp_path / "data", version="0.8", databases=["test"], spaces=few)
    with serve(node) as url:
        assert write(url, entry("s", ["v"], [NOON, 1, 1])).status == 200
    assert [space["name"] for space in catalogue(node.path).spaces["test"]] == ["default", "few"]
    assert values(node) == {("s", "v", NOON, 1): 1}


def test_each_member_that_owns_a_shard_has_what_was_written(tmp_path: Path) -> None:
    spaces = [Space("all", "/.*/", 7, replication=2)]
    two: dict[str, Any] = {"version": "0.8", "databases": ["test"], "spaces": spaces, "servers": 2}
    nodes = [Node(tmp_path / str(n), server_id=n, **two) for n in (1, 2)]
    with serve(*nodes) as url:
        assert write(url, entry("s", ["v"], [NOON, 1, 1])).status == 200
    assert values(nodes[0]) == values(nodes[1]) == {("s", "v", NOON, 1): 1}


ENGINES = [
    pytest.param(engine, storage, id=f"{engine}-{storage}")
    for engine in get_args(Engine)
    for storage in (("log", "tables") if "level" in engine else ("log",))
]


@pytest.mark.parametrize(("engine", "storage"), ENGINES)
def test_a_null_deletes_and_a_second_write_replaces(
    engine: Engine, storage: Any, tmp_path: Path
) -> None:
    if storage == "tables" and not HAVE_PLYVEL:
        lacking("plyvel")
    node = Node(tmp_path / "data", version="0.8", databases=["test"])
    rows = [Row("test", "s", name, NOON, 1, "old") for name in ("a", "b", "c")]
    node.write_new(rows, engine=engine, storage=storage)
    with serve(node, engine=engine) as url:
        send(url, "GET", f"{target()}&q={quote(ALL)}")  # so that the server has read it before
        assert write(url, entry("s", ["a", "b"], [NOON, 1, None, "new"])).status == 200
        assert values(node) == {("s", "b", NOON, 1): "new", ("s", "c", NOON, 1): "old"}
        assert write(url, entry("s", ["a", "d"], [NOON, 1, None, None])).status == 200
        assert len(values(node)) == 2
        (found,) = json.loads(send(url, "GET", f"{target()}&q={quote(ALL)}").body)
        answered = dict(zip(found["columns"], found["points"][0], strict=True))
        assert [answered[name] for name in "abcd"] == [None, "new", "old", None]


@pytest.mark.parametrize("engine", get_args(Engine))
def test_a_new_shard_of_any_engine_takes_nulls(engine: Engine, node: Node) -> None:
    with serve(node, engine=engine) as url:
        assert write(url, entry("s", ["a", "b"], [NOON, 1, 1, None], [NOON, 2, 2, 3])).status == 200
        assert write(url, entry("s", ["a"], [NOON, 1, None])).status == 200
    assert values(node) == {("s", "a", NOON, 2): 2, ("s", "b", NOON, 2): 3}


def test_entries_of_one_series_with_other_columns_delete_from_each_other(
    node: Node, url: str
) -> None:
    """common.MergeSeries: in a shard they become one, and what one of them lacks is null in it."""
    both = entry("s", ["a"], [NOON, 1, 1], [NOON, 2, 1]), entry("s", ["b"], [NOON, 1, 2])
    assert write(url, entry("s", ["b"], [NOON, 2, 7])).status == 200
    assert write(url, *both).status == 200
    assert values(node) == {("s", "b", NOON, 1): 2, ("s", "a", NOON, 2): 1}
    for one in both:  # each by itself does no harm
        assert write(url, one).status == 200
    assert values(node) == {
        ("s", "a", NOON, 1): 1,
        ("s", "b", NOON, 1): 2,
        ("s", "a", NOON, 2): 1,
    }


def test_entries_of_one_series_with_other_columns_do_no_harm_in_two_shards(
    node: Node, url: str
) -> None:
    later = NOON + 30 * 86_400_000_000
    rows = entry("s", ["a", "b"], [NOON, 1, 1, 2], [later, 1, 3, 4])
    both = entry("s", ["a"], [NOON, 1, 5]), entry("s", ["b"], [later, 1, 6])
    assert write(url, rows).status == 200
    assert write(url, *both).status == 200
    assert sorted(values(node).values(), key=str) == [2, 3, 5, 6]


def test_entries_of_one_series_with_the_same_columns_are_both_written(node: Node, url: str) -> None:
    one, other = entry("s", ["a"], [NOON, 1, 1]), entry("s", ["a"], [NOON, 2, 2])
    assert write(url, one, other).status == 200
    assert values(node) == {("s", "a", NOON, 1): 1, ("s", "a", NOON, 2): 2}


def test_writing_twice_changes_nothing(node: Node, url: str) -> None:
    one = entry("s", ["a", "b"], [NOON, 1, 1.5, "x"])
    assert write(url, one).status == 200
    before = stored(node), catalogue(node.path)
    assert write(url, one).status == 200
    assert (stored(node), catalogue(node.path)) == before


def test_many_writers_at_once_lose_nothing(node: Node, url: str) -> None:
    def work(number: int) -> None:
        for sequence in range(10):
            assert write(url, entry(f"s{number}", ["v"], [NOON, sequence, number])).status == 200

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(stored(node)) == 40
