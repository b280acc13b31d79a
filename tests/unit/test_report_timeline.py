"""Each old shard has a place on the timeline that is its own, in order, and in words too."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from shardtool.report.model import VERDICTS, OldShard, Range, Verdict
from shardtool.report.timeline import Timeline, timeline_of
from shardtool.report.view import view_of
from tests.report_world import node, report, shard


def of(*shards: OldShard) -> Timeline:
    """Return the timeline of a node."""
    made = report(node("a", shards))
    return timeline_of(made, view_of(made))


def at(number: int, day: str, verdict: Verdict = "proven", size: int = 1000) -> OldShard:
    """Return a shard whose values begin at a day."""
    times = Range(f"{day}T00:00:00Z", f"{day}T00:00:01Z")
    return shard(number, verdict, range=times, allocated_bytes=size)


def test_a_row_is_a_verdict_and_the_height_is_the_size() -> None:
    found = of(
        at(1, "2014-01-02", size=100), at(2, "2014-01-09", size=400), at(3, "2014-01-16", "marked")
    )
    assert [(row.verdict, len(row.marks)) for row in found.rows] == [("proven", 2), ("marked", 1)]
    small, large = found.rows[0].marks
    assert large.height == 2 * small.height  # the area of a disk looks like the square root
    assert small.left < large.left < found.rows[1].marks[0].left
    assert found.words == "3 old shards from 2014-01-02 to 2014-01-16: 2 proven, 1 marked"


def test_shards_of_one_day_stand_side_by_side() -> None:
    found = of(at(1, "2014-01-02"), at(2, "2014-01-02"), at(3, "2014-01-03"))
    first, second, third = (mark.left for mark in found.rows[0].marks)
    assert first < second < third


def test_a_long_time_without_shards_is_cut_out() -> None:
    weeks = [at(n, f"2014-01-{n * 7:02d}") for n in (1, 2, 3, 4)]
    far = of(at(9, "1970-01-01"), *weeks)
    assert len(far.breaks) == 1
    lefts = [mark.left for mark in far.rows[0].marks]
    assert lefts[0] < far.breaks[0] < lefts[1]
    assert lefts[1] - lefts[0] < 7 * (lefts[2] - lefts[1])
    assert of(*weeks).breaks == ()


def test_without_shards_there_are_no_rows() -> None:
    assert of().rows == ()
    assert of().ticks == ()


def test_a_shard_without_a_time_has_a_place_too_and_is_counted() -> None:
    found = of(shard(1, range=None), shard(2, range=None, last_write_at=None))
    assert found.by_write == 2
    assert len(found.rows[0].marks) == 2
    assert "last written at an unknown time" in found.rows[0].marks[0].words


DAYS = st.dates().map(str) | st.sampled_from(["0001-01-01", "9999-12-31", "\x00", "1-1-1", ""])
SHARDS = st.lists(st.tuples(DAYS, st.sampled_from(VERDICTS), st.integers(0, 1 << 62)), max_size=50)


@given(SHARDS)
def test_no_two_marks_of_a_row_lie_on_each_other(found: list[tuple[str, Verdict, int]]) -> None:
    line = of(*(at(n, day, verdict, size) for n, (day, verdict, size) in enumerate(found, 1)))
    assert sum(len(row.marks) for row in line.rows) == len(found)
    for row in line.rows:
        places = [mark.left * line.least_width / 100 for mark in row.marks]
        assert all(0 <= place <= line.least_width for place in places)
        assert all(b - a >= line.mark_width for a, b in pairwise(places))
        assert all(0 < mark.height <= 30 for mark in row.marks)
    ticks = [tick.left for tick in line.ticks]
    assert ticks == sorted(ticks)
    assert all(0 <= place <= 100 for place in (*ticks, *line.breaks))
