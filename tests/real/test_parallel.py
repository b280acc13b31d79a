"""Work in child processes gives what the same work at home gives."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest

from shardtool.disk.parallel import Pending
from shardtool.errors import ShardtoolError

pytestmark = pytest.mark.usefixtures("no_orphans")


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in children even where there is one core."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2})


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 100])
def test_answers_come_in_the_order_of_the_items(count: int) -> None:
    pending = Pending(lambda n: n * n, range(count))
    assert pending.answers() == [n * n for n in range(count)]


def test_the_work_is_done_in_other_processes() -> None:
    pids = set(Pending(lambda _: os.getpid(), range(30)).answers())
    assert len(pids) == 3
    assert os.getpid() not in pids


def test_two_cores_are_two_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    pids = set(Pending(lambda _: os.getpid(), range(30)).answers())
    assert len(pids - {os.getpid()}) == 2


@pytest.mark.parametrize(("count", "is_home"), [(15, True), (16, False)])
def test_a_few_items_are_not_worth_a_process(count: int, is_home: bool) -> None:
    pids = Pending(lambda _: os.getpid(), range(count)).answers()
    assert (os.getpid() in pids) == is_home


def test_on_one_core_the_work_is_done_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    assert set(Pending(lambda _: os.getpid(), range(30)).answers()) == {os.getpid()}


def test_answers_larger_than_a_pipe_come_whole() -> None:
    answers = Pending(lambda n: "x" * 1_000_000, range(16)).answers()
    assert [len(answer) for answer in answers] == [1_000_000] * 16


def die(number: int) -> int:
    """Be killed, as by the kernel when memory runs out."""
    if number == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def fail(number: int) -> int:
    """Fail as no work should."""
    if number == 7:
        raise ZeroDivisionError
    return number


@pytest.mark.parametrize("work", [die, fail])
def test_a_child_that_dies_is_one_clear_error(
    work: type, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ShardtoolError, match="died before it was done"):
        Pending(work, range(30)).answers()
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_the_parent_does_at_a_signal_no_child_does(number: signal.Signals) -> None:
    before = signal.signal(number, lambda *_: None)
    try:
        with pytest.raises(ShardtoolError, match="died before it was done"):
            Pending(lambda _: os.kill(os.getpid(), number), range(30)).answers()
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("length", [0, 1, 2, 11, 100, 1000, 50_000])
def test_a_child_that_dies_while_it_answers_is_one_clear_error(
    length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import io
    import pickle
    from typing import Any

    real = pickle.dumps

    def torn(answer: Any, pipe: io.BufferedWriter, *_: object) -> None:
        pipe.write(real(answer, pickle.HIGHEST_PROTOCOL)[:length])
        pipe.flush()
        os._exit(1)

    monkeypatch.setattr(pickle, "dump", torn)
    with pytest.raises(ShardtoolError, match="died before it was done"):
        Pending(lambda n: {"n": n, "text": str(n) * 5000}, range(30)).answers()


def test_work_that_nobody_waits_for_is_ended() -> None:
    pending = Pending(lambda _: time.sleep(60), range(30))
    started = time.monotonic()
    pending.stop()
    pending.stop()
    assert time.monotonic() - started < 10


def test_children_leave_no_descriptor_open() -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    Pending(lambda n: n, range(30)).answers()
    Pending(lambda n: n, range(30)).stop()
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_what_the_parent_had_not_flushed_is_not_printed_twice(
    capfd: pytest.CaptureFixture[str],
) -> None:
    sys.stdout.write("once")
    Pending(lambda n: n, range(30)).answers()
    sys.stdout.flush()
    assert capfd.readouterr().out == "once"


def test_where_no_process_can_be_started_none_is_left_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second fork fails: a limit of processes, as containers have it."""
    real = os.fork
    started: list[int] = []

    def fork() -> int:
        if started:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        started.append(1)
        return real()

    monkeypatch.setattr(os, "fork", fork)
    before = sorted(os.listdir("/proc/self/fd"))
    assert Pending(lambda n: n, range(30)).answers() == list(range(30))
    assert sorted(os.listdir("/proc/self/fd")) == before
