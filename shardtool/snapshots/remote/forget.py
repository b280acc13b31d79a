"""Remove snapshots from a bucket: the tag manifest first, so that no half looks whole."""

from __future__ import annotations

from datetime import datetime

from shardtool.errors import ShardtoolError
from shardtool.snapshots import bag
from shardtool.snapshots.forget import Forgotten
from shardtool.snapshots.remote.bucket import Bucket, RequestError
from shardtool.snapshots.remote.contents import look
from shardtool.snapshots.retention import Plan

_DELETED_AT_ONCE = 500


async def forget_there(bucket: Bucket, plan: Plan) -> Forgotten:
    """Remove what `plan` removes.

    A kill leaves each snapshot whole, or without its tag manifest: then it is none, and the
    next backup or forget removes the rest.
    """
    removed: list[str] = []
    failed: list[tuple[str, str]] = []
    freed = 0
    for name in plan.remove:
        try:
            freed += await remove_objects(bucket, name)
        except RequestError as error:
            failed.append((name, f"{error.failure.what}; {error.failure.advice}"))
        else:
            removed.append(name)
    return Forgotten(tuple(removed), freed, tuple(failed))


async def remove_objects(bucket: Bucket, name: str) -> int:
    """Remove all objects of an id: its tag manifest first, and last what takes the id.

    Returns:
        The bytes that they had.

    Raises:
        RequestError: one of them could not be removed.
    """
    first, last = f"{name}/{bag.TAG_MANIFEST}", f"{name}/{bag.DECLARATION}"
    freed = 0
    async for one in bucket.objects(name):
        freed += one.size
    await bucket.delete([first])
    waiting: list[str] = []
    async for one in bucket.objects(name):
        if one.key != last:
            waiting.append(one.key)
        if len(waiting) == _DELETED_AT_ONCE:
            await bucket.delete(waiting)
            waiting = []
    if waiting:
        await bucket.delete(waiting)
    await bucket.delete([last])
    return freed


async def remove_left(bucket: Bucket, now: datetime) -> tuple[str, ...]:
    """Remove what killed backups and forgets left, where it is older than a day.

    Returns:
        What could not be removed, for people; it raises nothing for it.
    """
    try:
        for name, found in (await look(bucket)).ids.items():
            if found.is_left(now):
                await remove_objects(bucket, name)
    except ShardtoolError as error:
        return (f"what killed runs left could not be removed: {error}",)
    return ()
