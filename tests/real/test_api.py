"""The API of a live cluster, over a real socket: what is asked, what comes back, what goes wrong.

The server (fixtures/server.py) parses queries as strictly as 0.8.3, and passes them on without
quotes, so a name that is written wrongly finds nothing here either.
"""

from __future__ import annotations

import base64
import io
import json
import logging
import math
import os
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures import Node, Row
from fixtures.cluster import Catalogue
from fixtures.encode import Value, new_id, parse_field_value, split_value_key
from fixtures.query import QuerySyntaxError, parse
from fixtures.read import values
from fixtures.server import Faults, serve
from shardtool.errors import ShardtoolError, UsageError
from shardtool.influxdb import api as api_module
from shardtool.influxdb.api import Api, CannotAskError, Point, base_url, credentials
from shardtool.influxdb.query import EARLIEST_US, LATEST_US, same, select
from tests.needs import CAPTURES, lacking

PASSWORD = "corr\u00e9ct-h0rse"
EVER = (-(2**63), 2**63)
ODD_NAMES = [
    "with space",
    " lead space",
    'say "hi"',
    '"quoted"',
    "back\\slash",
    '\\"',
    "ends in \\",
    "single'quote",
    "new\nline",
    "tab\t",
    "nul\0byte",
    "tilde~a~b",
    "~",
    "select",
    "Select",
    "FROM",
    "true",
    "time",
    "sequence_number",
    "and",
    "9digits",
    "9d",
    "123",
    "-",
    "a.b.c-d",
    ".dot",
    "/slash/",
    "/i",
    "semi;colon, comma",
    "*",
    ".*",
    "^a$",
    "a|b",
    "[x]",
    "{1}",
    "%41",
    "a+b&c=d",
    "#",
    "",
    "ünïcöde ☃ \U0001f600",
    "e\u0301",
    "\u2028",
    "plain_Name1",
]


@dataclass
class World:
    """A node with rows, served; `api` asks it."""

    api: Api
    faults: Faults
    url: str
    node: Node

    def found(self, series: str, column: str, database: str = "test") -> list[Point]:
        """Return all points of a column, by time and sequence."""
        return sorted(self.api.points(database, series, column, *EVER))


Serve = Callable[..., World]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Serve]:
    """Serve rows of new shards; keywords go to the client."""
    with ExitStack() as stack:

        def make(*rows: Row, database: str = "test", **options: float) -> World:
            node = Node(tmp_path / "data", version="0.8", databases=[database])
            if rows:
                node.write_new(rows)
            faults = Faults()
            url = stack.enter_context(serve(node, password=PASSWORD, faults=faults))
            settings = {"first_wait": 0.001, **options}
            api = stack.enter_context(Api(url, "root", PASSWORD, **settings))
            return World(api, faults, url, node)

        yield make


def row(
    value: Value = 1,
    *,
    series: str = "cpu",
    column: str = "v",
    time_us: int = 1_400_000_000_000_000,
    sequence: int = 10001,
    database: str = "test",
) -> Row:
    """Return a row of which a test says only what it is about."""
    return Row(database, series, column, time_us, sequence, value)


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


# -- names --


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_series_of_any_name_is_found(name: str, world: Serve) -> None:
    w = world(row(1, series=name), row(2, series=name + "x"), row(3, series="x" + name))
    assert [point.value for point in w.found(name, "v")] == [1]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_column_of_any_name_is_found(name: str, world: Serve) -> None:
    w = world(row(1, column=name), row(2, column=name + "x"), row(3, column="x" + name))
    assert [point.value for point in w.found("cpu", name)] == [1]


def test_a_dotted_column_is_not_taken_for_a_column_of_a_series(world: Serve) -> None:
    w = world(row(1, series="cpu", column="cpu.v"), row(2, series="cpu", column="v"))
    assert [point.value for point in w.found("cpu", "cpu.v")] == [1]


