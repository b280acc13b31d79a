"""Man pages, in the few macros of man(7) that man-db and mandoc set alike."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from docs.generate.environment import variables_of
from docs.generate.facts import Argument, Command
from docs.generate.text import Block, blocks_of
from shardtool.cli.exits import TABLE

# Of the release that this will be. man(7) wants one, and the page must be the same tomorrow.
_DATE = "2026-11-26"
_ESCAPED = {"\\": r"\e", "-": r"\-", "'": r"\(aq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti"}


def man_page(command: Command, others: Sequence[Command]) -> str:
    """Return the man page of a command, or of shardtool itself.

    Args:
        command: whose it is.
        others: all the commands.
    """
    name = command.program.replace(" ", "-")
    lines = [
        r".\" Made by python -m docs.generate; what is written here by hand is lost.",
        f".TH {name.upper()} 1 {_DATE} shardtool shardtool",
        ".SH NAME",
        f"{_set(name)} \\- {_set(command.words)}",
        ".SH SYNOPSIS",
        *_synopsis(command),
        ".SH DESCRIPTION",
        *_blocks(blocks_of(command.description)),
        *(_arguments("ARGUMENTS", command.positionals) if command.name else ()),
        *_arguments("OPTIONS", [a for a in command.options if not a.common]),
        *_arguments("COMMON OPTIONS", [a for a in command.options if a.common]),
    ]
    if not command.name:
        lines += [".SH COMMANDS", *_terms([(f"shardtool-{c.name}(1)", c.words) for c in others])]
    lines += _epilog(command)
    lines += [".SH ENVIRONMENT", *_terms(list(variables_of(command).items()))]
    if not any(line.startswith(".SH EXIT STATUS") for line in lines):
        lines += [".SH EXIT STATUS", *_blocks(blocks_of(TABLE), titled=False)]
    return "\n".join((*lines, ".SH SEE ALSO", *_see_also(command, others), ""))


def _synopsis(command: Command) -> Iterator[str]:
    bold, _, rest = command.usage.partition(" [")
    usage = rf"\fB{_set(bold)}\fR" + (f" [{_set(rest)}" if rest else "")
    if not command.name:
        usage = r"\fBshardtool\fR [COMMON OPTION]... \fICOMMAND\fR [OPTION]..."
    yield usage


def _epilog(command: Command) -> Iterator[str]:
    """Set the text after the options; of shardtool itself the rest of the page says it all."""
    blocks = blocks_of(command.epilog)
    if not command.name:
        blocks = [block for block in blocks if block.title == "examples"]
    examples = [block for block in blocks if block.title == "examples"]
    notes = [block for block in blocks if block.title != "examples"]
    if notes:
        yield ".SH NOTES"
        yield from _blocks(notes)
    if examples:
        yield ".SH EXAMPLES"
        yield from _blocks(examples, titled=False)


def _arguments(title: str, arguments: Sequence[Argument]) -> Iterator[str]:
    if arguments:
        yield f".SH {title}"
        yield from _terms([(a.as_written, a.told) for a in arguments])


def _blocks(blocks: Sequence[Block], *, titled: bool = True) -> Iterator[str]:
    for number, block in enumerate(blocks):
        if block.title and titled:
            yield f".SS {_set(block.title)}"
        elif number and block.kind != "terms":
            yield ".PP"
        if block.kind == "paragraph":
            yield from map(_set, block.lines)
        elif block.kind == "terms":
            yield from _terms(block.rows)
        else:
            # Examples are as wide as --help may be: they get no indent of their own.
            begin, end = ((), ()) if block.title == "examples" else ((".RS 4",), (".RE",))
            yield from (*begin, ".nf", *map(_set, block.lines), ".fi", *end)


def _terms(rows: Sequence[tuple[str, str]]) -> Iterator[str]:
    for number, (term, text) in enumerate(rows):
        if text:
            yield from (".TP", rf"\fB{_set(term)}\fR", _set(text))
        else:
            yield from (*([".PP"] if number else []), ".nf", rf"\fB{_set(term)}\fR", ".fi")


def _see_also(command: Command, others: Sequence[Command]) -> Iterator[str]:
    """Name the commands that its help names, and the program's own page."""
    if command.name:
        words = set(re.findall(r"[a-z]+", command.texts))
        near = [c.name for c in others if c.name in words and c.name != command.name]
        pages = ["shardtool(1)", *(f"shardtool-{name}(1)" for name in near)]
    else:
        pages = [f"shardtool-{c.name}(1)" for c in others]
    yield ",\n".join(rf"\fB{_set(page[:-3])}\fR(1)" for page in pages)


def _set(text: str) -> str:
    """Escape a line of text: characters that troff would set otherwise, or take for a request."""
    escaped = "".join(_ESCAPED.get(letter, letter) for letter in text)
    return rf"\&{escaped}" if escaped.startswith(".") else escaped
