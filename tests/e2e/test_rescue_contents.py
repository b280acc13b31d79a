"""`shardtool rescue` where two contents claim one place, or something changes while it asks."""

from __future__ import annotations

import math
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fixtures import MARKED_AT, Node, influxd
from fixtures.encode import Row, microseconds
from fixtures.server import Faults, serve
from tests.conftest import Run
from tests.e2e.proof_world import events, one_line, verify
from tests.e2e.rescue_world import AT, PASSWORD, lossy, rescue, sent, served
from tests.e2e.terminal_world import Terminal

pytestmark = pytest.mark.preloaded


def test_of_two_contents_in_two_shards_the_later_shards_is_sent_and_the_other_listed(
    tmp_path: Path, shardtool: Run
) -> None:
    node = Node(tmp_path / "data", version="0.8")
    for number, values in ((1, (1, 2, 3)), (2, (1, 20))):
        rows = [Row("test", "a~b", "v", AT + n, 10_001, value) for n, value in enumerate(values)]
        node.old_shard(number, rows=rows, marked_at=MARKED_AT)
    with served(node) as (url, faults):
        found = rescue(shardtool, node.path, url)
        went = sorted(value[3:6] for value in sent(faults))
    assert went == [(AT, 10_001, 1), (AT + 1, 10_001, 20), (AT + 2, 10_001, 3)]
    assert (found["sent"], found["left"], found["missing"]) == (3, {"contradicted": 1}, 1)
    assert [(one["time_us"], one["why"]) for one in found["not_sent"]] == [(AT + 1, "contradicted")]
    shards = verify(shardtool, node.path)
    assert {name: shard["different"] for name, shard in shards.items()} == {"00001": 1, "00002": 0}


def test_points_that_lie_in_two_shards_are_sent_as_one(tmp_path: Path, shardtool: Run) -> None:
    node = Node(tmp_path / "data", version="0.8")
    for number, column in ((1, "v"), (2, "w")):
        rows = [Row("test", "a~b", column, AT + n, 10_001, n) for n in range(5)]
        node.old_shard(number, rows=rows, marked_at=MARKED_AT)
    with served(node) as (url, faults):
        found = rescue(shardtool, node.path, url)
        writes = [r for r in faults.seen if r.method == "POST" and "/series" in r.target]
    assert (found["sent"], found["missing"], len(writes)) == (10, 0, 1)


def test_many_series_go_in_few_requests(tmp_path: Path, shardtool: Run) -> None:
    series = [f"a~{number}" for number in range(300)]
    node = lossy(tmp_path / "data", [Row("test", name, "v", AT, 10_001, 1) for name in series])
    with served(node) as (url, faults):
        found = rescue(shardtool, node.path, url)
        writes = [r for r in faults.seen if r.method == "POST" and "/series" in r.target]
        assert {value[1] for value in sent(faults)} == set(series)
    assert (found["sent"], found["missing"]) == (300, 0)
    assert len(writes) == 1


def test_another_content_where_08_does_not_look_is_not_written_over(
    tmp_path: Path, shardtool: Run
) -> None:
    node = Node(tmp_path / "data", version="0.8")
    node.old_shard(1, rows=[Row("test", "cpu", "v", AT + n, 10_001, n) for n in range(5)])
    node.migrate(1, change=2)
    more = {"retentionPolicy": "inf", "shardDuration": "7d", "replicationFactor": 1, "split": 1}
    space = {"name": "hot", "database": "test", "regex": "/^cpu$/", **more}
    node.raft_command("add_shard_space", {"ShardSpace": space})
    with served(node) as (url, faults):
        found = rescue(shardtool, node.path, url)
        assert len(sent(faults)) == 3
    assert (found["sent"], found["left"]) == (3, {"different": 2})


# -- while the question stands --


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """A node that lost three values."""
    rows = [Row("test", "a~b", "v", AT + n, 10_001, n) for n in range(3)]
    return lossy(tmp_path / "data", rows)


def asked(node: Node, url: str) -> Terminal:
    """Return a terminal in which rescue has shown its plan, and asks."""
    words = ("--data", str(node.path), "rescue", "--api", url)
    terminal = Terminal(*words, **PASSWORD)
    terminal.wait_for("Type yes to go on")
    return terminal


@pytest.mark.slow
def test_what_has_come_over_while_the_question_stood_is_not_sent_again(
    node: Node, shardtool: Run
) -> None:
    with served(node) as (url, faults):
        terminal = asked(node, url)
        assert rescue(shardtool, node.path, url)["sent"] == 3
        faults.seen.clear()
        terminal.type("yes\n")
        assert terminal.end() == 0
        assert sent(faults) == []
    assert "0 values sent; of 1 shard 0 values are not in the new storage" in terminal.shown
    assert len(events(node.path, "rescue-started")) == 1


