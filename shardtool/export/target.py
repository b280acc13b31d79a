"""The file that is written: it has its name only once it is complete; or what is no file."""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import hashlib
import importlib
import io
import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from shardtool.disk.durable import sync_directory, write_all
from shardtool.errors import BusyError, ShardtoolError, UsageError, reason_of

STDOUT = "-"
_LEVEL = 6  # of gzip, as gzip itself
_ZSTD_LEVEL = 3  # as zstd itself
_LONGEST_NAME = 255  # bytes


@dataclass(frozen=True)
class Written:
    """A file that is complete: its path, size and SHA-256."""

    path: str
    bytes: int
    sha256: str


class Compressor(Protocol):
    """Takes bytes and writes them, compressed or not, into the file."""

    def write(self, content: bytes, /) -> Any: ...

    def close(self) -> None: ...


def is_stream(name: str) -> bool:
    """Say whether a name stands for what is written to directly: stdout, a FIFO, a device."""
    if name == STDOUT:
        return True
    try:
        return not stat.S_ISREG(os.stat(name).st_mode)
    except OSError:
        return False


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
    """A file on its way, or a stream; a context manager, which removes what is not complete."""

    def __init__(self, name: str, *, force: bool, compress: bool = True) -> None:
        """Begin to write.

        Args:
            name: the file, or STDOUT; what ends in .gz or .zst is compressed.
            force: another file of that name is replaced, at the end.
            compress: the name's end says so; else it is written as it comes.

        Raises:
            UsageError: the name is taken, or its compression is not installed.
            BusyError: another shardtool is writing it.
            ShardtoolError: it can't be made.
        """
        self.name = name
        self._force = force
        self._temporary: Path | None = None
        self._final = Path(os.path.realpath(name))
        self._closes = name != STDOUT
        self._descriptor = self._opened()
        self.raw = _Counted(self._descriptor, name)
        try:
            self._file = _compressor(name, self.raw) if compress else cast(Compressor, self.raw)
        except BaseException:
            self._discard()
            raise

    def __enter__(self) -> Target:
        return self

    def __exit__(self, *error: object) -> None:
        self._discard()

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
        if self._file is not self.raw:
            self._file.close()
        written = Written(self.name, self.raw.count, self.raw.hexdigest())
        if self._temporary is not None:
            try:
                self._name_it(self._temporary)
            except OSError as error:
                raise self._error(reason_of(error)) from None
            self._temporary = None
        return written

    def _name_it(self, temporary: Path) -> None:
        os.fchmod(self._descriptor, 0o666 & ~_umask())
        os.fsync(self._descriptor)
        if self._force:
            os.rename(temporary, self._final)
        else:
            self._name_new(temporary)
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

    def _opened(self) -> int:
        if self.name == STDOUT:
            sys.stdout.flush()
            return sys.stdout.fileno()
        try:
            if is_stream(self.name):
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

        A lock tells whether somebody still writes it.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(temporary, flags, 0o600)
        except FileExistsError:
            self._sweep(temporary)
            descriptor = os.open(temporary, flags, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return descriptor

    def _sweep(self, temporary: Path) -> None:
        flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(temporary, flags)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(temporary)
        except BlockingIOError:
            raise BusyError(
                f"{self.name}: another shardtool is writing it ({temporary}); wait for it"
            ) from None
        finally:
            os.close(descriptor)

    def _discard(self) -> None:
        self.raw.is_over = True
        if self._temporary is not None:
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


def _temporary_name(name: str) -> str:
    whole = f".{name}.part"
    if len(os.fsencode(whole)) <= _LONGEST_NAME:
        return whole
    return f".{hashlib.sha256(os.fsencode(name)).hexdigest()}.part"


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _compressor(name: str, raw: _Counted) -> Compressor:
    if name.endswith(".gz"):
        # No name and no time in it: the same values make the same file.
        return gzip.GzipFile("", "wb", _LEVEL, cast(BinaryIO, raw), mtime=0)
    if name.endswith(".zst"):
        return _zstd(raw)
    return cast(Compressor, raw)


def _zstd(raw: _Counted) -> Compressor:
    """Return what compresses with zstd: Python's own from 3.14 on, else the extra's.

    Raises:
        UsageError: there is neither.
    """
    with contextlib.suppress(ImportError):
        own = importlib.import_module("compression.zstd")
        return cast(Compressor, own.ZstdFile(raw, "wb", level=_ZSTD_LEVEL))
    try:
        import zstandard
    except ImportError:
        raise UsageError(
            "a file that ends in .zst needs zstandard, which is not installed: "
            "pip install 'shardtool[zstd]', or take .gz"
        ) from None
    compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL)
    return cast(Compressor, compressor.stream_writer(cast(BinaryIO, raw), closefd=False))
