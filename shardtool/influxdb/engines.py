"""Read shards of every engine that 0.8 has, without touching them.

A shard is never opened in place: opening a LevelDB, even to read, rewrites its files (HAZARDS.md,
19). RocksDB, which reads LevelDB's and HyperLevelDB's files too, opens a scratch directory of
links to the shard's files, read-only; what it writes for itself goes there.
"""

from __future__ import annotations

import contextlib
import errno
import operator
import os
import re
import stat
from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeAlias

from shardtool.datadir.inventory import ENGINES
from shardtool.disk.durable import READ_DIRECTORY_ITSELF, opened_quietly
from shardtool.disk.files import temporary_directory
from shardtool.errors import ShardtoolError, reason_of
from shardtool.influxdb import leveldb
from shardtool.words import plural

Pair: TypeAlias = tuple[bytes, bytes]

# What the engines read of a directory; LOG, LOCK and the marker hold no value.
_FILES = re.compile(r"\d+\.(?:ldb|sst|log)|MANIFEST-\d+|CURRENT|OPTIONS-\d+|IDENTITY")
_LMDB_FILE = "data.mdb"
# Tables that one database keeps open; a shard of 100 GB has 50,000 of them.
_OPEN_TABLES = 64
_BLOCK_CACHE = 4 << 20  # bytes; neighbouring columns lie in one block
_MESSAGE_END = 200  # characters of an engine's own words that a reason carries


class EngineError(ShardtoolError):
    """A shard's engine can't read it: which file and where, in the engine's own words."""


class EngineBusyError(EngineError):
    """Another process has the shard open in a way that can't be read beside."""


class Stream(Protocol):
    """Pairs of a shard in the order of their keys."""

    def take(self, count: int) -> list[Pair]:
        """Return the next `count` pairs; fewer only where the shard ends.

        Raises:
            EngineError: they can't be read.
        """


class Reader(Protocol):
    """An open shard, the directory `path`."""

    path: Path

    def pairs(self, start: bytes) -> Stream:
        """Return the pairs from the key `start` on.

        Raises:
            EngineError: they can't be read.
        """

    def value(self, key: bytes) -> bytes | None:
        """Return the value under a key, None where there is none.

        Raises:
            EngineError: it can't be read.
        """

    def tables(self) -> list[tuple[bytes, int]]:
        """Return (last key, size in bytes) of each table, sorted; empty where none is known."""


class ReaderBothWays(Reader, Protocol):
    """An open shard that can be read backwards too."""

    def last(self, before: bytes) -> bytes | None:
        """Return the last key that sorts before `before`, None where there is none.

        Raises:
            EngineError: it can't be read.
        """


@contextlib.contextmanager
def open_shard(
    shard: Path,
    engine: str,
    scratch: Path,
    *,
    is_at_rest: bool = False,
    torn: leveldb.Torn = leveldb.is_nothing,
) -> Iterator[ReaderBothWays]:
    """Open a shard's directory for reading, through links, and close it.

    Args:
        shard: the directory.
        engine: one of datadir.inventory.ENGINES; an old shard is 'leveldb'.
        scratch: an existing directory of the caller's, where the links go.
        is_at_rest: nobody writes to it, as to an old shard: nothing in it may be left over.
        torn: told of each log that ends in the midst of a record.

    Raises:
        EngineError: it can't be opened: not there, corrupt, or an engine that nobody knows.
        ShardtoolError: there is no room in `scratch`, or something else removes links there.
    """
    if engine not in ENGINES:
        found = "something else" if engine == "unknown" else repr(engine)
        raise EngineError(f"{shard}/type: expected one of {', '.join(ENGINES)}, found {found}")
    with contextlib.ExitStack() as stack:
        try:
            directory = stack.enter_context(opened_quietly(shard, READ_DIRECTORY_ITSELF))
            wanted = _LMDB_FILE.__eq__ if engine == "lmdb" else _FILES.fullmatch
            # Through the descriptor: what is read is this directory, wherever it is moved to.
            names = _names(directory, wanted)
            links = stack.enter_context(_linked(directory, names, scratch))
        except OSError as error:
            raise EngineError(f"{shard}: can't be read: {reason_of(error)}") from None
        try:
            _check(shard, engine, links, is_at_rest, torn)
            reader: ReaderBothWays
            if engine == "lmdb":
                reader = stack.enter_context(_Lmdb.opened(shard, links))
            else:
                reader = stack.enter_context(_Rocks.opened(shard, links))
            _require_links(links, names)
            yield reader
        except EngineError:
            _require_links(links, names)  # else it is no fault of the shard
            raise


