"""What `shardtool migrate` tells of a migration: its document, how it ended, what is next."""

from __future__ import annotations

import argparse
import shlex
import textwrap
from dataclasses import dataclass
from typing import Any

from shardtool.cli import exits
from shardtool.cli.following import trouble_line
from shardtool.cli.output import Output, safe, short
from shardtool.datadir.layout import Layout
from shardtool.errors import ShardtoolError
from shardtool.influxdb.serverlog import MigrationLog
from shardtool.journal import Journal
from shardtool.upgrade.findings import Finding
from shardtool.upgrade.migration import Run
from shardtool.words import duration, names, plural


@dataclass
class Told:
    """What is to be told at the end.

    Args:
        started: the request was sent, and a migration began.
        already_running: one ran already.
        ended: how it ended: as end_of says it, 'interrupted' or 'nothing-to-do'; None while it
            goes on or has not begun.
        run: what was seen of it; None where nobody looked.
        seconds: that it was followed.
        refused: blockers because of which nothing was sent.
    """

    started: bool = False
    already_running: bool = False
    ended: str | None = None
    run: Run | None = None
    seconds: float = 0.0
    refused: tuple[Finding, ...] = ()


def options(args: argparse.Namespace, *wanted: str) -> str:
    """Return those options that the next command needs too, as they were given."""
    given = ((name.replace("_", "-"), getattr(args, name)) for name in wanted)
    return safe("".join(f" --{name} {shlex.quote(value)}" for name, value in given if value))


def again(args: argparse.Namespace) -> str:
    """Return the command that follows the migration that runs, or starts it again."""
    wanted = ("data", "influx_config", "store", "api", "user", "password_file", "log")
    return f"shardtool migrate --wait{options(args, *wanted)}"


def counted(run: Run) -> str:
    """Return how many shards are marked, in words."""
    total = len(run.now.marked) + len(run.now.unmarked)
    return f"{len(run.now.marked)} of {total} old shards are marked"


def end(
    args: argparse.Namespace, layout: Layout, log: MigrationLog, told: Told, url: str, out: Output
) -> int:
    """Write the journal, tell how it ended, and return the exit code.

    Raises:
        ShardtoolError: it did not end well.
    """
    seen = told.run
    if seen is None:
        return exits.DONE
    errors = len(log.troubles) + log.more_troubles
    try:
        Journal(layout).append(
            "migration-ended",
            how=told.ended,
            marked=list(seen.marked_since),
            left=list(seen.left),
            passed_over=list(seen.passed_over),
            errors=errors,
            seconds=round(told.seconds, 1),
        )
    except ShardtoolError as error:
        out.warn(str(error))
    out.document("migrate", document(told, log))
    if told.ended in ("server-died", "server-restarted", "stalled"):
        raise ShardtoolError(_what_went_wrong(args, told, seen, url))
    _tell_end(told, seen, errors, log, out)
    return exits.ATTENTION if errors or seen.passed_over else exits.DONE


def _what_went_wrong(args: argparse.Namespace, told: Told, seen: Run, url: str) -> str:
    done = f"marked since: {names(map(short, seen.marked_since), 8)}"
    left = f"not marked: {names(map(short, (*seen.left, *seen.passed_over)), 8)}"
    if told.ended == "server-restarted":
        return (
            f"{url}: expected the migration to go on, found the server started again, which ends "
            f"it; {counted(seen)}; {done}; {left}; go on with {again(args)}"
        )
    if told.ended == "server-died":
        return (
            f"{url}: expected the server to answer, found it gone; {counted(seen)}; {done}; "
            f"{left}; start it, then go on with {again(args)}"
        )
    idle = duration(seen.now.at - seen.moved_at)
    return (
        f"expected the migration to move, found nothing that did for {idle}; {counted(seen)}; "
        f"{done}; {left}; see InfluxDB's log, make sure that {url} is the server on this "
        f"directory, then start it again with {again(args)}"
    )


def _tell_end(told: Told, seen: Run, errors: int, log: MigrationLog, out: Output) -> None:
    parts = [counted(seen)]
    if seen.passed_over:
        parts.append(f"{len(seen.passed_over)} passed over")
    if errors:
        parts.append(f"{plural(errors, 'error')} logged")
    out.line(f"it has ended after {duration(told.seconds)}: {', '.join(parts)}")
    if out.quiet:
        return
    if seen.now.unmarked:
        left = f"passed over, without a marker: {names(map(short, seen.passed_over), 40)}"
        for line in textwrap.wrap(left, 79, break_long_words=False, break_on_hyphens=False):
            out.line(line)
    if errors and log.reader is not None:
        out.line(f"errors: see {safe(str(log.reader.path))}; the last:")
        out.line(f"  {trouble_line(log.troubles[-1])}")
    out.line("a marker proves nothing; next: shardtool verify")


def document(told: Told, log: MigrationLog) -> dict[str, Any]:
    """Return the content of shardtool/migrate/1."""
    seen = told.run
    return {
        "started": told.started,
        "already_running": told.already_running,
        "ended": told.ended,
        "marked": sorted(seen.now.marked) if seen else [],
        "left": list(seen.left) if seen else [],
        "passed_over": list(seen.passed_over) if seen else [],
        "errors": [
            {"shard": trouble.shard or None, "series": trouble.series or None, "text": trouble.text}
            for trouble in log.troubles
        ],
        "more_errors": log.more_troubles,
        "seconds": round(told.seconds, 3),
        "refused": [
            {"id": one.id, "subject": one.subject, "message": one.message, "advice": one.advice}
            for one in told.refused
        ],
    }
