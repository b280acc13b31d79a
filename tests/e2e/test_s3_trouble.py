"""A bad line, a bad server, a kill: no half snapshot, one line, and the next run works."""

from __future__ import annotations

import os
import socket
import time
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta

import pytest

from shardtool.datadir.layout import find_layout
from shardtool.datadir.server import Search
from shardtool.errors import ShardtoolError
from shardtool.snapshots.address import Address
from shardtool.snapshots.remote.bucket import Bucket, Patience, RequestError
from shardtool.snapshots.remote.contents import list_bucket
from shardtool.snapshots.remote.forget import remove_left
from shardtool.snapshots.remote.reading import verify_there
from shardtool.snapshots.remote.upload import back_up
from tests.e2e.s3_proxy import Request, Trouble
from tests.e2e.s3_world import HASTY, LAST, S3World
from tests.needs import needs_root
from tests.real.snapshot_world import Uncounted


def only(number: int, trouble: str) -> Trouble:
    """Do something to one request alone."""
    return lambda request: trouble if request.number == number else ""


def since(number: int, trouble: str) -> Trouble:
    """Do something to a request and all after it."""
    return lambda request: trouble if request.number >= number else ""


def sending(name: str, trouble: str) -> Trouble:
    """Do something to the writing of a file."""
    return lambda request: (
        trouble if request.method == "PUT" and request.path.endswith(name) else ""
    )


def attempt(world: S3World, prefix: str, patience: Patience = HASTY) -> str:
    """Back up in this process; return the id."""
    layout = find_layout(str(world.node), None, {})
    with Bucket(Address(world.bucket, prefix), patience) as bucket:
        made = back_up(
            layout,
            bucket,
            Uncounted,
            nullcontext(),
            Search,
            live=False,
        )
    return made.verified.id


def complete(world: S3World, prefix: str) -> list[str]:
    """Return the keys of tag manifests: what makes a snapshot."""
    keys = [key for key in world.all_keys() if key.startswith(f"{prefix}/")]
    return [key for key in keys if key.endswith(LAST)]


def requests_of_a_backup(world: S3World) -> int:
    attempt(world, "count")
    return len(world.proxy.seen)


def good(world: S3World, prefix: str) -> list[str]:
    """Return the snapshots below a prefix, all of which must be good."""
    with Bucket(Address(world.bucket, prefix)) as bucket:
        found = [one.id for one in bucket.run(list_bucket(bucket)).snapshots]
        for name in found:
            assert bucket.run(verify_there(bucket, name, Uncounted)).problems == ()
    return found


def check_one_that_fails(world: S3World, number: int, trouble: str) -> None:
    prefix = f"{trouble[:3]}{number}"
    world.proxy.seen.clear()
    world.proxy.trouble = only(number, trouble)
    name = attempt(world, prefix, Patience(again=20))
    world.proxy.trouble = lambda request: ""
    assert good(world, prefix) == [name], number
    assert world.is_clean()


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2, 9, 16, 23])
def test_a_request_whose_answer_is_lost_is_done_again(here: S3World, number: int) -> None:
    check_one_that_fails(here, number, "lose")


@pytest.mark.slow
@pytest.mark.parametrize("trouble", ["refuse", "lose", "half", "cut", "503 SlowDown", "500"])
def test_any_one_request_may_fail(here: S3World, trouble: str) -> None:
    for number in range(1, requests_of_a_backup(here) + 1):
        check_one_that_fails(here, number, trouble)


@pytest.mark.slow
@pytest.mark.parametrize("trouble", ["refuse", "lose", "403 AccessDenied"])
def test_wherever_the_line_dies_there_is_no_half_snapshot(here: S3World, trouble: str) -> None:
    # But for the last one, which is about leftovers: then the snapshot stands.
    for number in range(1, requests_of_a_backup(here)):
        here.proxy.seen.clear()
        here.proxy.trouble = since(number, trouble)
        with pytest.raises(ShardtoolError) as error:
            attempt(here, f"dead{number}")
        last = any(r.method == "PUT" and r.path.endswith(LAST) for r in here.proxy.seen)
        here.proxy.trouble = lambda request: ""

        assert "\n" not in str(error.value)
        assert here.is_clean()
        found = good(here, f"dead{number}")
        assert not found or last  # nobody could be told that it stands, but it is whole


@pytest.mark.parametrize("steps", [0, 1])
def test_what_is_left_goes_when_it_is_a_day_old(here: S3World, steps: int) -> None:
    name = attempt(here, "left")
    here.delete(f"left/{name}/{LAST}")
    whole = attempt(here, "left")
    now = datetime.now(UTC)

    with Bucket(Address(here.bucket, "left")) as bucket:
        hours = (23, 25)[steps]
        assert bucket.run(remove_left(bucket, now + timedelta(hours=hours))) == ()

    left = {key.split("/")[1] for key in here.all_keys()}
    assert left == ({name, whole}, {whole})[steps]


@pytest.mark.parametrize(
    "theirs",
    [
        ("dump.sql",),
        ("bagit.txt", "manifest-md5.txt", "data/raft/log"),  # a bag of another tool's
        ("bagit.txt", "manifest-sha256.txt", "data/photo.jpg"),
        ("data/raft/log",),  # a backup begins with bagit.txt
    ],
)
def test_what_other_tools_name_by_the_time_is_no_leftover(
    here: S3World, theirs: tuple[str, ...]
) -> None:
    keys = [f"left/20240101T000000Z/{name}" for name in theirs]
    for key in keys:
        here.put(key, b"precious")

    with Bucket(Address(here.bucket, "left")) as bucket:
        assert bucket.run(remove_left(bucket, datetime.now(UTC) + timedelta(days=900))) == ()
        ((_, told),) = bucket.run(list_bucket(bucket)).others

    assert here.all_keys() == sorted(keys)
    assert told == "not a snapshot, and not shardtool's: left alone"