@pytest.mark.parametrize(
    "name", ["with space", "ünïcöde ☃", "..", ".", "a?b#c", "%2F", "a&b=c;d", "~", "x\\y", '"']
)
def test_a_database_of_any_name_is_found(name: str, world: Serve) -> None:
    w = world(row(database=name), database=name)
    assert len(w.found("cpu", "v", database=name)) == 1


@pytest.mark.parametrize("name", ["", "a/b", "/", "\udcff"])
def test_a_database_that_no_path_can_name_cannot_be_asked_for(name: str, world: Serve) -> None:
    with pytest.raises(CannotAskError):
        world().found("cpu", "v", database=name)


@pytest.mark.parametrize("names", [("\udcff", "v"), ("cpu", "\udcff"), ("x" * 70_000, "v")])
def test_a_name_that_is_no_text_or_too_long_cannot_be_asked_for(
    names: tuple[str, str], world: Serve
) -> None:
    with pytest.raises(CannotAskError):
        world(row()).found(*names)


@given(name=st.text(), column=st.text(), start=st.integers(EARLIEST_US, LATEST_US))
def test_a_query_means_the_same_after_it_was_parsed_and_passed_on(
    name: str, column: str, start: int
) -> None:
    asked = parse(select(name, column, start, start + 1))
    for query in (asked, parse(asked.passed_on())):
        assert query.matches(name)
        assert not query.matches(name + "x")
        assert not query.matches("x" + name)
        assert query.names_column(name) in (column, None)
        assert query.start_us < start
        assert query.end_us > start


@given(name=st.text(alphabet='ab"\\/ .~*\n\0☃'), column=st.text(alphabet='ab"\\. *\n\0'))
def test_names_of_awkward_characters_survive_too(name: str, column: str) -> None:
    asked = parse(parse(select(name, column, 0, 1)).passed_on())
    assert asked.matches(name)
    assert asked.names_column(name) in (column, None)


@pytest.mark.parametrize(
    "query",
    [
        "selectt * from a",
        "select * from a b where time > 1u and time < 2u",
        'select v from "a where time > 1u and time < 2u',
        "select v from with space where time > 1u and time < 2u",
        "select v from a-b where time > 1u and time < 2u",
        "select v from select where time > 1u and time < 2u",
        "select v from 9d where time > 1u and time < 2u",
        "select v from a\nwhere time > 1u and time < 2u",
        "select v from a where time > 1u",
        "select v from /a/i where time > 1u and time < 2u",
        "select v from /a where time > 1u and time < 2u",
    ],
)
def test_the_server_refuses_what_the_real_one_would_not_understand(query: str) -> None:
    with pytest.raises(QuerySyntaxError, match="syntax error, unexpected"):
        parse(query)


def test_the_server_words_a_syntax_error_as_the_real_one() -> None:
    with pytest.raises(QuerySyntaxError) as error:
        parse("selectt * from a")
    expected = "syntax error, unexpected SIMPLE_NAME\nselectt * from a\n^^^^^^^"
    assert str(error.value) == expected


def test_a_quoted_name_with_a_backslash_is_misread_as_the_real_server_misreads_it() -> None:
    asked = parse(r'select v from "back\slash" where time > 1u and time < 2u')
    assert asked.series == "backslash"


def test_a_series_or_column_or_database_that_is_not_there_has_no_points(world: Serve) -> None:
    w = world(row())
    assert w.found("nope", "v") == w.found("cpu", "nope") == []
    assert w.found("no pe", "v") == w.found("cpu", "no pe") == []
    assert w.found("cpu", "v", database="nope") == []


@pytest.mark.parametrize(
    "text",
    [
        "Couldn't look up columns",
        "Couldn't look up columns for series: cpu",
        "Couldn't find series: cpu",
        "Field v doesn't exist in series cpu",
        "Field a\nb doesn't exist in series cpu",
    ],
)
def test_what_any_08_says_to_an_unknown_name_means_no_points(text: str, world: Serve) -> None:
    w = world(row())
    w.faults.only, w.faults.status, w.faults.text = "/db", 400, text
    assert w.found("cpu", "v") == []


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
    read_back = next(api_module._documents(f"[[{printed}]]".encode()))[0]
    assert same(read_back, number)
    assert not same(read_back, -number)


