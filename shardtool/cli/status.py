"""`shardtool status`: where am I, what is next, what could I get back."""

from __future__ import annotations

import argparse
import os
import textwrap
from typing import Any

from shardtool.cli import exits
from shardtool.cli.options import interval_of
from shardtool.cli.output import Output, moment, safe, short, table_lines, unseen
from shardtool.cli.standing import (
    Standing,
    new_document,
    old_document,
    standing,
    trash_document,
)
from shardtool.datadir.layout import Layout, find_layout
from shardtool.datadir.verdict import Judged
from shardtool.disk.locks import Lock
from shardtool.errors import ShardtoolError, UsageError
from shardtool.words import plural, size

DESCRIPTION = """\
Shows every old and new shard, what is wrong with it, what could be reclaimed,
where the node stands between 0.7 and 0.8, and the next command.
Changes nothing and takes no lock, so it can run beside a server at any time."""

EPILOG = """\
verdicts of old shards:
  unmigrated  no marker: the migration has not been here
  marked      a sound marker, and nothing proven by it: see verify
  proven      every value was found in the new storage (verify)
  incomplete  values are missing there or different (verify)
  suspect     structure or marker is wrong; the line below says how
  busy        another process has it open
  unreadable  it can't be looked at; the line below says why

ON DISK counts blocks, as du does. RECLAIM is what the file system gives back
when the shard goes: a file with hard links elsewhere is not in it.
Times are UTC. Exit code 3 if a shard is suspect or unreadable, or if the trash
holds what the journal does not know.

--nagios prints one line with performance data, and has a plugin's exit codes:
  2 CRITICAL  what gets worse until the morning: a shard unreadable, a restore
              half done, free space below --critical-free
  1 WARNING   what can wait: values not in the new storage (they are safe in the
              old shard, which prune keeps), a shard suspect, trash left over,
              a journal that is damaged, free space below --warn-free
  3 UNKNOWN   status could not find out, for whatever reason; wrong usage too
  0 OK        all else, also while the migration runs

examples:
  shardtool status --watch
  shardtool status -q --prometheus /var/lib/node_exporter/shardtool.prom
  shardtool status --nagios --warn-free 20% --critical-free 5%"""

