"""A run over many shards: what its children say comes to whoever is told, and all of it."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from shardtool.influxdb.engines import EngineBusyError, EngineError
from shardtool.influxdb.messages import stored
from shardtool.influxdb.model import Catalogue, Dropped
from shardtool.proof import run
from shardtool.proof.columns import Name
from shardtool.proof.listing import Listing
from shardtool.proof.prove import Asker, Finding, Lost, Question, Watcher
from shardtool.proof.run import Job, Outcome, Setting, prove_all
from shardtool.proof.state import state_of
from shardtool.proof.storage import LocalShard, NewStorage

EMPTY = Catalogue(frozenset(), {}, {}, (), (), None, Dropped())
LOST = Lost(Name("test", "cpu", "idle"), bytes(16), stored(1), None, "")
FINDING = Finding(1, 1, 0, 0, (), False, False, "", "", "", {}, "", "")


class Told:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, int, int]] = []
        self.lines: list[tuple[str, bytes]] = []

    def progress(self, shard: str, values: int, size: int) -> None:
        self.steps.append((shard, values, size))

    def listed(self, shard: str, piece: bytes) -> None:
        self.lines.append((shard, piece))


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    found = [tmp_path / f"{number:05d}" for number in (1, 2, 3)]
    for shard in found:
        shard.mkdir()
    return found


def finds(
    monkeypatch: pytest.MonkeyPatch, *, asked: int = 0, error: Exception | None = None
) -> None:
    """Have each proof find a lost value, or `error`."""

    def prove(
        question: Question,
        catalogue: Catalogue,
        storage: NewStorage,
        scratch: Path,
        watcher: Watcher,
        asker: Asker | None,
    ) -> Finding:
        watcher.progress(7, 70)
        watcher.lost(LOST)
        watcher.column_ends("never-migrated")
        if error is not None:
            raise error
        assert (asker is not None) == bool(asked)
        return FINDING

    monkeypatch.setattr(run, "prove", prove)


def outcomes(shards: Sequence[Path], told: Told, setting: Setting | None = None) -> list[Outcome]:
    jobs = [Job(Question(shard, None, 0, ""), size) for size, shard in enumerate(shards)]
    return list(prove_all(jobs, setting or Setting(EMPTY, {}), told))


def test_all_that_is_lost_is_listed_and_how_far_it_is_told(
    shards: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    finds(monkeypatch)
    told = Told()
    assert outcomes(shards[:1], told) == [Outcome("00001", FINDING)]
    assert told.steps == [("00001", 7, 70)]
    ((name, line),) = told.lines
    assert name == "00001"
    assert b'"shard": "00001"' in line
    assert b'"cause": "never-migrated"' in line


def test_the_largest_comes_first(shards: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    finds(monkeypatch)
    found = [outcome.shard for outcome in outcomes(shards, Told())]
    assert found == ["00003", "00002", "00001"]


@pytest.mark.parametrize(
    ("error", "word"),
    [(EngineError("torn"), "engine-unreadable"), (EngineBusyError("held"), "in-use")],
)
def test_of_a_shard_that_could_not_be_read_nothing_is_listed(
    shards: list[Path], monkeypatch: pytest.MonkeyPatch, error: Exception, word: str
) -> None:
    finds(monkeypatch, error=error)
    told = Told()
    assert outcomes(shards[:1], told) == [Outcome("00001", None, word, str(error))]
    assert told.lines == []


def test_each_child_opens_its_own_way_to_ask(
    shards: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextlib.contextmanager
    def ask() -> Iterator[Any]:
        yield object()
        (tmp_path / f"closed {os.getpid()}").touch()

    finds(monkeypatch, asked=1)
    found = outcomes(shards, Told(), Setting(EMPTY, {}, ask))
    assert [outcome.finding for outcome in found] == [FINDING] * 3
    assert len(list(tmp_path.glob("closed *"))) == 3


# -- what a child tells --


def test_progress_is_told_now_and_then_and_what_is_lost_always() -> None:
    told: list[object] = []
    listing = Listing("00001")
    teller = run._Teller(told.append, listing)
    for number in range(100):
        teller.progress(number, 10 * number)
        teller.lost(LOST)
    teller.column_ends("never-migrated")
    assert told[0] == (0, 0)
    assert len(told) < 100
    assert b"".join(listing.chunks()).count(b'"never-migrated"') == 100


# -- whether anything changed meanwhile --


def test_what_is_gone_or_in_another_state_has_changed(shards: list[Path], tmp_path: Path) -> None:
    old, new, _ = shards
    local = {"00002": LocalShard(new, "leveldb")}
    storage = NewStorage(EMPTY, local, tmp_path)
    storage.states["00002"] = state_of(new)
    question = Question(old, None, 0, state_of(old))
    assert not run._has_changed(question, storage, local)
    for shard in (old, new):
        aside = shard.rename(shard.with_name("aside"))
        assert run._has_changed(question, storage, local)
        shutil.move(aside, shard)
        (shard / "file").touch()
        assert run._has_changed(question, storage, local)
        question = Question(old, None, 0, state_of(old))
        storage.states["00002"] = state_of(new)
