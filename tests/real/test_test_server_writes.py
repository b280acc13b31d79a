"""The tests' own server takes writes as 0.8.3 does, and refuses what it refuses."""

from __future__ import annotations

import gzip
import http.client
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from fixtures import Node, raft
from fixtures.encode import field_value
from fixtures.server import Faults, serve
from tests.real.exchanges import Answer, exchange, send_again
from tests.real.writes_world import (
    AS_ROOT,
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


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """A node of 0.8 with a database and no spaces of its own."""
    return Node(tmp_path / "data", version="0.8", databases=["test"], spaces=())


@pytest.fixture
def faults() -> Faults:
    """What goes wrong with the node, to be set by the test."""
    return Faults()


@pytest.fixture
def url(node: Node, faults: Faults) -> Iterator[str]:
    """The node, served."""
    with serve(node, faults=faults) as served:
        yield served


# -- captured exchanges ---------------------------------------------------------------------------


def as_0_8(answer: Answer) -> Answer:
    """Return an answer without its version: these are 0.7.3's, and 0.8.3 says the same."""
    headers = {name: text for name, text in answer.headers.items() if name != "x-influxdb-version"}
    return Answer(answer.status, headers, answer.body)


@pytest.mark.parametrize("number", ["04", "05", "08", "10"])
def test_writes_get_the_captured_answers(number: str, url: str) -> None:
    one = exchange("http-07", number)
    assert as_0_8(send_again(url, one)) == as_0_8(one.answer), one.target


def test_the_captured_points_are_on_disk_with_their_types(node: Node, url: str) -> None:
    one = exchange("http-07", "08")
    send_again(url, one)
    (sent,) = json.loads(one.body)
    wanted = {
        (column, point[0] * 1000): field_value(value)
        for point in sent["points"]
        for column, value in zip(sent["columns"][1:], point[1:], strict=True)
        if value is not None
    }
    assert {(column, at): one for (_, column, at, _), one in stored(node).items()} == wanted


def test_a_body_that_is_cut_off_is_400(url: str) -> None:
    one = exchange("http-07", "09")
    assert said(send_again(url, one)) == (400, "unexpected EOF")  # Decode's; 0.7 has Unmarshal's


# -- databases ------------------------------------------------------------------------------------


def test_a_database_is_in_raft_each_time_it_is_asked_for(node: Node, url: str) -> None:
    assert said(post(url, '{"name": "new~one"}', f"/db?{AS_ROOT}")) == (201, "")
    again = post(url, '{"Name": "new~one", "x": 1}', f"/db?{AS_ROOT}")
    assert said(again) == (409, "database new~one exists")
    names = [one.name for one in raft.read_log((node.raft / "log").read_bytes())]
    assert names[-2:] == ["create_db"] * 2  # as in captures/original-07
    assert write(url, entry("s", ["v"], [NOON, 1, 1]), database="new~one").status == 200
    assert stored(node, "new~one") == {("s", "v", NOON, 1): field_value(1)}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("{}", " isn't a valid db name"),
        ('{"name": "50%"}', "50% isn't a valid db name"),
        ("", "EOF"),
        ("[1]", "json: cannot unmarshal array into Go value of type http.createDatabaseRequest"),
        ('{"name": 5}', "json: cannot unmarshal number into Go value of type string"),
    ],
)
def test_a_database_needs_a_name(body: str, text: str, url: str) -> None:
    assert said(post(url, body, f"/db?{AS_ROOT}")) == (400, text)


def test_an_unknown_database_takes_nothing(node: Node, url: str) -> None:
    answer = write(url, entry("s", ["v"], [NOON, 1, 1]), database="nope")
    assert said(answer) == (400, "Database nope doesn't exist")
    assert catalogue(node.path).shards == {}


