"""Read one shard and write its values: what a child process does for its parent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

from shardtool.export.columns import (
    Column,
    Namer,
    Selection,
    columns_of,
    new_namer,
    old_namer,
)
from shardtool.export.fieldtypes import NOTHING_WRITTEN, FieldTypes
from shardtool.export.json08 import Json08
from shardtool.export.left import Left
from shardtool.export.line import Line, Style
from shardtool.export.parquet import Parquet
from shardtool.export.windows import Choice, Place, Window, place_of, windows
from shardtool.influxdb.catalogue import Catalogue
from shardtool.influxdb.engines import EngineBusyError, EngineError, Reader, open_shard
from shardtool.proof.children import Tell
from shardtool.proof.columns import Name
from shardtool.proof.state import state_of

Form: TypeAlias = Literal["line", "json", "parquet"]

_ATTEMPTS = 3  # without a step forward, where files vanish under the reader
_CHUNK = 1 << 18  # bytes that the parent is sent at a time


@dataclass(frozen=True)
class Job:
    """A shard to read.

    Args:
        path: its directory.
        engine: what it is read with.
        is_new: it is one of 0.8's.
        size: bytes, as progress counts them.
    """

    path: Path
    engine: str
    is_new: bool
    size: int

    @property
    def name(self) -> str:
        """The shard's number, as its directory is called."""
        return self.path.name


@dataclass(frozen=True)
class Wanted:
    """What is exported, and how.

    Args:
        selection: which values.
        form: the format.
        style: of line protocol.
        catalogue: what raft knows.
        choosing: opens what chooses among a shard's values, in the child that reads it; None
            takes all.
    """

    selection: Selection
    form: Form
    style: Style
    catalogue: Catalogue
    choosing: Callable[[Job], AbstractContextManager[Choice]] | None = None


@dataclass
class Outcome:
    """How the reading of one shard ended.

    Args:
        job: the shard.
        values: how many went out.
        points: how many points they are of.
        left: how many could not go out, by a word of left.WHY.
        kinds: of each column that holds values of other types than the file has of it, in line
            protocol: letters of fieldtypes.type_of, that of the file first.
        word: why it was not read to its end: 'engine-unreadable', 'changing' or 'in-use'.
        detail: what was met, in words.
    """

    job: Job
    values: int = 0
    points: int = 0
    left: Counter[str] = field(default_factory=Counter)
    kinds: dict[Name, str] = field(default_factory=dict)
    word: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Chunk:
    """What a child has for its parent.

    Args:
        out: for the file.
        left: lines of what could not go out.
        values: how many have gone out so far.
        points: how many points they are of.
        counts: how many could not, so far, by a word of left.WHY.
        part: how much of the shard is done with, from 0 to 1.
        types: the types of fields that begin with what is in `out`; see FieldTypes.news.
    """

    out: bytes
    left: bytes
    values: int
    points: int
    counts: Counter[str]
    part: float
    types: dict[bytes, str] = field(default_factory=dict)


class ChangedError(EngineError):
    """A shard is not what it was when it was chosen what to read of it."""


class Writer(Protocol):
    """A form that values are written in."""

    def written(self, window: Window) -> tuple[bytes, int, int]:
        """Return a window as bytes, and how many points and values are in them.

        What it keeps for later comes with a later one, or at the end.
        """

    def rest(self) -> tuple[bytes, int, int]:
        """Return what `written` kept for later, as it does."""


def databases_in(job: Job, wanted: Wanted, scratch: Path) -> frozenset[str]:
    """Return the databases that a shard has wanted columns of; none where it can't be read."""
    try:
        with ExitStack() as stack:
            choice = _choice(job, wanted, stack)
            reader = stack.enter_context(_opened(job, scratch))
            columns = columns_of(reader, _namer(job, reader, wanted), wanted.selection)
            if choice is not None:
                columns = [column for column in columns if choice.has(column)]
    except EngineError:
        return frozenset()
    return frozenset(column.name.database for column in columns if column.is_named)


