"""Options that several commands share, and the readers of their values."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

from shardtool.cli.output import Output
from shardtool.datadir.layout import PACKAGED_DATA, Layout
from shardtool.errors import ShardtoolError, UsageError
from shardtool.upgrade.pause import Pause
from shardtool.words import plural, size

_SIZE = re.compile(r"(\d{1,30}(?:\.\d{1,9})?)\s*([KMGTP]?)(?:i?B)?", re.IGNORECASE | re.ASCII)
_PART = re.compile(r"(\d{1,30})([wdhms])", re.ASCII)
_SECONDS = {"w": 604800, "d": 86400, "h": 3600, "m": 60, "s": 1}
_LOG_FORMAT, _FORMATS, LOG_VARIABLE = "--log-format", ("text", "json"), "SHARDTOOL_LOG_FORMAT"


class Manner:
    """How a run is to tell what it has to tell.

    Args:
        log_as_json: messages on stderr are JSON lines (--log-format json).
        mail: nothing while all is well, else a text for a mail (-qq).
        nagios: one line on stdout, and a plugin's exit code, whatever happens (--nagios).
    """

    def __init__(
        self, *, log_as_json: bool = False, mail: bool = False, nagios: bool = False
    ) -> None:
        self.log_as_json = log_as_json
        self.mail = mail
        self.nagios = nagios

    @property
    def is_plain(self) -> bool:
        """People read it, line by line."""
        return not (self.log_as_json or self.mail or self.nagios)


def manner_of(words: Sequence[str], environment: Mapping[str, str]) -> Manner:
    """Return how a run is to tell things, before its command line was parsed: a command line that
    can't be parsed is to be told so as well.

    Args:
        words: the command line, without the program's name.
        environment: os.environ, whose LOG_VARIABLE is the default of --log-format.
    """
    end = words.index("--") if "--" in words else len(words)
    words = words[:end]
    quiet = sum(w == "--quiet" or (w.count("q") if is_short(w) else 0) for w in words)
    # Who asks for help gets it, and is no cron.
    asks = not {"-h", "--help", "--version"}.isdisjoint(words)
    named = last_value(words, _LOG_FORMAT) or environment.get(LOG_VARIABLE)
    nagios = "--nagios" in words
    mail = quiet >= 2 and not (asks or nagios)
    return Manner(log_as_json=named == "json", mail=mail, nagios=nagios)


def is_short(word: str) -> bool:
    """Say whether a word of a command line is one or more options of a letter, such as -nqq."""
    return word[:1] == "-" and word.isascii() and word[1:].isalpha()


def last_value(words: Sequence[str], option: str) -> str | None:
    """Return what a long option has on a command line; None where it is not there."""
    found = None
    for place, word in enumerate(words):
        if word == option:
            found = next(iter(words[place + 1 :]), None)
        elif word.startswith(f"{option}="):
            found = word.partition("=")[2]
    return found


def add_common(parser: argparse.ArgumentParser, *, default: object) -> None:
    """Add what every command takes, before its name or after it.

    Args:
        parser: of the whole program (default None) or of a command.
        default: argparse.SUPPRESS for a command, so that what stood before its name holds.
    """
    group = parser.add_argument_group("common options")
    group.add_argument(
        "--data",
        metavar="DIR",
        default=default,
        help="InfluxDB's data directory, holding db/, raft/ and wal/ "
        "(default: $SHARDTOOL_DATA, else /opt/influxdb/shared/data)",
    )
    group.add_argument(
        "--influx-config",
        metavar="FILE",
        default=default,
        help="find the three directories in InfluxDB's own config.toml instead",
    )
    group.add_argument(
        "--json",
        action="store_true",
        default=default,
        help="print one JSON document on stdout",
    )
    group.add_argument(
        "--quiet",
        "-q",
        action="count",
        default=default,
        help="print a line at the most; -qq, for cron: print nothing if the exit code is 0 or "
        "another shardtool is at work, else a text that a mail has room for",
    )
    group.add_argument(
        _LOG_FORMAT,
        choices=_FORMATS,
        default=default,
        help=f"warnings and errors on stderr as text or as JSON lines (default: ${LOG_VARIABLE}, "
        "else text; what goes to systemd's journal has its level)",
    )


def node_named(
    data: str | None, config: str | None, environment: Mapping[str, str]
) -> tuple[str, str]:
    """Return which node a command line means, found or not: 'data' or 'config', and its path.

    Args:
        data: what --data says.
        config: what --influx-config says.
        environment: os.environ.
    """
    kind, path = "config", config
    if path is None:
        kind, path = "data", data or environment.get("SHARDTOOL_DATA") or str(PACKAGED_DATA)
    # A working directory that was removed has no name to put before it.
    with contextlib.suppress(FileNotFoundError):
        path = os.path.abspath(path)
    return kind, path


def refuse_contradictions(args: argparse.Namespace, manner: Manner) -> None:
    """Refuse common options that can't both be done, and a default that is none.

    Raises:
        UsageError: there are such.
    """
    named = os.environ.get(LOG_VARIABLE)
    if args.log_format is None and named and named not in _FORMATS:
        raise UsageError(f"{LOG_VARIABLE}: expected text or json, found {named!r}")
    if manner.mail and args.json:
        raise UsageError("-qq writes a mail for people and --json a document; give one of them")
    if manner.nagios and (args.json or (args.quiet or 0) > 1):
        raise UsageError("--nagios prints one line for a monitor: give it without --json and -qq")


def add_yes(parser: argparse.ArgumentParser) -> None:
    """Add --yes, which stands for the answer that a terminal would be asked for."""
    parser.add_argument(
        "--yes", action="store_true", help="don't ask; needed where there is no terminal"
    )


def add_shards(parser: argparse.ArgumentParser) -> None:
    """Add the names of old shards, none of which stands for all."""
    parser.add_argument(
        "shards", nargs="*", metavar="SHARD", help="numbers of old shards (default: all)"
    )


def named_shards(
    shards: Iterable[str], present: Iterable[str], layout: Layout
) -> frozenset[str] | None:
    """Return the names of the shards that the operator named; 7 stands for 00007.

    Args:
        shards: words of the command line.
        present: the names that there are.
        layout: the node, for the message.

    Returns:
        The names; None where none was given, which means all.

    Raises:
        ShardtoolError: one of them is not there.
    """
    there, named = frozenset(present), set()
    for text in shards:
        name = text.zfill(5) if text.isascii() and text.isdigit() else text
        if name not in there:
            raise ShardtoolError(
                f"{layout.old_shards / name}: expected an old shard of that number, "
                "found none; see shardtool status"
            )
        named.add(name)
    return frozenset(named) if named else None


def confirmed(out: Output, question: str, *, yes: bool) -> bool:
    """Ask on the terminal whether to go on; only the whole word `yes` is one.

    Args:
        out: shows the question.
        question: what would be done, with count and bytes.
        yes: --yes was given, so nothing is asked.

    Raises:
        UsageError: there is no terminal to ask on and no --yes.
    """
    if yes:
        return True
    if why := out.why_not_asked:
        raise UsageError(f"{question} {why[0].upper()}{why[1:]}: say --yes to do it")
    print(f"{question} Type yes to go on: ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip() == "yes"


def bytes_of(text: str) -> int:
    """Given a size as people write it ('100G', '1.5T', '4096'), return its bytes.

    Units are powers of 1024, as in du -h and df -h.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise argparse.ArgumentTypeError(f"expected a size such as 100G or 500M, found {text!r}")
    power = "KMGTP".index(match[2].upper()) + 1 if match[2] else 0
    return int(Decimal(match[1]) * 1024**power)


