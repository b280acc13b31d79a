"""`shardtool migrate`: start 0.8's migration of the old shards, and follow it to its end."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shardtool.cli import exits
from shardtool.cli.api import add_api, opened_api
from shardtool.cli.examining import add_examination, look_at
from shardtool.cli.following import Screen
from shardtool.cli.migrated import Told, again, counted, document, end, options
from shardtool.cli.options import interval_of, seconds_of
from shardtool.cli.output import Output
from shardtool.cli.standing import Standing, standing
from shardtool.datadir.inventory import OldShard
from shardtool.datadir.layout import Layout, find_layout
from shardtool.disk.locks import Lock, exclusive
from shardtool.errors import BusyError, InterruptedByUserError, ShardtoolError, UsageError
from shardtool.influxdb.catalogue import CatalogueError, read_catalogue
from shardtool.influxdb.serverlog import MigrationLog
from shardtool.influxdb.wire import AnswerLostError
from shardtool.journal import Journal
from shardtool.upgrade.checks import MIGRATES, findings
from shardtool.upgrade.cluster import cluster_lines
from shardtool.upgrade.findings import Finding
from shardtool.upgrade.follow import Watcher, find_log, open_log
from shardtool.upgrade.migration import Look, begin, end_of, follow, gate
from shardtool.upgrade.pause import Pause
from shardtool.words import plural

if TYPE_CHECKING:
    from shardtool.influxdb.api import Api

DESCRIPTION = """\
Starts the migration of the old shards on a running 0.8.0 to 0.8.3, or finds the
one that runs already. First everything is looked at that shardtool check looks
at; while a blocker is left, nothing is sent. The migration itself runs in the
server, whatever becomes of shardtool."""

EPILOG = """\
With --wait it follows the migration by markers, by locks, by what the new
shards grow by and by InfluxDB's log, whose errors it shows, until every
directory that can be migrated is marked, or the server is gone, or nothing
has moved for the time of --stall. Interrupted, it leaves the migration as it
is; started again, it goes on following.

A marker proves nothing: 0.8 writes it although reads and writes have failed.
What was really brought over, shardtool verify says.

In a cluster each server migrates its own db/shard_db, so this has to be done
on each of them.

examples:
  shardtool migrate --wait
  shardtool migrate --pause 0s          as fast as it goes, while nobody writes
  shardtool migrate --override no-snapshot --wait

Exit code 0 if it was started (with --wait: if all is marked and InfluxDB's log
told no error), 1 if the server died or nothing moved, 3 if a blocker is left,
an error was logged or a shard was passed over without a marker."""

_FIRST_PAUSE = 0.25  # seconds to the second look; a small migration is over in no time
_LOOKING_SHARE = 4  # looking takes no more than a fifth of the time
_LAST_WORDS = 0.5  # seconds in which the log's buffer reaches the disk


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what only this command takes."""
    add_examination(parser)
    parser.add_argument(
        "--wait", action="store_true", help="follow the migration until it has ended"
    )
    parser.add_argument(
        "--stall",
        type=_stall_of,
        default=600,
        metavar="TIME",
        help="with --wait: give up when nothing has moved for so long (default: 10m)",
    )
    parser.add_argument(
        "--every",
        type=interval_of,
        default=2,
        metavar="TIME",
        help="with --wait: how often to look (default: 2s)",
    )
    parser.add_argument(
        "--override",
        action="append",
        default=[],
        metavar="ID",
        help="start although the check has this blocker; may be given several times",
    )
    parser.add_argument(
        "--log",
        metavar="FILE",
        help="InfluxDB's log (default: what its config.toml says, else influxdb.log or "
        "log.txt beside the data directory)",
    )
    add_api(
        parser,
        about="the server that runs on this data directory "
        "(default: http://localhost and the port of its config.toml, else 8086)",
    )


def _stall_of(text: str) -> int:
    seconds = seconds_of(text)
    if seconds < 1:
        raise argparse.ArgumentTypeError(f"expected a duration of at least 1s, found {text!r}")
    return seconds


