"""Where a node stands: one look at it, judged. What status shows and check begins with."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from shardtool.cli.output import iso
from shardtool.datadir.inventory import Inventory, NewShard, take_inventory
from shardtool.datadir.layout import Layout
from shardtool.datadir.verdict import Evidence, Judged, judge_all, reclaimable_together
from shardtool.disk.locks import Lock
from shardtool.errors import ShardtoolError, reason_of
from shardtool.journal import History, Journal
from shardtool.prune.trash import Leftover, leftovers, trash_of
from shardtool.upgrade.stage import Stage, find_stage
from shardtool.words import plural


@dataclass(frozen=True)
class Standing:
    """One look at a node, judged.

    Args:
        layout: the node.
        inventory: of it.
        old: the verdict over each entry of shard_db.
        history: its journal; empty where that can't be read.
        left: what an interrupted prune left in the trash.
        stage: where in the journey it is.
        problems: what is wrong with journal and trash, a line each.
    """

    layout: Layout
    inventory: Inventory
    old: tuple[Judged, ...]
    history: History
    left: tuple[Leftover, ...]
    stage: Stage
    problems: tuple[str, ...]

    @property
    def shards(self) -> tuple[Judged, ...]:
        """Those entries of shard_db that have a shard's name."""
        return tuple(j for j in self.old if j.is_shard)

    def of(self, *verdicts: str) -> tuple[Judged, ...]:
        """Return the entries of shard_db with one of these verdicts."""
        return tuple(j for j in self.old if j.verdict in verdicts)

    @property
    def wrong(self) -> tuple[Judged, ...]:
        """Shards that are suspect or unreadable."""
        return tuple(j for j in self.shards if j.verdict in ("suspect", "unreadable"))

    @property
    def reclaimable_bytes(self) -> int:
        """What the file system gives back when all goes that may go, or is only to be proven."""
        return reclaimable_together(tuple(j for j in self.old if j.reclaimable_bytes))

    @property
    def needs_attention(self) -> bool:
        """Something is not as it should be; what can't be read is never fine."""
        unreadable = any(shard.error for shard in self.inventory.new or ())
        unknown = any(item.action == "leave" for item in self.left)
        unlooked = any(judged.shard.lock.state is Lock.UNKNOWN for judged in self.shards)
        return bool(self.wrong or self.problems or unreadable or unknown or unlooked)


def standing(layout: Layout) -> Standing:
    """Look at a node once. Nothing is changed or locked.

    Raises:
        OSError: shard_db or shard_db_v2 can't be listed.
        ShardtoolError: a scanning process died.
    """
    inventory = take_inventory(layout)
    history, left, problems = _own_state(layout)
    old = judge_all(inventory, _evidence(layout, inventory, history))
    stage = find_stage(
        old,
        has_new=inventory.new is not None,
        has_snapshot=inventory.new is None and _has_snapshot(layout),
        has_pruned=any(r["event"] in ("deleted", "finished") for r in history.records),
        has_leftovers=any(item.action != "leave" for item in left),
        is_half_restored=os.path.lexists(layout.pending_restore),
    )
    return Standing(layout, inventory, old, history, left, stage, problems)


def _evidence(layout: Layout, inventory: Inventory, history: History) -> Mapping[str, Evidence]:
    """Return what the receipts that hold say; most directories have none to read."""
    if not os.path.lexists(layout.own / "proofs"):
        return {}
    from shardtool.proof.evidence import held

    return held(layout, (shard.name for shard in inventory.old or ()), history).evidence


def _own_state(layout: Layout) -> tuple[History, tuple[Leftover, ...], tuple[str, ...]]:
    """Read journal and trash; what is wrong with them must not hide the shards."""
    history, problems = History(()), []
    try:
        history = Journal(layout).read()
        if history.damaged:
            lines = plural(len(history.damaged), "line")
            problems.append(f"{Journal(layout).path}: {lines} can't be read; see history")
    except ShardtoolError as error:
        problems.append(str(error))
    left: tuple[Leftover, ...] = ()
    try:
        left = leftovers(trash_of(layout), history, _still_proven(layout))
    except ShardtoolError as error:
        problems.append(str(error))
    except OSError as error:
        problems.append(f"{trash_of(layout)}: can't be read: {reason_of(error)}")
    return history, left, tuple(problems)


def _still_proven(layout: Layout) -> Callable[[Mapping[str, Any]], bool]:
    def says(intent: Mapping[str, Any]) -> bool:
        # Imported only where there is something in the trash.
        from shardtool.proof.evidence import still_proven

        return still_proven(layout)(intent)

    return says


def _has_snapshot(layout: Layout) -> bool:
    # Imported only before the upgrade, when it matters: it takes a tenth of a whole status.
    from shardtool.snapshots.store import has_snapshot

    return has_snapshot(layout.snapshots)


def old_document(judged: Judged) -> dict[str, Any]:
    """Return an entry of shard_db as it stands in documents."""
    shard = judged.shard
    return {
        "id": shard.name,
        "verdict": judged.verdict,
        "reasons": [reason.word for reason in judged.reasons],
        "details": [reason.detail for reason in judged.reasons],
        "marker": {
            "present": shard.marker.present,
            "valid": shard.marker.valid,
            "written_at": iso(shard.marker.written_at_ns),
        },
        "in_use": judged.in_use,
        "files": shard.tree.files,
        "apparent_bytes": shard.tree.apparent_bytes,
        "allocated_bytes": shard.tree.allocated_bytes,
        "reclaimable_bytes": judged.reclaimable_bytes,
        "last_write_at": iso(shard.tree.last_write_ns),
    }


def new_document(shard: NewShard) -> dict[str, Any]:
    """Return an entry of shard_db_v2 as it stands in documents."""
    return {
        "id": shard.name,
        "engine": shard.engine,
        "files": shard.tree.files,
        "allocated_bytes": shard.tree.allocated_bytes,
        "error": shard.error or None,
    }


def trash_document(left: Leftover) -> dict[str, Any]:
    """Return what an interrupted prune left as it stands in documents."""
    return {"name": left.name, "action": left.action, "reclaimable_bytes": left.reclaimable_bytes}
