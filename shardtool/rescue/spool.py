"""Lost values on their way from a proof to a server: on disk, column by column, in key order.

A proof finds them one column after the other; a point has one value of each. So they wait in a
file, from which the columns of a series are read side by side: memory holds no more than a piece
of each.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from shardtool.proof.causes import CAUSES
from shardtool.proof.columns import Name
from shardtool.proof.compare import Suffix
from shardtool.proof.prove import Lost
from shardtool.proof.scratch import SpoolFile

_CHUNK = 1 << 18
_LARGEST_PIECE, _SMALLEST_PIECE = 1 << 16, 1 << 12  # of a column, read at a time
_PIECES = 16 << 20  # bytes of all columns that are read side by side

# A record: its kind, a number of it, and the length of what follows.
_HEAD = struct.Struct(">cBI")
_COLUMN, _VALUE, _END = b"C", b"V", b"E"
_SUFFIX = 16
_LATER = 0x3F  # in place of a cause that the end of the column tells
_UNANSWERED = 0x40  # another server may have it, and could not be asked
_DIFFERENT = 0x80  # the new storage has another content under its key, asked for or not


class Value(NamedTuple):
    """A lost value: its key without the column, its FieldValue, and why it is lost."""

    suffix: Suffix
    stored: bytes
    cause: str
    is_different: bool
    is_unanswered: bool = False


class Column(NamedTuple):
    """Where the lost values of one column are in a spool's file.

    Args:
        name: the column.
        start: offset of its first value.
        end: offset behind its last.
        rest: the cause of those values that had none yet.
        is_sure: whose column it is, is certain.
    """

    name: Name
    start: int
    end: int
    rest: str
    is_sure: bool


class Spool:
    """Takes a shard's lost values in a proof, in place of proof.listing.Listing."""

    def __init__(self, shard: str) -> None:
        """Begin the spool of `shard`; what does not fit memory waits in TMPDIR."""
        self._file = SpoolFile()
        self._name: Name | None = None

    def add(self, lost: Lost) -> None:
        """Add a value."""
        if lost.name != self._name:
            self._name, name = lost.name, lost.owner or lost.name
            parts = [name.database, name.series, name.column]
            is_sure = lost.owner is not None
            self._write(_COLUMN, is_sure, json.dumps(parts).encode("ascii"))
        word = lost.unwanted or lost.cause
        cause = CAUSES.index(word) if word else _LATER
        different = _DIFFERENT * (lost.found is not None or lost.is_hidden)
        unanswered = _UNANSWERED * lost.is_unanswered
        self._write(_VALUE, cause | different | unanswered, lost.suffix + lost.stored)

    def column_ends(self, cause: str) -> None:
        """Say why its values without a cause are lost."""
        self._write(_END, CAUSES.index(cause), b"")
        self._name = None

    def _write(self, kind: bytes, number: int, content: bytes) -> None:
        self._file.write(_HEAD.pack(kind, number, len(content)) + content)

    def chunks(self) -> Iterator[bytes]:
        """Yield all of it in pieces of some size."""
        self._file.seek(0)
        while chunk := self._file.read(_CHUNK):
            yield chunk


def columns_in(path: Path) -> Iterator[Column]:
    """Yield the columns of a spool's file."""
    name, is_sure = Name("", "", ""), False
    start = at = 0
    with path.open("rb") as file:
        while head := file.read(_HEAD.size):
            kind, number, length = _HEAD.unpack(head)
            at += _HEAD.size + length
            if kind == _COLUMN:
                name, is_sure, start = Name(*json.loads(file.read(length))), bool(number), at
            elif kind == _END:
                yield Column(name, start, at - _HEAD.size, CAUSES[number], is_sure)
            else:
                file.seek(length, 1)


def values_of(path: Path, column: Column, *, of_many: int = 1) -> Iterator[Value]:
    """Yield a column's values in the order of their keys.

    The file is opened for each piece of them: there may be more columns than open files.

    Args:
        path: the spool's file.
        column: where it is.
        of_many: so many columns are read side by side; a piece of each is in memory.
    """
    at, buffer = column.start, b""
    size = min(_LARGEST_PIECE, max(_SMALLEST_PIECE, _PIECES // of_many))
    while at < column.end or buffer:
        if len(buffer) < _HEAD.size or len(buffer) < _HEAD.size + _HEAD.unpack_from(buffer)[2]:
            wanted = _HEAD.size + (_HEAD.unpack_from(buffer)[2] if len(buffer) >= _HEAD.size else 0)
            with path.open("rb", buffering=0) as file:
                file.seek(at)
                piece = file.read(min(max(size, wanted), column.end - at))
            at += len(piece)
            buffer += piece
            continue
        place = 0
        while len(buffer) - place >= _HEAD.size:
            _, number, length = _HEAD.unpack_from(buffer, place)
            begin = place + _HEAD.size
            if len(buffer) < begin + length:
                break
            content = buffer[begin : begin + length]
            cause = number & _LATER
            yield Value(
                content[:_SUFFIX],
                content[_SUFFIX:],
                column.rest if cause == _LATER else CAUSES[cause],
                bool(number & _DIFFERENT),
                bool(number & _UNANSWERED),
            )
            place = begin + length
        buffer = buffer[place:]
