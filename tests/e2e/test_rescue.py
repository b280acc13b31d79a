"""`shardtool rescue` from outside: exactly what was lost is sent, and arrives as what it was."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fixtures import MARKED_AT, Node
from fixtures.encode import Row
from tests.conftest import COMMAND, REPOSITORY, Listing, Run
from tests.e2e.proof_world import document, events, expected, not_ours, verdicts, verify
from tests.e2e.rescue_world import AT, LATER, PASSWORD, lossy, nothing_written, rescue, sent, served
from tests.faults.injection import injected

Capture = Callable[[str], Path]


# -- the capture --


@pytest.mark.slow
def test_migrated_08_gets_its_440_values_and_no_other_and_all_of_it_is_proven(
    shardtool: Run, capture: Capture
) -> None:
    data = capture("migrated-08")
    with served(data) as (url, faults):
        found = rescue(shardtool, data, url)
        values = sent(faults)
    assert (found["sent"], found["left"], found["missing"]) == (440, {}, 0)
    assert len(values) == len({value[:5] for value in values}) == 440
    missing: Counter[str] = Counter()
    for shard in expected("migrated-08").values():
        for column, count in shard["missing_by_column"].items():
            missing[column] += count
    assert Counter("~".join(value[:3]) for value in values) == missing
    assert set(verdicts(verify(shardtool, data)).values()) == {"proven"}
    done = shardtool("--data", data, "prune", "--yes")
    assert "deleted 27 shards" in done.stdout
    assert done.returncode == 0


@pytest.mark.slow
def test_a_second_rescue_sends_nothing(shardtool: Run, capture: Capture) -> None:
    data = capture("migrated-08")
    with served(data) as (url, faults):
        rescue(shardtool, data, url)
        faults.seen.clear()
        again = rescue(shardtool, data, url)
        assert sent(faults) == []
    assert (again["sent"], again["missing"]) == (0, 0)


@pytest.mark.slow
def test_a_dry_run_sends_nothing_and_shows_what_the_real_run_sends(
    shardtool: Run, capture: Capture, listing: Callable[[Path], Listing]
) -> None:
    data = capture("migrated-08")
    before = not_ours(listing(data))
    with served(data) as (url, faults):
        shown = rescue(shardtool, data, url, "--dry-run")
        assert sent(faults) == []
        assert not_ours(listing(data)) == before
        done = rescue(shardtool, data, url)
    assert shown["to_send"] == done["to_send"]
    assert sum(one["values"] for one in shown["to_send"]) == 440
    assert (shown["dry_run"], shown["sent"], shown["missing"]) == (True, 0, 440)


# -- values --

VALUES: list[Any] = [
    *(0, 3, -1, (1 << 53) + 1, (1 << 63) - 1, -(1 << 63)),
    *(0.0, -0.0, 3.0, 1e22, 5e-324, 0.1, -1.5e300),
    *("", "x", 'quoted "\\ \n \x00 \x1b', "é 😀 \u2028", True, False),
]


def test_every_type_arrives_as_the_type_it_was(tmp_path: Path, shardtool: Run) -> None:
    rows = [Row("test", "all~types", "v", AT + n, 10_001, value) for n, value in enumerate(VALUES)]
    node = Node(tmp_path / "data", version="0.8")
    node.old_shard(1, rows=rows)
    node.migrate(1, like_083=True)
    with served(node) as (url, _):
        found = rescue(shardtool, node.path, url)
    assert (found["sent"], found["left"], found["missing"]) == (len(VALUES), {}, 0)


NAMES = [
    ("test", "cpu~load"),
    ("test", 'say "hi"'),
    ("test", "back\\slash"),
    ("test", "new\nline"),
    ("test", "été 😀 %2F ?&#"),
    ("od~d", "cpu"),
    (
        "test",
        "..",
    ),
]


def test_awkward_names_and_databases_arrive(tmp_path: Path, shardtool: Run) -> None:
    rows = [
        Row(database, series, column, AT, 10_001, number)
        for number, (database, series) in enumerate(NAMES)
        for column in ("v", "co~l", 'q"')
    ]
    node = Node(tmp_path / "data", version="0.8")
    node.old_shard(1, rows=rows, marked_at=MARKED_AT)
    with served(node) as (url, _):
        found = rescue(shardtool, node.path, url)
    assert (found["left"], found["missing"]) == ({}, 0)
    assert found["sent"] == len(rows)


def test_values_of_the_future_arrive_with_their_own_time(tmp_path: Path, shardtool: Run) -> None:
    node = Node(tmp_path / "data", version="0.8")
    node.old_shard(1, rows=[Row("test", "cpu", "v", LATER + n, 10_001, n) for n in range(5)])
    node.migrate(1, like_083=True)
    with served(node) as (url, faults):
        found = rescue(shardtool, node.path, url)
        assert [value[3] for value in sent(faults)] == [LATER + n for n in range(5)]
    assert found["missing"] == 0


def test_a_rescue_of_one_column_leaves_what_the_others_have(tmp_path: Path, shardtool: Run) -> None:
    rows = [Row("test", "cpu", column, AT + n, 10_001, n) for n in range(9) for column in "abc"]
    node = Node(tmp_path / "data", version="0.8")
    node.old_shard(1, rows=rows)
    node.migrate(1, lose=7)  # the last ones in key order: of the last column
    with served(node) as (url, faults):
        found = rescue(shardtool, node.path, url)
        assert {value[2] for value in sent(faults)} == {"c"}
    assert (found["sent"], found["missing"]) == (7, 0)


def test_what_json_can_not_carry_is_listed_and_the_rest_of_the_point_goes(
    tmp_path: Path, shardtool: Run
) -> None:
    big = 990_000_000_000_010_001
    rows = [
        Row("test", "a~b", "nan", AT, 10_001, math.nan),
        Row("test", "a~b", "good", AT, 10_001, 1),
        Row("test", "a~b", "good", AT, big, 2),
        Row("test", "a~b", "time", AT, 10_001, 3),
        Row("test", "a~b", "good", (1 << 53) + 1, 10_001, 4),
    ]
    node = Node(tmp_path / "data", version="0.8")
    node.old_shard(1, rows=rows, marked_at=MARKED_AT)
    with served(node) as (url, _):
        words = ("--data", node.path, "rescue", "--api", url, "--yes")
        done = shardtool(*words, "--json", env=PASSWORD)
        found = document(done)
        again = shardtool(*words, env=PASSWORD)
    assert done.returncode == again.returncode == 3
    assert (found["sent"], found["missing"]) == (1, 4)
    assert found["left"] == {"number": 1, "sequence": 1, "name": 1, "time": 1}
    assert {(one["column"], one["why"]) for one in found["not_sent"]} == {
        *(("nan", "number"), ("good", "sequence"), ("time", "name"), ("good", "time")),
    }
    assert str(big) in again.stdout
    assert "shardtool export" in again.stdout


def test_a_value_that_08_has_otherwise_is_not_overwritten(tmp_path: Path, shardtool: Run) -> None:
    node = Node(tmp_path / "data", version="0.8")
    node.old_shard(1, points=10)
    node.migrate(1, change=1, lose=1)
    with served(node) as (url, _):
        found = rescue(shardtool, node.path, url)
    assert (found["sent"], found["left"], found["missing"]) == (1, {"different": 1}, 1)


@pytest.mark.slow
def test_what_was_dropped_in_08_comes_back_only_when_asked_for(
    tmp_path: Path, shardtool: Run
) -> None:
    node = Node(tmp_path / "data", version="0.8")
    node.old_shard(1, rows=[Row("test", "gone", "v", AT + n, 10_001, n) for n in range(3)])
    node.migrate(1)
    node.drop_series("test", "gone")
    with served(node) as (url, faults):
        found = rescue(shardtool, node.path, url)
        assert (found["sent"], found["left"], sent(faults)) == (0, {"dropped": 3}, [])
        found = rescue(shardtool, node.path, url, "--also", "dropped")
    assert (found["sent"], found["missing"]) == (3, 0)


def test_a_database_is_made_only_where_that_is_said(tmp_path: Path, shardtool: Run) -> None:
    node = Node(tmp_path / "data", databases=["test", "gone"])
    node.old_shard(1, rows=[Row("gone", "cpu", "v", AT, 10_001, 1)])
    node.drop_database("gone", before_upgrade=True)
    node.upgrade()
    node.mark(1)
    with served(node) as (url, _):
        found = rescue(shardtool, node.path, url)
        assert (found["sent"], found["left"]) == (0, {"no-database": 1})
        found = rescue(shardtool, node.path, url, "--create-databases")
    assert (found["create_databases"], found["sent"], found["missing"]) == (["gone"], 1, 0)


@pytest.mark.slow
def test_an_unmigrated_shard_is_rescued_only_where_it_is_named(
    tmp_path: Path, shardtool: Run
) -> None:
    node = Node(tmp_path / "data", version="0.8")
    node.old_shard(1, points=10)
    node.old_shard(2, points=10)
    node.migrate(2, lose=1)
    with served(node) as (url, _):
        assert rescue(shardtool, node.path, url)["sent"] == 1
        assert rescue(shardtool, node.path, url, "1")["sent"] == 40


# -- cut off --


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_rescue_that_is_cut_off_is_gone_on_with(
    number: signal.Signals, tmp_path: Path, shardtool: Run
) -> None:
    node = Node(tmp_path / "data", version="0.8")
    node.old_shard(1, points=3000, databases={"test": ("a~b", "c~d", "e~f")}, marked_at=MARKED_AT)
    env = {**os.environ, **PASSWORD, "PYTHONPATH": str(REPOSITORY)}
    with served(node, only="/db/", method="POST", hang=0.3) as (url, faults):
        words = ("--data", str(node.path), "rescue", "--api", url, "--yes")
        child = subprocess.Popen(
            [*COMMAND, *words], env=env, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        deadline = time.monotonic() + 60
        while not sent(faults) and time.monotonic() < deadline:
            time.sleep(0.05)
        child.send_signal(number)
        _, errors = child.communicate(timeout=60)
        if number is not signal.SIGKILL:
            assert child.returncode == 130
            assert "run rescue again" in errors
            assert events(node.path, "rescue-ended")[-1]["how"] == "interrupted"
        faults.hang = 0
        found = rescue(shardtool, node.path, url)
    assert found["missing"] == 0
    assert 0 < found["sent"] <= 12_000


def test_the_journal_says_what_was_sent(tmp_path: Path, shardtool: Run) -> None:
    node = Node(tmp_path / "data", version="0.8")
    node.old_shard(1, points=10)
    node.migrate(1, lose=3)
    with served(node) as (url, _):
        rescue(shardtool, node.path, url)
    (started,), (ended,) = events(node.path, "rescue-started"), events(node.path, "rescue-ended")
    assert (started["values"], started["shards"]) == (3, ["00001"])
    assert (ended["how"], ended["sent"], ended["refused"]) == ("sent", 3, 0)
    history = shardtool("--data", node.path, "history")
    assert "3 values sent" in history.stdout


@pytest.mark.slow
def test_losses_that_were_accepted_are_sent_only_where_the_shard_is_named(
    tmp_path: Path, shardtool: Run
) -> None:
    node = Node(tmp_path / "data", version="0.8")
    node.old_shard(1, points=10)
    node.migrate(1, lose=3)
    shardtool("--data", node.path, "accept", "1", "--because", "a test", "--missing", "3")
    with served(node) as (url, _):
        found = rescue(shardtool, node.path, url)
        assert (found["sent"], found["left"]) == (0, {"accepted": 3})
        assert rescue(shardtool, node.path, url, "1")["sent"] == 3


def test_a_named_shard_whose_losses_were_accepted_and_are_refused_is_no_success(
    tmp_path: Path, shardtool: Run
) -> None:
    node = Node(tmp_path / "data", version="0.8")
    node.old_shard(1, rows=[Row("test", "a~b", "v", AT + n, 10_001, n) for n in range(5)])
    node.mark(1)
    shardtool("--data", node.path, "accept", "1", "--because", "a test", "--missing", "5")
    with served(node, refuse=nothing_written) as (url, _):
        words = ("--data", node.path, "rescue", "1", "--api", url, "--yes")
        done = shardtool(*words, env=PASSWORD)
    assert done.returncode == 3
    assert "every value" not in done.stdout


def test_a_value_that_two_databases_can_claim_is_listed_and_not_sent(
    tmp_path: Path, shardtool: Run
) -> None:
    node = Node(tmp_path / "data", version="0.8", databases=["od", "od~d"])
    node.old_shard(1, rows=[Row("od~d", "cpu", "v", AT, 10_001, 1)])
    node.mark(1)
    with served(node) as (url, faults):
        found = rescue(shardtool, node.path, url)
        assert sent(faults) == []
    assert (found["left"], found["missing"]) == ({"ambiguous": 1}, 1)


def test_what_was_dropped_is_not_brought_back_though_its_name_would_explain_it(
    tmp_path: Path, shardtool: Run
) -> None:
    node = Node(tmp_path / "data", version="0.8")
    node.old_shard(1, rows=[Row("test", "a~b", "v", AT, 10_001, 1)])
    node.migrate(1)
    node.drop_series("test", "a~b")
    with served(node) as (url, faults):
        assert rescue(shardtool, node.path, url)["left"] == {"dropped": 1}
        assert sent(faults) == []


def test_marked_shards_that_can_not_be_read_are_no_success(tmp_path: Path, shardtool: Run) -> None:
    node = Node(tmp_path / "data", version="0.8")
    for number in (1, 2):
        node.old_shard(number, points=4)
        node.migrate(number, lose=2 - number)
    (node.shard_db / "00002/CURRENT").unlink()
    with served(node) as (url, _):
        done = shardtool(
            "--data", node.path, "rescue", "--api", url, "--yes", "--json", env=PASSWORD
        )
    found = document(done)
    assert (done.returncode, found["sent"], found["unread"]) == (3, 1, ["00002"])


@pytest.mark.usefixtures("strace")
def test_a_shard_that_can_not_even_be_looked_at_is_no_success(
    tmp_path: Path, shardtool: Run
) -> None:
    node = lossy(tmp_path / "data", [Row("test", "a~b", "v", AT, 10_001, 1)])
    shard = node.shard_db / "00001"
    with served(node) as (url, _):
        words = ("--data", node.path, "rescue", "--api", url, "--yes", "--json", "--user", "root")
        password = tmp_path / "password"
        password.write_text("root")
        came, done = injected(
            (*words, "--password-file", password),
            tmp_path / "trace",
            *("newfstatat", 1, "error=EIO"),
            options=("-f", "-P", shard),
        )
    assert came
    assert (done.returncode, document(done)["unread"]) == (3, ["00001"])
