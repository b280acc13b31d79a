"""`shardtool prune`: delete old shards, on evidence, or say why not."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from typing import Any

from shardtool.cli import exits
from shardtool.cli.api import add_api
from shardtool.cli.options import (
    add_shards,
    add_yes,
    amount,
    bytes_of,
    confirmed,
    named_shards,
    seconds_of,
)
from shardtool.cli.output import Output, iso, moment, safe, short, unseen
from shardtool.cli.progress import Progress
from shardtool.cli.proving import API, ask_again, prove_into
from shardtool.datadir.inventory import OldShard, take_inventory
from shardtool.datadir.layout import Layout, find_layout
from shardtool.datadir.verdict import Judged, Reason, judge_all
from shardtool.disk.locks import exclusive
from shardtool.errors import InterruptedByUserError
from shardtool.journal import History, Journal
from shardtool.proof.evidence import held, still_proven
from shardtool.prune.execute import Outcome, execute
from shardtool.prune.plan import Plan, make_plan
from shardtool.prune.policy import BY_WISH, Policy, decide
from shardtool.prune.trash import Leftover, all_leftovers
from shardtool.words import plural, size

DESCRIPTION = """\
Deletes the old shards whose every value is in the new storage, and keeps the
others, saying why. What no receipt of verify proves is proven first. The marker
that 0.8 writes is not evidence: half of the marked shards of real directories
held values that exist nowhere else. A shard leaves by one rename into
db/.shardtool/trash, written to the journal before and after; a kill at any
moment loses nothing, and the next prune finishes what one left behind."""

EPILOG = """\
examples:
  shardtool prune --dry-run            what would go, what stays, and why
  shardtool prune --older-than 7d --yes          from cron, say
  shardtool prune --no-verify --yes 12 13        on receipts of verify alone
  shardtool prune --trust marker --dry-run       by the vendor's own rule

evidence: proof (every value found), accepted (see shardtool accept), marker
(with --trust marker; a shard that is known to lose values stays all the same).

Exit code 3 if a marked, suspect or unreadable shard was kept for more than
--older-than or --until-free, if --until-free was not reached, or if the trash
holds what the journal does not know; 1 if a deletion failed or was declined;
4 if another shardtool is at work on the directory."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what only this command takes."""
    add_shards(parser)
    parser.add_argument("--dry-run", "-n", action="store_true", help="print the plan, do nothing")
    add_yes(parser)
    parser.add_argument(
        "--trust",
        choices=["marker"],
        help="take a sound marker for evidence, as the vendor's guide does; "
        "the structural checks hold all the same",
    )
    parser.add_argument(
        "--older-than",
        type=seconds_of,
        metavar="TIME",
        help="keep what was marked more recently, such as 7d",
    )
    parser.add_argument(
        "--until-free",
        type=bytes_of,
        metavar="SIZE",
        help="oldest marker first, until the file system has SIZE free, such as 100G",
    )
    parser.add_argument(
        "--no-verify",
        action="store_true",
        help="read no shard now: what has no receipt that holds stays",
    )
    add_api(parser, about=API)


def run(args: argparse.Namespace, out: Output) -> int:
    """Make the plan, show it, and execute it unless this is a dry run."""
    layout = find_layout(args.data, args.influx_config, dict(os.environ))
    if args.dry_run:
        plan = _plan(args, layout, out)
        out.document("prune", document_of(plan, args.dry_run, None))
        _show_plan(plan, out)
        return _code(plan)
    with exclusive(layout.anchor, purpose="data directory"):
        plan = _plan(args, layout, out)
        if not plan.delete and not plan.finish:
            out.document("prune", document_of(plan, args.dry_run, Outcome()))
            _show_plan(plan, out)
            return _code(plan)
        if not args.quiet:
            _show_plan(plan, out)
        if not confirmed(out, _question(plan), yes=args.yes):
            out.warn("nothing was deleted")
            return exits.FAILED
        outcome = Outcome()
        try:
            files = sum(d.judged.shard.tree.files for d in plan.delete)
            files += sum(left.files for left in plan.finish)
            with Progress("deleting", files, unit="files", out=out) as progress:
                execute(plan, layout, outcome, progress.advance)
        except KeyboardInterrupt:  # InterruptedByUserError is one
            _show_outcome(plan, outcome, out)
            raise InterruptedByUserError(
                "interrupted; every shard is whole in its place or in the trash, "
                "and the next prune finishes what is in the trash"
            ) from None
        out.document("prune", document_of(plan, args.dry_run, outcome))
        _show_outcome(plan, outcome, out)
        return exits.FAILED if outcome.failed else _code(plan, outcome)