def test_what_was_written_of_a_failed_backup_is_removed(s3: S3World) -> None:
    s3.proxy.trouble = sending("shardtool.json", "403 AccessDenied")

    done = s3.backup()

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"shardtool: {s3.url}: expected to write ")
    assert "found: access denied (AccessDenied)" in done.stderr
    assert done.stderr.endswith("what was written of the snapshot was removed\n")
    assert s3.all_keys() == []
    assert s3.is_clean()


def test_a_byte_that_flips_on_the_way_back_is_found(s3: S3World) -> None:
    def flip(request: Request) -> str:
        return "flip" if request.method == "GET" and request.path.endswith("/log.1") else ""

    s3.proxy.trouble = flip

    done = s3.backup()

    assert done.returncode == 1
    assert "expected to read back what was sent, found data/wal/log.1: its SHA-256" in done.stderr
    assert s3.all_keys() == []
    s3.proxy.trouble = lambda request: ""
    name = s3.backed_up()
    s3.proxy.trouble = flip
    refused = s3.run("restore", name, "--store", s3.url, "--to", s3.home / "back")
    assert refused.returncode == 1
    assert "data/wal/log.1" in refused.stderr
    assert not (s3.home / "back").exists()


def test_two_hosts_with_one_id_do_not_overwrite_each_other(here: S3World) -> None:
    # A claim whose answer is lost is given up for another id: it may be another host's.
    here.proxy.trouble = only(1, "lose")

    name = attempt(here, "claims", Patience(again=20))

    assert name.endswith("-2")
    assert [key for key in here.all_keys() if LAST in key] == [f"claims/{name}/{LAST}"]


def test_another_tag_manifest_is_not_taken_for_ours(here: S3World) -> None:
    def steal(request: Request) -> str:
        if request.method == "PUT" and request.path.endswith(LAST):
            here.put(request.path.partition(f"{here.bucket}/")[2], b"another one\n")
        return ""

    here.proxy.trouble = steal

    with pytest.raises(ShardtoolError, match="another host uses this id"):
        attempt(here, "stolen")


def test_a_server_without_conditional_writes_will_do(here: S3World) -> None:
    here.proxy.trouble = lambda request: (
        "501 NotImplemented" if "if-none-match" in request.headers else ""
    )

    attempt(here, "plain")

    assert len(complete(here, "plain")) == 1


def test_what_a_server_without_conditional_writes_has_is_not_written_over(here: S3World) -> None:
    here.proxy.trouble = lambda request: (
        "501 NotImplemented" if "if-none-match" in request.headers else ""
    )

    with Bucket(Address(here.bucket, "taken")) as bucket:
        assert bucket.run(bucket.create("id/bagit.txt", b"ours"))
        assert not bucket.run(bucket.create("id/bagit.txt", b"another's"))
        assert bucket.run(bucket.read("id/bagit.txt", 9)) == b"ours"


def test_what_may_not_be_created_is_not_written_in_another_way(here: S3World) -> None:
    here.proxy.trouble = lambda request: (
        "403 AccessDenied" if "if-none-match" in request.headers else ""
    )

    with Bucket(Address(here.bucket, "refused")) as bucket, pytest.raises(RequestError):
        bucket.run(bucket.create("id/bagit.txt", b"ours"))

    assert here.all_keys() == []


def test_a_server_that_never_answers_is_told(here: S3World) -> None:
    here.proxy.trouble = lambda request: "hang"
    begun = time.monotonic()

    with pytest.raises(ShardtoolError, match="no answer in time"):
        attempt(here, "hang")

    assert time.monotonic() - begun < 20


@pytest.mark.slow
def test_forget_that_dies_leaves_no_half_that_looks_whole(s3: S3World) -> None:
    first, second = s3.backed_up(), s3.backed_up()
    deletes: list[int] = []

    def die(request: Request) -> str:
        if request.method == "POST" and "delete" in request.path:
            deletes.append(request.number)
            return "403 AccessDenied" if len(deletes) > 1 else ""
        return ""

    s3.proxy.trouble = die

    done = s3.run("forget", "--keep-last", "1", "--store", s3.url)

    assert done.returncode == 3
    assert f"{first}: could not be removed: access denied" in done.stderr
    s3.proxy.trouble = lambda request: ""
    assert s3.ids() == [second]


@needs_root
def test_a_directory_of_somebody_else_is_not_taken_for_a_leftover(s3: S3World) -> None:
    theirs, public = s3.temporary / "shardtool-s3-theirs", s3.temporary / "shardtool-s3-public"
    for directory in (theirs, public):
        directory.mkdir(mode=0o700)
        (directory / "kept").write_text("")
    os.chown(theirs, 65534, 65534)
    public.chmod(0o755)
    (s3.temporary / "shardtool-s3-link").symlink_to(s3.node)

    s3.backed_up()

    assert (theirs / "kept").exists() and (public / "kept").exists()
    assert (s3.node / "raft" / "log").exists()


def test_nobody_at_the_endpoint_is_one_line(here: S3World) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{port}"
        try:
            with pytest.raises(
                ShardtoolError, match="nobody listens there; check AWS_ENDPOINT_URL"
            ):
                attempt(here, "nobody")
        finally:
            os.environ["AWS_ENDPOINT_URL"] = here.proxy.url
