"""`shardtool accept`: the operator knows what a shard loses, and lets it go all the same."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from typing import Any

from shardtool.cli import exits
from shardtool.cli.api import add_api
from shardtool.cli.options import named_shards
from shardtool.cli.output import Output, safe
from shardtool.cli.proving import API, ask_again, prove_into
from shardtool.cli.verify import show_losses
from shardtool.datadir.inventory import take_inventory
from shardtool.datadir.layout import Layout, find_layout
from shardtool.datadir.verdict import Judged, judge
from shardtool.disk.locks import exclusive
from shardtool.errors import ShardtoolError, UsageError
from shardtool.journal import Journal
from shardtool.proof.evidence import Proofs, held, is_readable
from shardtool.proof.prove import Finding
from shardtool.words import plural

DESCRIPTION = """\
Records that you know which values a shard loses and that it may go all the
same: prune takes that as evidence, and history shows it for ever. The losses
are shown first, and their number is to be typed back. What is accepted is
exactly these losses: should more of them be missing later, the shard stays."""

EPILOG = """\
examples:
  shardtool accept 23 --because 'test data, dated into the future'
  shardtool accept 23 --because 'ticket 4711' --missing 20      in a script

--missing counts values that are missing or different. Exit code 1 if that is
not the number of losses, 2 if nobody is there to be asked."""

_LONGEST = 1000  # characters of a reason


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what only this command takes."""
    parser.add_argument("shard", metavar="SHARD", help="number of the old shard")
    parser.add_argument(
        "--because", required=True, metavar="TEXT", help="why these values may go; kept for ever"
    )
    parser.add_argument(
        "--missing",
        type=int,
        metavar="N",
        help="the number of values that will be lost, instead of typing it",
    )
    add_api(parser, about=API)


def run(args: argparse.Namespace, out: Output) -> int:
    """Show the losses, have them confirmed, and write that to the journal."""
    because = args.because.strip()
    if not because or len(because) > _LONGEST:
        raise UsageError(f"--because needs a reason of 1 to {_LONGEST} characters")
    layout = find_layout(args.data, args.influx_config, dict(os.environ))
    with exclusive(layout.anchor, purpose="data directory"):
        judged, finding = _look(args, layout, out)
        if judged.verdict == "proven":
            out.document("accept", _document(judged, finding, because, accepted=False))
            out.line(f"{judged.shard.name}: every value is in the new storage, nothing to accept")
            return exits.DONE
        if judged.evidence is not None and judged.evidence.accepted:
            Journal(layout).sync()  # a run that was killed may have written it and not come to that
            out.document("accept", _document(judged, finding, because, accepted=True))
            out.line(f"{judged.shard.name}: these losses were accepted before")
            return exits.DONE
        if not out.quiet or args.missing is None:  # nobody accepts what is not shown
            _show(judged, finding, out)
        if not _confirmed(args.missing, finding, out):
            raise ShardtoolError(
                f"{judged.shard.name}: expected {finding.lost}, the number of values that would "
                "be lost; something else was given, and nothing was recorded"
            )
        Journal(layout).append("accepted", **_record(judged, finding, because))
        out.document("accept", _document(judged, finding, because, accepted=True))
        out.line(f"{judged.shard.name}: accepted; prune may delete it now")
    return exits.DONE


def _look(args: argparse.Namespace, layout: Layout, out: Output) -> tuple[Judged, Finding]:
    """Return the shard's verdict and what its proof found, by receipt or by reading it now.

    Raises:
        ShardtoolError: it has neither losses nor a proof, or is in no state to be deleted.
    """
    inventory = take_inventory(layout)
    old = {shard.name: shard for shard in inventory.old or ()}
    (name,) = named_shards([args.shard], old, layout) or [args.shard]
    proofs: Proofs = held(layout, [name], Journal(layout).read())
    ask_again(proofs, args)
    if name not in proofs.receipts and is_readable(old[name]):
        prove_into(proofs, [old[name]], args, layout, inventory, out)
    judged = judge(old[name], proofs.evidence.get(name))
    receipt = proofs.receipts.get(name)
    words = {reason.word for reason in judged.reasons}
    if receipt is None or judged.verdict not in ("proven", "incomplete") or "no-marker" in words:
        found = "; ".join(f"{r.word} {safe(r.detail)}".strip() for r in judged.reasons)
        raise ShardtoolError(
            f"{layout.old_shards / name}: expected a marked shard that can be read, found one "
            f"that is {judged.verdict} ({found or 'no reason given'}); see shardtool status"
        )
    return judged, receipt.finding


def _show(judged: Judged, finding: Finding, out: Output) -> None:
    lost = plural(finding.lost, "value")
    out.line(f"{judged.shard.name}: {lost} of {finding.values:,} would be lost with it:")
    show_losses(finding.losses, out)


def _confirmed(missing: int | None, finding: Finding, out: Output) -> bool:
    if missing is not None:
        return missing == finding.lost
    if why := out.why_not_asked:
        raise UsageError(f"{why}: say --missing N, the number of values that will be lost")
    print("Type their number to accept that: ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().replace(",", "") == str(finding.lost)


def _record(judged: Judged, finding: Finding, because: str) -> dict[str, Any]:
    causes: Counter[str] = Counter()
    for loss in finding.losses:
        causes[loss.cause] += loss.missing + loss.different
    return {
        "shard": judged.shard.name,
        "because": because,
        "values": finding.values,
        "missing": finding.missing,
        "different": finding.different,
        "causes": dict(causes),
        "digest": finding.digest,
        "losses_digest": finding.losses_digest,
    }


def _document(judged: Judged, finding: Finding, because: str, *, accepted: bool) -> dict[str, Any]:
    return {"accepted": accepted, **_record(judged, finding, because)}
