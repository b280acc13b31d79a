"""encoding/gob, the form of a raft snapshot's state (FORMATS.md, "raft/").

A gob stream describes itself: definitions of types, then a value of one of them. Knows that and
nothing of what is stored; Go's documentation of encoding/gob is the specification.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

_MAX_DEPTH = 64  # values within values; SavedConfiguration needs 5
_DOUBLE = struct.Struct("<d")
_TIME = struct.Struct(">BqIh")
_UNIX_FROM_YEAR_ONE = 62_135_596_800  # seconds
_NO_OFFSET = -1  # minutes: the zone is UTC itself

# Ids of types that need no definition.
_BOOL, _INT, _UINT, _FLOAT, _BYTES, _STRING, _COMPLEX, _INTERFACE = range(1, 9)
_WIRE_TYPE, _ARRAY_TYPE, _COMMON, _SLICE_TYPE, _STRUCT_TYPE, _FIELD, _FIELDS, _MAP_TYPE = range(
    16, 24
)
_GOB_ENCODER_TYPE = 24  # Go gives it no fixed id; nothing can refer to it
_FIRST_DEFINED = 64


class GobError(ValueError):
    """These bytes are no gob stream, or one that can't be decoded here.

    Args:
        offset: where in the stream.
        what: expected and found, in words.
    """

    def __init__(self, offset: int, what: str) -> None:
        """Keep the offset for who wants to say it in other words."""
        super().__init__(f"at offset {offset}: {what}")
        self.offset = offset


@dataclass(frozen=True)
class _Struct:
    fields: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class _List:
    element: int
    length: int | None = None  # an array's


@dataclass(frozen=True)
class _Map:
    key: int
    element: int


@dataclass(frozen=True)
class _Opaque:
    """A type that encodes itself: GobEncoder, BinaryMarshaler or TextMarshaler."""


_Type = _Struct | _List | _Map | _Opaque

_DEFINITIONS: dict[int, _Type] = {
    _WIRE_TYPE: _Struct(
        (
            ("ArrayT", _ARRAY_TYPE),
            ("SliceT", _SLICE_TYPE),
            ("StructT", _STRUCT_TYPE),
            ("MapT", _MAP_TYPE),
            ("GobEncoderT", _GOB_ENCODER_TYPE),
            ("BinaryMarshalerT", _GOB_ENCODER_TYPE),
            ("TextMarshalerT", _GOB_ENCODER_TYPE),
        )
    ),
    _ARRAY_TYPE: _Struct((("CommonType", _COMMON), ("Elem", _INT), ("Len", _INT))),
    _COMMON: _Struct((("Name", _STRING), ("Id", _INT))),
    _SLICE_TYPE: _Struct((("CommonType", _COMMON), ("Elem", _INT))),
    _STRUCT_TYPE: _Struct((("CommonType", _COMMON), ("Field", _FIELDS))),
    _FIELD: _Struct((("Name", _STRING), ("Id", _INT))),
    _FIELDS: _List(_FIELD),
    _MAP_TYPE: _Struct((("CommonType", _COMMON), ("Key", _INT), ("Elem", _INT))),
    _GOB_ENCODER_TYPE: _Struct((("CommonType", _COMMON),)),
}


def decode(data: bytes) -> object:
    """Decode a stream of one value (FORMATS.md, "raft/", the snapshot's state).

    Args:
        data: the whole stream: type definitions and the value.

    Returns:
        A struct as a dict of its fields (those that are zero are absent), a map as a dict, slices
        and arrays as lists, bytes and opaque types (time.Time; see time_us) as bytes, numbers,
        booleans and strings as Python's. A string that is not UTF-8 keeps its bytes as
        surrogates.

    Raises:
        GobError: torn, foreign, too deep, of a type that is not defined, or an interface.
    """
    return _Decoder(data).stream()


def time_us(encoded: bytes) -> int:
    """Return the microseconds since the epoch that a time.Time's binary form stands for.

    Args:
        encoded: version 1 (15 bytes) or 2 (16, zones with seconds); both hold the moment in UTC.

    Raises:
        GobError: it is neither.
    """
    version = encoded[0] if encoded else None
    if {1: 15, 2: 16}.get(version or 0) != len(encoded):
        raise GobError(0, f"expected a time of 15 or 16 bytes, found {encoded[:20]!r}")
    _, seconds, nanoseconds, offset = _TIME.unpack_from(encoded)
    # Go's offsets fit a day by far; what doesn't, or a moment within a second that is none, was
    # not written by it.
    if nanoseconds >= 1_000_000_000 or not (offset == _NO_OFFSET or abs(offset) <= 24 * 60):
        raise GobError(0, f"expected a time, found {encoded!r}")
    return int((seconds - _UNIX_FROM_YEAR_ONE) * 1_000_000 + nanoseconds // 1000)


class _Decoder:
    """A place in a stream. No value may reach beyond the message that it stands in."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._end = len(data)
        self._types: dict[int, _Type] = dict(_DEFINITIONS)
        self._simple: dict[int, Callable[[], object]] = {
            _BOOL: self._boolean,
            _INT: self._integer,
            _UINT: self._unsigned,
            _FLOAT: self._float,
            _BYTES: self._bytes,
            _STRING: self._string,
            _COMPLEX: self._complex,
        }

    def stream(self) -> object:
        while True:
            message = self._message()
            number = self._integer()
            if number >= 0:
                break
            self._define(-number)
            self._require_end(message)
        is_struct = isinstance(self._types.get(number), _Struct)
        if not is_struct and self._unsigned():
            raise self._error("expected the zero before a value that is no struct")
        value = self._value(number, 0)
        self._require_end(message)
        if self._at < len(self._data):
            raise self._error(f"expected the end, found {len(self._data) - self._at} bytes more")
        return value

    def _message(self) -> int:
        """Enter the next message and return where it begins."""
        self._end = len(self._data)
        if self._at >= self._end:
            raise self._error("expected a value, found the end")
        length = self._length()
        if not length:
            raise self._error("expected a message, found one of no bytes")
        self._end = self._at + length
        return self._at

    def _require_end(self, message: int) -> None:
        if self._at < self._end:
            raise self._error(
                f"expected the end of the message of {self._end - message} bytes, "
                f"found {self._end - self._at} bytes more"
            )

    # -- types --

    def _define(self, number: int) -> None:
        start = self._at
        if number < _FIRST_DEFINED or number in self._types:
            raise GobError(start, f"expected a new type's number, found {number}")
        wire = self._value(_WIRE_TYPE, 0)
        assert isinstance(wire, dict)  # _WIRE_TYPE is a struct
        if len(wire) != 1:
            raise GobError(start, f"expected a type of one kind, found {sorted(wire)}")
        ((kind, parts),) = wire.items()
        self._types[number] = self._type(kind, parts)

    @staticmethod
    def _type(kind: str, parts: dict[str, object]) -> _Type:
        # A number that is zero is not sent: get(..., 0), and type 0 is then not defined.
        def number(name: str) -> int:
            found = parts.get(name, 0)
            assert isinstance(found, int)  # _DEFINITIONS says so
            return found

        if kind == "StructT":
            fields = parts.get("Field", [])
            assert isinstance(fields, list)
            return _Struct(tuple((f.get("Name", ""), f.get("Id", 0)) for f in fields))
        if kind == "MapT":
            return _Map(number("Key"), number("Elem"))
        if kind == "SliceT":
            return _List(number("Elem"))
        if kind == "ArrayT":
            return _List(number("Elem"), number("Len"))
        return _Opaque()

    # -- values --

    def _value(self, number: int, depth: int) -> object:
        simple = self._simple.get(number)
        if simple is not None:
            return simple()
        if depth >= _MAX_DEPTH:
            raise self._error(f"expected values nested up to {_MAX_DEPTH} deep, found deeper ones")
        found = self._types.get(number)
        if isinstance(found, _Struct):
            return self._struct(found, depth + 1)
        if isinstance(found, _Map):
            return self._map(found, depth + 1)
        if isinstance(found, _List):
            return self._list(found, depth + 1)
        if isinstance(found, _Opaque):
            return self._bytes()
        what = "an interface, which is not supported" if number == _INTERFACE else f"type {number}"
        raise self._error(f"expected a type that was defined, found {what}")

    def _struct(self, of: _Struct, depth: int) -> dict[str, object]:
        found: dict[str, object] = {}
        place = -1
        while delta := self._unsigned():
            place += delta
            if place >= len(of.fields):
                raise self._error(f"expected one of {len(of.fields)} fields, found field {place}")
            name, number = of.fields[place]
            found[name] = self._value(number, depth)
        return found

    def _map(self, of: _Map, depth: int) -> dict[object, object]:
        found: dict[object, object] = {}
        for _ in range(self._count(2)):
            key = self._value(of.key, depth)
            if isinstance(key, (dict, list)):
                raise self._error("expected a map's key, found a struct, a map or a list")
            found[key] = self._value(of.element, depth)
        return found

    def _list(self, of: _List, depth: int) -> list[object]:
        count = self._count(1)
        if of.length is not None and count != of.length:
            raise self._error(f"expected an array of {of.length}, found {count} elements")
        return [self._value(of.element, depth) for _ in range(count)]

    def _count(self, least: int) -> int:
        """Read a number of elements, each of which takes `least` bytes or more."""
        count = self._unsigned()
        if count * least > self._end - self._at:
            raise self._error(
                f"expected elements in the {self._end - self._at} bytes left, found {count} claimed"
            )
        return count

    # -- what they are made of --

    def _unsigned(self) -> int:
        if self._at >= self._end:
            raise self._error("expected a number, found the end")
        first = self._data[self._at]
        self._at += 1
        if first < 0x80:
            return first
        length = 0x100 - first
        if length > 8:
            raise self._error(f"expected a number of up to 8 bytes, found one of {length}")
        return int.from_bytes(self._take(length))

    def _integer(self) -> int:
        number = self._unsigned()
        return ~(number >> 1) if number & 1 else number >> 1

    def _boolean(self) -> bool:
        number = self._unsigned()
        if number > 1:
            raise self._error(f"expected 0 or 1, found {number}")
        return bool(number)

    def _float(self) -> float:
        # The bits in reverse order of bytes, so that short fractions are short.
        return float(_DOUBLE.unpack(self._unsigned().to_bytes(8))[0])

    def _complex(self) -> complex:
        return complex(self._float(), self._float())

    def _length(self) -> int:
        length = self._unsigned()
        if length > self._end - self._at:
            raise self._error(f"expected {length} bytes, found {self._end - self._at}")
        return length

    def _bytes(self) -> bytes:
        return self._take(self._length())

    def _string(self) -> str:
        return self._bytes().decode("utf-8", "surrogateescape")

    def _take(self, length: int) -> bytes:
        start, self._at = self._at, self._at + length
        if self._at > self._end:
            raise GobError(start, f"expected {length} bytes, found {self._end - start}")
        return self._data[start : self._at]

    def _error(self, what: str) -> GobError:
        return GobError(self._at, what)
