"""What the tests of the inventory share."""

from __future__ import annotations

from pathlib import Path

from shardtool.datadir.inventory import Inventory, OldShard, scan_old_shard, take_inventory
from shardtool.datadir.layout import find_layout
from shardtool.datadir.verdict import judge, judge_all


def inventory(data: Path) -> Inventory:
    """Take the inventory of a data directory."""
    return take_inventory(find_layout(str(data), None, {}), fingerprints=True)


def verdicts(data: Path) -> dict[str, str]:
    """Return the verdict over each entry of shard_db."""
    return {j.shard.name: j.verdict for j in judge_all(inventory(data))}


def scan(shard: Path) -> OldShard:
    """Scan one shard."""
    found = scan_old_shard(shard.parent, shard.name, fingerprint=True)
    assert found is not None
    return found


def judged(shard: Path) -> tuple[str, list[str]]:
    """Judge one shard: verdict and reasons' words."""
    found = judge(scan(shard))
    return found.verdict, [reason.word for reason in found.reasons]
