"""The generated part of docs/commands/NAME.md: usage, options, variables."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from docs.generate.environment import variables_of
from docs.generate.facts import Argument, Command

BEGIN = "<!-- from here on made by python -m docs.generate -->"
END = "<!-- end of what is made by python -m docs.generate -->"
INDEX_BEGIN = "<!-- commands, made by python -m docs.generate -->"


class UnmarkedError(Exception):
    """A page has no place for its generated part."""


def with_part(page: str, part: str, begin: str = BEGIN) -> str:
    """Return a page whose generated part is `part`, whatever stood between the markers.

    Raises:
        UnmarkedError: a marker is not there, or several times.
    """
    if page.count(begin) != 1 or page.count(END) != 1 or page.index(END) < page.index(begin):
        raise UnmarkedError(f"expected one line {begin!r} and below it one {END!r}")
    before, _, rest = page.partition(begin)
    return f"{before}{begin}\n\n{part}\n{END}{rest.partition(END)[2]}"


def part_of(command: Command) -> str:
    """Return the generated part of a command's page."""
    return "\n".join(_lines(command))


def index_of(commands: Sequence[Command]) -> str:
    """Return the table of all commands, with links to their pages."""
    rows = (f"| [{c.name}](commands/{c.name}.md) | {_cell(c.words)} |" for c in commands)
    return "\n".join(("| command | what it does |", "| --- | --- |", *rows, ""))


def _lines(command: Command) -> Iterator[str]:
    yield from ("## Usage", "", "```", command.usage, "```", "")
    own = [a for a in command.options if not a.common]
    yield from _table("argument", command.positionals)
    yield from _table("option", own)
    yield from ("Options that all commands take:", "")
    yield from _table("option", [a for a in command.options if a.common])
    yield from ("| environment variable | what it does |", "| --- | --- |")
    for name, meaning in variables_of(command).items():
        yield f"| `{name}` | {_cell(meaning)} |"
    yield ""


def _table(what: str, arguments: Sequence[Argument]) -> Iterator[str]:
    if not arguments:
        return
    yield from (f"| {what} | what it does |", "| --- | --- |")
    for argument in arguments:
        yield f"| {_code(argument.as_written)} | {_cell(_told(argument))} |"
    yield ""


def _told(argument: Argument) -> str:
    needed = "needed: " if argument.required and argument.names else ""
    unsaid = argument.again and not re.search("times|repeat|-qq", argument.about)
    return needed + argument.told + ("; may be given several times" if unsaid else "")


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|")


def _cell(text: str) -> str:
    """Escape text for a cell of a table: what Markdown would take for its own."""
    return re.sub(r"([|<>*\[\]`])", r"\\\1", text)