def _plan(args: argparse.Namespace, layout: Layout, out: Output) -> Plan:
    history = Journal(layout).read()
    left = all_leftovers(layout, history, still_proven(layout))
    inventory = take_inventory(layout, fingerprints=True)
    present = {shard.name for shard in inventory.old or ()}
    only = named_shards(args.shards, present | _gone(history, left), layout)
    if inventory.holders.unseen and not out.quiet:
        out.line(unseen(inventory.holders.unseen))
    policy = Policy(
        trust_marker=args.trust == "marker",
        older_than=args.older_than,
        until_free=args.until_free,
        only=only,
    )
    now = time.time_ns()
    proofs = held(layout, present if only is None else only, history)
    proofs.forget_answers()
    if not (args.no_verify or policy.trust_marker):
        ask_again(proofs, args)
        known = judge_all(inventory, proofs.evidence)
        prove_into(proofs, _unproven(known, policy, now), args, layout, inventory, out)
    return make_plan(
        judge_all(inventory, proofs.evidence),
        policy,
        left,
        proofs.receipts,
        free_bytes=inventory.file_system.free_bytes,
        now_ns=now,
    )


def _unproven(known: tuple[Judged, ...], policy: Policy, now_ns: int) -> list[OldShard]:
    """Return the shards whose proof would decide whether they may go."""
    return [
        judged.shard
        for judged in known
        if (policy.only is None or judged.shard.name in policy.only)
        and judged.is_marked
        and not any(r.word in BY_WISH for r in decide(judged, policy, now_ns).reasons)
    ]


def _gone(history: History, left: tuple[Leftover, ...]) -> set[str]:
    """Return the shards that an earlier prune took out: a script may name them again."""
    ended = {str(r.get("shard")) for r in history.records if r["event"] in ("deleted", "finished")}
    return ended | {item.shard for item in left if item.shard}


def _code(plan: Plan, outcome: Outcome | None = None) -> int:
    changed = [reasons for _, reasons in outcome.kept] if outcome else []
    unwished = any(reason.word != "enough-free" for reasons in changed for reason in reasons)
    attention = unwished or plan.falls_short or bool(plan.unknown)
    # It is marked, and in its place all the same.
    attention = attention or bool(outcome and outcome.put_back)
    attention = attention or any(kept.needs_attention for kept in plan.keep)
    return exits.ATTENTION if attention else exits.DONE


def _tell_wrong(plan: Plan, out: Output) -> None:
    """Say what of a plan makes the exit code 3, where a mail begins with it."""
    for kept in plan.keep:
        if kept.needs_attention:
            reasons = "; ".join(_reason_words(kept.reasons))
            out.wrong(f"{kept.judged.shard.name}: {kept.judged.verdict}, kept: {reasons}")
    for left in plan.unknown:
        out.wrong(f"in the trash: {left.name}: not known to the journal: look at it yourself")


def _question(plan: Plan) -> str:
    what = amount(len(plan.delete), "old shard", plan.reclaimable_bytes)
    if plan.finish:
        what += f", {plural(len(plan.finish), 'entry', 'entries')} in the trash among them"
    return f"Delete {what}?"


def _show_plan(plan: Plan, out: Output) -> None:
    _tell_wrong(plan, out)
    if out.quiet:
        going = amount(len(plan.delete), "shard", plan.reclaimable_bytes)
        out.line(f"to delete: {going}, to keep: {plural(len(plan.keep), 'shard')}")
        return
    for left in plan.finish:
        words = "put back, it changed" if left.action == "put-back" else "finish its removal"
        out.line(f"in the trash since an interrupted prune: {left.shard}: {words}")
    for left in plan.unknown:
        words = f"{size(left.reclaimable_bytes)}, not known to the journal: look at it yourself"
        out.line(f"in the trash: {short(left.name)}, {words}")
    if plan.delete:
        out.line(f"to delete: {amount(len(plan.delete), 'shard', plan.reclaimable_bytes)}")
        rows = [
            (
                f"  {d.name}",
                d.evidence,
                moment(d.judged.shard.marker.written_at_ns),
                f"{d.judged.shard.tree.files:,}",
                size(d.judged.shard.tree.reclaimable_bytes),
            )
            for d in plan.delete
        ]
        out.table(("  SHARD", "EVIDENCE", "MARKED (UTC)", "FILES", "RECLAIM"), rows, right="lllrr")
    elif not plan.finish:
        out.line("nothing to delete")
    if plan.keep:
        strays = any(not kept.judged.is_shard for kept in plan.keep)
        noun = ("entry", "entries") if strays else ("shard", "shards")
        out.line(f"to keep: {plural(len(plan.keep), *noun)}")
        kept = [(k.judged.shard.name, k.judged.verdict, k.reasons) for k in plan.keep]
        _show_kept(kept, out)
    if plan.falls_short:
        out.line(f"that does not reach {size(plan.policy.until_free or 0)} of free space")
    why = {reason.word for kept in plan.keep for reason in kept.reasons}
    for detail in {
        r.detail for kept in plan.keep for r in kept.reasons if r.word == "catalogue-unreadable"
    }:
        out.line(f"catalogue-unreadable: {safe(detail)}")
    if "not-proven" in why:
        out.line("not-proven: nothing has looked for their values in the new storage yet;")
        out.line("without --no-verify, prune does. --trust marker deletes without looking.")
    if why & {"values-missing", "values-different"}:
        out.line("Deleting a shard with values missing would lose them for good: the new storage")
        out.line("does not have them. shardtool verify says which they are, and why; if they may")
        out.line("go, shardtool accept lets prune take the shard.")
    rescuable = [k.judged.shard.name for k in plan.keep if _is_rescuable(k.judged)]
    if rescuable:
        out.line(f"Bring them over: shardtool rescue {' '.join(n.lstrip('0') for n in rescuable)}")