def _check(shard: Path, engine: str, links: Path, is_at_rest: bool, torn: leveldb.Torn) -> None:
    """Insist that a shard's files fit together, as far as its engine does not look itself."""
    try:
        if engine in ("leveldb", "hyperleveldb"):
            # HyperLevelDB's writers run side by side.
            in_order = engine == "leveldb"
            leveldb.check(links, in_order=in_order, is_at_rest=is_at_rest, torn=torn)
        elif engine == "rocksdb":
            leveldb.check_form(links, torn=torn)
    except OSError as error:
        raise EngineError(f"{shard}: can't be read: {reason_of(error)}") from None
    except leveldb.LevelDBError as error:
        raise EngineError(f"{shard}/{error}") from None


def _names(directory: int, wanted: Callable[[str], Any]) -> list[str]:
    names = [name for name in os.listdir(directory) if wanted(name)]
    for name in names:
        if not stat.S_ISREG(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            raise OSError(0, f"{name} is no regular file")
    return names


@contextlib.contextmanager
def _linked(directory: int, names: list[str], scratch: Path) -> Iterator[Path]:
    """Make a directory in `scratch` with links to the files `names` of another, and yield it.

    Raises:
        ShardtoolError: `scratch` has no room for it; that is no fault of the shard.
    """
    with contextlib.ExitStack() as stack:
        try:
            # What resists is the caller's to remove, with all of `scratch`.
            links = stack.enter_context(temporary_directory(prefix="s", parent=scratch))
            for name in names:
                os.symlink(f"/proc/self/fd/{directory}/{name}", links / name)
        except OSError as error:
            raise no_room(scratch, reason_of(error)) from None
        yield links


def _require_links(links: Path, names: list[str]) -> None:
    """Insist that all links are there: who cleans up temporary files knows nothing of ours, and
    an engine opens a shard without its last log as readily as with it.

    Raises:
        ShardtoolError: some are not.
    """
    try:
        gone = set(names).difference(os.listdir(links))
    except OSError:
        gone = set(names)
    if gone:
        raise ShardtoolError(
            f"{links}: expected {plural(len(names), 'link')} to a shard's files, found "
            f"{len(names) - len(gone)}: something else removes files there; set TMPDIR to a "
            "directory where nothing does"
        )


def no_room(scratch: Path, reason: str) -> ShardtoolError:
    """Return the error of a directory that can't take links, for a reason in words."""
    return ShardtoolError(
        f"{scratch}: expected room for links to the shards' files, found: {reason}; "
        "set TMPDIR to a directory with more"
    )


class _RocksErrors:
    """Turns what rocksdict raises, which is Exception and nothing more precise, into our errors.

    A class and no generator: it stands around each step of the innermost loop.
    """

    def __init__(self, shard: Path, links: Path) -> None:
        self._shard = shard
        self._links = links

    def __enter__(self) -> None:
        return

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not isinstance(error, Exception):
            return  # nothing, or ctrl-C
        full = os.strerror(errno.ENOSPC)
        if full in str(error):  # it writes to its links alone
            raise no_room(self._links, full) from None
        raise EngineError(_words(self._shard, self._links, error)) from None


class _Rocks:
    """LevelDB, HyperLevelDB or RocksDB, read by RocksDB."""

    def __init__(self, shard: Path, links: Path, database: Any) -> None:
        self.path = shard
        self.errors = _RocksErrors(shard, links)
        self._database = database

    @classmethod
    @contextlib.contextmanager
    def opened(cls, shard: Path, links: Path) -> Iterator[_Rocks]:
        from rocksdict import (
            AccessType,
            BlockBasedOptions,
            Cache,
            DBRecoveryMode,
            Options,
            Rdict,
        )

        blocks = BlockBasedOptions()
        blocks.set_block_cache(Cache(_BLOCK_CACHE))
        options = Options(raw_mode=True)
        options.create_if_missing(False)
        options.set_max_open_files(_OPEN_TABLES)
        # Else 15 threads are started at each opening, to open what are mostly single tables.
        options.set_max_file_opening_threads(1)
        options.set_block_based_table_factory(blocks)
        # A log's torn tail is what the server drops too; anything else that is wrong in it must
        # be an error: the default drops all that follows, in silence.
        options.set_wal_recovery_mode(DBRecoveryMode.tolerate_corrupted_tail_records())
        access = AccessType.read_only(error_if_log_file_exist=False)
        with _RocksErrors(shard, links):
            database = Rdict(str(links), options, access_type=access)
        try:
            yield cls(shard, links, database)
        finally:
            database.close()

    def pairs(self, start: bytes) -> Stream:
        return _RocksStream(self, start)

    def items(self, start: bytes) -> Iterator[Pair]:
        with self.errors:
            found: Iterator[Pair] = self._database.items(from_key=start)
        return found

    def value(self, key: bytes) -> bytes | None:
        with self.errors:
            found: bytes | None = self._database.get(key)
        return found

    def last(self, before: bytes) -> bytes | None:
        with self.errors:
            iterator = self._backwards
            iterator.seek_for_prev(before)
            if iterator.valid() and iterator.key() == before:
                iterator.prev()
            found: bytes | None = iterator.key() if iterator.valid() else None
            iterator.status()
        return found

    @cached_property
    def _backwards(self) -> Any:
        # One for all: making it is most of what a seek costs.
        return self._database.iter()

    def check_end(self, after: bytes) -> None:
        """Insist that nothing follows the key `after`.

        rocksdict's iterators end in silence at a block that can't be read, just as they do at
        the end: without this, a corrupt old shard would be proven by its readable beginning.
        """
        with self.errors:
            iterator = self._database.iter()
            iterator.seek(after)
            goes_on = iterator.valid()
            iterator.status()
        if goes_on:
            raise EngineError(f"{self.path}: can't be read beyond key {after.hex()}")

    def tables(self) -> list[tuple[bytes, int]]:
        with self.errors:
            files = self._database.live_files()
        return sorted((bytes(file["end_key"]), int(file["size"])) for file in files)


class _RocksStream:
    def __init__(self, reader: _Rocks, start: bytes) -> None:
        self._reader = reader
        self._next = start
        self._items = reader.items(start)

    def take(self, count: int) -> list[Pair]:
        with self._reader.errors:
            found = list(islice(self._items, count))
        if found:
            # The least key that is greater.
            self._next = found[-1][0] + b"\0"
        if len(found) < count:
            self._reader.check_end(self._next)
        return found


class _Lmdb:
    def __init__(self, shard: Path, links: Path, transaction: Any) -> None:
        self.path = shard
        self._links = links
        self._transaction = transaction

    @classmethod
    @contextlib.contextmanager
    def opened(cls, shard: Path, links: Path) -> Iterator[_Lmdb]:
        import lmdb

        with contextlib.ExitStack() as stack:
            try:
                # Without the lock, lock.mdb is neither made nor touched; that no server writes
                # at the same time is for the caller to see to.
                environment = stack.enter_context(
                    lmdb.open(str(links), readonly=True, lock=False, create=False)
                )
                transaction = stack.enter_context(environment.begin())
                used = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
                size = (links / _LMDB_FILE).stat().st_size
                if size < used:  # reading what is not there would be the end of this process
                    words = f"expected a file of {used} bytes or more, found {size}"
                    raise EngineError(f"{shard}/{_LMDB_FILE}: {words}")
            except (lmdb.Error, OSError) as error:
                raise EngineError(_words(shard, links, error)) from None
            yield cls(shard, links, transaction)

    def pairs(self, start: bytes) -> Stream:
        import lmdb

        try:
            cursor = self._transaction.cursor()
            there = cursor.set_range(start) if start else cursor.first()
        except lmdb.Error as error:
            raise self.error(error) from None
        return _LmdbStream(self, cursor.iternext() if there else iter(()))

    def value(self, key: bytes) -> bytes | None:
        import lmdb

        try:
            found: bytes | None = self._transaction.get(key)
        except lmdb.Error as error:
            raise self.error(error) from None
        return found

    def last(self, before: bytes) -> bytes | None:
        import lmdb

        try:
            cursor = self._transaction.cursor()
            there = cursor.prev() if cursor.set_range(before) else cursor.last()
            return bytes(cursor.key()) if there else None
        except lmdb.Error as error:
            raise self.error(error) from None

    def error(self, error: Exception) -> EngineError:
        return EngineError(_words(self.path, self._links, error))

    def tables(self) -> list[tuple[bytes, int]]:
        return []


class _LmdbStream:
    def __init__(self, reader: _Lmdb, items: Iterator[Pair]) -> None:
        self._reader = reader
        self._items = items
        self._last: bytes | None = None

    def take(self, count: int) -> list[Pair]:
        import lmdb

        try:
            found = list(islice(self._items, count))
        except lmdb.Error as error:
            raise self._reader.error(error) from None
        if found:
            # An lmdb has no checksums: a wrong page shows, if at all, by its place.
            keys = [key for key, _ in found]
            is_after = self._last is None or self._last < keys[0]
            if not is_after or any(map(operator.ge, keys, keys[1:])):
                raise EngineError(f"{self._reader.path}: its keys are out of order: a corrupt page")
            self._last = keys[-1]
        return found


def _words(shard: Path, links: Path, error: Exception) -> str:
    """Given an engine's error, return it as a reason: files without the scratch directory."""
    text = " ".join(str(error).replace(f"{links}/", "").replace(str(links), str(shard)).split())
    if len(text) > _MESSAGE_END:
        text = text[:_MESSAGE_END] + "..."
    return f"{shard}: its engine can't read it: {text}"