# -- long answers --


def many(count: int) -> list[Row]:
    """Return rows one second apart."""
    return [row(n, time_us=1_400_000_000_000_000 + n * 1_000_000) for n in range(count)]


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
        "from shardtool.influxdb.api import Api, CannotAskError\n"
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


# -- what goes wrong on the way --


@pytest.mark.parametrize("fault", ["errors", "drops", "cuts"])
def test_what_fails_three_times_is_tried_a_fourth(fault: str, world: Serve) -> None:
    w = world(*many(300))
    setattr(w.faults, fault, 3)
    assert len(w.found("cpu", "v")) == 300


@pytest.mark.parametrize("fault", ["errors", "drops", "cuts"])
def test_what_fails_for_good_is_one_line_that_says_what(fault: str, world: Serve) -> None:
    w = world(*many(300))
    w.faults.only = "/db"
    setattr(w.faults, fault, 4)
    with pytest.raises(ShardtoolError) as error:
        w.found("cpu", "v")
    message = str(error.value)
    assert w.url in message
    assert "expected an answer, found: " in message
    assert "\n" not in message
    assert getattr(w.faults, fault) == 0


def test_nothing_comes_twice_where_an_answer_was_cut_and_asked_for_again(world: Serve) -> None:
    w = world(*many(300))
    w.faults.only, w.faults.cuts = "/db", 2
    assert [point.value for point in w.found("cpu", "v")] == list(range(300))


def test_a_server_that_hangs_is_given_up_once(world: Serve) -> None:
    w = world(row(), read_timeout=0.2)
    w.api.version()
    w.faults.hang = 30
    began = time.monotonic()
    with pytest.raises(ShardtoolError, match=r"nothing for 0\.2 seconds"):
        w.found("cpu", "v")
    assert time.monotonic() - began < 2


def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with (
            Api(url, "root", PASSWORD, first_wait=0.001) as api,
            pytest.raises(ShardtoolError, match=f"{url}/ping: expected an answer, found: "),
        ):
            api.configuration()


def test_a_host_without_an_address_is_an_error_of_one_line() -> None:
    with (
        Api("http://no-such-host.invalid:8086", "root", PASSWORD, first_wait=0.001) as api,
        pytest.raises(ShardtoolError, match="no-such-host") as error,
    ):
        api.configuration()
    assert "\n" not in str(error.value)


def test_waits_between_attempts_grow_and_end(monkeypatch: pytest.MonkeyPatch, world: Serve) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    w = world(row(), first_wait=2.0)
    w.faults.errors = 3
    w.api.version()
    assert waits == [2.0, 4.0, 5.0]


@pytest.mark.parametrize(
    ("version", "found"),
    [
        ("InfluxDB v0.7.3 (git: x)", "InfluxDB 0.7.3"),
        ("InfluxDB v0.9.0", "0.9.0"),
        ("", "no InfluxDB"),
    ],
)
def test_another_version_and_another_server_are_refused_before_the_password_is_sent(
    version: str, found: str, world: Serve
) -> None:
    w = world(row())
    w.faults.version = version
    with pytest.raises(ShardtoolError, match=f"expected an InfluxDB 0.8, found .*{found}"):
        w.api.configuration()
    assert all("Authorization" not in request.headers for request in w.faults.seen)


def test_https_to_a_server_that_speaks_http_is_an_error_of_one_line(world: Serve) -> None:
    url = world(row()).url.replace("http:", "https:")
    with (
        Api(url, "root", PASSWORD, first_wait=0.001) as api,
        pytest.raises(ShardtoolError, match="SSL") as error,
    ):
        api.version()
    assert "\n" not in str(error.value)


