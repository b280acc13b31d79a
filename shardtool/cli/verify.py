"""`shardtool verify`: is every value of the old shards in the new storage, and if not, why."""

from __future__ import annotations

import argparse
import os
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from shardtool.cli import exits
from shardtool.cli.api import add_api
from shardtool.cli.options import add_shards, named_shards
from shardtool.cli.output import Output, safe, short, table_lines, unseen
from shardtool.cli.proving import API, Collecting, ask_again, printed, prove_into
from shardtool.datadir.inventory import Inventory, OldShard, take_inventory
from shardtool.datadir.layout import Layout, find_layout
from shardtool.datadir.verdict import Judged, as_found, judge
from shardtool.disk.locks import Lock
from shardtool.errors import UsageError
from shardtool.journal import Journal
from shardtool.proof.causes import CAUSES, IN_WORDS
from shardtool.proof.evidence import Proofs, accepted_in, held, is_readable
from shardtool.proof.listing import Listing, iso_us
from shardtool.proof.prove import Loss
from shardtool.words import plural

DESCRIPTION = """\
Reads each value of the old shards and looks for it in the new ones, byte for
byte, and says what is missing and why. A value is one column of one point.
Reads from disk alone, through links: the shards' own directories stay as they
are. Links are in /dev/shm (of root and system users, where it has room), else
in /tmp; TMPDIR names another place. A server may run meanwhile, but for lmdb
shards, which it must not have open. What was proven is kept as a receipt in
db/.shardtool/proofs, which holds as long as both sides, and what raft knows of
them, are unchanged."""

EPILOG = """\
causes of a loss:
  future            dated after the migration: 0.8 copied only up to its moment
  name              0.8 skips series with ~, " or \\ in a name, and series
                    whose name begins one with ~
  unknown-database  0.8 does not know the database
  expired           older than its space keeps values
  dropped           its series, database or space was dropped in 0.8
  not-migrated      nothing of its column in the shard was brought over
  unknown           some of the column's values are there, these are not

examples:
  shardtool verify                  all shards that have no receipt that holds
  shardtool verify 7 12 --again     two shards, whatever their receipts say
  shardtool verify --list 7 > lost  every lost value, a JSON line each
  shardtool verify --api http://localhost:8086    in a cluster

Exit code 0 if every shard is proven, 3 if values are missing or different, or
if a shard is suspect, busy or unreadable. Times are UTC."""

_MOST_ROWS = 40  # of losses that people are shown; --json and --list have all
_STYLES = {"proven": "good", "incomplete": "bad", "suspect": "bad", "unreadable": "bad"}


