"""The completion script for zsh."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from docs.generate.facts import Argument, Command
from docs.generate.words import MADE, quoted, short

_TOP = """\
#compdef shardtool
{made}

# Offer the names of a kind that there are on this machine: old-shards, snapshots, ...
_shardtool_names() {{
  local -a names expl
  names=(${{(f)"$(${{~shardtool_program}} --complete $1 "${{(@)shardtool_words}}" 2>/dev/null)"}})
  (( $#names )) && _wanted -V names expl $1 compadd -a names
}}

_shardtool() {{
  local curcontext="$curcontext" shardtool_program=$words[1] state line ret=1
  local -a shardtool_words state_descr commands
  typeset -A opt_args
  shardtool_words=("${{(@)words[2,CURRENT-1]}}")
"""


def script(whole: Command, commands: Sequence[Command]) -> str:
    """Return the script.

    Args:
        whole: shardtool itself.
        commands: all of them.
    """
    return "\n".join(
        (
            _TOP.format(made=MADE),
            "  commands=(",
            *(f"    {quoted(f'{c.name}:{_escaped(short(c.words))}')}" for c in commands),
            "  )",
            "  _arguments -C -s -S -A '-*' \\",
            *(f"    {spec} \\" for option in whole.options for spec in _specs(option)),
            "    ':command:->command' '*::argument:->argument' && ret=0",
            "  case $state in",
            "    command) _describe -t commands command commands && ret=0 ;;",
            "    argument)",
            "      case $words[1] in",
            *(line for command in commands for line in _case(command)),
            "      esac ;;",
            "  esac",
            "  return ret",
            "}",
            "",
            '_shardtool "$@"',
            "",
        )
    )


def _case(command: Command) -> Iterator[str]:
    yield f"        {command.name})"
    yield "          _arguments -s -S \\"
    for option in command.options:
        yield from (f"            {spec} \\" for spec in _specs(option))
    for place, argument in enumerate(command.positionals, 1):
        which = "*" if argument.many else f"{place}" + ("" if argument.required else ":")
        yield f"            {quoted(f'{which}:{argument.metavar}:{_action(argument)}')} \\"
    yield "            && ret=0 ;;"


def _specs(option: Argument) -> Iterator[str]:
    """Give the specification of each name of an option."""
    for name in option.names:
        again = "*" if option.again else f"({' '.join(option.names)})"
        about = f"[{_escaped(short(option.about))}]"
        if not option.metavar:
            value = ""
        elif option.many:
            value = f":*-*:{_escaped(option.metavar)}:{_action(option)}"
        else:
            value = f":{_escaped(option.metavar)}:{_action(option)}"
        sign = "=" if option.metavar and not option.many and name.startswith("--") else ""
        yield quoted(f"{again}{name}{sign}{about}{value}")


def _action(argument: Argument) -> str:
    if argument.kind == "choices":
        return f"({' '.join(argument.choices)})"
    kinds = {"": " ", "files": "_files", "directories": "_files -/"}
    # The blank before it: _arguments puts no words of its own between.
    return kinds.get(argument.kind, f" _shardtool_names {argument.kind}")


def _escaped(text: str) -> str:
    return re.sub(r"([\[\]:\\])", r"\\\1", text)
