"""A snapshot in a bucket is complete or absent: its tag manifest is put last, of what is proven."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from shardtool.datadir.layout import find_layout
from shardtool.datadir.server import Search
from shardtool.disk.copy import Meter
from shardtool.errors import ShardtoolError
from shardtool.snapshots.bag import DECLARATION, DECLARED, TAG_FILES, TAG_MANIFEST
from shardtool.snapshots.metadata import MOST_BYTES
from shardtool.snapshots.remote import upload
from shardtool.snapshots.remote.upload import Sent, back_up
from tests.real.snapshot_world import Uncounted, make_node
from tests.unit.bucket_world import ADDRESS, NearBucket, broken, without_a_server
from tests.unit.staging_world import STAMP, acting, stopped_clock

OLD = "20261101T080000Z"
NEXT = f"{STAMP}-2"
PAYLOAD = ("config.toml", "raft/log", "raft/name", "wal/empty", "wal/log.1")
FILES = (*(f"data/{path}" for path in PAYLOAD), *TAG_FILES)
TAKEN_BACK = "; what was written of the snapshot was removed"
_NOBODY = Search()
_DOUBT = Search(unseen=2)


@dataclass
class World:
    """A node and an empty bucket, at STAMP's time."""

    node: Path
    bucket: NearBucket
    staged: Path
    held: list[str] = field(default_factory=list)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Note when the node is held, and what was asked of the bucket when it no longer was."""
        self.held.append("held")
        try:
            yield
        finally:
            self.held.append(f"let go after {len(self.bucket.asked)}")

    def back_up(
        self, meter: Meter = Uncounted, search: Search = _NOBODY, *, live: bool = False
    ) -> Sent:
        """Take a snapshot of the node into the bucket."""
        layout = find_layout(str(self.node), None, {})

        def look() -> Search:
            self.held.append("looked")
            return search

        return back_up(layout, self.bucket, meter, self.lock(), look, live=live)

    def fails(self, meter: Meter = Uncounted) -> str:
        """Take a snapshot that fails, staging nothing for ever; return the line."""
        with pytest.raises(ShardtoolError) as error:
            self.back_up(meter)
        assert list(self.staged.iterdir()) == []
        assert "\n" not in str(error.value)
        return str(error.value)

    def there(self) -> list[str]:
        """Return what is in the bucket."""
        root = self.bucket.root
        return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())

    def failing(self, sign: str) -> None:
        """Have each request fail that has `sign` in it."""

        def fail(asked: str) -> None:
            if sign in asked:
                raise broken()

        self.bucket.before = fail

    def changing(self, sign: str, path: str, content: bytes) -> None:
        """Have an object of the snapshot be another one, before what has `sign` is answered."""

        def change(asked: str) -> None:
            if sign in asked:
                (self.bucket.root / STAMP / path).write_bytes(content)

        self.bucket.before = change


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    without_a_server(monkeypatch, tmp_path / "staged")
    stopped_clock(monkeypatch)
    (tmp_path / "bucket").mkdir()
    bucket = NearBucket(ADDRESS, tmp_path / "bucket")
    with bucket:
        yield World(make_node(tmp_path / "node"), bucket, tmp_path / "staged")


@dataclass
class Counted(Uncounted):
    """What counts bytes, and keeps how many were announced and how many there were."""

    doing: str
    total: int
    seen: dict[str, tuple[int, int]]
    count: int = 0

    def __exit__(self, *error: object) -> None:
        self.seen[self.doing] = (self.total, self.count)

    def advance(self, count: int) -> None:
        self.count += count


def complete(name: str = STAMP) -> list[str]:
    return sorted(f"{name}/{path}" for path in (*FILES, TAG_MANIFEST))


# -- what is sent --


def test_a_snapshot_in_a_bucket_is_what_was_there(world: World) -> None:
    sent = world.back_up()
    assert str(sent.path) == f"s3://bucket/a/b/{STAMP}"
    assert (sent.verified.id, sent.verified.good) == (STAMP, True)
    assert world.there() == complete()
    for path in PAYLOAD:
        there = world.bucket.root / STAMP / "data" / path
        assert there.read_bytes() == (world.node / path).read_bytes()
    assert (sent.warnings, list(world.staged.iterdir())) == ((), [])


def test_the_id_is_taken_first_and_the_tag_manifest_put_last_of_what_was_read_back(
    world: World,
) -> None:
    world.back_up()
    asked = [one.replace(f"{STAMP}/", "") for one in world.bucket.asked]
    sent = sorted(f"put {path}" for path in FILES if path != DECLARATION)
    compared = sorted(f"digest {path}" for path in FILES)
    last = len(asked) - 3
    assert asked[0] == f"create {DECLARATION}"
    assert sorted(asked[1 : 1 + len(sent)]) == sent
    assert sorted(asked[1 + len(sent) : last]) == compared
    # And then it is looked for what killed runs left.
    assert asked[last:] == [f"create {TAG_MANIFEST}", f"read {TAG_MANIFEST}", "list "]


def test_the_node_is_held_while_it_is_read_and_not_while_it_is_sent(world: World) -> None:
    world.back_up()
    assert world.held == ["held", "looked", "let go after 1"]


def test_bytes_are_counted_as_they_are_sent_and_read_back(world: World) -> None:
    seen: dict[str, tuple[int, int]] = {}

    def meter(doing: str, total: int) -> Counted:
        return Counted(doing, total, seen)

    world.back_up(meter)
    total = sum((world.bucket.root / STAMP / path).stat().st_size for path in FILES)
    assert seen["sending"] == (total, total - len(DECLARED))
    assert seen["reading back"] == (total, total)


def test_a_doubt_about_the_server_is_told(world: World) -> None:
    assert world.back_up(search=_DOUBT).warnings == (_DOUBT.doubt,)


@pytest.mark.parametrize("live", [True, False])
def test_what_changes_while_it_is_copied_is_an_error_unless_live(live: bool, world: World) -> None:
    changes = iter([b"changed\n"])

    def meter(doing: str, total: int) -> Uncounted:
        if doing == "copying":
            return Changing(world.node / "raft/log", changes)
        return Uncounted(doing, total)

    if live:
        world.back_up(meter, live=True)
        there = world.bucket.root / STAMP / "data/raft/log"
        assert there.read_bytes() == (world.node / "raft/log").read_bytes()
    else:
        line = world.fails(meter)
        assert line.endswith(TAKEN_BACK)
        assert world.there() == []


class Changing(Uncounted):
    """What changes a file when the first bytes were copied."""

    def __init__(self, file: Path, contents: Iterator[bytes]) -> None:
        self._file, self._contents = file, contents

    def advance(self, count: int) -> None:
        for content in self._contents:
            with self._file.open("ab") as stream:
                stream.write(content)


# -- the id --


def test_an_id_that_is_taken_there_is_left_alone(world: World) -> None:
    other = world.bucket.root / STAMP / DECLARATION
    other.parent.mkdir(parents=True)
    other.write_bytes(b"another's")
    sent = world.back_up()
    assert sent.verified.id == NEXT
    assert sent.path == ADDRESS / NEXT
    assert other.read_bytes() == b"another's"
    assert world.there() == sorted([f"{STAMP}/{DECLARATION}", *complete(NEXT)])
    assert (world.bucket.root / NEXT / DECLARATION).read_bytes() == DECLARED


def test_of_a_failure_only_our_own_id_is_removed(world: World) -> None:
    other = world.bucket.root / STAMP / DECLARATION
    other.parent.mkdir(parents=True)
    other.write_bytes(b"another's")
    world.failing(f"digest {NEXT}/data/raft/log")
    assert world.fails() == f"{broken()}{TAKEN_BACK}"
    assert world.there() == [f"{STAMP}/{DECLARATION}"]


def test_where_no_id_could_be_taken_nothing_is_removed(world: World) -> None:
    world.failing("create")
    assert world.fails() == str(broken())
    assert world.bucket.asked == [f"create {STAMP}/{DECLARATION}"]


def test_a_node_that_is_none_takes_no_id(world: World) -> None:
    os.rename(world.node / "raft", world.node / "other")
    assert "expected the node's raft directory" in world.fails()
    assert world.bucket.asked == []


# -- what fails leaves nothing --


@pytest.mark.parametrize(
    "sign",
    [
        "put STAMP/data/wal/log.1",
        "put STAMP/shardtool.json",
        "digest STAMP/bagit.txt",
        "digest STAMP/data/raft/log",
        "create STAMP/tagmanifest",
        "read STAMP/tagmanifest",
    ],
)
def test_a_request_that_fails_leaves_nothing(sign: str, world: World) -> None:
    world.failing(sign.replace("STAMP", STAMP))
    assert world.fails() == f"{broken()}{TAKEN_BACK}"
    assert world.there() == []


@pytest.mark.parametrize("path", FILES)
def test_what_is_not_read_back_as_it_was_sent_is_no_snapshot(path: str, world: World) -> None:
    world.changing(f"digest {STAMP}/{path}", path, b"other")
    line = world.fails()
    assert line.startswith(
        f"s3://bucket/a/b/{STAMP}: expected to read back what was sent, found {path}: has 5 bytes, "
        "expected "
    )
    assert line.endswith(f"; check the server and the way to it{TAKEN_BACK}")
    assert world.there() == []
    assert f"create {STAMP}/{TAG_MANIFEST}" not in world.bucket.asked


@pytest.mark.parametrize("path", ["data/raft/name", *TAG_FILES])
def test_a_byte_that_is_another_is_found(path: str, world: World) -> None:
    def change(asked: str) -> None:
        if asked == f"digest {STAMP}/{path}":
            there = world.bucket.root / STAMP / path
            there.write_bytes(there.read_bytes()[:-1] + b"x")

    world.bucket.before = change
    found = re.fullmatch(
        rf"s3://bucket/a/b/{STAMP}: expected to read back what was sent, found {path}: its SHA-256 "
        r"is ([0-9a-f]{64}), expected ([0-9a-f]{64}); check the server and the way to it"
        + re.escape(TAKEN_BACK),
        world.fails(),
    )
    assert found is not None
    assert found[1] != found[2]
    assert world.there() == []


@pytest.mark.parametrize("content", [b"another's", b"x" * (MOST_BYTES + 1)], ids=["other", "huge"])
def test_a_tag_manifest_that_is_not_ours_is_told(content: bytes, world: World) -> None:
    world.changing("read", TAG_MANIFEST, content)
    assert world.fails() == (
        f"s3://bucket/a/b/{STAMP}: expected the tag manifest that was written, found another one; "
        f"another host uses this id: run it again{TAKEN_BACK}"
    )


def test_a_tag_manifest_whose_first_answer_was_lost_is_ours(world: World) -> None:
    def lose(asked: str) -> None:
        if asked == f"create {STAMP}/{TAG_MANIFEST}":
            (staged,) = world.staged.glob(f"*/store/{STAMP}/{TAG_MANIFEST}")
            (world.bucket.root / STAMP / TAG_MANIFEST).write_bytes(staged.read_bytes())

    world.bucket.before = lose
    assert world.back_up().verified.id == STAMP
    assert world.there() == complete()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError])
@pytest.mark.parametrize("doing", ["copying", "sending", "reading back"])
def test_an_interrupt_leaves_nothing_and_stays_one(
    doing: str, error: type[BaseException], world: World
) -> None:
    def interrupt() -> None:
        raise error("it ends")

    with pytest.raises(error, match=r"^it ends$"):
        world.back_up(acting(doing, interrupt))
    assert world.there() == []
    assert list(world.staged.iterdir()) == []


@pytest.mark.parametrize("failing", ["list", "delete"])
def test_what_can_not_be_taken_back_is_told(failing: str, world: World) -> None:
    def fail(asked: str) -> None:
        if asked.startswith((failing, f"digest {STAMP}/data/raft/log")):
            raise broken()

    world.bucket.before = fail
    assert world.fails() == (
        f"{broken()}; what was written of {STAMP} could not be removed: if shardtool snapshots "
        "lists it, it is whole; else a later backup or forget removes it when it is a day old"
    )
    assert f"{STAMP}/{TAG_MANIFEST}" not in world.there()
    assert f"{STAMP}/{DECLARATION}" in world.there()


def test_taking_back_has_an_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that falls silent holds nobody for ever; here a moment is the longest."""

    async def silent(keys: Sequence[str]) -> None:
        await asyncio.sleep(1)

    monkeypatch.setattr(upload, "_TAKING_BACK", 0.05)
    monkeypatch.setattr(world.bucket, "delete", silent)
    world.failing("digest")
    assert f"; what was written of {STAMP} could not be removed: " in world.fails()


