"""What was planned goes: the journal, the syncs and what comes back."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fixtures import MARKED_AT, Node
from shardtool.datadir.inventory import FileSystem, take_inventory
from shardtool.datadir.layout import find_layout
from shardtool.datadir.verdict import judge_all
from shardtool.journal import Journal
from shardtool.prune import execute as execute_module
from shardtool.prune.execute import Outcome, execute
from shardtool.prune.plan import make_plan
from shardtool.prune.policy import Policy
from tests.conftest import Listing
from tests.real.prune.world import (
    NAMES,
    carry_out,
    events,
    in_trash,
    kept,
    layout_of,
    plan_for,
    records,
    shards,
    syncs_and_events,
)


def test_what_was_planned_goes_and_gives_back_what_was_said(node: Node) -> None:
    plan = plan_for(node)
    outcome = carry_out(node, plan)
    assert (outcome.deleted, outcome.kept, outcome.failed) == (NAMES, [], [])
    assert (shards(node), in_trash(node)) == ([], [])
    assert outcome.freed_bytes == plan.reclaimable_bytes > 0


def test_nothing_else_of_the_users_changes(node: Node, listing: Callable[[Path], Listing]) -> None:
    def rest() -> Listing:
        everything = listing(node.path)
        ours = ("db/shard_db/", "db/.shardtool")
        parents = ("db", "db/shard_db")
        return {p: e for p, e in everything.items() if p not in parents and not p.startswith(ours)}

    before = rest()
    carry_out(node)
    assert rest() == before
    assert any(path.startswith("db/shard_db_v2/") for path in before)


def test_the_journal_tells_intent_rename_and_end_of_each(node: Node) -> None:
    carry_out(node)
    assert events(node) == [
        *(("intent", name) for name in NAMES),
        *(("renamed", name) for name in NAMES),
        *(("deleted", name) for name in NAMES),
    ]


def test_the_journal_tells_where_each_shard_was_and_what_came_back(node: Node) -> None:
    outcome = carry_out(node)
    records = Journal(layout_of(node)).read().records
    places = {record["event"]: record["trash"] for record in records if record["shard"] == "00002"}
    assert places == dict.fromkeys(("intent", "renamed", "deleted"), f"00002.{outcome.run}")
    ends = [record for record in records if record["event"] == "deleted"]
    assert sum(record["freed_bytes"] for record in ends) == outcome.freed_bytes > 0
    assert all(record["run"] == outcome.run for record in records)
    assert all(record["files"] > 0 and record["evidence"] == "marker" for record in ends)


def test_an_intent_tells_what_its_shard_was_and_where_it_goes(node: Node) -> None:
    plan = plan_for(node, only=frozenset({"00002"}))
    tree = plan.delete[0].judged.shard.tree
    outcome = carry_out(node, plan)
    record = records(node, "intent")["00002"]
    assert re.fullmatch(rf"\d{{8}}T\d{{6}}Z-{os.getpid()}", outcome.run)
    assert {name: record[name] for name in record if name not in ("schema", "time")} == {
        "event": "intent",
        "run": outcome.run,
        "shard": "00002",
        "trash": f"00002.{outcome.run}",
        "trash_in": str(node.db / ".shardtool/trash"),
        "inode": tree.inode,
        "evidence": "marker",
        "fingerprint": tree.fingerprint,
        "changes": tree.changes,
        "files": tree.files,
        "reclaimable_bytes": tree.reclaimable_bytes,
    }


def test_each_intent_is_on_disk_before_its_rename_and_each_rename_before_a_file_goes(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    rename, unlink, append = os.rename, os.unlink, Journal.append_all

    def note_rename(*args: Any, **settings: Any) -> None:
        seen.append("rename")
        rename(*args, **settings)

    def note_unlink(*args: Any, **settings: Any) -> None:
        seen.append("unlink")
        unlink(*args, **settings)

    def note_append(journal: Journal, records: Any) -> None:
        records = list(records)
        append(journal, records)
        seen.append(records[0]["event"])

    monkeypatch.setattr(os, "rename", note_rename)
    monkeypatch.setattr(os, "unlink", note_unlink)
    monkeypatch.setattr(Journal, "append_all", note_append)
    carry_out(node)
    first = list(dict.fromkeys(seen))
    assert first == ["intent", "rename", "renamed", "unlink", "deleted"]
    assert seen.index("renamed") > len(seen) - 1 - seen[::-1].index("rename")


def test_both_directories_are_synced_between_the_renames_and_the_journal(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = syncs_and_events(monkeypatch)
    carry_out(node)
    between = seen[len(seen) - seen[::-1].index("rename") : seen.index("renamed")]
    assert {"trash", "shard_db"} <= set(between)


def test_more_shards_than_a_batch_all_go(tmp_path: Path) -> None:
    node = Node(tmp_path / "data")
    with node.holding_back_raft():
        for number in range(1, 36):
            node.old_shard(number, points=1, marked_at=MARKED_AT)
    outcome = carry_out(node)
    assert len(outcome.deleted) == 35
    assert (shards(node), in_trash(node)) == ([], [])


def test_the_captures_four_marked_shards_go_and_the_five_others_stay(
    capture: Callable[[str], Path],
) -> None:
    layout = find_layout(str(capture("partial-08")), None, {})
    inventory = take_inventory(layout, fingerprints=True)
    plan = make_plan(
        judge_all(inventory), Policy(trust_marker=True), (), {}, free_bytes=0, now_ns=time.time_ns()
    )
    outcome = Outcome()
    execute(plan, layout, outcome, lambda names: None)
    assert len(outcome.deleted) == 4
    assert len(os.listdir(layout.old_shards)) == 5
    assert outcome.freed_bytes == plan.reclaimable_bytes


def until_one_is_gone(node: Node, monkeypatch: pytest.MonkeyPatch) -> Outcome:
    """Prune with --until-free, of which so much is free as soon as a single shard is gone."""
    plan = plan_for(node, until_free=1 << 60)
    gone = len(plan.delete)

    def room(path: Path) -> FileSystem:
        return FileSystem(1 << 61, 1 << 60 if len(shards(node)) < gone else 0)

    monkeypatch.setattr(execute_module, "file_system_at", room)
    return carry_out(node, plan)


def test_it_stops_as_soon_as_enough_is_free(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = until_one_is_gone(node, monkeypatch)
    assert outcome.deleted == ["00001"]
    assert kept(outcome) == {"00002": ["enough-free"], "00003": ["enough-free"]}


def share_a_table(node: Node) -> None:
    """Have shards 1 and 2 share a table by a hard link, as a deduplicating tool leaves it."""
    table = node.shard_db / "00001/000099.ldb"
    table.write_bytes(b"x" * 100_000)
    os.utime(table, (0, 0))
    os.link(table, node.shard_db / "00002/000099.ldb")


def test_a_table_that_two_shards_share_comes_back_when_both_went(node: Node) -> None:
    share_a_table(node)
    plan = plan_for(node)
    outcome = carry_out(node, plan)
    assert outcome.deleted == NAMES
    assert outcome.freed_bytes == plan.reclaimable_bytes > 100_000


def test_a_shard_is_not_taken_for_changed_because_its_neighbour_went(node: Node) -> None:
    """Removing one name of a shared file changes the ctime of the other: our own doing."""
    share_a_table(node)
    plan = plan_for(node, until_free=1 << 60)  # one at a time, not a batch
    outcome = carry_out(node, plan)
    assert (outcome.deleted, kept(outcome)) == (NAMES, {})


def test_shards_that_share_a_table_go_together_and_no_other_with_them(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    share_a_table(node)
    outcome = until_one_is_gone(node, monkeypatch)
    assert (outcome.deleted, kept(outcome)) == (NAMES[:2], {"00003": ["enough-free"]})


def test_shards_whose_files_have_names_elsewhere_too_go_one_by_one(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backup by hard links, which loses nothing."""
    for name in NAMES:
        os.link(next((node.shard_db / name).glob("*.log")), node.path / f"backup of {name}")
    outcome = until_one_is_gone(node, monkeypatch)
    assert (outcome.deleted, list(kept(outcome))) == (NAMES[:1], NAMES[1:])