def seconds_of(text: str) -> int:
    """Given a duration as people write it ('7d', '12h', '1w2d', '90s'), return its seconds.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    parts = _PART.findall(text.strip())
    if not parts or "".join(f"{n}{unit}" for n, unit in parts) != text.strip():
        raise argparse.ArgumentTypeError(
            f"expected a duration such as 7d, 12h or 1w (units w d h m s), found {text!r}"
        )
    return sum(int(number) * _SECONDS[unit] for number, unit in parts)


def interval_of(text: str) -> int:
    """Given a duration from 1s to 1d, return its seconds.

    Raises:
        argparse.ArgumentTypeError: it is none, or shorter or longer.
    """
    seconds = seconds_of(text)
    if not 1 <= seconds <= _SECONDS["d"]:
        raise argparse.ArgumentTypeError(f"expected a duration from 1s to 1d, found {text!r}")
    return seconds


def pause_of(text: str) -> Pause:
    """Given a pause in the guide's units, return it.

    Raises:
        argparse.ArgumentTypeError: it is none from 0s to 60m.
    """
    try:
        return Pause.of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def count_of(text: str) -> int:
    """Given a whole number from 1 on, return it.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    if not text.isascii() or not text.isdigit() or int(text[:10]) < 1 or len(text) > 9:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, found {text!r}")
    return int(text)


def amount(count: int, noun: str, total_bytes: int) -> str:
    """Return '4 shards (1.2M)', the one way in which counts and bytes stand together."""
    return f"{plural(count, noun)} ({size(total_bytes)})"
