"""Put a snapshot back: stage it whole beside the real directories, then swap by rename.

Between the first and the last rename a small pending file stands in db/.shardtool: whoever
finds it finishes the swap, which needs nothing but the names.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import re
import stat
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from shardtool.datadir.layout import Layout
from shardtool.disk.copy import (
    Counter,
    Entry,
    Meter,
    Reader,
    entry_of,
    new_file,
    open_regular,
    opened_below,
    room_for,
    set_attributes,
    survey,
    sync_tree,
)
from shardtool.disk.durable import (
    READ_DIRECTORY,
    READ_DIRECTORY_ITSELF,
    make_directories,
    opened,
    sync_directory,
)
from shardtool.disk.mounts import mount_points, mounts_at_or_below
from shardtool.disk.remove import remove_tree
from shardtool.errors import ShardtoolError
from shardtool.journal import Journal
from shardtool.snapshots import bag
from shardtool.snapshots.metadata import Metadata, new_id
from shardtool.snapshots.pending import Pending, write_pending
from shardtool.snapshots.store import PRIVATE_DIRECTORY, sources_of, told
from shardtool.snapshots.verify import Verification

STAGED = ".restoring-"
ASIDE = ".before-restore-"
_LEFTOVER = re.compile(
    r"(raft|wal|config\.toml)\.restoring-\d{8}T\d{6}Z(-\d+)?(\.below\.\d+)*", re.ASCII
)


@dataclass(frozen=True)
class Move:
    """One of raft, wal and config.toml on its way to its place.

    Args:
        name: what it is called in the snapshot.
        place: where it goes, links resolved.
        staged: the complete new one, beside its place.
        aside: the name that what is at its place now gets.
    """

    name: str
    place: Path
    staged: Path
    aside: Path


def new_stamp(layout: Layout) -> str:
    """Return the time now as it goes into names, with a number where such names are taken.

    Raises:
        ShardtoolError: raft, wal and db lie in one another.
    """
    return new_id(
        time.time(),
        lambda stamp: any(
            os.path.lexists(path)
            for move in moves_for(layout, stamp)
            for path in (move.staged, move.aside)
        ),
    )


def moves_for(layout: Layout, stamp: str) -> tuple[Move, ...]:
    """Return how raft and wal of `layout` are replaced under names with the UTC time `stamp`.

    Raises:
        ShardtoolError: raft, wal and db lie in one another.
    """
    return _moves(sources_of(layout), stamp)


def moves_into(target: Path, metadata: Metadata, stamp: str) -> tuple[Move, ...]:
    """Return how all that a snapshot holds goes below directory `target`."""
    tops = (entry.path for entry in metadata.entries if "/" not in entry.path)
    return _moves({name: target / name for name in tops}, stamp)


def _moves(places: Mapping[str, Path], stamp: str) -> tuple[Move, ...]:
    return tuple(
        Move(
            name,
            place,
            place.with_name(f"{name}{STAGED}{stamp}"),
            place.with_name(f"{place.name}{ASIDE}{stamp}"),
        )
        for name, place in places.items()
    )


def refuse_immovable(moves: tuple[Move, ...]) -> None:
    """Refuse up front what no rename can replace.

    Raises:
        ShardtoolError: a place, or something below it, is a mount point, or its parent is not
            there.
    """
    mounts = mount_points()
    for move in moves:
        for mount in mounts_at_or_below(move.place, mounts):
            raise ShardtoolError(
                f"{move.place}: expected a directory that a rename can set aside, found "
                f"{mount} mounted; restore elsewhere with --to DIR and copy it over"
            )
        if not move.place.parent.is_dir():
            raise ShardtoolError(
                f"{move.place}: expected its parent directory to be there, found none; "
                "create or mount it"
            )


def prepare_target(target: Path) -> None:
    """Make `target` an empty directory, without what a killed restore left in it.

    Raises:
        ShardtoolError: it is no directory, or something else is in it.
    """
    with told(target, "a directory that does not exist or is empty", "name another one"):
        make_directories(target, like=next(p for p in target.parents if p.is_dir()))
        remove_leftovers(target)
        if os.listdir(target):
            raise OSError(0, "one with something in it", str(target))


def remove_leftovers(parent: Path) -> None:
    """Remove from `parent` what killed restores staged there and no pending file names.

    Raises:
        OSError: the directory can't be read.
    """
    with opened(parent, READ_DIRECTORY) as directory:
        for name in sorted(os.listdir(directory)):
            if _LEFTOVER.fullmatch(name):
                remove_tree(directory, name)


def stage(
    store: int, verified: Verification, moves: tuple[Move, ...], meter: Meter
) -> tuple[str, ...]:
    """Build everything new beside its place: written, synced, read back, compared.

    Whatever goes wrong, an interrupt included, nothing of it is left.

    Args:
        store: the store's directory.
        verified: the snapshot, read again and found good.
        moves: what goes where.
        meter: makes what counts the bytes.

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
            advice = "nothing was changed: free room there, or restore with --to DIR"
            with (
                told(move.staged, "to stage the snapshot", advice),
                opened(verified.id, READ_DIRECTORY_ITSELF, dir_fd=store) as source,
                opened(move.place.parent, READ_DIRECTORY) as parent,
            ):
                wanted = _wanted(verified.metadata, move)
                warnings += _stage_one(source, parent, wanted, verified, meter)
                os.fsync(parent)
    except BaseException:
        remove_staged(moves)
        raise
    return tuple(dict.fromkeys(warnings))


def remove_staged(moves: tuple[Move, ...]) -> None:
    """Remove what was staged; what resists, the next restore removes."""
    for move in moves:
        with contextlib.suppress(OSError), opened(move.place.parent, READ_DIRECTORY) as parent:
            remove_tree(parent, move.staged.name)


