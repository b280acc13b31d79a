"""`shardtool rescue`: send what the migration left behind to the running 0.8, and look again."""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from shardtool.cli import exits
from shardtool.cli.api import add_api, opened_api
from shardtool.cli.options import add_shards, add_yes, confirmed, named_shards, pause_of
from shardtool.cli.output import Output, safe, short
from shardtool.cli.progress import Progress
from shardtool.cli.proving import Collecting, prove_into
from shardtool.datadir.inventory import Inventory, OldShard, take_inventory
from shardtool.datadir.layout import Layout, find_layout
from shardtool.errors import InterruptedByUserError, ShardtoolError
from shardtool.journal import Journal
from shardtool.proof.causes import NOT_WANTED
from shardtool.proof.children import scratch_directory
from shardtool.proof.evidence import Proofs, accepted_in, is_readable
from shardtool.proof.listing import iso_us
from shardtool.rescue.plan import ACCEPTED, LEFT, Plan, Spools, make_plan
from shardtool.rescue.points import WHY, Entry, Point, Unsendable, entries_of
from shardtool.rescue.send import Refused, Sender
from shardtool.rescue.spool import Spool
from shardtool.snapshots.pending import refuse_half_restored
from shardtool.upgrade.pause import Pause
from shardtool.words import plural

if TYPE_CHECKING:
    from shardtool.influxdb.api import Api

DESCRIPTION = """\
Sends exactly those values that are in old shards and not in the new storage to
the running 0.8, with their times and sequence numbers, so that they are the
same values; then proves the shards again. Sending a value twice changes
nothing: a rescue that was interrupted is gone on with by the next one."""

EPILOG = """\
Without SHARD, all shards that have a marker are looked at; one that the
migration has not been to yet is rescued only where it is named. What a client
writes under the time and the sequence number of a lost value while rescue is at
work is overwritten: the server gives sequence numbers of its own to all others.

What stays behind is listed with the reason:
  sequence, time   an identity that the float64 which 0.8 reads it as changes
  number, bytes    NaN, infinities, strings and names that are no UTF-8
  ambiguous        two databases can be meant by the name (a ~ in one)
  name             a column called time or sequence_number, names without a URL
  refused          the server refused just these values
  different        0.8 has another value there
  expired, dropped gone from 0.8 because somebody wanted it so: see --also
  accepted         these losses were accepted; name the shard to send them
  no-database      see --create-databases
Values that can't be sent have one way out: shardtool export.

examples:
  shardtool rescue --dry-run
  shardtool rescue --yes
  shardtool rescue 5 10 --pause 1s --create-databases

Exit code 3 if values stay behind."""

_MOST_POINTS = 2000
_MOST_BYTES = 512 << 10
_MOST_SERIES = 20
_SETTLE_SECONDS = 20.0
"""How long the server may take to bring what it took from its WAL into the shards."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what only this command takes."""
    add_shards(parser)
    parser.add_argument("--dry-run", action="store_true", help="show what would be sent")
    parser.add_argument(
        "--create-databases",
        action="store_true",
        help="make databases that 0.8 does not know, for the values in them",
    )
    parser.add_argument(
        "--also",
        action="append",
        default=[],
        choices=NOT_WANTED,
        help="send values too that are gone for this cause; may be given twice",
    )
    parser.add_argument(
        "--pause",
        type=pause_of,
        default=Pause.of("100ms"),
        metavar="TIME",
        help="how long to rest after each 10,000 points (units u ms s m; default: 100ms)",
    )
    add_yes(parser)
    add_api(
        parser,
        about="a server of the running cluster (default: http://localhost and the port of the "
        "node's config.toml, else 8086)",
    )


@dataclass
class _Told:
    """What is to be told at the end."""

    plan: Plan
    shards: Sequence[OldShard]
    proofs: Proofs
    left_out: tuple[str, ...]
    sent: int = 0
    refused: list[Refused] = field(default_factory=list)
    after: Proofs | None = None

    @property
    def lost(self) -> int:
        """Values that are only in old shards, but for those that were accepted and not touched."""
        proofs, touched = self.after or self.proofs, {part.shard for part in self.plan.parts}
        return sum(
            receipt.finding.lost
            for name, receipt in proofs.receipts.items()
            if name in touched or not proofs.evidence[name].accepted
        )

    @property
    def accepted(self) -> int:
        """Values that are left alone because it was accepted that they go."""
        return self.plan.left[ACCEPTED]

    @property
    def unread(self) -> list[str]:
        """Shards that could not be proven, before or after."""
        proofs = self.after or self.proofs
        unread = [shard.name for shard in self.shards if shard.name not in proofs.receipts]
        return [*unread, *self.left_out]


