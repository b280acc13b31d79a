"""Prove many old shards at once: a process a shard, as many at a time as there are cores."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from shardtool.influxdb.catalogue import Catalogue
from shardtool.influxdb.engines import EngineBusyError, EngineError
from shardtool.proof.children import Children, Died, Tell
from shardtool.proof.listing import Listing
from shardtool.proof.prove import Asker, Finding, Lost, Question, prove
from shardtool.proof.state import state_of
from shardtool.proof.storage import LocalShard, NewStorage

_ATTEMPTS = 3  # files that vanish under the reader: link again so many times in all
_TELL_SECONDS = 0.2


@dataclass(frozen=True)
class Outcome:
    """How the proof of one shard ended.

    Args:
        shard: its name.
        finding: what was found; None where it could not be read.
        word: the reason where it could not: 'engine-unreadable', 'changing' or 'in-use'.
        detail: what was met, in words.
    """

    shard: str
    finding: Finding | None
    word: str = ""
    detail: str = ""


class Lister(Protocol):
    """Takes a shard's lost values while it is proven, in a child; gives them back at the end."""

    def add(self, lost: Lost) -> None:
        """Take a value; one without a cause waits for the end of its column."""

    def column_ends(self, cause: str) -> None:
        """Learn why the column's values without a cause are lost."""

    def chunks(self) -> Iterator[bytes]:
        """Yield all of it in pieces."""


class Told(Protocol):
    """Who is told how a run goes."""

    def progress(self, shard: str, values: int, size: int) -> None:
        """So many values and bytes of a shard are done with, in all."""

    def listed(self, shard: str, piece: bytes) -> None:
        """A piece of a shard's list of lost values, where one was asked for; of a Listing these
        are whole lines. They come when the shard is done with, one after the other."""


@dataclass(frozen=True)
class Setting:
    """What all proofs of a run share.

    Args:
        catalogue: what the new storage knows.
        local: the new shards on this node's disk, by name.
        ask: opens a way to ask a running cluster; None where there is none.
    """

    catalogue: Catalogue
    local: Mapping[str, LocalShard]
    ask: Callable[[], contextlib.AbstractContextManager[Asker]] | None = None


@dataclass(frozen=True)
class Job:
    """An old shard to prove: its question but for the state, and its size in bytes."""

    question: Question
    size: int


def prove_all(
    jobs: Sequence[Job],
    setting: Setting,
    told: Told,
    lister: Callable[[str], Lister] = Listing,
) -> Generator[Outcome, None, None]:
    """Prove each of `jobs`, the largest first, and yield each outcome as it comes.

    Args:
        jobs: the old shards.
        setting: what they are compared with.
        told: told how it goes.
        lister: makes what takes the lost values of a shard, where they are listed: of its name.

    Raises:
        ShardtoolError: there is no room for links, or a server that is to be asked refuses.
    """

    def work(job: Job, scratch: Path, tell: Tell) -> Outcome:
        with contextlib.ExitStack() as stack:
            asker = stack.enter_context(setting.ask()) if setting.ask is not None else None
            return _attempts(job, setting, scratch, tell, asker, lister)

    def heard(job: Job, content: bytes | tuple[int, int]) -> None:
        if isinstance(content, bytes):
            told.listed(job.question.shard.name, content)
        else:
            told.progress(job.question.shard.name, *content)

    ordered = sorted(jobs, key=lambda job: -job.size)
    # Made once, here: what a child makes goes with it.
    _ = setting.catalogue.timelines, setting.catalogue.shards_by_name
    with contextlib.closing(Children(work, heard).answers(ordered)) as answers:
        for job, answer in answers:
            yield _died(job.question.shard, answer.how) if isinstance(answer, Died) else answer


def _died(shard: Path, how: str) -> Outcome:
    detail = f"{shard}: the process that read it died ({how}): a corrupt file?"
    return Outcome(shard.name, None, "engine-unreadable", detail)


class _Teller:
    """Watches a proof in the child and tells the parent, now and then."""

    def __init__(self, tell: Tell, listing: Lister) -> None:
        self._tell = tell
        self._listing = listing
        self._due = 0.0

    def progress(self, values: int, size: int) -> None:
        now = time.monotonic()
        if now >= self._due:
            self._due = now + _TELL_SECONDS
            self._tell((values, size))

    def lost(self, lost: Lost) -> None:
        self._listing.add(lost)

    def column_ends(self, cause: str) -> None:
        self._listing.column_ends(cause)


def _attempts(
    job: Job,
    setting: Setting,
    scratch: Path,
    tell: Tell,
    asker: Asker | None,
    lister: Callable[[str], Lister],
) -> Outcome:
    """Prove the shard, again where what was read has changed meanwhile."""
    shard = job.question.shard
    failure = EngineError(f"{shard}: it changes all the time: another process writes to it")
    for _ in range(_ATTEMPTS):
        listing = lister(shard.name)
        storage = NewStorage(setting.catalogue, setting.local, scratch)
        try:
            state = state_of(shard)
        except EngineError as error:
            return Outcome(shard.name, None, "engine-unreadable", str(error))
        question = replace(job.question, old_state=state)
        try:
            with storage:
                teller = _Teller(tell, listing)
                finding = prove(question, setting.catalogue, storage, scratch, teller, asker)
            if state_of(shard) == question.old_state:
                for piece in listing.chunks():
                    tell(piece)
                return Outcome(shard.name, finding)
        except EngineBusyError as error:
            return Outcome(shard.name, None, "in-use", str(error))
        except EngineError as error:
            if not _has_changed(question, storage, setting.local):
                return Outcome(shard.name, None, "engine-unreadable", str(error))
            failure = error
    return Outcome(shard.name, None, "changing", str(failure))


def _has_changed(question: Question, storage: NewStorage, local: Mapping[str, LocalShard]) -> bool:
    """Say whether anything that was being read is in another state than before."""
    try:
        return state_of(question.shard) != question.old_state or any(
            state_of(local[name].path) != state for name, state in storage.states.items()
        )
    except EngineError:
        return True
