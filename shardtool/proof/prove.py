"""Prove one old shard: is each of its values in the new storage, and if not, which and why."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeAlias

from shardtool.influxdb.catalogue import Catalogue
from shardtool.influxdb.engines import EngineError, Reader, open_shard
from shardtool.influxdb.keys import time_of
from shardtool.proof.basis import Basis
from shardtool.proof.causes import CAUSES, ColumnCauses, causes_of
from shardtool.proof.columns import Index, Known, Name, OldColumn, read_index
from shardtool.proof.compare import Digest, Piece, Suffix, Wanted, look, pieces, suffixes
from shardtool.proof.storage import Cover, NewStorage, Place

Covers: TypeAlias = dict[Place, Cover]


@dataclass(frozen=True, slots=True)
class Loss:
    """Values of one column that the new storage lacks for one cause.

    Args:
        name: the column.
        values: how many the column has in the old shard, found ones included.
        missing: how many are in no new shard.
        different: how many are there with another content.
        cause: one of causes.CAUSES.
        first_us: time of the earliest of them, us since the epoch.
        last_us: and of the latest.
    """

    name: Name
    values: int
    missing: int
    different: int
    cause: str
    first_us: int
    last_us: int


@dataclass(frozen=True)
class Finding:
    """What a proof of one old shard found.

    Args:
        values: how many the shard has; a value is one column of one point.
        missing: how many of them are in no new shard.
        different: how many are there with another content.
        asked: how many were found in a running server's answers, not on this disk.
        losses: per column and cause.
        elsewhere: values are missing that another server's shard may hold.
        unasked: missing ones lie in shards of a space that does not take their series.
        digest: SHA-256 over all values; see compare.Digest.
        losses_digest: SHA-256 over the keys of what is missing or different; the same losses
            have the same digest, in whatever state the new storage is.
        old_state: state of the old shard when it was read.
        new_states: states of the new shards that hold what was found, by name.
        ids: the ids in the new storage under which it was found, as ranges.
        basis: digest of what these ids and shards are in the catalogue; see basis.Basis.
    """

    values: int
    missing: int
    different: int
    asked: int
    losses: tuple[Loss, ...]
    elsewhere: bool
    unasked: bool
    digest: str
    losses_digest: str
    old_state: str
    new_states: dict[str, str]
    ids: str
    basis: str

    @property
    def lost(self) -> int:
        """Values that would be gone with the old shard: missing and different ones."""
        return self.missing + self.different


@dataclass(frozen=True, slots=True)
class Lost:
    """One value that the new storage lacks.

    Args:
        name: its column.
        suffix: its time and sequence number, as in its key.
        stored: the FieldValue in the old shard.
        found: what the new storage has under its key; None where there is nothing.
        cause: empty where that can be told only at the end of the column.
        owner: whose it is for sure; None where that can't be told.
        unwanted: 'dropped' or 'expired' where somebody wanted it gone, whatever the cause is.
        is_hidden: another content is under its key in a shard that 0.8 does not ask.
        is_unanswered: another server may have it, and it could not be asked.
        column_id: the 8 bytes that begin its key.
    """

    name: Name
    suffix: Suffix
    stored: bytes
    found: bytes | None
    cause: str
    owner: Name | None = None
    unwanted: str = ""
    is_hidden: bool = False
    is_unanswered: bool = False
    column_id: bytes = b""


class Watcher(Protocol):
    """Who is told how it goes."""

    def progress(self, values: int, size: int) -> None:
        """Told now and then: so many values and bytes of the shard are done with, in all."""

    def lost(self, lost: Lost) -> None:
        """Told of each lost value, in the order of the old shard."""

    def column_ends(self, cause: str) -> None:
        """Told at the end of a column why its values without a cause are lost."""


class Asker(Protocol):
    """A running cluster that can be asked for what other servers hold."""

    def strike_out(self, name: Name, wanted: Wanted) -> int:
        """Take out of `wanted` what the cluster has under that name; return how many that were.

        Raises:
            ShardtoolError: it can't be asked at all.
        """


@dataclass(frozen=True)
class Question:
    """What to prove.

    Args:
        shard: the old shard's directory.
        marked_us: when it was marked, us since the epoch; None if it was not.
        now_us: the present moment, us since the epoch.
        old_state: the shard's state before anything of it was read; see state.state_of.
        listing: the watcher is told of each lost value.
    """

    shard: Path
    marked_us: int | None
    now_us: int
    old_state: str
    listing: bool = False


def prove(
    question: Question,
    catalogue: Catalogue,
    storage: NewStorage,
    scratch: Path,
    watcher: Watcher,
    asker: Asker | None = None,
) -> Finding:
    """Read an old shard and look for each value in the new storage.

    Args:
        question: which shard.
        catalogue: what the new storage knows.
        storage: the new shards.
        scratch: a directory for links.
        watcher: told how it goes.
        asker: where to ask for what is on other servers.

    Raises:
        EngineError: the old shard or a new one can't be read.
    """
    with open_shard(question.shard, "leveldb", scratch, is_at_rest=True) as reader:
        index = read_index(reader, catalogue)
        work = _Work(question, catalogue, storage, index, watcher, asker)
        done = _sizes(reader)
        for piece in pieces(reader, lambda key: watcher.progress(work.values, done(key))):
            work.add(piece)
        return work.finding()


def _sizes(reader: Reader) -> Callable[[bytes], int]:
    """Return how many bytes of the shard's tables are done with when a key has been read."""
    tables = reader.tables()
    done = [0]

    def until(key: bytes) -> int:
        while tables and tables[0][0] <= key:
            done[0] += tables.pop(0)[1]
        return done[0]

    return until


