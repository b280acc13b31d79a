"""Examples in a page: what was run, what it printed, and what of that is the same every time."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_BLOCK = re.compile(
    r"^```console\n(?P<console>.*?)^```$"
    r"|^<!-- json: (?P<command>[^\n]*?) -->\n```json\n(?P<json>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
# What differs from run to run: times, ids, sizes (blocks of this file system), the free space.
_UNSTABLE = (
    (r"\b\d{8}T\d{6}Z(-\d+)?\b", "ID"),
    (r"\b\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.\d+)?)?Z?)?(\.\.[\d-]+)?", "TIME"),
    (r"[+-]?\b\d+(\.\d+)?[KMGT]\b", "SIZE"),
    (r"\b(\d+ (seconds?|minutes?|hours?)|\d+(\.\d+)? ?m?s)\b( ago)?", "SPAN"),
    (r"\b[0-9a-f]{12,64}\b", "DIGEST"),
    (r"-{4,}|\u2500{4,}", "RULE"),
    (r"\bpid \d+", "pid"),
    (r"may have [\d,]+ files", "may have files"),  # ulimit -n
    (r"\d+ notes?$", "notes"),  # of the machine, some of them
    (r": \d+% \(.*\), \d+/\d+ marked$", ""),  # the progress of a migration
    (r"\n {2,}", " "),  # where a line is broken goes by the length of those
    (r" +", " "),
    (r" $", ""),
)


@dataclass(frozen=True)
class Example:
    """A command of a page.

    Args:
        command: the line, as one types it.
        output: what the page says that it prints, with its exit code where that is not 0.
        is_json: the output is a document of which the page shows the first of each list.
    """

    command: str
    output: str
    is_json: bool


def examples_of(page: str) -> list[Example]:
    """Return the examples of a page in their order."""
    found: list[Example] = []

    def note(example: Example) -> str:
        found.append(example)
        return example.output

    rewritten(page, note)
    return found


def rewritten(page: str, output_of: Callable[[Example], str]) -> str:
    """Return a page with the outputs that `output_of` gives for its examples."""

    def block(match: re.Match[str]) -> str:
        if match["console"] is None:
            example = Example(match["command"], match["json"], True)
            return f"<!-- json: {example.command} -->\n```json\n{output_of(example)}```"
        parts = re.split(r"^\$ (.*)\n", match["console"], flags=re.MULTILINE)
        text = parts[0]
        for command, output in zip(parts[1::2], parts[2::2], strict=True):
            # An empty line before the next command is the page's, not the command's.
            gap = "\n" if output.endswith("\n\n") or output == "\n" else ""
            own = output.removesuffix("\n") if gap else output
            text += f"$ {command}\n{output_of(Example(command, own, False))}{gap}"
        return f"```console\n{text}```"

    return _BLOCK.sub(block, page)


def same(example: Example, printed: str) -> bool:
    """Say whether a page tells the truth about an example, which has printed something now."""
    how = shape if example.is_json else stable
    return bool(example.output.strip()) == bool(printed.strip()) and (
        not printed.strip() or how(example.output) == how(printed)
    )


def stable(text: str) -> list[str]:
    """Return the lines of an output as they are whenever and wherever it is run, sorted: what a
    migration and its log tell comes in the order in which it happens to be seen."""
    for pattern, word in _UNSTABLE:
        text = re.sub(pattern, word, text, flags=re.MULTILINE)
    return sorted(text.splitlines())


def shortened(document: str) -> str:
    """Return a JSON document with the first element of each list, as a page shows it."""
    return json.dumps(_first(json.loads(document)), indent=2, ensure_ascii=False) + "\n"


def shape(document: str) -> Any:
    """Return the keys of a JSON document, and what kind of value each has."""
    return _shape(json.loads(document))


def _first(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _first(held) for key, held in value.items()}
    return [_first(held) for held in value[:1]] if isinstance(value, list) else value


def _shape(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shape(held) for key, held in value.items()}
    if isinstance(value, list):
        # Words (reasons, warnings) may be none on another machine.
        return [_shape(held) for held in value[:1] if isinstance(held, dict | list)]
    return "number" if isinstance(value, int | float) else type(value).__name__
