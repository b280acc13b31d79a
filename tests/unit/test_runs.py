"""What the journal tells of the last run of each command, whatever stands in it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardtool.journal import History
from shardtool.monitor.runs import Deleted, deleted, last_runs
from tests.any_json import JSON


def records(*events: tuple[str, dict[str, Any]]) -> History:
    """Return a journal of these events, a second apart."""
    return History(
        tuple(
            {"event": event, "time": f"1970-01-01T00:00:{number:02d}Z", **fields}
            for number, (event, fields) in enumerate(events)
        )
    )


def prune(run: str, shard: str, *events: str) -> list[tuple[str, dict[str, Any]]]:
    return [(event, {"run": run, "shard": shard}) for event in events]


@pytest.mark.parametrize(
    ("events", "succeeded"),
    [
        (prune("a", "1", "intent", "renamed", "deleted"), True),
        (prune("a", "1", "intent", "kept"), True),
        (prune("a", "1", "intent"), False),
        (prune("a", "1", "intent", "renamed"), False),
        (prune("a", "1", "intent", "failed"), False),
        ([*prune("a", "1", "intent", "failed"), *prune("a", "2", "intent", "deleted")], False),
        ([*prune("a", "1", "intent", "failed"), *prune("b", "1", "intent", "deleted")], True),
        ([*prune("a", "1", "intent", "renamed"), *prune("b", "1", "finished")], True),
        ([*prune("a", "1", "intent", "renamed"), *prune("b", "1", "put-back")], True),
    ],
)
def test_a_prune_is_as_good_as_each_of_its_shards(
    events: list[tuple[str, dict[str, Any]]], succeeded: bool
) -> None:
    run = last_runs(records(*events))["prune"]
    assert (run.succeeded, run.at) == (succeeded, len(events) - 1)


@pytest.mark.parametrize(
    ("events", "command", "succeeded"),
    [
        ([("migration-started", {})], "migrate", True),
        ([("migration-started", {}), ("migration-ended", {"how": "marked"})], "migrate", True),
        ([("migration-ended", {"how": "passed-over"})], "migrate", True),
        ([("migration-ended", {"how": "server-died"})], "migrate", False),
        ([("migration-ended", {"how": "stalled"})], "migrate", False),
        ([("migration-failed", {})], "migrate", False),
        ([("migration-unknown", {})], "migrate", False),
        ([("rescue-started", {})], "rescue", False),
        ([("rescue-started", {}), ("rescue-ended", {"how": "sent"})], "rescue", True),
        ([("rescue-started", {}), ("rescue-ended", {"how": "interrupted"})], "rescue", False),
        ([("rescue-started", {}), ("rescue-ended", {"how": "failed"})], "rescue", False),
        ([("forget-intent", {})], "forget", False),
        ([("forget-intent", {}), ("forgotten", {"failed": []})], "forget", True),
        ([("forgotten", {"failed": [{"id": "x"}]})], "forget", False),
        ([("restore-intent", {})], "restore", False),
        ([("restore-intent", {}), ("restored", {})], "restore", True),
        ([("space-created", {})], "spaces", True),
        ([("accepted", {})], "accept", True),
    ],
)
def test_a_run_that_has_not_come_to_a_good_end_is_none(
    events: list[tuple[str, dict[str, Any]]], command: str, succeeded: bool
) -> None:
    assert last_runs(records(*events))[command].succeeded is succeeded


def test_commands_are_told_apart() -> None:
    runs = last_runs(records(("accepted", {}), *prune("a", "1", "intent"), ("accepted", {})))
    assert {name: run.at for name, run in runs.items()} == {"accept": 2, "prune": 1}


def test_what_was_deleted_adds_up_over_runs() -> None:
    history = records(
        ("deleted", {"freed_bytes": 10}),
        ("failed", {"freed_bytes": 99}),
        ("finished", {"freed_bytes": 5}),
        ("deleted", {"freed_bytes": -1}),
        ("deleted", {"freed_bytes": True}),
        ("deleted", {"freed_bytes": 10**4000}),
    )
    assert deleted(history) == Deleted(5, 15)


@given(st.lists(st.dictionaries(st.sampled_from(["time", "run", "shard", "how", "failed"]), JSON)))
def test_a_journal_that_was_tampered_with_is_read_all_the_same(
    fields: list[dict[str, Any]],
) -> None:
    events = ("intent", "deleted", "migration-ended", "forgotten", "what?", "rescue-ended")
    history = History(tuple({"event": e, **f} for f in fields for e in events))
    for run in last_runs(history).values():
        assert isinstance(run.at, float)
    assert deleted(history).shards == len(fields)