def run(args: argparse.Namespace, out: Output) -> int:
    """Prove, plan, send and prove again; return the exit code."""
    layout = find_layout(args.data, args.influx_config, dict(os.environ))
    refuse_half_restored(layout)
    with contextlib.ExitStack() as stack:
        api = stack.enter_context(opened_api(args, layout, default=True))
        api.version()
        if _require_own_server(layout, api) > 1:
            args.api = api.url  # values may be on other servers: they are asked for
        inventory = take_inventory(layout)
        shards, left_out = _chosen(args, layout, inventory)
        spools = stack.enter_context(Spools(stack.enter_context(scratch_directory())))
        collecting = Collecting(Spool, spools.add)
        proofs = _proven(args, layout, inventory, shards, out, collecting)
        evidence = proofs.evidence.items()
        plan = make_plan(
            spools,
            known=api.databases(),
            create=args.create_databases,
            also=args.also,
            accepted=() if args.shards else [name for name, found in evidence if found.accepted],
        )
        told = _Told(plan, shards, proofs, left_out)
        if args.dry_run or not plan.total:
            return _tell(args, told, out)
        if not out.quiet:
            _show_plan(plan, api.url, out)
        question = f"{plural(plan.total, 'value')} would be sent to {api.url}."
        if not confirmed(out, question, yes=args.yes):
            out.warn("nothing was sent")
            return exits.FAILED
        _send(args, layout, api, spools, told, out)
        told.after = _prove_until_settled(args, layout, told, out)
    return _tell(args, told, out)


def _require_own_server(layout: Layout, api: Api) -> int:
    """Insist that the server is one of this node's cluster: to another it would be new data.

    Returns:
        How many servers the cluster has.

    Raises:
        ShardtoolError: it is not.
    """
    from shardtool.influxdb.raft import own_name

    own = own_name(layout.raft)
    members = {server.raft_name for server in api.servers()}
    if own is not None and own not in members:
        raise ShardtoolError(
            f"{api.url}: expected a server of this node's cluster ({own}), found "
            f"{', '.join(sorted(members))}; give the --api of the server on {layout.name}"
        )
    return len(members)


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
        marked = [s for s in old.values() if s.marker.present or s.kind == "symlink"]
        readable = tuple(shard for shard in marked if is_readable(shard))
        return readable, tuple(s.name for s in marked if not is_readable(s))
    for name in sorted(named):
        if not is_readable(old[name]):
            raise ShardtoolError(
                f"{layout.old_shards / name}: expected a shard that can be read and that nobody "
                "has open, found another; see shardtool status"
            )
    return tuple(old[name] for name in sorted(named)), ()


# -- proofs --


def _proven(
    args: argparse.Namespace,
    layout: Layout,
    inventory: Inventory,
    shards: Sequence[OldShard],
    out: Output,
    collecting: Collecting | None = None,
) -> Proofs:
    proofs = Proofs(accepted_in(Journal(layout).read()))
    prove_into(proofs, shards, args, layout, inventory, out, collecting=collecting)
    return proofs


def _prove_until_settled(
    args: argparse.Namespace, layout: Layout, told: _Told, out: Output
) -> Proofs:
    """Prove again, until what was sent is there or the server has had its time to write it."""
    names = {part.shard for part in told.plan.parts}
    deadline = time.monotonic() + _SETTLE_SECONDS
    expected = sum(r.finding.lost for r in told.proofs.receipts.values()) - told.sent
    wait = 0.5
    while True:
        inventory = take_inventory(layout)
        shards = [s for s in inventory.old or () if s.name in names and is_readable(s)]
        after = _proven(args, layout, inventory, shards, out)
        whole = Proofs(after.accepted)
        for name, receipt in {**told.proofs.receipts, **after.receipts}.items():
            if name not in names or name in after.receipts:
                whole.add(receipt)
        lost = sum(receipt.finding.lost for receipt in whole.receipts.values())
        if lost <= expected or time.monotonic() > deadline:
            return whole
        time.sleep(wait)
        wait *= 2


# -- sending --


def _send(
    args: argparse.Namespace, layout: Layout, api: Api, spools: Spools, told: _Told, out: Output
) -> None:
    """Send the plan, with a record in the journal before and after.

    Raises:
        ShardtoolError: the server can't be written to, or the journal can't.
        InterruptedByUserError: ctrl-C; what was sent stays sent.
    """
    plan, journal = told.plan, Journal(layout)
    journal.append(
        "rescue-started",
        api=api.url,
        shards=sorted({part.shard for part in plan.parts}),
        values=plan.total,
        databases=sorted(plan.databases),
        also=sorted(set(args.also)),
    )
    ended = "failed"
    try:
        impossible = set()
        for database in sorted(plan.databases):
            try:
                api.create_database(database)
            except ShardtoolError as error:
                out.warn(str(error))
                impossible.add(database)
        with Progress("sending", plan.total, unit="values", out=out) as bar:
            sender = Sender(api, args.pause.us / 1_000_000, lambda entry: _sent(told, entry, bar))
            for part in plan.parts:
                if part.database in impossible:
                    continue
                points = (p for p in spools.points(part, args.also) if isinstance(p, Point))
                entries = entries_of(
                    part.database,
                    part.series,
                    points,
                    most_points=_MOST_POINTS,
                    most_bytes=_MOST_BYTES,
                )
                for entry in entries:
                    told.refused += sender.send(entry)
        ended = "sent"
    except KeyboardInterrupt:
        ended = "interrupted"
        raise InterruptedByUserError(
            f"interrupted; {told.sent:,} of {plural(plan.total, 'value')} were sent and stay; "
            "run rescue again to go on"
        ) from None
    finally:
        with contextlib.suppress(ShardtoolError):
            journal.append("rescue-ended", how=ended, sent=told.sent, refused=len(told.refused))