def run(args: argparse.Namespace, out: Output) -> int:
    """Start the migration, or find the one that runs, and with --wait follow it to its end."""
    layout = find_layout(args.data, args.influx_config, dict(os.environ))
    node = standing(layout)
    _tell_cluster(layout, out)
    # The migrator looks at real directories alone (FORMATS.md, "The migration").
    directories = tuple(s for s in node.inventory.old or () if s.kind == "directory")
    if all(shard.marker.present for shard in directories):
        return _nothing_to_do(directories, out)
    path = _log_path(args, layout)
    with opened_api(args, layout, default=True) as api:
        version = api.server_version()
        if node.inventory.new is None:
            raise ShardtoolError(
                f"{layout.new_shards}: expected a directory that 0.8 has been started on, found "
                f"nothing there; upgrade first (shardtool check), or check that {api.url} "
                f"({version}) is the server on this directory"
            )
        # A 0.7 that was started again has every old shard open too.
        migrates = MIGRATES.fullmatch(version) is not None
        is_running = migrates and _is_running(node, directories)
        overridden: tuple[Finding, ...] | None = None
        if not is_running:
            overridden = _refuse_or_override(args, node, out, api)
            if overridden is None:
                return exits.ATTENTION
        told = Told()
        watcher = Watcher(layout, _opened(path, args, out, running=is_running), api.is_up)
        told.run = begin(watcher.look())
        if overridden is not None:
            _start(args, layout, api, told, version, overridden)
        else:
            told.already_running = True
        if told.already_running and not is_running:
            watcher.log.close()
            watcher.log = _opened(path, args, out, running=True)
        _tell_start(args, told, out)
        if not args.wait:
            out.document("migrate", document(told, watcher.log))
            return exits.DONE
        if path is None:
            out.warn(
                "InfluxDB's log was not found, so errors that are only in it can't be shown; "
                "name it with --log"
            )
        # Between two batches the migrator rests for its pause, which is no standstill.
        _follow(args, watcher, told, out, stall=args.stall + _pause(args, layout, told))
        return end(args, layout, watcher.log, told, api.url, out)


def _tell_cluster(layout: Layout, out: Output) -> None:
    """Say which servers there are and whose shards are whose; a server alone has nothing of it."""
    with contextlib.suppress(CatalogueError):  # that raft can't be read is the check's to tell
        for line in cluster_lines(read_catalogue(layout.raft)):
            out.warn(line)


def _nothing_to_do(directories: tuple[OldShard, ...], out: Output) -> int:
    marked = {shard.name: shard.tree.apparent_bytes for shard in directories}
    told = Told(ended="nothing-to-do", run=begin(Look(time.monotonic(), marked)))
    out.document("migrate", document(told, MigrationLog(None)))
    if not directories:
        out.line("there are no old shards to migrate: nothing was sent")
        return exits.DONE
    every = "the old shard is" if len(marked) == 1 else f"all {len(marked):,} old shards are"
    out.line(f"{every} marked as migrated: nothing was sent")
    if not out.quiet:
        out.line("a marker proves nothing; next: shardtool verify")
    return exits.DONE


# -- before it starts --


def _log_path(args: argparse.Namespace, layout: Layout) -> Path | None:
    if args.log is not None:
        path = Path(args.log)
        if not path.exists():
            raise ShardtoolError(f"{path}: expected InfluxDB's log, found nothing; check --log")
        return path
    return find_log(layout)


def _opened(
    path: Path | None, args: argparse.Namespace, out: Output, *, running: bool
) -> MigrationLog:
    try:
        return open_log(path, of_last_migration=running)
    except ShardtoolError as error:
        if args.log is not None:
            raise
        # It was only found: the migration can be followed without it.
        out.warn(f"warning: {error}")
        return MigrationLog(None)


def _is_running(node: Standing, directories: Iterable[OldShard]) -> bool:
    """Say whether a migration runs: the server has an old shard open, as nobody else beside 0.8.

    Raises:
        BusyError: a process that is no server has one open.
    """
    layout = node.layout
    places = [os.path.realpath(path) + "/" for path in (layout.raft, layout.wal, layout.new_shards)]
    held = [shard for shard in directories if shard.lock.state is Lock.HELD]
    for shard in held:
        files = [file for file in node.inventory.holders.files if file.pid == shard.lock.pid]
        # Whose files can't be seen may be the server, in a container or another user's.
        if files and not any(file.path.startswith(tuple(places)) for file in files):
            raise BusyError(
                f"{layout.old_shards / shard.name}: expected nobody in it but the server, found "
                f"pid {shard.lock.pid} ({files[0].process}), which has nothing of the server's "
                "open: end it first"
            )
    return bool(held)


def _refuse_or_override(
    args: argparse.Namespace, node: Standing, out: Output, api: Api
) -> tuple[Finding, ...] | None:
    """Return the blockers that the operator overrides; None where one is left.

    Raises:
        UsageError: an id to override is no finding's.
    """
    everything = findings(look_at(args, node, out, api))
    found = gate(everything, args.override)
    if found.unknown:
        there = ", ".join(found.blockers) if found.blockers else "none"
        raise UsageError(
            f"--override {found.unknown[0]}: no finding of the check has this id; "
            f"blockers there are: {there}"
        )
    for finding in found.overridden:
        out.warn(f"overridden: {_finding_line(finding)}")
    if not found.refused:
        for finding in everything:
            if finding.level == "warning":
                out.warn(f"warning: {finding.id}: {finding.message}")
        return found.overridden
    for finding in found.refused:
        out.warn(f"blocker: {_finding_line(finding)}")
    ids = dict.fromkeys(finding.id for finding in found.refused)
    every = " ".join(f"--override {word}" for word in ids)
    out.document("migrate", document(Told(refused=found.refused), MigrationLog(None)))
    out.warn(f"nothing was sent; put this right, or start all the same with {every}")
    return None


