"""A signal or a kill during the work on a bucket: nothing half is left, and the run is over."""

from __future__ import annotations

import asyncio
import gc
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import pytest

from shardtool.errors import InterruptedByUserError
from shardtool.snapshots.address import Address
from shardtool.snapshots.remote.bucket import Bucket
from tests.e2e.s3_proxy import Request
from tests.e2e.s3_world import HASTY, LAST, S3World


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("where", ["/log.1", "/shardtool.json", f"/{LAST}"])
def test_an_interrupt_leaves_nothing(s3: S3World, number: signal.Signals, where: str) -> None:
    reached = threading.Event()

    def stop(request: Request) -> str:
        if request.method == "PUT" and request.path.endswith(where):
            reached.set()
            return "hang"
        return ""

    s3.proxy.trouble = stop
    running = s3.start("--data", s3.node, "backup", "--to", s3.url)
    assert reached.wait(30)
    begun = time.monotonic()
    running.send_signal(number)
    _, told = running.communicate(timeout=30)

    assert running.returncode == 130, told
    assert time.monotonic() - begun < 10
    assert s3.is_clean()
    assert s3.all_keys() == []
    s3.proxy.trouble = lambda request: ""
    s3.backed_up()


def test_what_a_kill_leaves_is_no_snapshot_and_goes_later(s3: S3World) -> None:
    reached = threading.Event()

    def stop(request: Request) -> str:
        if request.path.endswith(f"/{LAST}"):
            reached.set()
            return "hang"
        return ""

    s3.proxy.trouble = stop
    running = s3.start("--data", s3.node, "backup", "--to", s3.url)
    assert reached.wait(30)
    running.kill()
    running.communicate()
    s3.proxy.trouble = lambda request: ""

    found = s3.document("snapshots")
    assert found["snapshots"] == []
    assert [one["what"] for one in found["others"]] == ["unfinished backup, or being removed"]
    assert not s3.is_clean()  # nobody is there to clean up; the next run is
    s3.backed_up()
    assert s3.is_clean()


def test_staging_of_a_run_at_work_is_left_alone(s3: S3World) -> None:
    reached, goes_on = threading.Event(), threading.Event()

    def wait(request: Request) -> str:
        if request.path.endswith("/shardtool.json") and not reached.is_set():
            reached.set()
            goes_on.wait(30)
        return ""

    s3.proxy.trouble = wait
    first = s3.start("--data", s3.node, "backup", "--to", s3.url)
    assert reached.wait(30)
    s3.backed_up()
    goes_on.set()
    _, told = first.communicate(timeout=30)

    assert first.returncode == 0, told
    assert len(s3.ids()) == 2
    assert s3.is_clean()


@pytest.mark.slow
@pytest.mark.parametrize("words", [("snapshots", "verify"), ("restore", "--to")])
def test_an_interrupted_read_leaves_nothing(s3: S3World, words: tuple[str, ...]) -> None:
    s3.backed_up()
    reached = threading.Event()

    def stop(request: Request) -> str:
        if request.path.endswith("/log.1"):
            reached.set()
            return "hang"
        return ""

    s3.proxy.trouble = stop
    target = [s3.home / "back"] if "--to" in words else []
    running = s3.start(*words, *target, "--store", s3.url)
    assert reached.wait(30)
    running.send_signal(signal.SIGTERM)
    _, told = running.communicate(timeout=30)

    assert running.returncode == 130
    assert told == "shardtool: interrupted by SIGTERM\n"
    assert s3.is_clean()
    assert not (s3.home / "back").exists()


def test_a_signal_that_reaches_another_task_prints_nothing_of_its_own(
    here: S3World, caplog: pytest.LogCaptureFixture
) -> None:
    async def interrupted() -> None:
        raise InterruptedByUserError("interrupted by SIGTERM")

    async def work() -> None:
        task = asyncio.ensure_future(interrupted())
        await asyncio.sleep(10)
        await task

    with (
        Bucket(Address(here.bucket, "signal")) as bucket,
        pytest.raises(InterruptedByUserError),
    ):
        bucket.run(work())
    gc.collect()  # a task says so when it goes that nobody has asked how it ended
    assert [record.getMessage() for record in caplog.records] == []


def test_a_signal_that_comes_where_nothing_may_be_raised_ends_the_work_all_the_same(
    here: S3World,
) -> None:
    def interrupt(number: int, frame: object) -> None:
        raise InterruptedByUserError("interrupted by SIGTERM")

    def signalled() -> None:
        # As native code does with what its callbacks raise.
        with suppress(BaseException):
            signal.raise_signal(signal.SIGTERM)

    async def work() -> None:
        asyncio.get_running_loop().call_soon(signalled)
        await bucket.read("an object", 100)

    here.proxy.trouble = lambda request: "hang"
    before = signal.signal(signal.SIGTERM, interrupt)
    begun = time.monotonic()
    try:
        with (
            Bucket(Address(here.bucket, "signal"), HASTY) as bucket,
            pytest.raises(InterruptedByUserError),
        ):
            bucket.run(work())
    finally:
        after = signal.signal(signal.SIGTERM, before)
    assert time.monotonic() - begun < HASTY.silence
    assert after is interrupt


def test_a_run_that_used_the_bucket_ends_at_once_with_its_own_code(s3: S3World) -> None:
    # obstore's threads may abort a process whose interpreter is being taken down.
    words = ["snapshots", "--store", s3.url]
    ends = "import atexit; atexit.register(print, 'taken down')"
    program = f"{ends}; from shardtool.cli.app import program; program()"
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        env=s3.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "0 snapshots" in done.stdout
    assert "taken down" not in done.stdout
