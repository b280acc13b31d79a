"""Where a node stands in the journey from 0.7 to 0.8, and the next command: pure functions."""

from __future__ import annotations

from dataclasses import dataclass

from shardtool.datadir.verdict import Judged

STAGES = ("empty", "0.7", "upgraded", "migrating", "migrated", "done")
_MIGRATE = "shardtool migrate --wait"


@dataclass(frozen=True)
class Stage:
    """A place in the journey.

    Args:
        name: one of STAGES.
        words: what that means, in a sentence.
        next: the command to run; None where there is nothing to do.
        advice: what to know before running it; may be empty.
    """

    name: str
    words: str
    next: str | None = None
    advice: str = ""


def find_stage(
    old: tuple[Judged, ...],
    *,
    has_new: bool,
    has_snapshot: bool,
    has_pruned: bool,
    has_leftovers: bool,
    is_half_restored: bool,
) -> Stage:
    """Given what is on disk, return where the node stands.

    Args:
        old: the verdict over each entry of shard_db; those that are no shards don't count.
        has_new: there is a shard_db_v2, so an 0.8 has run here.
        has_snapshot: a snapshot of raft and wal is in the usual place.
        has_pruned: the journal tells of old shards that were deleted.
        has_leftovers: an interrupted prune left something in the trash.
        is_half_restored: a restore was interrupted in the middle of its swap.
    """
    stage = _stage(tuple(j for j in old if j.is_shard), has_new, has_snapshot, has_pruned)
    if is_half_restored:
        advice = "raft and wal may not belong together: start no server before that"
        return Stage(stage.name, stage.words, "shardtool restore", advice)
    if has_leftovers:
        advice = "an interrupted prune left shards in the trash; the next one finishes it"
        return Stage(stage.name, stage.words, "shardtool prune", advice)
    return stage


def _stage(old: tuple[Judged, ...], has_new: bool, has_snapshot: bool, has_pruned: bool) -> Stage:
    marked = sum(j.shard.marker.present for j in old)
    sound = sum(j.shard.marker.valid and j.verdict != "suspect" for j in old)
    if not old and not has_new:
        return Stage("empty", "there are no shards of either version here")
    if not old:
        return Stage("done", "no old shard is left")
    if not has_new:
        return _before_upgrade(has_snapshot)
    if not marked and not has_pruned:
        advice = (
            "it says what stands in the way; make shard spaces first (shardtool spaces apply: 0.8 "
            f"puts what matches none into a default one), then {_MIGRATE}"
        )
        words = "0.8 has run here and migrated nothing yet"
        return Stage("upgraded", words, "shardtool check", advice)
    if marked < len(old):
        words = f"{sound} of the {len(old)} old shards here are soundly marked as migrated"
        advice = f"if nothing moves, go on with it: {_MIGRATE}"
        return Stage("migrating", words, "shardtool status --watch", advice)
    words = "every old shard is marked as migrated"
    if sound < marked:
        words += f", {marked - sound} of them not soundly"
    if any(j.is_marked for j in old):
        advice = "the marker alone proves nothing: verify looks for each value on the new side"
        return Stage("migrated", words, "shardtool verify", advice)
    losing = [j for j in old if j.verdict == "incomplete" and not j.is_accepted]
    if any(j.evidence is not None and j.evidence.rescuable for j in losing):
        advice = f"{len(losing)} of them would lose values: rescue sends these to the running 0.8"
        return Stage("migrated", words, "shardtool rescue", advice)
    lost = len(losing)
    advice = f"{lost} of them would lose values: verify says which, and why" if lost else ""
    return Stage("migrated", words, "shardtool prune --dry-run", advice)


def _before_upgrade(has_snapshot: bool) -> Stage:
    words = "a 0.7 directory, not upgraded yet"
    if not has_snapshot:
        advice = (
            "stop the server first: only then are raft and wal whole. shardtool check says what "
            "else to see to before the upgrade"
        )
        return Stage("0.7", words, "shardtool backup", advice)
    advice = (
        "a snapshot is there. When nothing stands in the way, install 0.8.3 (only 0.8.0 to 0.8.3 "
        "migrate) and start it"
    )
    return Stage("0.7", words, "shardtool check", advice)
