"""A bucket that has objects of any key, size and time, in pages; and how its requests fail."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from shardtool.snapshots.remote.bucket import Object, RequestError
from shardtool.snapshots.remote.loop import Loop
from tests.real.snapshot_world import Uncounted
from tests.unit.bucket_world import ADDRESS, NearBucket, broken

NOW = datetime(2026, 11, 27, 8, tzinfo=UTC)
DOWN = broken("nobody listens there")
MISSING = broken("no such object", missing=True)


class ObjectBucket(NearBucket):
    """A bucket of objects in memory: no directory has a file 'a', a file 'a/' and one 'a/b'.

    It is listed, read and deleted from; nothing writes to it.

    Args:
        contents: the objects by key, below the store's prefix.
        changed_at: when an object was changed, where that is not NOW.
        listed_size: what a list tells of an object that has another size by now.
        failing: what requests fail with, by their key.
        deletes: the keys of each request to delete some.
    """

    def __init__(self, contents: dict[str, bytes] | None = None) -> None:
        self.address = ADDRESS
        self._loop = Loop()
        self.asked = []
        self.before = lambda asked: None
        self.contents = dict(contents or {})
        self.changed_at: dict[str, datetime] = {}
        self.listed_size: dict[str, int] = {}
        self.failing: dict[str, RequestError] = {}
        self.deletes: list[list[str]] = []

    def _ask(self, what: str) -> None:
        super()._ask(what)
        key = what.partition(" ")[2]
        if key in self.failing:
            raise self.failing[key]

    def _content(self, key: str) -> bytes:
        if key not in self.contents:
            raise MISSING
        return self.contents[key]

    async def objects(self, below: str = "") -> AsyncIterator[Object]:
        """List in pages, each begun behind the last: what goes meanwhile is missing, no more."""
        self._ask(f"list {below}")
        top = f"{below}/" if below else ""
        after: str | None = None
        while page := sorted(
            key for key in self.contents if key.startswith(top) and (after is None or key > after)
        )[:1000]:
            for key in page:
                size = self.listed_size.get(key, len(self.contents.get(key, b"")))
                yield Object(key, size, self.changed_at.get(key, NOW))
            after = page[-1]

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete objects: S3 takes no request to delete none, and none for over a thousand."""
        assert 0 < len(keys) <= 1000
        for key in keys:
            self._ask(f"delete {key}")
        self.deletes.append([*keys])
        for key in keys:
            self.contents.pop(key, None)


@dataclass
class Counts:
    """A meter that keeps what it is told: what is done, of how many bytes, and those done."""

    begun: list[tuple[str, int]] = field(default_factory=list)
    done: int = 0

    def meter(self, doing: str, total: int) -> Uncounted:
        """Begin to count."""
        self.begun.append((doing, total))
        counts = self

        class Counting(Uncounted):
            def advance(self, count: int) -> None:
                counts.done += count

        return Counting(doing, total)


def objects_in(snapshot: Path) -> dict[str, bytes]:
    """Return the objects that a snapshot in a directory would be in a bucket."""
    return {
        str(path.relative_to(snapshot.parent)): path.read_bytes()
        for path in sorted(snapshot.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }
