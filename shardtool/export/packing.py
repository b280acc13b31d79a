"""What compresses a file on its way: gzip, zstd or nothing, as its name's end says."""

from __future__ import annotations

import contextlib
import gzip
import importlib
import io
from typing import Any, BinaryIO, Protocol, cast

from shardtool.errors import UsageError

_LEVEL = 6  # of gzip, as gzip itself
_ZSTD_LEVEL = 3  # as zstd itself


class Compressor(Protocol):
    """Takes bytes and writes them, compressed or not, into the file."""

    def write(self, content: bytes, /) -> Any: ...

    def close(self) -> None: ...


def compressor(name: str, raw: io.RawIOBase) -> Compressor:
    """Return what compresses as the end of a name says, into a file.

    Raises:
        UsageError: what compresses so is not installed.
    """
    if name.endswith(".gz"):
        # No name and no time in it: the same values make the same file.
        return gzip.GzipFile("", "wb", _LEVEL, cast(BinaryIO, raw), mtime=0)
    if name.endswith(".zst"):
        return _zstd(raw)
    return cast(Compressor, raw)


def _zstd(raw: io.RawIOBase) -> Compressor:
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
