"""`shardtool status --nagios`: the one line of a monitoring plugin, whatever happens.

As the plugin guidelines have it: one line on stdout, `|` before the figures, exit codes 0 OK,
1 WARNING, 2 CRITICAL, 3 UNKNOWN. These codes are the plugin's; shardtool's own have no part in it.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from decimal import Decimal, InvalidOperation

from shardtool.cli.options import bytes_of
from shardtool.cli.output import Log, Message, Output, safe
from shardtool.cli.standing import Standing
from shardtool.errors import UsageError
from shardtool.monitor.nagios import STATES, UNKNOWN, Free, Status, status_of

_MOST = 1_000  # characters of what people read; schedulers cut a line at some thousands


class PluginLog(Log):
    """Where messages go: how it ended, if badly, to stdout; no others."""

    def take(self, message: Message) -> None:
        """Print the line of a plugin that could not find out anything."""
        if message.exit_code is not None:
            # Where stdout can't be written, the exit code has to do.
            with contextlib.suppress(OSError):
                sys.stdout.write(line_of(Status(UNKNOWN, message.text), "") + "\n")


def show(report: Standing, args: argparse.Namespace, summary: str, out: Output) -> int:
    """Print the line of a node and return the plugin's exit code.

    Raises:
        UsageError: a threshold is none.
    """
    warn, critical = _free(args.warn_free), _free(args.critical_free)
    status = status_of(report, warn, critical)
    following = f"next: {report.stage.next}" if report.stage.next else ""
    out.line(line_of(status, "; ".join(part for part in (summary, following) if part)))
    return status.state


def line_of(status: Status, summary: str) -> str:
    """Given a status, return its line.

    Args:
        status: what to say.
        summary: what there is, in words, after what is wrong.
    """
    text = "; ".join(part for part in (status.text, summary) if part)
    # A bar would begin the figures.
    shown = safe(text).replace("|", "\\x7c")
    shown = shown if len(shown) <= _MOST else shown[: _MOST - 3] + "..."
    figures = f" | {' '.join(status.figures)}" if status.figures else ""
    return f"SHARDTOOL {STATES[status.state]} - {shown}{figures}"


def _free(text: str | None) -> Free | None:
    """Given a threshold ('10%', '50G'), return it.

    Raises:
        UsageError: it is none.
    """
    if text is None:
        return None
    try:
        if not text.endswith("%"):
            return Free(bytes_of(text), is_percent=False)
        percent = Decimal(text[:-1])
        if text.isascii() and percent.is_finite() and 0 <= percent <= 100:
            return Free(float(percent), is_percent=True)
    except (argparse.ArgumentTypeError, InvalidOperation):
        pass
    raise UsageError(f"expected a size or a part such as 50G or 10%, found {text!r}")
