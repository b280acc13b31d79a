"""Scan both sides of a data directory: every entry of shard_db and of shard_db_v2, as facts."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, replace
from pathlib import Path

from shardtool.datadir.holders import Holders, OpenFile, find_holders
from shardtool.datadir.layout import Layout
from shardtool.datadir.marker import MARKER, Marker, read_marker
from shardtool.disk.durable import READ_DIRECTORY, READ_DIRECTORY_ITSELF, opened_quietly
from shardtool.disk.locks import Lock, LockState, look_at_lock
from shardtool.disk.mounts import mount_points, mounts_at_or_below
from shardtool.disk.parallel import Pending
from shardtool.disk.tree import BLOCK, Tree, measure
from shardtool.errors import reason_of

# FORMATS.md, "db/shard_db_v2/NNNNN": the `type` file's possible content; none means leveldb.
ENGINES = ("leveldb", "rocksdb", "hyperleveldb", "lmdb")

# FORMATS.md, "db/shard_db/NNNNN": the files of a LevelDB, and the marker. Tables and
# write-ahead logs are the ones that hold values.
VALUE_FILES = (".ldb", ".sst", ".log")
_SINGLE_FILES = re.compile(r"CURRENT|LOCK|LOG|LOG\.old|MANIFEST-\d+|\d+\.dbtmp|" + MARKER)


def is_shard_name(name: str) -> bool:
    """Given a name, say whether the server would write it for a shard: `%.5d` of its number.

    Example: '00027', '123456' are; '27', '0027', '000027', 'lost+found' are not.
    """
    return _is_number(name) and f"{int(name[:20]):05d}" == name


def by_age(name: str) -> tuple[int, str]:
    """Return what shards sort by so that the later ones come last: their numbers tell which.

    Of two contents under one identity the later shard's is right, whoever writes them out.
    """
    return len(name), name


@dataclass(frozen=True)
class OldShard:
    """One entry of shard_db, whatever it is. Facts only; datadir.verdict judges them.

    Args:
        name: its name, undecodable bytes as surrogates.
        kind: 'directory', 'symlink', 'file' or 'special' (socket, FIFO, device).
        marker: what stands under the marker's name.
        tree: what is in it; empty for what is no directory.
        has_database: a CURRENT is there, without which there is no LevelDB.
        foreign: names at the top that no LevelDB writes.
        lock: LevelDB's LOCK as other processes hold it.
        open_files: what other processes have open in it.
        open_files_known: False where some process could not be looked into.
        mounts: what is mounted at it or below it.
        error: the system's reason where the entry itself could not be read, else empty.
    """

    name: str
    kind: str = "directory"
    marker: Marker = Marker()
    tree: Tree = Tree()
    has_database: bool = False
    foreign: tuple[str, ...] = ()
    lock: LockState = LockState(Lock.FREE)
    open_files: tuple[OpenFile, ...] = ()
    open_files_known: bool = True
    mounts: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True)
class NewShard:
    """One entry of shard_db_v2.

    Args:
        name: its name.
        engine: one of ENGINES; 'unknown' where `type` says something else or can't be read.
        tree: what is in it; empty for what is no directory.
        error: the system's reason where it could not be read, else empty.
    """

    name: str
    engine: str = "unknown"
    tree: Tree = Tree()
    error: str = ""


@dataclass(frozen=True)
class FileSystem:
    """Room on the file system of the old shards, in bytes; what root alone may use is not free."""

    total_bytes: int
    free_bytes: int


@dataclass(frozen=True)
class Inventory:
    """Everything that is in a node's db, at one moment.

    Args:
        old: the entries of shard_db by name; None where there is no shard_db.
        new: the entries of shard_db_v2 by name; None where there is no shard_db_v2.
        file_system: the one that the old shards lie on.
        holders: who has what open.
    """

    old: tuple[OldShard, ...] | None
    new: tuple[NewShard, ...] | None
    file_system: FileSystem
    holders: Holders


def take_inventory(layout: Layout, *, fingerprints: bool = False) -> Inventory:
    """Scan both sides of `layout` and who has what open. Nothing is changed or locked.

    Args:
        layout: the node.
        fingerprints: take each old shard's fingerprint too (prune needs them).

    Raises:
        OSError: shard_db or shard_db_v2 is there but can't be listed.
        ShardtoolError: a scanning process died.
    """
    old_names, new_names = _entries(layout.old_shards), _entries(layout.new_shards)
    # The children start before anything else: while they scan, this process looks for holders.
    old = Pending(
        lambda name: scan_old_shard(layout.old_shards, name, fingerprint=fingerprints),
        old_names or [],
    )
    new = Pending(lambda name: _scan_new_shard(layout.new_shards, name), new_names or [])
    try:
        holders = find_holders(layout.places)
        others = Others.of(layout.old_shards, holders)
        scanned = old.answers()
        return Inventory(
            None
            if old_names is None
            else tuple(others.add_to(shard) for shard in scanned if shard is not None),
            None if new_names is None else tuple(s for s in new.answers() if s is not None),
            file_system_at(layout.old_shards if old_names is not None else layout.anchor),
            holders,
        )
    finally:
        old.stop()
        new.stop()


def _entries(directory: Path) -> list[str] | None:
    try:
        with opened_quietly(directory, READ_DIRECTORY) as descriptor:
            return sorted(os.listdir(descriptor))
    except FileNotFoundError:
        return None


def file_system_at(path: Path) -> FileSystem:
    """Return the room on the file system that `path` lies on.

    Raises:
        OSError: the path can't be looked at.
    """
    room = os.statvfs(path)
    return FileSystem(room.f_blocks * room.f_frsize, room.f_bavail * room.f_frsize)


def scan_old_shard(directory: Path, name: str, *, fingerprint: bool) -> OldShard | None:
    """Take the facts of one entry of shard_db that need no look at other processes.

    Args:
        directory: shard_db.
        name: the entry.
        fingerprint: take its fingerprint too.

    Returns:
        The facts, or None where it is not there any more. It raises nothing: an entry that
        can't be read is one with an error.
    """
    try:
        kind, entry = _kind_of(directory / name)
        if kind != "directory":
            size = entry.st_blocks * BLOCK
            length = entry.st_size if kind == "file" else 0
            alone = Tree(entry.st_ino, 1, 0, length, size, 0, entry.st_mtime_ns)
            return OldShard(name, kind, tree=alone)
        with opened_quietly(directory / name, READ_DIRECTORY_ITSELF) as shard:
            marker = read_marker(shard)
            tree = measure(
                shard,
                newer_than_ns=marker.written_at_ns,
                newer_suffixes=VALUE_FILES,
                keep=_no_table,
                fingerprint=fingerprint,
            )
            lock = look_at_lock("LOCK", dir_fd=shard)
    except FileNotFoundError:
        return None
    except OSError as error:
        return OldShard(name, error=reason_of(error))
    foreign = tuple(sorted(n for n in tree.names if not _SINGLE_FILES.fullmatch(n)))
    return OldShard(
        name,
        marker=marker,
        tree=replace(tree, names=()),
        has_database="CURRENT" in tree.names,
        foreign=foreign,
        lock=lock,
    )


def _kind_of(path: Path) -> tuple[str, os.stat_result]:
    entry = path.lstat()
    if stat.S_ISDIR(entry.st_mode):
        return "directory", entry
    if stat.S_ISLNK(entry.st_mode):
        return "symlink", entry
    return ("file" if stat.S_ISREG(entry.st_mode) else "special"), entry


def _no_table(names: list[str]) -> list[str]:
    """Given names, return those that are no table and no log of a LevelDB.

    This runs for every file of every shard, and nearly always all of the numbers are numbers:
    that is one look at all of them together.
    """
    numbered = [name[:-4] for name in names if name.endswith(VALUE_FILES)]
    rest = [name for name in names if not name.endswith(VALUE_FILES)]
    together = "".join(numbered)
    if numbered and not (together.isdigit() and together.isascii() and all(numbered)):
        rest += [n for n in names if n.endswith(VALUE_FILES) and not _is_number(n[:-4])]
    return rest


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


@dataclass(frozen=True)
class Others:
    """What other processes and mounts have to do with the entries of shard_db, at one moment.

    Args:
        directory: shard_db, links in its path resolved.
        open_files: what other processes have open, by entry.
        open_files_known: False where some process could not be looked into.
        mounts: all mount points.
    """

    directory: Path
    open_files: dict[str, tuple[OpenFile, ...]]
    open_files_known: bool
    mounts: frozenset[str]

    @classmethod
    def of(cls, directory: Path, holders: Holders) -> Others:
        """Look up the mounts, and sort out what `holders` says of shard_db's entries.

        Raises:
            OSError: /proc does not tell the mounts.
        """
        real = Path(os.path.realpath(directory))
        return cls(real, holders.by_entry(real), not holders.unseen, mount_points())

    def add_to(self, shard: OldShard) -> OldShard:
        """Given a scanned shard, return it with what others have to do with it."""
        return replace(
            shard,
            open_files=self.open_files.get(shard.name, ()),
            open_files_known=self.open_files_known,
            mounts=mounts_at_or_below(self.directory / shard.name, self.mounts),
        )


def _scan_new_shard(directory: Path, name: str) -> NewShard | None:
    try:
        kind, _ = _kind_of(directory / name)
        if kind != "directory":
            return NewShard(name, error=f"expected a directory, found a {kind}")
        with opened_quietly(directory / name, READ_DIRECTORY_ITSELF) as shard:
            engine, error = _engine(shard)
            return NewShard(name, engine, measure(shard), error)
    except FileNotFoundError:
        return None
    except OSError as error:
        return NewShard(name, error=reason_of(error))


def _engine(shard: int) -> tuple[str, str]:
    """Return the engine that the `type` file names (FORMATS.md, "db/shard_db_v2/NNNNN"), and why
    that can't be read, if so."""
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        with opened_quietly("type", flags, dir_fd=shard) as file:
            content = os.read(file, 64)
    except FileNotFoundError:
        return "leveldb", ""
    except OSError as error:
        return "unknown", f"type: {reason_of(error)}"
    engine = content.decode("ascii", errors="replace")
    return (engine if engine in ENGINES else "unknown"), ""
