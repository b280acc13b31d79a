"""Take a snapshot: copy under a temporary name, sync, read back, verify, and only then name it."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import socket
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from shardtool import __version__
from shardtool.datadir.layout import Layout
from shardtool.datadir.server import Search
from shardtool.disk.copy import (
    Entry,
    Meter,
    new_file,
    room_for,
    survey,
    sync_tree,
)
from shardtool.disk.durable import (
    READ_DIRECTORY,
    insist_on_same,
    new_directory,
    opened_quietly,
    write_all,
)
from shardtool.disk.mounts import mount_points, mounts_at_or_below
from shardtool.disk.remove import Removal, remove_tree
from shardtool.errors import ShardtoolError
from shardtool.snapshots import bag
from shardtool.snapshots.copying import Copy, place_of, survey_sources
from shardtool.snapshots.metadata import CONFIG, DIRECTORIES, MOST_BYTES, Metadata, new_id
from shardtool.snapshots.store import (
    PARTIAL,
    PRIVATE_DIRECTORY,
    describe,
    opened_store,
    remove_leftovers,
    sources_of,
    told,
)
from shardtool.snapshots.verify import Verification, verify


@dataclass(frozen=True)
class Backup:
    """A snapshot that was taken: where it is, what its verification found, what to be told."""

    path: Path
    verified: Verification
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Onward:
    """Where a snapshot goes from the directory in which it is taken.

    Args:
        is_taken: says whether an id is another one's there, and takes it if not.
        elsewhere: what to do where the directory has no room, for messages.
    """

    is_taken: Callable[[str], bool]
    elsewhere: str


def find_sources(layout: Layout) -> dict[str, Path]:
    """Return where raft, wal and config.toml are, links resolved.

    Raises:
        ShardtoolError: raft or wal is not there, or they lie in one another.
    """
    sources = sources_of(layout)
    for name in DIRECTORIES:
        if not sources[name].is_dir():
            raise ShardtoolError(
                f"{getattr(layout, name)}: expected the node's {name} directory, found none; "
                "a snapshot needs raft and wal: check --data, or use --influx-config"
            )
    if layout.config is not None:
        sources[CONFIG] = Path(os.path.realpath(layout.config))
    return sources


def take_snapshot(
    layout: Layout,
    store: Path,
    meter: Meter,
    *,
    live: bool,
    search: Search,
    onward: Onward | None = None,
) -> Backup:
    """Snapshot the node into `store`, whose lock and the node's the caller holds.

    Whatever goes wrong before it has its name, an interrupt included, what is there of the
    snapshot is removed; of a kill the next call removes what it left.

    Args:
        layout: the node.
        store: an existing directory.
        meter: makes what counts the bytes.
        live: copy until two passes agree, instead of failing on the first change.
        search: who is running on the node, for the metadata and the warnings.
        onward: where it goes from `store`, if that is not where it stays.

    Raises:
        ShardtoolError: it could not be taken; the line says why, and what is left of it.
    """
    sources = find_sources(layout)
    elsewhere = onward.elsewhere if onward else "name another place with --to DIR"
    free_room = f"free room there, or {elsewhere}"
    with opened_store(store) as directory:
        unread = f"check the disk, or {elsewhere}"
        with told(store, "to look through the snapshot directory", unread):
            leftovers = remove_leftovers(directory)
            first = survey_sources(sources)
            check_room(store, directory, first, elsewhere)
            name = _free_id(directory, onward)
        job = Copy(sources, store, live=live, free_room=free_room)
        with (
            _removed_unless_whole(directory, PARTIAL + name),
            told(store, "to write the snapshot", free_room),
        ):
            with _new_directory(PARTIAL + name, directory) as target:
                with meter("copying", sum(entry.size for entry in first)) as counter:
                    job.run(target, counter)
                metadata = _metadata(name, layout, job, search)
                _write_tag_files(target, store, bag.tag_files(metadata, job.digests()))
                _give_to_server(target, directory, sources["raft"])
                sync_tree(target)
                made = os.fstat(target)
            verified = verify(directory, PARTIAL + name, meter, identity=name)
            _insist_on(verified, store)
            os.rename(PARTIAL + name, name, src_dir_fd=directory, dst_dir_fd=directory)
        _make_sure_of(name, made, directory, store)
    same_disk = () if onward else _same_disk(store, job)
    warnings = [*same_disk, *_warnings(store, job, leftovers), *filter(None, [search.doubt])]
    return Backup(store / name, verified, tuple(warnings))


def _free_id(directory: int, onward: Onward | None) -> str:
    """Return an id that is free in the store, and onward too, where it is taken by that."""

    def is_taken(name: str) -> bool:
        if any(_exists(one, directory) for one in (name, PARTIAL + name)):
            return True
        return onward is not None and onward.is_taken(name)

    return new_id(time.time(), is_taken)


@contextlib.contextmanager
def _removed_unless_whole(directory: int, name: str) -> Iterator[None]:
    """Remove what the block has begun to write, if it fails: an interrupt too. What is not complete
    must not stay."""
    try:
        yield
    except BaseException as error:
        done = remove_tree(directory, name)
        if type(error) is not ShardtoolError or done == Removal():  # there was nothing yet
            raise
        what = f"could not be removed: {done.failures[0]}" if done.failures else "was removed"
        raise ShardtoolError(f"{error}; what was written of the snapshot {what}") from None


def _make_sure_of(name: str, made: os.stat_result, directory: int, store: Path) -> None:
    """Make a snapshot's name durable, and insist that it is still that of what we have made.

    Raises:
        ShardtoolError: it is not, or it can't be told.
    """
    advice = "see who else writes in that directory, and take another one"
    with told(store / name, "the snapshot that was written", advice):
        insist_on_same(name, made, dir_fd=directory)
    try:
        os.fsync(directory)
    except OSError as error:
        raise ShardtoolError(
            f"{store}: expected to make the name {name} durable, found: {describe(error)}; "
            "the snapshot stands there, verified, but may not outlive a power cut: check the "
            "disk and take another one"
        ) from None


def _give_to_server(target: int, store: int, raft: Path) -> None:
    """Give a snapshot that root took to the server's user, where the store is that user's too.

    Whoever owns raft can read the password hashes in it anyway, and has to see and restore
    what is in the node's own store. A store of somebody else's, root's own for instance, gets
    nothing that its owner could not read before: there the snapshot stays root's.

    From below, and the top last: until then nobody else can reach what is inside.

    Raises:
        OSError: it could not be given away.
    """
    owner = os.stat(raft)
    if os.geteuid() or os.fstat(store).st_uid != owner.st_uid:
        return
    for entry in reversed(survey(target)):
        os.chown(entry.path, owner.st_uid, owner.st_gid, dir_fd=target, follow_symlinks=False)
    os.fchown(target, owner.st_uid, owner.st_gid)


def _exists(name: str, directory: int) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


@contextlib.contextmanager
def _new_directory(name: str, directory: int) -> Iterator[int]:
    with new_directory(name, dir_fd=directory) as target:
        os.mkdir(bag.PAYLOAD, PRIVATE_DIRECTORY, dir_fd=target)
        yield target


def _write_tag_files(target: int, store: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        if len(content) > MOST_BYTES:
            raise ShardtoolError(
                f"{store}: expected raft and wal of some hundred files, found so many that "
                f"{name} would have {len(content):,} bytes, more than shardtool reads; "
                "move away what the server did not write"
            )
        with new_file(name, dir_fd=target) as file:
            write_all(file, content)


def _insist_on(verified: Verification, store: Path) -> None:
    for problem in verified.problems:
        raise ShardtoolError(
            f"{store}: expected to read back what was written, found {problem.path}: "
            f"{problem.what}; check the disk and the memory"
        )


def check_room(store: Path, directory: int, entries: Collection[Entry], elsewhere: str) -> None:
    """Refuse to begin what will not fit.

    Args:
        store: where a bag of `entries` is to go, for messages.
        directory: the same, open.
        entries: of the payload.
        elsewhere: what else to do than to free some room.

    Raises:
        ShardtoolError: the file system of the store has too little room or too few inodes.
    """
    room = os.fstatvfs(directory)
    free = room.f_bavail * room.f_frsize
    # Beside the payload: the tag files, a few hundred bytes for each entry.
    needed = room_for(entries, room.f_frsize) + 65536 + 512 * len(entries)
    if free < needed:
        raise ShardtoolError(
            f"{store}: expected room for {needed:,} bytes, found {free:,} free; "
            f"free some, or {elsewhere}"
        )
    inodes = len(entries) + 8
    if room.f_files and room.f_favail < inodes:
        raise ShardtoolError(
            f"{store}: expected room for {inodes:,} names, found {room.f_favail:,} inodes free; "
            f"free some, or {elsewhere}"
        )


def _metadata(name: str, layout: Layout, job: Copy, search: Search) -> Metadata:
    entries = tuple(replace(entry, identity=()) for entry in job.entries)
    return Metadata(
        id=name,
        live=job.live,
        sources={top: str(path) for top, path in job.sources.items()},
        entries=entries,
        users=_names({entry.uid for entry in entries}, lambda uid: pwd.getpwuid(uid).pw_name),
        groups=_names({entry.gid for entry in entries}, lambda gid: grp.getgrgid(gid).gr_name),
        left_out=job.left_out,
        node=_node(layout, search),
        made_by={"host": socket.gethostname(), "shardtool": __version__},
    )


def _names(numbers: set[int], look_up: Callable[[int], str]) -> dict[int, str]:
    found = {}
    for number in numbers:
        with contextlib.suppress(KeyError):
            found[number] = look_up(number)
    return found


def _node(layout: Layout, search: Search) -> dict[str, Any]:
    """Return what tells, years later, which step of the upgrade a snapshot is from."""
    counts = {}
    for key, shards in (("old_shards", layout.old_shards), ("new_shards", layout.new_shards)):
        try:
            with opened_quietly(shards, READ_DIRECTORY) as directory:
                counts[key] = len(os.listdir(directory))
        except OSError:
            counts[key] = 0
    return {
        "db": str(layout.db),
        **counts,
        "server": str(search.server) if search.server else None,
        "unseen_processes": search.unseen,
    }


def _same_disk(store: Path, job: Copy) -> Iterator[str]:
    raft = job.sources["raft"]
    if os.stat(store).st_dev == os.stat(raft).st_dev:
        yield (
            f"{store} is on the same file system as {raft}: a broken disk takes both; "
            "use --to DIR or SHARDTOOL_SNAPSHOTS"
        )


def _warnings(store: Path, job: Copy, leftovers: Iterable[str]) -> Iterator[str]:
    for failure in leftovers:
        yield f"{store}: what a killed run left could not be removed: {failure}"
    if CONFIG not in job.sources:
        yield "no config.toml was found, so none is in the snapshot; --influx-config names it"
    for path, kind in job.left_out:
        yield f"{place_of(path, job.sources)} is a {kind}: it has no content and was not copied"
    mounts = mount_points()
    for name in DIRECTORIES:
        for mount in mounts_at_or_below(job.sources[name], mounts):
            if mount != str(job.sources[name]):
                yield f"{mount} is a mount point: what is in it was copied as plain files"
