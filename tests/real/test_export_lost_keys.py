"""The keys of lost values on disk: those are chosen and no others, however they are read."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures import Node
from shardtool.errors import ShardtoolError
from shardtool.export.columns import NOTHING_KNOWN, Selection
from shardtool.export.line import Style
from shardtool.export.lost import Keys, LostValues
from shardtool.export.run import export
from shardtool.export.windows import windows
from shardtool.export.work import ChangedError, Job, Wanted
from shardtool.influxdb.engines import EngineError
from shardtool.influxdb.keys import ID_BYTES
from shardtool.proof.columns import Name
from shardtool.proof.prove import Lost
from shardtool.proof.state import state_of
from tests.conftest import Mount
from tests.unit.test_export_windows import Cell, Memory, columns, key_of

NAME = Name("d", "s", "c")  # of all of them: only ids tell columns apart


def lost_of(key: bytes) -> Lost:
    return Lost(NAME, key[ID_BYTES:], b"", None, "future", column_id=key[:ID_BYTES])


def known(shard: Path, keys: list[bytes], scratch: Path) -> LostValues:
    """Return what is known of a shard of which these are lost."""
    collected = Keys(shard.name)
    for key in keys:
        collected.add(lost_of(key))
    values = LostValues(scratch)
    for piece in collected.chunks():
        values.add(shard.name, piece)
    values.proven(shard.name, state_of(shard))
    return values


def job_of(shard: Path) -> Job:
    return Job(shard, "leveldb", False, 1000)


CELLS = st.sets(st.tuples(st.integers(1, 4), st.integers(-3, 12), st.integers(0, 2)))


@given(lost=CELLS, found=CELLS, low=st.none() | st.integers(-4, 13))
def test_exactly_the_lost_ones_are_chosen(
    lost: set[Cell], found: set[Cell], low: int | None
) -> None:
    reader = Memory([(key_of(cell), b"") for cell in lost | found])
    with tempfile.TemporaryDirectory() as directory:
        shard = Path(directory, "00001")
        shard.mkdir()
        values = known(shard, sorted(map(key_of, lost)), Path(directory))
        with values.chosen(job_of(shard)) as choice:
            told = list(windows(reader, columns(4), Selection(from_us=low), choice=choice))
    expected = [key_of(cell) for cell in lost if low is None or cell[1] >= low]
    assert sorted(k for one in told for part in one.parts for k in part.keys) == sorted(expected)


def test_columns_that_lost_nothing_are_not_read(tmp_path: Path) -> None:
    reader = Memory([(key_of((column, time, 1)), b"") for column in (1, 2) for time in range(500)])
    with known(tmp_path, [key_of((2, 499, 1))], tmp_path).chosen(job_of(tmp_path)) as choice:
        (window,) = windows(reader, columns(2), Selection(), choice=choice)
    assert window.values == 1
    assert reader.given <= 500


def test_a_lost_value_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    reader = Memory([(key_of((1, time, 1)), b"") for time in range(9)])
    lost = [key_of((1, 3, 1)), key_of((1, 3, 2))]
    with (
        known(tmp_path, lost, tmp_path).chosen(job_of(tmp_path)) as choice,
        pytest.raises(EngineError, match="expected 1 lost value up to"),
    ):
        list(windows(reader, columns(1), Selection(), choice=choice))


def test_keys_that_are_not_in_order_are_an_error(tmp_path: Path) -> None:
    keys = Keys("00001")
    keys.add(lost_of(key_of((2, 1, 1))))
    for cell in ((2, 1, 1), (2, 0, 1), (1, 9, 1)):
        with pytest.raises(EngineError, match="expected keys in order"):
            keys.add(lost_of(key_of(cell)))


def test_a_shard_that_changed_since_it_was_compared_is_not_exported(tmp_path: Path) -> None:
    node = Node(tmp_path / "data")
    shards = [node.old_shard(number, points=10) for number in (1, 2)]
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    values = LostValues(scratch)
    for shard in shards:
        values.proven(shard.name, state_of(shard))
    (shards[0] / "000099.log").write_bytes(b"")
    with pytest.raises(ChangedError), values.chosen(job_of(shards[0])):
        pass
    wanted = Wanted(Selection(), "line", Style(), NOTHING_KNOWN, values.chosen)
    jobs = [job_of(shard) for shard in shards]
    to = str(tmp_path / "x.lp")
    report = export(jobs, wanted, to, force=False, progress=lambda *told: None)
    assert [(one.word, one.values) for one in report.outcomes] == [("changing", 0), ("", 0)]
    assert not report.is_whole


def test_no_room_for_the_keys_is_said(tmp_path: Path, mount: Mount) -> None:
    full = mount(tmp_path, size="64k")
    with pytest.raises(ShardtoolError, match="expected room for the keys"):
        LostValues(full).add("00001", bytes(1 << 20))
