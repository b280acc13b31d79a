"""What only the WAL holds: writes that are in no shard, which an upgrade would lose.

0.7's writes sit in the WAL and in memory before they reach shard_db, and 0.8 can't replay 0.7's
WAL (FORMATS.md, "wal/"; HAZARDS.md, 7). Each value of each request is looked up in its shard.
"""

from __future__ import annotations

import contextlib
import struct
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeAlias

from shardtool.influxdb import messages
from shardtool.influxdb.engines import EngineError, Reader, open_shard
from shardtool.influxdb.keys import COLUMN_INDEX, new_column_id, time_bytes
from shardtool.influxdb.wal import WRITE, Request, Series, WalError, log_files, requests
from shardtool.proof.children import Tell

Value: TypeAlias = str | bool | int | float | None

_SEQUENCE = struct.Struct(">Q")
_MOST_OPEN = 32
# Values that are tracked one by one, so that one which is written twice counts once: some 200 MB.
# A server holds back some ten thousand.
_MOST_TRACKED = 1_000_000
_MOST_IDS = 100_000
_ATTEMPTS = 3  # files that vanish under the reader: open again so many times in all


class Target(NamedTuple):
    """A shard that a request writes to: an old one, or a new one, by the name of its directory."""

    is_old: bool
    name: str


@dataclass(frozen=True)
class Gap:
    """Values for one shard that only the WAL holds.

    Args:
        target: the shard.
        is_there: its directory is.
        missing: values under keys that the shard does not have.
        newer: values that the shard has with an older content.
        doubtful: values that the shard lacks, but a later delete or drop in the WAL may be why.
        series: (database, series) and how many of the first two are its.
    """

    target: Target
    is_there: bool
    missing: int
    newer: int
    doubtful: int
    series: tuple[tuple[str, str, int], ...]

    @property
    def values(self) -> int:
        """Those that are only in the WAL for sure."""
        return self.missing + self.newer


@dataclass(frozen=True)
class WalOnly:
    """What a look through the whole WAL found.

    Args:
        requests: that it holds.
        values: in them, nulls left out.
        gaps: by shard; those without a gap are left out.
        unread: shards that could not be compared, and why.
        is_all: every value was tracked; otherwise there are more than the gaps say.
        problem: why the WAL can't be read to its end; empty where it can.
    """

    requests: int = 0
    values: int = 0
    gaps: tuple[Gap, ...] = ()
    unread: tuple[tuple[Target, str], ...] = ()
    is_all: bool = True
    problem: str = ""


@dataclass(frozen=True)
class Shards:
    """Where the shards are that requests can write to.

    Args:
        wal: the WAL's directory.
        old: shard_db.
        new: shard_db_v2.
        engines: of the new shards, by name.
        settled: old shards whose values are dealt with: pruned on evidence.
    """

    wal: Path
    old: Path
    new: Path
    engines: Mapping[str, str]
    settled: frozenset[str] = frozenset()


def compare(shards: Shards, scratch: Path, tell: Tell) -> WalOnly:
    """Look up every value of the WAL in its shard; for a child process, as engines may die.

    Args:
        shards: where to look.
        scratch: a directory for links.
        tell: told now and then how many bytes of the WAL are done with.
    """
    with contextlib.ExitStack() as stack:
        work = _Comparison(shards, scratch, stack)
        problem = ""
        done = 0
        try:
            for log in log_files(shards.wal):
                for number, request in enumerate(requests(log)):
                    work.add(request)
                    if number % 64 == 0:
                        tell(done + request.offset)
                done += log.stat().st_size
        except WalError as error:
            problem = str(error)
        except FileNotFoundError as error:  # a running server is done with it
            problem = f"{error.filename}: it went away while it was read: a server is at work"
        return work.result(problem)


class _Key(NamedTuple):
    """A value's identity within its shard."""

    database: str
    series: str
    column: str | int
    time_us: int
    sequence: int


@dataclass
class _Shard:
    """An open shard and what was looked up in it."""

    reader: Reader
    ids: dict[str, bytes | None] = field(default_factory=dict)


