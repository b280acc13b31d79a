"""`shardtool check`: is it safe to take the next step."""

from __future__ import annotations

import argparse
import contextlib
import os
import textwrap
from typing import Any

from shardtool.cli import exits
from shardtool.cli.api import add_api, opened_api
from shardtool.cli.examining import add_examination, look_at
from shardtool.cli.output import Output, safe, short
from shardtool.cli.standing import Standing, standing
from shardtool.datadir.layout import find_layout
from shardtool.upgrade.checks import findings
from shardtool.upgrade.facts import Facts
from shardtool.upgrade.findings import LEVELS, Finding
from shardtool.upgrade.foresight import Skipped
from shardtool.words import plural

DESCRIPTION = """\
Says what stands in the way of the next step: the upgrade of an 0.7 directory,
or the migration on an 0.8. Reads every old shard that is still to be migrated
and the write-ahead log, so it says exactly what the migration will skip and
what an upgrade would lose. Changes nothing."""

EPILOG = """\
levels:
  blocker  the next step loses data, or can't work; migrate refuses
  warning  something will not come over, or has to be dealt with afterwards
  info     good to know

What the migrator skips stays in its old shard: verify names it afterwards,
rescue sends it, and prune keeps that shard until then. With --api the running
server is asked for its version and its shard spaces; otherwise they are read
from the raft directory.

examples:
  shardtool check
  shardtool check --api http://localhost:8086 --pause 1s
  shardtool check --json | jq '.findings[] | select(.level == "blocker")'

Exit code 3 if there is a blocker."""

_STYLES = {"blocker": "bad", "warning": "wait", "info": "good"}
_WIDTH = 79
_MOST_SERIES = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what only this command takes."""
    add_examination(parser)
    add_api(
        parser,
        about="a server that runs on this data directory, to be asked for its version and "
        "spaces, such as http://localhost:8086",
    )


def run(args: argparse.Namespace, out: Output) -> int:
    """Look, and tell what was found; return the exit code."""
    layout = find_layout(args.data, args.influx_config, dict(os.environ))
    with contextlib.ExitStack() as stack:
        api = None
        if args.api is not None:
            api = stack.enter_context(opened_api(args, layout, default=False))
        node = standing(layout)
        facts = look_at(args, node, out, api)
    found = findings(facts)
    out.document("check", _document(node, facts, found))
    for one in found:
        if one.blocks:
            out.wrong(f"blocker: {one.id}: {one.subject}: {one.message}; {one.advice}")
    if out.quiet:
        out.line(_totals(found))
    else:
        _show(node, facts, found, out)
    for problem in node.problems:
        out.warn(problem)
    return exits.ATTENTION if any(one.blocks for one in found) else exits.DONE


def _document(node: Standing, facts: Facts, found: tuple[Finding, ...]) -> dict[str, Any]:
    seen = facts.foresight
    document: dict[str, Any] = {
        "findings": [
            {
                "id": one.id,
                "level": one.level,
                "subject": one.subject,
                "message": one.message,
                "advice": one.advice,
            }
            for one in found
        ],
        "stage": node.stage.name,
        "migration": None,
        "skipped": [],
        "wal_only": [],
        "servers": [],
    }
    if seen is not None:
        document["migration"] = {
            "shards": seen.shards,
            "values": seen.values,
            "points": seen.points,
            "pause_seconds": seen.pauses * facts.pause_us / 1_000_000,
        }
        document["skipped"] = [
            {
                "database": one.database,
                "series": one.series,
                "cause": one.cause,
                "values": one.values,
                "shards": list(one.shards),
            }
            for one in seen.skipped
        ]
    if facts.wal is not None:
        document["wal_only"] = [
            {
                "shard": gap.target.name,
                "side": "old" if gap.target.is_old else "new",
                "present": gap.is_there,
                "values": gap.values,
                "missing": gap.missing,
                "newer": gap.newer,
                "doubtful": gap.doubtful,
                "series": [
                    {"database": database, "series": series, "values": values}
                    for database, series, values in gap.series
                ],
            }
            for gap in facts.wal.gaps
        ]
    if facts.raft is not None:
        document["servers"] = [
            {
                "id": server.id,
                "raft_name": server.raft_name,
                "own": server.id == facts.raft.own_server,
                "new_shards": [
                    f"{shard.id:05d}" for shard in facts.raft.shards if server.id in shard.servers
                ],
            }
            for server in facts.raft.servers
        ]
    return document


def _show(node: Standing, facts: Facts, found: tuple[Finding, ...], out: Output) -> None:
    out.line(f"{safe(node.layout.name)}: {node.stage.words}")
    for one in found:
        out.line()
        label = f"{one.level:<8}"
        head = f"{out.styled(label, _STYLES[one.level])} {safe(one.id)}"
        out.line(head)
        for line in _wrapped(one.message):
            out.line(line)
        if one.advice:
            for line in _wrapped(f"-> {one.advice}"):
                out.line(line)
    if facts.foresight is not None and facts.foresight.skipped:
        out.line()
        _show_skipped(facts.foresight.skipped, out)
    out.line()
    out.line(_totals(found))


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(
        safe(text),
        _WIDTH,
        initial_indent="  ",
        subsequent_indent="     " if text.startswith("-> ") else "  ",
        break_on_hyphens=False,
    )


def _show_skipped(skipped: tuple[Skipped, ...], out: Output) -> None:
    """Show the series that will not come over, those that lose most first."""
    ordered = sorted(skipped, key=lambda one: -one.values)
    out.table(
        ("DATABASE", "SERIES", "CAUSE", "VALUES", "IN SHARDS"),
        [
            (
                short(one.database, 16),
                short(one.series, 24),
                one.cause,
                f"{one.values:,}",
                short(one.shards[0], 12) + f" +{len(one.shards) - 1}" * (len(one.shards) > 1),
            )
            for one in ordered[:_MOST_SERIES]
        ],
        right="lllr",
    )
    if len(ordered) > _MOST_SERIES:
        out.line(f"... and {len(ordered) - _MOST_SERIES:,} more series; --json lists all")


def _totals(found: tuple[Finding, ...]) -> str:
    counts = {level: sum(one.level == level for one in found) for level in reversed(LEVELS)}
    told = [plural(counts["blocker"], "blocker"), plural(counts["warning"], "warning")]
    return ", ".join([*told, f"{counts['info']} notes"])
