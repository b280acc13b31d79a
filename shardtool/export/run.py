"""Export many shards into one file: a process reads and writes a shard, this one the file.

One shard after the other, in their order: the same shards make the same file, byte for byte, and
what compresses works while the next values are read. A shard that can't be read, or that kills its
reader, ends there and no other does: what was read of it is in the file, since each value stands
for itself, and the report says which shards are not complete.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias, TypeVar

from shardtool.errors import ShardtoolError, UsageError, reason_of
from shardtool.export.forms import Form
from shardtool.export.line import header
from shardtool.export.look import Look
from shardtool.export.parquet import Sink, arrow
from shardtool.export.target import Target, Written, is_stream, left_of, place_of, taken
from shardtool.export.work import (
    TORN,
    Chunk,
    Job,
    Neighbour,
    Outcome,
    Wanted,
    export_shard,
    look_at,
)
from shardtool.proof.children import Children, Died, Tell
from shardtool.proof.columns import Name
from shardtool.words import names

Answer = TypeVar("Answer")
Progress: TypeAlias = Callable[[Job, int, float], None]
"""Told now and then of a shard, its values that went out, and how much of it is done with, from 0
to 1."""


@dataclass
class Report:
    """What an export did.

    Args:
        outcomes: of the shards, in their order.
        files: what was written.
        database: the one that all of it is of; '' in Parquet, which names it with each value.
    """

    outcomes: list[Outcome] = field(default_factory=list)
    files: list[Written] = field(default_factory=list)
    database: str = ""

    @property
    def values(self) -> int:
        return sum(outcome.values for outcome in self.outcomes)

    @property
    def points(self) -> int:
        return sum(outcome.points for outcome in self.outcomes)

    @property
    def left(self) -> Counter[str]:
        """How many values could not go out, by a word of left.WHY."""
        return sum((outcome.left for outcome in self.outcomes), Counter[str]())

    @property
    def twice(self) -> int:
        """How many values two or more of the shards have: each went out once."""
        return sum(outcome.twice for outcome in self.outcomes)

    @property
    def mixed(self) -> dict[Name, str]:
        """Columns that hold values of several types, which a database of today does not take, with
        the letters of line protocol for these."""
        kinds: dict[Name, set[str]] = {}
        for outcome in self.outcomes:
            for name, found in outcome.kinds.items():
                kinds.setdefault(name, set()).update(found)
        return {name: "".join(sorted(found)) for name, found in kinds.items() if len(found) > 1}

    @property
    def guessed(self) -> list[Name]:
        """Columns that are in the file under the likeliest of several names: two series, or two
        databases, can claim them."""
        return list({name: None for outcome in self.outcomes for name in outcome.guessed})

    @property
    def is_whole(self) -> bool:
        """Every wanted value of every shard is in the file, and it is certain whose it is."""
        return not self.left and not any(one.word or one.guessed for one in self.outcomes)


def export(
    jobs: Sequence[Job],
    wanted: Wanted,
    name: str,
    *,
    force: bool,
    progress: Progress,
    left: str | None = None,
    first: Callable[[], Mapping[Path, Outcome]] | None = None,
) -> Report:
    """Write the values of shards into a file.

    Args:
        jobs: the shards, in the order in which they are to be written.
        wanted: which values, and how.
        name: the file; target.STDOUT for the standard output.
        force: replace files that are there.
        progress: told how it goes.
        left: the file for the list of what can't go out; None for the one beside `name`, or none
            where that is a stream.
        first: called when it is sure that the file can be written, for what takes long before a
            shard is read; returns how those ended that are not to be read at all, by path.

    Raises:
        UsageError: the file is there already; values of several databases are wanted in a format
            that has no word for them; a library is missing.
        BusyError: another shardtool is writing it.
        ShardtoolError: it can't be written, or there is no room for links.
    """
    if wanted.form == "parquet":
        arrow()
    report = Report()
    with contextlib.ExitStack() as stack:
        files = stack.enter_context(_Files(name, wanted.form, force=force, left=left))
        ended = first() if first is not None else {}
        looks = _looked([job for job in jobs if job.path not in ended], wanted)
        ended = {**ended, **_failed(jobs, looks)}
        _check_databases(looks, wanted)
        if wanted.form != "parquet":
            report.database = _one_database(looks, wanted)
            wanted = replace(wanted, database=report.database)
        if wanted.form == "line":
            files.begin(header(report.database))
        types: dict[bytes, str] = {}  # of the fields that are in the file
        for job in jobs:
            outcome = ended.get(job.path)
            if outcome is None:
                near = _neighbours(job, jobs, looks, report.outcomes)
                outcome = _exported(job, wanted, files, progress, types, near)
                _note_torn(outcome, looks[job.path])
            report.outcomes.append(outcome)
            progress(job, outcome.values, 1.0)
        report.files = files.complete()
    return report


def _exported(
    job: Job,
    wanted: Wanted,
    files: _Files,
    progress: Progress,
    types: dict[bytes, str],
    neighbours: Sequence[Neighbour],
) -> Outcome:
    """Have a child read a shard, and write what it tells."""
    so_far = Outcome(job)

    def heard(job: Job, chunk: Chunk) -> None:
        files.take(chunk)
        types.update(chunk.types)
        so_far.values, so_far.points, so_far.left = chunk.values, chunk.points, chunk.counts
        progress(job, chunk.values, chunk.part)

    def work(job: Job, scratch: Path, tell: Tell) -> Outcome:
        return export_shard(job, wanted, scratch, tell, types, neighbours)

    answer = _answer(Children(work, heard), job)
    if not isinstance(answer, Died):
        return answer
    so_far.word, so_far.detail = "engine-unreadable", _of_death(job, answer)
    return so_far


def _of_death(job: Job, end: Died) -> str:
    return f"{job.path}: the process that read it died ({end.how}): a corrupt file?"


def _note_torn(outcome: Outcome, look: Look) -> None:
    """Say of a shard that was read to its end that this may not be the end."""
    if look.torn and outcome.is_read:
        # One word has room; the other one is in its words.
        outcome.word = outcome.word or TORN
        outcome.detail = "; ".join([*filter(None, [outcome.detail]), *look.torn])


def _answer(children: Children[Job, Answer], job: Job) -> Answer | Died:
    with contextlib.closing(children.answers([job])) as answers:
        ((_, answer),) = answers
    return answer


def _looked(jobs: Sequence[Job], wanted: Wanted) -> dict[Path, Look]:
    """Return what shards have, by path: several are looked at at a time, and none is read."""

    def work(job: Job, scratch: Path, tell: Tell) -> Look:
        return look_at(job, wanted, scratch, times=len(jobs) > 1)

    found: dict[Path, Look] = {}
    with contextlib.closing(Children(work, _nothing).answers(jobs)) as answers:
        for job, answer in answers:
            if isinstance(answer, Died):
                found[job.path] = Look(word="engine-unreadable", detail=_of_death(job, answer))
            else:
                found[job.path] = answer
    return found


def _failed(jobs: Sequence[Job], looks: Mapping[Path, Look]) -> dict[Path, Outcome]:
    """Return how those shards ended that are not to be read: they could not be looked at."""
    return {
        job.path: Outcome(job, word=look.word, detail=look.detail)
        for job in jobs
        if (look := looks.get(job.path)) is not None and look.word
    }


def _neighbours(
    job: Job, jobs: Sequence[Job], looks: Mapping[Path, Look], done: Sequence[Outcome]
) -> list[Neighbour]:
    """Return the other shards with values of the same series and times as a shard, which comes
    after those that are done."""
    overlap = looks[job.path].overlaps()
    found = []
    for place, other in enumerate(jobs):
        look = looks.get(other.path)
        if place != len(done) and look is not None and overlap(look):
            is_later = place > len(done)
            is_whole = not is_later and done[place].is_read
            found.append(Neighbour(other, is_later, is_whole, look))
    return found


def _check_databases(looks: Mapping[Path, Look], wanted: Wanted) -> None:
    """Insist that databases that were named are somewhere.

    Raises:
        UsageError: neither a shard nor raft knows one of them.
    """
    if not looks or any(look.word for look in looks.values()):
        return
    known = wanted.catalogue.databases.union(*(look.named for look in looks.values()))
    unknown = wanted.selection.databases - known
    if unknown:
        raise UsageError(
            f"--database {names(sorted(unknown))}: expected a database that the shards or raft "
            f"know, found {names(sorted(known)) or 'none'}"
        )


def _one_database(looks: Mapping[Path, Look], wanted: Wanted) -> str:
    """Return the database that all wanted values are of; '' where there are no values.

    Raises:
        UsageError: there are several.
    """
    if len(wanted.selection.databases) == 1:
        return next(iter(wanted.selection.databases))
    found = frozenset[str]().union(*(look.databases for look in looks.values()))
    if len(found) > 1:
        raise UsageError(
            f"expected values of one database, found those of {len(found)}: "
            f"{names(sorted(found))}; name one with --database and run it once for each, into a "
            "file each: what reads such a file puts all of it into one database"
        )
    return next(iter(found), "")


def _nothing(job: Job, told: object) -> None:
    """Take what nobody says."""


class _Files:
    """The file that is written, and the list of what could not go there."""

    def __init__(self, name: str, form: Form, *, force: bool, left: str | None) -> None:
        self._force = force
        self._is_named = left is not None
        self._stale = None if is_stream(name) else left_of(name)
        self._list = left if left is not None else self._stale
        self._left: Target | None = None
        if self._list is not None and not self._is_named:
            _check_list(self._list, force=force)
        with contextlib.ExitStack() as stack:
            self._target = stack.enter_context(
                Target(name, force=force, compress=form != "parquet")
            )
            if self._is_named:  # whoever asked for it gets it, with nothing in it too
                self._left = stack.enter_context(self._new_list())
            self._sink: Sink | Target = self._target
            if form == "parquet":
                self._sink = Sink(self._target.file)
            self._stack = stack.pop_all()

    def __enter__(self) -> _Files:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def begin(self, content: bytes) -> None:
        """Write what comes first."""
        self._target.write(content)

    def take(self, chunk: Chunk) -> None:
        """Write what a child told."""
        if chunk.out:
            self._sink.write(chunk.out)
        if chunk.left and self._list is not None:
            if self._left is None:
                self._left = self._stack.enter_context(self._new_list())
            self._left.write(chunk.left)

    def _new_list(self) -> Target:
        assert self._list is not None
        # By its name it is ours to replace, wherever a link of that name leads.
        return Target(self._list, force=self._force, follows=self._is_named)

    def complete(self) -> list[Written]:
        """Give the files their names, when both are whole: the list first, so that no file
        stands without it."""
        if isinstance(self._sink, Sink):
            self._sink.close()
        self._target.finish()
        if self._left is None:
            written = [self._target.publish()]
        else:
            self._left.finish()
            left = self._left.publish()
            try:
                written = [self._target.publish(), left]
            except BaseException:
                if not self._target.is_named:
                    self._left.withdraw()
                raise
        self._remove_stale()
        return written

    def _remove_stale(self) -> None:
        """Remove the list of the file that was replaced, which would read as this one's."""
        if not self._force or self._stale is None:
            return
        if self._left is not None and self._left.place == place_of(self._stale, follows=False):
            return
        with contextlib.suppress(IsADirectoryError, FileNotFoundError):
            os.unlink(self._stale)


def _check_list(name: str, *, force: bool) -> None:
    """Insist that there can be a list of that name, before a shard is read for hours.

    Raises:
        UsageError: there is a file, or with `force` something that is none.
        ShardtoolError: there can't be one.
    """
    try:
        kind = os.lstat(name).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise ShardtoolError(f"{name}: can't be written: {reason_of(error)}") from None
    if not force:
        raise taken(name)
    if not (stat.S_ISREG(kind) or stat.S_ISLNK(kind)):
        raise UsageError(
            f"{name}: expected a file, or nothing, found something else; what can't go out is "
            "listed there: take another name"
        )
