"""The directory that holds the snapshots: where it is, what is in it, what a kill left in it."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from shardtool.datadir.layout import Layout
from shardtool.disk.copy import read_bounded
from shardtool.disk.durable import (
    READ_DIRECTORY,
    READ_DIRECTORY_ITSELF,
    make_directories,
    opened_quietly,
)
from shardtool.disk.remove import remove_tree
from shardtool.errors import ShardtoolError, reason_of
from shardtool.snapshots.address import Place
from shardtool.snapshots.bag import METADATA
from shardtool.snapshots.metadata import (
    DIRECTORIES,
    MOST_BYTES,
    DamagedError,
    Metadata,
    age_order,
    decoded,
    is_id,
)

# What is being written, and what is being removed: names that no list takes for a snapshot.
PARTIAL = ".partial-"
FORGOTTEN = ".forgotten-"
_LEFTOVER = re.compile(r"\.(partial|forgotten)-(\d{8}T\d{6}Z(-\d+)?)(\.below\.\d+)*", re.ASCII)

# Snapshots hold the password hashes of raft, whatever its own modes were: their owner, who ran
# the backup, reads them and nobody else.
PRIVATE_DIRECTORY = 0o700

AS_WHOM = "run this as the server's user or as root"
# Where another advice would send the operator looking in the wrong place.
_ADVICE = {
    errno.EACCES: AS_WHOM,
    errno.EPERM: AS_WHOM,
    errno.EROFS: "make the file system writable, or name another place",
    errno.EIO: "check the disk",
}


@dataclass(frozen=True)
class Snapshot:
    """A snapshot as a list shows it; its payload has not been read.

    Args:
        id: its name.
        path: its directory, or its place in a bucket.
        live: copied while a server could be running.
        files: regular files in it.
        bytes: their length.
        problem: why it or its metadata can't be read, or what is wrong there; empty for a sound
            one.
        origin: the node it is of, as HOST:RAFT; empty where its metadata can't be read.
    """

    id: str
    path: Place
    live: bool = False
    files: int = 0
    bytes: int = 0
    problem: str = ""
    origin: str = ""


def summary_of(found: Metadata, path: Place) -> Snapshot:
    """Given a sound snapshot's metadata, return it as a list shows it."""
    files, size = len(found.files), found.payload_bytes
    return Snapshot(found.id, path, found.live, files, size, origin=found.origin)


@dataclass(frozen=True)
class Listing:
    """What is in a store.

    Args:
        snapshots: oldest first.
        others: the names that are no snapshot's, and what they are.
    """

    snapshots: tuple[Snapshot, ...]
    others: tuple[tuple[str, str], ...] = ()


@contextlib.contextmanager
def told(path: object, expected: str, advice: str) -> Iterator[None]:
    """Turn an OSError of the block into the one line that an operator gets.

    Args:
        path: what the line is about.
        expected: of it.
        advice: what to do, where the error itself does not tell better.

    Raises:
        ShardtoolError: the block raised OSError.
    """
    try:
        yield
    except OSError as error:
        raise ShardtoolError(
            f"{path}: expected {expected}, found: {describe(error)}; "
            f"{_ADVICE.get(error.errno or 0, advice)}"
        ) from None


def create_store(store: Path) -> None:
    """Create the store where it is missing, for its owner alone.

    Raises:
        ShardtoolError: it can't be created, or something else has its name.
    """
    with told(store, "to create the snapshot directory", "name another one with --to DIR"):
        above = next(path for path in (store, *store.parents) if path.is_dir())
        make_directories(store, like=above, mode=PRIVATE_DIRECTORY)


@contextlib.contextmanager
def opened_store(store: Path) -> Iterator[int]:
    """Open the store, which may be a link that an operator made.

    Raises:
        ShardtoolError: it is not there or no directory.
    """
    with contextlib.ExitStack() as stack:
        with told(store, "the snapshot directory", "name it with --store DIR"):
            descriptor = stack.enter_context(opened_quietly(store, READ_DIRECTORY))
        yield descriptor


def list_store(store: Path) -> Listing:
    """Read what is in the store: names and metadata, no payload.

    Raises:
        ShardtoolError: the store can't be read.
    """
    snapshots, others = [], []
    with opened_store(store) as directory:
        with told(store, "to list the snapshot directory", "check the disk"):
            names = sorted(os.listdir(directory))
        for name in names:
            what = _what_it_is(name, directory)
            if what:
                others.append((name, what))
            else:
                snapshots.append(_summary(name, store, directory))
    snapshots.sort(key=lambda snapshot: age_order(snapshot.id))
    return Listing(tuple(snapshots), tuple(others))


def has_snapshot(store: Path) -> bool:
    """Say whether a complete snapshot is in the store; its content is not looked at."""
    try:
        with opened_quietly(store, READ_DIRECTORY) as directory:
            return not all(_what_it_is(name, directory) for name in os.listdir(directory))
    except OSError:
        return False


def _what_it_is(name: str, directory: int) -> str:
    """Say what `name` in the store is; empty for a directory with a snapshot's name, whether
    or not it can be opened: what can't be read is not "something else"."""
    leftover = _LEFTOVER.fullmatch(name)
    if leftover:
        return "unfinished backup" if leftover[1] == "partial" else "being removed"
    if not is_id(name):
        return "no snapshot's name"
    try:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except OSError:
        return ""
    return "" if stat.S_ISDIR(found.st_mode) else "a link or a file, not followed"


