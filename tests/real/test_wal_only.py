"""Each value of the WAL is looked up in its shard: what is nowhere else is counted exactly."""

from __future__ import annotations

import shutil
import struct
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures import Node
from fixtures import wal as encoder
from fixtures.build import WRITTEN_AT
from fixtures.encode import Row, Value, field_value, message, microseconds
from fixtures.wal import Point, Request
from shardtool.influxdb.wal import WalError
from shardtool.upgrade import wal_only
from shardtool.upgrade.wal_only import Gap, Shards, Target, WalOnly, compare

AT = microseconds(WRITTEN_AT)
SEQUENCE = 10_001


def row(value: Value, *, time_us: int = AT, column: str = "v", series: str = "cpu") -> Row:
    """Return a value as a shard holds it."""
    return Row("test", series, column, time_us, SEQUENCE, value)


def request(
    number: int, *values: Value | None, time_us: int = AT, shard: int = 1, series: str = "cpu"
) -> Request:
    """Return a write of one point, with columns v, w, x... as there are values."""
    columns = tuple("vwxyz"[: len(values)])
    return Request(number, shard, "test", series, columns, (Point(time_us, SEQUENCE, values),))


def write(node: Node, requests: Sequence[Request], *more: bytes) -> None:
    """Write a WAL of these requests and of bodies of others, as requests of shard 1."""
    log, _ = encoder.encode(requests)
    for number, body in enumerate(more, len(requests) + 1):
        log += struct.pack(">III", number, 1, len(body)) + body
    (node.wal / "log.1").write_bytes(log)


def look(node: Node, *, settled: Iterable[str] = ()) -> WalOnly:
    """Compare a node's WAL with its shards."""
    engines = {f"{number:05d}": "leveldb" for number in node.new}
    shards = Shards(node.wal, node.shard_db, node.shard_db_v2, engines, frozenset(settled))
    with tempfile.TemporaryDirectory() as scratch:
        return compare(shards, Path(scratch), lambda told: None)


def only_gap(found: WalOnly) -> Gap:
    """Return the one gap that was found."""
    (gap,) = found.gaps
    return gap


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """A node of 0.7 whose shard 1 holds cpu.v = 1 at AT."""
    node = Node(tmp_path / "data")
    node.old_shard(1, rows=[row(1)])
    return node


def test_what_is_in_the_shard_is_no_gap(node: Node) -> None:
    write(node, [request(1, 1)])
    found = look(node)
    assert (found.requests, found.values, found.gaps, found.problem) == (1, 1, (), "")


def test_every_column_of_a_point_that_no_shard_has_counts_and_a_null_does_not(node: Node) -> None:
    write(node, [request(1, 1, 2, None, "x")])
    gap = only_gap(look(node))
    assert (gap.target, gap.is_there, gap.missing, gap.newer) == (Target(True, "00001"), True, 2, 0)
    assert gap.series == (("test", "cpu", 2),)


@pytest.mark.parametrize("value", [2, 1.0, "1", True])
def test_another_value_or_the_same_of_another_type_is_newer_than_the_shard(
    node: Node, value: Value
) -> None:
    write(node, [request(1, value)])
    gap = only_gap(look(node))
    assert (gap.missing, gap.newer, gap.values) == (0, 1, 1)


def test_a_value_that_a_later_request_sets_back_is_no_gap(node: Node) -> None:
    write(node, [request(1, 2), request(2, 1)])
    assert look(node).gaps == ()


def test_a_value_that_is_written_twice_counts_once(node: Node) -> None:
    write(node, [request(1, 5, time_us=AT + 1), request(2, 6, time_us=AT + 1)])
    assert only_gap(look(node)).missing == 1


def test_a_shard_that_is_not_there_lacks_everything_written_to_it(node: Node) -> None:
    write(node, [request(1, 1), request(2, 1, 2, shard=7)])
    gap = only_gap(look(node))
    assert (gap.target.name, gap.is_there, gap.missing) == ("00007", False, 2)


def test_a_shard_that_was_pruned_on_evidence_is_not_asked_for(node: Node) -> None:
    shutil.rmtree(node.shard_db / "00001")
    write(node, [request(1, 1)])
    assert only_gap(look(node)).missing == 1
    assert look(node, settled=["00001"]).gaps == ()


def test_what_a_later_delete_may_have_taken_is_told_apart(node: Node) -> None:
    delete = message((2, 2), (3, "test"), (6, 1), (7, "delete from cpu"), (9, 2))
    write(node, [request(1, 1, 2, time_us=AT + 1)], delete)
    gap = only_gap(look(node))
    assert (gap.missing, gap.newer, gap.doubtful, gap.values) == (0, 0, 2, 0)


def test_names_with_a_tilde_are_looked_up_as_the_index_spells_them(node: Node) -> None:
    node.write_old(1, [row(1, series="a~b")])
    write(node, [request(1, 1, series="a~b"), request(2, 1, series="a~c")])
    assert only_gap(look(node)).series == (("test", "a~c", 1),)


