"""The file that is written: it has its name only once it is complete; or what is no file.

While it is written it has a name of ours, and a lock. Who holds the lock of the file that has this
name, and nobody else, takes the name away from it: by giving it its own, or because it is left
from a run that was killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from shardtool.disk.durable import sync_directory, write_all
from shardtool.errors import AnotherShardtoolError, ShardtoolError, UsageError, reason_of
from shardtool.export.packing import Compressor, compressor

STDOUT = "-"
_STDOUTS = {STDOUT, "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"}
_LONGEST_NAME = 255  # bytes
_ATTEMPTS = 10  # to make a file that nobody else takes for one that was left
_LEFT = ".left"


@dataclass(frozen=True)
class Written:
    """A file that is complete: its path, size and SHA-256."""

    path: str
    bytes: int
    sha256: str


def is_stream(name: str) -> bool:
    """Say whether a name stands for what is written to directly: stdout, a FIFO, a device."""
    if name == STDOUT:
        return True
    try:
        return not stat.S_ISREG(os.stat(name).st_mode)
    except OSError:
        return False


def is_stdout(name: str) -> bool:
    """Say whether a name stands for the standard output: by itself, or as /dev/stdout does.

    What is shown must not go between the values then.
    """
    if name in _STDOUTS:
        return True
    try:
        there, ours = os.stat(name), os.fstat(1)
    except OSError:
        return False
    # A file is one that is there, and /dev/null takes all.
    is_channel = not stat.S_ISREG(there.st_mode) and (
        not stat.S_ISCHR(there.st_mode) or os.isatty(1)
    )
    return is_channel and os.path.samestat(there, ours)


def left_of(name: str) -> str:
    """Return the file that what can't go out into a file is listed in.

    Where a name is too long for that, a digest stands for it.
    """
    path = Path(name)
    if len(os.fsencode(path.name + _LEFT)) <= _LONGEST_NAME:
        return name + _LEFT
    return str(path.with_name(_digest(path.name) + _LEFT))


def place_of(name: str, *, follows: bool = True) -> Path:
    """Return where a file lies, or will lie, whatever links lead there.

    Args:
        name: the file.
        follows: a link of that name leads to it; else the link is what is replaced.
    """
    if follows:
        return Path(os.path.realpath(name))
    parent, own = os.path.split(os.path.abspath(name))
    return Path(os.path.realpath(parent), own)


class _Counted(io.RawIOBase):
    """A descriptor to write to, and what went there."""

    def __init__(self, descriptor: int, name: str) -> None:
        self.count = 0
        self.is_over = False
        self._digest = hashlib.sha256()
        self._descriptor = descriptor
        self._name = name

    def writable(self) -> bool:
        return True

    def write(self, content: Any, /) -> int:
        view = memoryview(content).cast("B")
        if self.is_over:
            # What compresses says its last words when it is collected; the descriptor's number
            # may be another file's by then.
            return len(view)
        try:
            write_all(self._descriptor, view)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise ShardtoolError(f"{self._name}: can't be written: {reason_of(error)}") from None
        self._digest.update(view)
        self.count += len(view)
        return len(view)

    def tell(self) -> int:
        return self.count

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


class Target:
    """A file on its way, or a stream; a context manager, which removes what is not complete.

    Attributes:
        is_named: the file has its name, though a power cut may still take it away.
    """

    def __init__(
        self, name: str, *, force: bool, compress: bool = True, follows: bool = True
    ) -> None:
        """Begin to write.

        Args:
            name: the file, or STDOUT; what ends in .gz or .zst is compressed.
            force: another file of that name is replaced, at the end.
            compress: the name's end says so; else it is written as it comes.
            follows: a link of that name leads to the file; else the link is replaced.

        Raises:
            UsageError: the name is taken, or its compression is not installed.
            AnotherShardtoolError: another shardtool is writing it.
            ShardtoolError: it can't be made.
        """
        self.name = name
        self._force = force
        self._temporary: Path | None = None
        self.is_named = False
        self._follows = follows
        self._final = place_of(name, follows=follows)
        self._closes = name != STDOUT
        self._descriptor = self._opened()
        self.raw = _Counted(self._descriptor, name)
        try:
            self._file = compressor(name, self.raw) if compress else cast(Compressor, self.raw)
        except BaseException:
            self._discard()
            raise

    def __enter__(self) -> Target:
        return self

    def __exit__(self, *error: object) -> None:
        self._discard()

    @property
    def place(self) -> Path:
        """Where the file will lie, whatever links lead there."""
        return self._final

    @property
    def file(self) -> BinaryIO:
        """What compresses and counts, as a file."""
        return cast(BinaryIO, self._file)

    def write(self, content: bytes) -> None:
        """Write bytes.

        Raises:
            ShardtoolError: the disk is full, or the like.
        """
        self._file.write(content)

    def complete(self) -> Written:
        """End the file, make it durable and give it its name.

        Raises:
            ShardtoolError: it can't be done; nothing has the name then.
        """
        self.finish()
        return self.publish()

    def finish(self) -> None:
        """End the file and make it durable, all but its name; no more can be written.

        Raises:
            ShardtoolError: it can't be done.
        """
        if self._file is not self.raw:
            self._file.close()
        if self._temporary is not None:
            try:
                os.fchmod(self._descriptor, 0o666 & ~_umask())
                os.fsync(self._descriptor)
            except OSError as error:
                raise self._error(reason_of(error)) from None

    def publish(self) -> Written:
        """Give the file its name, when it is finished.

        Raises:
            ShardtoolError: it can't be done; nothing has the name then.
        """
        if self._temporary is not None:
            try:
                self._name_it(self._temporary)
            except OSError as error:
                raise self._error(reason_of(error)) from None
            self._temporary = None
        return Written(self.name, self.raw.count, self.raw.hexdigest())

    def withdraw(self) -> None:
        """Take the name away again, where nothing else had it and it is still this file's."""
        if self.is_named and not self._force and self._is_at(self._final):
            with contextlib.suppress(OSError):
                os.unlink(self._final)

    def _name_it(self, temporary: Path) -> None:
        if not self._is_at(temporary):
            raise self._error(f"somebody took {temporary} away")
        if self._force:
            os.rename(temporary, self._final)
        else:
            self._name_new(temporary)
        self.is_named = True
        sync_directory(self._final.parent)

    def _name_new(self, temporary: Path) -> None:
        """Give the file its name unless something else has got it meanwhile."""
        try:
            os.link(temporary, self._final)
        except FileExistsError:
            raise taken(self.name) from None
        except OSError:  # a file system without hard links
            if os.path.lexists(self._final):
                raise taken(self.name) from None
            os.rename(temporary, self._final)
        else:
            os.unlink(temporary)

    def _is_at(self, path: Path) -> bool:
        """Say whether a name is this file's."""
        return _is_at(self._descriptor, path)

    def _opened(self) -> int:
        if self.name == STDOUT:
            return _stdout()
        try:
            if self._follows and is_stream(self.name):
                return os.open(self.name, os.O_WRONLY | os.O_CLOEXEC | os.O_NOCTTY)
            if os.path.lexists(self._final) and not self._force:
                raise taken(self.name)
            temporary = self._final.with_name(_temporary_name(self._final.name))
            descriptor = self._made(temporary)
            self._temporary = temporary
            return descriptor
        except OSError as error:
            raise self._error(reason_of(error)) from None

    def _made(self, temporary: Path) -> int:
        """Make the temporary file; what a killed run left under its name goes.

        A lock tells whether somebody still writes it. Before the lock is on it, another run may
        take it for one that was left: then there is a next one.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        for _ in range(_ATTEMPTS):
            try:
                descriptor = os.open(temporary, flags, 0o600)
            except FileExistsError:
                with contextlib.suppress(FileNotFoundError):
                    self._sweep(temporary)
                continue
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_at(descriptor, temporary):
                    return descriptor
            os.close(descriptor)
        raise self._busy(temporary)

    def _sweep(self, temporary: Path) -> None:
        flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(temporary, flags)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(descriptor, temporary):
                os.unlink(temporary)
        except BlockingIOError:
            raise self._busy(temporary) from None
        finally:
            os.close(descriptor)

    def _busy(self, temporary: Path) -> AnotherShardtoolError:
        return AnotherShardtoolError(
            f"{self.name}: another shardtool is writing it ({temporary}); wait for it"
        )

    def _discard(self) -> None:
        self.raw.is_over = True
        if self._temporary is not None:
            if self._is_at(self._temporary):
                with contextlib.suppress(OSError):
                    os.unlink(self._temporary)
            self._temporary = None
        if self._closes:
            self._closes = False
            os.close(self._descriptor)

    def _error(self, reason: str) -> ShardtoolError:
        return ShardtoolError(f"{self.name}: can't be written: {reason}")


def taken(name: str) -> UsageError:
    """Return the error that says: there is a file of that name."""
    return UsageError(
        f"{name}: expected no file of that name, found one; take another name, or say --force to "
        "replace it"
    )


def _stdout() -> int:
    """Return the standard output, with nothing before it that waits to be written.

    Raises:
        ShardtoolError: it is closed, and what goes there would be nowhere.
    """
    if sys.__stdout__ is None:  # another one stands in for it, so that nothing fails that prints
        raise ShardtoolError(f"{STDOUT}: expected an open standard output, found it closed")
    sys.stdout.flush()
    return sys.stdout.fileno()


def _is_at(descriptor: int, path: Path) -> bool:
    """Say whether a name is an open file's."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except OSError:
        return False


def _temporary_name(name: str) -> str:
    whole = f".{name}.shardtool-part"
    if len(os.fsencode(whole)) <= _LONGEST_NAME:
        return whole
    return f".{_digest(name)}.shardtool-part"


def _digest(name: str) -> str:
    return hashlib.sha256(os.fsencode(name)).hexdigest()


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
