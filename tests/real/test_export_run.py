"""Export in the face of trouble: readers that die, files that vanish, a choice among values."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from fixtures import Node, Row
from fixtures.encode import Value
from shardtool.export import run, work
from shardtool.export.columns import NOTHING_KNOWN, Column, Selection, columns_of, old_namer
from shardtool.export.line import Line, Style
from shardtool.export.look import Look
from shardtool.export.run import Report, export
from shardtool.export.windows import Choice, Window, windows
from shardtool.export.work import Job, Wanted
from shardtool.influxdb.engines import EngineError, Pair, Reader, Stream

WANTED = Wanted(Selection(), "line", Style(), NOTHING_KNOWN)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    made = Node(tmp_path / "data")
    for number in (1, 2, 3):
        rows = [
            Row("test", series, "v", n, number, n) for series in ("a", "b") for n in range(3000)
        ]
        made.old_shard(number, rows=rows)
    return made


def jobs_of(node: Node) -> list[Job]:
    return [Job(path, "leveldb", False, 1000) for path in sorted(node.shard_db.iterdir())]


def exported(jobs: Sequence[Job], to: Path, wanted: Wanted = WANTED) -> Report:
    return export(jobs, wanted, str(to), force=False, progress=lambda *told: None)


@pytest.mark.usefixtures("no_orphans")
def test_a_reader_that_dies_ends_its_shard_and_no_other(
    node: Node, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = windows

    def dies(reader: Reader, *words: Any) -> Iterator[Any]:
        for number, window in enumerate(whole(reader, *words)):
            if reader.path.name == "00002" and number == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            yield window

    monkeypatch.setattr(work, "windows", dies)
    monkeypatch.setattr(work, "_CHUNK", 1)
    report = exported(jobs_of(node), tmp_path / "x.lp")
    assert [outcome.word for outcome in report.outcomes] == ["", "engine-unreadable", ""]
    assert "died (signal SIGKILL)" in report.outcomes[1].detail
    assert [outcome.values for outcome in report.outcomes] == [6000, 3000, 6000]
    lines = (tmp_path / "x.lp").read_text().splitlines()
    assert len(lines) == 2 + report.values
    assert not report.is_whole


class Vanishing:
    """A reader whose files are gone after some pairs, as a server's compaction does it."""

    def __init__(self, reader: Reader, allowed: int) -> None:
        self.path = reader.path
        self.tables = reader.tables
        self.value = reader.value
        self.allowed = allowed
        self._reader = reader

    def pairs(self, start: bytes) -> Stream:
        return _VanishingStream(self, self._reader.pairs(start))


class _VanishingStream:
    def __init__(self, reader: Vanishing, stream: Stream) -> None:
        self._reader = reader
        self._stream = stream

    def take(self, count: int) -> list[Pair]:
        found = self._stream.take(count)
        self._reader.allowed -= len(found)
        if self._reader.allowed < 0:
            raise EngineError(f"{self._reader.path}: no such file")
        return found


