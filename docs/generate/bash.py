"""The completion script for bash; it works with the package bash-completion and without."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from docs.generate.facts import Argument, Command
from docs.generate.words import MADE, places, quoted, valued

_TOP = """\
# bash completion for shardtool
{made}

# Set `reply` to the names of a kind that there are on this machine: old-shards, snapshots, ...
_shardtool_names() {{
  local program
  program=$(type -P -- "${{words[0]/#\\~/$HOME}}") || program=shardtool
  mapfile -t reply < <("$program" --complete "$1" "${{words[@]:1:${{#words[@]}}-2}}" 2>/dev/null)
}}
"""

_BOTTOM = """\
# Set `words` to those up to the cursor, in one piece each: bash cuts them at = and : too.
_shardtool_split() {
  local rest=${COMP_LINE:0:COMP_POINT} word bare i
  words=()
  for ((i = 0; i <= COMP_CWORD; i++)); do
    word=${COMP_WORDS[i]} bare=${rest#"${rest%%[![:space:]]*}"}
    ((i < COMP_CWORD)) || word=$bare
    if ((i == 0)) || [[ $rest == [[:space:]]* || -z $rest ]]; then
      words+=("$word")
    else
      words[${#words[@]} - 1]+=$word
    fi
    rest=${bare:${#word}}
  done
}

# Offer what of `reply` begins with what was typed.
_shardtool_offer() {
  local typed=${1#[\\"\\']} word
  for word in "${reply[@]}"; do
    [[ $word != "$typed"* ]] || COMPREPLY+=("${2-}$word")
  done
}

_shardtool_value() {
  local reply=()
  case $kind in
    files) compopt -o default 2>/dev/null ;;
    directories) compopt -o dirnames 2>/dev/null ;;
    choices\\ *) read -ra reply <<<"${kind#* }" ;;
    none) ;;
    ?*) _shardtool_names "$kind" ;;
  esac
  _shardtool_offer "$1" "${2-}"
}

_shardtool() {
  local IFS=$' \\t\\n'  # whatever the user's is
  local words typed word command= kind= going= before= place=0 i reply=()
  COMPREPLY=()
  _shardtool_split
  typed=${words[${#words[@]} - 1]}
  for ((i = 1; i < ${#words[@]} - 1; i++)); do
    word=${words[i]}
    if [[ $word == -?* ]]; then
      kind= going= before=
      [[ $word == *=* ]] || _shardtool_kind "$command" "$word"
      before=$kind
      [[ $kind != many\\ * ]] || going=${kind#many } before=${kind#many }
    elif [[ -n $before ]]; then
      before=
    elif [[ -n $going ]]; then
      :
    elif [[ -z $command ]]; then
      command=$word
    else
      ((place++))
    fi
  done
  kind=$before
  if [[ $typed == --*=* ]]; then
    kind=
    _shardtool_kind "$command" "${typed%%=*}"
    kind=${kind#many }
    # What bash replaces begins after the =, unless somebody told it otherwise.
    word=${typed%%=*}=
    [[ $COMP_WORDBREAKS != *=* ]] || word=
    _shardtool_value "${typed#*=}" "$word"
  elif [[ -n $kind ]]; then
    _shardtool_value "$typed"
  elif [[ $typed == -* ]]; then
    _shardtool_options "$command"
    _shardtool_offer "$typed"
  elif [[ -z $command ]]; then
    reply=("${_shardtool_commands[@]}")
    _shardtool_offer "$typed"
  else
    _shardtool_argument "$command" "$place"
    kind=${going:-$kind}
    _shardtool_value "$typed"
  fi
}

complete -F _shardtool shardtool
"""


def script(whole: Command, commands: Sequence[Command]) -> str:
    """Return the script.

    Args:
        whole: shardtool itself.
        commands: all of them.
    """
    names = " ".join(command.name for command in commands)
    lines = [
        _TOP.format(made=MADE),
        f"_shardtool_commands=({names})",
        "",
        "# Set `kind` to what completes the value of option $2 of command $1; '' if it takes none.",
        *_case("_shardtool_kind", '"$1 $2"', _kinds(whole, commands)),
        "# Set `kind` to what completes the positional argument of command $1 at place $2.",
        *_case("_shardtool_argument", '"$1 $2"', _arguments(commands)),
        "# Set `reply` to the options of command $1.",
        *_case("_shardtool_options", '"$1"', _options(whole, commands)),
    ]
    return "\n".join(lines) + _BOTTOM


def _case(name: str, word: str, rows: Iterator[tuple[str, str]]) -> Iterator[str]:
    yield from (f"{name}() {{", f"  case {word} in")
    for pattern, act in rows:
        yield f"    {pattern}) {act} ;;"
    yield from ("  esac", "}", "")


def _kinds(whole: Command, commands: Sequence[Command]) -> Iterator[tuple[str, str]]:
    for name, option in valued(whole):
        yield f"*{quoted(' ' + name)}", f"kind={quoted(_kind(option))}"
    for command in commands:
        for name, option in valued(command):
            if not option.common:
                many = "many " if option.many else ""
                yield quoted(f"{command.name} {name}"), f"kind={quoted(many + _kind(option))}"


def _arguments(commands: Sequence[Command]) -> Iterator[tuple[str, str]]:
    for command in commands:
        for first, last, argument in places(command):
            place = "*" if last is None else quoted(str(first))
            yield f"{quoted(command.name + ' ')}{place}", f"kind={quoted(_kind(argument))}"


def _options(whole: Command, commands: Sequence[Command]) -> Iterator[tuple[str, str]]:
    for command in (*commands, whole):
        names = " ".join(name for option in command.options for name in option.names)
        yield (quoted(command.name) if command.name else "*"), f"reply=({names})"


def _kind(argument: Argument) -> str:
    """Return the kind as one word, which is never empty, with the choices behind it."""
    return " ".join((argument.kind or "none", *argument.choices))
