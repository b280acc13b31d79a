"""From receipts and proofs to evidence, which verdicts and plans are made of."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeAlias

from shardtool.datadir.inventory import Inventory, OldShard
from shardtool.datadir.layout import Layout
from shardtool.datadir.verdict import Evidence, Reason
from shardtool.disk.durable import READ_DIRECTORY_ITSELF, opened_quietly
from shardtool.disk.locks import Lock, look_at_lock
from shardtool.journal import History
from shardtool.proof.causes import NOT_WANTED
from shardtool.proof.listing import Listing
from shardtool.proof.prove import Finding, Question
from shardtool.proof.receipts import NewSide, Receipt, Receipts
from shardtool.proof.run import Job, Lister, Outcome, Setting, Told, prove_all
from shardtool.proof.source import RaftCatalogue
from shardtool.proof.storage import LocalShard

Accepted: TypeAlias = frozenset[tuple[str, str, str]]
"""Losses that the operator has accepted: shard, digest of its values, digest of its losses."""


@dataclass
class Proofs:
    """What is known of old shards by proof, by name.

    Args:
        accepted: what the operator has accepted so far.
        evidence: what a verdict takes.
        receipts: of those that could be proven.
        reused: those whose receipt was there already and holds.
    """

    accepted: Accepted = frozenset()
    evidence: dict[str, Evidence] = field(default_factory=dict)
    receipts: dict[str, Receipt] = field(default_factory=dict)
    reused: set[str] = field(default_factory=set)

    def add(self, receipt: Receipt) -> None:
        """Take a receipt that holds now."""
        finding = receipt.finding
        key = (receipt.shard, finding.digest, finding.losses_digest)
        self.receipts[receipt.shard] = receipt
        self.evidence[receipt.shard] = Evidence(
            values=finding.values,
            missing=finding.missing,
            different=finding.different,
            elsewhere=finding.elsewhere,
            unasked=finding.unasked,
            rescuable=_rescuable(finding),
            accepted=key in self.accepted,
        )

    def forget(self, shard: str) -> None:
        """Leave out a shard: it is to be proven again."""
        del self.receipts[shard], self.evidence[shard]
        self.reused.discard(shard)

    def forget_answers(self) -> None:
        """Leave out what rests on other servers' answers: for a deletion these are to be asked
        again, for what they answered then is no evidence now."""
        for name, receipt in list(self.receipts.items()):
            if receipt.finding.asked:
                self.forget(name)

    def fail(self, shard: str, failure: Reason, *, busy: bool = False) -> None:
        """Note that a shard could not be proven, and why."""
        self.evidence[shard] = Evidence(failure=failure, busy=busy)


def _rescuable(finding: Finding) -> int:
    return sum(loss.missing for loss in finding.losses if loss.cause not in NOT_WANTED)


def accepted_in(history: History) -> Accepted:
    """Given the journal, return the losses that the operator has accepted."""
    return frozenset(
        (str(r.get("shard")), str(r.get("digest")), str(r.get("losses_digest")))
        for r in history.records
        if r["event"] == "accepted"
    )


def held(layout: Layout, shards: Iterable[str], history: History) -> Proofs:
    """Return what the receipts that hold say of `shards`."""
    proofs = Proofs(accepted_in(history))
    receipts, new_side = Receipts(layout), NewSide(layout, RaftCatalogue(layout.raft))
    for shard in receipts.names().intersection(shards):
        receipt = receipts.holding(shard, new_side)
        if receipt is not None:
            proofs.add(receipt)
            proofs.reused.add(shard)
    return proofs


def prove_shards(
    shards: Sequence[OldShard],
    layout: Layout,
    setting: Setting,
    proofs: Proofs,
    told: Told,
    *,
    lister: Callable[[str], Lister] | None = None,
) -> Generator[str, None, None]:
    """Prove `shards`, add what is found to `proofs`, and yield each one's name as it ends.

    Args:
        shards: what to prove; each is a directory that holds a database.
        layout: the node.
        setting: what to compare with.
        proofs: filled as shards end; receipts are for the caller to write.
        told: told how it goes.
        lister: makes what collects a shard's lost values for `told`; None: they are not listed.

    Raises:
        ShardtoolError: no shard can be proven here: no room for links, a server that refuses.
    """
    now = datetime.now(UTC)
    jobs = [
        Job(
            Question(
                layout.old_shards / shard.name,
                None if shard.marker.written_at_ns is None else shard.marker.written_at_ns // 1000,
                int(now.timestamp() * 1_000_000),
                old_state="",
                listing=lister is not None,
            ),
            shard.tree.apparent_bytes,
        )
        for shard in shards
    ]
    ends = prove_all(jobs, setting, told, lister or Listing)
    with contextlib.closing(ends) as outcomes:
        for outcome in outcomes:
            _take(outcome, proofs)
            yield outcome.shard


def _take(outcome: Outcome, proofs: Proofs) -> None:
    if outcome.finding is not None:
        proofs.add(Receipt(outcome.shard, datetime.now(UTC), outcome.finding))
    else:
        busy = outcome.word != "engine-unreadable"
        proofs.fail(outcome.shard, Reason(outcome.word, outcome.detail), busy=busy)


def local_shards(layout: Layout, inventory: Inventory) -> dict[str, LocalShard]:
    """Return the new shards on this node's disk by name, as a proof reads them."""
    return {
        shard.name: LocalShard(
            layout.new_shards / shard.name,
            shard.engine,
            shard.error,
            in_use=shard.engine == "lmdb" and _is_open(layout, shard.name),
        )
        for shard in inventory.new or ()
    }


def _is_open(layout: Layout, name: str) -> bool:
    """Say whether a process has an lmdb open: each holds a lock on its lock.mdb."""
    try:
        with opened_quietly(layout.new_shards / name, READ_DIRECTORY_ITSELF) as directory:
            return look_at_lock("lock.mdb", dir_fd=directory).state is not Lock.FREE
    except OSError:
        return False  # it can't be opened, and reading it will say so


def is_readable(shard: OldShard) -> bool:
    """Say whether an entry of shard_db can be read as a shard at all, whatever else is wrong."""
    is_whole = shard.kind == "directory" and shard.has_database and not shard.error
    return is_whole and not shard.mounts and shard.lock.state is not Lock.HELD


def still_proven(layout: Layout) -> Callable[[Mapping[str, Any]], bool]:
    """Return what says whether the proof that a prune's intent names still holds.

    It takes the intent's journal record. The old side is the trash's business; here it is the
    new one: whether it has changed since, so that what was found may be gone.
    """

    raft = RaftCatalogue(layout.raft)

    def says(intent: Mapping[str, Any]) -> bool:
        if intent.get("evidence") not in ("proof", "accepted"):
            return True  # the marker was trusted, out loud
        receipt = Receipts(layout).read(str(intent.get("shard")))
        if receipt is None or receipt.finding.digest != intent.get("digest"):
            return False
        if receipt.finding.asked:
            return False  # what other servers answered to a run that is over is no evidence now
        return NewSide(layout, raft).is_same(receipt)

    return says