@pytest.mark.parametrize("allowed", [0, 1, 3500, 5000])
@pytest.mark.parametrize("changes", [True, False])
def test_where_files_vanish_it_goes_on_where_it_was(
    allowed: int, changes: bool, node: Node, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    opened = work._opened
    attempts = [0]

    @contextlib.contextmanager
    def vanishing(job: Job, scratch: Path, *others: Any) -> Iterator[Reader]:
        attempts[0] += 1
        with opened(job, scratch, *others) as reader:
            yield Vanishing(reader, allowed) if attempts[0] < 3 else reader

    states = iter(range(100))
    monkeypatch.setattr(work, "state_of", lambda path: str(next(states)) if changes else "same")
    selected = Wanted(Selection(frozenset({"test"})), "line", Style(), NOTHING_KNOWN)
    monkeypatch.setattr(work, "_opened", vanishing)
    (job, *_) = jobs_of(node)
    new = Job(job.path, job.engine, True, 1000)
    monkeypatch.setattr(work, "_namer", lambda _, reader, __: old_namer(reader, NOTHING_KNOWN))
    report = exported([new], tmp_path / "x.lp", selected)
    lines = (tmp_path / "x.lp").read_text().splitlines()[2:]
    assert len(lines) == len(set(lines)) == report.values
    (outcome,) = report.outcomes
    if changes:
        assert (report.values, outcome.word) == (6000, "")
    else:
        assert outcome.word == "engine-unreadable"


def test_a_choice_among_values_is_made_in_the_child_that_reads(node: Node, tmp_path: Path) -> None:
    parent = os.getpid()

    class OnlyA:
        def __init__(self, job: Job) -> None:
            self.chosen = job.name

        def has(self, column: Column) -> bool:
            return column.name.series == "a"

        def of(self, column: Column, pairs: Sequence[Pair]) -> Sequence[Pair]:
            assert (column.name.series, os.getppid()) == ("a", parent)
            return self.among(pairs)

        def among(self, pairs: Sequence[Pair]) -> Sequence[Pair]:
            return [pair for pair in pairs if self.chosen == "00002"]

    @contextlib.contextmanager
    def choosing(job: Job) -> Iterator[Choice]:
        yield OnlyA(job)

    wanted = Wanted(Selection(), "line", Style(), NOTHING_KNOWN, choosing)
    report = exported(jobs_of(node), tmp_path / "x.lp", wanted)
    assert [outcome.values for outcome in report.outcomes] == [0, 3000, 0]


def values_in(file: Path) -> list[str]:
    return [line.split(" ")[1] for line in file.read_text().splitlines()[2:]]


def test_a_field_keeps_its_type_from_shard_to_shard(tmp_path: Path) -> None:
    node = Node(tmp_path / "data")
    values: list[Value] = [1, 2.5, 3, "x"]
    for number, value in enumerate(values, 1):
        node.old_shard(number, rows=[Row("test", "a", "v", number, 1, value)])
    report = exported(jobs_of(node), tmp_path / "x.lp")
    assert values_in(tmp_path / "x.lp") == ["v=1i", "v=3i"]
    assert [dict(outcome.left) for outcome in report.outcomes] == [{}, {"type": 1}, {}, {"type": 1}]
    assert [name.column for name in report.mixed] == ["v"]


@pytest.mark.usefixtures("no_orphans")
def test_the_type_of_a_value_that_never_arrived_counts_for_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    node = Node(tmp_path / "data")
    values: list[Value] = [1, "x", "y"]
    for number, value in enumerate(values, 1):
        node.old_shard(number, rows=[Row("test", "a", "v", number, 1, value)])
    whole = Line.written

    def dies(writer: Line, window: Window) -> tuple[bytes, int, int]:
        found = whole(writer, window)
        if b"v=1i" in found[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    monkeypatch.setattr(Line, "written", dies)
    report = exported(jobs_of(node), tmp_path / "x.lp")
    assert [outcome.word for outcome in report.outcomes] == ["engine-unreadable", "", ""]
    assert values_in(tmp_path / "x.lp") == ['v="x"', 'v="y"']


def test_a_database_that_comes_meanwhile_is_told_and_not_written(
    node: Node, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    looked = run._looked

    def and_then(jobs: Sequence[Job], wanted: Wanted) -> dict[Path, Look]:
        found = looked(jobs, wanted)
        shutil.rmtree(node.shard_db / "00002")
        node.old_shard(2, rows=[Row(name, "s", "v", 1, 1, 1) for name in ("other", "test")])
        return found

    monkeypatch.setattr(run, "_looked", and_then)
    report = exported(jobs_of(node)[1:2], tmp_path / "x.lp")
    (outcome,) = report.outcomes
    assert (outcome.word, outcome.values) == ("changing", 1)
    assert "other" in outcome.detail
    assert "CONTEXT-DATABASE: test" in (tmp_path / "x.lp").read_text()


def test_what_is_looked_at_is_looked_at_again_where_files_vanish(
    node: Node, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    attempts = [0]

    def vanishing(*words: Any) -> Any:
        attempts[0] += 1
        if attempts[0] < 3:
            raise EngineError("no such file")
        return columns_of(*words)

    states = iter(range(100))
    monkeypatch.setattr(work, "state_of", lambda path: str(next(states)))
    monkeypatch.setattr(work, "columns_of", vanishing)
    look = work.look_at(jobs_of(node)[0], WANTED, tmp_path, times=True)
    assert look.databases == {"test"}
    assert (look.word, attempts) == ("", [3])
