"""Look at a node, from what is on disk alone: nothing is proven, changed or locked."""

from __future__ import annotations

import os
import socket
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from heapq import nlargest
from pathlib import Path

from shardtool import __version__
from shardtool.cli.prune import document_of
from shardtool.cli.snapshots import as_json
from shardtool.cli.standing import (
    Standing,
    new_document,
    old_document,
    standing,
    trash_document,
)
from shardtool.datadir.layout import Layout
from shardtool.datadir.verdict import Judged, judge_all
from shardtool.disk.locks import Lock
from shardtool.errors import ShardtoolError, reason_of
from shardtool.influxdb.errors import CatalogueError
from shardtool.influxdb.model import Catalogue
from shardtool.influxdb.raft import own_name
from shardtool.proof.evidence import Proofs, accepted_in, still_proven
from shardtool.proof.listing import iso_us
from shardtool.proof.prove import Loss
from shardtool.proof.receipts import (
    ANSWERS_HOLD,
    NewSide,
    Receipt,
    Receipts,
    is_same_old_side,
)
from shardtool.proof.source import RaftCatalogue, catalogue_of
from shardtool.prune.plan import make_plan
from shardtool.prune.policy import Policy
from shardtool.prune.trash import all_leftovers
from shardtool.report import model
from shardtool.report.past import accepted_losses, deleted_shards
from shardtool.report.shape import shaped
from shardtool.snapshots.store import list_store
from shardtool.words import plural

MOST_LOSSES = 10_000  # columns in a document
MOST_EVENTS = 10_000  # of the journal


def made_now(command: str) -> model.Made:
    """Return who makes a report at this moment, by which command."""
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return model.Made(__version__, socket.gethostname(), now, command)


def look(layout: Layout, store: str, made: model.Made) -> model.Node:
    """Look at a node once.

    Args:
        layout: the node.
        store: the directory of its snapshots, which need not be there, or a URL, which is not
            asked: what a report tells is from what is on disk.
        made: who looks.

    Raises:
        OSError: shard_db or shard_db_v2 can't be listed.
        ShardtoolError: a scanning process died.
    """
    found = standing(layout)
    sight = _Sight(layout, found)
    old = tuple(sight.old_shard(judged) for judged in found.old)
    room = found.inventory.file_system
    names = frozenset(shard.id for shard in old)
    accepted = {s.id for s in old if s.proof and s.proof.holds and s.proof.accepted}
    records = found.history.records
    snapshots = _snapshots(store)
    return model.Node(
        data=found.layout.name,
        db=os.path.realpath(layout.db),
        made=made,
        stage=found.stage.name,
        stage_words=found.stage.words,
        next=found.stage.next,
        advice=found.stage.advice,
        attention=tuple(_attention(found, old, sight.raft, snapshots)),
        filesystem=model.FileSystem(room.total_bytes, room.free_bytes),
        raft=sight.raft,
        old_shards=old,
        new_shards=tuple(
            shaped(model.NewShard, new_document(shard)) for shard in found.inventory.new or ()
        ),
        gone=deleted_shards(records, names),
        trash=tuple(shaped(model.Trash, trash_document(left)) for left in found.left),
        unseen_processes=found.inventory.holders.unseen,
        losses=sight.losses(),
        accepted=accepted_losses(records, accepted),
        plan=sight.plan(),
        snapshots=snapshots,
        history=model.History(records[-MOST_EVENTS:], len(records), len(found.history.damaged)),
    )


class _Sight:
    """What is known of a node's old shards beyond its standing: receipts and raft."""

    def __init__(self, layout: Layout, found: Standing) -> None:
        self._layout = layout
        self._standing = found
        self._receipts = Receipts(layout)
        raft = RaftCatalogue(layout.raft)
        self._new_side = NewSide(layout, raft)
        known = raft.now()
        self._catalogue: Catalogue | None = known[0] if known else None
        self.raft = self._place()
        self._proofs = Proofs(accepted_in(found.history))

    def _place(self) -> model.Raft:
        name, problem = "", ""
        try:
            name = own_name(self._layout.raft) or ""
            # What RaftCatalogue keeps to itself is why it can't be told.
            catalogue = self._catalogue or catalogue_of(self._layout, None)
        except CatalogueError as error:
            return model.Raft(None, name, (), str(error))
        servers = tuple(server.id for server in catalogue.servers)
        return model.Raft(catalogue.own_server, name, servers, problem)

    def old_shard(self, judged: Judged) -> model.OldShard:
        """Return a shard with its last proof; one that holds is evidence from now on."""
        name = judged.shard.name
        proof = self._proof(name)
        number = int(name) if judged.is_shard else -1
        servers: tuple[int, ...] = ()
        times = None
        if self._catalogue is not None:
            servers = self._catalogue.old_shards.get(number, ())
            times = self._catalogue.old_ranges.get(number)
        return model.OldShard(
            range=None if times is None else model.Range(iso_us(times[0]), iso_us(times[1])),
            servers=servers,
            proof=proof,
            is_shard=judged.is_shard,
            **vars(shaped(model.Looked, old_document(judged))),
        )

    def _proof(self, shard: str) -> model.Proof | None:
        read = self._receipts.read_with_checksum(shard)
        if read is None:
            return None
        receipt, checksum = read
        why_not = self._why_not(receipt)
        if not why_not:
            self._proofs.add(receipt)
        finding = receipt.finding
        key = (shard, finding.digest, finding.losses_digest)
        return model.Proof(
            proven_at=receipt.proven_at.isoformat().replace("+00:00", "Z"),
            holds=not why_not,
            why_not=why_not,
            values=finding.values,
            missing=finding.missing,
            different=finding.different,
            found_by_asking=finding.asked,
            elsewhere=finding.elsewhere,
            accepted=key in self._proofs.accepted,
            rests_on=tuple(sorted(finding.new_states)),
            digest=finding.digest,
            losses_digest=finding.losses_digest,
            receipt_sha256=checksum,
        )

    def _why_not(self, receipt: Receipt) -> model.WhyNot:
        """Return why a receipt does not hold; empty if it does."""
        if not is_same_old_side(receipt, self._layout):
            return "old-side-changed"
        if self._new_side.is_same(receipt):
            return ""
        if self._catalogue is None:
            return "catalogue-unreadable"
        age = datetime.now(UTC) - receipt.proven_at
        is_old = receipt.finding.asked and not timedelta() <= age < ANSWERS_HOLD
        return "answers-too-old" if is_old else "new-side-changed"

    def losses(self) -> model.Losses:
        """Return what marked shards would lose, the largest losses first."""
        found = [
            (judged.shard.name, loss)
            for judged in self._standing.shards
            if judged.shard.marker.present and judged.shard.name in self._proofs.receipts
            for loss in self._proofs.receipts[judged.shard.name].finding.losses
        ]
        by_cause: Counter[str] = Counter()
        for _, loss in found:
            by_cause[loss.cause] += loss.missing + loss.different
        largest = nlargest(MOST_LOSSES, found, key=lambda one: one[1].missing + one[1].different)
        shown = tuple(_loss(shard, loss) for shard, loss in largest)
        return model.Losses(by_cause.total(), len(found), dict(by_cause), shown)

    def plan(self) -> model.Plan | None:
        """Return what prune would do on receipts alone; None where it could do nothing at all."""
        try:
            left = all_leftovers(self._layout, self._standing.history, still_proven(self._layout))
        except (ShardtoolError, OSError):
            return None  # the standing tells why
        self._proofs.forget_answers()
        inventory = self._standing.inventory
        plan = make_plan(
            judge_all(inventory, self._proofs.evidence),
            Policy(),
            left,
            self._proofs.receipts,
            free_bytes=inventory.file_system.free_bytes,
            now_ns=time.time_ns(),
        )
        return shaped(model.Plan, document_of(plan, True, None))


def _loss(shard: str, loss: Loss) -> model.Loss:
    return model.Loss(
        shard=shard,
        database=loss.name.database,
        series=loss.name.series,
        column=loss.name.column,
        cause=loss.cause,
        values=loss.values,
        missing=loss.missing,
        different=loss.different,
        first=iso_us(loss.first_us),
        last=iso_us(loss.last_us),
    )


def _snapshots(store: str) -> model.Snapshots:
    if "://" in store:
        return model.Snapshots(store, False, (), "")
    try:
        # A node's own place comes into being with its first backup.
        found = list_store(Path(store)).snapshots if os.path.lexists(store) else ()
    except ShardtoolError as error:
        return model.Snapshots(store, True, (), str(error))
    except OSError as error:
        return model.Snapshots(store, True, (), f"{store}: {reason_of(error)}")
    listed = tuple(shaped(model.Snapshot, as_json(snapshot)) for snapshot in found)
    return model.Snapshots(store, True, listed, "")


def _attention(
    found: Standing,
    old: tuple[model.OldShard, ...],
    raft: model.Raft,
    snapshots: model.Snapshots,
) -> Iterator[str]:
    """Yield what is not as it should be, the worst first."""
    losing = [s.losing for s in old if s.is_shard and s.losing and not s.losing.accepted]
    for elsewhere, words in (
        (False, "not in the new storage, and nobody accepted that"),
        (True, "not in the new storage here, and other servers were not asked (verify --api)"),
    ):
        some = [proof.lost for proof in losing if proof.elsewhere is elsewhere]
        if some:
            yield f"{plural(sum(some), 'value')} of {plural(len(some), 'shard')} {words}"
    for judged in found.wrong:
        words = "; ".join(f"{r.word} {r.detail}".strip() for r in judged.reasons)
        yield f"{judged.shard.name}: {judged.verdict}: {words}"
    for judged in found.shards:
        if judged.shard.lock.state is Lock.UNKNOWN and judged not in found.wrong:
            yield f"{judged.shard.name}: lock-unknown: its LOCK can't be looked at"
    for shard in found.inventory.new or ():
        if shard.error:
            yield f"new shard {shard.name}: {shard.error}"
    for left in found.left:
        if left.action == "leave":
            yield f"trash: {left.name}: not known to the journal"
    yield from found.problems
    if raft.problem and old:
        yield raft.problem
    if snapshots.problem:
        yield snapshots.problem
    for snapshot in snapshots.snapshots:
        if snapshot.problem:
            yield f"snapshot {snapshot.id}: damaged: {snapshot.problem}"
