"""What `shardtool rescue` does: look and plan, send, and look until what was sent is there."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from shardtool.cli.options import named_shards
from shardtool.cli.output import Output
from shardtool.cli.progress import Progress
from shardtool.cli.proving import Collecting, prove_into
from shardtool.cli.rescued import Told, lost_in
from shardtool.datadir.inventory import Inventory, OldShard, take_inventory
from shardtool.datadir.layout import Layout
from shardtool.errors import InterruptedByUserError, ShardtoolError
from shardtool.journal import History, Journal
from shardtool.proof.evidence import Proofs, accepted_in, held, is_readable
from shardtool.rescue.plan import Plan, Spools, make_plan
from shardtool.rescue.points import Batch, Point, batches_of, entries_of
from shardtool.rescue.send import Sender
from shardtool.rescue.spool import Spool
from shardtool.words import plural

if TYPE_CHECKING:
    from shardtool.influxdb.api import Api

_MOST_POINTS = 2000
_MOST_BYTES = 512 << 10
_SETTLE_SECONDS = 20.0
"""How long the server may take to bring what it took from its WAL into the shards."""


def look(
    args: argparse.Namespace, layout: Layout, api: Api, scratch: Path, out: Output
) -> tuple[Told, Spools]:
    """Prove the shards and plan what is to be sent.

    Args:
        args: the command line.
        layout: the node.
        api: its server.
        scratch: an empty directory for what is lost.
        out: where to tell.

    Returns:
        The plan, and the values.

    Raises:
        ShardtoolError: a shard that was named can't be read, or it can't be done at all.
        InterruptedByUserError: ctrl-C.
    """
    inventory = take_inventory(layout)
    shards, left_out = _chosen(args, layout, inventory)
    history = Journal(layout).read()
    others = _others(layout, inventory, shards, history) if args.shards else []
    chosen = {shard.name for shard in shards}
    spools = Spools(scratch)
    collecting = Collecting(Spool, spools.add)
    proofs = Proofs(accepted_in(history))
    prove_into(proofs, [*shards, *others], args, layout, inventory, out, collecting=collecting)
    for name in set(proofs.receipts) - chosen:
        proofs.forget(name)
    accepted = set()
    if not args.shards:
        accepted = {name for name, found in proofs.evidence.items() if found.accepted}
    spools.sent = chosen - accepted
    plan = make_plan(
        spools,
        known=api.databases(),
        create=args.create_databases,
        also=args.also,
        accepted=accepted,
    )
    return Told(plan, shards, proofs, left_out), spools


def _others(
    layout: Layout, inventory: Inventory, shards: Sequence[OldShard], history: History
) -> list[OldShard]:
    """Return the marked shards that are not to be rescued and may have lost values too: a later
    one of them may have another value for the same place, which is not to be kept out."""
    known = held(layout, [shard.name for shard in inventory.old or ()], history).receipts
    return [
        shard
        for shard in inventory.old or ()
        if shard not in shards and shard.marker.present and is_readable(shard)
        if shard.name not in known or known[shard.name].finding.lost
    ]


def _chosen(
    args: argparse.Namespace, layout: Layout, inventory: Inventory
) -> tuple[tuple[OldShard, ...], tuple[str, ...]]:
    """Return the shards to rescue, those named or all that have a marker, and the names of marked
    ones that can't be read now.

    Raises:
        ShardtoolError: one that was named is not there, or can't be read now.
    """
    old = {shard.name: shard for shard in inventory.old or ()}
    named = named_shards(args.shards, old, layout)
    if named is None:
        # Of what can't be looked at nobody knows whether it is marked.
        marked = [s for s in old.values() if s.marker.present or s.error or s.kind == "symlink"]
        readable = tuple(shard for shard in marked if is_readable(shard))
        return readable, tuple(s.name for s in marked if not is_readable(s))
    for name in sorted(named):
        if not is_readable(old[name]):
            raise ShardtoolError(
                f"{layout.old_shards / name}: expected a shard that can be read and that nobody "
                "has open, found another; see shardtool status"
            )
    return tuple(old[name] for name in sorted(named)), ()


def prove_until_settled(
    args: argparse.Namespace, layout: Layout, told: Told, out: Output
) -> Proofs:
    """Prove again, until what was sent is there or the server has had its time to write it."""
    names = told.plan.shards
    deadline = time.monotonic() + _SETTLE_SECONDS
    wait = 0.5
    while True:
        inventory = take_inventory(layout)
        shards = [s for s in inventory.old or () if s.name in names and is_readable(s)]
        after = Proofs(told.proofs.accepted)
        prove_into(after, shards, args, layout, inventory, out)
        whole = Proofs(after.accepted)
        for name, receipt in {**told.proofs.receipts, **after.receipts}.items():
            if name not in names or name in after.receipts:
                whole.add(receipt)
        if lost_in(whole) <= told.expected or time.monotonic() > deadline:
            return whole
        time.sleep(wait)
        wait *= 2


def send(
    args: argparse.Namespace, layout: Layout, api: Api, spools: Spools, told: Told, out: Output
) -> None:
    """Send the plan, with a record in the journal before and after.

    Where the server can't be written to any more, `told.failure` says so.

    Raises:
        ShardtoolError: the journal can't be written; nothing was sent.
        InterruptedByUserError: ctrl-C; what was sent stays sent.
    """
    plan, journal = told.plan, Journal(layout)
    journal.append(
        "rescue-started",
        api=api.url,
        shards=sorted(plan.shards),
        values=plan.total,
        databases=sorted(plan.databases),
        also=sorted(set(args.also)),
    )
    ended = "failed"
    try:
        for database in sorted(plan.databases):
            try:
                api.create_database(database)
            except ShardtoolError as error:
                out.warn(str(error))
                plan.give_up(database)
        with Progress("sending", plan.total, unit="values", out=out) as bar:
            sender = Sender(api, args.pause.us / 1_000_000, lambda batch: _sent(told, batch, bar))
            for batch in _batches(plan, spools, args.also):
                for refused in sender.send(batch):
                    told.refuse(refused)
        ended = "sent"
    except KeyboardInterrupt:
        ended = "interrupted"
        raise InterruptedByUserError(f"interrupted; {_how_far(told)}") from None
    except ShardtoolError as error:
        told.failure = f"{error}; {_how_far(told)}"
    finally:
        with contextlib.suppress(ShardtoolError):
            journal.append("rescue-ended", how=ended, sent=told.sent, refused=told.refused)


def _how_far(told: Told) -> str:
    total = plural(told.plan.total, "value")
    return f"{told.sent:,} of {total} were sent and stay; run rescue again to go on"


def _sent(told: Told, batch: Batch, bar: Progress) -> None:
    told.sent += batch.values
    bar.advance(batch.values)


def _batches(plan: Plan, spools: Spools, also: Collection[str]) -> Iterator[Batch]:
    """Yield what the plan sends."""
    limits = {"most_points": _MOST_POINTS, "most_bytes": _MOST_BYTES}
    entries = (
        entry
        for series in plan.series
        for entry in entries_of(
            series.database,
            series.name,
            (p for p in spools.points(series, also) if isinstance(p, Point)),
            **limits,
        )
    )
    return batches_of(entries, **limits)