class _Comparison:
    def __init__(self, shards: Shards, scratch: Path, stack: contextlib.ExitStack) -> None:
        self._shards = shards
        self._scratch = scratch
        self._stack = stack
        self._open: OrderedDict[Target, tuple[contextlib.ExitStack, _Shard]] = OrderedDict()
        self._missing_shards: set[Target] = set()
        self._unread: dict[Target, str] = {}
        # Per shard, the values that it lacks: True where it has an older one.
        self._only: dict[Target, dict[_Key, bool]] = {}
        self._doubtful: Counter[Target] = Counter()
        self._tracked = 0
        self._is_all = True
        self._requests = self._values = 0

    def add(self, request: Request) -> None:
        """Look up a request's values."""
        self._requests += 1
        name = f"{request.shard_id:05d}"
        if request.kind != WRITE:
            # A delete or a drop: what was written before it may be gone for good reason.
            for target in (Target(True, name), Target(False, name)):
                gone = len(self._only.pop(target, ()))
                self._doubtful[target] += gone
                self._tracked -= gone
            return
        for series in request.series:
            target = Target(not series.column_ids, name)
            if target in self._unread or (target.is_old and name in self._shards.settled):
                continue
            self._add_series(request.database, series, target)

    def _add_series(self, database: str, series: Series, target: Target) -> None:
        shard = self._shard(target)
        columns: tuple[str | int, ...] = series.columns if target.is_old else series.column_ids
        for point in series.points:
            for column, value in zip(columns, point.values, strict=False):
                if value is None:
                    continue
                self._values += 1
                key = _Key(database, series.name, column, point.time_us, point.sequence)
                if target not in self._unread:
                    self._note(target, key, self._look(shard, target, key, value))

    def _note(self, target: Target, key: _Key, lack: bool | None) -> None:
        """Take what a look found: None: the shard has the value; True: it has an older one."""
        only = self._only.setdefault(target, {})
        if lack is None:
            self._tracked -= only.pop(key, None) is not None
        elif key in only:
            only[key] = lack
        elif self._tracked < _MOST_TRACKED:
            only[key] = lack
            self._tracked += 1
        else:
            self._is_all = False

    def _look(self, shard: _Shard | None, target: Target, key: _Key, value: Value) -> bool | None:
        for attempt in range(_ATTEMPTS):
            if shard is None:
                break
            try:
                stored = self._stored(shard, key)
                return None if stored == _typed(value) else stored is not None
            except EngineError as error:
                self._open.pop(target)[0].close()
                if attempt + 1 == _ATTEMPTS:
                    self._unread[target] = str(error)
                    self._tracked -= len(self._only.pop(target, ()))
                    return None
                shard = self._shard(target)
        return False  # there is no such shard

    def _stored(self, shard: _Shard, key: _Key) -> tuple[type, Value] | None:
        """Return what a shard holds under a key.

        Raises:
            EngineError: it can't be read, or is no value.
        """
        column = self._column_id(shard, key)
        if column is None:
            return None
        found = shard.reader.value(column + time_bytes(key.time_us) + _SEQUENCE.pack(key.sequence))
        if found is None:
            return None
        try:
            return _typed(messages.value_of(messages.parse("FieldValue", found)))
        except messages.MessageError as error:
            raise EngineError(f"{shard.reader.path}: {error}") from None

    def _column_id(self, shard: _Shard, key: _Key) -> bytes | None:
        if isinstance(key.column, int):
            return new_column_id(key.column)
        text = f"{key.database}~{key.series}~{key.column}"
        if text not in shard.ids:
            if len(shard.ids) >= _MOST_IDS:
                shard.ids.clear()  # of names there is no end, least of all in a hostile WAL
            name = COLUMN_INDEX + text.encode("utf-8", "surrogateescape")
            shard.ids[text] = shard.reader.value(name)
        return shard.ids[text]

    def _shard(self, target: Target) -> _Shard | None:
        """Return an open shard; None where there is none, or it can't be opened (unread says)."""
        if target in self._open:
            self._open.move_to_end(target)
            return self._open[target][1]
        if target in self._missing_shards:
            return None
        where = self._shards.old if target.is_old else self._shards.new
        path = where / target.name
        if not path.is_dir():
            self._missing_shards.add(target)
            return None
        if len(self._open) >= _MOST_OPEN:
            self._open.popitem(last=False)[1][0].close()
        engine = "leveldb" if target.is_old else self._shards.engines.get(target.name, "unknown")
        with contextlib.ExitStack() as stack:
            try:
                reader = stack.enter_context(open_shard(path, engine, self._scratch))
            except EngineError as error:
                self._unread[target] = str(error)
                return None
            own = stack.pop_all()
            self._stack.callback(own.close)
            self._open[target] = own, _Shard(reader)
        return self._open[target][1]

    def result(self, problem: str) -> WalOnly:
        """Return what was found."""
        targets = sorted({*self._only, *self._doubtful}, reverse=True)
        gaps = (self._gap(target) for target in targets)
        return WalOnly(
            requests=self._requests,
            values=self._values,
            gaps=tuple(gap for gap in gaps if gap.values or gap.doubtful),
            unread=tuple(sorted(self._unread.items())),
            is_all=self._is_all,
            problem=problem,
        )

    def _gap(self, target: Target) -> Gap:
        only = self._only.get(target, {})
        newer = sum(only.values())
        series = Counter((key.database, key.series) for key in only)
        return Gap(
            target,
            is_there=target not in self._missing_shards,
            missing=len(only) - newer,
            newer=newer,
            doubtful=self._doubtful[target],
            series=tuple((*name, count) for name, count in sorted(series.items())),
        )


def _typed(value: Value) -> tuple[type, Value]:
    """Return a value so that equal ones are the same to the bit: 1 is not 1.0, NaN is NaN."""
    return type(value), repr(value) if isinstance(value, float) else value
