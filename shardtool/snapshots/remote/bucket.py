"""One prefix of a bucket: requests that end, are tried again, and fail with one line.

obstore's calls run on an event loop of our own (loop.py). Memory is bounded by pieces of some MiB,
whatever an object has.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Sequence,
)
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from shardtool.disk.copy import Counter
from shardtool.disk.durable import write_all
from shardtool.errors import ShardtoolError, UsageError
from shardtool.snapshots.address import Address
from shardtool.snapshots.metadata import DamagedError
from shardtool.snapshots.remote.failures import Failure, failure_of
from shardtool.snapshots.remote.loop import Loop
from shardtool.snapshots.remote.settings import Settings, find_settings

if TYPE_CHECKING:
    from obstore import GetOptions
    from obstore.store import S3Store

T = TypeVar("T")
Item = TypeVar("Item")

# S3 takes parts of 5 MiB at the least and 10,000 of them at the most.
_PART = 8 << 20
_MOST_PARTS = 9_000
_PARTS_AT_ONCE = 2
# Small objects cost a round trip each; so many are on their way together.
_AT_ONCE = 4
_STREAMED = 1 << 20
_LISTED_AT_ONCE = 1000


@dataclass(frozen=True)
class Patience:
    """How long a request may take, in seconds.

    A part of 8 MiB, two at once, has to get through within `silence`: 140 kB/s.

    Args:
        connect: to connect.
        silence: without a byte of an answer.
        request: from its beginning to its end.
        again: after so long no request is begun again.
    """

    connect: float = 10
    silence: float = 120
    request: float = 300
    again: float = 60


class RequestError(ShardtoolError):
    """A request failed; its line is about the whole store.

    Args:
        text: the line.
        failure: what it is made of.
    """

    def __init__(self, text: str, failure: Failure) -> None:
        super().__init__(text)
        self.failure = failure


@dataclass(frozen=True)
class Object:
    """An object as a list shows it: its key below the store's prefix, bytes, last change."""

    key: str
    size: int
    changed_at: datetime


