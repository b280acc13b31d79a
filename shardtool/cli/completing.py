"""What a shell's completion asks for: names of shards, snapshots and databases.

`shardtool --complete KIND WORD...`, the words being those before the cursor. The scripts in
docs/completions know all else. Somebody is in the middle of typing: nothing is locked, changed
or told, and what takes too long or fails gives no names.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from types import FrameType

from shardtool.cli.options import last_value
from shardtool.datadir.layout import Layout, find_layout

LONGEST_S = 0.4
"""Whoever pressed the tab key waits for us."""
# Names that no shell takes for anything else, and no terminal either. No leading dash: an option.
_SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", re.ASCII)


def run(words: Sequence[str]) -> int:
    """Print the names that can stand at the cursor, a line each; return the exit code, always 0.

    Args:
        words: the kind (one of KINDS), then the words of the command line before the cursor,
            without the program's name, as the shell has them: quoted or not.
    """
    signal.signal(signal.SIGALRM, _give_up)
    signal.setitimer(signal.ITIMER_REAL, LONGEST_S)
    with contextlib.suppress(Exception):
        names = KINDS[words[0]]([_unquoted(word) for word in words[1:]])
        sys.stdout.write("".join(f"{name}\n" for name in names if _SAFE.fullmatch(name)))
        sys.stdout.flush()
    return 0


def _give_up(number: int, frame: FrameType | None) -> None:
    os._exit(0)


def _unquoted(word: str) -> str:
    """Return what a word means to the shell, as far as that is plain; $(...) is not run."""
    with contextlib.suppress(ValueError):
        parts = shlex.split(word)
        if len(parts) == 1 and not os.path.exists(word):
            plain = parts[0]
            option, is_there, value = plain.partition("=")
            if plain.startswith("--") and is_there:
                return f"{option}={_expanded(value)}"
            return _expanded(plain)
    return word


def _expanded(text: str) -> str:
    return os.path.expandvars(os.path.expanduser(text))


def _layout(words: Sequence[str]) -> Layout:
    return find_layout(
        last_value(words, "--data"), last_value(words, "--influx-config"), dict(os.environ)
    )


def _old_shards(words: Sequence[str]) -> Iterable[str]:
    from shardtool.datadir.inventory import by_age, is_shard_name

    return sorted(filter(is_shard_name, os.listdir(_layout(words).old_shards)), key=by_age)


def _new_shards(words: Sequence[str]) -> Iterable[str]:
    from shardtool.datadir.inventory import by_age, is_shard_name

    names = os.listdir(_layout(words).new_shards)
    return ["all", *sorted(filter(is_shard_name, names), key=by_age)]


def _snapshots(words: Sequence[str]) -> Iterable[str]:
    from shardtool.snapshots.address import SCHEME
    from shardtool.snapshots.metadata import age_order, is_id

    store = last_value(words, "--store") or os.environ.get("SHARDTOOL_SNAPSHOTS")
    if store and store.startswith(SCHEME):
        return []  # a bucket may take seconds to answer
    found = sorted(
        filter(is_id, os.listdir(store or _layout(words).snapshots)), key=age_order, reverse=True
    )
    return ["latest", *found] if found else []


def _databases(words: Sequence[str]) -> Iterable[str]:
    from shardtool.influxdb.catalogue import read_catalogue

    return sorted(read_catalogue(_layout(words).raft).databases)


KINDS: dict[str, Callable[[Sequence[str]], Iterable[str]]] = {
    "old-shards": _old_shards,
    "new-shards": _new_shards,
    "snapshots": _snapshots,
    "databases": _databases,
}
