"""All output goes through here: lines, tables, JSON, and messages on stderr; nothing else prints.

Everything from the disk is hostile: no control character, no escape sequence and no
undecodable byte reaches the terminal.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, TextIO

from shardtool.cli import exits
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


# A message's level: its word in JSON, and its number for syslog and the journal (sd-daemon(3)).
LEVELS = {"error": 3, "warning": 4, "info": 6}


# A plain class, as options.Manner: to make a NamedTuple or a dataclass costs each run's start.
class Message:
    """What is told on stderr.

    Args:
        at: when.
        level: one of LEVELS.
        text: one line, not yet safe to be shown.
        exit_code: of the last message of a command that did not end with 0; else None.
    """

    def __init__(self, at: datetime, level: str, text: str, exit_code: int | None = None) -> None:
        self.at = at
        self.level = level
        self.text = text
        self.exit_code = exit_code


class Log:
    """Where messages go: stderr, a line each, as text or as a JSON object.

    Args:
        as_json: JSON lines, whatever reads them; else text, as the journal takes it where stderr
            leads there.
        command: which one is running; empty as long as that is not known.
    """

    def __init__(self, *, as_json: bool = False, command: str = "") -> None:
        self.as_json = as_json
        self.command = command
        self.has_ended = False  # the exit code was told

    def tell(self, text: str, *, level: str = "warning", exit_code: int | None = None) -> None:
        """Tell a message; what is secret in it stands as dots."""
        from shardtool.cli.redaction import redacted  # most runs have nothing to say

        text = redacted(text, sys.argv, os.environ)
        self.has_ended = self.has_ended or exit_code is not None
        self.take(Message(datetime.now(UTC), level, text, exit_code))

    def end(self, code: int) -> None:
        """Tell the exit code in the last line, for machines, where no message has told it yet."""
        if self.as_json and code != exits.DONE and not self.has_ended:
            level = "warning" if code in (exits.ATTENTION, exits.INTERRUPTED) else "error"
            self.tell(exits.MEANINGS.get(code, ""), level=level, exit_code=code)

    def take(self, message: Message) -> None:
        """Write a message. Where stderr can't be written there is nobody to tell, and the exit
        code has to do."""
        with contextlib.suppress(OSError):
            print(self._line(message), file=sys.stderr)

    def _line(self, message: Message) -> str:
        if self.as_json:
            return self._json(message)
        prefix = f"<{LEVELS[message.level]}>" if is_journal(sys.stderr) else ""
        return f"{prefix}shardtool: {safe(message.text)}"

    def _json(self, message: Message) -> str:
        import json

        content: dict[str, object] = {
            "time": message.at.isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "level": message.level,
            "command": self.command or None,
            # Safe here too: half a surrogate pair is no character that every reader takes.
            "message": safe(message.text.removeprefix("warning: ")),
        }
        if message.exit_code is not None:
            content["exit_code"] = message.exit_code
        return json.dumps(content)


def is_journal(stream: TextIO) -> bool:
    """Say whether a stream leads to systemd's journal, as $JOURNAL_STREAM tells (systemd.exec(5)):
    a descendant may have it too, and have sent the stream elsewhere."""
    named = os.environ.get("JOURNAL_STREAM")
    if not named:
        return False
    try:
        entry = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return named == f"{entry.st_dev}:{entry.st_ino}"


class Output:
    """Where a command tells what it found: people's text or one JSON document, and stderr.

    Args:
        as_json: one document on stdout and no text.
        quiet: no more than a line.
        log: where messages go; stderr as text without it.
        mail: all of it becomes a mail, if anything does: see cli.mail.
    """

    def __init__(
        self, *, as_json: bool, quiet: bool, log: Log | None = None, mail: bool = False
    ) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self.mail = mail
        self.log = log or Log()
        self.colors = (
            sys.stdout.isatty()
            and not os.environ.get("NO_COLOR")
            and os.environ.get("TERM") != "dumb"
        )

    @property
    def width(self) -> int:
        """Columns that a table may take: the terminal's, 80 where there is none."""
        if self.mail:
            return 80
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

    @property
    def draws(self) -> bool:
        """There is a terminal on stderr, and something that moves may be drawn there."""
        return sys.stderr.isatty() and not self.quiet and not self.log.as_json

    @property
    def why_not_asked(self) -> str:
        """Why nobody can be asked a question, in words; empty where somebody can."""
        if self.as_json:
            return "--json asks nothing"
        if self.mail or self.log.as_json:
            return f"{'-qq' if self.mail else '--log-format json'} asks nothing"
        return "" if sys.stdin.isatty() else "there is no terminal to ask on"

    def warn(self, text: str) -> None:
        """Print a line on stderr, whatever stdout carries."""
        self.log.tell(text)

    def note(self, text: str) -> None:
        """Print a line on stderr that warns of nothing: stdout carries something else."""
        self.log.tell(text, level="info")

    def wrong(self, text: str) -> None:
        """Say in a line what is wrong, where a mail begins with it; else the report itself does."""
        if self.mail:
            self.log.tell(text)

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
