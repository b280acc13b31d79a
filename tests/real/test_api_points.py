"""The API of a live cluster, over a real socket: its catalogue and its points."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures import Node
from fixtures.cluster import Catalogue
from fixtures.encode import Value, new_id, parse_field_value, split_value_key
from fixtures.read import values
from fixtures.server import serve
from shardtool.errors import ShardtoolError
from shardtool.influxdb import answers
from shardtool.influxdb import api as api_module
from shardtool.influxdb.answers import Point
from shardtool.influxdb.api import Api
from shardtool.influxdb.query import EARLIEST_US, LATEST_US, CannotAskError, same, select
from tests.needs import CAPTURES, lacking
from tests.real.api_world import EVER, PASSWORD, Serve, many, row

# -- the catalogue --


def test_the_configuration_is_the_one_that_a_real_server_gave(
    capture: Callable[[str], Path],
) -> None:
    exchange = CAPTURES / "http-08" / "43-cluster-configuration-after.txt"
    if not exchange.is_file():
        lacking(str(exchange))
    text = exchange.read_text()
    real = json.loads(text[text.index('{"Databases"') :])
    with serve(capture("migrated-08")) as url, Api(url, "root", "root") as api:
        ours = api.configuration()
    assert isinstance(ours, dict)
    for configuration in (real, ours):
        configuration["Shards"].sort(key=lambda shard: shard["Id"])
    assert ours == real


@pytest.mark.slow
@pytest.mark.parametrize("name", ["migrated-08", "partial-08"])
def test_every_value_of_a_capture_is_found_through_the_api(
    name: str, capture: Callable[[str], Path]
) -> None:
    data = capture(name)
    catalogue = Catalogue.replay((data / "raft" / "log").read_bytes())
    stored: dict[bytes, dict[tuple[int, int], Value | None]] = {}
    for shard in catalogue.real_shards():
        for key, encoded in values(data / "db" / "shard_db_v2" / f"{shard.id:05}"):
            column_id, *identity = split_value_key(key)
            stored.setdefault(column_id, {})[identity[0], identity[1]] = parse_field_value(encoded)
    with serve(data) as url, Api(url, "root", "root") as api:
        for database, several in catalogue.ids.items():
            for series, columns in several.items():
                for column, number in columns.items():
                    expected = stored.pop(new_id(number), {})
                    for time_us, sequence, value in api.points(database, series, column, *EVER):
                        there = expected.pop((time_us, sequence))
                        assert there is not None
                        assert same(value, there)
                    assert expected == {}
    assert stored == {}


def test_the_version_comes_without_the_password_and_is_asked_once(world: Serve) -> None:
    w = world(row())
    assert w.api.version() == "0.8.3"
    w.api.configuration()
    w.api.configuration()
    pings = [request for request in w.faults.seen if request.target == "/ping"]
    assert len(pings) == 1
    assert "Authorization" not in pings[0].headers


# -- times --


def test_the_start_belongs_to_the_range_and_the_end_does_not(world: Serve) -> None:
    times = range(1_400_000_000_000_000, 1_400_000_000_000_006)
    w = world(*(row(time_us, time_us=time_us) for time_us in times))
    found = w.api.points("test", "cpu", "v", times[2], times[4])
    assert sorted(point.time_us for point in found) == [times[2], times[3]]


@pytest.mark.parametrize("time_us", [-315_600_000_000_001, -1, 0, 1, 4_102_444_800_000_001])
def test_any_microsecond_is_found_alone(time_us: int, world: Serve) -> None:
    w = world(*(row(near, time_us=near) for near in range(time_us - 2, time_us + 3)))
    found = list(w.api.points("test", "cpu", "v", time_us, time_us + 1))
    assert found == [Point(time_us, 10001, time_us)]


def test_an_empty_range_asks_nothing(world: Serve) -> None:
    w = world(row())
    assert list(w.api.points("test", "cpu", "v", 5, 5)) == []
    assert list(w.api.points("test", "cpu", "v", 6, 5)) == []
    assert w.faults.seen == []


def test_a_time_that_no_nanosecond_counter_holds_is_left_out(world: Serve) -> None:
    w = world(row())
    assert list(w.api.points("test", "cpu", "v", LATEST_US, 2**63)) == []
    assert list(w.api.points("test", "cpu", "v", -(2**63), EARLIEST_US)) == []
    for start, end in ((LATEST_US - 1, LATEST_US), (EARLIEST_US, EARLIEST_US + 1)):
        bounds = select("cpu", "v", start, end)
        numbers = [int(word.rstrip("u")) * 1000 for word in bounds.split() if word[-2:-1].isdigit()]
        assert all(-(2**63) <= number < 2**63 for number in numbers)


def test_both_bounds_are_always_asked_for_so_that_the_future_is_not_left_out(world: Serve) -> None:
    w = world(row())
    w.found("cpu", "v")
    asked = [request.query for request in w.faults.seen if request.query]
    assert asked
    assert all(" where time > " in query and " and time < " in query for query in asked)


# -- values --


@pytest.mark.parametrize(
    "value",
    [
        *(0, 1, -1, 2**53 + 1, 2**63 - 1, -(2**63)),
        *(0.0, -0.0, 3.0, -3.0, 0.1, 54.412603, 1e-7, 5e-324, 1e6, 123456789.0),
        *(2.0**53, 1e20, 1e21, 1.7976931348623157e308, -1e-9),
        *(True, False),
        *("", "text", "true", "3", "null", "a\0b", "<&>\u2028", 'q"\\/', "\n\t\x1f", "☃\U0001f600"),
    ],
)
def test_a_value_of_any_type_comes_back_the_same(value: Value, world: Serve) -> None:
    (point,) = world(row(value)).found("cpu", "v")
    assert same(point.value, value)


def test_a_sequence_number_beyond_2_53_is_exact(world: Serve) -> None:
    w = world(row(sequence=2**64 - 1), row(sequence=2**53 + 1))
    assert [point.sequence for point in w.found("cpu", "v")] == [2**53 + 1, 2**64 - 1]


def test_a_point_without_the_column_is_left_out(world: Serve) -> None:
    w = world(row(1, column="odd one"), row(2, column="v", time_us=1_400_000_000_000_001))
    assert [point.value for point in w.found("cpu", "odd one")] == [1]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_column_with_a_number_that_json_lacks_cannot_be_asked_for(
    value: float, world: Serve
) -> None:
    w = world(row(value))
    with pytest.raises(CannotAskError, match="NaN"):
        w.found("cpu", "v")


@pytest.mark.parametrize(
    ("found", "stored", "equal"),
    [
        *((3, 3, True), (3, 3.0, True), (3, 4.0, False), (3.0, 3, False), (3.5, 3.5, True)),
        *((2**53 + 1, 2.0**53, False), (2**53 + 1, 2**53 + 1, True), (10**300, 1e300, False)),
        *(
            (0, 0.0, True),
            (0, -0.0, False),
            (-0.0, -0.0, True),
            (-0.0, 0.0, False),
            (-0.0, 0, False),
        ),
        *((1, True, False), (True, 1, False), (True, 1.0, False), (True, True, True)),
        *((False, True, False), ("3", 3, False), (3, "3", False), ("a", "a", True)),
        *((0, False, False), (1.0, True, False), ("e\u0301", "\u00e9", False)),
        *((math.nan, math.nan, True), (0.1, 0.1, True), (1e300, 1e300, True)),
    ],
)
def test_what_counts_as_the_same_value(found: Value, stored: Value, equal: bool) -> None:
    assert same(found, stored) is equal


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_double_is_the_same_as_its_shortest_text(number: float) -> None:
    from fixtures.server import _value

    printed = _value(number)
    read_back = next(answers.documents(f"[[{printed}]]".encode()))[0]
    assert same(read_back, number)
    assert not same(read_back, -number)


# -- long answers --


def test_a_chunked_answer_of_many_documents_is_read_whole(world: Serve) -> None:
    w = world(*many(1000))
    w.faults.batch = 7
    assert [point.value for point in w.found("cpu", "v")] == list(range(1000))
    queries = [request.target for request in w.faults.seen if "q=" in request.target]
    assert all("chunked=true" in target and "time_precision=u" in target for target in queries)


def test_an_answer_that_is_not_chunked_is_read_too(world: Serve) -> None:
    w = world(row(1))
    w.faults.only = "/db"
    w.faults.body = (
        b'[{"name":"cpu","columns":["time","sequence_number","v"],"points":[[5,1,2],[6,1,null]]}]'
    )
    assert list(w.api.points("test", "cpu", "v", 0, 100)) == [Point(5, 1, 2)]


def test_points_beyond_the_range_and_of_other_series_and_columns_are_left_out(
    world: Serve,
) -> None:
    w = world()
    w.faults.only = "/db"
    head = b'"columns":["time","sequence_number","w","v"],"points":[[4,1,0,1],[5,1,0,2],[6,1,0,3]]}'
    w.faults.body = b'{"name":"cpu",' + head + b'{"name":"cpu2",' + head
    assert list(w.api.points("test", "cpu", "v", 5, 6)) == [Point(5, 1, 2)]


def test_a_window_with_too_long_an_answer_is_cut_and_nothing_comes_twice(
    world: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_module, "_ANSWER_BYTES", 2000)
    w = world(*many(1000))
    assert [point.value for point in w.found("cpu", "v")] == list(range(1000))


def test_a_microsecond_with_too_long_an_answer_cannot_be_asked_for(
    world: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_module, "_ANSWER_BYTES", 2000)
    monkeypatch.setattr(api_module, "_SMALLEST_WINDOW_BYTES", 4000)
    w = world(row("x" * 5000))
    with pytest.raises(CannotAskError, match="single microsecond"):
        w.found("cpu", "v")


def test_a_huge_answer_takes_no_huge_memory(world: Serve) -> None:
    w = world()
    w.faults.only, w.faults.huge = "/db", 2 << 30
    script = (
        "import sys\n"
        "from shardtool.influxdb.api import Api\n"
        "from shardtool.influxdb.query import CannotAskError\n"
        "from shardtool.influxdb import api\n"
        "api._SMALLEST_WINDOW_BYTES = 32 << 20\n"
        "with Api(sys.argv[1], 'root', sys.argv[2]) as a:\n"
        "    try:\n"
        "        list(a.points('test', 'huge', 'v', 0, 8))\n"
        "    except CannotAskError:\n"
        # Not ru_maxrss: that begins with what the process that started this one has.
        "        print(*[x.split()[1] for x in open('/proc/self/status') if 'VmHWM' in x])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, w.url, PASSWORD],
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    assert int(done.stdout) < 200 << 10  # KiB


# -- a cluster --


def test_a_new_shard_of_another_server_is_found_through_the_one_that_is_asked(
    tmp_path: Path,
) -> None:
    rows = [
        row(
            number,
            series=name,
            column=column,
            time_us=1_400_000_000_000_000 + week * 604_800_000_000,
        )
        for number, (name, column, week) in enumerate(
            (name, column, week)
            for name in ("cpu", "with space", 'q"\\', "select")
            for column in ("v", "my col")
            for week in range(4)
        )
    ]
    nodes = [
        Node(tmp_path / str(number), version="0.8", databases=["test"], servers=2, server_id=number)
        for number in (1, 2)
    ]
    for node in nodes:
        node.write_new(rows)
    assert nodes[0].elsewhere
    assert nodes[0].new
    with serve(*nodes) as url, Api(url, "root", "root") as api:
        found = [
            (series, column, point)
            for series, column in sorted({(one.series, one.column) for one in rows})
            for point in api.points("test", series, column, *EVER)
        ]
    assert len(found) == len(rows)
    with (
        serve(nodes[0]) as url,
        Api(url, "root", "root", first_wait=0.001) as api,
        pytest.raises(ShardtoolError, match="No servers up to query shard"),
    ):
        list(api.points("test", "cpu", "v", *EVER))
