"""A server that is in the way of a rescue: refuses, fails, is another node's, lets nobody in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fixtures import MARKED_AT, Node
from fixtures.encode import Row
from tests.conftest import Run
from tests.e2e.proof_world import document, events, one_line
from tests.e2e.rescue_world import AT, PASSWORD, lossy, nothing_written, rescue, sent, served

pytestmark = pytest.mark.preloaded

Capture = Callable[[str], Path]


def refused(database: str, series: str, columns: list[str], values: list[Any]) -> str | None:
    """Refuse the values 3 and 7 of the series `a~b`."""
    return "no such luck" if series == "a~b" and {3, 7} & set(values[2:]) else None


@pytest.mark.parametrize("partial", [True, False])
def test_points_that_are_refused_are_found_and_all_the_others_go_through(
    partial: bool, tmp_path: Path, shardtool: Run
) -> None:
    rows = [Row("test", "a~b", column, AT + n, 10_001, n) for n in range(20) for column in "vw"]
    node = Node(tmp_path / "data", version="0.8")
    node.old_shard(1, rows=rows, marked_at=MARKED_AT)
    with served(node, refuse=refused, partial=partial) as (url, _):
        found = rescue(shardtool, node.path, url)
    assert (found["sent"], found["left"], found["missing"]) == (36, {"refused": 4}, 4)
    times = {(one["time_us"] - AT, one["column"], one["text"]) for one in found["not_sent"]}
    assert times == {(n, column, "no such luck") for n in (3, 7) for column in "vw"}


@pytest.mark.slow
@pytest.mark.parametrize("faults", [{"lost": 2}, {"errors": 2}, {"drops": 2}])
def test_what_fails_on_the_way_is_sent_again(
    faults: dict[str, int], tmp_path: Path, shardtool: Run
) -> None:
    node = Node(tmp_path / "data", version="0.8")
    node.old_shard(1, points=50, databases={"test": ("a~b",)}, marked_at=MARKED_AT)
    with served(node, only="/db/", method="POST", **faults) as (url, _):
        found = rescue(shardtool, node.path, url)
    assert (found["sent"], found["missing"]) == (200, 0)


def test_another_nodes_server_gets_nothing(tmp_path: Path, shardtool: Run) -> None:
    node = lossy(tmp_path / "data", [Row("test", "a~b", "v", AT, 10_001, 1)])
    (node.raft / "name").write_text("0123456789abcd")
    other = Node(tmp_path / "other", version="0.8", databases=["test"])
    with served(other) as (url, faults):
        done = shardtool("--data", node.path, "rescue", "--api", url, "--yes", env=PASSWORD)
        assert sent(faults) == []
    assert "expected a server of this node's cluster" in one_line(done, 1)


def test_a_wrong_password_sends_nothing_and_is_not_shown(tmp_path: Path, shardtool: Run) -> None:
    node = lossy(tmp_path / "data", [Row("test", "a~b", "v", AT, 10_001, 1)])
    with served(node) as (url, faults):
        wrong = {"SHARDTOOL_PASSWORD": "sesame-9"}
        done = shardtool("--data", node.path, "rescue", "--api", url, "--yes", env=wrong)
        assert sent(faults) == []
    assert "refused the user" in one_line(done, 1)
    assert "sesame-9" not in done.stderr


def test_without_a_terminal_or_yes_nothing_is_sent(tmp_path: Path, shardtool: Run) -> None:
    node = lossy(tmp_path / "data", [])
    node.write_old(1, [Row("test", "a~b", "v", AT, 10_001, 1)])
    with served(node) as (url, faults):
        done = shardtool("--data", node.path, "rescue", "--api", url, env=PASSWORD)
        assert sent(faults) == []
    assert done.returncode == 2
    assert "say --yes" in done.stderr


def test_a_database_that_can_not_be_made_does_not_stop_the_others(
    tmp_path: Path, shardtool: Run
) -> None:
    node = Node(tmp_path / "data", version="0.8", databases=["test"])
    rows = [Row(database, "cpu", "v", AT, 10_001, 1) for database in ("a%b", "test")]
    node.old_shard(1, rows=rows, marked_at=MARKED_AT)
    node.drop_database("a%b", before_upgrade=True)
    with served(node) as (url, _):
        found = rescue(shardtool, node.path, url, "--create-databases")
    assert (found["sent"], found["left"], found["missing"]) == (1, {"name": 1}, 1)


@pytest.mark.slow
def test_a_server_that_refuses_everything_ends_the_rescue_soon_and_tells_what_it_refused(
    tmp_path: Path, shardtool: Run
) -> None:
    node = Node(tmp_path / "data", version="0.8")
    series = ("a~b", "c~d", "e~f", "g~h")
    node.old_shard(1, points=300, databases={"test": series}, marked_at=MARKED_AT)
    with served(node, refuse=nothing_written, partial=False) as (url, faults):
        words = ("--data", node.path, "rescue", "--api", url, "--yes")
        done = shardtool(*words, "--json", env=PASSWORD)
        assert len(faults.seen) < 3000
    assert done.returncode == 1
    assert "one after the other, values of 3 series, the last time with 'disk full'" in done.stderr
    assert "0 of 1,200 values were sent and stay; run rescue again" in done.stderr
    found = document(done)
    assert (found["sent"], found["missing"]) == (0, 1200)
    assert found["left"]["refused"] == len(found["not_sent"]) >= 600
    assert events(node.path, "rescue-ended")[-1]["how"] == "failed"


@pytest.mark.slow
@pytest.mark.parametrize("status", [503, 500])
def test_a_server_that_fails_ends_the_rescue_and_its_own_words_are_told(
    status: int, tmp_path: Path, shardtool: Run
) -> None:
    node = lossy(tmp_path / "data", [Row("test", "a~b", "v", AT + n, 10_001, n) for n in range(9)])
    fault = {"only": "/db/", "method": "POST", "status": status, "text": "disk full"}
    with served(node, **fault) as (url, faults):
        words = ("--data", node.path, "rescue", "--api", url, "--yes", "-q")
        done = shardtool(*words, env=PASSWORD)
        assert len([request for request in faults.seen if request.method == "POST"]) <= 4
    assert done.returncode == 1
    assert "disk full" in done.stderr
    assert "0 of 9 values were sent and stay" in done.stderr
    assert events(node.path, "rescue-ended")[-1]["how"] == "failed"
