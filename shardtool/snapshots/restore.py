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
import shlex
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
    give_to_owner_of,
    make_directories,
    opened,
    opened_quietly,
    sync_directory,
)
from shardtool.disk.mounts import mount_points, mounts_at_or_below
from shardtool.disk.remove import remove_tree
from shardtool.errors import ShardtoolError
from shardtool.journal import Journal
from shardtool.snapshots import bag
from shardtool.snapshots.address import Place
from shardtool.snapshots.metadata import Metadata, new_id
from shardtool.snapshots.pending import Pending, Staged, pending_restore, write_pending
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
            advice = "nothing was changed: free room there, or restore elsewhere with --to DIR"
            with (
                told(move.staged, "to stage the snapshot", advice),
                opened(verified.id, READ_DIRECTORY_ITSELF, dir_fd=store) as source,
                opened(move.staged.parent, READ_DIRECTORY) as parent,
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
        with contextlib.suppress(OSError), opened(move.staged.parent, READ_DIRECTORY) as parent:
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
                warnings = stage(store, verified, moves, meter)
                give_to_owner_of(like, staging)
                os.chmod(staging.name, mode, dir_fd=parent)
                sync_directory(staging)
                # rename(2) replaces an empty directory, and no other.
                os.rename(staging.name, target.name, src_dir_fd=parent, dst_dir_fd=parent)
            except BaseException:
                remove_tree(parent, staging.name)
                raise
            try:
                os.fsync(parent)
            except OSError as error:
                raise ShardtoolError(
                    f"{target}: expected to make its name durable, found: {describe(error)}; "
                    "the snapshot stands there, verified, but may not outlive a power cut: check "
                    "the disk, and restore to another place"
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


def pending_of(snapshot: str, path: Place, stamp: str, moves: tuple[Move, ...]) -> Pending:
    """Return what goes into the pending file, once everything is staged.

    Raises:
        ShardtoolError: what was staged is not there any more.
    """
    staged = []
    for move in moves:
        with told(move.staged, "what was staged just now", "run restore again"):
            found = os.stat(move.staged, follow_symlinks=False)
        staged.append(Staged(str(move.place), found.st_ino, found.st_mtime_ns))
    return Pending(snapshot, str(path), stamp, tuple(staged))


def begin(
    layout: Layout, pending: Pending, moves: tuple[Move, ...], check: Callable[[], object]
) -> None:
    """Write journal and pending file: from here on the swap is finished by whoever comes.

    When this raises, nothing has been moved and what was staged is gone, or the pending file
    stands. An older pending file, of a restore that can't be finished, is replaced by one
    rename: at no moment is the node without one.

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
        if not _may_stand(layout, pending):
            remove_staged(moves)
        raise


def _may_stand(layout: Layout, pending: Pending) -> bool:
    try:
        return pending_restore(layout) == pending
    except ShardtoolError:
        return True  # what can't be read may be it: what was staged must not go


def finish(layout: Layout, pending: Pending) -> tuple[Path, ...]:
    """Swap, write the journal, remove the pending file; safe to do again after a kill.

    Returns:
        The names under which the old raft and wal are now.

    Raises:
        ShardtoolError, OSError: it could not be finished; the pending file stands.
    """
    moves = moves_for(layout, pending.stamp)
    problem = why_unfinishable(layout, pending)
    if problem:
        raise ShardtoolError(problem)
    try:
        aside = _swap(moves, pending)
    except OSError as error:
        raise ShardtoolError(
            f"{layout.name}: expected to set raft and wal aside and to put the staged ones in "
            f"their places, found: {describe(error)}; nothing is lost: correct that and run "
            f"restore again, or go back by hand: {_way_back(layout, moves, pending)}"
        ) from None
    Journal(layout).append(
        "restored",
        snapshot=pending.snapshot,
        path=pending.path,
        stamp=pending.stamp,
        set_aside=[str(path) for path in aside],
    )
    layout.pending_restore.unlink(missing_ok=True)
    sync_directory(layout.own)
    return aside


def _swap(moves: tuple[Move, ...], pending: Pending) -> tuple[Path, ...]:
    """Set aside what is in the places and put what is staged there; safe to do again.

    All old ones go first: from then on the old set is whole under its names aside, and the
    new one whole under its staged names or in place.

    Returns:
        The names under which something was set aside, by this call or the one it finishes.

    Raises:
        OSError: a rename failed.
    """
    waiting = [
        move
        for move, staged in zip(moves, pending.staged, strict=True)
        if not _is_it(move.place, staged)
    ]
    for move in waiting:
        if os.path.lexists(move.place):
            os.rename(move.place, _free_name(move.aside))
            sync_directory(move.place.parent)
    for move in waiting:
        os.rename(move.staged, move.place)
        sync_directory(move.place.parent)
    return set_aside(moves)


def _is_it(path: Path, staged: Staged) -> bool:
    """Say whether what was staged is at `path` now."""
    try:
        found = os.stat(path, follow_symlinks=False)
    except OSError:
        return False
    return (found.st_ino, found.st_mtime_ns) == (staged.inode, staged.mtime_ns)


def is_swapped(layout: Layout, pending: Pending) -> bool:
    """Say whether all that was staged is in its place: a kill came after the last rename."""
    moves = moves_for(layout, pending.stamp)
    return all(
        _is_it(move.place, staged) for move, staged in zip(moves, pending.staged, strict=True)
    )


def why_unfinishable(layout: Layout, pending: Pending) -> str:
    """Say why the pending restore can't be finished, and how to get out; empty where it can.

    Each place must hold what was staged for it, or that must still be under its staged name:
    known by its inode, for what a name stands for may have been replaced.
    """
    moves = moves_for(layout, pending.stamp)
    lost = [
        move
        for move, staged in zip(moves, pending.staged, strict=True)
        if not _is_it(move.place, staged) and not _is_it(move.staged, staged)
    ]
    if not lost:
        return ""
    begun_for = [staged.place for staged in pending.staged]
    moved = begun_for != [str(move.place) for move in moves]
    elsewhere = f" (it was begun for {' and '.join(begun_for)})" if moved else ""
    return (
        f"{layout.name}: expected what the interrupted restore of {pending.snapshot} had staged, "
        f"found {' and '.join(str(move.staged) for move in lost)} gone or changed{elsewhere}; "
        f"{_where_things_are(moves, pending)}; restore a snapshot anew, which deletes nothing: "
        f"shardtool restore ID --yes; or go back by hand: {_way_back(layout, moves, pending)}"
    )


def _where_things_are(moves: tuple[Move, ...], pending: Pending) -> str:
    told_of = []
    for move, staged in zip(moves, pending.staged, strict=True):
        if _is_it(move.place, staged):
            what = "is the restored one"
        elif os.path.lexists(move.place):
            what = "is not the restored one"
        else:
            what = "is missing"
        aside = set_aside((move,))
        before = f", the one before it is {aside[0]}" if aside else ""
        told_of.append(f"{move.place} {what}{before}")
    return "; ".join(told_of)


def _way_back(layout: Layout, moves: tuple[Move, ...], pending: Pending) -> str:
    """Return the shell's words that put back what was set aside, and delete nothing of it.

    What the restore put where nothing was goes out of the way too: it is half of a set.
    """
    words = []
    for move, staged in zip(moves, pending.staged, strict=True):
        aside = set_aside((move,))
        if os.path.lexists(move.place) and (aside or _is_it(move.place, staged)):
            away = _free_name(move.place.with_name(f"{move.place.name}.half-restored"))
            words.append(f"mv -T {shlex.quote(str(move.place))} {shlex.quote(str(away))}")
        if aside:
            words.append(f"mv -T {shlex.quote(str(aside[0]))} {shlex.quote(str(move.place))}")
    return " && ".join([*words, f"rm {shlex.quote(str(layout.pending_restore))}"])


def set_aside(moves: tuple[Move, ...]) -> tuple[Path, ...]:
    """Return the names under which restores have set aside what was in the places."""
    return tuple(path for move in moves for path in _names_aside(move))


def _free_name(path: Path) -> Path:
    """Return `path`, or path-2 and so on where that is taken: a server that was started on a
    half-restored directory makes new ones, and they are nobody's to lose."""
    names = (path if n == 1 else path.with_name(f"{path.name}-{n}") for n in range(1, 1000))
    return next(name for name in names if not os.path.lexists(name))


def _names_aside(move: Move) -> list[Path]:
    """Return the names of one restore, the first of them first."""
    if not move.aside.parent.is_dir():
        return []
    ours = re.compile(f"{re.escape(move.aside.name)}(-\\d{{1,3}})?", re.ASCII)
    with opened_quietly(move.aside.parent, READ_DIRECTORY) as directory:
        names = sorted(filter(ours.fullmatch, os.listdir(directory)), key=lambda n: (len(n), n))
    return [move.aside.with_name(name) for name in names]


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