_NAME = 10  # columns of a name in the table, so that 80 are enough
# A marked shard is not green: a marker proves nothing.
_STYLES = {
    "marked": "wait",
    "proven": "good",
    "incomplete": "bad",
    "suspect": "bad",
    "unreadable": "bad",
    "busy": "wait",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what only this command takes."""
    parser.add_argument(
        "--watch", action="store_true", help="look again and again, redrawn, until ctrl-C"
    )
    parser.add_argument(
        "--every",
        type=interval_of,
        default=2,
        metavar="TIME",
        help="with --watch: how often (default: 2s)",
    )
    parser.add_argument(
        "--prometheus",
        metavar="FILE",
        help="write metrics for node_exporter's textfile collector; FILE ends in .prom",
    )
    parser.add_argument(
        "--nagios", action="store_true", help="print the line of a monitoring plugin"
    )
    for level in ("warn", "critical"):
        parser.add_argument(
            f"--{level}-free",
            metavar="SIZE",
            help=f"with --nagios: {level} where less is free, such as 50G or 10%%",
        )


def run(args: argparse.Namespace, out: Output) -> int:
    """Look once and show it, or with --watch until interrupted."""
    _refuse_contradictions(args, out)
    if args.watch:
        return _watch(find_layout(args.data, args.influx_config, dict(os.environ)), args.every, out)
    report, written, failure = _look(args)
    if failure is not None and not out.mail:
        raise failure
    if args.nagios:
        from shardtool.cli import plugin

        return plugin.show(report, args, _totals(report), out)
    _tell_wrong(report, out)
    out.document("status", _document(report))
    if out.quiet:
        out.line(_totals(report))
    else:
        for line in [*_lines(report, out), *written]:
            out.line(line)
    for problem in report.problems:
        out.warn(problem)
    if failure is not None:  # at the end: a mail hides nothing else that is wrong
        raise failure
    return exits.ATTENTION if report.needs_attention else exits.DONE


def _refuse_contradictions(args: argparse.Namespace, out: Output) -> None:
    """Refuse options that can't both be done.

    Raises:
        UsageError: there are such.
    """
    if args.watch and (args.prometheus is not None or args.nagios or out.mail):
        raise UsageError(
            "--watch goes on and on, and --prometheus, --nagios and -qq come to an end: give one"
        )
    if not args.nagios and (args.warn_free, args.critical_free) != (None, None):
        raise UsageError("--warn-free and --critical-free are for --nagios, which is not there")


def _look(args: argparse.Namespace) -> tuple[Standing, list[str], ShardtoolError | None]:
    """Look, and write the metrics where they are wanted; return what to say of that too, and why
    it failed."""
    if args.prometheus is None:
        return standing(find_layout(args.data, args.influx_config, dict(os.environ))), [], None
    # Imported only here: a plain status does without.
    from shardtool.cli.textfile import UnwrittenError, look_and_write

    try:
        report, written = look_and_write(args, standing)
    except UnwrittenError as error:
        return error.report, [], error
    return report, [written], None


def _tell_wrong(report: Standing, out: Output) -> None:
    """Say what makes the exit code 3, where a mail begins with it."""
    for judged in report.shards:
        if judged not in report.wrong and judged.shard.lock.state is not Lock.UNKNOWN:
            continue
        reasons = "; ".join(map(str, judged.reasons))
        out.wrong(f"{judged.shard.name}: {judged.verdict}: {reasons}")
    for shard in report.inventory.new or ():
        if shard.error:
            out.wrong(f"{shard.name} (new): {shard.error}")
    for item in report.left:
        if item.action == "leave":
            out.wrong(f"in the trash: {item.name}: not known to the journal")


def _watch(layout: Layout, seconds: int, out: Output) -> int:
    # Imported only here: it needs what a single look does without.
    from shardtool.cli.watching import Shown, watch

    def look() -> Shown:
        report = standing(layout)
        return Shown(report.inventory, _lines(report, out), _totals(report), report.stage.name)

    return watch(layout, seconds, look, out)


def _totals(report: Standing) -> str:
    allocated = sum(j.shard.tree.allocated_bytes for j in report.shards)
    counts = {verdict: len(report.of(verdict)) for verdict in ("marked", "proven", "incomplete")}
    parts = [plural(len(report.shards), "old shard")]
    # Until something is proven, that nothing is marked is worth a word too.
    if counts["marked"] or not (counts["proven"] or counts["incomplete"]):
        parts.append(f"{counts['marked']} marked")
    parts += [f"{counts[v]} {v}" for v in ("proven", "incomplete") if counts[v]]
    if report.wrong:
        parts.append(f"{len(report.wrong)} suspect or unreadable")
    parts += [f"{size(allocated)} on disk", f"{size(report.reclaimable_bytes)} reclaimable"]
    return ", ".join(parts)


def _lines(report: Standing, out: Output) -> list[str]:
    room = report.inventory.file_system
    lines = [
        out.styled(safe(report.layout.name), "bold"),
        f"file system: {size(room.free_bytes)} free of {size(room.total_bytes)}",
        "",
        *_old_table(report.old, out),
        *_new_table(report),
        _totals(report),
    ]
    for item in report.left:
        what = "not known to the journal" if item.action == "leave" else "the next prune ends it"
        lines.append(f"trash: {short(item.name)}, {size(item.reclaimable_bytes)}: {what}")
    if report.inventory.holders.unseen:
        lines.append(unseen(report.inventory.holders.unseen))
    lines += ["", f"stage: {report.stage.name}: {report.stage.words}"]
    if report.stage.next:
        lines.append(f"next:  {report.stage.next}")
    if report.stage.advice:
        lines += textwrap.wrap(
            report.stage.advice,
            78,
            initial_indent="       ",
            subsequent_indent="       ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    return lines


def _old_table(old: tuple[Judged, ...], out: Output) -> list[str]:
    if not old:
        return ["no old shards", ""]
    header = ("OLD", "VERDICT", "FILES", "SIZE", "ON DISK", "RECLAIM", "MARKED", "LAST WRITE")
    table = table_lines(header, [_row(j, out.width) for j in old], right="llrrrrll")
    lines = [out.styled(table[0], "bold")]
    for judged, line in zip(old, table[1:], strict=True):
        name, verdict = judged.shard.name, judged.verdict
        style = _STYLES.get(verdict, "")
        lines.append(out.with_verdict(line, short(name, _NAME), verdict, style))
        if len(safe(name)) > _NAME:
            lines.append(f"  name: {safe(name)}")
        lines += [
            f"  {reason.word}: {safe(reason.detail)}" for reason in judged.reasons if reason.detail
        ]
    return [*lines, ""]


def _row(judged: Judged, width: int) -> tuple[str, ...]:
    tree, marker = judged.shard.tree, judged.shard.marker
    # 80 columns have room for days; a wider terminal shows the time of day too.
    shown = 10 if width < 100 else 19
    return (
        short(judged.shard.name, _NAME),
        judged.verdict,
        f"{tree.files:,}",
        size(tree.apparent_bytes),
        size(tree.allocated_bytes),
        size(judged.reclaimable_bytes) if judged.reclaimable_bytes else "-",
        moment(marker.written_at_ns)[:shown],
        moment(tree.last_write_ns)[:shown],
    )


def _new_table(report: Standing) -> list[str]:
    new = report.inventory.new
    if not new:
        return ["no new shards", ""]
    rows = [
        (
            short(shard.name),
            shard.engine,
            f"{shard.tree.files:,}",
            size(shard.tree.allocated_bytes),
            safe(shard.error),
        )
        for shard in new
    ]
    return [*table_lines(("NEW", "ENGINE", "FILES", "ON DISK", ""), rows, right="llrr"), ""]


def _document(report: Standing) -> dict[str, Any]:
    room = report.inventory.file_system
    return {
        "data": report.layout.name,
        "old_shards": [old_document(j) for j in report.old],
        "new_shards": [new_document(shard) for shard in report.inventory.new or ()],
        "totals": {
            "old_shards": len(report.shards),
            "marked": len(report.of("marked")),
            "proven": len(report.of("proven")),
            "incomplete": len(report.of("incomplete")),
            "old_allocated_bytes": sum(j.shard.tree.allocated_bytes for j in report.shards),
            "reclaimable_bytes": report.reclaimable_bytes,
        },
        "filesystem": {"total_bytes": room.total_bytes, "free_bytes": room.free_bytes},
        "trash": [trash_document(left) for left in report.left],
        "unseen_processes": report.inventory.holders.unseen,
        "stage": report.stage.name,
        "next": report.stage.next,
    }
