"""What only the WAL holds: writes that are in no shard, which an upgrade would lose.

0.7's writes sit in the WAL and in memory before they reach shard_db, and 0.8 can't replay 0.7's
WAL (FORMATS.md, "wal/"; HAZARDS.md, 7). Each value of each request is looked up in its shard.
"""

from __future__ import annotations

import contextlib
import re
import struct
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeAlias

from shardtool.errors import reason_of
from shardtool.influxdb import messages
from shardtool.influxdb.engines import EngineError, Reader, open_shard
from shardtool.influxdb.keys import COLUMN_INDEX, new_column_id, time_bytes
from shardtool.influxdb.wal import WRITE, Request, Series, WalError, log_files, requests
from shardtool.proof.children import Tell

Value: TypeAlias = str | bool | int | float | None

_SEQUENCE = struct.Struct(">Q")
_MOST_OPEN = 32
# Of values that are tracked one by one, so that one which is written twice counts once: bytes, as
# far as they can be told. A server holds back some ten thousand values, a few MB.
_MOST_TRACKED = 128 << 20
_TRACKED = 256  # bytes for one value, without its names
_TRACKED_SHARD = 1024  # and for one more shard
_MOST_IDS = 50_000
_MOST_SERIES = 1000  # of a gap that are named
_LONGEST_KEPT = 500
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
        owner: 'own'; 'other' where raft gives the shard to other servers alone, 'dropped' where
            raft knows 0.7's shards and this is none of them.
        missing: values under keys that the shard does not have.
        newer: values that the shard has with an older content.
        doubtful: values that the shard lacks, but a later delete or drop in the WAL may be why.
        series: (database, series) and how many of the first two are its, of the 1,000 with most.
    """

    target: Target
    is_there: bool
    owner: str
    missing: int
    newer: int
    doubtful: int
    series: tuple[tuple[str, str, int], ...]

    @property
    def values(self) -> int:
        """Those that are only in the WAL for sure."""
        return self.missing + self.newer

    @property
    def matters(self) -> bool:
        """They are to be in a shard of this server."""
        return self.owner == "own" and self.values > 0


@dataclass(frozen=True)
class WalOnly:
    """What a look through the whole WAL found.

    Args:
        requests: that it holds.
        values: in them, nulls left out.
        gaps: by shard; those without a gap are left out.
        unread: shards that could not be compared, and why.
        is_all: every value was tracked; otherwise there are more than the gaps say.
        torn: bytes at the end of each log that hold no whole request, by its name.
        after_snapshot: requests of 0.7 behind what the snapshot has of a log.
        problem: why the WAL can't be read to its end; empty where it can.
    """

    requests: int = 0
    values: int = 0
    gaps: tuple[Gap, ...] = ()
    unread: tuple[tuple[Target, str], ...] = ()
    is_all: bool = True
    torn: Mapping[str, int] = field(default_factory=dict)
    after_snapshot: int = 0
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
        owners: 0.7's shards as raft knows them: number to servers; empty where it does not.
        own_server: this server's id; None where that is not known.
        snapshotted: the length of each log as the newest snapshot has it, by its name.
    """

    wal: Path
    old: Path
    new: Path
    engines: Mapping[str, str]
    settled: frozenset[str] = frozenset()
    owners: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    own_server: int | None = None
    snapshotted: Mapping[str, int] = field(default_factory=dict)

    def owner_of(self, target: Target) -> str:
        """Return whose a shard is: see Gap."""
        servers = self.owners.get(int(target.name))
        if not target.is_old or not self.owners:
            return "own"
        if servers is None:
            return "dropped"
        is_own = self.own_server is None or not servers or self.own_server in servers
        return "own" if is_own else "other"


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
        for log in _logs(shards.wal):
            try:
                done = work.add_log(log, done, tell)
            except FileNotFoundError:
                continue  # a running server is done with it: all of it is in the shards
            except WalError as error:
                # What stands in it before that, and the other logs, are compared all the same.
                problem = problem or str(error)
        return work.result(problem)


def _logs(wal: Path) -> Iterator[Path]:
    """Yield the logs, and those that a running server has begun meanwhile.

    Raises:
        WalError: the directory can't be read.
    """
    seen: set[Path] = set()
    while new := [log for log in log_files(wal) if log not in seen]:
        yield from new
        seen.update(new)


class _Key(NamedTuple):
    """A value's identity within its shard."""

    database: str
    series: str
    column: str | int
    time_us: int
    sequence: int


