"""Put a snapshot back: stage it whole beside the real directories; swap.py renames it in."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import re
import stat
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from shardtool.datadir.layout import Layout
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
    give_to_owner_of,
    insist_on_same,
    make_directories,
    opened,
    opened_quietly,
    take_new_directory,
)
from shardtool.disk.mounts import mount_points, mounts_at_or_below
from shardtool.disk.remove import remove_tree
from shardtool.errors import ShardtoolError
from shardtool.snapshots import bag
from shardtool.snapshots.metadata import Metadata, new_id
from shardtool.snapshots.pending import Pending
from shardtool.snapshots.store import AS_WHOM, PRIVATE_DIRECTORY, describe, sources_of, told
from shardtool.snapshots.verify import Verification

STAGED = ".restoring-"
ASIDE = ".before-restore-"
_STAMP = r"\d{8}T\d{6}Z(-\d+)?"
_LIFTED = r"(\.below\.\d+)*"
# What may come behind a name of ours: a number where it is taken, .below.N when it is removed.
_ROOM_FOR_SUFFIX = 16


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


def moves_into(target: Path, metadata: Metadata) -> tuple[Move, ...]:
    """Return how all that a snapshot holds goes below the new directory `target`."""
    tops = (entry.path for entry in metadata.entries if "/" not in entry.path)
    return tuple(Move(name, target / name, target / name, target / name) for name in tops)


def _moves(places: Mapping[str, Path], stamp: str) -> tuple[Move, ...]:
    return tuple(
        Move(
            name,
            place,
            place.with_name(f"{place.name}{STAGED}{stamp}"),
            place.with_name(f"{place.name}{ASIDE}{stamp}"),
        )
        for name, place in places.items()
    )


def refuse_immovable(moves: tuple[Move, ...]) -> None:
    """Refuse up front what no rename can replace.

    Raises:
        ShardtoolError: a place, or something below it, is a mount point, its parent is not
            there, or its name is too long to get anything appended.
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
        longest = max(len(os.fsencode(path.name)) for path in (move.staged, move.aside))
        most = os.pathconf(move.place.parent, "PC_NAME_MAX")
        if longest + _ROOM_FOR_SUFFIX > most:
            raise ShardtoolError(
                f"{move.place}: expected a name that {ASIDE}TIME fits behind, found it too long "
                f"(names here have {most} bytes at the most); restore elsewhere with --to DIR"
            )


def _remove_leftovers(move: Move, keep: str) -> None:
    """Remove what killed restores staged for one place, and nobody else's: another node's raft
    may lie beside this one.

    Args:
        move: whose place it is.
        keep: the stamp of a pending restore, whose staged set stays; or empty.

    Raises:
        OSError: the directory can't be read.
    """
    leftover = re.compile(f"{re.escape(move.place.name)}{STAGED}({_STAMP}){_LIFTED}", re.ASCII)
    with opened_quietly(move.place.parent, READ_DIRECTORY) as directory:
        for name in sorted(os.listdir(directory)):
            match = leftover.fullmatch(name)
            if match and match[1] != keep:
                remove_tree(directory, name)


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
            ):
                wanted = _wanted(verified.metadata, move)
                warnings += _stage_one(source, parent, move.staged.name, wanted, verified, meter)
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


def _stage_one(
    source: int, parent: int, name: str, wanted: _Wanted, verified: Verification, meter: Meter
) -> tuple[str, ...]:
    top, *below = wanted.entries
    is_file = top.kind == "file"
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL if is_file else READ_DIRECTORY_ITSELF
    if not is_file:
        os.mkdir(name, PRIVATE_DIRECTORY, dir_fd=parent)
    total = sum(entry.size for entry in wanted.entries)
    with opened(name, flags, dir_fd=parent) as staged, Reader() as reader:
        if is_file:
            os.fchmod(staged, PRIVATE_FILE)
        else:
            take_new_directory(name, staged)
        with meter("staging", total) as counter:
            if is_file:
                with opened_below(source, wanted.sources[top.path]) as file:
                    reader.digest(file, counter, target=staged, most=top.size)
            for entry in below:
                _make(entry, wanted.sources[entry.path], source, staged, reader, counter)
        set_attributes(below, wanted.owners, dir_fd=staged)
        if is_file:
            os.fsync(staged)
        else:
            sync_tree(staged)
        with meter("verifying", total) as counter:
            for entry in wanted.entries:
                if entry.kind == "file":
                    with _reread(staged, entry, is_file=is_file) as file:
                        digest, _ = reader.digest_from_disk(file, counter)
                    if digest != verified.digests[wanted.sources[entry.path]]:
                        raise OSError(0, "other bytes than were in the snapshot", entry.path)
        found = [] if is_file else survey(staged)
        # From here on others can get in, or find it.
        if os.geteuid() == 0:
            os.fchown(staged, *wanted.owners[top.path])
        os.fchmod(staged, top.mode)
        os.utime(staged, ns=(top.mtime_ns, top.mtime_ns))
        os.fsync(staged)
        first = entry_of(top.path, os.fstat(staged))
    return _compare(wanted, [first, *(replace(one, path=f"./{one.path}") for one in found)])