@dataclass(frozen=True)
class _Wanted:
    """The entries of one move, under their paths in the bag and below the staged name."""

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
        path = move.staged.name + slash + rest
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


def _stage_one(
    source: int, parent: int, wanted: _Wanted, verified: Verification, meter: Meter
) -> tuple[str, ...]:
    total = sum(entry.size for entry in wanted.entries)
    with Reader() as reader:
        with meter("staging", total) as counter:
            for entry in wanted.entries:
                _make(entry, wanted.sources[entry.path], source, parent, reader, counter)
        set_attributes(wanted.entries, wanted.owners, dir_fd=parent)
        top = wanted.entries[0]
        if top.kind == "file":
            with open_regular(top.path, dir_fd=parent) as file:
                os.fsync(file)
            found = [entry_of(top.path, os.stat(top.path, dir_fd=parent))]
        else:
            with opened(top.path, READ_DIRECTORY_ITSELF, dir_fd=parent) as staged:
                sync_tree(staged)
                found = survey(staged, top.path)
        with meter("verifying", total) as counter:
            for entry in wanted.entries:
                if entry.kind == "file":
                    with opened_below(parent, entry.path) as file:
                        digest, _ = reader.digest_from_disk(file, counter)
                    if digest != verified.digests[wanted.sources[entry.path]]:
                        raise OSError(0, "other bytes than were in the snapshot", entry.path)
    return _compare(wanted, found)


def _make(
    entry: Entry, source_path: str, source: int, parent: int, reader: Reader, counter: Counter
) -> None:
    if entry.kind == "directory":
        os.mkdir(entry.path, PRIVATE_DIRECTORY, dir_fd=parent)
    elif entry.kind == "link":
        os.symlink(entry.target, entry.path, dir_fd=parent)
    else:
        with opened_below(source, source_path) as file, new_file(entry.path, dir_fd=parent) as new:
            reader.digest(file, counter, target=new, most=entry.size)


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
            raise OSError(0, f"{entry.path} not as it is in the snapshot", entry.path)
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
        parent = move.place.parent
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


def begin(
    layout: Layout, pending: Pending, moves: tuple[Move, ...], check: Callable[[], None]
) -> None:
    """Write journal and pending file: from here on the swap is finished by whoever comes.

    When this raises, nothing has been moved and what was staged is gone, or the pending file
    stands.

    Args:
        layout: the node.
        pending: the restore.
        moves: its moves, staged.
        check: raises where something is in the way by now; staging takes its time.

    Raises:
        ShardtoolError, OSError: one of them can't be written.
    """
    try:
        check()
        Journal(layout).append(
            "restore-intent",
            **asdict(pending),
            moves=[{"place": str(move.place), "aside": str(move.aside)} for move in moves],
        )
        write_pending(layout, pending)
    except BaseException:
        if not os.path.lexists(layout.pending_restore):
            remove_staged(moves)
        raise


def finish(layout: Layout, pending: Pending) -> tuple[Path, ...]:
    """Swap, write the journal, remove the pending file; safe to do again after a kill.

    Returns:
        The names under which the old raft and wal are now.

    Raises:
        ShardtoolError, OSError: it could not be finished; the pending file stands.
    """
    aside = swap(moves_for(layout, pending.stamp))
    Journal(layout).append("restored", **asdict(pending), set_aside=[str(path) for path in aside])
    layout.pending_restore.unlink(missing_ok=True)
    sync_directory(layout.own)
    return aside


def swap(moves: tuple[Move, ...]) -> tuple[Path, ...]:
    """Set aside what is in the places and put what is staged there; safe to do again.

    All old ones go first: from then on the old set is whole under its names aside, and the
    new one whole under its staged names or in place.

    Returns:
        The names under which something was set aside, by this call or the one it finishes.

    Raises:
        ShardtoolError: neither a place nor what was staged for it is there.
        OSError: a rename failed.
    """
    for move in moves:
        if not os.path.lexists(move.staged) and not os.path.lexists(move.place):
            raise ShardtoolError(
                f"{move.staged}: expected what was staged for {move.place}, found neither; "
                f"what was there before is {move.aside}"
            )
    for move in moves:
        if os.path.lexists(move.staged) and os.path.lexists(move.place):
            os.rename(move.place, _free_name(move.aside))
            sync_directory(move.place.parent)
    for move in moves:
        if os.path.lexists(move.staged):
            os.rename(move.staged, move.place)
            sync_directory(move.place.parent)
    return tuple(path for move in moves for path in _names_aside(move))


def _free_name(path: Path) -> Path:
    """Return `path`, or path-2 and so on where that is taken: a server that was started on a
    half-restored directory makes new ones, and they are nobody's to lose."""
    names = (path if n == 1 else path.with_name(f"{path.name}-{n}") for n in range(1, 1000))
    return next(name for name in names if not os.path.lexists(name))


def _names_aside(move: Move) -> list[Path]:
    names = sorted(os.listdir(move.aside.parent))
    return [move.aside.with_name(name) for name in names if name.startswith(move.aside.name)]


def prepare_node(layout: Layout, moves: tuple[Move, ...]) -> None:
    """Make the directory of the pending file, and remove what killed restores staged.

    Raises:
        ShardtoolError: either could not be done.
    """
    above = next(path for path in layout.own.parents if path.is_dir())
    with told(layout.own, "to write there", "run this as the server's user or as root"):
        make_directories(layout.own, like=above)
    for parent in {move.place.parent for move in moves}:
        with told(parent, "to write there", "run this as the server's user or as root"):
            remove_leftovers(parent)