class Bucket:
    """A store in a bucket, as a context manager. Keys are relative to the store's prefix."""

    def __init__(self, address: Address, patience: Patience = Patience()) -> None:
        """Find the settings; nothing is asked yet.

        Raises:
            UsageError: obstore is not installed.
            ShardtoolError: the settings can't be used.
        """
        self.address = address
        self._patience = patience
        self._loop = Loop()
        self._store = _store(address, find_settings(os.environ), patience)

    def __enter__(self) -> Bucket:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` to its end, or until a signal; then nothing of it goes on behind our back.

        Raises:
            ShardtoolError: native code gave up in the middle.
        """
        try:
            return self._loop.run(work)
        except BaseException as error:
            if type(error).__name__ == "PanicException":  # pyo3's: no Exception, and no name for it
                raise ShardtoolError(
                    f"{self.address}: expected obstore to work, found a mistake in it; check the "
                    "AWS_* settings"
                ) from None
            raise

    async def each(
        self, items: Iterable[Item], work: Callable[[Item], Coroutine[Any, Any, None]]
    ) -> None:
        """Do `work` for all items, a few at once; the first failure ends it all."""
        waiting = iter(items)

        async def worker() -> None:
            for item in waiting:
                await work(item)

        workers = [asyncio.ensure_future(worker()) for _ in range(_AT_ONCE)]
        try:
            await asyncio.gather(*workers)
        finally:
            for one in workers:
                one.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def put(self, key: str, content: bytes) -> None:
        """Write an object, be it there or not.

        Raises:
            RequestError: it could not be written.
        """
        import obstore

        path = self._path(key)
        await self._tried(f"write {key}", lambda: obstore.put_async(self._store, path, content))

    async def put_file(self, key: str, file: Path, size: int) -> None:
        """Write an object of `size` bytes from a file, in parts where it is large.

        Raises:
            RequestError: it could not be written.
        """
        import obstore

        path, part = self._path(key), max(_PART, -(-size // _MOST_PARTS))
        await self._tried(
            f"write {key}",
            lambda: obstore.put_async(
                self._store, path, file, chunk_size=part, max_concurrency=_PARTS_AT_ONCE
            ),
        )

    async def create(self, key: str, content: bytes) -> bool:
        """Write a new object; say whether it was new. Of two who do this only one is told so.

        Where a first try's answer was lost, False may be told of an object that is ours.

        Raises:
            RequestError: it could not be written.
        """
        import obstore

        path = self._path(key)
        try:
            await self._tried(
                f"write {key}",
                lambda: obstore.put_async(self._store, path, content, mode="create"),
            )
        except RequestError as error:
            if error.failure.exists:
                return False
            if not error.failure.unsupported:
                raise
            # A server without conditional writes: as good as looking first can be.
            if await self.has(key):
                return False
            await self.put(key, content)
        return True

    async def has(self, key: str) -> bool:
        """Say whether an object is there.

        Raises:
            RequestError: that can't be told.
        """
        import obstore

        path = self._path(key)
        try:
            await self._tried(f"find {key}", lambda: obstore.head_async(self._store, path))
        except RequestError as error:
            if error.failure.missing:
                return False
            raise
        return True

    async def read(self, key: str, most: int) -> bytes:
        """Return an object of at most `most` bytes.

        Raises:
            DamagedError: it has more.
            RequestError: it can't be read.
        """

        async def whole() -> bytes:
            return await self._got(key, {}, most)

        return await self._tried(f"read {key}", whole)

    async def digest(
        self, key: str, size: int, counter: Counter, *, target: int | None = None
    ) -> str:
        """Read an object of `size` bytes, piece by piece, and return its SHA-256 in hex.

        Args:
            key: the object's.
            size: its length, which is insisted on.
            counter: is told of each piece.
            target: a descriptor to write the same bytes to.

        Raises:
            DamagedError: it has another length.
            RequestError: it can't be read.
            OSError: it can't be written to `target`.
        """
        sha256 = hashlib.sha256()
        done = 0
        while done < size or not size:
            wanted = min(_PART, size - done)
            options: GetOptions = {"range": (done, done + wanted)} if size else {}

            async def piece(options: GetOptions = options, wanted: int = wanted) -> bytes:
                return await self._got(key, options, wanted, of=size)

            content = await self._tried(f"read {key}", piece)
            sha256.update(content)
            if target is not None:
                write_all(target, content)
            counter.advance(len(content))
            done += len(content)
            if not size:
                break
        return sha256.hexdigest()

    async def _got(
        self, key: str, options: GetOptions, most: int, *, of: int | None = None
    ) -> bytes:
        import obstore

        found = await obstore.get_async(self._store, self._path(key), options=options)
        size = found.meta["size"]
        if of is not None and size != of:
            raise DamagedError(f"has {size} bytes, expected {of}")
        content = bytearray()
        async for part in found.stream(min_chunk_size=_STREAMED):
            content += part
            if len(content) > most:
                raise DamagedError(f"more than {most} bytes where no more were announced")
        if of is not None and len(content) != most:
            raise DamagedError(f"{len(content)} bytes where {most} were announced")
        return bytes(content)

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; one that is not there is no failure.

        Raises:
            RequestError: one of them could not be deleted.
        """
        import obstore

        paths = [self._path(key) for key in keys]
        await self._tried("delete", lambda: obstore.delete_async(self._store, paths))

    async def objects(self, below: str = "") -> AsyncIterator[Object]:
        """List the objects of the store, or those below a name in it, sorted by key.

        Raises:
            RequestError: they can't be listed.
        """
        import obstore

        top = self._path(below) if below else self.address.prefix
        cut = len(self.address.prefix) + 1 if self.address.prefix else 0
        after: str | None = None
        stream: Any = None
        while True:

            async def more(after: str | None = after) -> Sequence[Any]:
                nonlocal stream
                # One that breaks is not gone on with: the next try begins behind what was seen.
                going, stream = stream, None
                if going is None:
                    going = obstore.list(
                        self._store, top or None, offset=after, chunk_size=_LISTED_AT_ONCE
                    )
                try:  # anext's own default does not work with what obstore returns
                    found: Sequence[Any] = await anext(going)
                except StopAsyncIteration:
                    return ()
                stream = going
                return found

            found = await self._tried("list it", more)
            for one in found:
                yield Object(one["path"][cut:], one["size"], one["last_modified"])
            if not found:
                return
            after = found[-1]["path"]

    def _path(self, key: str) -> str:
        return f"{self.address.prefix}/{key}" if self.address.prefix else key

    async def _tried(self, doing: str, request: Callable[[], Awaitable[T]]) -> T:
        """Do a request, again where that may help and not for ever; obstore has tried as well.

        Raises:
            RequestError: it failed.
        """
        from obstore.exceptions import BaseError

        begun, pause = time.monotonic(), 0.2
        while True:
            try:
                return await request()
            except (BaseError, OSError, ValueError) as error:
                failure = failure_of(type(error).__name__, str(error))
            if not failure.transient or time.monotonic() - begun > self._patience.again:
                break
            await asyncio.sleep(pause)
            pause = min(2 * pause, 5)
        raise RequestError(
            f"{self.address}: expected to {doing}, found: {failure.what}; {failure.advice}",
            failure,
        )


def _store(address: Address, settings: Settings, patience: Patience) -> S3Store:
    """Make obstore's store.

    Raises:
        UsageError: obstore is not installed.
        ShardtoolError: obstore refuses a setting.
    """
    try:
        import obstore.store
    except ImportError:
        raise UsageError(
            "snapshots in s3:// need obstore, which is not installed: pip install 'shardtool[s3]'"
        ) from None
    try:
        return obstore.store.S3Store(
            address.bucket,
            config=settings.config,
            client_options={
                **settings.client,
                "connect_timeout": timedelta(seconds=patience.connect),
                "read_timeout": timedelta(seconds=patience.silence),
                "timeout": timedelta(seconds=patience.request),
            },
            retry_config={
                "max_retries": 6,
                "retry_timeout": timedelta(seconds=patience.again / 2),
                "backoff": {"max_backoff": timedelta(seconds=5)},
            },
            credential_provider=settings.provider,
        )
    except (obstore.exceptions.BaseError, ValueError):
        # Its text may repeat the setting, which may be a secret.
        raise ShardtoolError(
            f"{address}: expected AWS_* settings that obstore understands, found one that it "
            "does not; check the environment and ~/.aws"
        ) from None
