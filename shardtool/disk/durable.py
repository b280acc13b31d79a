"""Writes that survive a power cut, and names that appear only when their content is whole."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

READ_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
READ_DIRECTORY_ITSELF = READ_DIRECTORY | os.O_NOFOLLOW


@contextlib.contextmanager
def opened(path: Path | str, flags: int, *, dir_fd: int | None = None) -> Iterator[int]:
    """Open `path` with os.open `flags`, yield the descriptor, close it; what it creates is 0644.

    Raises:
        OSError: as os.open does.
    """
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o644, dir_fd=dir_fd)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def open_quietly(path: Path | str, flags: int, *, dir_fd: int | None = None) -> int:
    """Open `path` for reading without leaving an access time behind, where the system lets us.

    Only a file's owner and root may (open(2), O_NOATIME); for others it is opened as it is.

    Returns:
        The descriptor, the caller's to close.

    Raises:
        OSError: as os.open does.
    """
    flags |= os.O_CLOEXEC
    try:
        return os.open(path, flags | os.O_NOATIME, dir_fd=dir_fd)
    except PermissionError:
        return os.open(path, flags, dir_fd=dir_fd)


@contextlib.contextmanager
def opened_quietly(path: Path | str, flags: int, *, dir_fd: int | None = None) -> Iterator[int]:
    """Open as open_quietly does, yield the descriptor, close it.

    Raises:
        OSError: as os.open does.
    """
    descriptor = open_quietly(path, flags, dir_fd=dir_fd)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Make the names in directory `path` durable (fsync of the directory).

    Raises:
        OSError: the directory can't be opened or synced.
    """
    with opened(path, READ_DIRECTORY) as descriptor:
        os.fsync(descriptor)


@contextlib.contextmanager
def new_directory(name: str, *, dir_fd: int) -> Iterator[int]:
    """Create directory `name`, ours alone, and yield a descriptor on it.

    One who may write in the directory above may have put his own in its place before it was
    opened: that is taken from him. A file system that he has mounted on it (FUSE) can't be, and is
    refused. Where one has no owners or modes of its own (CIFS), there is nothing to take.

    Raises:
        FileExistsError: something has that name already.
        OSError: it could not be made, something is in it, or something is mounted on it.
    """
    os.mkdir(name, 0o700, dir_fd=dir_fd)
    with opened(name, READ_DIRECTORY_ITSELF, dir_fd=dir_fd) as made:
        entry = os.fstat(made)
        if entry.st_dev != os.fstat(dir_fd).st_dev:
            raise OSError(0, "something that another process put there", name)
        _insist_on_empty(name, made)  # before anything is taken: it may be a third one's
        with contextlib.suppress(OSError):
            if os.geteuid() == 0 and entry.st_uid != 0:
                os.fchown(made, 0, 0)
            if stat.S_IMODE(entry.st_mode) & 0o077:
                os.fchmod(made, 0o700)
        _insist_on_empty(name, made)
        yield made


def _insist_on_empty(name: str, descriptor: int) -> None:
    if os.listdir(descriptor):
        raise OSError(0, "something that another process put there", name)


def insist_on_same(name: str, made: os.stat_result, *, dir_fd: int) -> None:
    """Insist that a name in a directory that others may write in is what we have made.

    Raises:
        OSError: it is something else by now, or gone.
    """
    if not os.path.samestat(os.stat(name, dir_fd=dir_fd, follow_symlinks=False), made):
        raise OSError(0, "something that another process put there", name)


def write_all(descriptor: int, content: bytes | memoryview) -> None:
    """Write all of `content` to `descriptor`, however many calls that takes.

    Raises:
        OSError: a write failed; part of the content may be on disk.
    """
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def replace_file(
    directory: int, name: str, content: bytes, *, new: str = "", like: Path | None = None
) -> None:
    """Write a file in the place of the one of that name, if there is one: whole, or not at all.

    What is being written has a name of its own until then. What a killed process left under it
    goes, whatever it is; nothing is written through a link.

    Args:
        directory: a descriptor on its directory.
        name: the file's; a link or a FIFO of that name is replaced, not followed.
        content: all of it; everybody may read it.
        new: its name until then; `.NAME.PID`, if it is empty.
        like: a file or directory whose owner it gets; see give_to_owner_of.

    Raises:
        OSError: it could not be written; what had the name has it still.
    """
    new = new or f".{name}.{os.getpid()}"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new, dir_fd=directory)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with opened(new, flags, dir_fd=directory) as file:
            write_all(file, content)
            os.fchmod(file, 0o644)
            if like is not None:
                give_to_owner_of(like, file)
            os.fsync(file)
        os.rename(new, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(new, dir_fd=directory)
        raise
    os.fsync(directory)


def make_directories(path: Path, *, like: Path, mode: int = 0o755) -> None:
    """Create `path` and what is missing above it, each synced, owned as `like` is owned.

    The owner matters when root runs this over the files of the server's own user: what root
    made, that user must be able to read and remove. That user can swap names meanwhile: each is
    made in the one that was opened before, and none is followed where it is a link.

    Raises:
        OSError: one of them could not be made, or something else has its name.
    """
    missing = []
    at = path
    while not at.is_dir():
        missing.append(at.name)
        at = at.parent
    with contextlib.ExitStack() as stack:
        above = stack.enter_context(opened(at, READ_DIRECTORY))
        for name in reversed(missing):
            above = stack.enter_context(made_directory(name, dir_fd=above, like=like, mode=mode))


@contextlib.contextmanager
def made_directory(name: str, *, dir_fd: int, like: Path, mode: int = 0o755) -> Iterator[int]:
    """Create directory `name` where it is missing, and yield a descriptor on it; both are synced.

    Raises:
        OSError: it could not be made, or something else has its name: a link, for instance.
    """
    is_new = False
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, mode, dir_fd=dir_fd)
        is_new = True
    with opened(name, READ_DIRECTORY_ITSELF, dir_fd=dir_fd) as made:
        # Whoever may write above it may have put another there meanwhile, of root's for instance.
        if is_new and os.fstat(made).st_uid == os.geteuid() and not os.listdir(made):
            give_to_owner_of(like, made)
        os.fsync(made)
        # A run that was killed may have made it and not have come to this.
        os.fsync(dir_fd)
        yield made


def give_to_owner_of(like: Path, descriptor: int) -> None:
    """Give what `descriptor` is on the owner and group of `like`, where root runs us.

    By a path it might be something else by now.

    Raises:
        OSError: either could not be looked at, or the owner could not be set.
    """
    if os.geteuid() == 0:
        wanted = like.stat()
        os.fchown(descriptor, wanted.st_uid, wanted.st_gid)