def test_a_redirect_to_another_host_is_not_followed(world: Serve) -> None:
    w = world(row())
    elsewhere = Faults()
    with serve(w.node, faults=elsewhere) as other:
        w.faults.only, w.faults.location = "/cluster", other + "/cluster/configuration"
        with pytest.raises(ShardtoolError, match="status 302"):
            w.api.configuration()
    assert elsewhere.seen == []


@pytest.mark.parametrize(
    "body",
    [
        b"nonsense",
        b"\xff\xfe",
        b"{",
        b'{"name":"cpu","columns":["time","sequence_number","v"],"points":[[1,1',
        b"[" * 100_000,
        b"9" * 5000,
        b"[NaN]",
        b"[null]",
        b"[1]",
        b'[{"name":"cpu"}]',
        b'{"name":"cpu","columns":["time","sequence_number","v"],"points":[[1,1]]}',
        b'{"name":"cpu","columns":["time","sequence_number","v"],"points":[["1",1,2]]}',
        b'{"name":"cpu","columns":["time","sequence_number","v"],"points":[[1,1,{}]]}',
        b'{"name":"cpu","columns":["time","sequence_number","v"],"points":[[1,1,1e999]]}',
        b'{"name":"cpu","columns":["time","v"],"points":[[1,1]]}',
        b'{"name":"cpu","columns":5,"points":[[1,1]]}',
    ],
)
def test_nonsense_is_an_error_and_never_no_points(body: bytes, world: Serve) -> None:
    w = world(row())
    w.faults.only, w.faults.body = "/db", body
    with pytest.raises(ShardtoolError, match="expected the JSON") as error:
        w.found("cpu", "v")
    message = str(error.value)
    assert message.isprintable()
    assert len(message) < 400


def test_an_error_that_follows_the_first_points_is_an_error(world: Serve) -> None:
    w = world(row())
    w.faults.late_text = "No servers up to query shard 7"
    with pytest.raises(ShardtoolError, match="No servers up to query shard 7"):
        w.found("cpu", "v")


@pytest.mark.parametrize("body", [b"", b"{}{}", b"nonsense", b"[1,2"])
def test_a_configuration_that_is_no_document_is_an_error(body: bytes, world: Serve) -> None:
    w = world()
    w.faults.only, w.faults.body = "/cluster", body
    with pytest.raises(ShardtoolError, match="expected the JSON"):
        w.api.configuration()


def test_a_configuration_without_end_is_an_error(
    world: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_module, "_CONFIGURATION_BYTES", 1 << 20)
    w = world()
    w.faults.only, w.faults.huge = "/cluster", 1 << 30
    with pytest.raises(ShardtoolError, match="more than 1048576 bytes"):
        w.api.configuration()


def test_what_a_server_says_reaches_no_terminal_unescaped(world: Serve) -> None:
    w = world(row())
    w.faults.only, w.faults.status, w.faults.text = "/db", 400, "\x1b[2J\nboom \u202e" + "x" * 999
    with pytest.raises(ShardtoolError, match="boom") as error:
        w.found("cpu", "v")
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 400


# -- who asks --


def test_a_wrong_password_is_refused_by_the_name_of_the_user(world: Serve) -> None:
    w = world(row())
    with Api(w.url, "paul", "wrong") as api, pytest.raises(ShardtoolError) as error:
        api.configuration()
    assert "refused the user 'paul'" in str(error.value)
    assert "SHARDTOOL_PASSWORD" in str(error.value)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_is_final(status: int, world: Serve) -> None:
    w = world(row())
    w.faults.only, w.faults.status = "/db", status
    with pytest.raises(ShardtoolError, match="refused the user 'root'"):
        w.found("cpu", "v")
    assert sum(request.target.startswith("/db") for request in w.faults.seen) == 1


