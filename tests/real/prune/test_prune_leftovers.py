"""What a run left in the trash: the next one removes what may go, and puts back what may not."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fixtures import Node
from shardtool.journal import Journal
from shardtool.prune.plan import Plan
from tests.conftest import Hold, Listing
from tests.real.prune.world import (
    carry_out,
    contents,
    events,
    in_trash,
    layout_of,
    lose_the_journal_after,
    plan_for,
    records,
    set_back,
    syncs_and_events,
)


def interrupted_after_rename(node: Node, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Interrupt a prune of shard 2 between its rename and the journal's word for it."""
    plan = plan_for(node, only=frozenset({"00002"}))
    with monkeypatch.context() as patch:
        lose_the_journal_after(1, patch)
        carry_out(node, plan)
    (left,) = in_trash(node)
    return node.db / ".shardtool/trash" / left


def test_a_whole_leftover_that_is_as_it_was_is_removed(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted_after_rename(node, monkeypatch)
    (left,) = in_trash(node)
    outcome = carry_out(node, plan_for(node, only=frozenset()))
    assert (outcome.finished, outcome.put_back) == (["00002"], [])
    assert in_trash(node) == []
    record = records(node, "finished")["00002"]
    assert (record["trash"], record["freed_bytes"]) == (left, outcome.freed_bytes)
    assert outcome.freed_bytes > 0


def test_a_leftovers_rename_is_on_disk_and_in_the_journal_before_its_first_file_goes(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted_after_rename(node, monkeypatch)
    plan = plan_for(node, only=frozenset())
    seen = syncs_and_events(monkeypatch)
    unlink = os.unlink

    def note(*args: Any, **settings: Any) -> None:
        seen.append("unlink")
        unlink(*args, **settings)

    monkeypatch.setattr(os, "unlink", note)
    carry_out(node, plan)
    assert {"trash", "shard_db"} <= set(seen[: seen.index("renamed")])
    assert seen.index("renamed") < seen.index("unlink") < seen.index("finished")


def test_a_whole_leftover_that_changed_is_put_back_with_what_it_has_now(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = interrupted_after_rename(node, monkeypatch)
    (left / "999999.ldb").write_bytes(b"values")
    outcome = carry_out(node, plan_for(node, only=frozenset()))
    assert (outcome.finished, outcome.put_back) == ([], ["00002"])
    assert (node.shard_db / "00002/999999.ldb").read_bytes() == b"values"
    assert in_trash(node) == []
    assert records(node, "put-back")["00002"]["trash"] == left.name


def test_a_put_back_is_on_disk_before_the_journal_tells_it(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = interrupted_after_rename(node, monkeypatch)
    (left / "999999.ldb").write_bytes(b"values")
    plan = plan_for(node, only=frozenset())
    seen = syncs_and_events(monkeypatch)
    carry_out(node, plan)
    assert {"trash", "shard_db"} <= set(seen[seen.index("rename") : seen.index("put-back")])
    assert events(node)[-1] == ("put-back", "00002")


@pytest.fixture
def recorded(node: Node, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Leave a shard in the trash of which the journal says that it may go; plan the next run."""

    def refuse(name: Any, *, dir_fd: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "unlink", refuse)
    assert carry_out(node, plan_for(node, only=frozenset({"00002"}))).failed
    monkeypatch.undo()
    plan = plan_for(node, only=frozenset())
    assert [(left.shard, left.recorded) for left in plan.finish] == [("00002", True)]
    return plan


def test_what_the_journal_says_of_a_leftover_is_on_disk_before_more_of_it_goes(
    recorded: Plan, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was killed may have written it and not have come to the sync."""
    seen, unlink = syncs_and_events(monkeypatch), os.unlink

    def note(name: Any, *, dir_fd: int) -> None:
        seen.append("unlink")
        unlink(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", note)
    assert carry_out(node, recorded).finished == ["00002"]
    assert {"journal", ".shardtool"} <= set(seen[: seen.index("unlink")])


def test_where_that_can_not_be_synced_nothing_more_of_it_goes(
    recorded: Plan, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    (left,) = in_trash(node)
    trash, fsync = node.db / ".shardtool/trash", os.fsync
    before = contents(trash / left)

    def fails(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink().name == "journal":
            raise OSError(errno.EIO, "Input/output error")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fails)
    ((shard, why),) = carry_out(node, recorded).failed
    assert shard == "00002"
    assert "expected to sync the journal, found: Input/output error" in why
    assert contents(trash / left) == before


@pytest.mark.parametrize("place", ["shard_db", "trash"])
def test_a_put_back_that_may_not_outlive_a_power_cut_is_told_as_that(
    place: str, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = interrupted_after_rename(node, monkeypatch)
    (left / "999999.ldb").write_bytes(b"values")
    plan, fsync = plan_for(node, only=frozenset()), os.fsync

    def fails(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink().name == place and not left.exists():
            raise OSError(errno.EIO, "Input/output error")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fails)
    outcome = carry_out(node, plan)
    why = "put back, but a power cut may undo that: Input/output error"
    assert (outcome.put_back, outcome.failed) == (["00002"], [("00002", why)])
    assert (node.shard_db / "00002/999999.ldb").read_bytes() == b"values"
    assert events(node)[-1] == ("put-back", "00002")


def test_a_leftover_that_cannot_go_is_told_and_the_next_run_finishes(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = interrupted_after_rename(node, monkeypatch)
    plan, unlink = plan_for(node, only=frozenset()), os.unlink

    def refuse(name: Any, *, dir_fd: int) -> None:
        if name == "CURRENT":
            raise PermissionError(1, "Operation not permitted")
        unlink(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", refuse)
    outcome = carry_out(node, plan)
    assert (outcome.finished, [name for name, _ in outcome.failed]) == ([], ["00002"])
    assert (left / "CURRENT").exists()
    record = records(node, "failed")["00002"]
    assert record["error"] == outcome.failed[0][1]
    assert record["freed_bytes"] == outcome.freed_bytes > 0
    monkeypatch.undo()
    assert carry_out(node, plan_for(node, only=frozenset())).finished == ["00002"]
    assert events(node)[-1] == ("finished", "00002")
    assert list(records(node, "renamed")) == ["00002"]  # once, by the first of the two


def test_a_whole_leftover_whose_content_changed_and_mtime_was_set_back_is_put_back(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = interrupted_after_rename(node, monkeypatch)
    set_back(left / "CURRENT")
    assert carry_out(node, plan_for(node, only=frozenset())).put_back == ["00002"]


def test_a_whole_leftover_that_a_process_has_open_is_put_back(
    node: Node, hold: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = interrupted_after_rename(node, monkeypatch)
    hold(left / "LOCK", "lock")
    assert carry_out(node, plan_for(node, only=frozenset())).put_back == ["00002"]


def test_a_leftover_whose_place_is_taken_stays_in_the_trash_and_is_told(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = interrupted_after_rename(node, monkeypatch)
    (left / "999999.ldb").write_bytes(b"values")
    node.old_shard(12, points=1).rename(node.shard_db / "00002")
    other = contents(node.shard_db / "00002")
    outcome = carry_out(node, plan_for(node, only=frozenset()))
    assert [name for name, _ in outcome.failed] == ["00002"]
    assert contents(node.shard_db / "00002") == other
    assert (left / "999999.ldb").exists()
    record = Journal(layout_of(node)).read().records[-1]
    assert (record["event"], record["error"]) == ("failed", outcome.failed[0][1])
    # It is no nearer to its removal for that: once its place is free, it goes there.
    (node.shard_db / "00002").rename(node.path / "aside")
    assert carry_out(node, plan_for(node, only=frozenset())).put_back == ["00002"]
    assert (node.shard_db / "00002/999999.ldb").read_bytes() == b"values"


def test_leftovers_are_finished_where_no_shard_db_is_left(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All shards are gone, so the operator removed the empty directory."""
    interrupted_after_rename(node, monkeypatch)
    shutil.rmtree(node.shard_db)
    outcome = carry_out(node)
    assert outcome.finished == ["00002"]


def test_what_the_journal_does_not_know_is_never_touched(
    node: Node, listing: Callable[[Path], Listing]
) -> None:
    trash = node.db / ".shardtool/trash"
    node.old_shard(9, points=1)
    trash.mkdir(parents=True)
    (node.shard_db / "00009").rename(trash / "00009.20261124T175153Z-4711")
    (trash / "00001.below.0").mkdir()
    (trash / "precious").mkdir()
    (trash / "precious/file").write_bytes(b"x")
    (trash / "00007.link").symlink_to(node.raft)
    (trash / "file").write_bytes(b"x")
    before = listing(trash)
    carry_out(node)
    after = listing(trash)
    for found in (before, after):
        del found["."]
    assert after == before
