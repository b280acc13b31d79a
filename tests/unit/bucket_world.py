"""A bucket whose requests are answered from a directory, and what a test does between two."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from shardtool.disk.copy import Counter
from shardtool.disk.durable import write_all
from shardtool.snapshots.address import Address
from shardtool.snapshots.metadata import DamagedError
from shardtool.snapshots.remote import bucket as remote
from shardtool.snapshots.remote.bucket import Bucket, Object, RequestError
from shardtool.snapshots.remote.failures import Failure

ADDRESS = Address("bucket", "a/b")
# Far more than a test asks: who looks for a free id for ever fails by this.
_MOST_ASKED = 1000


class NearBucket(Bucket):
    """A bucket whose requests are answered from a directory, as S3 answers them.

    All else of it is as ever. What obstore has in memory would do as well, if its threads were
    there in the processes that mutmut forks: there such a test hangs, and a mutant looks killed.

    Args:
        root: the directory.
        asked: the requests for one object so far, 'put KEY'.
        before: is called before such a request is answered, with what is asked.
    """

    def __init__(self, address: Address, root: Path) -> None:
        super().__init__(address)
        self.root = root
        self.asked: list[str] = []
        self.before: Callable[[str], None] = lambda asked: None

    def _ask(self, what: str) -> None:
        self.asked.append(what)
        self.before(what)

    def _write(self, key: str, content: bytes) -> None:
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def _content(self, key: str) -> bytes:
        try:
            return (self.root / key).read_bytes()
        except FileNotFoundError:
            raise broken("no such object", missing=True) from None

    async def objects(self, below: str = "") -> AsyncIterator[Object]:
        self._ask(f"list {below}")
        for path in sorted((self.root / below).rglob("*")):
            if path.is_file() and not path.is_symlink():
                key = str(path.relative_to(self.root))
                found = path.stat()
                yield Object(key, found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))

    async def put(self, key: str, content: bytes) -> None:
        self._ask(f"put {key}")
        self._write(key, content)

    async def put_file(self, key: str, file: Path, size: int) -> None:
        content = file.read_bytes()
        assert len(content) == size  # of which the parts are made
        await self.put(key, content)

    async def create(self, key: str, content: bytes) -> bool:
        self._ask(f"create {key}")
        assert len(self.asked) < _MOST_ASKED
        new = not (self.root / key).exists()
        if new:
            self._write(key, content)
        return new

    async def has(self, key: str) -> bool:
        return (self.root / key).exists()

    async def read(self, key: str, most: int) -> bytes:
        self._ask(f"read {key}")
        content = self._content(key)
        if len(content) > most:
            raise DamagedError(f"more than {most} bytes where no more were announced")
        return content

    async def digest(
        self, key: str, size: int, counter: Counter, *, target: int | None = None
    ) -> str:
        self._ask(f"digest {key}")
        content = self._content(key)
        if len(content) != size:
            raise DamagedError(f"has {len(content)} bytes, expected {size}")
        if target is not None:
            write_all(target, content)
        counter.advance(len(content))
        return hashlib.sha256(content).hexdigest()

    async def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._ask(f"delete {key}")
            (self.root / key).unlink(missing_ok=True)


def broken(what: str = "the connection broke", *, missing: bool = False) -> RequestError:
    """Return what a request ends with that fails."""
    failure = Failure(what, "run it again later", missing=missing)
    return RequestError(f"{ADDRESS}: found: {what}; run it again later", failure)


def without_a_server(monkeypatch: pytest.MonkeyPatch, staged: Path) -> None:
    """Have no bucket look for its settings or for obstore, and stage in the new `staged`."""
    staged.mkdir()
    monkeypatch.setenv("TMPDIR", str(staged))
    monkeypatch.setattr(remote, "_store", lambda *settings: None)
    monkeypatch.setattr(remote, "find_settings", lambda environment: None)