def _reread(staged: int, entry: Entry, *, is_file: bool) -> AbstractContextManager[int]:
    if not is_file:
        return opened_below(staged, entry.path)
    os.lseek(staged, 0, os.SEEK_SET)
    return nullcontext(staged)


def _make(
    entry: Entry, source_path: str, source: int, staged: int, reader: Reader, counter: Counter
) -> None:
    if entry.kind == "directory":
        os.mkdir(entry.path, PRIVATE_DIRECTORY, dir_fd=staged)
    elif entry.kind == "link":
        os.symlink(entry.target, entry.path, dir_fd=staged)
    else:
        with opened_below(source, source_path) as file, new_file(entry.path, dir_fd=staged) as new:
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


def restore_to(store: int, verified: Verification, target: Path, meter: Meter) -> tuple[str, ...]:
    """Put all that a snapshot holds into `target`, a directory that is new or empty.

    It is staged whole beside `target` and gets its name by one rename: whatever goes wrong,
    `target` is as it was. What a kill leaves has the name of the target and of the snapshot,
    and the same command removes it.

    Args:
        store: the store's directory.
        verified: the snapshot, read again and found good.
        target: links resolved.
        meter: makes what counts the bytes.

    Returns:
        What could not be made as it was, for people.

    Raises:
        ShardtoolError: something is in the target, or it could not be written.
    """
    assert verified.metadata is not None
    with told(target, "a directory that does not exist or is empty", "name another one"):
        mode = _mode_of_empty(target)
    staging = target.with_name(f"{target.name}{STAGED}{verified.id}")
    moves = moves_into(staging, verified.metadata)
    with told(target, "to put the snapshot there", "name another place with --to DIR"):
        like = next(path for path in (target, *target.parents) if path.is_dir())
        make_directories(target.parent, like=like)
        with opened(target.parent, READ_DIRECTORY) as parent:
            remove_tree(parent, staging.name)
            try:
                os.mkdir(staging.name, PRIVATE_DIRECTORY, dir_fd=parent)
                with opened(staging.name, READ_DIRECTORY_ITSELF, dir_fd=parent) as made:
                    take_new_directory(staging.name, made)
                    warnings = stage(store, verified, moves, meter, into=made)
                    give_to_owner_of(like, made)
                    os.fchmod(made, mode)
                    os.fsync(made)
                    facts = os.fstat(made)
                # rename(2) replaces an empty directory, and no other.
                os.rename(staging.name, target.name, src_dir_fd=parent, dst_dir_fd=parent)
            except BaseException:
                remove_tree(parent, staging.name)
                raise
            try:
                insist_on_same(target.name, facts, dir_fd=parent)
                os.fsync(parent)
            except OSError as error:
                raise ShardtoolError(
                    f"{target}: expected to make its name durable, found: {describe(error)}; "
                    "unless another process has moved it the snapshot stands there, verified, but "
                    "may not outlive a power cut: check the disk, and restore to another place"
                ) from None
    return warnings


def _mode_of_empty(target: Path) -> int:
    """Return the mode of the empty directory `target`, or what a new one gets.

    Raises:
        OSError: it is something else, or a mount point, which no rename replaces.
    """
    try:
        with opened_quietly(target, READ_DIRECTORY) as directory:
            if os.listdir(directory):
                raise OSError(0, "one with something in it", str(target))
            mode = stat.S_IMODE(os.fstat(directory).st_mode)
            if str(target) in mount_points():
                raise OSError(0, "a mount point: name a directory in it", str(target))
    except FileNotFoundError:
        return 0o755
    return mode


def prepare_node(layout: Layout, moves: tuple[Move, ...], unfinished: Pending | None) -> None:
    """Make the directory of the pending file, and remove what killed restores staged.

    Args:
        layout: the node.
        moves: of the restore that is to begin.
        unfinished: the pending restore that it replaces; what that staged stays.

    Raises:
        ShardtoolError: either could not be done.
    """
    above = next(path for path in layout.own.parents if path.is_dir())
    with told(layout.own, "to write there", AS_WHOM):
        make_directories(layout.own, like=above)
    for move in moves:
        with told(move.place.parent, "to write there", AS_WHOM):
            _remove_leftovers(move, unfinished.stamp if unfinished else "")
