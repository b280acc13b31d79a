"""What the tests of prune's execution share: plans, and what is where after a run."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from fixtures import Node
from shardtool.datadir.inventory import take_inventory
from shardtool.datadir.layout import Layout, find_layout
from shardtool.datadir.verdict import judge_all
from shardtool.errors import ShardtoolError
from shardtool.journal import Journal
from shardtool.proof.evidence import Proofs, held, local_shards, prove_shards, still_proven
from shardtool.proof.receipts import Receipts
from shardtool.proof.run import Setting
from shardtool.proof.source import catalogue_of
from shardtool.prune.execute import Outcome, execute
from shardtool.prune.plan import Plan, make_plan
from shardtool.prune.policy import Policy
from shardtool.prune.trash import leftovers, trash_of
from tests.real.receipts.world import Quiet

NAMES = ["00001", "00002", "00003"]


def layout_of(node: Node) -> Layout:
    """Find a node's layout."""
    return find_layout(str(node.path), None, {})


def plan_for(node: Node, **policy: Any) -> Plan:
    """Plan as `shardtool prune --trust marker` does."""
    layout = layout_of(node)
    inventory = take_inventory(layout, fingerprints=True)
    return make_plan(
        judge_all(inventory),
        Policy(trust_marker=True, **policy),
        leftovers(trash_of(layout), Journal(layout).read(), lambda intent: True),
        {},
        free_bytes=inventory.file_system.free_bytes,
        now_ns=time.time_ns(),
    )


def prove(node: Node) -> None:
    """Prove every old shard and write the receipts, as `shardtool verify` does."""
    layout = layout_of(node)
    inventory = take_inventory(layout)
    proofs = Proofs()
    of = Setting(catalogue_of(layout, None), local_shards(layout, inventory))
    list(prove_shards(inventory.old or (), layout, of, proofs, Quiet()))
    for receipt in proofs.receipts.values():
        Receipts(layout).write(receipt)


def proven_plan(node: Node) -> Plan:
    """Plan as `shardtool prune --no-verify` does: on receipts alone."""
    layout = layout_of(node)
    history, inventory = Journal(layout).read(), take_inventory(layout, fingerprints=True)
    proofs = held(layout, [shard.name for shard in inventory.old or ()], history)
    return make_plan(
        judge_all(inventory, proofs.evidence),
        Policy(),
        leftovers(trash_of(layout), history, still_proven(layout)),
        proofs.receipts,
        free_bytes=inventory.file_system.free_bytes,
        now_ns=time.time_ns(),
    )


def carry_out(node: Node, plan: Plan | None = None) -> Outcome:
    """Execute a plan, a fresh one if none is given."""
    outcome = Outcome()
    execute(plan or plan_for(node), layout_of(node), outcome, lambda names: None)
    return outcome


def kept(outcome: Outcome) -> dict[str, list[str]]:
    """Return the reasons' words by what was kept."""
    return {name: [reason.word for reason in reasons] for name, reasons in outcome.kept}


def in_trash(node: Node) -> list[str]:
    """Return what is in the trash."""
    trash = node.db / ".shardtool/trash"
    return sorted(os.listdir(trash)) if trash.is_dir() else []


def shards(node: Node) -> list[str]:
    """Return what is in shard_db."""
    return sorted(os.listdir(node.shard_db))


def events(node: Node) -> list[tuple[str, str]]:
    """Return event and shard of each record in the journal."""
    records = Journal(layout_of(node)).read().records
    return [(record["event"], record["shard"]) for record in records]


def records(node: Node, event: str) -> dict[str, dict[str, Any]]:
    """Return the journal's records of an event by shard; each has one."""
    found = [r for r in Journal(layout_of(node)).read().records if r["event"] == event]
    by_shard = {record["shard"]: record for record in found}
    assert len(by_shard) == len(found)
    return by_shard


def contents(directory: Path) -> dict[str, bytes]:
    """Return the names in a directory and what is in them."""
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def syncs_and_events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that fills with the names of what is synced, with 'rename' for each of those
    and with the journal's events."""
    seen: list[str] = []
    fsync, rename, append = os.fsync, os.rename, Journal.append_all

    def note_sync(descriptor: int) -> None:
        seen.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    def note_rename(*args: Any, **settings: Any) -> None:
        seen.append("rename")
        rename(*args, **settings)

    def note_append(journal: Journal, records: Any) -> None:
        records = list(records)
        seen.append(records[0]["event"])
        append(journal, records)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "rename", note_rename)
    monkeypatch.setattr(Journal, "append_all", note_append)
    return seen


def lose_the_journal_after(calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let so many writes of the journal pass."""
    real, passed = Journal.append_all, [0]

    def fail(journal: Journal, records: Any) -> None:
        passed[0] += 1
        if passed[0] > calls:
            raise ShardtoolError("the journal can't be written: no space")
        real(journal, records)

    monkeypatch.setattr(Journal, "append_all", fail)


def set_back(path: Path) -> None:
    """Change a file's content and set its mtime back."""
    before = path.stat()
    path.write_bytes(b"x" * before.st_size)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
