"""obstore as a bucket's requests see it, stood in for by objects in this process.

What obstore has in memory would do as well, if its threads were there in the processes that mutmut
forks.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from obstore.exceptions import AlreadyExistsError, NotSupportedError

from shardtool.snapshots.remote.settings import Settings

BROKEN = "error sending request"  # as obstore says it of a connection
WHEN = datetime(2026, 11, 24, tzinfo=UTC)
CONFIG: Any = {"region": "r"}
CLIENT: Any = {"allow_http": True}
KEYS: Any = {"access_key_id": "k"}
SETTINGS = Settings(CONFIG, CLIENT, lambda: KEYS)
PART = 8  # bytes, here


class Answer:
    """What a get returns: the whole object's size, and the bytes asked for, in small parts."""

    def __init__(self, server: Server, size: int, content: bytes) -> None:
        self.meta = {"size": size}
        self._server = server
        self._content = content

    async def stream(self, min_chunk_size: int = 0) -> AsyncIterator[bytes]:
        self._server.streamed.append(min_chunk_size)
        for at in range(0, len(self._content), 3):
            yield self._content[at : at + 3]


class Server:
    """Objects, by path; each request is noted, and fails as `fails` says, one by one.

    Args:
        knows_conditions: an object can be made only where there is none.
        as_sent: what becomes of the bytes of an answer on their way.
        page: how many objects a list has at a time.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.asked: list[tuple[Any, ...]] = []
        self.streamed: list[int] = []
        self.fails: list[BaseException | None] = []
        self.knows_conditions = True
        self.as_sent: Callable[[bytes], bytes] = bytes
        self.page = 2

    def ask(self, *what: Any) -> None:
        self.asked.append(what)
        assert len(self.asked) < 100, "it asks for ever"
        if self.fails and (failure := self.fails.pop(0)) is not None:
            raise failure

    async def put_async(
        self, store: object, path: str, content: bytes | Path, **options: object
    ) -> None:
        self.ask("put", path, content, options)
        if options.get("mode", "overwrite") == "create":
            if not self.knows_conditions:
                raise NotSupportedError("no conditions")
            if path in self.objects:
                raise AlreadyExistsError("it is there")
        elif options.get("mode"):
            raise ValueError("an unknown mode")
        self.objects[path] = content if isinstance(content, bytes) else b"a file"

    async def head_async(self, store: object, path: str) -> None:
        self.ask("head", path)
        if path not in self.objects:
            raise FileNotFoundError("status code: 404")

    async def get_async(
        self, store: object, path: str, *, options: dict[str, Any] | None = None
    ) -> Answer:
        wanted = (options or {}).get("range")
        assert set(options or {}) <= {"range"}
        self.ask("get", path, wanted)
        content = self.objects[path]
        return Answer(self, len(content), self.as_sent(content[slice(*(wanted or (None,)))]))

    async def delete_async(self, store: object, paths: Sequence[str]) -> None:
        self.ask("delete", paths)
        for path in paths:
            self.objects.pop(path, None)

    def listing(
        self,
        store: object,
        prefix: str | None = None,
        *,
        offset: str | None = None,
        chunk_size: int = 50,
    ) -> AsyncIterator[list[dict[str, Any]]]:
        self.asked.append(("list", prefix, offset, chunk_size))
        return self._pages(prefix, offset)

    async def _pages(
        self, prefix: str | None, offset: str | None
    ) -> AsyncIterator[list[dict[str, Any]]]:
        names = sorted(
            path
            for path in self.objects
            if (prefix is None or path.startswith(f"{prefix}/")) and path > (offset or "")
        )
        for at in range(0, len(names), self.page):
            self.ask("page")
            yield [
                {"path": path, "size": len(self.objects[path]), "last_modified": WHEN}
                for path in names[at : at + self.page]
            ]


class Counting:
    """A counter that adds up."""

    def __init__(self) -> None:
        self.bytes = 0

    def advance(self, count: int) -> None:
        self.bytes += count


class Clock:
    """A clock that goes on while somebody sleeps; it began at a time that is not 0."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 6))
        self.now = round(self.now + seconds, 6)