def _finding_line(finding: Finding) -> str:
    advice = f"; {finding.advice}" if finding.advice else ""
    return f"{finding.id}: {finding.subject}: {finding.message}{advice}"


def _start(
    args: argparse.Namespace,
    layout: Layout,
    api: Api,
    told: Told,
    version: str,
    overridden: tuple[Finding, ...],
) -> None:
    """Send the request, with a record in the journal before it.

    Raises:
        BusyError: another shardtool is changing the node.
        AnswerLostError: whether it has started is not known.
        ShardtoolError: the server refuses, or the journal can't be written.
        InterruptedByUserError: before it was known what became of the request.
    """
    journal = Journal(layout)
    waiting = sorted(told.run.now.unmarked) if told.run is not None else []
    with exclusive(layout.anchor, purpose="data directory"):
        journal.append(
            "migration-started",
            pause=args.pause.sent,
            version=version,
            shards=waiting,
            overridden=[finding.id for finding in overridden],
        )
        try:
            told.started = api.start_migration(args.pause.sent)
        except AnswerLostError as error:
            journal.append("migration-unknown", error=str(error))
            raise AnswerLostError(
                f"{error}, so it may have started: {again(args)} finds out"
            ) from None
        except ShardtoolError as error:
            journal.append("migration-failed", error=str(error))
            raise
        except KeyboardInterrupt:
            with contextlib.suppress(ShardtoolError):
                journal.append("migration-unknown", error="interrupted")
            raise InterruptedByUserError(
                "interrupted while the server was asked: whether the migration has started is "
                "not known; shardtool migrate --wait finds out"
            ) from None
        told.already_running = not told.started
        if told.already_running:
            journal.append("migration-joined")


def _tell_start(args: argparse.Namespace, told: Told, out: Output) -> None:
    waiting = plural(len(told.run.now.unmarked), "old shard") if told.run is not None else ""
    if told.started:
        text = f"the migration has started: {waiting} to go, pause {args.pause.sent}"
    else:
        text = f"a migration runs already, with a pause of its own: {waiting} to go"
    if not args.wait or not out.quiet:
        out.line(text)
    if not args.wait and not out.quiet:
        out.line(f"follow it: shardtool status --watch{options(args, 'data', 'influx_config')}")
        out.line(f"or, to its end: {again(args)}")


# -- while it runs --


def _pause(args: argparse.Namespace, layout: Layout, told: Told) -> float:
    """Return the pause in seconds of the migration that runs, as far as the journal knows it."""
    pause: Pause = args.pause
    if told.already_running:
        for text in _pauses(Journal(layout).read().records):
            with contextlib.suppress(ValueError):
                pause = Pause.of(text)
    return pause.us / 1_000_000


def _pauses(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the pauses of those migrations that were started, as the journal has them.

    It is written before the request, so what follows says that a start was none: another ran
    already, or the server refused it.
    """
    found: list[str] = []
    may_be_none = False
    for record in records:
        event = record["event"]
        if event == "migration-started":
            found.append(str(record.get("pause")))
        elif event in ("migration-joined", "migration-failed") and may_be_none:
            found.pop()
        if str(event).startswith("migration-"):
            may_be_none = event == "migration-started"
    return found


def _follow(
    args: argparse.Namespace, watcher: Watcher, told: Told, out: Output, *, stall: float
) -> None:
    """Look again and again until it has ended, or nothing has moved for `stall` seconds.

    Raises:
        InterruptedByUserError: the migration goes on.
    """
    begun = time.monotonic()
    pause = _FIRST_PAUSE
    run = told.run or begin(watcher.look())
    try:
        with Screen(out) as screen:
            while told.ended is None:
                screen.show(run)
                time.sleep(pause)
                before = time.monotonic()
                told.run = run = follow(run, watcher.look())
                looking = time.monotonic() - before
                pause = max(min(pause * 2, args.every), looking * _LOOKING_SHARE)
                told.ended = end_of(run, stall)
            # What the server has said last reaches its log a moment later.
            for _ in range(2):
                time.sleep(_LAST_WORDS / 2)
                told.run = run = follow(run, watcher.look())
            told.ended = end_of(run, math.inf) or told.ended
            screen.show(run)
    except KeyboardInterrupt:
        if told.ended is not None:
            return  # nothing was to come but the log's last words
        told.ended = "interrupted"
        told.seconds = time.monotonic() - begun
        out.document("migrate", document(told, watcher.log))
        raise InterruptedByUserError(
            f"interrupted; the migration goes on in the server ({counted(run)}); "
            f"to go on following it: {again(args)}"
        ) from None
    finally:
        told.seconds = time.monotonic() - begun
