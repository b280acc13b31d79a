"""`shardtool status --watch`: the report drawn again and again, with the migration that runs."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from shardtool.cli.following import lines_of, state_of
from shardtool.cli.output import Output
from shardtool.datadir.inventory import Inventory
from shardtool.datadir.layout import Layout
from shardtool.errors import ShardtoolError, UsageError
from shardtool.influxdb.serverlog import MigrationLog
from shardtool.upgrade.follow import find_log, look_in, open_log
from shardtool.upgrade.migration import Run, begin, follow

_MOVING_SECONDS = 30.0  # after which a migration that has no shard open counts as standing


@dataclass(frozen=True)
class Shown:
    """One report of status.

    Args:
        inventory: what it is about.
        lines: the whole of it.
        totals: its one line.
        stage: where the node stands.
    """

    inventory: Inventory
    lines: list[str]
    totals: str
    stage: str


def watch(layout: Layout, seconds: int, look: Callable[[], Shown], out: Output) -> int:
    """Redraw the report until interrupted; where there is no terminal, a line each time.

    Args:
        layout: the node.
        seconds: how long to wait between two looks.
        look: takes a new report.
        out: where to tell.

    Raises:
        UsageError: JSON was asked for.
    """
    if out.as_json:
        raise UsageError("--watch draws for people; for a script, call status --json repeatedly")
    migration = _Migration(layout)
    if not sys.stdout.isatty():
        while True:
            shown = look()
            run = migration.seen_in(shown)
            more = f"; {state_of(run)}" if run is not None else ""
            out.line(shown.totals + more)
            sys.stdout.flush()
            time.sleep(seconds)
    # rich takes longer to import than a whole status.
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console()
    # No refresh thread of rich's: the scan forks, and a fork in a process with threads can hang.
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            shown = look()
            run = migration.seen_in(shown)
            more_lines = ["", *lines_of(run)] if run is not None else []
            lines = _fitting(shown.lines + more_lines, console.height - 1, len(more_lines))
            text = Text.from_ansi("\n".join(lines))
            text.no_wrap = True
            live.update(text, refresh=True)
            time.sleep(seconds)


def _fitting(lines: list[str], height: int, last: int) -> list[str]:
    """Given a report's lines, return what fits: its head and its end, which says what matters.

    Args:
        lines: all of them.
        height: how many there may be.
        last: how many of the last ones belong to the migration that runs.
    """
    if len(lines) <= height:
        return lines
    end = min(8 + last, max(height // 2, height - 4))
    head = max(0, height - end - 1)
    hidden = f"... {len(lines) - head - end} lines more; make the terminal taller, or use --quiet"
    return [*lines[:head], hidden, *lines[-end:]]


@dataclass
class _Migration:
    """What successive reports say of a migration, from disk alone."""

    layout: Layout
    log: MigrationLog | None = None
    run: Run | None = field(default=None, init=False)

    def seen_in(self, shown: Shown) -> Run | None:
        """Return the migration as far as was seen of it; None where none is under way."""
        if shown.stage not in ("upgraded", "migrating"):
            self.run = None
            return None
        if self.log is None:
            self.log = self._opened()
        self.log.poll()
        look = look_in(shown.inventory, self.log)
        self.run = begin(look) if self.run is None else follow(self.run, look)
        has_moved = self.run.moved_at > self.run.first.at
        is_moving = has_moved and look.at - self.run.moved_at < _MOVING_SECONDS
        return self.run if look.locked is not None or is_moving else None

    def _opened(self) -> MigrationLog:
        try:
            return open_log(find_log(self.layout), of_last_migration=True)
        except ShardtoolError:
            return MigrationLog(None)  # the report itself does without
