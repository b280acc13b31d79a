"""Reports are read back as they were printed, and whatever else is in a file is one line."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardtool.errors import ShardtoolError
from shardtool.report.model import Accepted, History, Loss, Losses, Made, Node, Plan, Raft, Source
from shardtool.report.reading import instant, merged, read_nodes
from shardtool.report.shape import ShapeError, shaped
from tests.any_json import JSON, change
from tests.report_world import MADE, document, gone, node, report, shard

HOSTILE = "\x1b[31m\u202e<script>\udcff\x00"
FULL = node(
    "db1",
    [shard(1), shard(2, "incomplete", lost=3), shard(3, "marked", range=None)],
    gone=(gone(9),),
    losses=Losses(
        3, 1, {"name": 3}, (Loss("00002", "db", HOSTILE, "c", "name", 100, 3, 0, "2014", "2015"),)
    ),
    accepted=(Accepted("00002", "2026", HOSTILE, 100, 3, 0, True),),
    history=History(({"event": "accepted", "shard": HOSTILE, "any": [1, None, {}]},), 1, 0),
)


def encoded(*nodes: Node) -> bytes:
    """Return a report of nodes as it is printed."""
    return json.dumps(document(report(*nodes))).encode()


def fails(content: bytes, name: str = "x.json") -> str:
    """Return the line that a file is refused with."""
    with pytest.raises(ShardtoolError) as refused:
        read_nodes(content, name)
    line = str(refused.value)
    assert "\n" not in line
    assert line.startswith(f"{name}: expected what shardtool report --json prints, found: ")
    return line


def test_a_report_is_read_back_as_it_was_printed() -> None:
    source, nodes = read_nodes(encoded(FULL), "x.json")
    assert nodes == (FULL,)
    assert (source.name, source.nodes) == ("x.json", 1)


def test_what_was_merged_can_be_merged_again() -> None:
    nodes = (FULL, node("db2", [shard(1)]))
    assert read_nodes(encoded(*nodes), "x")[1] == nodes


def test_several_documents_may_follow_each_other() -> None:
    both = b"\xef\xbb\xbf" + encoded(FULL) + b"\n\n" + encoded(node("db2")) + b"\n"
    source, nodes = read_nodes(both, "-")
    assert [one.made.host for one in nodes] == ["db1", "db2"]
    assert source.nodes == 2


def test_what_a_later_version_adds_is_passed_over() -> None:
    found = document(report(FULL))
    found["nodes"][0]["new_thing"] = found["nodes"][0]["old_shards"][0]["more"] = [1]
    assert read_nodes(json.dumps(found).encode(), "x")[1] == (FULL,)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "an empty file"),
        (b" \n", "an empty file"),
        (b"\xff\xfe\x00", "no text in UTF-8"),
        (b"{", "no JSON at line 1, column 2"),
        (encoded(FULL) + b"rest", "no JSON at line 1"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[1]", "a document that is not shardtool/report/1"),
        (b"1" * 5000, "no JSON that can be read"),
        (b'{"schema": "shardtool/status/1"}', "shardtool/status/1, which does not say of which"),
        (b'{"schema": "shardtool/report/2"}', "shardtool/report/2, and this shardtool knows"),
        (b'{"schema": "shardtool/report/1"}', "nodes: expected a list of nodes"),
        (b'{"schema": "shardtool/report/1", "nodes": [{}]}', "nodes[0]: expected 'data'"),
    ],
)
def test_what_is_no_report_is_one_line_that_says_what_it_is(content: bytes, words: str) -> None:
    assert words in fails(content)


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (("old_shards", 0, "verdict"), "great", "nodes[0].old_shards[0].verdict: expected one of"),
        (("old_shards", 0, "files"), -1, "files: expected a count"),
        (("old_shards", 0, "files"), 1 << 63, "files: expected a count"),
        (("old_shards", 0, "files"), True, "files: expected a whole number, found True"),
        (("old_shards", 0, "files"), 1.0, "files: expected a whole number, found 1.0"),
        (("filesystem",), None, "filesystem: expected an object, found null"),
        (("history", "events", 0), {}, "events[0]: a record of no event"),
        (("history", "events", 0), {"event": 1}, "events[0]: a record of no event"),
        (("losses", "by_cause"), {"name": "x" * 999}, "by_cause['name']: expected a whole number"),
    ],
)
def test_what_is_wrong_in_a_report_is_named_by_its_place(
    place: tuple[Any, ...], value: Any, words: str
) -> None:
    found = document(report(FULL))
    at = found["nodes"][0]
    for key in place[:-1]:
        at = list(at[key]) if isinstance(at[key], tuple) else at[key]
    broken = json.loads(json.dumps(found))
    at = broken["nodes"][0]
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = value
    line = fails(json.dumps(broken).encode())
    assert words in line
    assert len(line) < 300


@given(st.data(), JSON)
def test_whatever_is_changed_in_a_report_it_is_read_or_refused_in_a_line(
    data: st.DataObject, value: Any
) -> None:
    found = json.loads(encoded(FULL))
    change(data, found, value)
    try:
        read_nodes(json.dumps(found).encode(), "x")
    except ShardtoolError as error:
        assert "\n" not in str(error)


@given(JSON)
def test_any_json_is_shaped_or_refused(value: Any) -> None:
    with pytest.raises(ShapeError):
        shaped(Plan, value)


def of_time(at: str, host: str = "db1", **changes: Any) -> Node:
    """Return a node of a host that was looked at then."""
    return replace(node(host, **changes), made=Made("0.1.0", host, at, "shardtool report --json"))


def test_of_two_reports_of_a_node_the_newer_counts_and_that_is_told() -> None:
    old, new = of_time("2026-11-25T00:00:00Z"), of_time("2026-11-26T01:00:00+02:00")
    for order in ([old, new], [new, old]):
        made = merged(MADE, [(Source("x", "", 2), order)])
        assert made.nodes == (new,)
        (line,) = made.replaced
        assert "db1" in line
        assert "2 reports" in line


def test_nodes_of_one_host_and_other_directories_are_other_nodes() -> None:
    one, two = of_time("2026"), of_time("2026", db="/data2/db")
    made = merged(MADE, [(Source("x", "", 1), [two]), (Source("y", "", 1), [one])])
    assert made.nodes == (two, one)  # by host and directory
    assert made.replaced == ()


def test_two_servers_whose_hosts_are_called_alike_are_two_nodes() -> None:
    nodes = [
        of_time("2026-11-26T00:00:00Z", "localhost", raft=Raft(number, "", (1, 2), ""))
        for number in (2, 1)
    ]
    made = merged(MADE, [(Source("x", "", 2), nodes)])
    assert made.nodes == (nodes[1], nodes[0])
    assert made.replaced == ()


TIMES = st.sampled_from(["2026-11-25", "2026-11-26T10:00:00Z", "2027-01-01", "", "never", "\x00"])


@given(st.lists(st.tuples(st.sampled_from("abc"), TIMES), min_size=1, max_size=8))
def test_merging_keeps_one_report_of_each_node_and_none_is_newer(
    found: list[tuple[str, str]],
) -> None:
    nodes = [of_time(at, host) for host, at in found]
    made = merged(MADE, [(Source("x", "", 1), [one]) for one in nodes])
    assert [one.made.host for one in made.nodes] == sorted({host for host, _ in found})
    for kept in made.nodes:
        others = [one for one in nodes if one.key == kept.key]
        assert instant(kept.made.at) == max(instant(one.made.at) for one in others)
    # To merge it again changes nothing.
    again = merged(MADE, [(Source("y", "", 1), made.nodes)])
    assert again.nodes == made.nodes


@given(st.text() | st.none())
def test_any_text_is_a_time_or_none(text: str | None) -> None:
    assert isinstance(instant(text), float)
