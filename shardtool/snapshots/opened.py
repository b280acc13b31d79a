"""A store that is open, be it a directory or a prefix in a bucket: what commands do with it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from shardtool.disk.copy import Meter
from shardtool.disk.durable import READ_DIRECTORY, opened
from shardtool.disk.locks import exclusive
from shardtool.snapshots.address import Address, Place
from shardtool.snapshots.forget import Forgotten, forget
from shardtool.snapshots.retention import Plan
from shardtool.snapshots.store import Listing, list_store, opened_store, remove_leftovers, told
from shardtool.snapshots.verify import Verification, verify

if TYPE_CHECKING:
    from shardtool.snapshots.remote.bucket import Bucket


class OpenStore(Protocol):
    """What can be done with a store. All of it raises ShardtoolError where it can't be read."""

    def listing(self) -> Listing:
        """Read what is in it: names and metadata, no payload."""

    def verify(self, name: str, meter: Meter) -> Verification:
        """Read a snapshot, every byte of it."""

    def fetched(self, name: str, meter: Meter) -> AbstractContextManager[tuple[int, Verification]]:
        """Yield a directory in which snapshot `name` lies, open, and what verifying it found."""

    def remove_leftovers(self) -> tuple[str, ...]:
        """Remove what killed backups and forgets left; return what could not be, for people."""

    def forget(self, plan: Plan) -> Forgotten:
        """Remove what `plan` removes."""


@contextlib.contextmanager
def open_place(place: Place, *, alone: bool = False) -> Iterator[OpenStore]:
    """Open a store.

    Args:
        place: where it is.
        alone: hold a directory's lock; a bucket has none, and what is done there needs none.

    Raises:
        ShardtoolError: it is not there or can't be opened.
        BusyError: it is to be locked, and another process has.
    """
    if isinstance(place, Address):
        from shardtool.snapshots.remote.bucket import Bucket

        with Bucket(place) as bucket:
            yield _InBucket(bucket)
        return
    lock = exclusive(place, purpose="snapshot directory") if alone else nullcontext()
    with opened_store(place) as directory, lock:
        yield _InDirectory(place, directory)


class _InDirectory:
    def __init__(self, path: Path, directory: int) -> None:
        self._path = path
        self._directory = directory

    def listing(self) -> Listing:
        return list_store(self._path)

    def verify(self, name: str, meter: Meter) -> Verification:
        return verify(self._directory, name, meter)

    @contextlib.contextmanager
    def fetched(self, name: str, meter: Meter) -> Iterator[tuple[int, Verification]]:
        yield self._directory, self.verify(name, meter)

    def remove_leftovers(self) -> tuple[str, ...]:
        with told(self._path, "to list the snapshot directory", "check the disk"):
            return remove_leftovers(self._directory)

    def forget(self, plan: Plan) -> Forgotten:
        return forget(self._directory, plan)


class _InBucket:
    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def listing(self) -> Listing:
        from shardtool.snapshots.remote.contents import list_bucket

        return self._bucket.run(list_bucket(self._bucket))

    def verify(self, name: str, meter: Meter) -> Verification:
        from shardtool.snapshots.remote.reading import verify_there

        return self._bucket.run(verify_there(self._bucket, name, meter))

    @contextlib.contextmanager
    def fetched(self, name: str, meter: Meter) -> Iterator[tuple[int, Verification]]:
        from shardtool.snapshots.remote.reading import fetch
        from shardtool.snapshots.remote.staging import staging

        with staging() as store:
            where = store / name
            where.mkdir(mode=0o700)
            with opened(where, READ_DIRECTORY) as target:
                problems = self._bucket.run(fetch(self._bucket, name, target, where, meter))
            with opened(store, READ_DIRECTORY) as directory:
                yield (
                    directory,
                    Verification(name, tuple(problems))
                    if problems
                    else verify(directory, name, meter),
                )

    def remove_leftovers(self) -> tuple[str, ...]:
        from shardtool.snapshots.remote.forget import remove_left

        return self._bucket.run(remove_left(self._bucket, datetime.now(UTC)))

    def forget(self, plan: Plan) -> Forgotten:
        from shardtool.snapshots.remote.forget import forget_there

        return self._bucket.run(forget_there(self._bucket, plan))