def _summary(name: str, store: Path, directory: int) -> Snapshot:
    try:
        with opened_quietly(name, READ_DIRECTORY_ITSELF, dir_fd=directory) as bag:
            found = read_metadata(bag, name)
    except DamagedError as error:
        return Snapshot(name, store / name, problem=str(error))
    except OSError as error:
        return Snapshot(name, store / name, problem=f"unreadable: {describe(error)}")
    return summary_of(found, store / name)


def describe(error: DamagedError | OSError) -> str:
    """Return the reason alone: the system's, or the words that disk.copy found for it."""
    return (isinstance(error, OSError) and error.strerror) or str(error)


def read_metadata(bag: int, name: str) -> Metadata:
    """Read shardtool.json in the bag that descriptor `bag` is open on.

    Args:
        bag: the bag's directory.
        name: the id that it must have.

    Raises:
        DamagedError: it is not sound, or another snapshot's.
        OSError: it can't be read.
    """
    found = decoded(read_bounded(METADATA, MOST_BYTES, dir_fd=bag))
    if found.id != name:
        raise DamagedError(f"the metadata of another snapshot, {found.id[:40]!r}")
    return found


def find_snapshot(listing: Listing, store: Place, wanted: str) -> Snapshot:
    """Return the snapshot that the operator means.

    Args:
        listing: of the store.
        store: for the message.
        wanted: an id, or 'latest' for the newest, be it good or not: an older one instead of
            it would be a surprise.

    Raises:
        ShardtoolError: there is none.
    """
    if wanted == "latest":
        if listing.snapshots:
            return listing.snapshots[-1]
        raise ShardtoolError(f"{store}: expected a snapshot, found none; make one with backup")
    for snapshot in listing.snapshots:
        if snapshot.id == wanted:
            return snapshot
    raise ShardtoolError(
        f"{store}: expected a snapshot {wanted!r}, found none of that name; see shardtool snapshots"
    )


def refuse_another_nodes(listing: Listing, latest: Snapshot, own: str, store: Place) -> None:
    """Refuse to take another node's newest snapshot for this node's, which has some there too.

    Args:
        listing: of the store.
        latest: its newest one.
        own: the origin of this node's.
        store: for the message.

    Raises:
        ShardtoolError: it is another node's.
    """
    mine = [snapshot.id for snapshot in listing.snapshots if snapshot.origin == own]
    if mine and latest.origin and latest.origin != own:
        raise ShardtoolError(
            f"{store}: expected the latest snapshot to be of this node, found {latest.id}, which "
            f"is of {latest.origin}; the newest of this node is {mine[-1]}: name the ID"
        )


def choose_another(listing: Listing, bad: str) -> str:
    """Given a snapshot that is not good, return the advice that names the newest other one."""
    others = [s.id for s in listing.snapshots if not s.problem and s.id != bad]
    if not others:
        return "there is no other one that looks good"
    return f"the newest other one that looks good is {others[-1]}"


def remove_leftovers(directory: int) -> tuple[str, ...]:
    """Remove what killed backups and forgets left in the store, whose lock the caller holds.

    Returns:
        What could not be removed, as 'name: reason'.

    Raises:
        OSError: the store's names can't be read, or /proc does not tell its mount.
    """
    names = sorted(filter(_LEFTOVER.fullmatch, os.listdir(directory)))
    try:
        # The rename of what was to be forgotten may be in memory alone: without it a power cut
        # would bring back a snapshot's name, and behind it ruins.
        if names:
            os.fsync(directory)
    except OSError as error:
        return tuple(f"{name}: {reason_of(error)}" for name in names)
    return tuple(chain.from_iterable(remove_tree(directory, name).failures for name in names))


def refuse_overlap(layout: Layout, store: Path) -> None:
    """Refuse a store inside what it is to hold, among shardtool's own files, or where the server
    takes it for a shard.

    Raises:
        ShardtoolError: it lies in raft, wal, shard_db, shard_db_v2 or .shardtool.
    """
    refuse_inside(store, (*layout.places[1:], layout.own), "snapshot directory")


def refuse_inside(path: Path, directories: Iterable[Path], what: str) -> None:
    """Refuse a directory that is, or lies in, one of `directories`, links resolved.

    Raises:
        ShardtoolError: it does; the line calls it `what`.
    """
    real = Path(os.path.realpath(path))
    for directory in directories:
        if real.is_relative_to(os.path.realpath(directory)):
            raise ShardtoolError(
                f"{path}: expected a {what} of its own, found one inside "
                f"{directory}; name another one with --to DIR"
            )


def sources_of(layout: Layout) -> dict[str, Path]:
    """Return where raft and wal really lie, links resolved; they need not be there.

    Raises:
        ShardtoolError: raft, wal and db lie in one another.
    """
    found = {name: Path(os.path.realpath(getattr(layout, name))) for name in DIRECTORIES}
    real = {**found, "db": Path(os.path.realpath(layout.db))}
    for name, path in real.items():
        for other, directory in real.items():
            if name != other and path.is_relative_to(directory):
                raise ShardtoolError(
                    f"{path}: expected {name} and {other} to lie apart, found {name} in {other}; "
                    "correct the paths in config.toml"
                )
    return found
