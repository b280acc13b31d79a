"""The completion script for fish."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from docs.generate.facts import Argument, Command
from docs.generate.words import MADE, places, short, valued

_TOP = """\
# fish completion for shardtool
{made}

# The words before the cursor, from the program's name on.
function __shardtool_words
    set -l words (commandline -opc)
    while set -q words[1]; and string match -qr '^[A-Za-z_][A-Za-z0-9_]*=' -- $words[1]
        set -e words[1]
    end
    printf '%s\\n' $words
end

# The names of a kind that there are on this machine: old-shards, snapshots, ...
function __shardtool_names
    for word in (commandline -opc)
        set -l pair (string match -r '^(SHARDTOOL_[A-Z_]+)=(.*)$' -- $word)
        or break
        set -fx $pair[2] $pair[3]
    end
    set -l words (__shardtool_words)
    set -l program (string replace -r '^~/' "$HOME/" -- $words[1])
    type -q -- $program; or set program shardtool
    command $program --complete $argv[1] $words[2..-1] 2>/dev/null
end

# The command (or -), and how many positional arguments stand before the cursor.
function __shardtool_place
    set -l command -
    set -l place 0
    set -l skip 0
    for word in (__shardtool_words)[2..-1]
        if test $skip = 1
            set skip 0
        else if string match -q -- '-?*' $word
            __shardtool_takes_value $command $word; and set skip 1
        else if test $command = -
            set command $word
        else
            set place (math $place + 1)
        end
    end
    echo $command
    echo $place
end

function __shardtool_is
    set -l at (__shardtool_place)
    test "$at[1]" = $argv[1]
end

function __shardtool_at
    set -l at (__shardtool_place)
    test "$at[1]" = $argv[1] -a "$at[2]" -ge $argv[2] -a "$at[2]" -le $argv[3]
end
"""


def script(whole: Command, commands: Sequence[Command]) -> str:
    """Return the script.

    Args:
        whole: shardtool itself.
        commands: all of them.
    """
    lines = [_TOP.format(made=MADE), *_takes_value(whole, commands), "complete -c shardtool -f"]
    for command in commands:
        about = _quoted(short(command.words))
        lines.append(f"complete -c shardtool -n '__shardtool_is -' -a {command.name} -d {about}")
    for option in whole.options:
        only = "" if option.common or "--help" in option.names else " -n '__shardtool_is -'"
        lines.append(_option(option, only))
    for command in commands:
        lines += _of_command(command)
    return "\n".join((*lines, ""))


def _takes_value(whole: Command, commands: Sequence[Command]) -> Iterator[str]:
    yield from ("function __shardtool_takes_value", '    switch "$argv"')
    patterns = [f"* {name}" for name, _ in valued(whole)]
    for command in commands:
        patterns += [f"{command.name} {n}" for n, option in valued(command) if not option.common]
    yield from (f"        case {_quoted(pattern)}\n            return 0" for pattern in patterns)
    yield from ("    end", "    return 1", "end", "")


def _of_command(command: Command) -> Iterator[str]:
    for option in command.options:
        if not option.common and "--help" not in option.names:
            yield _option(option, f" -n '__shardtool_is {command.name}'")
    for first, last, argument in places(command):
        where = f"__shardtool_at {command.name} {first} {999999 if last is None else last}"
        if argument.kind:
            yield f"complete -c shardtool -n '{where}' {_value(argument)}"


def _option(option: Argument, condition: str) -> str:
    names = " ".join(
        f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names
    )
    value = f" -r {_value(option)}" if option.metavar else ""
    return f"complete -c shardtool{condition} {names}{value} -d {_quoted(short(option.about))}"


def _value(argument: Argument) -> str:
    """Return the options of `complete` for a value; -k keeps the order that the names have."""
    if argument.kind == "files":
        return "-F"
    if not argument.kind:
        return "-f"
    if argument.kind == "directories":
        return "-f -k -a '(__fish_complete_directories (commandline -ct))'"
    if argument.kind == "choices":
        return f"-f -k -a {_quoted(' '.join(argument.choices))}"
    return f"-f -k -a '(__shardtool_names {argument.kind})'"


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