def test_the_password_goes_in_a_header_and_nowhere_else(world: Serve) -> None:
    w = world(row())
    w.found("cpu", "v")
    w.api.configuration()
    sent = base64.b64encode(f"root:{PASSWORD}".encode()).decode()
    asked = [request for request in w.faults.seen if request.target != "/ping"]
    assert {request.headers["Authorization"] for request in asked} == {f"Basic {sent}"}
    assert all("u=root" not in one.target and "horse" not in one.target for one in asked)


@dataclass
class Leaks:
    """Looks for the password in whatever comes out."""

    spellings: tuple[str, ...] = field(
        default=(PASSWORD, "h0rse", base64.b64encode(f"root:{PASSWORD}".encode()).decode())
    )

    def check(self, text: str) -> None:
        assert not any(spelling in text for spelling in self.spellings), text

    def check_error(self, error: BaseException) -> None:
        """Check an error, all that it stands for, and the traceback as Python prints it."""
        self.check("".join(traceback.format_exception(error)))
        seen: list[BaseException] = []
        waiting: list[BaseException | None] = [error]
        while waiting:
            one = waiting.pop()
            if one is not None and one not in seen:
                seen.append(one)
                self.check(f"{one!r} {one} {one.args!r} {getattr(one, '__notes__', '')}")
                request = getattr(one, "_request", None)
                assert request is None, "an error of httpx holds the request, header and all"
                waiting += [one.__cause__, one.__context__]


