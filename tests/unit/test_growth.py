"""Work that grows with what is asked for, and not with all else that a node holds.

Counted in the interpreter's own steps, so that no clock is asked: twice the work in a loop is
twice the steps on every machine.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from shardtool.datadir.inventory import OldShard
from shardtool.datadir.marker import Marker
from shardtool.datadir.verdict import Judged
from shardtool.disk.tree import Tree
from shardtool.influxdb.keys import ID_BYTES, time_bytes
from shardtool.influxdb.model import Catalogue, Dropped, ShardRange, Space, Timeline
from shardtool.proof.basis import Basis, basis_now
from shardtool.proof.columns import Name
from shardtool.proof.compare import Piece
from shardtool.proof.storage import LocalShard, NewStorage, Place
from shardtool.prune.plan import make_plan
from shardtool.prune.policy import Policy

SPACE = Space("a", "db", "/.*/", "inf", "7d", 1, 1)
WEEK = 7 * 24 * 3600 * 1_000_000


def steps(work: Callable[[], object]) -> int:
    """Return how many bytecodes `work` takes."""
    counted = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal counted
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        counted += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return counted


def catalogue(shards: int) -> Catalogue:
    """Return a catalogue of as many new shards, a week each."""
    ranges = (
        ShardRange(n, "db", "a", n * WEEK, (n + 1) * WEEK, (1,)) for n in range(1, shards + 1)
    )
    return Catalogue(
        frozenset({"db"}),
        {"db": {"s": {"c": 1}}},
        {"db": (SPACE,)},
        tuple(ranges),
        (),
        1,
        Dropped(),
    )


def cut(of: Catalogue) -> tuple[int, list[tuple[str, ...]]]:
    """Cut a piece as a proof does; return the steps that it took, and each part's new shards."""
    local = {f"{s.id:05d}": LocalShard(Path(f"{s.id:05d}"), "leveldb") for s in of.shards}
    storage = NewStorage(of, local, Path("scratch"))
    times = (3 * WEEK, 4 * WEEK - 1, 4 * WEEK)
    keys = tuple(bytes(ID_BYTES) + time_bytes(time) + bytes(ID_BYTES) for time in times)
    piece = Piece(bytes(ID_BYTES), keys, keys)
    parts: list[tuple[str, ...]] = []

    def ask() -> None:
        parts.extend(cover.shards for _, cover in storage.parts(Place("db", "a"), piece))

    return steps(ask), parts


def test_what_a_proof_looks_through_does_not_grow_with_the_new_shards() -> None:
    taken = []
    for of in (catalogue(10), catalogue(1000)):
        assert of.timelines  # made once, for all of a run
        count, parts = cut(of)
        assert parts == [("00003",), ("00004",)]
        taken.append(count)
    few, many = taken
    assert many < 2 * few


def test_what_a_receipt_is_checked_against_does_not_grow_with_the_new_shards() -> None:
    def check(of: Catalogue) -> int:
        basis = Basis(of)
        basis.add_shard("00003")
        held: list[bool] = []
        by_id = {1: Name("db", "s", "c")}
        taken = steps(lambda: held.append(basis_now(of, by_id, "", ["00003"]) == basis.hexdigest()))
        assert held == [True]
        return taken

    assert check(catalogue(10)) == check(catalogue(1000))


def test_a_plan_until_enough_is_free_grows_with_the_shards_and_no_faster() -> None:
    def plan(count: int) -> int:
        tree = Tree(files=5, allocated_bytes=4096, reclaimable_bytes=4096)
        shards = tuple(
            Judged(OldShard(f"{n:05d}", marker=Marker(True, n), tree=tree), "marked", ())
            for n in range(1, count + 1)
        )
        policy = Policy(trust_marker=True, until_free=1 << 60)
        return steps(lambda: make_plan(shards, policy, (), {}, free_bytes=0, now_ns=1 << 60))

    few, many = plan(20), plan(200)
    assert many < 12 * few


shard_ranges = st.builds(
    ShardRange,
    st.integers(1, 9),
    st.just("db"),
    st.just("a"),
    st.integers(0, 12),
    st.integers(0, 12),
    st.just((1,)),
)


@given(st.lists(shard_ranges, max_size=8, unique_by=lambda shard: shard.id))
def test_a_timeline_tells_the_shards_of_each_moment_by_their_ids(shards: list[ShardRange]) -> None:
    timeline = Timeline.of(shards)
    for time in range(-1, 14):
        at = sum(bound <= time_bytes(time) for bound in timeline.bounds)
        expected = [s for s in shards if s.start_us <= time < s.end_us]
        assert timeline.cover(at) == sorted(expected, key=lambda shard: shard.id)