# -- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (
            '[{"name":"s","columns":["v","v"],"points":[[1,2]]}]',
            "Cannot have duplicate field names",
        ),
        ('[{"name":"s","columns":["v","w"],"points":[[1]]}]', "invalid payload"),
        ('[{"name":"s","columns":["v"],"points":[[1],null]}]', "invalid payload"),
        ('[{"name":"s","columns":["v"],"points":[[{}]]}]', "Unknown type map[string]interface {}"),
        ('[{"name":"s","columns":["v"],"points":[[[1]]]}]', "Unknown type []interface {}"),
        (
            '[{"name":"s","columns":["time","v"],"points":[["12",1]]}]',
            "time field must be float but is string (12)",
        ),
        (
            '[{"name":"s","columns":["sequence_number","v"],"points":[[null,1]]}]',
            "sequence_number field must be float but is <nil> (<nil>)",
        ),
        (
            '[{"name":"s","columns":["time","v"],"points":[[{"a":[true,1]},1]]}]',
            "time field must be float but is map[string]interface {} (map[a:[true 1]])",
        ),
        (
            '[{"name":"s","columns":["v"],"points":[[1e400]]}]',
            'strconv.ParseFloat: parsing "1e400": value out of range',
        ),
        ('[{"name":"","columns":["v"],"points":[[1]]}]', "Series name cannot be empty"),
        (
            '[{"name":"s","columns":["time","v"],"points":[[1e18,1]]}]',
            "json: error calling MarshalJSON for type time.Time: "
            "Time.MarshalJSON: year outside of range [0,9999]",
        ),
        ('[{"name":3}]', "json: cannot unmarshal number into Go value of type string"),
        ('[{"name":"s","columns":["v"],"points":[[NaN]]}]', None),
        ('[{"name":"s","columns":["v"],"points":[[-Infinity]]}]', None),
        ('[{"name":"s","columns":["v"],"points":[[01]]}]', None),
        ('{"name":"s"}', None),
        ("\ufffd", None),
        ("", "EOF"),
    ],
)
def test_a_body_that_0_8_refuses_is_400_and_changes_nothing(
    body: str, text: str | None, node: Node, url: str
) -> None:
    sound = entry("before", ["v"], [NOON, 1, 1])
    whole = body.replace("[{", f"[{json.dumps(sound)},{{", 1)
    answer = post(url, whole)
    assert answer.status == 400
    assert text in (None, answer.body)
    assert stored(node) == {}


def test_points_without_values_fail_when_their_shard_is_written(node: Node, url: str) -> None:
    later = NOON + 30 * 86_400_000_000
    bare = entry("s", [], [later, 1])
    answer = write(url, entry("a", ["v"], [NOON, 1, 1]), entry("b", ["v"], [later, 1, 1]), bare)
    assert said(answer) == (400, "Unable to write points without fields")
    assert values(node) == {("a", "v", NOON, 1): 1}  # that of another shard


def test_an_unknown_precision_is_400(url: str) -> None:
    answer = post(url, "[]", target(precision="ns"))
    assert said(answer) == (400, "Unknown time precision ns")


def test_a_null_for_an_entry_panics_the_request(url: str) -> None:
    assert post(url, "[null]").status == 0
    assert said(post(url, "null")) == (200, "")


def test_writing_needs_a_password(node: Node, url: str) -> None:
    body = json.dumps([entry("s", ["v"], [NOON, 1, 1])])
    assert post(url, body, "/db/test/series").status == 401
    assert post(url, '{"name":"x"}', "/db?u=root&p=wrong").status == 401
    assert (stored(node), catalogue(node.path).databases) == ({}, {"test": None})


def test_0_7_takes_no_writes_here(node: Node) -> None:
    with serve(node, version="0.7") as url:
        assert (post(url, "[]").status, post(url, "{}", f"/db?{AS_ROOT}").status) == (405, 405)


# -- how it comes ---------------------------------------------------------------------------------


def test_a_body_may_be_gzip(node: Node, faults: Faults, url: str) -> None:
    body = json.dumps([entry("s", ["v"], [NOON, 1, 1])]).encode()
    assert said(post(url, gzip.compress(body), Content_Encoding="gzip")) == (200, "")
    assert stored(node) == {("s", "v", NOON, 1): field_value(1)}
    assert (faults.seen[0].content, faults.seen[0].body) != (body, body)
    assert faults.seen[0].content == body


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"[]", "gzip: invalid header"),
        (b"", "EOF"),
        (gzip.compress(b"[]", mtime=0)[:-3], "unexpected EOF"),
    ],
    ids=["no gzip", "nothing", "cut short"],
)
def test_a_body_that_is_no_gzip_is_500(body: bytes, text: str, url: str) -> None:
    assert said(post(url, body, Content_Encoding="gzip")) == (500, text)


