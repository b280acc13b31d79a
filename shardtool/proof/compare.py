"""Look for an old shard's values in the new shards: streaming, in blocks, in bounded memory.

Knows keys and pairs; what a column is called, why a value is missing and what follows from it is
for others. The inner loop works on whole blocks of pairs: where both sides agree, which is nearly
always, no Python statement runs per value.
"""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from shardtool.influxdb.engines import EngineError, Pair, Reader, Stream
from shardtool.influxdb.keys import FIRST_INDEX_KEY, ID_BYTES, LAST_ID_KEY, VALUE_KEY

BLOCK = 2048  # pairs that are read and compared at a time
# Values may be small or of a megabyte each: a block is read in steps, and ends with the step in
# which its bytes may have become too many. Only a few values of a step are looked at.
_STEP = 64
_LOOKED_AT = 8
_BLOCK_BYTES = 4 << 20
_PROBE = 8  # pairs that are read first where the stream has to be put elsewhere

Suffix: TypeAlias = bytes
"""A key without its column id: time and sequence, 16 bytes. The same on both sides."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Neighbouring values of one column of an old shard.

    Args:
        column: the column's id in the old shard, 8 bytes.
        keys: of 24 bytes each, in order.
        values: as they are stored, one for each key.
    """

    column: bytes
    keys: tuple[bytes, ...]
    values: tuple[bytes, ...]

    def part(self, start: int, end: int) -> Piece:
        """Return values `start` to `end` (not included) as a piece of their own."""
        if (start, end) == (0, len(self.keys)):
            return self
        return Piece(self.column, self.keys[start:end], self.values[start:end])


class Digest:
    """SHA-256 over values, however they are cut into pieces.

    The digest of the digests of all keys, of all values' lengths (u32, little-endian) and of all
    values, each joined in key order.
    """

    def __init__(self) -> None:
        self._parts = [hashlib.sha256() for _ in range(3)]

    def add(self, piece: Piece) -> None:
        keys, lengths, values = self._parts
        keys.update(b"".join(piece.keys))
        lengths.update(array("I", map(len, piece.values)).tobytes())
        values.update(b"".join(piece.values))

    def hexdigest(self) -> str:
        """Return what was added so far as 64 hex digits."""
        return hashlib.sha256(b"".join(part.digest() for part in self._parts)).hexdigest()


def pieces(reader: Reader, seen: Callable[[bytes], None]) -> Iterator[Piece]:
    """Yield the values of an old shard, in key order, in pieces of up to BLOCK values.

    Args:
        reader: the old shard.
        seen: called with the last key of each block that is done with.

    Raises:
        EngineError: it can't be read to its end, or holds a key that no shard has.
    """
    stream = reader.pairs(b"")
    step = _STEP
    while True:
        block, step = _block(stream, step)
        if not block:
            return
        last = block[-1][0]
        if block[0][0] == LAST_ID_KEY:
            del block[0]
        # Only the index is left from its first key on, and it was read before.
        end = bisect_left(block, FIRST_INDEX_KEY, key=_key)
        yield from _by_column(reader, block[:end] if end < len(block) else block)
        seen(last)
        if end < len(block):
            return


