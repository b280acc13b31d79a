"""Children that read shards: an answer is a whole one, and whoever has none has died."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from shardtool.errors import ShardtoolError
from shardtool.proof import children
from shardtool.proof.children import Children, Died, Tell

Work = Callable[[int, Path, Tell], Any]


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # links are there too
    return tmp_path


@pytest.fixture
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})


def answers(work: Work, *items: int) -> dict[int, Any]:
    return dict(Children(work, print).answers(items))


def pipes() -> set[int]:
    """Return the descriptors of this process that are pipes."""
    found = set()
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        try:
            if os.readlink(f"/proc/self/fd/{descriptor}").startswith("pipe:"):
                found.add(descriptor)
        except FileNotFoundError:  # that of the listing
            pass
    return found


# -- answers --


def test_what_reads_is_imported_once_and_before_the_first_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, content in (("reads_a", ""), ("reads_b", "1 / 0"), ("reads_c", "")):
        (tmp_path / f"{name}.py").write_text(content)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    assert set(children._READERS) == {"rocksdict", "re2"}
    monkeypatch.setattr(children, "_READERS", ("reads_a", "reads_b", "reads_c"))

    def found(*items: int) -> dict[int, list[str]]:
        return answers(lambda i, scratch, tell: sorted(set(sys.modules) & wanted), *items)

    wanted = {"reads_a", "reads_b", "reads_c"}
    assert found() == {}
    assert not wanted & set(sys.modules)
    assert found(1, 2) == {1: ["reads_a", "reads_c"], 2: ["reads_a", "reads_c"]}
    assert wanted & set(sys.modules) == {"reads_a", "reads_c"}


def test_each_item_has_its_answer() -> None:
    assert answers(lambda item, scratch, tell: item * 2, 1, 2, 3) == {1: 2, 2: 4, 3: 6}


@pytest.mark.usefixtures("one_core")
def test_no_more_are_at_work_than_there_are_cores() -> None:
    def work(item: int, scratch: Path, tell: Tell) -> int:
        tell(item)
        return item

    heard: list[tuple[int, int]] = []
    going: Children[int, int] = Children(
        work, lambda item, told: heard.append((told, len(going._running)))
    )
    assert list(going.answers([2, 1, 3])) == [(2, 2), (1, 1), (3, 3)]
    assert heard == [(2, 1), (1, 1), (3, 1)]


def test_what_is_told_is_heard_in_order_and_no_answer() -> None:
    def work(item: int, scratch: Path, tell: Tell) -> str:
        tell((1, 2))
        tell(b"piece")
        return "end"

    heard: list[object] = []
    told = Children(work, lambda item, content: heard.append((item, content)))
    assert list(told.answers([7])) == [(7, "end")]
    assert heard == [(7, (1, 2)), (7, b"piece")]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_one_that_is_killed_has_no_answer(number: signal.Signals) -> None:
    def work(item: int, scratch: Path, tell: Tell) -> int:
        if item == 2:
            signal.raise_signal(number)
        return item

    assert answers(work, 1, 2, 3) == {1: 1, 2: Died(f"signal {number.name}"), 3: 3}


@pytest.mark.parametrize("status", [0, 1, 7])
def test_one_that_leaves_without_a_word_has_no_answer(status: int) -> None:
    def work(item: int, scratch: Path, tell: Tell) -> NoReturn:
        os._exit(status)

    assert answers(work, 1) == {1: Died(f"exit code {status}")}


def test_one_that_falls_over_its_work_has_no_answer() -> None:
    assert answers(lambda item, scratch, tell: 1 // 0, 1) == {1: Died("exit code 1")}


@pytest.mark.parametrize("half", [b"\0", struct.pack("!i", 100), struct.pack("!i", 100) + b"half"])
def test_half_an_answer_is_none(half: bytes) -> None:
    before = pipes()

    def work(item: int, scratch: Path, tell: Tell) -> NoReturn:
        (own,) = pipes() - before
        os.write(own, half)
        os._exit(0)

    assert answers(work, 1) == {1: Died("exit code 0")}


def test_an_answer_that_nobody_can_send_is_none() -> None:
    assert answers(lambda item, scratch, tell: lambda: None, 1) == {1: Died("exit code 1")}


# -- what ends a run --


@pytest.mark.usefixtures("no_orphans")
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ShardtoolError("no room"), "^no room$"),
        (OSError(errno.ENOSPC, "No space", "/links/x"), "^/links/x: No space"),
        (OSError(errno.EIO, "Input/output error"), "^TMPDIR: Input/output"),
    ],
)
def test_an_error_of_the_work_ends_the_run(
    error: Exception, said: str, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    late = temporary / "late"

    def work(item: int, scratch: Path, tell: Tell) -> NoReturn:
        if item == 1:
            raise error
        time.sleep(5)
        late.touch()
        os._exit(0)

    with pytest.raises(ShardtoolError, match=said.replace("TMPDIR", str(temporary))):
        answers(work, 2, 1, 3)
    assert list(temporary.iterdir()) == []


@pytest.mark.usefixtures("no_orphans")
def test_a_run_that_is_left_ends_its_children_and_another_can_begin(temporary: Path) -> None:
    def work(item: int, scratch: Path, tell: Tell) -> int:
        if item == 2:
            time.sleep(5)
            (temporary / "late").touch()
        return item

    before = pipes()
    run: Children[int, int] = Children(work, print)
    going = run.answers([1, 2])
    assert next(going) == (1, 1)
    going.close()
    assert (list(temporary.iterdir()), pipes()) == ([], before)
    assert list(run.answers([3])) == [(3, 3)]


# -- what a child is --


def test_an_answered_child_leaves_no_descriptor_and_no_process() -> None:
    before = pipes()
    for _ in Children(lambda item, scratch, tell: item, print).answers([1]):
        assert pipes() == before
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)


def test_a_child_has_its_own_end_of_its_own_pipe_and_no_other() -> None:
    before = pipes()

    def work(item: int, scratch: Path, tell: Tell) -> int:
        time.sleep(0.05)  # so that the other one is there
        return len(pipes() - before)

    assert answers(work, 1, 2) == {1: 1, 2: 1}


def test_a_childs_scratch_is_within_that_of_the_run() -> None:
    found = answers(lambda item, scratch, tell: (scratch, os.listdir(scratch)), 1, 2)
    for scratch, inside in found.values():
        assert (scratch.parent.name[:16], inside) == ("shardtool-links-", [])
        assert not scratch.exists()
    assert found[1][0] != found[2][0]


@pytest.fixture
def handled() -> Iterator[None]:
    """Handle in this process what would end it."""
    numbers = signal.SIGTERM, signal.SIGHUP, signal.SIGINT
    before = [signal.signal(number, lambda *_: None) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.usefixtures("handled")
def test_a_child_ends_as_processes_do_and_leaves_ctrl_c_to_its_parent() -> None:
    def work(item: int, scratch: Path, tell: Tell) -> list[object]:
        numbers = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
        return [signal.getsignal(number) for number in numbers]

    assert answers(work, 1) == {1: [signal.SIG_IGN, signal.SIG_DFL, signal.SIG_DFL]}


def test_a_child_may_open_all_the_files_that_it_is_allowed() -> None:
    soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 200), most))
    try:
        found = answers(lambda i, scratch, tell: resource.getrlimit(resource.RLIMIT_NOFILE), 1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, most))
    assert found == {1: (most, most)}


def death_signal() -> int:
    number = ctypes.c_int()
    ctypes.CDLL(None).prctl(2, ctypes.byref(number))  # PR_GET_PDEATHSIG
    return number.value


def test_a_child_dies_with_its_parent() -> None:
    assert answers(lambda item, scratch, tell: death_signal(), 1) == {1: signal.SIGKILL}


@pytest.mark.parametrize("is_gone", [False, True])
def test_a_child_of_a_parent_that_is_dead_already_leaves(
    is_gone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[int] = []
    monkeypatch.setattr(os, "_exit", left.append)
    before = death_signal()
    try:
        children._end_with(os.getpid() if is_gone else os.getppid())
    finally:
        ctypes.CDLL(None).prctl(1, before)  # PR_SET_PDEATHSIG
    assert left == ([1] if is_gone else [])
