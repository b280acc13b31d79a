"""What `shardtool rescue` tells: the plan, what was sent, and what stays behind."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from shardtool.cli import exits
from shardtool.cli.output import Output, safe, short
from shardtool.datadir.inventory import OldShard
from shardtool.proof.evidence import Proofs
from shardtool.proof.listing import iso_us
from shardtool.rescue.plan import ACCEPTED, LEFT, MOST_LISTED, Plan
from shardtool.rescue.points import WHY, Unsendable
from shardtool.rescue.send import Refused
from shardtool.words import plural

_MOST_SHOWN = 20


@dataclass
class Told:
    """What is to be told at the end.

    Args:
        plan: what was to be sent.
        shards: those that were looked at.
        proofs: what was found in them.
        left_out: names of marked shards that can't be read now.
        sent: values that the server took.
        refused: values that it refused.
        examples: of these, as many as are listed.
        after: what was found when it was sent.
        failure: why sending ended before its time; empty if it did not.
    """

    plan: Plan
    shards: Sequence[OldShard]
    proofs: Proofs
    left_out: tuple[str, ...]
    sent: int = 0
    refused: int = 0
    examples: list[Refused] = field(default_factory=list)
    after: Proofs | None = None
    failure: str = ""

    @property
    def lost(self) -> int:
        """Values that are only in old shards, but for those that were accepted and not touched."""
        proofs, touched = self.after or self.proofs, self.plan.shards
        return sum(
            receipt.finding.lost
            for name, receipt in proofs.receipts.items()
            if name in touched or not proofs.evidence[name].accepted
        )

    @property
    def pending(self) -> int:
        """Values that the server took and that are not on disk."""
        if self.after is None:
            return 0
        return max(0, lost_in(self.after) - self.expected)

    @property
    def expected(self) -> int:
        """Values that are lost still when all that was sent is on disk; a copy in another shard is
        found with the one that was sent, but which of them were refused nobody counts."""
        found = self.sent + (0 if self.refused else self.plan.copies.total())
        return lost_in(self.proofs) - found

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

    def refuse(self, refused: Refused) -> None:
        """Note a value that the server refused."""
        self.refused += 1
        if len(self.examples) + len(self.plan.examples) < MOST_LISTED:
            self.examples.append(refused)

    def not_sent(self) -> Iterator[tuple[Unsendable, str]]:
        """Yield the values that can't be sent, with the server's words, as many as are listed."""
        yield from ((one, "") for one in self.plan.examples)
        yield from ((one.value, one.text) for one in self.examples)


def lost_in(proofs: Proofs) -> int:
    """Return how many values the proven shards have that the new storage lacks."""
    return sum(receipt.finding.lost for receipt in proofs.receipts.values())


def show_plan(plan: Plan, url: str, out: Output) -> None:
    if plan.total:
        many = plural(len(plan.values), "series", "series")
        text = f"{plural(plan.total, 'value')} in {plural(plan.points, 'point')} of {many}"
        out.line(f"to send to {url}: {text}")
        rows = [
            (short(database, 20), short(series, 40), f"{count:,}")
            for (database, series), count in plan.values.most_common(_MOST_SHOWN)
        ]
        out.table(("DATABASE", "SERIES", "VALUES"), rows, right="llr")
        if len(plan.values) > _MOST_SHOWN:
            out.line(f"... and {len(plan.values) - _MOST_SHOWN:,} more series; --json lists all")
        for database in sorted(plan.databases):
            out.line(f"to be created: the database {short(database, 40)}")
    else:
        out.line("there is nothing to send")
    if plan.left:
        out.line(f"to stay behind: {plural(plan.left.total(), 'value')}")
        for word, count in plan.left.most_common():
            out.line(f"  {count:,} {word}: {(LEFT | WHY)[word]}")


def tell(args: argparse.Namespace, told: Told, out: Output) -> int:
    """Tell what was done and what stays behind; return the exit code."""
    plan, lost = told.plan, told.lost
    left: Counter[str] = Counter(plan.left)
    left["refused"] += told.refused
    left = +left
    code = exits.ATTENTION if lost or told.unread else exits.DONE
    out.document("rescue", _document(args, told, left))
    if (args.dry_run or not plan.total) and not out.quiet:
        show_plan(plan, "the server", out)
    if args.dry_run:
        if out.quiet:
            out.line(f"{plan.total:,} values to send, {plan.left.total():,} to stay behind")
        return code
    shards = plural(len(told.shards), "shard")
    out.line(f"{told.sent:,} values sent; of {shards} {lost:,} values are not in the new storage")
    if out.quiet:
        return code
    listed = list(told.not_sent())
    for value, text in listed[:_MOST_SHOWN]:
        for line in _lines(value, text):
            out.line(line)
    unsendable = sum(count for word, count in left.items() if word in WHY)
    if unsendable > _MOST_SHOWN:
        out.line(f"  ... {unsendable:,} in all; --json lists the first {len(listed):,}")
    for name in told.unread:
        out.warn(f"{name}: could not be proven; see shardtool verify {name}")
    if told.accepted:
        out.line(f"{told.accepted:,} more had been accepted to go, and were not sent from there")
    if told.pending:
        out.line(
            f"{told.pending:,} of those sent are not on disk: the server may still be writing them;"
        )
        out.line("see its log, and run shardtool verify in a while")
    if unsendable:
        out.line("shardtool export --lost writes out what can't be sent; what may go: accept")
    elif told.sent and not lost and not told.unread and not told.accepted:
        out.line("every value of these shards is in the new storage: shardtool prune")
    return code


def _lines(value: Unsendable, text: str) -> tuple[str, str]:
    name = f"{short(value.name.database)}/{short(value.name.series)} {short(value.name.column)}"
    words = f": {safe(text[:100])}" if text else ""
    return f"  {name}", f"    at {iso_us(value.time_us)} ({value.sequence}): {value.why}{words}"


def _document(args: argparse.Namespace, told: Told, left: Counter[str]) -> dict[str, Any]:
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
            for value, text in told.not_sent()
        ],
        "not_sent_total": sum(count for word, count in left.items() if word in WHY),
        "missing": told.lost,
        "unread": told.unread,
    }
