"""A node as facts, as monitoring is told of it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shardtool.cli.standing import Standing
from shardtool.datadir.holders import Holders
from shardtool.datadir.inventory import FileSystem, Inventory, NewShard, OldShard
from shardtool.datadir.layout import Layout
from shardtool.datadir.marker import Marker
from shardtool.datadir.verdict import Evidence, Judged, judge
from shardtool.disk.tree import Tree
from shardtool.journal import History
from shardtool.monitor.metrics import Found
from shardtool.proof.columns import Name
from shardtool.proof.prove import Finding, Loss
from shardtool.proof.receipts import Receipt
from shardtool.prune.trash import Leftover
from shardtool.upgrade.stage import Stage

LAYOUT = Layout(Path("/d/db"), Path("/d/raft"), Path("/d/wal"), None, "/d")
MARKED_NS = 1_412_266_800_000_000_000
MIGRATED = Stage("migrated", "every old shard is marked as migrated", "shardtool verify")


def shard(number: int, evidence: Evidence | None = None, *, marked: bool = True) -> Judged:
    """Return an old shard of 4,096 bytes, sound but for what a proof found."""
    tree = Tree(
        inode=number, files=8, apparent_bytes=4_000, allocated_bytes=4_096, reclaimable_bytes=4_096
    )
    marker = Marker(present=True, written_at_ns=MARKED_NS) if marked else Marker()
    return judge(OldShard(f"{number:05d}", marker=marker, tree=tree, has_database=True), evidence)


def losing(number: int, *, accepted: bool = False) -> Judged:
    """Return a shard that has lost 3 of 100 values."""
    return shard(number, Evidence(values=100, missing=2, different=1, accepted=accepted))


def unreadable(number: int) -> Judged:
    """Return a shard that can't be looked at."""
    return judge(OldShard(f"{number:05d}", error="Input/output error"))


def node(
    *old: Judged,
    new: tuple[NewShard, ...] = (),
    left: tuple[Leftover, ...] = (),
    stage: Stage = MIGRATED,
    problems: tuple[str, ...] = (),
    records: tuple[dict[str, Any], ...] = (),
    free: int = 50_000,
) -> Standing:
    """Return a node with these old shards, on a file system of 100,000 bytes."""
    inventory = Inventory(tuple(j.shard for j in old), new, FileSystem(100_000, free), Holders())
    return Standing(LAYOUT, inventory, old, History(records), left, stage, problems)


def receipt(number: int, *, day: int, missing: int = 0) -> Receipt:
    """Return a receipt of a proof in November 2026, which found values missing for their names."""
    losses = (Loss(Name("db", "a~b", "v"), 100, missing, 0, "name", 0, 1),) if missing else ()
    finding = Finding(
        values=100,
        missing=missing,
        different=0,
        asked=0,
        losses=losses,
        elsewhere=False,
        unasked=False,
        digest="a" * 64,
        losses_digest="b" * 64,
        old_state="c" * 64,
        new_states={},
        ids="",
        basis="",
    )
    return Receipt(f"{number:05d}", datetime(2026, 11, day, tzinfo=UTC), finding)


def found(report: Standing, *receipts: Receipt, **settings: Any) -> Found:
    """Return what a run of status found."""
    return Found(report, {one.shard: one for one in receipts}, **settings)
