"""All output goes through here: lines, tables, JSON; nothing else prints.

Everything from the disk is hostile: no control character, no escape sequence and no
undecodable byte reaches the terminal.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from shardtool.words import plural

_STYLES = {"bad": "31", "good": "32", "wait": "33", "bold": "1"}


def safe(text: str) -> str:
    """Return `text` as it may be shown: what is not printable stands as \\xNN or \\uNNNN."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def short(name: str, most: int = 24) -> str:
    """Return a name from the disk as a table's cell may show it: safe, `most` columns wide."""
    shown = safe(name)
    return shown if len(shown) <= most else shown[: most - 3] + "..."


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no UTF-8, as os.fsdecode carries it
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def moment(ns: int | None) -> str:
    """Return a time in ns since the epoch as '2026-11-24 16:19:57' UTC, or '-'."""
    return "-" if not ns else _utc(ns).strftime("%Y-%m-%d %H:%M:%S")


def iso(ns: int | None) -> str | None:
    """Return a time in ns since the epoch as ISO 8601 UTC with microseconds, or None."""
    return None if not ns else _utc(ns).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _utc(ns: int) -> datetime:
    try:
        return datetime.fromtimestamp(ns // 1_000_000_000, UTC).replace(
            microsecond=ns % 1_000_000_000 // 1000
        )
    except (OverflowError, ValueError, OSError):
        # A hostile mtime beyond year 9999 or before year 1: the nearest that can be written.
        return (datetime.max if ns > 0 else datetime.min).replace(tzinfo=UTC)


def unseen(processes: int) -> str:
    """Return the sentence that says which open files are unknown, for `processes` > 0."""
    whose = plural(processes, "process", "processes")
    return f"open files: unknown for {whose} that {_who()} may not look into"


def _who() -> str:
    return "even root" if os.geteuid() == 0 else "this user (unlike root)"


class Output:
    """Where a command tells what it found: people's text or one JSON document, and stderr.

    Args:
        as_json: one document on stdout and no text.
        quiet: no more than a line.
    """

    def __init__(self, *, as_json: bool, quiet: bool) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self.colors = (
            sys.stdout.isatty()
            and not os.environ.get("NO_COLOR")
            and os.environ.get("TERM") != "dumb"
        )

    @property
    def width(self) -> int:
        """Columns that a table may take: the terminal's, 80 where there is none."""
        try:
            return os.get_terminal_size(sys.stdout.fileno()).columns or 80
        except (OSError, ValueError):
            return 80

    def line(self, text: str = "") -> None:
        """Print a line for people; nothing where JSON was asked for."""
        if not self.as_json:
            print(text)

    def document(self, name: str, content: dict[str, Any]) -> None:
        """Print the JSON document shardtool/NAME/1, where JSON was asked for."""
        if self.as_json:
            import json  # most runs print no JSON, and start-up counts

            whole = {"schema": f"shardtool/{name}/1", **content}
            print(json.dumps(whole, indent=2, ensure_ascii=True))

    def warn(self, text: str) -> None:
        """Print a line on stderr, whatever stdout carries."""
        print(f"shardtool: {safe(text)}", file=sys.stderr)

    def styled(self, text: str, style: str) -> str:
        """Return `text` in a style of _STYLES where the terminal shows colors."""
        return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if self.colors and style else text

    def with_verdict(self, line: str, name: str, verdict: str, style: str) -> str:
        """Return a table's line that begins with `name` with its verdict in a style.

        The name comes first and may be any word: only what follows it is the verdict.
        """
        at = line.index(verdict, len(name))
        return line[:at] + self.styled(verdict, style) + line[at + len(verdict) :]

    def table(
        self, header: Sequence[str], rows: Sequence[Sequence[str]], *, right: str = ""
    ) -> None:
        """Print a table; cells are shown as they are, so they must be safe already.

        Args:
            header: the columns' names.
            rows: as many cells each as there are columns; the last column may be of any length.
            right: a letter a column, 'r' for those that are flushed right.
        """
        for text in table_lines(header, rows, right=right):
            self.line(text)


def table_lines(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, right: str = ""
) -> list[str]:
    """Given columns and cells, return the table's lines, two spaces between columns.

    Example: (('shard', 'files'), [('00001', '8')], right='lr') -> ['shard  files', '00001      8']
    """
    widths = [
        max(len(name), *(len(row[i]) for row in rows)) if rows else len(name)
        for i, name in enumerate(header)
    ]
    lines = []
    for row in [header, *rows]:
        cells = [
            cell.rjust(width) if right[i : i + 1] == "r" else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines
