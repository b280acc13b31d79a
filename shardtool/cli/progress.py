"""A progress bar on stderr, for people only, and only where the work takes its time."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING

from shardtool.cli.output import Output

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

_QUIET_SECONDS = 1.0
_REDRAW_SECONDS = 0.1


class Progress:
    """Shows how far a piece of work is, once it has taken a second, where stderr is a terminal.

    Used as a context manager; the bar is gone when the block ends, however it ends.
    """

    def __init__(self, doing: str, total: int, *, unit: str, out: Output) -> None:
        """Begin to count.

        Args:
            doing: what is done, as a word or two: 'copying', 'deleting'.
            total: how many units there are; what is advanced beyond it is shown as all.
            unit: 'bytes', or what else is counted: 'files'.
            out: a quiet one gets no bar.
        """
        self._doing = doing
        self._total = total
        self._unit = unit
        self._done = 0
        self._note = ""
        self._wanted = out.draws
        self._due = time.monotonic() + _QUIET_SECONDS
        self._bar: Bar | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, count: int, note: str = "") -> None:
        """Count `count` more units; `note` is shown beside them."""
        self._done += count
        self._note = note
        if not self._wanted or time.monotonic() < self._due:
            return
        self._due = time.monotonic() + _REDRAW_SECONDS
        if self._bar is None:
            self._start()
        if self._bar is not None and self._task is not None:
            done = min(self._done, self._total)
            self._bar.update(self._task, completed=done, note=self._note, refresh=True)

    def _start(self) -> None:
        # rich takes longer to import than most commands take to run.
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            MofNCompleteColumn,
            ProgressColumn,
            TextColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Bar

        amount: ProgressColumn = (
            DownloadColumn(binary_units=True) if self._unit == "bytes" else MofNCompleteColumn()
        )
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            amount,
            TextColumn("" if self._unit == "bytes" else self._unit),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
            auto_refresh=False,
        )
        self._bar.start()
        self._task = self._bar.add_task(self._doing, total=self._total, note=self._note)