def test_a_body_may_come_in_chunks(node: Node, faults: Faults, url: str) -> None:
    body = json.dumps([entry("s", ["v"], [NOON, 1, "x" * 100_000])]).encode()
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    parts = (body[start : start + 30_000] for start in range(0, len(body), 30_000))
    connection.request("POST", target(), parts, encode_chunked=True,
                       headers={"Transfer-Encoding": "chunked"})  # fmt: skip
    assert connection.getresponse().status == 200
    connection.close()
    assert faults.seen[0].body == body
    assert len(stored(node)) == 1


# -- misbehaving ----------------------------------------------------------------------------------


def refuse_nines(database: str, series: str, columns: list[str], point: list[Any]) -> str | None:
    """Refuse each point whose v is 9."""
    wrong = dict(zip(columns, point, strict=True)).get("v") == 9
    return f"no {database}/{series}" if wrong else None


NINE = (entry("a", ["v"], [NOON, 1, 1]), entry("b", ["v"], [NOON, 1, 1], [NOON, 2, 9]),
        entry("c", ["v"], [NOON, 1, 1]))  # fmt: skip


@pytest.mark.parametrize("partial", [True, False])
def test_a_refused_point_ends_the_body_there(
    partial: bool, node: Node, faults: Faults, url: str
) -> None:
    faults.refuse, faults.partial = refuse_nines, partial
    assert said(write(url, *NINE)) == (400, "no test/b")
    assert [series for series, *_ in stored(node)] == (["a"] if partial else [])
    faults.refuse = None
    assert write(url, *NINE).status == 200
    assert len(stored(node)) == 4


def test_what_is_refused_sees_plain_values(faults: Faults, url: str) -> None:
    seen: list[Any] = []
    faults.refuse = lambda *given: seen.append(given)
    write(url, entry("s", ["v", "w"], [NOON, 1, 2.0, None], [NOON, 2, 3, "x"]))
    columns = [*IDENTITY, "v", "w"]
    assert seen == [
        ("test", "s", columns, [NOON, 1, 2.0, None]),
        ("test", "s", columns, [NOON, 2, 3, "x"]),
    ]
    assert [type(one) for one in seen[0][3][:3]] == [int, int, float]


def test_an_answer_may_be_lost_after_the_write(node: Node, faults: Faults, url: str) -> None:
    faults.lost, faults.method = 1, "POST"
    one = entry("s", ["v"], [NOON, 1, 1])
    assert (write(url, one).status, len(stored(node))) == (0, 1)
    assert (write(url, one).status, len(stored(node))) == (200, 1)


def test_an_answer_may_be_late(node: Node, faults: Faults, url: str) -> None:
    faults.late, faults.only = 0.4, "/db/"
    thread = threading.Thread(target=write, args=(url, entry("s", ["v"], [NOON, 1, 1])))
    started = time.monotonic()
    thread.start()
    while not catalogue(node.path).ids or not stored(node):
        assert time.monotonic() < started + 10
    assert thread.is_alive()
    thread.join()
    assert time.monotonic() - started >= 0.4


def test_a_long_body_is_413_and_nothing_of_it_is_written(
    node: Node, faults: Faults, url: str
) -> None:
    one = entry("s", ["v"], [NOON, 1, "x" * 1000])
    faults.limit, faults.text = 1000, "too large"
    assert said(write(url, one)) == (413, "too large")
    assert stored(node) == {}
    faults.limit = 2000
    assert (write(url, one).status, len(stored(node))) == (200, 1)


def test_a_500_is_of_a_write_that_was_not_done(node: Node, faults: Faults, url: str) -> None:
    faults.errors, faults.only = 1, "/db/"
    one = entry("s", ["v"], [NOON, 1, 1])
    assert (write(url, one).status, stored(node)) == (500, {})
    assert (write(url, one).status, len(stored(node))) == (200, 1)
