"""Fuzz the decoders with atheris; not a test that pytest runs.

    pip install atheris
    python tests/fuzz/fuzz_decoders.py gob -max_total_time=60

The first word names the target, the rest is libFuzzer's. A crash, a hang (-timeout) or too much
memory (-rss_limit_mb) is a bug; the documented error is none.
"""

from __future__ import annotations

import io
import sys
import tempfile
import zlib
from bisect import bisect_left
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import atheris

with atheris.instrument_imports(include=["shardtool"]):
    from shardtool.influxdb import gob, raft, wal
    from shardtool.influxdb.engines import EngineError, Pair
    from shardtool.influxdb.errors import LogError
    from shardtool.influxdb.messages import MessageError, parse, value_of
    from shardtool.influxdb.model import Catalogue, Dropped
    from shardtool.proof.columns import read_index
    from shardtool.proof.compare import pieces

import contextlib

from fixtures import encode
from fixtures import raft as raft_fixture
from fixtures import wal as wal_fixture
from fixtures.encode import message

VECTORS = Path(__file__).parents[1] / "vectors" / "gob"


def fuzz_gob(data: bytes) -> None:
    """Decode a stream, and a time."""
    for decode in (gob.decode, gob.time_us):
        with contextlib.suppress(gob.GobError):
            decode(data)


def fuzz_raft_log(data: bytes) -> None:
    """Read the log's entries."""
    with contextlib.suppress(LogError):
        list(raft.parse_log(io.BytesIO(data), len(data)))


def fuzz_snapshot(data: bytes) -> None:
    """Take a snapshot with the right checksum apart, and the state in it."""
    with contextlib.suppress(ValueError):  # GobError is one
        gob.decode(raft.parse_snapshot(b"%08x\n" % zlib.crc32(data) + data).state)


def fuzz_wal(data: bytes) -> None:
    """Read the requests of a log.N."""
    with contextlib.suppress(LogError):
        list(wal.parse_log(io.BytesIO(data), len(data)))


def fuzz_value(data: bytes) -> None:
    """Take a stored value apart."""
    with contextlib.suppress(MessageError):
        value_of(parse("FieldValue", data))


class Pairs:
    """A shard of these pairs, as an engine would give them."""

    path = Path("shard")

    def __init__(self, pairs: list[Pair], place: int = 0) -> None:
        """Begin at the pair number `place`."""
        self._pairs, self._place = pairs, place

    def pairs(self, start: bytes) -> Pairs:
        """Return the pairs from the key `start` on."""
        return Pairs(self._pairs, bisect_left(self._pairs, (start, b"")))

    def take(self, count: int) -> list[Pair]:
        """Return the next `count` pairs."""
        first, self._place = self._place, self._place + count
        return self._pairs[first : self._place]

    def value(self, key: bytes) -> bytes | None:
        """Return the value under a key."""
        return dict(self._pairs).get(key)

    def tables(self) -> list[tuple[bytes, int]]:
        """Return no tables."""
        return []


def fuzz_keys(data: bytes) -> None:
    """Read an old shard's index and values: a byte each for a key's and a value's length."""
    pairs: dict[bytes, bytes] = {}
    file = io.BytesIO(data)
    while head := file.read(2):
        key = file.read(head[0])
        pairs[key] = file.read(head[-1])
    shard = Pairs(sorted(pairs.items()))
    catalogue = Catalogue(frozenset({"a"}), {"a": {}}, {}, (), (), None, Dropped())
    with contextlib.suppress(EngineError):
        index = read_index(shard, catalogue)
        for piece in pieces(shard, lambda key: None):
            index.stumbles(index.column(piece.column).name)


def seeds(name: str) -> list[bytes]:
    """Return valid input for a target, to begin with."""
    if name == "gob":
        return [path.read_bytes() for path in VECTORS.glob("*.gob")]
    commands = [raft_fixture.join(), raft_fixture.nop(), raft_fixture.create_db("test")]
    if name == "raft_log":
        return [raft_fixture.encode_log([commands])]
    if name == "snapshot":
        states = [path.read_bytes() for path in VECTORS.glob("saved-*.gob")]
        return [raft_fixture.encode_snapshot(9, 1, state)[9:] for state in states]
    if name == "value":
        return [encode.field_value(value) for value in (None, True, 7, 0.5, "text")]
    if name == "keys":
        column = encode.Column("a", "b~c", "d")
        found = [encode.id_entry(column, 1), encode.series_entry("a", "b~c")]
        found += [encode.last_id_entry(1), (encode.value_key(encode.old_id(1), 0, 1), b"")]
        return [b"".join(bytes((len(k), len(v))) + k + v for k, v in found)]
    point = wal_fixture.Point(-1, 1, (1, "x", 0.5, None, True))
    request = wal_fixture.Request(1, 1, "test", "cpu", ("a", "b", "c", "d", "e"), (point,))
    return [wal_fixture.encode([request])[0], message((1, 1))]


TARGETS: dict[str, Callable[[bytes], None]] = {
    "gob": fuzz_gob,
    "raft_log": fuzz_raft_log,
    "snapshot": fuzz_snapshot,
    "wal": fuzz_wal,
    "value": fuzz_value,
    "keys": fuzz_keys,
}


def main() -> None:
    """Fuzz the target that the first argument names."""
    name = sys.argv.pop(1)
    with tempfile.TemporaryDirectory() as corpus:
        for place, seed in enumerate(seeds(name)):
            (Path(corpus) / f"seed{place}").write_bytes(seed)
        atheris.Setup([*sys.argv, corpus], TARGETS[name])
        atheris.Fuzz()


if __name__ == "__main__":
    main()