@dataclass
class _Tally:
    missing: int = 0
    different: int = 0
    first_us: int = 1 << 63
    last_us: int = -(1 << 63)

    def add(self, missing: int, different: int, first_us: int, last_us: int) -> None:
        self.missing += missing
        self.different += different
        self.first_us = min(self.first_us, first_us)
        self.last_us = max(self.last_us, last_us)


@dataclass
class _Column:
    """The column that is being read."""

    id: bytes
    old: OldColumn
    known: tuple[tuple[Known, Place], ...]
    places: tuple[Place, ...]
    causes: ColumnCauses | None = None
    values: int = 0
    lost: int = 0
    tallies: dict[str, _Tally] = field(default_factory=dict)
    favourite: str = ""  # the new shard that had the last piece
    used: set[Known] = field(default_factory=set)  # names under which anything was found


class _Work:
    """The running state of one proof."""

    def __init__(
        self,
        question: Question,
        catalogue: Catalogue,
        storage: NewStorage,
        index: Index,
        watcher: Watcher,
        asker: Asker | None,
    ) -> None:
        self._question = question
        self._catalogue = catalogue
        self._storage = storage
        self._index = index
        self._watcher = watcher
        self._asker = asker
        self._column: _Column | None = None
        self._losses: list[Loss] = []
        self._digest = Digest()
        self._missing_digest = hashlib.sha256()
        self._different_digest = hashlib.sha256()
        self._used: set[str] = set()
        self._basis = Basis(catalogue)
        self._asked = 0
        self._elsewhere = False
        self._unasked = False
        self.values = 0

    def add(self, piece: Piece) -> None:
        """Look for a piece's values."""
        column = self._column
        if column is None or column.id != piece.column:
            self._end_column()
            column = self._column = self._begin(piece.column)
        self._digest.add(piece)
        self.values += len(piece.keys)
        column.values += len(piece.keys)
        for part, covers in self._refined(piece, column.places):
            wanted = self._look(part, covers, column)
            if wanted is not None:
                covered = any(cover.is_any for cover in covers.values())
                self._count(part, wanted, column, covered)

    def _begin(self, column_id: bytes) -> _Column:
        old = self._index.column(column_id)
        known = tuple((one, self._storage.place_of(one.name)) for one in old.known)
        places = tuple(dict.fromkeys(place for _, place in known))
        return _Column(column_id, old, known, places or (self._storage.place_of(old.name),))

    def _causes(self, column: _Column) -> ColumnCauses:
        """Return what can be said of a column's losses; most columns have none."""
        if column.causes is None:
            column.causes = causes_of(
                column.old,
                self._index,
                self._catalogue,
                marked_us=self._question.marked_us,
                now_us=self._question.now_us,
            )
        return column.causes

    def _refined(self, piece: Piece, places: Sequence[Place]) -> Iterator[tuple[Piece, Covers]]:
        """Cut a piece so that each part lies within one cover of each place."""
        if not places:
            yield piece, {}
            return
        for part, cover in self._storage.parts(places[0], piece):
            for smaller, covers in self._refined(part, places[1:]):
                yield smaller, {places[0]: cover, **covers}

    def _look(self, part: Piece, covers: Covers, column: _Column) -> Wanted | None:
        wanted: Wanted | None = None
        for known, place in column.known:
            shards = covers[place].shards
            if column.favourite in shards[1:]:
                shards = (column.favourite, *(s for s in shards if s != column.favourite))
            # One after the other: opening one may close another.
            cursors = map(self._storage.cursor, shards)
            wanted, helpful = look(part, known.id, cursors, wanted)
            if helpful and known not in column.used:
                column.used.add(known)
                self._basis.add_column(int.from_bytes(known.id), known.name)
            for cursor in helpful:
                column.favourite = cursor.shard
                self._used.add(cursor.shard)
            if wanted is None:
                return None
        if wanted is None:  # no name that the new storage knows
            wanted = Wanted(dict(zip(suffixes(part.keys), part.values, strict=True)), {})
        if any(cover.elsewhere for cover in covers.values()):
            self._ask(wanted, covers, column)
        # Of losses that nobody lists it is enough to know that there is one such.
        if any(cover.unasked for cover in covers.values()) and (
            self._question.listing or not self._unasked
        ):
            self._look_behind(part, wanted, covers, column)
        return wanted if wanted.missing else None

    def _ask(self, wanted: Wanted, covers: Covers, column: _Column) -> None:
        for known, place in column.known:
            if self._asker is not None and covers[place].elsewhere:
                self._asked += self._asker.strike_out(known.name, wanted)
        self._elsewhere |= bool(wanted.missing)

    def _look_behind(self, part: Piece, wanted: Wanted, covers: Covers, column: _Column) -> None:
        """Look for what is not found where 0.8 does not look for it."""
        rest = Wanted(dict(wanted.missing), {})
        for known, place in column.known:
            cursors = map(self._storage.cursor, covers[place].unasked)
            # An explanation and no more: what can't be read there is in nobody's way.
            with contextlib.suppress(EngineError):
                if rest.missing and look(part, known.id, cursors, rest)[1]:
                    self._unasked = True
        wanted.hidden.update(rest.different)

    def _count(self, part: Piece, wanted: Wanted, column: _Column, covered: bool) -> None:
        """Count what of a part is lost, by cause."""
        column.lost += len(wanted.missing)
        self._missing_digest.update(b"".join([column.id + s for s in wanted.missing]))
        for suffix, found in sorted(wanted.different.items()):
            self._different_digest.update(column.id + suffix + len(found).to_bytes(4) + found)
        lost = list(wanted.missing)
        first, last = time_of(lost[0]), time_of(lost[-1])
        causes = self._causes(column)
        cause = causes.cause(first, covered=covered)
        if cause == causes.cause(last, covered=covered):
            # Each cause that depends on time holds up to a moment or from one on: so it is the
            # same for all between.
            runs = [(cause, lost)]
        else:
            runs = [(causes.cause(time_of(s), covered=covered), [s]) for s in lost]
        for cause, run in runs:
            different = sum(s in wanted.different for s in run) if wanted.different else 0
            tally = column.tallies.setdefault(cause, _Tally())
            tally.add(len(run) - different, different, time_of(run[0]), time_of(run[-1]))
            if self._question.listing:
                for suffix in run:
                    self._watcher.lost(
                        Lost(
                            name=column.old.name,
                            suffix=suffix,
                            stored=wanted.missing[suffix],
                            found=wanted.different.get(suffix),
                            cause=cause,
                            owner=column.old.owner,
                            unwanted=causes.unwanted(time_of(suffix)),
                            is_hidden=suffix in wanted.hidden,
                            is_unanswered=suffix in wanted.unanswered,
                            column_id=column.id,
                        )
                    )

    def _end_column(self) -> None:
        column = self._column
        if column is None or not column.tallies:
            return
        nothing_came = column.lost == column.values and not any(
            tally.different for tally in column.tallies.values()
        )
        rest = self._causes(column).rest(nothing_came=nothing_came)
        if self._question.listing:
            self._watcher.column_ends(rest)
        undecided = column.tallies.pop("", None)
        if undecided is not None:
            column.tallies.setdefault(rest, _Tally()).add(
                undecided.missing, undecided.different, undecided.first_us, undecided.last_us
            )
        for cause in CAUSES:
            tally = column.tallies.get(cause)
            if tally is not None:
                self._losses.append(
                    Loss(
                        column.old.name,
                        column.values,
                        tally.missing,
                        tally.different,
                        cause,
                        tally.first_us,
                        tally.last_us,
                    )
                )

    def finding(self) -> Finding:
        """Return what was found, after the last piece."""
        self._end_column()
        for name in self._used:
            self._basis.add_shard(name)
        digests = self._missing_digest.digest() + self._different_digest.digest()
        return Finding(
            values=self.values,
            missing=sum(loss.missing for loss in self._losses),
            different=sum(loss.different for loss in self._losses),
            asked=self._asked,
            losses=tuple(self._losses),
            elsewhere=self._elsewhere,
            unasked=self._unasked,
            digest=self._digest.hexdigest(),
            losses_digest=hashlib.sha256(digests).hexdigest(),
            old_state=self._question.old_state,
            new_states={name: self._storage.states[name] for name in sorted(self._used)},
            ids=self._basis.ids(),
            basis=self._basis.hexdigest(),
        )
