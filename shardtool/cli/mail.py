"""-qq, for cron, which mails whatever is printed: nothing while all is well, else one short text.

All that a command prints is held back until its exit code is known: the first and the last lines
of it, so that the memory is bounded, and the messages by themselves, because they come first.
"""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import sys
import textwrap
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self, TextIO, cast

from shardtool.cli import exits
from shardtool.cli.options import is_short, last_value, node_named
from shardtool.cli.output import Log, Message, is_journal, safe
from shardtool.cli.redaction import redacted
from shardtool.words import plural

WIDTH = 80
_MOST_LINES = 60
_MOST_MESSAGE_LINES = 30
_MOST_MESSAGES = 200  # that are kept
_HEAD_LINES = 12  # of a report that is cut: what it begins with
_LONGEST = 2_000  # characters of a line that are kept
_LONGEST_FACT = 300  # characters of a line of the heading

# What shows all that a mail had to cut, where running the command again would do something.
_SHOWN_BY = {
    "backup": "snapshots",
    "forget": "snapshots",
    "migrate": "status",
    "prune": "prune --dry-run",
    "rescue": "verify",
    "restore": "history",
    "spaces": "spaces list",
}


@dataclass
class Cut:
    """A text of which the first and the last lines are kept."""

    first: list[str] = field(default_factory=list)
    last: deque[str] = field(default_factory=lambda: deque(maxlen=_MOST_LINES))
    count: int = 0

    def add(self, line: str) -> None:
        """Take one more line."""
        self.count += 1
        (self.first if len(self.first) < _MOST_LINES else self.last).append(line)

    def fitting(self, room: int, shown_by: str) -> list[str]:
        """Return it wrapped, in so many lines at the most; in the place of those left out stands
        how many they are, and what shows them."""
        kept = [wrapped(line, "", "  ") for line in (*self.first, *self.last)]
        if self.count == len(kept) and sum(map(len, kept)) <= room:
            return [line for lines in kept for line in lines]
        room -= 2  # for what stands in their place
        head = _as_many(kept, min(_HEAD_LINES, room // 2))
        tail = _as_many(kept[: len(head) - 1 : -1], room - sum(map(len, head)))
        hidden = plural(self.count - len(head) - len(tail), "line")
        between = wrapped(f"... {hidden} more: {shown_by}", "", "  ")[:2]
        return [line for lines in (*head, between, *reversed(tail)) for line in lines]


def _as_many(several: Iterable[list[str]], room: int) -> list[list[str]]:
    """Return the first ones that fit, each whole."""
    fitting = []
    for lines in several:
        room -= len(lines)
        if room < 0:
            break
        fitting.append(lines)
    return fitting


def _short(text: str, most: int = _LONGEST) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."


class HeldStream(io.TextIOBase):
    """A stand-in for stdout or stderr, which keeps what is printed.

    Attributes:
        is_taken: somebody writes to the real one by its descriptor: `export --to -`.
    """

    def __init__(self, real: TextIO, kept: Cut) -> None:
        self._real = real
        self._kept = kept
        self._line = ""
        self.is_taken = False

    def write(self, text: str) -> int:
        """Keep the text."""
        *whole, rest = text.split("\n")
        for line in whole:
            self._kept.add(_short(self._line + line))
            self._line = ""
        self._line = _short(self._line + rest)
        return len(text)

    def writable(self) -> bool:
        """It can be written."""
        return True

    def isatty(self) -> bool:
        """It is no terminal: nothing is drawn, nothing has colors."""
        return False

    def fileno(self) -> int:
        """Return the real stream's descriptor, for those who write bytes."""
        self.is_taken = True
        return self._real.fileno()

    def end(self) -> None:
        """Keep a last line that did not end."""
        if self._line:
            self._kept.add(self._line)
            self._line = ""


class HeldLog(Log):
    """Keeps the messages."""

    def __init__(self, *, as_json: bool) -> None:
        super().__init__(as_json=as_json)
        self.messages: list[Message] = []
        self.more = 0

    def take(self, message: Message) -> None:
        """Keep a message: the first ones, and in any case the one that tells how it ended."""
        if len(self.messages) < _MOST_MESSAGES or message.exit_code is not None:
            message.text = _short(message.text)
            self.messages.append(message)
        else:
            self.more += 1


class Held:
    """A run whose output is held back; a context manager, at whose end the mail is printed.

    Attributes:
        log: where the run's messages go.
        code: the run's exit code; None where it ended by an exception that is nobody's to catch.
    """

    def __init__(self, *, log_as_json: bool) -> None:
        """Prepare; nothing is held back yet."""
        self.log = HeldLog(as_json=log_as_json)
        self.code: int | None = None
        self._text = Cut()
        self._real = sys.stdout, sys.stderr
        self._streams = HeldStream(sys.stdout, self._text), HeldStream(sys.stderr, self._text)

    def __enter__(self) -> Self:
        sys.stdout, sys.stderr = (cast(TextIO, stream) for stream in self._streams)
        return self

    def __exit__(self, *error: object) -> None:
        for stream in self._streams:
            stream.end()
        sys.stdout, sys.stderr = self._real
        if self.code is not None and not self._is_well:
            # What can't be written is the caller's to find out, when it flushes.
            with contextlib.suppress(OSError):
                self._print(self.code)

    @property
    def _is_well(self) -> bool:
        """All is well, or another shardtool was at work, which is told as information only."""
        return self.code == exits.DONE or any(
            message.exit_code == exits.BUSY and message.level == "info"
            for message in self.log.messages
        )

    def _print(self, code: int) -> None:
        """Print the mail. Messages go to stderr instead where a machine reads them there: as JSON
        lines, or with the levels of the journal."""
        messages: list[Message] = self.log.messages
        if self.log.as_json or is_journal(sys.stderr):
            log = Log(as_json=self.log.as_json, command=self.log.command)
            for message in messages:
                log.take(message)
            messages = []
        heading = heading_of(sys.argv[1:], os.environ, code)
        shown_by = shown_by_of(self.log.command, sys.argv[1:])
        lines = compose(heading, messages, self.log.more, self._text, shown_by)
        # Where the values of an export go to stdout, a text has no place there.
        to = sys.stderr if self._streams[0].is_taken else sys.stdout
        print("\n".join(lines), file=to)


def heading_of(words: Sequence[str], environment: Mapping[str, str], code: int) -> list[str]:
    """Return the lines that a mail begins with: where it is from, and what it is about."""
    data, config = last_value(words, "--data"), last_value(words, "--influx-config")
    command = redacted(shlex.join(["shardtool", *words]), words, environment)
    facts = (
        ("host", os.uname().nodename),
        node_named(data, config, environment),
        ("command", command),
        ("result", f"exit code {code}: {exits.MEANINGS.get(code, 'unknown')}"),
    )
    lines = []
    for name, fact in facts:
        lines += wrapped(_short(safe(fact), _LONGEST_FACT), f"{name:<9}", " " * 9)
    return lines


def shown_by_of(command: str, words: Sequence[str]) -> str:
    """Return the command that shows all of what a mail has cut."""
    shows = _SHOWN_BY.get(command)
    if shows is None:
        return safe(redacted(shlex.join(["shardtool", *_louder(words)]), words, os.environ))
    config, data = last_value(words, "--influx-config"), last_value(words, "--data")
    named = f" --influx-config {shlex.quote(config)}" if config else ""
    named = f" --data {shlex.quote(data)}" if data and not config else named
    return safe(f"shardtool{named} {shows}")


def _louder(words: Sequence[str]) -> list[str]:
    """Return a command line without what makes it quiet."""
    louder = (word.replace("q", "") if is_short(word) else word for word in words)
    return [word for word in louder if word not in ("-", "--quiet")]


def compose(
    heading: Iterable[str], messages: Sequence[Message], more: int, text: Cut, shown_by: str
) -> list[str]:
    """Return the lines of a mail: its heading, what is wrong, then what the command printed.

    Args:
        heading: see heading_of.
        messages: errors come first, then the others in their order.
        more: how many messages there were that were not kept.
        text: what the command printed.
        shown_by: see shown_by_of.
    """
    lines = list(heading)
    ordered = sorted(messages, key=lambda message: message.level != "error")
    told: list[str] = []
    for count, message in enumerate(ordered):
        own = wrapped(safe(message.text), "", "  ")
        if len(told) + len(own) > _MOST_MESSAGE_LINES and told:
            more += len(ordered) - count
            break
        told += own[:_MOST_MESSAGE_LINES]
    if more:
        told += wrapped(f"... {plural(more, 'message')} more: {shown_by}", "", "  ")
    if told:
        lines += ["", *told]
    if text.count:
        lines += ["", *text.fitting(_MOST_LINES - len(lines) - 1, shown_by)]
    return lines


def wrapped(line: str, indent: str, hanging: str) -> list[str]:
    """Return a line in as many as it takes to be no wider than a mail; what fits stays as it is."""
    if len(indent) + len(line) <= WIDTH:
        return [indent + line]
    return textwrap.wrap(
        line, WIDTH, initial_indent=indent, subsequent_indent=hanging, break_on_hyphens=False
    )
