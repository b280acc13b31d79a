"""Take a snapshot into a bucket: stage it, send it, read it back, and only then complete it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from shardtool.datadir.layout import Layout
from shardtool.datadir.server import Search
from shardtool.disk.copy import Counter, Meter
from shardtool.errors import ShardtoolError
from shardtool.snapshots import bag
from shardtool.snapshots.address import Address, problem_with_key
from shardtool.snapshots.backup import Backup, Onward, take_snapshot
from shardtool.snapshots.metadata import MOST_BYTES, DamagedError
from shardtool.snapshots.remote.bucket import Bucket
from shardtool.snapshots.remote.forget import remove_left, remove_objects
from shardtool.snapshots.remote.staging import OTHER_ROOM, staging
from shardtool.snapshots.verify import Verification

# How long to try to take back what a failed backup wrote, in s.
_TAKING_BACK = 30


@dataclass(frozen=True)
class Sent:
    """A snapshot in a bucket: where it is, what its verification found, what to be told."""

    path: Address
    verified: Verification
    warnings: tuple[str, ...] = ()


def back_up(
    layout: Layout,
    bucket: Bucket,
    meter: Meter,
    held: AbstractContextManager[None],
    look_for_server: Callable[[], Search],
    *,
    live: bool,
) -> Sent:
    """Snapshot the node into `bucket`.

    An id is taken by creating its bagit.txt, which only one can. The tag manifest goes last: a
    kill before leaves no snapshot, and what it leaves is removed when it is a day old. Of any
    other failure what was written is removed at once.

    Args:
        layout: the node.
        bucket: the store.
        meter: makes what counts the bytes.
        held: the node's lock, held for as long as the node is read.
        look_for_server: says who is running on the node, or refuses.
        live: copy until two passes agree, instead of failing on the first change.

    Raises:
        ShardtoolError: it could not be taken; the line says why, and what is left of it.
    """
    taken: list[str] = []

    def is_taken(name: str) -> bool:
        if not bucket.run(bucket.create(f"{name}/{bag.DECLARATION}", bag.DECLARED)):
            return True
        taken.append(name)
        return False

    with staging() as store:
        try:
            with held:
                onward = Onward(is_taken, OTHER_ROOM)
                search = look_for_server()
                made = take_snapshot(layout, store, meter, live=live, search=search, onward=onward)
            bucket.run(_send(bucket, store / made.verified.id, made, meter))
        except BaseException as error:
            # An interrupt too: what is not complete must not stay.
            what = _take_back(bucket, taken[-1]) if taken else ""
            if not (what and isinstance(error, ShardtoolError)):
                raise
            raise ShardtoolError(f"{error}; {what}") from None
    left = bucket.run(remove_left(bucket, datetime.now(UTC)))
    path = bucket.address / made.verified.id
    return Sent(path, made.verified, (*made.warnings, *left))


def _take_back(bucket: Bucket, name: str) -> str:
    """Remove what was written of snapshot `name`; return what became of it, for people."""
    try:
        bucket.run(asyncio.wait_for(remove_objects(bucket, name), _TAKING_BACK))
    except (ShardtoolError, TimeoutError):
        return (
            f"what was written of {name} could not be removed: if shardtool snapshots lists it, it "
            "is whole; else a later backup or forget removes it when it is a day old"
        )
    return "what was written of the snapshot was removed"


async def _send(bucket: Bucket, source: Path, made: Backup, meter: Meter) -> None:
    """Send a staged bag, read every object back, and put its tag manifest.

    Raises:
        ShardtoolError: a request failed, or what was read back is not what was sent.
    """
    name = made.verified.id
    paths = (*made.verified.digests, *bag.TAG_FILES)
    sizes = {path: (source / path).stat().st_size for path in paths}
    for path in paths:
        if problem := problem_with_key(bucket.address / name / path):
            raise ShardtoolError(
                f"{path.removeprefix('data/')}: expected a name that a bucket can have, found "
                f"{problem}; the server writes no such name: move it away"
            )
    last = (source / bag.TAG_MANIFEST).read_bytes()
    digests = {**made.verified.digests, **bag.parsed_manifest(last)}
    total = sum(sizes.values())

    with meter("sending", total) as counter:

        async def send(path: str) -> None:
            await bucket.put_file(f"{name}/{path}", source / path, sizes[path])
            counter.advance(sizes[path])

        await bucket.each((path for path in sizes if path != bag.DECLARATION), send)
    with meter("reading back", total) as counter:

        async def compare(path: str) -> None:
            await _insist_on(bucket, name, path, sizes[path], digests[path], counter)

        await bucket.each(sizes, compare)
    await _complete(bucket, name, last)


async def _insist_on(
    bucket: Bucket, name: str, path: str, size: int, expected: str, counter: Counter
) -> None:
    try:
        found = await bucket.digest(f"{name}/{path}", size, counter)
    except DamagedError as error:
        what = str(error)
    else:
        if found == expected:
            return
        what = f"its SHA-256 is {found}, expected {expected}"
    raise ShardtoolError(
        f"{bucket.address / name}: expected to read back what was sent, found {path}: {what}; "
        "check the server and the way to it"
    )


async def _complete(bucket: Bucket, name: str, content: bytes) -> None:
    """Put the tag manifest, and insist that it is there: from now on it is a snapshot.

    Raises:
        ShardtoolError: it is not there, or not ours.
    """
    key = f"{name}/{bag.TAG_MANIFEST}"
    try:
        await bucket.create(key, content)
        # Also where it was there: the answer to our own first try may have been lost.
        if await bucket.read(key, MOST_BYTES) == content:
            return
    except DamagedError:
        pass
    raise ShardtoolError(
        f"{bucket.address / name}: expected the tag manifest that was written, found another "
        "one; another host uses this id: run it again"
    )