def _sent(told: _Told, entry: Entry, bar: Progress) -> None:
    told.sent += entry.values
    bar.advance(entry.values)


# -- what it tells --


def _show_plan(plan: Plan, url: str, out: Output) -> None:
    if plan.total:
        many = plural(len(plan.values), "series", "series")
        text = f"{plural(plan.total, 'value')} in {plural(plan.points, 'point')} of {many}"
        out.line(f"to send to {url}: {text}")
        rows = [
            (short(database, 20), short(series, 40), f"{count:,}")
            for (database, series), count in plan.values.most_common(_MOST_SERIES)
        ]
        out.table(("DATABASE", "SERIES", "VALUES"), rows, right="llr")
        if len(plan.values) > _MOST_SERIES:
            out.line(f"... and {len(plan.values) - _MOST_SERIES:,} more series; --json lists all")
        for database in sorted(plan.databases):
            out.line(f"to be created: the database {short(database, 40)}")
    else:
        out.line("there is nothing to send")
    if plan.left:
        out.line(f"to stay behind: {plural(plan.left.total(), 'value')}")
        for word, count in plan.left.most_common():
            out.line(f"  {count:,} {word}: {(LEFT | WHY)[word]}")


def _tell(args: argparse.Namespace, told: _Told, out: Output) -> int:
    """Tell what was done and what stays behind; return the exit code."""
    plan, lost = told.plan, told.lost
    left: Counter[str] = Counter(plan.left)
    left["refused"] += len(told.refused)
    left = +left
    code = exits.ATTENTION if lost or told.unread else exits.DONE
    out.document("rescue", _document(args, told, left))
    if told.after is None and not out.quiet:
        _show_plan(plan, "the server", out)
    if args.dry_run:
        if out.quiet:
            out.line(f"{plan.total:,} values to send, {plan.left.total():,} to stay behind")
        return code
    shards = plural(len(told.shards), "shard")
    out.line(f"{told.sent:,} values sent; of {shards} {lost:,} values are not in the new storage")
    if out.quiet:
        return code
    examples = [(one, "") for one in plan.examples]
    examples += [(one.value, one.text) for one in told.refused]
    for value, text in examples[:_MOST_SERIES]:
        out.line(f"  {_line(value, text)}")
    unsendable = sum(count for word, count in left.items() if word in WHY)
    if unsendable > _MOST_SERIES:
        out.line(f"  ... {unsendable:,} in all; --json lists the first {len(examples):,}")
    for name in told.unread:
        out.warn(f"{name}: could not be proven; see shardtool verify {name}")
    if told.accepted:
        out.line(f"{told.accepted:,} more were accepted to go, and left alone")
    pending = lost - left.total() + told.accepted
    if told.sent and pending > 0:
        out.line(
            f"{pending:,} of those sent are not on disk: the server may still be writing them;"
        )
        out.line("see its log, and run shardtool verify in a while")
    if unsendable:
        out.line("what can't be sent, shardtool export writes out; what may go, see accept")
    elif told.sent and not lost and not told.unread and not told.accepted:
        out.line("every value of these shards is in the new storage: shardtool prune")
    return code


def _line(value: Unsendable, text: str) -> str:
    name = f"{short(value.name.database)}/{short(value.name.series)} {short(value.name.column)}"
    words = f": {safe(text[:100])}" if text else ""
    return f"{value.why}{words}: {name} at {iso_us(value.time_us)} ({value.sequence})"


def _document(args: argparse.Namespace, told: _Told, left: Counter[str]) -> dict[str, Any]:
    plan = told.plan
    return {
        "dry_run": bool(args.dry_run),
        "shards": [shard.name for shard in told.shards],
        "to_send": [
            {"database": database, "series": series, "values": count}
            for (database, series), count in sorted(plan.values.items())
        ],
        "create_databases": sorted(plan.databases),
        "sent": told.sent,
        "left": dict(sorted(left.items())),
        "not_sent": [
            {
                "database": value.name.database,
                "series": value.name.series,
                "column": value.name.column,
                "time_us": value.time_us,
                "sequence_number": value.sequence,
                "why": value.why,
                "text": text,
            }
            for value, text in (
                *((one, "") for one in plan.examples),
                *((one.value, one.text) for one in told.refused),
            )
        ],
        "not_sent_total": sum(count for word, count in left.items() if word in WHY),
        "missing": told.lost,
        "unread": told.unread,
    }
