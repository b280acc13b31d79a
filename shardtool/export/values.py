"""What is stored under a key, as the value that it is: fast for the shapes that InfluxDB writes.

The shapes are those of FORMATS.md's FieldValue with one field, as protobuf encodes it; whatever
else there is goes through protobuf itself.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from typing import TypeAlias, cast

from shardtool.influxdb.messages import MessageError, parse, value_of

Value: TypeAlias = str | bool | int | float

_DOUBLE = struct.Struct("<xd")  # the tag's byte is skipped
_STRING, _DOUBLE_TAG, _INT64 = b"\x0a", b"\x19", b"\x28"
_BOOLS = {b"\x20\x00": False, b"\x20\x01": True}
_ONE_BYTE = 0x80  # a varint below this is a byte long
_LONGEST_INT64 = 11  # bytes, the tag's included

_REMEMBERED = 1 << 15  # texts
_SHORT = 64  # bytes of a value that is worth remembering


class NoValueError(ValueError):
    """It can't go out in this form: the argument is a word of left.WHY."""


def decoded(stored: bytes) -> Value:
    """Given a FieldValue, return what it holds.

    Raises:
        NoValueError: it holds nothing ('null'), a string that is no UTF-8 ('bytes'), or it is no
            FieldValue ('unreadable').
    """
    tag, length = stored[:1], len(stored)
    if tag == _DOUBLE_TAG and length == _DOUBLE.size:
        return cast(float, _DOUBLE.unpack(stored)[0])
    if tag == _STRING and length > 1 and stored[1] == length - 2 < _ONE_BYTE:
        return _text(stored[2:])
    if tag == _INT64 and 1 < length <= _LONGEST_INT64:
        number = _int64(stored)
        if number is not None:
            return number
    known = _BOOLS.get(stored)
    return known if known is not None else _parsed(stored)


def _int64(stored: bytes) -> int | None:
    """Return the number that follows the tag, None where it is not exactly that."""
    number = shift = 0
    for byte in stored[1:-1]:
        if byte < _ONE_BYTE:
            return None
        number |= (byte & 0x7F) << shift
        shift += 7
    last = stored[-1]
    number |= last << shift
    if last >= _ONE_BYTE or number >= 1 << 64:
        return None
    return number - (1 << 64) if number >> 63 else number


def _parsed(stored: bytes) -> Value:
    try:
        value = value_of(parse("FieldValue", stored))
    except MessageError:
        raise NoValueError("unreadable") from None
    if value is None:
        raise NoValueError("null")
    # What is no UTF-8 came as surrogates.
    return _text(value.encode("utf-8", "surrogateescape")) if isinstance(value, str) else value


def _text(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise NoValueError("bytes") from None


class Texts(dict[bytes, "str | NoValueError"]):
    """What stored values are written as, or why they can't be; the usual ones are remembered.

    InfluxDB's values repeat: hosts, states, small numbers.
    """

    def __init__(self, write: Callable[[Value], str]) -> None:
        """Take what writes a value; it may raise NoValueError."""
        super().__init__()
        self._write = write

    def __missing__(self, stored: bytes) -> str | NoValueError:
        found: str | NoValueError
        try:
            found = self._write(decoded(stored))
        except NoValueError as error:
            found = error.with_traceback(None)
        if len(stored) <= _SHORT:
            if len(self) >= _REMEMBERED:
                self.clear()
            self[stored] = found
        return found

    def of(self, values: Sequence[bytes]) -> list[str | NoValueError]:
        """Return the text of each value."""
        doubles = _finite_doubles(values)
        # They seldom repeat, and their text is the same in every form that is text.
        return list(map(repr, doubles)) if doubles else list(map(self.__getitem__, values))


def _finite_doubles(values: Sequence[bytes]) -> list[float] | None:
    """Given stored values, return them where all are finite doubles, else None."""
    joined = b"".join(values)
    count = len(values)
    if len(joined) != _DOUBLE.size * count or values[0][:1] != _DOUBLE_TAG:
        return None
    if joined[:: _DOUBLE.size] != _DOUBLE_TAG * count or set(map(len, values)) != {_DOUBLE.size}:
        return None
    found = [number for (number,) in _DOUBLE.iter_unpack(joined)]
    return found if all(map(math.isfinite, found)) else None
