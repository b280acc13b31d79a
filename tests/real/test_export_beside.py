"""Shards of one time in one file: each value is in it once, as itself, or it is listed."""

from __future__ import annotations

import json
import math
import resource
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from line_protocol_parser import parse_line

from fixtures import Node, Row, read
from shardtool.export import beside, work
from shardtool.export.beside import Other
from shardtool.export.columns import NOTHING_KNOWN, Column, Selection
from shardtool.export.forms import Form
from shardtool.export.line import Sequences, Style
from shardtool.export.run import Report, export
from shardtool.export.windows import Choice
from shardtool.export.work import Job, Wanted
from shardtool.influxdb.engines import EngineError, Pair
from shardtool.influxdb.keys import VALUE_KEY

Point = tuple[int, str, int, int]  # shard, column, time, sequence

POINTS = st.dictionaries(
    st.tuples(st.integers(1, 3), st.sampled_from("ab"), st.integers(1, 4), st.integers(1, 3)),
    st.sampled_from([1.5, 2.5]),
    max_size=30,
)


def written(
    points: dict[Point, float],
    directory: Path,
    form: Form,
    sequence: Sequences = "auto",
    choosing: Callable[[Job], AbstractContextManager[Choice]] | None = None,
) -> tuple[Report, str, list[dict[str, Any]]]:
    """Export points that are spread over shards; return the file and the list."""
    jobs = jobs_of(points, Node(directory / "data"))
    return exported(jobs, directory / f"x.{form}", form, sequence, choosing)


def jobs_of(points: dict[Point, float], node: Node) -> list[Job]:
    """Make shards of a node that have points."""
    jobs = []
    for number in sorted({shard for shard, *_ in points}):
        rows = [
            Row("test", "cpu", column, time, sequence_number, value)
            for (shard, column, time, sequence_number), value in points.items()
            if shard == number
        ]
        node.old_shard(number, rows=rows)
        jobs.append(Job(node.shard_db / f"{number:05d}", "leveldb", is_new=False, size=1000))
    return jobs


def exported(
    jobs: Sequence[Job],
    out: Path,
    form: Form,
    sequence: Sequences = "auto",
    choosing: Callable[[Job], AbstractContextManager[Choice]] | None = None,
) -> tuple[Report, str, list[dict[str, Any]]]:
    """Export shards; return the file and the list."""
    wanted = Wanted(Selection(), form, Style(sequence), NOTHING_KNOWN, choosing)
    report = export(jobs, wanted, str(out), force=False, progress=lambda *told: None)
    left = Path(f"{out}.left")
    rest = [json.loads(line) for line in left.read_text().splitlines()] if left.exists() else []
    return report, out.read_text(), rest


