"""Build what a restore puts in place: whole, beside its place, ours alone until all is right."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import stat
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

from shardtool.disk.copy import (
    PRIVATE_FILE,
    Counter,
    Entry,
    Meter,
    Reader,
    entry_of,
    new_file,
    opened_below,
    room_for,
    set_attributes,
    survey,
    sync_tree,
)
from shardtool.disk.durable import (
    READ_DIRECTORY,
    READ_DIRECTORY_ITSELF,
    new_directory,
    opened,
)
from shardtool.disk.remove import remove_tree
from shardtool.errors import ShardtoolError
from shardtool.snapshots import bag
from shardtool.snapshots.metadata import Metadata
from shardtool.snapshots.moves import Move
from shardtool.snapshots.store import PRIVATE_DIRECTORY, told
from shardtool.snapshots.verify import Verification


def stage(
    store: int,
    verified: Verification,
    moves: tuple[Move, ...],
    meter: Meter,
    *,
    into: int | None = None,
) -> tuple[str, ...]:
    """Build everything new beside its place: written, synced, read back, compared.

    Whatever goes wrong, an interrupt included, nothing of it is left. What is new is ours alone,
    and is reached by descriptors, until all of it is right: the server's user, who owns the
    directory that it lies in, may give its name to something else meanwhile.

    Args:
        store: the store's directory.
        verified: the snapshot, read again and found good.
        moves: what goes where.
        meter: makes what counts the bytes.
        into: a descriptor on a directory that is new and nobody else's, which all goes into.

    Returns:
        What could not be made as it was, for people.

    Raises:
        ShardtoolError: it could not be staged.
    """
    assert verified.metadata is not None
    warnings: tuple[str, ...] = ()
    _check_room(verified.metadata, moves)
    try:
        for move in moves:
            advice = "nothing was changed: free room there, or restore elsewhere with --to DIR"
            with (
                told(move.staged, "to stage the snapshot", advice),
                opened(verified.id, READ_DIRECTORY_ITSELF, dir_fd=store) as source,
                _parent(move, into) as parent,
                Reader() as reader,
            ):
                wanted = _wanted(verified.metadata, move)
                name, digests = move.staged.name, verified.digests
                job = _Job(source, parent, name, wanted, digests, reader, meter)
                is_file = wanted.entries[0].kind == "file"
                warnings += _compare(wanted, job.file() if is_file else job.directory())
                os.fsync(parent)
    except BaseException:
        remove_staged(moves, into)
        raise
    return tuple(dict.fromkeys(warnings))


def remove_staged(moves: tuple[Move, ...], into: int | None = None) -> None:
    """Remove what was staged; what resists, the next restore removes."""
    for move in moves:
        with contextlib.suppress(OSError), _parent(move, into) as parent:
            remove_tree(parent, move.staged.name)


def _parent(move: Move, into: int | None) -> AbstractContextManager[int]:
    return nullcontext(into) if into is not None else opened(move.staged.parent, READ_DIRECTORY)


@dataclass(frozen=True)
class _Wanted:
    """The entries of one move, with their paths from the staged one on, which is '.'.

    Args:
        entries: parents first.
        sources: the path in the bag for each.
        owners: the uid and gid for each.
    """

    entries: tuple[Entry, ...]
    sources: Mapping[str, str]
    owners: Mapping[str, tuple[int, int]]


def _wanted(metadata: Metadata, move: Move) -> _Wanted:
    """Given the snapshot's entries, return those of `move` as they are to be."""
    entries, sources, owners = [], {}, {}
    for entry in metadata.entries:
        top, slash, rest = entry.path.partition("/")
        if top != move.name:
            continue
        mode = entry.mode
        if entry.kind == "file":
            # No file of raft or wal is a program; a planted snapshot must not make one that
            # runs as its owner.
            mode &= ~(stat.S_ISUID | stat.S_ISGID)
        path = f".{slash}{rest}"
        entries.append(replace(entry, path=path, mode=mode))
        sources[path] = f"{bag.PAYLOAD}/{entry.path}"
        owners[path] = _owner(entry, metadata)
    return _Wanted(tuple(entries), sources, owners)


def _owner(entry: Entry, metadata: Metadata) -> tuple[int, int]:
    """Return whom `entry` is to belong to: by name as tar does, where the name is known here."""
    uid, gid = entry.uid, entry.gid
    with contextlib.suppress(KeyError, ValueError):
        uid = pwd.getpwnam(metadata.users[entry.uid]).pw_uid
    with contextlib.suppress(KeyError, ValueError):
        gid = grp.getgrnam(metadata.groups[entry.gid]).gr_gid
    return uid, gid