def test_08s_requests_name_columns_by_id_and_are_looked_up_in_the_new_shards(
    tmp_path: Path,
) -> None:
    node = Node(tmp_path / "data", version="0.8")
    node.write_new([row(1)])
    (shard,) = node.new
    (number,) = node.ids.values()

    def written(at: int, value: Value) -> bytes:
        point = message((1, field_value(value)), (2, at), (3, SEQUENCE))
        series = message((1, point), (2, "cpu"), (4, number))
        return message((2, 1), (3, "test"), (4, series), (6, shard), (9, 1))

    log = b""
    for body in (written(AT, 1), written(AT + 1, 1)):
        log += struct.pack(">III", 1, shard, len(body)) + body
    (node.wal / "log.1").write_bytes(log)
    gap = only_gap(look(node))
    assert (gap.target, gap.missing) == (Target(False, f"{shard:05d}"), 1)


def test_a_shard_that_can_not_be_read_is_told_and_is_no_gap(node: Node) -> None:
    (node.shard_db / "00001" / "CURRENT").write_text("MANIFEST-000099\n")
    write(node, [request(1, 2)])
    found = look(node)
    ((target, detail),) = found.unread
    assert (target.name, found.gaps) == ("00001", ())
    assert "00001" in detail


def test_a_wal_that_ends_in_garbage_is_told_with_what_was_found_before_it(node: Node) -> None:
    write(node, [request(1, 2)], b"\xff\xff garbage")
    found = look(node)
    assert "log.1" in found.problem
    assert only_gap(found).newer == 1


def test_beyond_what_is_tracked_the_count_says_that_it_is_too_low(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wal_only, "_MOST_TRACKED", wal_only._TRACKED_SHARD + 3 * 256)
    write(node, [request(n, n, time_us=AT + n) for n in range(1, 6)])
    found = look(node)
    assert (only_gap(found).missing, found.is_all) == (3, False)


def test_more_shards_than_are_kept_open_are_all_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wal_only, "_MOST_OPEN", 2)
    node = Node(tmp_path / "data")
    for number in range(1, 6):
        node.old_shard(number, rows=[row(1)])
    write(node, [request(n, n % 2, shard=n % 5 + 1) for n in range(1, 21)])
    # The last writes are 20, 16, 17, 18 and 19: the even ones are not what the shards hold.
    found = {gap.target.name: gap.newer for gap in look(node).gaps}
    assert found == {"00001": 1, "00002": 1, "00004": 1}


WRITES = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from("abc"), st.none() | st.integers(0, 2)),
    max_size=12,
)


@settings(max_examples=60)
@given(
    stored=st.dictionaries(
        st.tuples(st.integers(0, 3), st.sampled_from("abc")), st.integers(0, 2), max_size=8
    ),
    writes=WRITES,
)
def test_the_count_is_that_of_keys_whose_last_write_the_shard_lacks(
    stored: dict[tuple[int, str], int], writes: list[tuple[int, str, Any]]
) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        node = Node(Path(scratch) / "data")
        held = [row(0, series="other")]
        held += [row(v, time_us=AT + t, series=s) for (t, s), v in stored.items()]
        node.old_shard(1, rows=held)
        write(
            node,
            [request(n, v, time_us=AT + t, series=s) for n, (t, s, v) in enumerate(writes, 1)],
        )
        found = look(node)
    last = {(t, s): v for t, s, v in writes if v is not None}
    lacking = {key for key, value in last.items() if stored.get(key) != value}
    assert sum(gap.values for gap in found.gaps) == len(lacking)
    assert sum(gap.newer for gap in found.gaps) == len(lacking & stored.keys())


def test_a_shard_that_raft_does_not_know_is_dropped_only_where_it_is_gone(node: Node) -> None:
    write(node, [request(1, 2)])
    shards = Shards(node.wal, node.shard_db, node.shard_db_v2, {}, owners={2: (1,)})
    with tempfile.TemporaryDirectory() as scratch:
        assert only_gap(compare(shards, Path(scratch), lambda told: None)).owner == "own"
        shutil.rmtree(node.shard_db / "00001")
        assert only_gap(compare(shards, Path(scratch), lambda told: None)).owner == "dropped"


def test_a_log_that_the_snapshot_does_not_have_was_begun_after_it(node: Node) -> None:
    write(node, [request(1, 1), request(2, 1)])
    size = (node.wal / "log.1").stat().st_size
    for known, later in (({"log.1": size}, 0), ({"log.0": 5}, 2), ({}, 0)):
        shards = Shards(node.wal, node.shard_db, node.shard_db_v2, {}, snapshotted=known)
        with tempfile.TemporaryDirectory() as scratch:
            assert compare(shards, Path(scratch), lambda told: None).after_snapshot == later


def test_a_log_that_can_not_be_read_is_named() -> None:
    unreadable = Path("/proc/self/mem")  # an error of the read, not of the opening
    with pytest.raises(WalError, match=r"^/proc/self/mem: expected .*output error"):
        wal_only._length_without_zeros(unreadable, 0)


def test_a_log_that_a_server_removes_before_its_end_is_looked_at_is_done_with(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(node, [request(1, 2)])
    with (node.wal / "log.1").open("ab") as file:
        file.write(b"torn")
    length = wal_only._length_without_zeros

    def removed(log: Path, offset: int) -> int:
        log.unlink()
        return length(log, offset)

    monkeypatch.setattr(wal_only, "_length_without_zeros", removed)
    shards = Shards(node.wal, node.shard_db, node.shard_db_v2, {}, owners={2: (1,)})
    with tempfile.TemporaryDirectory() as scratch:
        assert compare(shards, Path(scratch), lambda told: None).problem == ""
