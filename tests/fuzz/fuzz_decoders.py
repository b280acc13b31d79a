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
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import atheris

with atheris.instrument_imports(include=["shardtool"]):
    from shardtool.influxdb import gob, raft, wal

import contextlib

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
    point = wal_fixture.Point(-1, 1, (1, "x", 0.5, None, True))
    request = wal_fixture.Request(1, 1, "test", "cpu", ("a", "b", "c", "d", "e"), (point,))
    return [wal_fixture.encode([request])[0], message((1, 1))]


TARGETS: dict[str, Callable[[bytes], None]] = {
    "gob": fuzz_gob,
    "raft_log": fuzz_raft_log,
    "snapshot": fuzz_snapshot,
    "wal": fuzz_wal,
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
