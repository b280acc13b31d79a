"""Measure a directory tree by descriptors: what is in it, and what comes back when it goes.

Follows no link, leaves no mount, opens no file; what vanishes under the walk is no error.
The inner loop is the cost of `shardtool status`, so it works on whole directories at a time.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from shardtool.disk.durable import READ_DIRECTORY_ITSELF, open_quietly
from shardtool.disk.mounts import mount_id
from shardtool.errors import reason_of

BLOCK = 512  # bytes; the unit of st_blocks on Linux whatever the file system's own block is

# A directory file up to this size (some 6,000 names on ext4) is listed in one go, which is
# faster; a larger one in batches, so that memory does not grow with the number of names.
_LIST_WHOLE_BELOW = 1 << 18
_BATCH = 1024
_MOST_LISTED = 100  # oddities and newer files: enough to judge and to show, whatever the tree


@dataclass(frozen=True)
class LinkedFile:
    """A file with several names: `seen` of its `links` names are in the tree."""

    device: int
    inode: int
    links: int
    seen: int
    allocated_bytes: int


@dataclass(frozen=True)
class Oddity:
    """Something in a tree that is no regular file, or could not be looked at.

    Args:
        path: relative to the tree, undecodable bytes as surrogates.
        kind: 'directory', 'symlink', 'socket', 'fifo', 'device', 'mount-point' or 'unreadable'.
        detail: the system's reason where it is unreadable, else empty.
    """

    path: str
    kind: str
    detail: str = ""


@dataclass(frozen=True)
class Tree:
    """What a tree holds. All sizes in bytes, all times in ns since the epoch.

    Args:
        inode: the root directory's own.
        files: names in it that are no directories, links counted each.
        directories: the tree's own directory among them.
        apparent_bytes: sum of the regular files' lengths, each name counted.
        allocated_bytes: blocks of files and directories, a file with several names once.
        reclaimable_bytes: blocks that come back when this tree alone goes: those of files
            with a name outside it do not.
        last_write_ns: newest mtime of a file in it; 0 where there is none.
        linked: the files with several names.
        oddities: what is no regular file, the root excepted; the first 100 of each kind.
        names: those names at the top that the caller asked to keep.
        newer: regular files at the top that are not empty, have one of the asked-for suffixes
            and were written after the asked-for moment; the first 100 of them.
        fingerprint: hex digest over every name, inode, size, mode and mtime; empty if not asked.
        changes: the sum of every file's ctime in ns. Nobody can set a ctime and each change
            moves it on, so it tells of a content that was changed and whose mtime was set back,
            and of a hard link that came or went; 0 if no fingerprint was asked for.
    """

    inode: int = 0
    files: int = 0
    directories: int = 0
    apparent_bytes: int = 0
    allocated_bytes: int = 0
    reclaimable_bytes: int = 0
    last_write_ns: int = 0
    linked: tuple[LinkedFile, ...] = ()
    oddities: tuple[Oddity, ...] = ()
    names: tuple[str, ...] = ()
    newer: tuple[str, ...] = ()
    fingerprint: str = ""
    changes: int = 0

    def is_same_as(self, later: Tree) -> bool:
        """Say whether `later`, measured after this one, is the same tree, unchanged."""
        return (self.fingerprint, self.changes) == (later.fingerprint, later.changes)


@dataclass
class _Sums:
    """The running totals of one walk."""

    newer_than_ns: int | None
    newer_suffixes: tuple[str, ...]
    keep: Callable[[list[str]], list[str]]
    fingerprint: int | None
    changes: int = 0
    files: int = 0
    directories: int = 0
    apparent: int = 0
    blocks: int = 0
    last_write_ns: int = 0
    links: dict[tuple[int, int], list[int]] = field(default_factory=dict)
    oddities: list[Oddity] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    names: list[str] = field(default_factory=list)
    newer: list[str] = field(default_factory=list)

    def note_newer(self, name: str, entry: os.stat_result) -> None:
        newer = self.newer_than_ns is not None and entry.st_mtime_ns > self.newer_than_ns
        holds = entry.st_size > 0 and name.endswith(self.newer_suffixes)
        if newer and holds and len(self.newer) < _MOST_LISTED:
            self.newer.append(name)

    def odd(self, path: str, kind: str, detail: str = "") -> None:
        self.kinds[kind] += 1
        if self.kinds[kind] <= _MOST_LISTED:
            self.oddities.append(Oddity(path, kind, detail))


def _keep_none(names: list[str]) -> list[str]:
    return []


def measure(
    root: int,
    *,
    newer_than_ns: int | None = None,
    newer_suffixes: tuple[str, ...] = ("",),
    keep: Callable[[list[str]], list[str]] = _keep_none,
    fingerprint: bool = False,
) -> Tree:
    """Walk the tree below the directory that descriptor `root` is open on.

    Args:
        root: a directory's descriptor; it stays open and is the caller's to close.
        newer_than_ns: list in Tree.newer what was written after this moment (ns), if given.
        newer_suffixes: list there only names that end so.
        keep: given names at the top, returns those to list in Tree.names.
        fingerprint: take the fingerprint too.

    Returns:
        The tree's facts; what could not be looked at is among its oddities.

    Raises:
        OSError: the root itself can't be listed, or /proc does not tell its mount.
    """
    sums = _Sums(newer_than_ns, newer_suffixes, keep, 0 if fingerprint else None)
    own = os.fstat(root)
    sums.blocks += own.st_blocks
    sums.directories += 1
    mount = mount_id(root)
    _walk(root, _add_directory(root, "", sums), mount, sums)
    return _tree(sums, own)


def _walk(root: int, directories: list[str], mount: int, sums: _Sums) -> None:
    """Add the `directories` in `root` and all below them.

    An explicit stack of open directories, one a level: depth is bounded by the descriptors
    that the process may have, and running out of them is an oddity like any other.
    """
    stack = [(os.dup(root), iter(directories))] if directories else []
    try:
        while stack:
            above, paths = stack[-1]
            below = next(paths, None)
            if below is None:
                stack.pop()
                os.close(above)
                continue
            try:
                name = below.rpartition("/")[2]
                descriptor = open_quietly(name, READ_DIRECTORY_ITSELF, dir_fd=above)
            except FileNotFoundError:
                continue
            except OSError as error:
                sums.odd(below, "unreadable", reason_of(error))
                continue
            stack.append((descriptor, iter(_look_into(descriptor, below, mount, sums))))
    finally:
        for descriptor, _ in stack:
            os.close(descriptor)


def _look_into(descriptor: int, path: str, mount: int, sums: _Sums) -> list[str]:
    """Add the directory `path` to `sums` unless another file system begins there."""
    try:
        if mount_id(descriptor) != mount:
            sums.odd(path, "mount-point")
            return []
        return _add_directory(descriptor, path, sums)
    except OSError as error:
        sums.odd(path, "unreadable", reason_of(error))
        return []


def _add_directory(descriptor: int, path: str, sums: _Sums) -> list[str]:
    """Add what is in one directory to `sums`; return the paths of the directories in it."""
    children: list[str] = []
    prefix = path + "/" if path else ""
    for listed in _batches_of_names(descriptor):
        names, entries = _stat_all(descriptor, listed, prefix, sums)
        if not prefix:
            sums.names += sums.keep(names)
        if not _add_plain_files(names, entries, prefix, sums):
            _add_entries(names, entries, prefix, sums, children)
        if sums.fingerprint is not None:
            _add_fingerprints(names, entries, prefix, sums)
    return children


def _batches_of_names(descriptor: int) -> Iterator[list[str]]:
    if os.fstat(descriptor).st_size <= _LIST_WHOLE_BELOW:
        names = os.listdir(descriptor)
        for start in range(0, len(names), _BATCH):
            yield names[start : start + _BATCH]
        return
    with os.scandir(descriptor) as entries:
        while names := [entry.name for entry in itertools.islice(entries, _BATCH)]:
            yield names


def _stat_all(
    descriptor: int, names: list[str], prefix: str, sums: _Sums
) -> tuple[list[str], list[os.stat_result]]:
    """Look at each of `names`; return those that are still there, and what was found."""
    look = os.stat
    try:
        return names, [look(name, dir_fd=descriptor, follow_symlinks=False) for name in names]
    except OSError:
        pass  # one of them vanished or can't be looked at: find out which, one by one
    there, entries = [], []
    for name in names:
        try:
            entries.append(look(name, dir_fd=descriptor, follow_symlinks=False))
            there.append(name)
        except FileNotFoundError:
            continue
        except OSError as error:
            sums.odd(prefix + name, "unreadable", reason_of(error))
    return there, entries


def _add_plain_files(
    names: list[str], entries: list[os.stat_result], prefix: str, sums: _Sums
) -> bool:
    """Add regular files with one name each, which is nearly always all there is.

    Returns:
        False, with nothing added, where there is anything else among them.

    A pass a field is a third of the time of one loop that looks at each entry's fields.
    """
    if not all(map(stat.S_ISREG, {entry.st_mode for entry in entries})):
        return False
    if not entries or max([entry.st_nlink for entry in entries]) > 1:
        return not entries
    sums.files += len(entries)
    sums.apparent += sum([entry.st_size for entry in entries])
    sums.blocks += sum([entry.st_blocks for entry in entries])
    last = max([entry.st_mtime_ns for entry in entries])
    sums.last_write_ns = max(sums.last_write_ns, last)
    if not prefix and sums.newer_than_ns is not None and last > sums.newer_than_ns:
        for name, entry in zip(names, entries, strict=True):
            sums.note_newer(name, entry)
    return True


def _add_entries(
    names: list[str],
    entries: list[os.stat_result],
    prefix: str,
    sums: _Sums,
    children: list[str],
) -> None:
    """Add entries of any kind, one by one."""
    for name, entry in zip(names, entries, strict=True):
        if stat.S_ISDIR(entry.st_mode):
            sums.directories += 1
            sums.blocks += entry.st_blocks
            sums.odd(prefix + name, "directory")
            children.append(prefix + name)
            continue
        sums.files += 1
        if stat.S_ISREG(entry.st_mode):
            sums.apparent += entry.st_size
            sums.last_write_ns = max(sums.last_write_ns, entry.st_mtime_ns)
            if not prefix:
                sums.note_newer(name, entry)
        else:
            sums.odd(prefix + name, _kind(entry.st_mode))
        if entry.st_nlink > 1:
            _add_link(entry, sums)
        else:
            sums.blocks += entry.st_blocks


def _add_link(entry: os.stat_result, sums: _Sums) -> None:
    known = sums.links.setdefault((entry.st_dev, entry.st_ino), [entry.st_nlink, 0, 0])
    known[1] += 1
    known[2] = entry.st_blocks * BLOCK


def _kind(mode: int) -> str:
    if stat.S_ISLNK(mode):
        return "symlink"
    if stat.S_ISSOCK(mode):
        return "socket"
    return "fifo" if stat.S_ISFIFO(mode) else "device"


def _add_fingerprints(
    names: list[str], entries: list[os.stat_result], prefix: str, sums: _Sums
) -> None:
    """Add each entry's part of the fingerprint; the parts are added up, modulo 2^256.

    A sum, so that neither the order of a directory's names nor their number matters to memory.
    A directory's size and times are not in it: they change with its names, and each of those
    has a part of its own.
    """
    assert sums.fingerprint is not None
    for name, entry in zip(names, entries, strict=True):
        line = b"%s\0%d %o" % (os.fsencode(prefix + name), entry.st_ino, entry.st_mode)
        if not stat.S_ISDIR(entry.st_mode):
            sums.changes += entry.st_ctime_ns
            line += b" %d %d" % (entry.st_size, entry.st_mtime_ns)
        sums.fingerprint += _number_of(line)


def _number_of(line: bytes) -> int:
    return int.from_bytes(hashlib.sha256(line).digest(), "big")


def _tree(sums: _Sums, own: os.stat_result) -> Tree:
    linked = tuple(
        LinkedFile(device, inode, links, seen, size)
        for (device, inode), (links, seen, size) in sorted(sums.links.items())
    )
    single = sums.blocks * BLOCK
    fingerprint = ""
    if sums.fingerprint is not None:
        root = _number_of(b"%d %d" % (own.st_dev, own.st_ino))
        fingerprint = f"{(sums.fingerprint + root) % (1 << 256):064x}"
    return Tree(
        inode=own.st_ino,
        files=sums.files,
        directories=sums.directories,
        apparent_bytes=sums.apparent,
        allocated_bytes=single + sum(file.allocated_bytes for file in linked),
        reclaimable_bytes=single + reclaimable_links(linked),
        last_write_ns=sums.last_write_ns,
        linked=linked,
        oddities=tuple(sums.oddities),
        names=tuple(sums.names),
        newer=tuple(sums.newer),
        fingerprint=fingerprint,
        changes=sums.changes,
    )


def reclaimable_links(linked: tuple[LinkedFile, ...]) -> int:
    """Given the files with several names of some trees together, return the bytes that come
    back when those trees go: those of files all of whose names are among them.

    Example: one file, links=2, seen=1 in each of two trees: 0 for either alone, its
    allocated bytes for both.
    """
    links = Links()
    links.add(linked)
    return links.reclaimable_bytes


@dataclass
class Links:
    """The files with several names of trees that go together, tree after tree.

    Args:
        reclaimable_bytes: see reclaimable_links.
    """

    reclaimable_bytes: int = 0
    _seen: dict[tuple[int, int], int] = field(default_factory=dict)

    def add(self, linked: tuple[LinkedFile, ...]) -> None:
        """Have one more tree go, with these files."""
        for file in linked:
            key = (file.device, file.inode)
            before = self._seen.get(key, 0)
            self._seen[key] = before + file.seen
            if before < file.links <= before + file.seen:
                self.reclaimable_bytes += file.allocated_bytes
