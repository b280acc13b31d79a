"""What is asked of obstore, how often, and what is made of its answers: obstore is stood in for.

The requests themselves are tested against a server (tests/e2e/test_s3*.py).
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import obstore
import obstore.store
import pytest
from obstore.exceptions import GenericError, PermissionDeniedError

from shardtool.errors import ShardtoolError, UsageError
from shardtool.snapshots.address import Address
from shardtool.snapshots.metadata import DamagedError
from shardtool.snapshots.remote import bucket as remote
from shardtool.snapshots.remote.bucket import Bucket, Object, Patience, RequestError
from shardtool.snapshots.remote.failures import Failure
from tests.unit.obstore_world import (
    BROKEN,
    PART,
    SETTINGS,
    WHEN,
    Clock,
    Counting,
    Server,
)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    made = Server()
    for name in ("put_async", "head_async", "get_async", "delete_async"):
        monkeypatch.setattr(obstore, name, getattr(made, name))
    monkeypatch.setattr(obstore, "list", made.listing)
    monkeypatch.setattr(remote, "find_settings", lambda environment: SETTINGS)
    monkeypatch.setattr(obstore.store, "S3Store", lambda *args, **options: (args, options))
    monkeypatch.setattr(remote, "_PART", PART)
    return made


@pytest.fixture
def bucket(server: Server) -> Iterator[Bucket]:
    """A store below a/b."""
    with Bucket(Address("bucket", "a/b")) as made:
        yield made


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(remote, "time", made)
    monkeypatch.setattr(remote, "asyncio", SimpleNamespace(sleep=made.sleep))
    return made


def path_and_options(server: Server) -> list[tuple[str, object]]:
    return [(what[1], what[3]) for what in server.asked if what[0] == "put"]


# -- the store that is made --


def test_obstore_is_made_with_the_settings_and_bounds_for_each_wait(server: Server) -> None:
    patience = Patience(connect=1, silence=2, request=3, again=40)
    with Bucket(Address("bucket", "a/b"), patience) as bucket:
        made: Any = bucket._store
    args, options = made
    assert args == ("bucket",)
    assert options == {
        "config": SETTINGS.config,
        "client_options": {
            "allow_http": True,
            "connect_timeout": timedelta(seconds=1),
            "read_timeout": timedelta(seconds=2),
            "timeout": timedelta(seconds=3),
        },
        "retry_config": {
            "max_retries": 6,
            "retry_timeout": timedelta(seconds=20),
            "backoff": {"max_backoff": timedelta(seconds=5)},
        },
        "credential_provider": SETTINGS.provider,
    }


@pytest.mark.parametrize("error", [ValueError("s3cret"), GenericError("s3cret")])
def test_a_setting_that_obstore_refuses_is_not_repeated(
    server: Server, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(obstore.store, "S3Store", refuse)
    with pytest.raises(ShardtoolError) as caught:
        Bucket(Address("bucket", "a"))
    assert str(caught.value) == (
        "s3://bucket/a: expected AWS_* settings that obstore understands, found one that it "
        "does not; check the environment and ~/.aws"
    )


def test_without_obstore_it_is_said_what_to_install(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(UsageError, match=r"need obstore.*: pip install 'shardtool\[s3\]'$"):
        Bucket(Address("bucket", "a"))


# -- the loop --


@pytest.mark.filterwarnings("ignore:coroutine")  # what was asked is never begun
def test_who_has_left_a_bucket_asks_it_no_more(server: Server) -> None:
    with Bucket(Address("bucket", "a")) as bucket:
        assert bucket.run(bucket.has("a")) is False
    asked = bucket.has("a")
    with pytest.raises(RuntimeError, match="closed"):
        bucket.run(asked)
    asked.close()


@pytest.mark.parametrize(
    ("name", "what", "words"),
    [
        (
            "PanicException",
            ShardtoolError,
            r"^s3://bucket/a/b: expected obstore to work, found a mistake in it; check the AWS_\*",
        ),
        ("Exception", BaseException, r"^called `None`$"),
    ],
)
def test_native_code_that_gives_up_is_one_line(
    bucket: Bucket, name: str, what: type[BaseException], words: str
) -> None:
    raised = type(name, (BaseException,), {})  # as pyo3 makes it: of no module to import it from

    async def give_up() -> None:
        raise raised("called `None`")

    with pytest.raises(what, match=words):
        bucket.run(give_up())
    assert bucket.run(bucket.has("a")) is False


def test_a_few_are_worked_on_at_once_and_all_in_the_end(bucket: Bucket) -> None:
    done, at_work, most = [], 0, 0

    async def work(item: int) -> None:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        await asyncio.sleep(0)
        at_work -= 1
        done.append(item)

    bucket.run(bucket.each(range(20), work))
    assert sorted(done) == list(range(20))
    assert most == 4


def test_the_first_failure_ends_all_others_wholly(bucket: Bucket) -> None:
    begun: list[int] = []
    ended: list[int] = []

    async def work(item: int) -> None:
        begun.append(item)
        try:
            await asyncio.sleep(0 if item == 2 else 60)
            if item == 2:
                raise RequestError("it broke", Failure("it broke", "wait"))
        finally:
            for _ in range(9):  # to end takes some turns of the loop
                await asyncio.sleep(0)
            ended.append(item)

    async def all_of_it() -> list[int]:
        with pytest.raises(RequestError, match=r"^it broke$"):
            await bucket.each(range(20), work)
        return sorted(ended)

    assert bucket.run(all_of_it()) == begun == [0, 1, 2, 3]


# -- trying again --


def test_a_broken_connection_is_tried_again_with_longer_pauses(
    server: Server, bucket: Bucket, clock: Clock
) -> None:
    server.fails = [GenericError(BROKEN), OSError(BROKEN), ValueError(BROKEN)] * 3
    bucket.run(bucket.put("k", b"x"))
    assert clock.slept == [0.2, 0.4, 0.8, 1.6, 3.2, 5, 5, 5, 5]
    assert server.objects == {"a/b/k": b"x"}


def test_it_is_not_tried_again_for_ever(server: Server, clock: Clock) -> None:
    server.fails = [GenericError(BROKEN)] * 9
    with (
        # After 1.4 seconds, as the clock has them, it is just in time once more.
        Bucket(Address("bucket", "a/b"), Patience(again=1001.4 - clock.now)) as bucket,
        pytest.raises(RequestError) as caught,
    ):
        bucket.run(bucket.put("k", b"x"))
    assert clock.slept == [0.2, 0.4, 0.8, 1.6]
    assert str(caught.value) == (
        "s3://bucket/a/b: expected to write k, found: the connection broke; run it again later"
    )
    assert caught.value.failure.transient
    assert server.objects == {}


def test_what_will_not_get_better_is_not_tried_again(
    server: Server, bucket: Bucket, clock: Clock
) -> None:
    requests: list[tuple[str, Callable[[], Any]]] = [
        ("write k", lambda: bucket.put("k", b"")),
        ("write k", lambda: bucket.put_file("k", Path("f"), 1)),
        ("write k", lambda: bucket.create("k", b"")),
        ("find k", lambda: bucket.has("k")),
        ("read k", lambda: bucket.read("k", 9)),
        ("read k", lambda: bucket.digest("k", 9, Counting())),
        ("delete", lambda: bucket.delete(["k"])),
    ]
    for doing, request in requests:
        server.fails = [PermissionDeniedError("no"), *[AssertionError("once more")]]
        with pytest.raises(RequestError) as caught:
            bucket.run(request())
        words = f"s3://bucket/a/b: expected to {doing}, found: access denied (no reason told); give"
        assert str(caught.value).startswith(words)
    assert clock.slept == []


# -- writing --


def test_a_file_goes_in_parts_of_which_there_are_not_too_many(
    server: Server, bucket: Bucket
) -> None:
    most = 9000 * PART
    for size in (0, 1, most - 1, most, most + 1, 10 * most - 1, 10 * most + 1):
        bucket.run(bucket.put_file("k", Path("file"), size))
    parts = [PART, PART, PART, PART, PART + 1, 10 * PART, 10 * PART + 1]
    assert path_and_options(server) == [
        ("a/b/k", {"chunk_size": part, "max_concurrency": 2}) for part in parts
    ]
    assert all(isinstance(what[3]["chunk_size"], int) for what in server.asked)


def test_a_new_object_is_new_once(server: Server, bucket: Bucket) -> None:
    assert bucket.run(bucket.create("k", b"first")) is True
    assert bucket.run(bucket.create("k", b"second")) is False
    assert server.objects == {"a/b/k": b"first"}
    assert path_and_options(server) == [("a/b/k", {"mode": "create"})] * 2


def test_where_nothing_can_be_made_only_once_it_is_looked_for_first(
    server: Server, bucket: Bucket
) -> None:
    server.knows_conditions = False
    assert bucket.run(bucket.create("k", b"first")) is True
    assert bucket.run(bucket.create("k", b"second")) is False
    assert server.objects == {"a/b/k": b"first"}


def test_an_object_is_there_or_not(server: Server, bucket: Bucket) -> None:
    server.objects = {"a/b/k": b"", "n": b""}
    assert bucket.run(bucket.has("k")) is True
    assert bucket.run(bucket.has("n")) is False
    assert server.asked == [("head", "a/b/k"), ("head", "a/b/n")]


def test_what_is_deleted_is_gone(server: Server, bucket: Bucket) -> None:
    server.objects = {"a/b/k": b"", "k": b"", "a/b/l": b""}
    bucket.run(bucket.delete(["k", "none"]))
    assert set(server.objects) == {"k", "a/b/l"}


# -- reading --


def test_an_object_of_just_the_most_bytes_is_read_and_one_of_more_is_not(
    server: Server, bucket: Bucket
) -> None:
    server.objects = {"a/b/k": b"0123456789"}
    for most in (10, 11):
        assert bucket.run(bucket.read("k", most)) == b"0123456789"
    with pytest.raises(DamagedError, match=r"^more than 9 bytes where no more were announced$"):
        bucket.run(bucket.read("k", 9))
    assert set(server.streamed) == {1 << 20}
    assert server.asked == [("get", "a/b/k", None)] * 3


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, 3 * PART, 3 * PART + 2])
@pytest.mark.parametrize("kept", [False, True])
def test_an_object_is_digested_piece_by_piece(
    server: Server, bucket: Bucket, tmp_path: Path, size: int, kept: bool
) -> None:
    content = bytes(range(size))
    server.objects = {"a/b/k": content}
    counting = Counting()
    with (tmp_path / "target").open("wb", buffering=0) as file:
        target = file.fileno() if kept else None
        found = bucket.run(bucket.digest("k", size, counting, target=target))
    assert found == hashlib.sha256(content).hexdigest()
    assert (tmp_path / "target").read_bytes() == (content if kept else b"")
    assert counting.bytes == size
    pieces: list[tuple[int, int] | None] = [
        (at, min(size, at + PART)) for at in range(0, size, PART)
    ]
    assert server.asked == [("get", "a/b/k", piece) for piece in pieces or [None]]


@pytest.mark.parametrize(
    ("size", "as_sent", "words"),
    [
        (19, bytes, "has 20 bytes, expected 19"),
        (21, bytes, "has 20 bytes, expected 21"),
        (0, bytes, "has 20 bytes, expected 0"),
        (20, lambda piece: piece[:-1], "7 bytes where 8 were announced"),
        (20, lambda piece: piece + b"x", "more than 8 bytes where no more were announced"),
    ],
)
def test_an_object_of_another_length_is_damaged(
    server: Server,
    bucket: Bucket,
    size: int,
    as_sent: Callable[[bytes], bytes],
    words: str,
) -> None:
    server.objects = {"a/b/k": bytes(20)}
    server.as_sent = as_sent
    with pytest.raises(DamagedError) as caught:
        bucket.run(bucket.digest("k", size, Counting()))
    assert str(caught.value) == words


# -- lists --


def listed(bucket: Bucket, below: str = "") -> list[Object]:
    async def all_of_it() -> list[Object]:
        return [one async for one in bucket.objects(below)]

    return bucket.run(all_of_it())


def test_what_is_below_the_prefix_is_listed_by_its_key_there(
    server: Server, bucket: Bucket
) -> None:
    names = ("x/1", "x/2", "x/3", "y", "z")
    server.objects = {f"a/b/{name}": bytes(n) for n, name in enumerate(names)} | {"a/c": b""}
    assert listed(bucket) == [Object(name, n, WHEN) for n, name in enumerate(names)]
    assert [one.key for one in listed(bucket, "x")] == ["x/1", "x/2", "x/3"]
    lists = [what for what in server.asked if what[0] == "list"]
    assert lists == [("list", "a/b", None, 1000), ("list", "a/b/x", None, 1000)]


def test_a_store_may_be_a_whole_bucket(server: Server) -> None:
    server.objects = {"x/1": b"", "y": b""}
    with Bucket(Address("bucket", "")) as bucket:
        assert [one.key for one in listed(bucket)] == ["x/1", "y"]
        assert [one.key for one in listed(bucket, "x")] == ["x/1"]
        assert bucket.run(bucket.has("y"))
    assert [what[1] for what in server.asked if what[0] == "list"] == [None, "x"]


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_list_that_breaks_goes_on_behind_what_was_seen(
    server: Server, bucket: Bucket, clock: Clock, at: int
) -> None:
    names = [f"a/b/{n}" for n in range(6)]
    server.objects = dict.fromkeys(names, b"")
    server.fails = [*[None] * (at - 1), GenericError(BROKEN)]
    assert [one.key for one in listed(bucket)] == [str(n) for n in range(6)]
    offsets = [what[2] for what in server.asked if what[0] == "list"]
    assert offsets == [None, names[2 * at - 3] if at > 1 else None]


def test_an_empty_store_has_no_objects(server: Server, bucket: Bucket) -> None:
    assert listed(bucket) == []
