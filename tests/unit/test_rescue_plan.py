"""What a rescue sends is one plan over all shards, made of what waits in their spools."""

from __future__ import annotations

import resource
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.encode import field_value
from shardtool.errors import ShardtoolError
from shardtool.proof.columns import Name
from shardtool.proof.prove import Lost
from shardtool.rescue.plan import Plan, Spools, make_plan, require_nothing_new
from shardtool.rescue.points import (
    Point,
)
from shardtool.rescue.spool import Spool, Value, columns_in, values_of
from tests.unit.test_rescue_points import CPU, suffix


def spooled(directory: Path, **shards: dict[int, int]) -> Spools:
    """Return spools of shards s1, s2...: time to value, of one series."""
    spools = Spools(directory)
    for shard, values in shards.items():
        spool = Spool(shard)
        for time, value in sorted(values.items()):
            spool.add(Lost(CPU, suffix(time), field_value(value), None, "name", CPU))
        spool.column_ends("unknown")
        for piece in spool.chunks():
            spools.add(shard[1:], piece)
    return spools


def planned(spools: Spools) -> Plan:
    return make_plan(spools, known=["test"], create=False, also=())


def sent_of(spools: Spools) -> dict[int, str]:
    """Return what a plan's points hold, by time."""
    (series,) = planned(spools).series
    points = [one for one in spools.points(series, ()) if isinstance(one, Point)]
    return {point.time_us: point.values[0][1] for point in points}


def test_a_shard_is_later_by_its_number(tmp_path: Path) -> None:
    assert sent_of(spooled(tmp_path, s99999={1: 1}, s100000={1: 2})) == {1: "2"}


def test_what_is_not_to_be_sent_keeps_an_older_content_out(tmp_path: Path) -> None:
    spools = spooled(tmp_path, s00001={1: 1, 2: 5, 3: 1}, s00002={1: 2, 2: 5})
    spools.sent = {"00001"}
    assert sent_of(spools) == {2: "5", 3: "1"}
    plan = planned(spools)
    assert (plan.total, plan.left, plan.shards) == (2, {"contradicted": 1}, {"00001"})


def test_a_value_in_two_shards_is_counted_once_and_its_copy_apart(tmp_path: Path) -> None:
    plan = planned(spooled(tmp_path, s00001={1: 1, 2: 1}, s00002={1: 1}))
    assert (plan.total, plan.copies.total(), plan.left) == (2, 1, {})


def test_a_plan_with_other_points_is_not_the_one_that_was_shown(tmp_path: Path) -> None:
    plans = []
    for number, values in enumerate([{1: 1, 2: 1}, {1: 1, 3: 1}, {1: 1, 2: 2}]):
        (tmp_path / str(number)).mkdir()
        plans.append(planned(spooled(tmp_path / str(number), s00001=values)))
    require_nothing_new(plans[0], plans[0])
    require_nothing_new(plans[0], Plan())
    for other in plans[1:]:
        with pytest.raises(ShardtoolError, match="other values are lost now"):
            require_nothing_new(plans[0], other)


def test_what_another_server_may_have_and_cant_be_asked_for_is_not_sent(tmp_path: Path) -> None:
    spools, spool = Spools(tmp_path), Spool("00001")
    for time in (1, 2):
        is_unanswered = time == 2
        value = Lost(CPU, suffix(time), field_value(1), None, "", CPU, is_unanswered=is_unanswered)
        spool.add(value)
    spool.column_ends("not-migrated")
    for piece in spool.chunks():
        spools.add("00001", piece)
    assert sent_of(spools) == {1: "1"}
    assert planned(spools).left == {"unanswered": 1}


# -- the spool --

LOST = st.lists(
    st.tuples(
        st.sampled_from(["", "name", "future"]),
        st.binary(min_size=16, max_size=16),
        st.binary(max_size=9) | st.just(b"x" * 200_000),
        st.none() | st.binary(max_size=3),
    ),
    max_size=5,
)
COLUMNS = st.lists(st.tuples(st.text(max_size=4), LOST.filter(bool)), max_size=4)


@given(COLUMNS, st.sampled_from(["unknown", "not-migrated"]))
def test_a_spool_gives_back_what_was_put_in(
    columns: list[tuple[str, list[Any]]], rest: str
) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        spool = Spool("00001")
        for number, (series, lost) in enumerate(columns):
            for cause, key, stored, other in lost:
                name = Name("d\udcff", series, str(number))
                spool.add(Lost(name, key, stored, other, cause, name))
            spool.column_ends(rest)
        path = Path(scratch, "spool")
        path.write_bytes(b"".join(spool.chunks()))
        found = list(columns_in(path))
        assert [(one.name.series, one.name.column) for one in found] == [
            (series, str(number)) for number, (series, _) in enumerate(columns)
        ]
        readers = [values_of(path, column) for column in found]
        for reader, (_, lost) in zip(readers, columns, strict=True):
            assert list(reader) == [
                Value(key, stored, cause or rest, other is not None)
                for cause, key, stored, other in lost
            ]


def test_more_shards_than_a_process_has_files_are_read_side_by_side(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    spools = Spools(tmp_path)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    try:
        for number in range(300):
            spool = Spool(f"{number:05d}")
            spool.add(Lost(CPU, suffix(number), field_value(1), None, "name", CPU))
            spool.column_ends("unknown")
            for piece in spool.chunks():
                spools.add(f"{number:05d}", piece)
        (series,) = spools.series()
        found = [one for one in spools.points(series, ()) if isinstance(one, Point)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert [point.time_us for point in found] == list(range(300))
