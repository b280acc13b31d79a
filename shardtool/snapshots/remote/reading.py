"""Read a snapshot in a bucket, every byte of it: to verify it, or to fetch it for a restore."""

from __future__ import annotations

import os
from pathlib import Path

from shardtool.disk.copy import Entry, Meter, new_file
from shardtool.disk.durable import write_all
from shardtool.snapshots import bag
from shardtool.snapshots.backup import check_room
from shardtool.snapshots.metadata import MOST_BYTES, DamagedError, Metadata
from shardtool.snapshots.remote.bucket import Bucket, RequestError
from shardtool.snapshots.remote.staging import OTHER_ROOM
from shardtool.snapshots.store import PRIVATE_DIRECTORY, told
from shardtool.snapshots.verify import Examined, Problem, Verification, differences, examine

# Metadata that shardtool writes and reads, of at most MOST_BYTES, names fewer files.
_MOST_OBJECTS = 350_000


async def verify_there(bucket: Bucket, name: str, meter: Meter) -> Verification:
    """Read snapshot `name`, every byte of it, and say what is not as it was written.

    Raises:
        ShardtoolError: the store can't be reached; what is wrong with the snapshot is among the
            problems.
    """
    _, sizes, examined = await _examined(bucket, name)
    problems = [*examined.problems]
    total = sum(sizes[path] for path in examined.readable)
    with meter("verifying", total) as counter:

        async def compare(path: str) -> None:
            try:
                digest = await bucket.digest(f"{name}/{path}", sizes[path], counter)
            except DamagedError as error:
                problems.append(Problem(path, str(error)))
            except RequestError as error:
                if not error.failure.missing:
                    raise
                problems.append(Problem(path, "missing"))
            else:
                problems.extend(differences(path, digest, examined.digests[path]))

        await bucket.each(examined.readable, compare)
    return Verification(name, tuple(problems), examined.metadata, examined.digests, examined.sha256)


async def fetch(bucket: Bucket, name: str, target: int, where: Path, meter: Meter) -> list[Problem]:
    """Copy snapshot `name` into the empty directory that descriptor `target` is open on.

    What goes there are the names that its metadata has, which lead nowhere else; whatever else
    is in the bucket is a problem, and then nothing is fetched.

    Args:
        bucket: the store.
        name: the id.
        target: the directory.
        where: its path, for messages.
        meter: makes what counts the bytes.

    Returns:
        What is wrong with it, before its content is read: that is verified where it lies then.

    Raises:
        ShardtoolError: it can't be fetched.
    """
    tags, sizes, examined = await _examined(bucket, name)
    if examined.problems or examined.metadata is None:
        return examined.problems
    metadata = examined.metadata
    with told(where, "to fetch the snapshot", OTHER_ROOM):
        check_room(where, target, metadata.entries, OTHER_ROOM)
        _make_directories(target, metadata)
        for tag, content in tags.items():
            with new_file(tag, dir_fd=target) as file:
                write_all(file, content)
        with meter("fetching", sum(sizes[path] for path in examined.readable)) as counter:

            async def copy(path: str) -> None:
                with new_file(path, dir_fd=target) as file:
                    await bucket.digest(f"{name}/{path}", sizes[path], counter, target=file)

            try:
                await bucket.each(examined.readable, copy)
            except DamagedError as error:
                return [Problem(bag.PAYLOAD, str(error))]
    return []


async def _examined(bucket: Bucket, name: str) -> tuple[dict[str, bytes], dict[str, int], Examined]:
    """Return the tag files, the size of each object by its path in the bag, and what they tell."""
    sizes: dict[str, int] = {}
    problems: list[Problem] = []
    async for one in bucket.objects(name):
        if len(sizes) == _MOST_OBJECTS:
            problems.append(Problem(name, f"has over {_MOST_OBJECTS:,} objects"))
            break
        sizes[one.key.removeprefix(f"{name}/")] = one.size
    tags: dict[str, bytes] = {}
    for tag in (*bag.TAG_FILES, bag.TAG_MANIFEST):
        if tag in sizes:
            try:
                tags[tag] = await bucket.read(f"{name}/{tag}", MOST_BYTES)
            except DamagedError as error:
                problems.append(Problem(tag, str(error)))
    found = [Entry(path, "file", 0, 0, 0, size, 0) for path, size in sizes.items()]
    return tags, sizes, examine(tags, found, name, problems, only_files=True)


def _make_directories(target: int, metadata: Metadata) -> None:
    """Make what no object stands for; metadata has parents first."""
    os.mkdir(bag.PAYLOAD, PRIVATE_DIRECTORY, dir_fd=target)
    for entry in metadata.entries:
        if entry.kind == "directory":
            os.mkdir(f"{bag.PAYLOAD}/{entry.path}", PRIVATE_DIRECTORY, dir_fd=target)
