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
    Counter,
    Entry,
    Meter,
    Reader,
    entry_of,
    new_file,
    open_regular,
    opened_below,
    room_for,
    survey,
    sync_tree,
)
from shardtool.disk.durable import (
    READ_DIRECTORY,
    READ_DIRECTORY_ITSELF,
    opened,
    opened_quietly,
    write_all,
)
from shardtool.disk.mounts import mount_points, mounts_at_or_below
from shardtool.disk.remove import remove_tree
from shardtool.errors import ShardtoolError
from shardtool.snapshots import bag
from shardtool.snapshots.metadata import CONFIG, DIRECTORIES, MOST_BYTES, Metadata, new_id
from shardtool.snapshots.store import (
    AS_WHOM,
    PARTIAL,
    PRIVATE_DIRECTORY,
    describe,
    opened_store,
    remove_leftovers,
    sources_of,
    told,
)
from shardtool.snapshots.verify import Verification, verify

# How often a live copy looks again, and how long it waits before: some 12 s in all. A server
# that never pauses for so long can't be copied while it runs.
_LIVE_PAUSES = (0.1, 0.2, 0.4, 0.8, 1.0, 1.5, 2.0, 2.0, 2.0, 2.0)

# What a snapshot holds of a tree; sockets, FIFOs and devices have no content to copy.
_COPIED = ("file", "directory", "link")


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
        leftovers = remove_leftovers(directory)
        first = _survey(sources)
        check_room(store, directory, first, elsewhere)
        name = new_id(
            time.time(),
            lambda name: (
                any(_exists(n, directory) for n in (name, PARTIAL + name))
                or (onward is not None and onward.is_taken(name))
            ),
        )
        job = _Copy(sources, store, live=live, free_room=free_room)
        try:
            with told(store, "to write the snapshot", free_room):
                with _new_directory(PARTIAL + name, directory) as target:
                    with meter("copying", sum(entry.size for entry in first)) as counter:
                        job.run(target, counter)
                    metadata = _metadata(name, layout, job, search)
                    _write_tag_files(target, store, bag.tag_files(metadata, job.digests()))
                    _give_to_server(target, directory, sources["raft"])
                    sync_tree(target)
                verified = verify(directory, PARTIAL + name, meter, identity=name)
                _insist_on(verified, store)
                os.rename(PARTIAL + name, name, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException as error:
            # An interrupt too: what is not complete must not stay.
            left = remove_tree(directory, PARTIAL + name).failures
            if type(error) is not ShardtoolError:
                raise
            what = f"could not be removed: {left[0]}" if left else "was removed"
            raise ShardtoolError(f"{error}; what was written of the snapshot {what}") from None
        try:
            os.fsync(directory)
        except OSError as error:
            raise ShardtoolError(
                f"{store}: expected to make the name {name} durable, found: {describe(error)}; "
                "the snapshot stands there, verified, but may not outlive a power cut: check the "
                "disk and take another one"
            ) from None
    same_disk = () if onward else _same_disk(store, job)
    warnings = [*same_disk, *_warnings(store, job, leftovers), *filter(None, [search.doubt])]
    return Backup(store / name, verified, tuple(warnings))


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
    os.mkdir(name, PRIVATE_DIRECTORY, dir_fd=directory)
    with opened(name, READ_DIRECTORY_ITSELF, dir_fd=directory) as target:
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


def _survey(sources: Mapping[str, Path]) -> list[Entry]:
    """List all that is in the sources, and refuse what a snapshot can't carry.

    Raises:
        ShardtoolError: something can't be read or has a name that no manifest carries.
    """
    entries: list[Entry] = []
    for name, path in sources.items():
        with told(path, "to read it", AS_WHOM):
            if name == CONFIG:
                entries.append(entry_of(name, os.stat(path, follow_symlinks=False)))
            else:
                with opened_quietly(path, READ_DIRECTORY) as root:
                    entries += survey(root, name)
    problem = bag.problem_with_names(entry.path for entry in entries if entry.kind in _COPIED)
    if problem:
        raise ShardtoolError(
            f"{_place(problem[0], sources)}: expected a name that a manifest can carry, found "
            f"{problem[1]}; the server writes no such name: move it away"
        )
    for entry in entries:
        if entry.kind == "unreadable":
            raise _unreadable(entry.path, sources, entry.target)
    return entries


def _place(path: str, sources: Mapping[str, Path]) -> Path:
    """Given a path in the snapshot, return where it was on the node."""
    top, _, rest = path.partition("/")
    return sources[top] / rest if rest else sources[top]


class _Copy:
    """One copy of the sources into a directory, brought up to date until nothing moves."""

    def __init__(
        self, sources: Mapping[str, Path], store: Path, *, live: bool, free_room: str
    ) -> None:
        self.sources = sources
        self.live = live
        self._free_room = free_room
        self._store = store
        self._target = -1
        self._copied: dict[str, tuple[Entry, str]] = {}  # files, with their SHA-256
        self.entries: list[Entry] = []
        self.left_out: tuple[tuple[str, str], ...] = ()

    def digests(self) -> dict[str, str]:
        """Return SHA-256 in hex of each file, by its path in the bag."""
        return {f"{bag.PAYLOAD}/{path}": digest for path, (_, digest) in self._copied.items()}

    def run(self, target: int, counter: Counter) -> None:
        """Copy; a live one again and again until a pass finds every byte as the one before.

        Args:
            target: the new bag's directory.
            counter: counts the bytes.

        Raises:
            ShardtoolError: the sources changed under a copy of a stopped server, or did not
                keep still for one pass of a live copy.
        """
        changed: list[str] = []
        with (
            Reader() as reader,
            opened(bag.PAYLOAD, READ_DIRECTORY_ITSELF, dir_fd=target) as self._target,
        ):
            for pause in (0.0, *_LIVE_PAUSES) if self.live else (0.0,):
                time.sleep(pause)
                seen = _survey(self.sources)
                changed = self._update(seen, reader, counter)
                moved = _difference(seen, _survey(self.sources))
                if moved is None and not (changed and self.live):
                    self._keep(seen)
                    return
                changed = [moved] if moved is not None else changed
        found = f"{_place(changed[0], self.sources)} changed while it was copied"
        if self.live:
            raise ShardtoolError(
                f"{self.sources['raft']}: expected raft and wal to keep still for one pass, found "
                f"them still being written ({found}); try again, or stop the server"
            )
        raise ShardtoolError(
            f"{self.sources['raft']}: expected nobody to write, found that {found}; "
            "stop what writes there, or take a --live snapshot"
        )

    def _keep(self, seen: list[Entry]) -> None:
        self.entries = [entry for entry in seen if entry.kind in _COPIED]
        self.left_out = tuple((e.path, e.kind) for e in seen if e.kind not in _COPIED)

    def _update(self, seen: list[Entry], reader: Reader, counter: Counter) -> list[str]:
        """Bring the copy to what was `seen`; return the paths whose bytes were not the same."""
        self._remove_what_is_not_in(seen)
        changed = []
        for entry in seen:
            if entry.kind == "directory":
                with contextlib.suppress(FileExistsError):
                    os.mkdir(entry.path, PRIVATE_DIRECTORY, dir_fd=self._target)
            elif entry.kind == "file" and not self._is_as_copied(entry, reader, counter):
                changed.append(entry.path)
                self._copy_file(entry, reader, counter)
        return changed

    def _remove_what_is_not_in(self, seen: list[Entry]) -> None:
        kinds = {entry.path: entry.kind for entry in seen}
        for entry in reversed(survey(self._target)):
            if kinds.get(entry.path) == entry.kind:
                continue
            if entry.kind == "directory":
                os.rmdir(entry.path, dir_fd=self._target)
            else:
                self._remove_file(entry.path)

    def _remove_file(self, path: str) -> None:
        self._copied.pop(path, None)
        os.unlink(path, dir_fd=self._target)

    def _is_as_copied(self, entry: Entry, reader: Reader, counter: Counter) -> bool:
        """Say whether a file still has the bytes that were copied: by its stat, and by reading."""
        old, digest = self._copied.get(entry.path, (None, ""))
        if old != entry:
            return False
        try:
            with self._opened_source(entry.path) as source:
                return reader.digest(source, counter, most=entry.size) == (digest, entry.size)
        except FileNotFoundError:
            return False

    def _copy_file(self, entry: Entry, reader: Reader, counter: Counter) -> None:
        if entry.path in self._copied:
            self._remove_file(entry.path)
        place = _place(entry.path, self.sources)
        try:
            with (
                self._opened_source(entry.path) as source,
                told(place, f"to copy it to {self._store}", self._free_room),
                new_file(entry.path, dir_fd=self._target) as target,
            ):
                digest, _ = reader.digest(source, counter, target=target, most=entry.size)
        except FileNotFoundError:
            return  # it vanished: the survey after this pass will not have it either
        self._copied[entry.path] = (entry, digest)

    @contextlib.contextmanager
    def _opened_source(self, path: str) -> Iterator[int]:
        """Open a source's file.

        Raises:
            FileNotFoundError: it is not there any more.
            ShardtoolError: it can't be read.
        """
        top, _, rest = path.partition("/")
        with contextlib.ExitStack() as stack:
            try:
                if rest:
                    root = stack.enter_context(opened_quietly(self.sources[top], READ_DIRECTORY))
                    source = stack.enter_context(opened_below(root, rest))
                else:
                    source = stack.enter_context(open_regular(self.sources[top]))
            except FileNotFoundError:
                raise
            except OSError as error:
                raise _unreadable(path, self.sources, describe(error)) from None
            yield source


def _unreadable(path: str, sources: Mapping[str, Path], reason: str) -> ShardtoolError:
    return ShardtoolError(
        f"{_place(path, sources)}: expected to read it, found: {reason}; {AS_WHOM}"
    )


def _difference(before: Iterable[Entry], after: Iterable[Entry]) -> str | None:
    """Return the first path that is not the same in two surveys, or None."""
    changed = set(before) ^ set(after)
    return min((entry.path for entry in changed), default=None)


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


def _metadata(name: str, layout: Layout, job: _Copy, search: Search) -> Metadata:
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


def _same_disk(store: Path, job: _Copy) -> Iterator[str]:
    raft = job.sources["raft"]
    if os.stat(store).st_dev == os.stat(raft).st_dev:
        yield (
            f"{store} is on the same file system as {raft}: a broken disk takes both; "
            "use --to DIR or SHARDTOOL_SNAPSHOTS"
        )


def _warnings(store: Path, job: _Copy, leftovers: Iterable[str]) -> Iterator[str]:
    for failure in leftovers:
        yield f"{store}: what a killed run left could not be removed: {failure}"
    if CONFIG not in job.sources:
        yield "no config.toml was found, so none is in the snapshot; --influx-config names it"
    for path, kind in job.left_out:
        yield f"{_place(path, job.sources)} is a {kind}: it has no content and was not copied"
    mounts = mount_points()
    for name in DIRECTORIES:
        for mount in mounts_at_or_below(job.sources[name], mounts):
            if mount != str(job.sources[name]):
                yield f"{mount} is a mount point: what is in it was copied as plain files"