def _block(stream: Stream, step: int) -> tuple[list[Pair], int]:
    """Read up to BLOCK pairs, `step` at a time; return them, and the step for the next block."""
    block: list[Pair] = []
    while len(block) < BLOCK:
        # The first step of a new size is a small one where the last values were large.
        pairs = stream.take(min(step, BLOCK - len(block)))
        block += pairs
        largest = max([len(value) for _, value in pairs[::_LOOKED_AT]], default=0)
        if len(pairs) < step or largest * BLOCK > _BLOCK_BYTES:
            return block, max(1, min(_STEP, _BLOCK_BYTES // (largest + 1)))
    return block, _STEP


def _by_column(reader: Reader, block: list[Pair]) -> Iterator[Piece]:
    start = 0
    while start < len(block):
        column = block[start][0][:ID_BYTES]
        end = len(block)
        if block[-1][0][:ID_BYTES] != column:
            end = bisect_right(block, column + b"\xff" * (VALUE_KEY - ID_BYTES), key=_key)
            end = max(end, start + 1)  # a key that is too long may sort behind that
        keys, values = zip(*block[start:end], strict=True)
        if set(map(len, keys)) != {VALUE_KEY}:
            odd = next(key for key in keys if len(key) != VALUE_KEY)
            raise EngineError(
                f"{reader.path}: expected values under keys of {VALUE_KEY} bytes, "
                f"found a key {odd[:64].hex()}"
            )
        yield Piece(column, keys, values)
        start = end


def _key(pair: Pair) -> bytes:
    return pair[0]


def suffixes(keys: Sequence[bytes]) -> list[Suffix]:
    """Given keys, return them without their column ids."""
    return [key[ID_BYTES:] for key in keys]


class Cursor:
    """A place in an open new shard that moves on with the column that is being looked for."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.shard = reader.path.name
        self._stream: Stream | None = None
        self._held: list[Pair] = []  # read, and not yet given out
        self._from = b""  # no key from here on lies before what is held, or read next

    def blocks(self, low: bytes, high: bytes, count: int) -> Iterator[list[Pair]]:
        """Yield the pairs from key `low` to `high` (included), in blocks of about `count`.

        Raises:
            EngineError: they can't be read.
        """
        block = self._first(low, count)
        while block:
            if block[-1][0] > high:
                end = bisect_right(block, high, key=_key)
                self._held = block[end:]
                del block[end:]
                if not block:
                    return
            last = block[-1][0]
            self._from = last + b"\0"
            yield block
            if self._held or last >= high:
                return
            block = self._take(count)

    def _first(self, low: bytes, count: int) -> list[Pair]:
        """Return the pairs from `low` on: about `count` of them, or few where it has to seek."""
        held, self._held = self._held, []
        known, self._from = self._from, low
        column = low[:ID_BYTES]
        if known <= low:
            if not held and known[:ID_BYTES] == column:
                held = self._take(count)
            if held and low <= held[-1][0]:
                return held[bisect_left(held, low, key=_key) :]
        self._stream = self._reader.pairs(low)
        block = self._take(min(count, _PROBE))
        if count > _PROBE and block and block[-1][0][:ID_BYTES] == column:
            block += self._take(count - len(block))
        return block

    def _take(self, count: int) -> list[Pair]:
        return self._stream.take(count) if self._stream is not None else []


@dataclass
class Wanted:
    """Values of one column that have not been found yet.

    Args:
        missing: value by suffix: the key is in no new shard that was looked into.
        different: by suffix what a new shard has instead of the value in `missing`.
        hidden: by suffix what a shard that 0.8 does not ask has instead of it.
        unanswered: those that another server may have, and that it can't be asked for.
    """

    missing: dict[Suffix, bytes]
    different: dict[Suffix, bytes]
    hidden: dict[Suffix, bytes] = field(default_factory=dict)
    unanswered: set[Suffix] = field(default_factory=set)


def look(
    piece: Piece, column: bytes, cursors: Iterable[Cursor], wanted: Wanted | None
) -> tuple[Wanted | None, list[Cursor]]:
    """Look for a piece's values under the new id `column` in new shards.

    Args:
        piece: the values; in each of the shards they may all lie.
        column: the id in the new storage, 8 bytes.
        cursors: the new shards that can hold them, most likely first; each is done with before
            the next one is asked for.
        wanted: what an earlier look has left to be found; None for all of the piece.

    Returns:
        What is still not found (None where nothing is), and the cursors of those shards that
        had any of it.

    Raises:
        EngineError: a new shard can't be read.
    """
    low = column + piece.keys[0][ID_BYTES:]
    high = column + piece.keys[-1][ID_BYTES:]
    helpful = []
    for cursor in cursors:
        blocks = cursor.blocks(low, high, len(piece.keys))
        block = next(blocks, None)
        if block is None:
            continue
        if wanted is None:
            if _is_same(piece, block):
                return None, [cursor]
            wanted = Wanted(dict(zip(suffixes(piece.keys), piece.values, strict=True)), {})
        before = len(wanted.missing)
        while block is not None:
            _strike_out(block, wanted)
            block = next(blocks, None)
        if len(wanted.missing) < before:
            helpful.append(cursor)
        if not wanted.missing:
            return None, helpful
    if wanted is None:
        wanted = Wanted(dict(zip(suffixes(piece.keys), piece.values, strict=True)), {})
    return wanted, helpful


def _is_same(piece: Piece, block: list[Pair]) -> bool:
    """Say whether a block of the new side is the piece, value by value, but for the column id."""
    if len(block) != len(piece.keys):
        return False
    keys, values = zip(*block, strict=True)
    if values != piece.values or set(map(len, keys)) != {VALUE_KEY}:
        return False
    return _strides(keys) == _strides(piece.keys)


def _strides(keys: Sequence[bytes]) -> tuple[bytes, bytes]:
    # Of three 64-bit words a key the second and the third, for all keys at once.
    words = memoryview(b"".join(keys)).cast("Q")
    return words[1::3].tobytes(), words[2::3].tobytes()


def _strike_out(block: list[Pair], wanted: Wanted) -> None:
    missing, different = wanted.missing, wanted.different
    for key, value in block:
        suffix = key[ID_BYTES:]
        old = missing.get(suffix)
        if old is None:
            continue
        if old == value:
            del missing[suffix]
            different.pop(suffix, None)
        else:
            different[suffix] = value