def _cost(key: _Key) -> int:
    column = len(key.column) if isinstance(key.column, str) else 0
    return _TRACKED + len(key.database) + len(key.series) + column


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
        self._requests = self._values = self._after_snapshot = 0
        self._torn: dict[str, int] = {}

    def add_log(self, log: Path, before: int, tell: Tell) -> int:
        """Look up the values of one log; return the bytes that are done with then.

        Raises:
            FileNotFoundError: it is gone.
            WalError: it can't be read to its end.
        """
        size, end = log.stat().st_size, 0
        # A log that the snapshot does not have was begun after it.
        snapshotted = self._shards.snapshotted.get(
            log.name, 0 if self._shards.snapshotted else size
        )
        for number, request in enumerate(requests(log)):
            self.add(request)
            if request.offset >= snapshotted and any(s.columns for s in request.series):
                self._after_snapshot += 1
            end = request.end
            if number % 64 == 0:
                tell(before + end)
        if end < size and (torn := _length_without_zeros(log, end)):
            self._torn[log.name] = torn
        return before + size

    def add(self, request: Request) -> None:
        """Look up a request's values."""
        self._requests += 1
        name = f"{request.shard_id:05d}"
        if request.kind != WRITE:
            for target in (Target(True, name), Target(False, name)):
                self._doubt(target, deleted_by(request))
            return
        for series in request.series:
            target = Target(not series.column_ids, name)
            if target in self._unread or (target.is_old and name in self._shards.settled):
                continue
            self._add_series(request.database, series, target)

    def _doubt(self, target: Target, may_delete: Callable[[str, str], bool]) -> None:
        """Take what was written before a delete or a drop as gone for good reason, perhaps."""
        only = self._only.get(target, {})
        gone = [key for key in only if may_delete(key.database, key.series)]
        for key in gone:
            del only[key]
            self._tracked -= _cost(key)
        if gone:
            self._doubtful[target] += len(gone)

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
        only = self._only.get(target, {})
        if lack is None:
            if only.pop(key, None) is not None:
                self._tracked -= _cost(key)
        elif key in only:
            only[key] = lack
        elif self._tracked < _MOST_TRACKED:
            if target not in self._only:
                self._only[target] = {}
                self._tracked += _TRACKED_SHARD
            self._only[target][key] = lack
            self._tracked += _cost(key)
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
                    self._tracked -= sum(map(_cost, self._only.pop(target, ())))
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
        if text in shard.ids:
            return shard.ids[text]
        found = shard.reader.value(COLUMN_INDEX + text.encode("utf-8", "surrogateescape"))
        # Of names there is no end, and none of their length, in a hostile WAL.
        if len(text) <= _LONGEST_KEPT:
            if len(shard.ids) >= _MOST_IDS:
                shard.ids.clear()
            shard.ids[text] = found
        return found

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
            torn=self._torn,
            after_snapshot=self._after_snapshot,
            problem=problem,
        )

    def _gap(self, target: Target) -> Gap:
        only = self._only.get(target, {})
        newer = sum(only.values())
        series = Counter((key.database, key.series) for key in only)
        is_there, owner = target not in self._missing_shards, self._shards.owner_of(target)
        return Gap(
            target,
            is_there=is_there,
            # What lies here is migrated, whatever raft knows of it.
            owner="own" if is_there else owner,
            missing=len(only) - newer,
            newer=newer,
            doubtful=self._doubtful[target],
            series=tuple((*name, count) for name, count in series.most_common(_MOST_SERIES)),
        )


# `delete from NAME ...` and `drop series NAME`; a name may be in quotes (0.7's parser/query.lex).
_NAMES_SERIES = re.compile(
    r"\s*(?:delete\s+from|drop\s+series)\s+(?:\"(?P<quoted>[^\"\\]*)\"|(?P<plain>[\w.-]+))(?:\s|;|$)",
    re.IGNORECASE,
)


def deleted_by(request: Request) -> Callable[[str, str], bool]:
    """Given a request that is no write, return what says of a database's series whether it may
    have deleted values of it.

    Of which times, is not looked at; a query whose series is not plain to see (a regex) may have
    deleted anything of its database.
    """
    match = _NAMES_SERIES.match(request.query)
    name = None if match is None else match["quoted"] or match["plain"]

    def may_delete(database: str, series: str) -> bool:
        return request.database in ("", database) and name in (None, series)

    return may_delete


def _length_without_zeros(log: Path, offset: int) -> int:
    """Return how many bytes from an offset to the end there are, preallocated zeros left out."""
    length = at = 0
    try:
        with log.open("rb") as file:
            file.seek(offset)
            while chunk := file.read(1 << 20):
                if stripped := len(chunk.rstrip(b"\0")):
                    length = at + stripped
                at += len(chunk)
    except FileNotFoundError:
        raise  # a running server is done with it
    except OSError as error:  # of a read it has no path
        raise WalError(f"{log}: expected to read it, found: {reason_of(error)}") from None
    return length


def _typed(value: Value) -> tuple[type, Value]:
    """Return a value so that equal ones are the same to the bit: 1 is not 1.0, NaN is NaN."""
    return type(value), repr(value) if isinstance(value, float) else value