@pytest.mark.parametrize(
    "fault",
    [
        {"unauthorized": True},
        {"errors": 9, "text": f"you sent {PASSWORD}"},
        {"drops": 9},
        {"cuts": 9},
        {"hang": 5.0},
        {"status": 400, "text": f"bad: {base64.b64encode(f'root:{PASSWORD}'.encode()).decode()}"},
        {"body": f"nonsense {PASSWORD}".encode()},
        {"body": json.dumps({"name": "cpu", "columns": [PASSWORD], "points": [1]}).encode()},
        {"location": f"http://x/{PASSWORD}"},
        {"version": f"InfluxDB v{PASSWORD}", "only": "/nothing"},
    ],
)
def test_the_password_is_in_no_message_no_log_and_no_error_that_led_to_one(
    fault: dict[str, object], world: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    leaks = Leaks()
    w = world(*many(10), read_timeout=0.2)
    for name, value in {"only": "/db", **fault}.items():
        setattr(w.faults, name, value)
    with pytest.raises(ShardtoolError) as error:
        w.found("cpu", "v")
    leaks.check_error(error.value)
    leaks.check(repr(w.api) + str(w.api))
    # What a server says in its headers, httpcore logs by itself, at a level that is never on.
    logged = (record for record in caplog.records if "receive_" not in record.getMessage())
    leaks.check("".join(record.getMessage() for record in logged))


# -- where the password comes from --


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no terminal on stdin."""
    monkeypatch.setattr(sys, "stdin", io.StringIO())


def test_the_password_is_taken_from_the_environment(no_terminal: None) -> None:
    assert credentials(None, {"SHARDTOOL_PASSWORD": "a b"}) == ("root", "a b")
    user, password = credentials("paul", {"SHARDTOOL_PASSWORD": "x"})
    assert (user, password) == ("paul", "x")


def test_the_password_is_taken_from_a_file_without_its_newline(
    tmp_path: Path, no_terminal: None
) -> None:
    file = tmp_path / "password"
    for content in (b" s\xc3\xa9cret ", b" s\xc3\xa9cret \n", b" s\xc3\xa9cret \r\n"):
        file.write_bytes(content)
        assert credentials(None, {"SHARDTOOL_PASSWORD_FILE": str(file)}).password == " sécret "


@pytest.mark.parametrize("content", [b"", b"\n", b"h0rse\nh0rse", b"h0rse\xff", b"h0rse" * 4096])
def test_a_file_that_holds_no_password_is_refused_and_not_shown(
    content: bytes, tmp_path: Path, no_terminal: None
) -> None:
    file = tmp_path / "password"
    file.write_bytes(content)
    with pytest.raises(UsageError, match=str(file)) as error:
        credentials(None, {"SHARDTOOL_PASSWORD_FILE": str(file)})
    assert "h0rse" not in "".join(traceback.format_exception(error.value))


def test_a_file_that_cannot_be_read_is_named_with_the_reason(
    tmp_path: Path, no_terminal: None
) -> None:
    for path, reason in ((tmp_path / "none", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(UsageError, match=f"{path}: .*{reason}"):
            credentials(None, {"SHARDTOOL_PASSWORD_FILE": str(path)})


def test_without_a_password_and_a_terminal_the_error_says_how_to_give_one(
    no_terminal: None,
) -> None:
    with pytest.raises(UsageError, match="SHARDTOOL_PASSWORD, or SHARDTOOL_PASSWORD_FILE"):
        credentials(None, {"SHARDTOOL_PASSWORD": ""})


def test_on_a_terminal_the_password_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    prompts: list[str] = []
    monkeypatch.setattr(sys, "stdin", _Terminal())

    def typed(prompt: str) -> str:
        prompts.append(prompt)
        return "typed"

    monkeypatch.setattr("getpass.getpass", typed)
    assert credentials("paul", {}) == ("paul", "typed")
    assert prompts == ["Password of the InfluxDB user paul: "]


def test_a_terminal_that_ends_is_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    def ends(prompt: str) -> str:
        raise EOFError

    monkeypatch.setattr(sys, "stdin", _Terminal())
    monkeypatch.setattr("getpass.getpass", ends)
    with pytest.raises(UsageError, match="no password"):
        credentials(None, {})


@pytest.mark.parametrize(("user", "password"), [("root", "a:h0rse"), ("a:b", "x")])
def test_a_colon_is_refused_because_the_server_could_not_read_it(user: str, password: str) -> None:
    with pytest.raises(UsageError, match="colon") as error:
        credentials(user, {"SHARDTOOL_PASSWORD": password})
    assert "h0rse" not in str(error.value)


def test_credentials_print_without_the_password() -> None:
    found = credentials("paul", {"SHARDTOOL_PASSWORD": PASSWORD})
    Leaks().check(f"{found!r} {found}")
    assert "paul" in repr(found)


# -- the URL --


@pytest.mark.parametrize(
    ("text", "base"),
    [
        ("http://db1:8086", "http://db1:8086"),
        ("http://db1:8086/", "http://db1:8086"),
        ("https://db1", "https://db1"),
        ("http://[::1]:8086", "http://[::1]:8086"),
        ("https://proxy/influx/", "https://proxy/influx"),
    ],
)
def test_a_base_url_is_taken_without_its_last_slash(text: str, base: str) -> None:
    assert base_url(text) == base


@pytest.mark.parametrize(
    "text",
    [
        *("", "db1:8086", "db1", "ftp://db1", "http://", "http:///x", "http://db1:port"),
        *("http://db1:99999", "http://db1:0", "http://[::1", "http://db 1", "http://db1\n"),
        *("http://root:h0rse@db1:8086", "root:h0rse@db1:8086", "http://root@db1"),
        *("http://db1/?u=root&p=h0rse", "http://db1/#h0rse", "http://db1\\x", "file:///etc"),
    ],
)
def test_what_is_no_base_url_is_refused_and_a_password_in_it_not_shown(text: str) -> None:
    with pytest.raises(UsageError, match="http://HOST:PORT") as error:
        Api(text, "root", "x")
    assert "h0rse" not in "".join(str(one) for one in (error.value, error.value.__context__))


def test_no_proxy_and_no_netrc_of_the_environment_is_used(
    world: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login eve password evil\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    assert len(world(row()).found("cpu", "v")) == 1


def test_httpx_is_imported_only_when_the_api_is_used() -> None:
    script = "import sys, shardtool.influxdb.api; sys.exit('httpx' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)