def right(points: dict[Point, float]) -> dict[tuple[str, int, int], float]:
    """Return the values, of those that contradict each other the last shard's."""
    ordered = sorted(points.items())
    return {(column, time, number): value for (_, column, time, number), value in ordered}


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(points=POINTS, sequence=st.sampled_from(["auto", "tag", "none", "field"]))
@example({(1, "a", 1, 1): 1.5, (2, "a", 1, 2): 2.5}, "auto")
@example({(1, "a", 1, 2): 1.5, (2, "a", 1, 1): 2.5}, "none")
@example({(1, "a", 1, 1): 1.5, (2, "a", 1, 1): 2.5, (3, "a", 1, 1): 1.5}, "auto")
def test_each_value_is_in_the_file_once_under_its_own_identity_or_listed(
    points: dict[Point, float], sequence: Sequences
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        report, text, left = written(points, Path(directory), "line", sequence)
    found: dict[tuple[Any, ...], float] = {}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        one = parse_line(line)
        tags = tuple(sorted(one["tags"].items()))
        for name, value in one["fields"].items():
            if name != "sequence_number":
                key = name, one["time"] // 1000, tags
                assert key not in found
                found[key] = value
    assert len(found) == report.values
    told = Counter((one["column"], one["time_us"], one["value"]) for one in left)
    arrived = Counter((name, time, value) for (name, time, _), value in found.items())
    # Of a value that is in several shards one is enough.
    expected = Counter((c, t, v) for (c, t, _), v in right(points).items())
    listed = Counter(
        (one["column"], one["time_us"], one["value"]) for one in left if one["why"] == "same-time"
    )
    assert {one["why"] for one in left} <= {"contradicted", "same-time"}
    assert not arrived - expected
    assert not expected - arrived - listed
    if sequence in ("auto", "tag"):
        assert arrived == expected
        assert not listed
    losers = sum(
        value != right(points)[column, time, number]
        for (_, column, time, number), value in points.items()
    )
    assert sum(one["why"] == "contradicted" for one in left) == losers
    assert len(points) == report.values + sum(told.values()) + report.twice


@pytest.mark.slow
@settings(max_examples=10, deadline=None)
@given(points=POINTS)
def test_json_has_each_identity_once(points: dict[Point, float]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        report, text, left = written(points, Path(directory), "json")
    found = {}
    for line in text.splitlines():
        (one,) = json.loads(line)
        for time, number, *values in one["points"]:
            for column, value in zip(one["columns"][2:], values, strict=True):
                assert (column, time, number) not in found
                found[column, time, number] = value
    assert found == right(points)
    assert len(points) == report.values + len(left) + report.twice


def test_a_shard_that_can_not_be_read_beside_another_ends_none_but_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = {(shard, "a", time, shard): 1.5 for shard in (1, 2, 3) for time in range(50)}
    opened = work._opened

    def broken(job: Job, *words: Any) -> Any:
        if job.name == "00002":
            raise EngineError("broken")
        return opened(job, *words)

    monkeypatch.setattr(work, "_opened", broken)
    report, text, _ = written(points, tmp_path, "line")
    assert [(o.word, o.values) for o in report.outcomes] == [
        ("", 50),
        ("engine-unreadable", 0),
        ("", 50),
    ]
    assert text.count("sequence_number=") == 100


def test_few_points_among_very_many_are_found_without_reading_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = {(1, "a", 10_000 * n, 1): 1.5 for n in range(1, 4)}
    points |= {(2, "a", n, 2): 2.5 for n in range(40_000)}
    report, text, left = written(points, tmp_path, "line")
    assert (report.values, left) == (40_003, [])
    assert text.count("sequence_number=") == 6


class Large:
    """Chooses points whose sequence number is not below 100."""

    def has(self, column: Column) -> bool:
        return True

    def of(self, column: Column, pairs: Sequence[Pair]) -> Sequence[Pair]:
        return self.among(pairs)

    def among(self, pairs: Sequence[Pair]) -> Sequence[Pair]:
        return [pair for pair in pairs if pair[0][-8:] >= (100).to_bytes(8, "big")]


def test_many_points_of_one_time_of_which_none_is_wanted_are_no_end(tmp_path: Path) -> None:
    points = {(1, "a", time, 100): 1.5 for time in (5, 6)}
    points |= {(2, "a", 5, number): 2.5 for number in range(1, 7)}
    points |= {(2, "a", 6, 101): 2.5}
    report, text, left = written(points, tmp_path, "line", choosing=lambda _: nullcontext(Large()))
    assert (report.values, left) == (3, [])
    assert text.count("sequence_number=") == 2


def test_keys_of_another_length_at_a_wanted_time_end_only_their_own_shard(tmp_path: Path) -> None:
    points = {(shard, "a", 5, shard): 1.5 for shard in (1, 2)}
    node = Node(tmp_path / "data")
    jobs = jobs_of(points, node)
    (key, value), *_ = [pair for pair in read.values(jobs[1].path) if len(pair[0]) == VALUE_KEY]
    node.old[2].store.write([(key[:16] + bytes([0] * 8 + [n]), value) for n in range(6)])
    report, *_ = exported(jobs, tmp_path / "x.line", "line")
    assert [(o.word, o.values) for o in report.outcomes] == [("", 1), ("engine-unreadable", 0)]


@pytest.mark.parametrize(("failures", "word"), [(1, ""), (100, "not-compared")])
def test_a_neighbour_that_fails_is_opened_again_or_told(
    failures: int, word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    near = Other._near
    left = [failures]

    def failing(other: Other, *words: Any) -> Any:
        if other.is_later and left[0]:
            left[0] -= 1
            raise EngineError("a table is not there")
        return near(other, *words)

    monkeypatch.setattr(Other, "_near", failing)
    points = {(shard, "a", time, shard): 1.5 for shard in (1, 2) for time in range(10)}
    report, text, _ = written(points, tmp_path, "line")
    assert [(o.word, o.values) for o in report.outcomes] == [(word, 10), ("", 10)]
    assert ("a table is not there" in report.outcomes[0].detail) == bool(word)
    assert report.is_whole == (not word)
    assert text.count("sequence_number=") == (10 if word else 20)


def test_shards_without_a_common_series_or_a_common_time_are_not_opened_beside_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unexpected(*words: Any) -> Any:
        raise EngineError("opened")

    monkeypatch.setattr(work, "_other", unexpected)
    node = Node(tmp_path / "data")
    jobs = []
    for number, series, times in ((1, "a", (1, 9)), (2, "b", (1, 9)), (3, "a", (4, 5))):
        rows = [Row("test", series, "v", time, number, 1.5) for time in times]
        node.old_shard(number, rows=rows)
        jobs.append(Job(node.shard_db / f"{number:05d}", "leveldb", is_new=False, size=1000))
    report, *_ = exported(jobs[:2], tmp_path / "x.line", "line")
    assert [outcome.word for outcome in report.outcomes] == ["", ""]
    report, *_ = exported(jobs, tmp_path / "y.line", "line")
    assert [outcome.word for outcome in report.outcomes] == ["not-compared", "", "not-compared"]


@pytest.mark.parametrize("room", [0, 1, 256])
def test_of_very_many_shards_few_are_open(
    room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = work._other
    now = [0]

    @contextmanager
    def counted(*words: Any) -> Iterator[Other]:
        now[0] += 1
        if now[0] > max(room, 1) + 1:
            raise EngineError("too many")
        with opened(*words) as other:
            yield other
        now[0] -= 1

    monkeypatch.setattr(work, "_other", counted)
    monkeypatch.setattr(beside, "most_open", lambda: room)
    points = {(shard, "a", time, shard): 1.5 for shard in (1, 2, 3, 4) for time in range(10)}
    report, text, _ = written(points, tmp_path, "line")
    assert [(o.word, o.values) for o in report.outcomes] == [("", 10)] * 4
    assert text.count("sequence_number=") == 40


@pytest.mark.parametrize(
    ("limit", "most"), [(100, 0), (1024, 10), (1 << 20, 256), (resource.RLIM_INFINITY, 256)]
)
def test_how_many_are_open_goes_by_how_many_files_may_be(
    limit: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    assert beside.most_open() == most


@pytest.mark.parametrize("sequence", ["none", "field"])
@pytest.mark.parametrize("shards", [(1, 2), (2, 1)])
def test_a_point_that_can_not_go_out_is_in_no_way_of_another_shards(
    sequence: Sequences, shards: tuple[int, int], tmp_path: Path
) -> None:
    points = {(shards[0], "a", 5, 1): math.nan, (shards[1], "a", 5, 2): 2.5}
    report, text, left = written(points, tmp_path, "line", sequence)
    assert report.values == 1
    assert "a=2.5" in text
    assert [one["why"] for one in left] == ["number"]
