"""The blocks of a help text: paragraphs, lists of terms, and lines to be left as they are."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import groupby

_ROW = re.compile(r"(  \S(?:.*\S)?)(  +)(\S.*)")


@dataclass(frozen=True)
class Block:
    """A part of a help text that is set in one way.

    Args:
        kind: 'paragraph', 'terms' (each with what it means) or 'lines' (left as they are).
        title: the line that stood before it and ended in a colon, without that; may be empty.
        lines: of a paragraph its text, of others their lines without the indent.
        rows: of terms: each term with its text.
    """

    kind: str
    title: str
    lines: tuple[str, ...] = ()
    rows: tuple[tuple[str, str], ...] = ()


def blocks_of(text: str) -> list[Block]:
    """Given the description or the epilog of a command, return its blocks in their order."""
    found: list[Block] = []
    for part in re.split(r"\n\s*\n", text.strip("\n")):
        title = ""
        for is_indented, group in groupby(part.split("\n"), lambda line: line.startswith("  ")):
            lines = list(group)
            if is_indented:
                found.append(_indented(title, lines))
            elif title := _title(lines):
                continue
            else:
                found.append(Block("paragraph", "", tuple(lines)))
    return found


def examples_of(epilog: str) -> list[str]:
    """Return the lines of the examples of a command's help, without what is said beside them."""
    lines: list[str] = []
    for block in blocks_of(epilog):
        if block.title == "examples":
            lines += [term for term, _ in block.rows]
            lines += [re.sub(r"(?<=\S) {2,}\S.*", "", line) for line in block.lines]
    return lines


def _title(lines: list[str]) -> str:
    """Return what heads the lines below it: a short line of its own that ends in a colon."""
    return (
        lines[0][:-1] if len(lines) == 1 and lines[0].endswith(":") and len(lines[0]) < 40 else ""
    )


def _indented(title: str, lines: list[str]) -> Block:
    """Return rows where the lines are some, else the lines."""
    rows: list[tuple[str, str]] = []
    column = 0
    is_examples = title == "examples"
    for line in lines:
        # A term that is as long as its column has but one blank behind it.
        match = re.fullmatch(rf"(  .{{{column - 3}}})( )(\S.*)", line) if column > 3 else None
        match = match or _ROW.fullmatch(line)
        indent = len(line) - len(line.lstrip())
        if rows and indent == column:
            rows[-1] = (rows[-1][0], f"{rows[-1][1]} {line.strip()}")
        elif match and indent == 2:
            if not is_examples and column and match.start(3) != column:
                return _as_lines(title, lines)
            column = match.start(3)
            rows.append((match[1].strip(), match[3]))
        elif indent == 2 and (column or is_examples):
            rows.append((line.strip(), ""))
            column = 0 if is_examples else column
        else:
            return _as_lines(title, lines)
    return Block("terms", title, rows=tuple(rows))


def _as_lines(title: str, lines: list[str]) -> Block:
    return Block("lines", title, tuple(line.removeprefix("  ") for line in lines))