def test_a_name_that_no_bucket_can_have_is_told_before_a_byte_is_sent(world: World) -> None:
    (world.node / "wal" / "a\x01b").touch()
    assert world.fails() == (
        "wal/a\x01b: expected a name that a bucket can have, found a control character in its "
        f"name; the server writes no such name: move it away{TAKEN_BACK}"
    )
    assert not [one for one in world.bucket.asked if one.startswith("put")]
    assert world.there() == []


def test_a_key_is_as_long_as_s3_has_it_with_the_store_and_the_id(world: World) -> None:
    before = len(f"a/b/{STAMP}/data/wal/")
    long = "/".join(["d" * 200] * 4)
    (world.node / "wal" / long).mkdir(parents=True)
    name = "n" * (1024 - before - len(long) - 1)
    (world.node / "wal" / long / name).touch()
    world.back_up()
    (world.node / "wal" / long / name).rename(world.node / "wal" / long / (name + "n"))
    assert "found a key of more than 1,024 bytes" in world.fails()
    assert world.there() == sorted([*complete(), f"{STAMP}/data/wal/{long}/{name}"])


# -- what killed runs left --


@pytest.mark.parametrize(("hours", "stays"), [(23, True), (25, False)])
def test_what_a_killed_backup_left_goes_when_it_is_a_day_old(
    hours: int, stays: bool, world: World
) -> None:
    left = world.bucket.root / OLD / DECLARATION
    left.parent.mkdir()
    left.touch()
    then = datetime.now(UTC).timestamp() - hours * 3600
    os.utime(left, (then, then))
    assert world.back_up().warnings == ()
    assert left.exists() is stays
    assert set(complete()) <= set(world.there())


def test_what_can_not_be_removed_of_others_fails_no_backup(world: World) -> None:
    def fail(asked: str) -> None:
        if asked == "list ":
            raise broken()

    world.bucket.before = fail
    sent = world.back_up(search=_DOUBT)
    assert sent.warnings == (
        _DOUBT.doubt,
        f"what killed runs left could not be removed: {broken()}",
    )
    assert world.there() == complete()
