"""Take documents apart that anyone may have written: JSON and gob values into checked ones.

Go leaves out what is zero or writes null, so both stand for the zero of what is expected.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

from shardtool.influxdb import gob
from shardtool.influxdb.model import Server, ShardRange, Space

T = TypeVar("T")

_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:Z|([+-])(\d\d):(\d\d))",
    re.ASCII,
)
_DAYS_TO_1970 = 719_468  # from 0000-03-01
_MAX_NUMBER = (1 << 64) - 1

SPACE_IN_JSON = (
    "name",
    "database",
    "regex",
    "retentionPolicy",
    "shardDuration",
    "replicationFactor",
    "split",
)
SPACE_IN_GOB = (
    "Name",
    "Database",
    "Regex",
    "RetentionPolicy",
    "ShardDuration",
    "ReplicationFactor",
    "Split",
)


class ShapeError(ValueError):
    """A document is not as expected; the message says where, what was expected and found."""


def mapping(found: object, what: str) -> dict[str, object]:
    """Return an object with text for keys. Raises ShapeError."""
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise _unexpected(what, "an object", found)
    return found


def listing(found: object, what: str) -> list[object]:
    """Return a list. Raises ShapeError."""
    if found is None:
        return []
    if not isinstance(found, list):
        raise _unexpected(what, "a list", found)
    return found


def text(found: object, what: str) -> str:
    """Return a text. Raises ShapeError."""
    if found is None:
        return ""
    if not isinstance(found, str):
        raise _unexpected(what, "text", found)
    return found


def number(found: object, what: str) -> int:
    """Return a whole number from 0 to 2^64 - 1. Raises ShapeError."""
    if found is None:
        return 0
    if type(found) is not int or not 0 <= found <= _MAX_NUMBER:
        raise _unexpected(what, "a whole number", found)
    return found


def each(found: object, what: str, take: Callable[[object, str], T]) -> dict[str, T]:
    """Return an object whose values were each taken by `take`. Raises ShapeError."""
    return {
        key: take(value, f"{what}[{key[:40]!r}]") for key, value in mapping(found, what).items()
    }


def ids(found: object, what: str) -> dict[str, dict[str, dict[str, int]]]:
    """Return StringsToIds: database, series, column, id. Raises ShapeError."""

    def columns(found: object, what: str) -> dict[str, int]:
        return each(found, what, number)

    def series(found: object, what: str) -> dict[str, dict[str, int]]:
        return each(found, what, columns)

    return each(found, what, series)


def space(found: object, what: str, names: tuple[str, ...] = SPACE_IN_JSON) -> Space:
    """Return a shard space, its parts called `names`. Raises ShapeError."""
    parts = mapping(found, what)
    texts = [text(parts.get(name), f"{what}.{name}") for name in names[:5]]
    numbers = [number(parts.get(name), f"{what}.{name}") for name in names[5:]]
    name, database, regex, retention, shard_duration = texts
    replication, split = numbers
    return Space(name, database, regex, retention, shard_duration, replication, split)


def shard(found: object, what: str) -> ShardRange:
    """Return a shard; its times are JSON's text or gob's bytes. Raises ShapeError."""
    parts = mapping(found, what)
    servers = listing(parts.get("ServerIds"), f"{what}.ServerIds")
    return ShardRange(
        id=number(parts.get("Id"), f"{what}.Id"),
        database=text(parts.get("Database"), f"{what}.Database"),
        space=text(parts.get("SpaceName"), f"{what}.SpaceName"),
        start_us=moment(parts.get("StartTime"), f"{what}.StartTime"),
        end_us=moment(parts.get("EndTime"), f"{what}.EndTime"),
        servers=tuple(number(one, f"{what}.ServerIds") for one in servers),
    )


def server(found: object, what: str) -> Server:
    """Return a server. Raises ShapeError."""
    parts = mapping(found, what)
    return Server(
        number(parts.get("Id"), f"{what}.Id"), text(parts.get("RaftName"), f"{what}.RaftName")
    )


def moment(found: object, what: str) -> int:
    """Return us since the epoch of a time as JSON (RFC 3339) or gob has it. Raises ShapeError."""
    if isinstance(found, bytes):
        try:
            return gob.time_us(found)
        except gob.GobError as error:
            raise ShapeError(f"{what}: {error}") from None
    match = _RFC3339.fullmatch(found) if isinstance(found, str) else None
    if not match:
        raise _unexpected(what, "a time", found)
    year, month, day, hour, minute, second = map(int, match.groups()[:6])
    fraction, sign, hours, minutes = match.groups()[6:]
    if not (1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second < 60):
        raise _unexpected(what, "a time", found)
    offset = int(hours or 0) * 60 + int(minutes or 0)
    ahead = -offset if sign == "-" else offset
    seconds = ((_days(year, month, day) * 24 + hour) * 60 + minute - ahead) * 60 + second
    return seconds * 1_000_000 + int((fraction or "").ljust(9, "0")[:6])


def _days(year: int, month: int, day: int) -> int:
    """Return the days from 1970-01-01 to a date; datetime has no year 0, Go has."""
    # Years that begin in March, so that the leap day is the last.
    year, month = (year, month - 3) if month > 2 else (year - 1, month + 9)
    leap = year // 4 - year // 100 + year // 400
    return year * 365 + leap + (month * 153 + 2) // 5 + day - 1 - _DAYS_TO_1970


def _unexpected(what: str, expected: str, found: object) -> ShapeError:
    if isinstance(found, (dict, list)):
        shown = "an object" if isinstance(found, dict) else "a list"
    else:
        shown = repr(found)[:60]
    return ShapeError(f"{what}: expected {expected}, found {shown}")
