"""What the commands take, read off their argparse parsers.

argparse lays its help out in another way in each version of Python, so that nothing here uses
its formatter: the same code gives the same pages on all of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

from shardtool.cli import app

COMMON = "common options"
"""The title of the group of options that all commands take."""
ARGUMENTS_OF = {
    "DIR": "directories",
    "FILE": "files",
    "SERIES|FILE": "files",
    "DB": "databases",
    "DATABASE": "databases",
}
"""What completes a value, by its metavar; the others see `kind_of`."""


@dataclass(frozen=True)
class Argument:
    """An option or a positional argument.

    Args:
        names: of an option, as in the code; empty for a positional argument.
        metavar: what its value is called; empty for an option without one.
        choices: all the values that it takes; empty where it takes others.
        kind: what completes its value: choices, files, directories, databases, old-shards,
            new-shards, snapshots, or nothing ('').
        about: its help.
        required: it must be given.
        many: it takes several values at once.
        again: it may be given several times.
        common: all commands take it.
    """

    names: tuple[str, ...]
    metavar: str
    choices: tuple[str, ...]
    kind: str
    about: str
    required: bool
    many: bool
    again: bool
    common: bool

    @property
    def as_written(self) -> str:
        """The option as it stands in a list: `-q, --quiet`, `--data DIR`."""
        value = f" {self.metavar}" if self.metavar else ""
        names = ", ".join(sorted(self.names, key=len))
        return (names + value).strip() + ("..." if self.many else "")

    @property
    def told(self) -> str:
        """Its help, with the values that it takes where its metavar does not name them."""
        unsaid = self.choices and self.metavar != "|".join(self.choices)
        return self.about + (f" ({', '.join(self.choices)})" if unsaid else "")


@dataclass(frozen=True)
class Command:
    """A command, or the whole program (whose name is empty).

    Args:
        name: prune, say.
        words: what it does, in a line.
        description: the text before its options.
        epilog: the text after them.
        positionals: in their order.
        options: in their order, the common ones last.
    """

    name: str
    words: str
    description: str
    epilog: str
    positionals: tuple[Argument, ...]
    options: tuple[Argument, ...]

    @property
    def program(self) -> str:
        """What one types: `shardtool prune`."""
        return f"shardtool {self.name}".strip()

    @property
    def usage(self) -> str:
        """One line: `shardtool accept --because TEXT [OPTION]... SHARD`."""
        needed = [f"{a.names[0]} {a.metavar}" for a in self.options if a.required]
        return " ".join([self.program, *needed, "[OPTION]...", *map(_in_usage, self.positionals)])

    @property
    def texts(self) -> str:
        """All that --help says of it, for what looks for a word in it."""
        return "\n".join((self.description, self.epilog, *(a.about for a in self.options)))


def commands() -> list[Command]:
    """Return all commands, in the order of the journey."""
    return [_facts(name, words, app.command_parser(name)) for name, words in app.COMMANDS.items()]


def program() -> Command:
    """Return the facts of `shardtool` itself."""
    return _facts("", "InfluxDB from 0.7 to 0.8 without losing a value", app.program_parser())


def _facts(name: str, words: str, parser: argparse.ArgumentParser) -> Command:
    common = {
        id(action)
        for group in parser._action_groups
        if group.title == COMMON
        for action in group._group_actions
    }
    arguments = [
        _argument(action, name, parser.prog, common=id(action) in common)
        for action in parser._actions
        if action.help != argparse.SUPPRESS
    ]
    options = [a for a in arguments if a.names]
    return Command(
        name=name,
        words=words,
        description=parser.description or "",
        epilog=parser.epilog or "",
        positionals=tuple(a for a in arguments if not a.names),
        options=tuple(sorted(options, key=lambda a: (a.common, "--help" in a.names))),
    )


def _argument(action: argparse.Action, command: str, prog: str, *, common: bool) -> Argument:
    takes_value = action.nargs != 0
    choices = tuple(map(str, action.choices or ()))
    about = (action.help or "") % {"prog": prog, "default": action.default}
    metavar = str(action.metavar or "|".join(choices) or action.dest.upper())
    return Argument(
        names=tuple(action.option_strings),
        metavar=metavar if takes_value else "",
        choices=choices,
        kind=kind_of(action, command) if takes_value else "",
        about="".join((about, *_unsaid_default(action, about))),
        required=action.required if action.option_strings else action.nargs is None,
        many=action.nargs in ("*", "+"),
        again=isinstance(action, argparse._AppendAction | argparse._CountAction),
        common=common,
    )


def _unsaid_default(action: argparse.Action, about: str) -> Iterator[str]:
    """Give the default of an option whose help does not tell it."""
    default = action.default
    if default in (None, False, [], argparse.SUPPRESS) or "default" in about or action.nargs == 0:
        return
    yield f" (default: {default})"


def kind_of(action: argparse.Action, command: str) -> str:
    """Given an argument, say what completes its value; see Argument."""
    if action.choices:
        return "choices"
    if action.metavar == "SHARD":
        return "new-shards" if "--new" in action.option_strings else "old-shards"
    if action.metavar == "ID" and not action.option_strings:
        return "snapshots"
    if command == "backup" and "--to" in action.option_strings:
        return "directories"
    return ARGUMENTS_OF.get(str(action.metavar), "")


def _in_usage(argument: Argument) -> str:
    """Return `SHARD`, `[SHARD]` or `[SHARD]...`."""
    name = argument.metavar if argument.required else f"[{argument.metavar}]"
    return name + ("..." if argument.many else "")
