"""How a migration that runs is shown: the lines of migrate --wait and of status --watch."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

from shardtool.cli.output import Output, safe, short
from shardtool.influxdb.serverlog import Trouble
from shardtool.upgrade.migration import Progress, Run, progress
from shardtool.words import duration, names, size

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live

_LINE_SECONDS = 10.0  # between two lines that say how far it is, where there is no terminal
_A_YEAR = 365 * 86_400  # seconds; what would take longer has only begun
_LONGEST = 300  # characters of a message of the log that are shown


def state_of(run: Run) -> str:
    """Return one line: where the migrator is, how far, how fast, how long yet."""
    now = progress(run)
    where = f"migrating {short(now.current)}" if now.current is not None else "migrating"
    parts = [f"{where}: {_how_far(now)}"]
    if now.rate is not None:
        parts.append(f"{size(int(now.rate))}/s")
    if now.seconds_left is not None and now.rate is not None and now.seconds_left < _A_YEAR:
        parts.append(f"{duration(now.seconds_left)} left")
    return ", ".join(parts)


def _how_far(now: Progress) -> str:
    done = f"{size(now.done_bytes)} of {size(now.total_bytes)}"
    return f"{int(now.percent)}% ({done}), {now.marked}/{now.shards} marked"


def lines_of(run: Run) -> list[str]:
    """Return what is known of a migration that runs, in lines of 80 columns."""
    now = progress(run)
    lines = [state_of(run)]
    if now.current is not None:
        grown = f"; the new shards have grown by {size(max(0, now.grown_bytes))}"
        lines.append(f"{short(now.current)} holds {size(now.current_bytes)}{grown}")
    if run.passed_over:
        lines.append(f"passed over without a marker: {names(map(short, run.passed_over), 6)}")
    if run.now.troubles:
        lines.append(f"errors in InfluxDB's log: {len(run.now.troubles):,}, the last:")
        lines.append(f"  {trouble_line(run.now.troubles[-1])}"[:80])
    return lines


def trouble_line(trouble: Trouble) -> str:
    """Return an error of InfluxDB's log in a line, with the shard where that is known."""
    where = f"{short(trouble.shard)}: " if trouble.shard else ""
    text = safe(trouble.text)
    return where + (text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "...")


class Screen:
    """Shows a migration as it goes: a block on a terminal's stderr, else lines on stdout.

    Used as a context manager; the block is gone when it ends, however it ends.
    """

    def __init__(self, out: Output) -> None:
        """Begin to show.

        Args:
            out: a quiet one shows nothing; with JSON, nothing comes on stdout.
        """
        self._out = out
        self._draws = out.draws and os.environ.get("TERM") != "dumb"
        self._prints = not self._draws and not out.quiet and not out.as_json
        self._live: Live | None = None
        self._console: Console | None = None
        self._told_at = time.monotonic()
        self._marked: set[str] = set()
        self._troubles = 0

    def __enter__(self) -> Screen:
        if self._draws:
            # rich takes longer to import than most commands take to run.
            from rich.console import Console
            from rich.live import Live

            self._console = Console(stderr=True, highlight=False)
            self._live = Live(console=self._console, transient=True, auto_refresh=False)
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, run: Run) -> None:
        """Show what a look has brought: shards marked, errors, and how far it is."""
        # In the server's own order: a shard's errors come before its marker.
        for trouble in run.now.troubles[self._troubles :]:
            self._tell(f"error in InfluxDB's log: {trouble_line(trouble)}")
        self._troubles = len(run.now.troubles)
        new = [name for name in run.marked_since if name not in self._marked]
        for name in new:
            more = f": {_how_far(progress(run))}" if name == new[-1] else ""
            self._tell(f"marked {short(name)}{more}")
        self._marked.update(new)
        if self._live is not None:
            from rich.text import Text

            self._live.update(Text("\n".join(lines_of(run)), no_wrap=True), refresh=True)
        elif time.monotonic() - self._told_at >= _LINE_SECONDS:
            self._tell(state_of(run))

    def _tell(self, text: str) -> None:
        self._told_at = time.monotonic()
        if self._console is not None:
            self._console.print(text, markup=False, soft_wrap=True)
        elif self._prints:
            self._out.line(text)
            sys.stdout.flush()