@dataclass(frozen=True)
class _Report:
    """What a run found.

    Args:
        shards: the chosen entries of shard_db, judged.
        proofs: by shard.
        seconds: how long it took.
    """

    shards: tuple[Judged, ...]
    proofs: Proofs
    seconds: float

    def losses(self, shard: str) -> tuple[Loss, ...]:
        receipt = self.proofs.receipts.get(shard)
        return receipt.finding.losses if receipt is not None else ()

    def total(self, field: str) -> int:
        findings = [receipt.finding for receipt in self.proofs.receipts.values()]
        return sum(getattr(finding, field) for finding in findings)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what only this command takes."""
    add_shards(parser)
    parser.add_argument(
        "--again", action="store_true", help="read again what has a receipt that holds"
    )
    parser.add_argument(
        "--list",
        action="store_true",
        help="print each missing or different value as a JSON line, and nothing else",
    )
    add_api(parser, about=API)


def run(args: argparse.Namespace, out: Output) -> int:
    """Prove what has no receipt that holds, and show what is known of all."""
    if args.list and out.as_json:
        raise UsageError("--list prints JSON lines and --json one document; give one of them")
    if args.list and out.mail:
        raise UsageError("--list prints JSON lines and -qq a mail for people; give one of them")
    layout = find_layout(args.data, args.influx_config, dict(os.environ))
    begun = time.monotonic()
    inventory = take_inventory(layout)
    chosen = _chosen(args.shards, inventory, layout)
    proofs = _proofs(args, layout, chosen)
    to_read = [s for s in chosen if is_readable(s) and s.name not in proofs.receipts]
    collecting = Collecting(Listing, printed) if args.list else None
    prove_into(proofs, to_read, args, layout, inventory, out, collecting=collecting)
    judged = tuple(as_found(judge(s, proofs.evidence.get(s.name))) for s in chosen)
    report = _Report(judged, proofs, time.monotonic() - begun)
    for one in judged:
        if one.verdict != "proven":
            reasons = "; ".join(map(str, one.reasons))
            out.wrong(f"{one.shard.name}: {one.verdict}: {reasons}")
    if args.list:
        out.note(_totals(report))
    else:
        out.document("verify", _document(report))
        _show(report, inventory, out)
    return exits.DONE if all(j.verdict == "proven" for j in judged) else exits.ATTENTION


def _chosen(shards: list[str], inventory: Inventory, layout: Layout) -> tuple[OldShard, ...]:
    only = named_shards(shards, (s.name for s in inventory.old or ()), layout)
    chosen = (s for s in inventory.old or () if only is None or s.name in only)
    # Who only reads it, another verify say, is in nobody's way; a database has the lock.
    return tuple(
        replace(shard, open_files=()) if shard.lock.state is Lock.FREE else shard
        for shard in chosen
    )


def _proofs(args: argparse.Namespace, layout: Layout, chosen: tuple[OldShard, ...]) -> Proofs:
    """Return what the receipts say that this run may build on."""
    history = Journal(layout).read()
    if args.again:
        return Proofs(accepted_in(history))
    proofs = held(layout, (shard.name for shard in chosen), history)
    ask_again(proofs, args)
    for name, receipt in list(proofs.receipts.items()):
        if args.list and receipt.finding.lost:  # a receipt has no single values
            proofs.forget(name)
    return proofs


def _totals(report: _Report) -> str:
    verdicts = Counter(judged.verdict for judged in report.shards)
    parts = [f"{count} {verdict}" for verdict, count in sorted(verdicts.items())]
    values = f"{report.total('values'):,} values"
    lost = f"{report.total('missing'):,} missing, {report.total('different'):,} different"
    counted = ", ".join([plural(len(report.shards), "old shard"), *parts])
    return f"{counted}; {values}, {lost}"


def _show(report: _Report, inventory: Inventory, out: Output) -> None:
    if out.quiet:
        out.line(_totals(report))
        return
    if not report.shards:
        out.line("no old shards")
        return
    header = ("OLD", "VERDICT", "VALUES", "MISSING", "DIFFERENT", "CAUSE")
    rows = [_row(judged, report) for judged in report.shards]
    table = table_lines(header, rows, right="llrrrl")
    out.line(out.styled(table[0], "bold"))
    for (name, verdict, *_), line in zip(rows, table[1:], strict=True):
        out.line(out.with_verdict(line, name, verdict, _STYLES.get(verdict, "")))
    told: set[str] = set()
    for judged in report.shards:
        for reason in judged.reasons:
            if reason.word in ("values-missing", "values-different") or reason.detail in told:
                continue
            if reason.detail:
                # What raft has wrong is wrong for all of them, and is said once.
                whole = reason.word == "catalogue-unreadable"
                told |= {reason.detail} if whole else set()
                who = "all shards" if whole else short(judged.shard.name)
                out.line(f"  {who}: {reason.word}: {safe(reason.detail)}")
    out.line()
    _show_losses(report, out)
    out.line(_totals(report))
    if report.proofs.reused:
        known = plural(len(report.proofs.reused), "shard")
        out.line(f"known from receipts that hold: {known}; --again reads everything")
    if inventory.holders.unseen:
        out.line(unseen(inventory.holders.unseen))
    accepted = [j.shard.name for j in report.shards if j.evidence and j.evidence.accepted]
    if accepted:
        out.line(f"losses accepted by the operator: {', '.join(accepted)}")
    if any(j.verdict == "incomplete" and j.shard.marker.present for j in report.shards):
        out.line("prune keeps what is incomplete. To let a shard go all the same: shardtool accept")


def _row(judged: Judged, report: _Report) -> tuple[str, ...]:
    name = judged.shard.name
    receipt = report.proofs.receipts.get(name)
    if receipt is None:
        return short(name), judged.verdict, "-", "-", "-", ""
    finding = receipt.finding
    causes = Counter[str]()
    for loss in finding.losses:
        causes[loss.cause] += loss.missing + loss.different
    words = ", ".join(f"{cause} {causes[cause]:,}" for cause in CAUSES if causes[cause])
    return (
        short(name),
        judged.verdict,
        f"{finding.values:,}",
        f"{finding.missing:,}",
        f"{finding.different:,}",
        words,
    )


def _show_losses(report: _Report, out: Output) -> None:
    """Show what the migration left behind; where it has not been yet there is nothing to list."""
    marked = [judged for judged in report.shards if judged.shard.marker.present]
    losses = [loss for judged in marked for loss in report.losses(judged.shard.name)]
    if losses:
        show_losses(losses, out)
        out.line()
    for cause in CAUSES:
        if any(loss.cause == cause for loss in losses):
            out.line(f"{cause}: {IN_WORDS[cause]}")
    waiting = sum(
        judged.verdict == "incomplete" and not judged.shard.marker.present
        for judged in report.shards
    )
    if waiting:
        words = ("has", "it") if waiting == 1 else ("have", "them")
        shards = plural(waiting, "shard")
        out.line(f"{shards} {words[0]} no marker: the migration is not done with {words[1]}")
    if losses or waiting:
        out.line()


@dataclass
class _Row:
    """Losses of one series for one cause, added up over columns and shards."""

    columns: dict[str, None] = field(default_factory=dict)
    lost: int = 0
    first_us: int = 1 << 63
    last_us: int = -(1 << 63)


def show_losses(losses: Iterable[Loss], out: Output) -> None:
    """Show losses by series and cause, the largest first, as many as fit a screen."""
    found: dict[tuple[str, str, str], _Row] = {}
    for loss in losses:
        row = found.setdefault((loss.name.database, loss.name.series, loss.cause), _Row())
        row.columns.setdefault(loss.name.column)
        row.lost += loss.missing + loss.different
        row.first_us = min(row.first_us, loss.first_us)
        row.last_us = max(row.last_us, loss.last_us)
    largest = sorted(found.items(), key=lambda item: -item[1].lost)[:_MOST_ROWS]
    rows = [
        (
            short(database, 10),
            short(series, 16),
            short(", ".join(row.columns), 14),
            cause,
            f"{row.lost:,}",
            _span(row.first_us, row.last_us),
        )
        for (database, series, cause), row in largest
    ]
    header = ("DATABASE", "SERIES", "COLUMNS", "CAUSE", "LOST", "FROM..TO")
    out.table(header, rows, right="llllrl")
    if len(found) > _MOST_ROWS:
        out.line(f"... and {len(found) - _MOST_ROWS:,} series more; --json has all of them")


def _span(first_us: int, last_us: int) -> str:
    """Return two days as a range; the year once where it is the same: '2012-01-05..02-11'."""
    first, last = iso_us(first_us)[:10], iso_us(last_us)[:10]
    if first == last:
        return first
    return f"{first}..{last[5:] if first[:5] == last[:5] else last}"


def _document(report: _Report) -> dict[str, Any]:
    return {
        "shards": [_shard_document(judged, report) for judged in report.shards],
        "totals": {
            "values": report.total("values"),
            "missing": report.total("missing"),
            "different": report.total("different"),
            "seconds": round(report.seconds, 3),
        },
    }


def _shard_document(judged: Judged, report: _Report) -> dict[str, Any]:
    name = judged.shard.name
    receipt = report.proofs.receipts.get(name)
    finding = receipt.finding if receipt is not None else None
    return {
        "id": name,
        "verdict": judged.verdict,
        "reasons": [reason.word for reason in judged.reasons],
        "details": [reason.detail for reason in judged.reasons],
        "values": finding.values if finding else 0,
        "missing": finding.missing if finding else 0,
        "different": finding.different if finding else 0,
        "found_by_asking": finding.asked if finding else 0,
        "accepted": judged.evidence is not None and judged.evidence.accepted,
        "proven_at": receipt.proven_at.isoformat().replace("+00:00", "Z") if receipt else None,
        "from_receipt": name in report.proofs.reused,
        "digest": finding.digest if finding else None,
        "columns": [
            {
                "database": loss.name.database,
                "series": loss.name.series,
                "column": loss.name.column,
                "values": loss.values,
                "missing": loss.missing,
                "different": loss.different,
                "cause": loss.cause,
                "first": iso_us(loss.first_us),
                "last": iso_us(loss.last_us),
            }
            for loss in report.losses(name)
        ],
    }
