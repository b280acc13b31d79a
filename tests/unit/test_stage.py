"""Where a node stands between 0.7 and 0.8, and what to run next."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shardtool.datadir.inventory import OldShard
from shardtool.datadir.marker import Marker
from shardtool.datadir.verdict import Evidence, Judged, judge
from shardtool.upgrade.stage import Stage, find_stage

UNMIGRATED = judge(OldShard("00007", has_database=True))
MARKED = judge(OldShard("00008", marker=Marker(True, 1), has_database=True))
STRAY = judge(OldShard("lost+found"))


def stage(
    *old: Judged,
    new: bool = True,
    snapshot: bool = False,
    pruned: bool = False,
    leftovers: bool = False,
    half_restored: bool = False,
) -> Stage:
    """Find the stage of a node that 0.8 has run on, unless said otherwise."""
    return find_stage(
        old,
        has_new=new,
        has_snapshot=snapshot,
        has_pruned=pruned,
        has_leftovers=leftovers,
        is_half_restored=half_restored,
    )


def test_a_directory_without_shards_is_empty_and_has_nothing_to_do() -> None:
    assert (stage(new=False).name, stage(new=False).next) == ("empty", None)


def test_before_the_upgrade_a_snapshot_comes_first() -> None:
    found = stage(UNMIGRATED, new=False)
    assert (found.name, found.next) == ("0.7", "shardtool backup")
    assert "stop the server" in found.advice


def test_with_a_snapshot_the_upgrade_is_next_and_the_right_version_is_named() -> None:
    found = stage(UNMIGRATED, new=False, snapshot=True)
    assert (found.name, found.next) == ("0.7", "shardtool check")
    assert "0.8.0 to 0.8.3" in found.advice


def test_after_the_upgrade_and_before_any_marker_comes_check_then_spaces_then_migrate() -> None:
    found = stage(UNMIGRATED)
    assert (found.name, found.next) == ("upgraded", "shardtool check")
    assert found.advice.index("spaces apply") < found.advice.index("shardtool migrate --wait")


@pytest.mark.parametrize("pruned", [False, True])
def test_while_some_are_marked_and_some_are_not_it_is_migrating(pruned: bool) -> None:
    found = stage(UNMIGRATED, MARKED, pruned=pruned)
    assert (found.name, found.next) == ("migrating", "shardtool status --watch")
    assert "1 of the 2" in found.words
    assert "shardtool migrate --wait" in found.advice


def test_unmigrated_shards_after_a_prune_are_a_migration_that_is_not_over() -> None:
    assert stage(UNMIGRATED, pruned=True).name == "migrating"


def test_when_all_are_marked_the_operator_is_told_that_a_marker_proves_nothing() -> None:
    found = stage(MARKED)
    assert (found.name, found.next) == ("migrated", "shardtool verify")
    assert "proves nothing" in found.advice


@pytest.mark.parametrize(("missing", "advised"), [(0, False), (3, True)])
def test_when_all_are_verified_a_prune_comes_next(missing: int, advised: bool) -> None:
    found = stage(judge(MARKED.shard, Evidence(values=10, missing=missing)))
    assert found.next == "shardtool prune --dry-run"
    assert ("would lose values" in found.advice) is advised


def test_when_no_old_shard_is_left_it_is_done() -> None:
    assert (stage(pruned=True).name, stage(pruned=True).next) == ("done", None)


def test_what_is_no_shard_does_not_count() -> None:
    assert stage(STRAY, pruned=True).name == "done"
    assert stage(MARKED, STRAY).name == "migrated"


def test_a_marked_shard_that_is_suspect_is_still_one_that_0_8_is_done_with() -> None:
    suspect = judge(replace(MARKED.shard, foreign=("notes",)))
    assert (suspect.verdict, stage(suspect).name) == ("suspect", "migrated")


@pytest.mark.parametrize("old", [(), (MARKED,), (UNMIGRATED, MARKED)])
def test_what_an_interrupted_prune_left_comes_first(old: tuple[Judged, ...]) -> None:
    found = stage(*old, leftovers=True)
    assert (found.name, found.next) == (stage(*old).name, "shardtool prune")


def test_a_restore_that_was_interrupted_comes_before_everything_else() -> None:
    found = stage(MARKED, leftovers=True, half_restored=True)
    assert (found.name, found.next) == ("migrated", "shardtool restore")
    assert "start no server" in found.advice


def test_what_can_be_rescued_is_rescued_before_anything_is_pruned() -> None:
    lossy = judge(MARKED.shard, Evidence(values=10, missing=3, rescuable=2))
    assert stage(lossy).next == "shardtool rescue"
    gone = judge(MARKED.shard, Evidence(values=10, missing=3))
    assert stage(gone).next == "shardtool prune --dry-run"
    accepted = judge(MARKED.shard, Evidence(values=10, missing=3, rescuable=3, accepted=True))
    assert stage(accepted).next == "shardtool prune --dry-run"
