"""Shard spaces as 0.8 takes them: durations, who takes a series, what no server must be sent."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from shardtool.influxdb.model import Space
from shardtool.influxdb.regex import compiled, encoded
from shardtool.influxdb.unicode_classes import KNOWN_CLASSES

DEFAULT_SPACE = "default"
"""What 0.8 makes by itself where no space takes a series: /.*/, 7d, inf."""
LONGEST_NAME = 100
LONGEST_REGEX = 1000

_DURATION = re.compile(r"(\d{1,15})([usmhdw])", re.ASCII)
_UNITS_US = {
    "u": 1,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
    "w": 604_800_000_000,
}
_SHORTEST_US = _UNITS_US["h"]
_LONGEST_US = 36_525 * _UNITS_US["d"]
_MOST_SPLIT = 1000
_MOST_SERVERS = 1000
_BETWEEN_SLASHES = re.compile(r"/.+/i?", re.DOTALL)
# \Q...\E is literal; a class of Unicode's and a named group have names; any other escape is two
# characters.
_PIECE = re.compile(
    r"\\Q.*?(?:\\E|\Z)|\\[pP](?:\{\^?(?P<unicode>[^}]*)\}|.)|\\.|\(\?(?P<group>P?<)(?P<name>[^>]*)",
    re.DOTALL,
)
_GROUP_NAME = re.compile(r"\w+", re.ASCII)


def space_of(spaces: Iterable[Space], series: str) -> Space | None:
    """Return the space that takes a series: the first whose regex finds itself in the name.

    Args:
        spaces: a database's, in the order in which the server asks them (newest first).
        series: the name.
    """
    return next((space for space in spaces if takes(space, series)), None)


def takes(space: Space, series: str) -> bool:
    """Return whether a space's regex finds itself in the name of a series."""
    pattern = compiled(space.regex)
    return pattern is not None and bool(pattern.search(encoded(series)))


def duration_us(text: str) -> int | None:
    """Return a space's duration in us, None for one that never ends or that nobody can read.

    Example: '7d' -> 604800000000; 'inf' and '' -> None.
    """
    match = _DURATION.fullmatch(text)
    return int(match[1]) * _UNITS_US[match[2]] if match else None


def problems(space: Space, *, servers: int | None = None) -> tuple[str, ...]:
    """Return what is wrong with a space that is to be sent, a line each; nothing if it may be.

    Much of this 0.8.3 would take, or die of: it makes 7-second shards of `7 parsecs`, and panics
    at a duration `7` and a regex `/` (captures/http-08-badspace).

    Args:
        space: as it would be sent.
        servers: how many the cluster has; None where that is not known.
    """
    found = [
        *_name_problems("name", space.name, LONGEST_NAME),
        *_name_problems("database", space.database, 10 * LONGEST_NAME),
        *_duration_problems("shardDuration", space.shard_duration),
        *_regex_problems(space.regex),
    ]
    if space.retention != "inf":
        found += _duration_problems("retentionPolicy", space.retention, " or inf")
    if not 1 <= space.replication <= (servers or _MOST_SERVERS):
        most = f"{servers}, as many servers as there are" if servers else "the number of servers"
        found.append(f"replicationFactor: expected 1 to {most}, found {space.replication}")
    if not 1 <= space.split <= _MOST_SPLIT:
        found.append(f"split: expected 1 to {_MOST_SPLIT}, found {space.split}")
    # AddShardSpace (cluster/cluster_configuration.go) validates a space of this name not at all,
    # so its regex is never compiled, and MatchesSeries then sets regex and durations itself.
    usual = (space.regex, space.shard_duration, space.retention) == ("/.*/", "7d", "inf")
    if space.name == DEFAULT_SPACE and not (usual and (space.replication, space.split) == (1, 1)):
        found.append(
            f"name: {DEFAULT_SPACE} is what 0.8 makes by itself (/.*/, 7d, inf), and it makes any "
            "space of that name the same; take another name"
        )
    return tuple(found)


def _name_problems(what: str, name: str, longest: int) -> list[str]:
    if not name:
        return [f"{what}: expected a name, found an empty one"]
    if len(name) > longest:
        return [f"{what}: expected at most {longest} characters, found {len(name)}"]
    if not name.isprintable():
        return [f"{what}: expected printable characters, found {name!a}"]
    if "/" in name:  # the server splits a path at slashes after decoding it (the pat library)
        return [f"{what}: expected no slash, which no URL can hold, found {name!r}"]
    return []


def _duration_problems(what: str, text: str, or_else: str = "") -> list[str]:
    length = duration_us(text)
    if length is None or text.endswith("u"):
        shown = f"{text[:40]!r}" if text else "nothing"
        return [
            f"{what}: expected a number and one of s m h d w, such as 7d{or_else}, found {shown}"
        ]
    if not _SHORTEST_US <= length <= _LONGEST_US:
        return [f"{what}: expected 1h to 100 years{or_else}, found {text!r}"]
    return []


def _regex_problems(regex: str) -> list[str]:
    shown = f"{regex[:60]!r}"
    if len(regex) > LONGEST_REGEX:
        return [f"regex: expected at most {LONGEST_REGEX} characters, found {len(regex)}"]
    if not _BETWEEN_SLASHES.fullmatch(regex):
        return [f"regex: expected /.../ or /.../i with something between, found {shown}"]
    try:
        regex.encode()
    except UnicodeEncodeError:
        return [f"regex: expected UTF-8, found {regex[:60]!a}"]
    if compiled(regex) is None:
        return [f"regex: expected a regular expression of RE2's (Go's), found {shown}"]
    wrong = next(_unknown_to_go(regex), None)
    return [f"regex: {wrong} is unknown to 0.8's Go, found {shown}"] if wrong else []


def _unknown_to_go(regex: str) -> Iterator[str]:
    """Yield what RE2 knows today, and regexp/syntax of Go 1.1 to 1.4 did not, each by its name.

    The server compiles a new space's regex before raft has it, but not that of a changed one.
    """
    groups = set()
    for match in _PIECE.finditer(regex):
        text, group, name = match[0], match["group"], match["name"]
        if text == "\\C":
            yield text
        elif match["unicode"] is not None and match["unicode"] not in KNOWN_CLASSES:
            yield f"\\p{{{match['unicode'][:40]}}}"
        elif group == "<":
            yield "(?<name>"
        elif group and (name in groups or not _GROUP_NAME.fullmatch(name)):
            why = "twice" if name in groups else "with more than A-Z, a-z, 0-9 and _ in its name"
            yield f"a group (?P<{name[:40]}>) {why}"
        groups.add(name)