@dataclass(frozen=True)
class _Job:
    """One move at work.

    Args:
        source: the bag.
        parent: where the staged one is made.
        name: its name there.
        wanted: what it is to hold.
        digests: of the bag's files, by their paths in it.
        reader: reads them.
        meter: makes what counts the bytes.
    """

    source: int
    parent: int
    name: str
    wanted: _Wanted
    digests: Mapping[str, str]
    reader: Reader
    meter: Meter

    def directory(self) -> list[Entry]:
        """Stage a directory with all below it; return what is there then."""
        top, *below = self.wanted.entries
        with new_directory(self.name, dir_fd=self.parent) as staged:
            with self._counting("staging") as counter:
                for entry in below:
                    self._make(entry, staged, counter)
            set_attributes(below, self.wanted.owners, dir_fd=staged)
            sync_tree(staged)
            with self._counting("verifying") as counter:
                for entry in below:
                    if entry.kind == "file":
                        with opened_below(staged, entry.path) as file:
                            self._insist_on_digest(file, entry, counter)
            found = [replace(one, path=f"./{one.path}") for one in survey(staged)]
            return [self._give(staged, top), *found]

    def file(self) -> list[Entry]:
        """Stage a single file; return what it is then."""
        (top,) = self.wanted.entries
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
        with opened(self.name, flags, dir_fd=self.parent) as staged:
            os.fchmod(staged, PRIVATE_FILE)
            with self._counting("staging") as counter:
                self._copy(top, staged, counter)
            os.fsync(staged)
            os.lseek(staged, 0, os.SEEK_SET)
            with self._counting("verifying") as counter:
                self._insist_on_digest(staged, top, counter)
            return [self._give(staged, top)]

    def _counting(self, doing: str) -> AbstractContextManager[Counter]:
        return self.meter(doing, sum(entry.size for entry in self.wanted.entries))

    def _make(self, entry: Entry, staged: int, counter: Counter) -> None:
        if entry.kind == "directory":
            os.mkdir(entry.path, PRIVATE_DIRECTORY, dir_fd=staged)
        elif entry.kind == "link":
            os.symlink(entry.target, entry.path, dir_fd=staged)
        else:
            with new_file(entry.path, dir_fd=staged) as new:
                self._copy(entry, new, counter)

    def _copy(self, entry: Entry, target: int, counter: Counter) -> None:
        with opened_below(self.source, self.wanted.sources[entry.path]) as file:
            self.reader.digest(file, counter, target=target, most=entry.size)

    def _insist_on_digest(self, file: int, entry: Entry, counter: Counter) -> None:
        digest, _ = self.reader.digest_from_disk(file, counter)
        if digest != self.digests[self.wanted.sources[entry.path]]:
            raise OSError(0, "other bytes than were in the snapshot", entry.path)

    def _give(self, staged: int, top: Entry) -> Entry:
        """Give what is staged its owner and mode: from now on others can get in, or find it."""
        if os.geteuid() == 0:
            os.fchown(staged, *self.wanted.owners[top.path])
        os.fchmod(staged, top.mode)
        os.utime(staged, ns=(top.mtime_ns, top.mtime_ns))
        os.fsync(staged)
        return entry_of(top.path, os.fstat(staged))


def _compare(wanted: _Wanted, found: list[Entry]) -> tuple[str, ...]:
    """Insist that what was staged is what was wanted; owners may differ where we are not root.

    Raises:
        OSError: something else differs.
    """
    warnings: list[str] = []
    there = {entry.path: entry for entry in found}
    for entry in wanted.entries:
        made = there.pop(entry.path, None)
        mode = made.mode if made is not None and entry.kind == "link" else entry.mode
        owner = (made.uid, made.gid) if made is not None else (0, 0)
        expected = replace(entry, mode=mode, uid=owner[0], gid=owner[1], identity=())
        if made is None or replace(made, identity=()) != expected:
            path = wanted.sources[entry.path]
            raise OSError(0, f"{path} not as it is in the snapshot", path)
        if owner != wanted.owners[entry.path]:
            warnings.append(
                f"some files belong to uid {owner[0]}, gid {owner[1]} and not to uid "
                f"{wanted.owners[entry.path][0]}, gid {wanted.owners[entry.path][1]} as in the "
                "snapshot: only root can give them away"
            )
    for path in there:
        raise OSError(0, f"{path} which is not in the snapshot", path)
    return tuple(warnings)


def _check_room(metadata: Metadata, moves: tuple[Move, ...]) -> None:
    """Refuse to begin what will not fit, adding up what goes to the same file system.

    Raises:
        ShardtoolError: there is too little room.
    """
    needed: dict[int, int] = {}
    for move in moves:
        parent = move.staged.parent
        room = os.statvfs(parent)
        entries = [e for e in metadata.entries if e.path.partition("/")[0] == move.name]
        device = parent.stat().st_dev
        needed[device] = needed.get(device, 0) + room_for(entries, room.f_frsize)
        free = room.f_bavail * room.f_frsize
        if needed[device] > free:
            raise ShardtoolError(
                f"{parent}: expected room for {needed[device]:,} bytes, found {free:,} free; "
                "free some there, or restore with --to DIR"
            )
