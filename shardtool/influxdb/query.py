"""How InfluxDB 0.8 is asked for the points of one column: names, bounds, and what compares equal.

Knows the query language, nothing of HTTP. Where a fact is not in FORMATS.md, it comes from the
published source of 0.8 (parser/query.lex, parser/query_api.go, parser/value.go, datastore/shard.go)
or from an issue of influxdata/influxdb that is named here.
"""

from __future__ import annotations

import re
import struct
from typing import TypeAlias

from shardtool.errors import ShardtoolError

Value: TypeAlias = str | int | float | bool
"""A value as JSON carries it."""

# The server holds a bound as nanoseconds in 64 bits; a few to spare for the widening of `select`.
EARLIEST_US = -(2**63 // 1000) + 8
LATEST_US = 2**63 // 1000 - 8

# A name that stands unchanged whether it is quoted or not (query.lex, SIMPLE_NAME).
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_KEYWORD = re.compile(
    r"and|as|asc|by|continuous|delete|desc|drop|explain|false|from|group|in|include|inner|"
    r"into|join|limit|list|merge|or|order|queries|query|select|series|spaces|true|where"
)
# They are no columns to a select, but the identity of each point (query_api.go, getColumns).
_IDENTITY = frozenset({"time", "sequence_number"})


class CannotAskError(ShardtoolError):
    """The query language has no words for this column: the server can't be asked for it."""


def select(series: str, column: str, start_us: int, end_us: int) -> str:
    """Return the query for a column's points with start_us <= time < end_us.

    Both bounds are always there: without an upper one a query ends at now(). The answer may hold
    more: points a few microseconds outside (`>` and `<` are inclusive in datastore/shard.go, and
    an older ParseTimeDuration rounds by way of a float), and other columns.

    A plain name is written in double quotes. Any other can't be: a quoted name loses each
    backslash that precedes no quote, and `\\"` writes beyond the memory the server allocated for
    the name (query.lex, IN_SIMPLE_NAME); worse, up to 0.8.5 a server that passes the query on to
    the owner of a shard writes names without quotes (issues 923 and 1073). So an odd series is
    matched by a regex of letters, digits and `\\x{...}`, which comes through both unchanged, and an
    odd column (also one with a dot, which is read as series.column) by `*`.

    Args: `start_us`, `end_us`: microseconds, within EARLIEST_US and LATEST_US.
    Raises: CannotAskError where a name is no UTF-8.
    """
    check_encodable(series, column)
    wanted = f'"{column}"' if _is_plain(column) and column not in _IDENTITY else "*"
    source = f'"{series}"' if _is_plain(series) else f"/^{_regex_of(series)}$/"
    # `u` is microseconds (query.lex, DURATION); a minus sign before it is allowed (query.yacc).
    bounds = f"time > {start_us - 2}u and time < {end_us + 1}u"
    return f"select {wanted} from {source} where {bounds} order asc"


def check_encodable(*names: str) -> None:
    """Raise CannotAskError where a name holds bytes that are no UTF-8.

    Go's JSON and regexes know only UTF-8, so neither question nor answer could carry them.
    """
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise CannotAskError(
                f"the name {name!a} is no UTF-8: no query can ask for it"
            ) from None


def same(found: Value, stored: Value) -> bool:
    """Return whether a value of an answer is the stored one, as far as JSON can tell.

    The server prints a whole double without a point (FORMATS.md: `3.0` is stored as double), so
    the int 3 is also the stored double 3.0. Nothing else crosses types: a float is no stored
    int64, a bool no number. -0.0 is not 0.0.

    Example: same(3, 3.0), same(3, 3), not same(3.0, 3), not same(1, True).
    """
    if isinstance(stored, float) and not isinstance(found, bool):
        if isinstance(found, int):
            return found == stored and (found != 0 or _bits(stored) == _bits(0.0))
        return isinstance(found, float) and _bits(found) == _bits(stored)
    return type(found) is type(stored) and found == stored


def _is_plain(name: str) -> bool:
    return bool(_PLAIN.fullmatch(name)) and not _KEYWORD.fullmatch(name.lower())


def _regex_of(name: str) -> str:
    """Return a Go regex (RE2) that matches `name`, without a slash, a quote or a space."""
    return "".join(
        c if c.isascii() and (c.isalnum() or c == "_") else f"\\x{{{ord(c):x}}}" for c in name
    )


def _bits(number: float) -> bytes:
    return struct.pack(">d", number)