def test_what_was_lost_while_the_question_stood_is_shown_before_it_is_sent(node: Node) -> None:
    with served(node) as (url, faults):
        terminal = asked(node, url)
        node.write_old(1, [Row("test", "a~b", "v", AT + 9, 10_001, 9)])
        terminal.type("yes\n")
        assert terminal.end() == 1
        assert sent(faults) == []
    assert "other values are lost now than were shown" in terminal.shown.replace("\r\n", " ")


# -- another directory, another shard, another series --


@pytest.mark.slow
def test_a_copy_of_the_directory_that_the_server_runs_on_is_refused(
    node: Node, tmp_path: Path, shardtool: Run
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(node.path, copy, symlinks=True)
    with influxd.started(node.path) as server:
        words = ("--data", copy, "rescue", "--api", server.url, "--yes")
        line = one_line(shardtool(*words, env=PASSWORD), 1)
        assert f"found one that has {node.path}/raft/log open" in line
        assert rescue(shardtool, node.path, server.url)["sent"] == 3


@pytest.mark.slow
def test_a_named_shard_does_not_keep_out_what_a_later_one_has(
    tmp_path: Path, shardtool: Run
) -> None:
    node = Node(tmp_path / "data", version="0.8")
    for number in (1, 2):
        rows = [Row("test", "a~b", "v", AT + n, 10_001, n * number) for n in range(3)]
        node.old_shard(number, rows=rows, marked_at=MARKED_AT)
    with served(node) as (url, _):
        first = rescue(shardtool, node.path, url, "1")
        assert (first["sent"], first["left"], first["missing"]) == (1, {"contradicted": 2}, 2)
        second = rescue(shardtool, node.path, url)
    assert (second["sent"], second["left"]) == (2, {"contradicted": 2})
    assert [shard["missing"] for shard in verify(shardtool, node.path).values()] == [0, 0]


def test_what_was_dropped_long_ago_is_not_brought_back(tmp_path: Path, shardtool: Run) -> None:
    node = Node(tmp_path / "data", version="0.8")
    rows = [Row("test", series, "v", AT + n, 10_001, n) for series in "ab" for n in range(3)]
    node.old_shard(1, rows=rows)
    node.migrate(1)
    node.drop_series("test", "a")
    for _ in range(250):
        node.raft_command("nop")
    served_copy = tmp_path / "served"
    shutil.copytree(node.path, served_copy, symlinks=True)  # the test server reads no snapshot
    node.compact_raft()
    with served(served_copy) as (url, faults):
        found = rescue(shardtool, node.path, url)
        assert (found["sent"], found["left"], sent(faults)) == (0, {"dropped": 3}, [])
        assert rescue(shardtool, node.path, url, "--also", "dropped", "--dry-run")["to_send"] == [
            {"database": "test", "series": "a", "values": 3}
        ]


def test_values_of_a_database_that_is_gone_do_not_go_into_another(
    tmp_path: Path, shardtool: Run
) -> None:
    node = Node(tmp_path / "data", version="0.8", databases=["od", "od~d"])
    node.old_shard(1, rows=[Row("od~d", "cpu", "v", AT, 10_001, 1)])
    node.drop_database("od~d")
    node.mark(1)
    with served(node) as (url, faults):
        found = rescue(shardtool, node.path, url)
        assert (found["left"], sent(faults)) == ({"ambiguous": 1}, [])


# -- a cluster --

WEEK = 7 * 86_400_000_000
BEYOND = microseconds(datetime(2300, 1, 1, tzinfo=UTC))  # what no query can ask for


@pytest.mark.parametrize(
    ("at", "beside"), [(AT - 400 * WEEK, math.nan), (BEYOND, 1.5)], ids=["a NaN", "beyond 2262"]
)
def test_what_another_server_has_and_cant_be_asked_for_is_not_written_over(
    at: int, beside: float, tmp_path: Path, shardtool: Run
) -> None:
    nodes = [
        Node(tmp_path / str(number), version="0.8", servers=2, server_id=number)
        for number in (1, 2)
    ]
    for node in nodes:
        node.old_shard(2, rows=[Row("test", "cpu", "v", at + WEEK, 10_001, 1)])
        node.mark(2)
        newer = [Row("test", "cpu", "v", at + week * WEEK, 10_001, 42) for week in range(2)]
        node.write_new([*newer, Row("test", "cpu", "v", at + WEEK + 1, 20_001, beside)])
    assert [shard.servers for shard in nodes[0].elsewhere.values()] == [(2,)]
    faults = Faults()
    with serve(*nodes, faults=faults) as url:
        found = rescue(shardtool, nodes[0].path, url)
    assert (found["left"], sent(faults)) == ({"unanswered": 1}, [])
