"""What the three completion scripts have in common."""

from __future__ import annotations

import re
from collections.abc import Iterator

from docs.generate.facts import Argument, Command

MADE = "# Made by python -m docs.generate; what is written here by hand is lost."
_LONGEST = 72


def short(about: str) -> str:
    """Return the first part of a help text, for a list of a line each."""
    first = re.split(r"; | \(|: ", about)[0]
    return first if len(first) <= _LONGEST else first[:_LONGEST].rsplit(" ", 1)[0] + "..."


def quoted(text: str) -> str:
    """Quote a text for sh, bash and zsh."""
    return "'" + text.replace("'", "'\\''") + "'"


def valued(command: Command) -> Iterator[tuple[str, Argument]]:
    """Give each name of each option that takes a value."""
    for option in command.options:
        if option.metavar:
            yield from ((name, option) for name in option.names)


def places(command: Command) -> Iterator[tuple[int, int | None, Argument]]:
    """Give each positional argument with its first and its last place (None: all that follow)."""
    for place, argument in enumerate(command.positionals):
        yield place, None if argument.many else place, argument
