"""Which values of old shards the new storage lacks: their keys, as proofs find them, on disk.

A proof meets a shard's values in the order of their keys. So the keys of the lost ones make a
sorted file, of 24 bytes each, in which they are looked up: however many there are, memory holds a
few.
"""

from __future__ import annotations

import contextlib
import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path

from shardtool.disk.durable import opened_quietly
from shardtool.errors import ShardtoolError, reason_of
from shardtool.export.columns import Column
from shardtool.export.work import ChangedError, Job
from shardtool.influxdb.engines import EngineError, Pair
from shardtool.influxdb.keys import VALUE_KEY
from shardtool.proof.prove import Lost
from shardtool.proof.scratch import SpoolFile
from shardtool.proof.state import state_of
from shardtool.words import plural

_CHUNK = 1 << 18


class Keys:
    """Collects the keys of a shard's lost values in a proof; see proof.run.Lister."""

    def __init__(self, shard: str) -> None:
        """Begin with none of `shard`; what does not fit memory waits in TMPDIR."""
        self._shard = shard
        self._file = SpoolFile()
        self._last = b""

    def add(self, lost: Lost) -> None:
        """Take a value's key.

        Raises:
            EngineError: it does not follow the last one, so that a table of the shard is corrupt.
        """
        key = lost.column_id + lost.suffix
        if key <= self._last:
            raise EngineError(
                f"{self._shard}: expected keys in order, found {key.hex()} after {self._last.hex()}"
            )
        self._last = key
        self._file.write(key)

    def column_ends(self, cause: str) -> None:
        """Whatever the cause is, a lost value is a lost value."""

    def chunks(self) -> Iterator[bytes]:
        """Yield all keys in pieces of some size."""
        self._file.seek(0)
        while chunk := self._file.read(_CHUNK):
            yield chunk


class LostValues:
    """The keys of all shards' lost values, in a file each, and what chooses by them."""

    def __init__(self, directory: Path) -> None:
        """Keep them in `directory`, which is the caller's to remove."""
        self._directory = directory
        self._files: dict[str, Path] = {}
        self._states: dict[str, str] = {}

    def add(self, shard: str, piece: bytes) -> None:
        """Append a piece of what Keys has collected of a shard.

        Raises:
            ShardtoolError: there is no room for it.
        """
        # A shard's directory may have any name.
        path = self._files.setdefault(shard, self._directory / f"{len(self._files)}.keys")
        try:
            with path.open("ab") as file:
                file.write(piece)
        except OSError as error:
            raise ShardtoolError(
                f"{path}: expected room for the keys of lost values, found: {reason_of(error)}; "
                "set TMPDIR to a directory with more"
            ) from None

    def proven(self, shard: str, state: str) -> None:
        """Note that all of a shard's lost values are known, and its state that they are of."""
        self._states[shard] = state

    @contextlib.contextmanager
    def chosen(self, job: Job) -> Iterator[_Choice]:
        """Open what chooses the lost values of a shard that was proven.

        Raises:
            ChangedError: it is in another state by now.
        """
        if state_of(job.path) != self._states[job.name]:
            raise ChangedError(
                f"{job.path}: another process wrote to it since it was compared with the new "
                "storage; run it again"
            )
        path = self._files.get(job.name)
        if path is None:
            yield _Choice(job.path, None)
            return
        with opened_quietly(path, os.O_RDONLY) as file:
            yield _Choice(job.path, file)


class _Choice:
    """Chooses those of a shard's values whose keys are in a sorted file; see windows.Choice."""

    def __init__(self, shard: Path, file: int | None) -> None:
        self._shard = shard
        self._file = file
        self._count = 0 if file is None else os.fstat(file).st_size // VALUE_KEY
        self._places: dict[bytes, int] = {}  # by column, of the first key that was not passed

    def has(self, column: Column) -> bool:
        """Say whether a column has lost any value."""
        (key,) = self._keys(self._place_of(column.id), 1) or (b"",)
        return key.startswith(column.id)

    def of(self, column: Column, pairs: Sequence[Pair]) -> Sequence[Pair]:
        """Return those of a column's pairs that are lost.

        Raises:
            EngineError: a lost value is not among them.
        """
        place = self._places.get(column.id)
        if place is None:
            place = self._place_of(pairs[0][0])
        # All lost ones up to the last pair are pairs here, so these are enough.
        keys = self._keys(place, len(pairs))
        count = bisect_right(keys, pairs[-1][0])
        self._places[column.id] = place + count
        lost = set(keys[:count])
        found = [pair for pair in pairs if pair[0] in lost]
        if len(found) != count:
            raise EngineError(
                f"{self._shard}: expected {plural(count, 'lost value')} up to the key "
                f"{pairs[-1][0].hex()}, found {len(found)}"
            )
        return found

    def among(self, pairs: Sequence[Pair]) -> Sequence[Pair]:
        """Return those of neighbouring pairs of a column that are lost."""
        lost = set(self._keys(self._place_of(pairs[0][0]), len(pairs)))
        return [pair for pair in pairs if pair[0] in lost]

    def _place_of(self, key: bytes) -> int:
        """Return the place of the first key that is not before `key`."""
        return bisect_left(range(self._count), key, key=lambda place: self._keys(place, 1)[0])

    def _keys(self, place: int, count: int) -> list[bytes]:
        """Read `count` keys from a place on; fewer only where the file ends."""
        if self._file is None:
            return []
        content = os.pread(self._file, count * VALUE_KEY, place * VALUE_KEY)
        return [content[at : at + VALUE_KEY] for at in range(0, len(content), VALUE_KEY)]
