"""What is in a store in a bucket: its snapshots, what is unfinished, and what is neither."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from shardtool.errors import ShardtoolError
from shardtool.snapshots import bag
from shardtool.snapshots.metadata import (
    CONFIG,
    DIRECTORIES,
    MOST_BYTES,
    DamagedError,
    age_order,
    decoded,
    is_id,
)
from shardtool.snapshots.remote.bucket import Bucket, RequestError
from shardtool.snapshots.store import Listing, Snapshot, summary_of

# Somebody else's backup may be at work on what is younger. Our clock will do: S3 refuses the
# requests of a machine whose clock is off by a quarter of an hour.
_LEFT_AFTER = timedelta(days=1)
# Of what is no snapshot's: a store has a prefix of its own, and memory has an end.
_MOST_OTHERS = 100_000
_UNFINISHED = "unfinished backup, or being removed"
_NOT_OURS = "not a snapshot, and not shardtool's: left alone"
# All that a backup writes below an id, with what browsers leave for directories. Other tools name
# things by the time too: what has anything else in it is theirs, and is never removed.
_WRITTEN = re.compile(
    rf"|{'|'.join(map(re.escape, (*bag.TAG_FILES, bag.TAG_MANIFEST)))}"
    rf"|{bag.PAYLOAD}(/{re.escape(CONFIG)}|/({'|'.join(DIRECTORIES)})(/.*)?)?",
    re.DOTALL,
)


@dataclass
class Id:
    """What is known of an id after a listing: no payload is read for it.

    Args:
        whole: its tag manifest is there: it is a snapshot.
        begun: its bagit.txt is there, which a backup writes first and a forget removes last.
        foreign: something is in it that no backup writes.
        size: of all its objects, in bytes.
        changed_at: the newest change of any.
    """

    whole: bool = False
    begun: bool = False
    foreign: bool = False
    size: int = 0
    changed_at: datetime = field(default=datetime.min.replace(tzinfo=UTC))

    def is_left(self, now: datetime) -> bool:
        """Say whether it is what a kill left, and not somebody's work."""
        return self.is_unfinished and now - self.changed_at > _LEFT_AFTER

    @property
    def is_unfinished(self) -> bool:
        """It is a part of a snapshot that shardtool writes or removes, or was when it died."""
        return self.begun and not self.whole and not self.foreign


@dataclass(frozen=True)
class Contents:
    """The ids in a store, and the names that are none."""

    ids: Mapping[str, Id]
    others: tuple[str, ...]


async def look(bucket: Bucket) -> Contents:
    """List the store: names, sizes and times.

    Raises:
        ShardtoolError: it can't be listed, or holds far too much that is no snapshot's.
    """
    ids: dict[str, Id] = {}
    others: dict[str, None] = {}
    async for one in bucket.objects():
        top, slash, rest = one.key.partition("/")
        if not top:
            continue  # what some browsers of buckets leave for an empty directory
        if not (slash and is_id(top)):
            others[top] = None
            if len(others) > _MOST_OTHERS:
                raise ShardtoolError(
                    f"{bucket.address}: expected snapshots, found over {_MOST_OTHERS:,} other "
                    "names; use a prefix of its own"
                )
            continue
        found = ids.setdefault(top, Id())
        found.whole |= rest == bag.TAG_MANIFEST
        found.begun |= rest == bag.DECLARATION
        found.foreign |= _WRITTEN.fullmatch(rest) is None
        found.size += one.size
        found.changed_at = max(found.changed_at, one.changed_at)
    return Contents(ids, tuple(others))


async def list_bucket(bucket: Bucket) -> Listing:
    """Read what is in the store: names and metadata, no payload.

    Raises:
        ShardtoolError: the store can't be read.
    """
    contents = await look(bucket)
    snapshots: list[Snapshot] = []

    async def summarize(name: str) -> None:
        snapshots.append(await _summary(bucket, name))

    await bucket.each((name for name, found in contents.ids.items() if found.whole), summarize)
    parts = [
        (name, _UNFINISHED if found.is_unfinished else _NOT_OURS)
        for name, found in contents.ids.items()
        if not found.whole
    ]
    others = [*((name, "no snapshot's name") for name in contents.others), *parts]
    return Listing(
        tuple(sorted(snapshots, key=lambda snapshot: age_order(snapshot.id))),
        tuple(sorted(others)),
    )


async def _summary(bucket: Bucket, name: str) -> Snapshot:
    path = bucket.address / name
    try:
        found = decoded(await bucket.read(f"{name}/{bag.METADATA}", MOST_BYTES))
        if found.id != name:
            raise DamagedError(f"the metadata of another snapshot, {found.id[:40]!r}")
    except DamagedError as error:
        return Snapshot(name, path, problem=str(error))
    except RequestError as error:
        if not error.failure.missing:
            raise
        return Snapshot(name, path, problem=f"no {bag.METADATA} in it")
    return summary_of(found, path)