def export_shard(
    job: Job,
    wanted: Wanted,
    scratch: Path,
    tell: Tell,
    types: Mapping[bytes, str] = NOTHING_WRITTEN,
) -> Outcome:
    """Read a shard, tell the parent its values as Chunks, and return how it ended.

    Where files vanish under the reader, as a running server's do, it goes on where it was.

    Args:
        job: the shard.
        wanted: what to write.
        scratch: a directory for links.
        tell: takes Chunks.
        types: of the fields that are in the file already, as Chunks told them.
    """
    work = _Work(job, wanted, tell, types)
    failure = ""
    for _ in range(_ATTEMPTS):
        before = ""
        try:
            before = state_of(job.path)
            with ExitStack() as stack:
                choice = _choice(job, wanted, stack)
                work.read(stack.enter_context(_opened(job, scratch)), choice)
            if job.is_new or state_of(job.path) == before:
                return work.ended()
            return work.ended("changing", f"{job.path}: another process wrote to it meanwhile")
        except EngineBusyError as error:
            return work.ended("in-use", str(error))
        except ChangedError as error:
            return work.ended("changing", str(error))
        except EngineError as error:
            if not _has_changed(job, before):
                return work.ended("engine-unreadable", str(error))
            failure = str(error)
    return work.ended("changing", failure)


class _Work:
    """A shard that is being written: what is on its way, and how far it was read."""

    def __init__(self, job: Job, wanted: Wanted, tell: Tell, types: Mapping[bytes, str]) -> None:
        self._wanted = wanted
        self._tell = tell
        self._left = Left(job.name)
        self._types = FieldTypes(types)
        self._writer = _writer(wanted, self._left, self._types)
        self._outcome = Outcome(job, left=self._left.counts, kinds=self._types.several)
        self._place: Place | None = None
        self._out: list[bytes] = []
        self._size = 0
        self._part = 0.0

    def read(self, reader: Reader, choice: Choice | None) -> None:
        """Read on from where the last attempt ended.

        Raises:
            EngineError: it can't be read any further.
        """
        outcome = self._outcome
        wanted = self._wanted
        columns = columns_of(reader, _namer(outcome.job, reader, wanted), wanted.selection)
        begun = _Begun(columns)
        for window in windows(reader, columns, wanted.selection, self._place, choice):
            written = self._writer.written(window)
            self._place = place_of(window)
            self._part = begun.part(window)
            del window  # it may be large
            self._send(written)

    def ended(self, word: str = "", detail: str = "") -> Outcome:
        """Send what is left to send, and return how it ended."""
        self._send(self._writer.rest(), at_once=True)
        self._outcome.word, self._outcome.detail = word, detail
        return self._outcome

    def _send(self, written: tuple[bytes, int, int], *, at_once: bool = False) -> None:
        out, points, values = written
        self._outcome.points += points
        self._outcome.values += values
        left = self._left.take()
        if out:
            self._out.append(out)
            self._size += len(out)
        if not (at_once or left or self._size >= _CHUNK):
            return
        # An Arrow stream is a message of its own; lines can be joined.
        parts = self._out if self._wanted.form == "parquet" else [b"".join(self._out)]
        told, types = self._outcome, self._types.news()
        for part in parts or [b""]:
            self._tell(Chunk(part, left, told.values, told.points, told.left, self._part, types))
            left, types = b"", {}
        self._out, self._size = [], 0


class _Begun:
    """How many of a shard's columns were read: what its progress is told by."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self._count = max(len(columns), 1)
        self._ends: dict[tuple[str, str], int] = {}
        for place, column in enumerate(columns):
            self._ends[column.name.database, column.name.series] = place + 1

    def part(self, window: Window) -> float:
        """Return how much of the shard is done with, from 0 to 1, when a window is."""
        return self._ends.get((window.database, window.series), 0) / self._count


def _writer(wanted: Wanted, left: Left, types: FieldTypes) -> Writer:
    if wanted.form == "line":
        return Line(left, wanted.style, types)
    return Json08(left) if wanted.form == "json" else Parquet(left)


def _choice(job: Job, wanted: Wanted, stack: ExitStack) -> Choice | None:
    return None if wanted.choosing is None else stack.enter_context(wanted.choosing(job))


def _opened(job: Job, scratch: Path) -> AbstractContextManager[Reader]:
    return open_shard(job.path, job.engine, scratch, is_at_rest=not job.is_new)


def _namer(job: Job, reader: Reader, wanted: Wanted) -> Namer:
    catalogue = wanted.catalogue
    return new_namer(catalogue) if job.is_new else old_namer(reader, catalogue)


def _has_changed(job: Job, before: str) -> bool:
    try:
        return state_of(job.path) != before
    except EngineError:
        return True
