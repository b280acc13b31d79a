"""Read one shard and write its values: what a child process does for its parent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from shardtool.export.beside import Beside, Near, Other
from shardtool.export.columns import (
    Column,
    Namer,
    Selection,
    columns_of,
    new_namer,
    old_namer,
)
from shardtool.export.fieldtypes import NOTHING_WRITTEN, FieldTypes
from shardtool.export.forms import Form, writer_of
from shardtool.export.left import Left
from shardtool.export.line import Line, Style
from shardtool.export.look import Begun, Look, databases_of, series_of, times_of
from shardtool.export.windows import Choice, Place, place_of, windows
from shardtool.influxdb.catalogue import Catalogue
from shardtool.influxdb.engines import (
    EngineBusyError,
    EngineError,
    Reader,
    ReaderBothWays,
    open_shard,
)
from shardtool.proof.children import Tell
from shardtool.proof.columns import Name
from shardtool.proof.state import state_of
from shardtool.words import names

TORN = "torn-log"
"""An Outcome's word for a shard with a log that ends in the midst of a record."""
NOT_COMPARED = "not-compared"
"""An Outcome's word for a shard that is in the file, or listed, to its end, and that could not be
compared with another of the same times."""

_ATTEMPTS = 3  # without a step forward, where files vanish under the reader
_TIME_BYTES = 8
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
        database: the only one that may be in the file, where its form has one; others that come
            while it is written are told. None for any.
    """

    selection: Selection
    form: Form
    style: Style
    catalogue: Catalogue
    choosing: Callable[[Job], AbstractContextManager[Choice]] | None = None
    database: str | None = None


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
        word: why it was not read to its end: 'engine-unreadable', 'changing' or 'in-use'; or
            NOT_COMPARED.
        detail: what was met, in words.
        twice: how many went out with an earlier shard of the run.
        guessed: the columns of which it is not certain whose they are.
    """

    job: Job
    values: int = 0
    points: int = 0
    left: Counter[str] = field(default_factory=Counter)
    kinds: dict[Name, str] = field(default_factory=dict)
    word: str = ""
    detail: str = ""
    twice: int = 0
    guessed: dict[Name, None] = field(default_factory=dict)

    @property
    def is_read(self) -> bool:
        """All that it has is in the file, or listed, as far as anybody can see."""
        return self.word in ("", TORN, NOT_COMPARED)


@dataclass(frozen=True)
class Neighbour:
    """Another shard of the run, with values of the same times.

    Args:
        job: the shard.
        is_later: it is written after the one at hand.
        is_whole: all of it is in the file already, or listed.
        look: what it has.
    """

    job: Job
    is_later: bool
    is_whole: bool
    look: Look


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


def look_at(job: Job, wanted: Wanted, scratch: Path, *, times: bool) -> Look:
    """Return what a shard has.

    Args:
        job: the shard.
        wanted: which values.
        scratch: a directory for links.
        times: look for the first and the last of its times too.
    """
    looks: list[Look] = []
    word, detail = _in_attempts(job, lambda: looks.append(_look(job, wanted, scratch, times)))
    # Of one that was written to meanwhile its reading tells.
    return looks[0] if looks else Look(word=word, detail=detail)


def _look(job: Job, wanted: Wanted, scratch: Path, times: bool) -> Look:
    selection = wanted.selection
    torn: list[str] = []
    with ExitStack() as stack:
        choice = _choice(job, wanted, stack)
        reader = stack.enter_context(_opened(job, scratch, torn))
        every = columns_of(reader, _namer(job, reader, wanted), replace(selection, series=None))
        columns = [c for c in every if selection.takes(c) and (choice is None or choice.has(c))]
        found = times_of(reader, columns, selection) if times else None
        series = series_of(columns) if times else None
    return Look(databases_of(columns), databases_of(every), found, series, tuple(torn))


def export_shard(
    job: Job,
    wanted: Wanted,
    scratch: Path,
    tell: Tell,
    types: Mapping[bytes, str] = NOTHING_WRITTEN,
    neighbours: Sequence[Neighbour] = (),
) -> Outcome:
    """Read a shard, tell the parent its values as Chunks, and return how it ended.

    Where files vanish under the reader, as a running server's do, it goes on where it was.

    Args:
        job: the shard.
        wanted: what to write.
        scratch: a directory for links.
        tell: takes Chunks.
        types: of the fields that are in the file already, as Chunks told them.
        neighbours: the shards of the run with values of the same times, in its order.
    """
    with ExitStack() as stack:
        work = _Work(job, wanted, tell, types)

        def attempt() -> None:
            with ExitStack() as own:
                choice = _choice(job, wanted, own)
                work.read(own.enter_context(_opened(job, scratch)), choice)

        if neighbours:
            nears = [_near(one, wanted, scratch) for one in neighbours]
            stack.enter_context(closing(work.is_beside(nears)))
        return work.ended(*_in_attempts(job, attempt))


def _near(one: Neighbour, wanted: Wanted, scratch: Path) -> Near:
    return Near(one.job.name, one.look, lambda: _other(one, wanted, scratch))


