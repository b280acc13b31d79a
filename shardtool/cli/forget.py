"""`shardtool forget`: remove old snapshots, never the last good one."""

from __future__ import annotations

import argparse
import time

from shardtool.cli import exits
from shardtool.cli.options import amount, count_of, seconds_of
from shardtool.cli.output import Output, safe
from shardtool.cli.snapshots import add_store, meter, node_of, store_of
from shardtool.datadir.layout import Layout
from shardtool.errors import UsageError
from shardtool.journal import Journal
from shardtool.snapshots.forget import Forgotten
from shardtool.snapshots.opened import OpenStore, open_place
from shardtool.snapshots.retention import Plan, Rules, plan_for_each
from shardtool.snapshots.store import Listing
from shardtool.words import plural, size

DESCRIPTION = """\
Removes the snapshots that no rule keeps. Before anything goes, a snapshot that
stays is read and verified; if none of those is good, the newest good one of
the others stays too, and where none at all is good, all stay (exit 3)."""

EPILOG = """\
A snapshot stays if any rule keeps it; where several nodes keep theirs in one
place, the rules count for each node (host and raft directory) alone. Snapshots
whose metadata can't be read are left alone: remove them by hand. In
s3://BUCKET/PREFIX a tag manifest goes first, so that no half looks whole, and
what killed runs left goes when it is a day old.

examples:
  shardtool forget --keep-last 3 --dry-run
  shardtool forget --keep-last 3 --keep-within 30d
  shardtool forget --keep-within 8w --store /backup/influxdb
  shardtool forget --keep-last 7 --store s3://backups/influxdb/node1

exit codes: 0 done, 3 a snapshot is damaged or could not be removed"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's own arguments to `parser`."""
    parser.add_argument("--keep-last", metavar="N", type=count_of, help="keep the newest N")
    parser.add_argument(
        "--keep-within",
        metavar="AGE",
        type=seconds_of,
        help="keep those not older than AGE: 30d, 12h, 8w",
    )
    parser.add_argument("--dry-run", action="store_true", help="show the plan, remove nothing")
    add_store(parser)


def run(args: argparse.Namespace, out: Output) -> int:
    """Plan, and unless it is a dry run remove; return the exit code."""
    rules = Rules(args.keep_last, args.keep_within)
    if rules == Rules():
        raise UsageError("forget needs a rule: --keep-last N, --keep-within AGE, or both")
    layout = node_of(args)
    store = store_of(args, layout)
    with open_place(store, alone=True) as found:
        listing = found.listing()
        plan = plan_for_each(
            {one.id: one.origin for one in listing.snapshots if not one.problem},
            rules,
            time.time(),
            lambda name: found.verify(name, meter(out)).good,
        )
        done = None
        if not args.dry_run:
            failures = found.remove_leftovers()
            for failure in failures:
                out.warn(f"warning: {store}: could not be removed: {failure}")
            done = _forget(found, plan, layout, str(store))
    _document(plan, listing, done, str(store), out)
    _show(plan, listing, done, out)
    unreadable = any(snapshot.problem for snapshot in listing.snapshots)
    failed = done is not None and done.failed
    return exits.ATTENTION if plan.damaged or unreadable or failed else exits.DONE


def _forget(found: OpenStore, plan: Plan, layout: Layout | None, store: str) -> Forgotten:
    if not plan.remove:
        return Forgotten((), 0, ())
    # The journal is in db: a node that has none, or a store alone, has no journal.
    journal = Journal(layout) if layout is not None and layout.db.is_dir() else None
    if journal:
        journal.append(
            "forget-intent", store=store, snapshots=list(plan.remove), verified=plan.good
        )
    done = found.forget(plan)
    if journal:
        journal.append(
            "forgotten",
            store=store,
            snapshots=list(done.removed),
            freed_bytes=done.freed_bytes,
            failed=[{"id": name, "error": error} for name, error in done.failed],
        )
    return done


def _document(
    plan: Plan, listing: Listing, done: Forgotten | None, store: str, out: Output
) -> None:
    bytes_of = {snapshot.id: snapshot.bytes for snapshot in listing.snapshots}
    result: dict[str, object] = {}
    if done is not None:
        result = {
            "removed": list(done.removed),
            "freed_bytes": done.freed_bytes,
            "failed": [{"id": name, "error": error} for name, error in done.failed],
        }
    out.document(
        "forget",
        {
            "dry_run": done is None,
            "store": store,
            "keep": [{"id": name, "rules": list(rules)} for name, rules in plan.keep],
            "remove": [{"id": name, "bytes": bytes_of[name]} for name in plan.remove],
            "verified": plan.good,
            "damaged": [*plan.damaged, *(s.id for s in listing.snapshots if s.problem)],
            **result,
        },
    )


def _show(plan: Plan, listing: Listing, done: Forgotten | None, out: Output) -> None:
    bytes_of = {snapshot.id: snapshot.bytes for snapshot in listing.snapshots}
    total = sum(bytes_of[name] for name in plan.remove)
    origins = sorted({one.origin for one in listing.snapshots if not one.problem})
    if not out.quiet and len(origins) > 1:
        out.line(f"{plural(len(origins), 'node')}, the rules count for each of them:")
        for origin in origins:
            out.line(f"  {safe(origin)}")
    if not out.quiet:
        for name, rules in plan.keep:
            bad = out.styled(" damaged", "bad") if name in plan.damaged else ""
            out.line(f"keep    {name}  {size(bytes_of[name]):>7}  {', '.join(rules)}{bad}")
        for name in plan.remove:
            bad = "  damaged" if name in plan.damaged else ""
            out.line(f"remove  {name}  {size(bytes_of[name]):>7}{bad}")
        for snapshot in listing.snapshots:
            if snapshot.problem:
                out.line(f"leave   {snapshot.id}  damaged: {safe(snapshot.problem)}")
    for name, error in done.failed if done else ():
        out.warn(f"{name}: could not be removed: {error}")
    if plan.damaged and plan.good is None:
        out.warn("no snapshot is good: nothing is removed; see shardtool snapshots verify")
    if done is None:
        out.line(f"would remove {amount(len(plan.remove), 'snapshot', total)}")
    else:
        removed, freed = plural(len(done.removed), "snapshot"), size(done.freed_bytes)
        out.line(f"removed {removed}, freed {freed}")
