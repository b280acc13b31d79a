"""Copy, hash and sync trees by descriptors, in bounded memory, each byte read once.

A tree is told as a list of entries; files are opened one name at a time, so no link in a tree
is ever followed. Knows nothing of snapshots.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

from shardtool.disk.durable import (
    READ_DIRECTORY_ITSELF,
    open_quietly,
    opened,
    opened_quietly,
    write_all,
)
from shardtool.errors import reason_of

# Large enough that calls cost nothing, small enough that two of them stay in a core's cache.
_CHUNK = 1 << 20
# How many bytes of a file to write before the disk is asked to begin; a multiple of _CHUNK.
_FLUSH = 32 << 20
# A path this long, with a directory's own path before it, still fits the kernel's 4,096 bytes.
_LONGEST_PATH = 2048
PRIVATE_FILE = 0o600


class Counter(Protocol):
    """What counts the bytes that are done."""

    def advance(self, count: int) -> None:
        """Count `count` more bytes."""


# Given what is done ('copying') and how many bytes there are, returns what counts them.
Meter = Callable[[str, int], AbstractContextManager[Counter]]


@dataclass(frozen=True)
class Entry:
    """One name in a tree.

    Args:
        path: relative to the tree, undecodable bytes as surrogates.
        kind: 'file', 'directory', 'link', 'socket', 'fifo', 'device', or 'unreadable' for a
            directory that can't be listed.
        mode: the permission bits with set-id and sticky, 0 to 0o7777.
        uid: its owner's number.
        gid: its group's number.
        size: a file's length in bytes, 0 for all else.
        mtime_ns: last change of its content, in ns since the epoch.
        target: where a link points; of what is unreadable, the system's reason.
        identity: device, inode and change time in ns: an entry with the same is unchanged.
    """

    path: str
    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    target: str = ""
    identity: tuple[int, ...] = ()


def entry_of(path: str, found: os.stat_result, *, target: str = "") -> Entry:
    """Given a path and its stat, return its Entry."""
    kind = kind_of(found.st_mode)
    return Entry(
        path,
        kind,
        stat.S_IMODE(found.st_mode),
        found.st_uid,
        found.st_gid,
        found.st_size if kind == "file" else 0,
        found.st_mtime_ns,
        target,
        (found.st_dev, found.st_ino, found.st_ctime_ns),
    )


def kind_of(mode: int) -> str:
    """Given st_mode, return 'file', 'directory', 'link', 'socket', 'fifo' or 'device'."""
    kinds = {
        stat.S_IFREG: "file",
        stat.S_IFDIR: "directory",
        stat.S_IFLNK: "link",
        stat.S_IFSOCK: "socket",
        stat.S_IFIFO: "fifo",
    }
    return kinds.get(stat.S_IFMT(mode), "device")


def survey(root: int, name: str = "") -> list[Entry]:
    """List the tree in the directory that descriptor `root` is open on, sorted, parents first.

    Args:
        root: the directory.
        name: what the root itself is called: it is then the first entry, and all others begin
            with it; without a name the root is left out.

    Raises:
        OSError: the root can't be listed, or a path is longer than can be worked with; what
            can't be listed below it is an entry of kind 'unreadable'.
    """
    entries = [entry_of(name, os.fstat(root))] if name else []
    stack = [(os.dup(root), _names(root, name))]
    try:
        while stack:
            directory, paths = stack[-1]
            path = next(paths, None)
            if path is None:
                stack.pop()
                os.close(directory)
                continue
            entry = _look(directory, path)
            if entry is not None and entry.kind == "directory":
                try:
                    stack.append(_listed(path, directory))
                except FileNotFoundError:
                    continue
                except OSError as error:
                    entry = _unreadable(entry, error)
            if entry is not None:
                entries.append(entry)
    finally:
        for directory, _ in stack:
            os.close(directory)
    return entries


def _listed(path: str, above: int) -> tuple[int, Iterator[str]]:
    directory = open_quietly(_last(path), READ_DIRECTORY_ITSELF, dir_fd=above)
    try:
        return directory, _names(directory, path)
    except BaseException:
        os.close(directory)
        raise


def _last(path: str) -> str:
    return path.rpartition("/")[2]


def _names(directory: int, path: str) -> Iterator[str]:
    prefix = path + "/" if path else ""
    return iter([prefix + name for name in sorted(os.listdir(directory))])


def _look(directory: int, path: str) -> Entry | None:
    """Return the entry for `path`, or None where it vanished since its name was read."""
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise OSError(36, os.strerror(36), path)
    try:
        found = os.stat(_last(path), dir_fd=directory, follow_symlinks=False)
        is_link = stat.S_ISLNK(found.st_mode)
        target = os.readlink(_last(path), dir_fd=directory) if is_link else ""
    except FileNotFoundError:
        return None
    return entry_of(path, found, target=target)


def _unreadable(entry: Entry, error: OSError) -> Entry:
    return Entry(entry.path, "unreadable", 0, 0, 0, 0, 0, reason_of(error))


@contextlib.contextmanager
def opened_below(root: int, path: str) -> Iterator[int]:
    """Open the regular file `path` below directory `root` for reading, following no link in it.

    The file's access time is left as it was where the kernel lets us.

    Raises:
        OSError: it can't be opened, or one of its parts is a link or no directory.
    """
    with contextlib.ExitStack() as stack:
        at = root
        parts = path.split("/")
        for part in parts[:-1]:
            at = stack.enter_context(opened_quietly(part, READ_DIRECTORY_ITSELF, dir_fd=at))
        yield stack.enter_context(open_regular(parts[-1], dir_fd=at))


@contextlib.contextmanager
def open_regular(name: Path | str, *, dir_fd: int | None = None) -> Iterator[int]:
    """Open a regular file for reading; neither a link nor a FIFO makes this go astray or wait.

    Its access time is left as it was where the kernel lets us.

    Raises:
        OSError: it can't be opened or is no regular file.
    """
    with opened_quietly(
        name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=dir_fd
    ) as descriptor:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(0, "no regular file", str(name))
        yield descriptor


def read_bounded(name: str, most: int, *, dir_fd: int) -> bytes:
    """Return the content of regular file `name` in `dir_fd`, which may have `most` bytes.

    Raises:
        OSError: it can't be read, is no regular file, or is longer.
    """
    with open_regular(name, dir_fd=dir_fd) as file, open(file, "rb", closefd=False) as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        most_told = f"{most >> 20} MiB" if most >> 20 else f"{most} bytes"
        raise OSError(0, f"more than {most_told}", name)
    return content


class Reader:
    """Reads files through two buffers: one is hashed while the other is written and refilled.

    hashlib and os.write both let go of the interpreter's lock, so one thread hashes while the
    other copies, on two cores. A context manager; memory is two buffers whatever is read.
    """

    def __init__(self) -> None:
        """Make the buffers; the thread starts with the first file."""
        self._buffers = (memoryview(bytearray(_CHUNK)), memoryview(bytearray(_CHUNK)))
        self._thread = ThreadPoolExecutor(1)

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._thread.shutdown()

    def digest(
        self, source: int, counter: Counter, *, target: int | None = None, most: int | None = None
    ) -> tuple[str, int]:
        """Read `source` to its end and return its SHA-256 in hex and how many bytes there were.

        Args:
            source: a file's descriptor, at its start.
            counter: is told of each piece of work.
            target: a descriptor to write the same bytes to.
            most: stop after so many bytes: a file that grows while it is read has no end.

        Raises:
            OSError: reading or writing failed.
        """
        sha256 = hashlib.sha256()
        hashing: Future[None] | None = None
        done = turn = 0
        while most is None or done < most:
            wanted = _CHUNK if most is None else min(_CHUNK, most - done)
            buffer = self._buffers[turn][:wanted]
            count = os.readv(source, [buffer])
            if hashing is not None:
                hashing.result()
                hashing = None
            if not count:
                break
            hashing = self._thread.submit(sha256.update, buffer[:count])
            if target is not None:
                write_all(target, buffer[:count])
            done += count
            turn = 1 - turn
            if target is not None and not done % _FLUSH:
                # Starts the disk on what is written and gives back the memory of what it has:
                # the final sync is short, and a large copy does not push a server's own pages
                # out of memory.
                os.posix_fadvise(target, 0, done, os.POSIX_FADV_DONTNEED)
            counter.advance(count)
        if hashing is not None:
            hashing.result()
        return sha256.hexdigest(), done

    def digest_from_disk(
        self, source: int, counter: Counter, *, most: int | None = None
    ) -> tuple[str, int]:
        """Do the same with what the disk holds, not with what memory still has of it."""
        os.posix_fadvise(source, 0, 0, os.POSIX_FADV_DONTNEED)
        return self.digest(source, counter, most=most)


@contextlib.contextmanager
def new_file(path: str, *, dir_fd: int) -> Iterator[int]:
    """Create file `path` for writing, readable by its owner alone; sync_tree syncs it.

    Raises:
        OSError: it could not be created, or something has that name.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, PRIVATE_FILE, dir_fd=dir_fd)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def sync_tree(root: int) -> None:
    """Make all files and directories below descriptor `root`, and itself, durable.

    In one go after all is written: the first fsync then takes the others' work along.

    Raises:
        OSError: something can't be opened or synced: nothing may be taken for durable.
    """
    for entry in reversed(survey(root)):
        if entry.kind == "file":
            with opened_below(root, entry.path) as descriptor:
                os.fsync(descriptor)
        elif entry.kind == "directory":
            with opened(entry.path, READ_DIRECTORY_ITSELF, dir_fd=root) as descriptor:
                os.fsync(descriptor)
        elif entry.kind == "unreadable":
            raise OSError(0, entry.target, entry.path)
    os.fsync(root)