def _is_rescuable(judged: Judged) -> bool:
    has_losses = judged.verdict == "incomplete" and not judged.is_accepted
    return has_losses and judged.evidence is not None and judged.evidence.rescuable > 0


def _show_kept(kept: list[tuple[str, str, tuple[Reason, ...]]], out: Output) -> None:
    rows = [
        (f"  {short(name)}", verdict, "; ".join(_reason_words(reasons)))
        for name, verdict, reasons in kept
    ]
    out.table(("  SHARD", "VERDICT", "REASON"), rows)


def _reason_words(reasons: tuple[Reason, ...]) -> Iterator[str]:
    for reason in reasons:
        # The reason that a whole directory shares is explained once, below the table.
        shared = ("not-proven", "no-marker", "catalogue-unreadable")
        said = reason.word in shared or not reason.detail
        yield reason.word if said else f"{reason.word}: {safe(reason.detail)}"


def _show_outcome(plan: Plan, outcome: Outcome, out: Output) -> None:
    gone = len(outcome.deleted) + len(outcome.finished)
    gained = outcome.free_after - outcome.free_before
    out.line(
        f"deleted {plural(gone, 'shard')}: freed {size(outcome.freed_bytes)} "
        f"of {size(plan.reclaimable_bytes)} predicted"
    )
    if not out.quiet:
        out.line(
            f"free space went from {size(outcome.free_before)} to {size(outcome.free_after)} "
            f"({'+' if gained >= 0 else '-'}{size(abs(gained))}; other writers count in it)"
        )
    for name in outcome.put_back:
        out.warn(f"{name}: put back from the trash: it is not what was to be deleted")
    for name, reasons in outcome.kept:
        out.warn(f"{name}: kept: {'; '.join(_reason_words(reasons))}")
    for name, error in outcome.failed:
        out.warn(f"{name}: {error}")


def document_of(plan: Plan, dry_run: bool, outcome: Outcome | None) -> dict[str, Any]:
    """Return the content of shardtool/prune/1; `outcome` of a real run, else None."""
    document: dict[str, Any] = {
        "dry_run": dry_run,
        "trust": "marker" if plan.policy.trust_marker else None,
        "delete": [
            {
                "id": d.name,
                "reclaimable_bytes": d.judged.shard.tree.reclaimable_bytes,
                "evidence": d.evidence,
                "files": d.judged.shard.tree.files,
                "marked_at": iso(d.judged.shard.marker.written_at_ns),
            }
            for d in plan.delete
        ],
        "keep": [
            {
                "id": k.judged.shard.name,
                "verdict": k.judged.verdict,
                "reasons": [reason.word for reason in k.reasons],
            }
            for k in plan.keep
        ],
        "finish": [{"name": left.name, "action": left.action} for left in plan.finish],
        "reclaimable_bytes": plan.reclaimable_bytes,
    }
    if outcome is not None:
        document |= {
            "freed_bytes": outcome.freed_bytes,
            "deleted": outcome.deleted,
            "finished": outcome.finished,
            "put_back": outcome.put_back,
            "changed": [
                {"id": name, "reasons": [reason.word for reason in reasons]}
                for name, reasons in outcome.kept
            ],
            "failed": [{"id": name, "error": error} for name, error in outcome.failed],
            "free_bytes_before": outcome.free_before,
            "free_bytes_after": outcome.free_after,
        }
    return document