@contextmanager
def _other(one: Neighbour, wanted: Wanted, scratch: Path) -> Iterator[Other]:
    """Open another shard of the run.

    Raises:
        EngineError: it can't be read.
    """
    with ExitStack() as own:
        choice = _choice(one.job, wanted, own)
        reader = own.enter_context(_opened(one.job, scratch))
        columns: dict[tuple[str, str], list[Column]] = {}
        for column in columns_of(reader, _namer(one.job, reader, wanted), wanted.selection):
            if column.is_named and (choice is None or choice.has(column)):
                series = column.name.database, column.name.series
                columns.setdefault(series, []).append(column)
        yield Other(reader, columns, choice, one.is_later, one.is_whole)


def _in_attempts(job: Job, attempt: Callable[[], None]) -> tuple[str, str]:
    """Read a shard, again where files vanish under the reader; return how it ended, as Outcome
    has it: a word and words."""
    failure = ""
    for _ in range(_ATTEMPTS):
        before = ""
        try:
            before = state_of(job.path)
            attempt()
            if job.is_new or state_of(job.path) == before:
                return "", ""
            return "changing", f"{job.path}: another process wrote to it meanwhile"
        except EngineBusyError as error:
            return "in-use", str(error)
        except ChangedError as error:
            return "changing", str(error)
        except EngineError as error:
            if not _has_changed(job, before):
                return "engine-unreadable", str(error)
            failure = str(error)
    return "changing", failure


class _Work:
    """A shard that is being written: what is on its way, and how far it was read."""

    def __init__(self, job: Job, wanted: Wanted, tell: Tell, types: Mapping[bytes, str]) -> None:
        self._wanted = wanted
        self._tell = tell
        self._left = Left(job.name)
        self._types = FieldTypes(types)
        self._writer = writer_of(wanted.form, wanted.style, self._left, self._types)
        self._outcome = Outcome(job, left=self._left.counts, kinds=self._types.several)
        self._beside: Beside | None = None
        self._strangers: frozenset[str] = frozenset()
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
        columns = self._of_the_database(columns, choice)
        begun = Begun(columns)
        for window in windows(reader, columns, wanted.selection, self._place, choice):
            settled = window if self._beside is None else self._beside.settled(window)
            written = (b"", 0, 0) if settled is None else self._writer.written(settled)
            del settled
            self._place = place_of(window)
            self._part = begun.part(window)
            guessed = (part.column.name for part in window.parts if not part.column.is_sure)
            outcome.guessed.update(dict.fromkeys(guessed))
            del window  # it may be large
            self._send(written)

    def is_beside(self, others: Sequence[Near]) -> Beside:
        """Take other shards of the run into account; return what has them open."""
        writer, one_a_time = self._writer, None
        if isinstance(writer, Line) and self._wanted.style.sequence in ("field", "none"):
            one_a_time = writer.can_say
        self._beside = Beside(others, self._left, one_a_time)
        return self._beside

    def _of_the_database(self, columns: list[Column], choice: Choice | None) -> list[Column]:
        """Return those of the only database that may be in the file; note what others there are."""
        only = self._wanted.database
        if only is None:
            return columns
        own = [c for c in columns if c.name.database == only or not c.is_named]
        others = [c for c in columns if c.name.database != only and c.is_named]
        self._strangers |= databases_of([c for c in others if choice is None or choice.has(c)])
        return own

    def ended(self, word: str = "", detail: str = "") -> Outcome:
        """Send what is left to send, and return how it ended."""
        if self._strangers and not word:
            word = "changing"
            detail = (
                f"{self._outcome.job.path}: values of another database came meanwhile, and are "
                f"not in the file: {names(sorted(self._strangers))}"
            )
        if self._beside is not None:
            self._outcome.twice = self._beside.twice
            if not word and (trouble := self._beside.trouble):
                word, detail = NOT_COMPARED, f"{self._outcome.job.path}: {trouble}"
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


def _choice(job: Job, wanted: Wanted, stack: ExitStack) -> Choice | None:
    return None if wanted.choosing is None else stack.enter_context(wanted.choosing(job))


def _opened(
    job: Job, scratch: Path, torn: list[str] | None = None
) -> AbstractContextManager[ReaderBothWays]:
    """Open a shard; `torn` takes words for each log that ends in the midst of a record."""

    def noted(log: str, offset: int) -> None:
        if torn is not None:
            torn.append(
                f"{job.path / log}: ends in the midst of a record, at offset {offset}: what was "
                "before it is in the file, and what was in it nobody can tell"
            )

    return open_shard(job.path, job.engine, scratch, is_at_rest=not job.is_new, torn=noted)


def _namer(job: Job, reader: Reader, wanted: Wanted) -> Namer:
    catalogue = wanted.catalogue
    return new_namer(catalogue) if job.is_new else old_namer(reader, catalogue)


def _has_changed(job: Job, before: str) -> bool:
    try:
        return state_of(job.path) != before
    except EngineError:
        return True