def set_attributes(
    entries: Iterable[Entry], owners: Mapping[str, tuple[int, int]], *, dir_fd: int
) -> None:
    """Give what lies below `dir_fd` the owners, modes and times of `entries`.

    Bottom up and a directory after all that is in it: making a name changes its times, and its
    mode may shut us out. Owners are set as root alone, before modes, which chown resets.

    Args:
        entries: parents first, as survey lists them.
        owners: the uid and gid for each path.
        dir_fd: what the entries' paths are relative to.

    Raises:
        OSError: one of them could not be set.
    """
    for entry in sorted(entries, key=lambda entry: entry.path.count("/"), reverse=True):
        if os.geteuid() == 0:
            os.chown(entry.path, *owners[entry.path], dir_fd=dir_fd, follow_symlinks=False)
        if entry.kind != "link":
            os.chmod(entry.path, entry.mode, dir_fd=dir_fd)
        times = (entry.mtime_ns, entry.mtime_ns)
        os.utime(entry.path, ns=times, dir_fd=dir_fd, follow_symlinks=False)


def room_for(entries: Iterable[Entry], block: int) -> int:
    """Return the bytes that a copy of `entries` takes up in blocks of `block` bytes.

    Example: one file of 1 byte and its directory in blocks of 4096: 3 * 4096, a block for the
    content and one for each name.
    """
    return sum((-(-entry.size // block) + 1) * block for entry in entries)
