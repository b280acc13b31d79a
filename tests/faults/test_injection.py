"""What these tests rest on: the fault befalls the call that was asked for, and no other."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.faults.compiled import injector
from tests.faults.injection import befalling

# Makes directories by turns: itself, a child, another thread.
PROGRAM = """
import os, subprocess, sys, threading

def make(name):
    try:
        os.mkdir(name)
    except OSError as error:
        print(name, error.strerror, flush=True)

for number in range(4):
    make(f"own-{number}")
    subprocess.run([sys.executable, "-c", f"import os; os.mkdir('child-{number}')"], check=True)
    thread = threading.Thread(target=make, args=(f"thread-{number}",))
    thread.start()
    thread.join()
"""
EVERY = {f"{kind}-{number}" for kind in ("own", "child", "thread") for number in range(4)}


def inject(number: int, action: str, directory: Path) -> subprocess.CompletedProcess[str]:
    injection = befalling("mkdir", number, action, directory / "seen")
    words = [injector(), *injection, sys.executable, "-c", PROGRAM]
    (directory / "made").mkdir()
    return subprocess.run(
        words, cwd=directory / "made", capture_output=True, text=True, check=False, timeout=60
    )


def made(directory: Path) -> set[str]:
    return {path.name for path in (directory / "made").iterdir()}


@pytest.mark.parametrize("number", [1, 3])
def test_one_call_of_the_first_thread_fails(number: int, tmp_path: Path) -> None:
    done = inject(number, "ENOSPC", tmp_path)

    assert done.stdout == f"own-{number - 1} No space left on device\n"
    assert (done.returncode, done.stderr) == (0, "")
    assert made(tmp_path) == EVERY - {f"own-{number - 1}"}
    assert (tmp_path / "seen").exists()


def test_a_kill_comes_before_the_call(tmp_path: Path) -> None:
    done = inject(2, "KILL", tmp_path)

    assert done.returncode == -signal.SIGKILL
    assert made(tmp_path) == {"own-0", "child-0", "thread-0"}
    assert (tmp_path / "seen").exists()


def test_a_run_that_does_not_come_so_far_says_so(tmp_path: Path) -> None:
    done = inject(5, "KILL", tmp_path)

    assert done.returncode == 0
    assert made(tmp_path) == EVERY
    assert not (tmp_path / "seen").exists()


def test_a_call_that_it_does_not_know_is_no_fault(tmp_path: Path) -> None:
    injection = befalling("clone3", 1, "EIO", tmp_path / "seen")

    done = subprocess.run(
        [injector(), *injection, sys.executable], capture_output=True, text=True, check=False
    )

    assert done.returncode == 125
    assert "clone3" in done.stderr


def test_only_what_has_to_do_with_a_place_counts(tmp_path: Path) -> None:
    place = tmp_path / "place"
    program = f"""
import os
top = os.open({str(tmp_path)!r}, os.O_RDONLY)
os.stat("place-beside", dir_fd=top)
os.chdir({str(place)!r})
say = lambda what: print(what, flush=True)
say("from the working directory"); os.stat("below")
say("from a descriptor"); opened = os.open("place/below", os.O_RDONLY, dir_fd=top)
say("where it leaves"); os.rename({str(place)!r} + "/below", "../away")
os.fsync(opened)
say("where it comes to"); os.rename("../away", "below")
say("what a descriptor names"); os.fsync(opened)
say("the end")
"""
    ends = []
    for number in range(1, 7):
        shutil.rmtree(place, ignore_errors=True)
        for name in ("place/below", "place-beside"):
            (tmp_path / name).mkdir(parents=True, exist_ok=True)
        calls, seen = "openat,newfstatat,rename,renameat,fsync", tmp_path / f"seen-{number}"
        injection = befalling(calls, number, "EIO", seen, [place])
        words = [injector(), *injection, sys.executable, "-S", "-c", program]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
        ends.append(done.stdout.splitlines()[-1])
        assert seen.exists() == (number < 6)
        shutil.rmtree(tmp_path / "away", ignore_errors=True)

    assert ends == [
        "from the working directory",
        "from a descriptor",
        "where it leaves",
        "where it comes to",
        "what a descriptor names",
        "the end",
    ]


def test_two_places_change_and_change_back(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    program = f"""
for _ in range(4):
    print(open({str(tmp_path / "a")!r}).read(), end="")
"""
    found = []
    for action in ("SWAP", "FLASH"):
        injection = befalling(
            "openat", 2, action, tmp_path / "seen", [tmp_path / "a", tmp_path / "b"]
        )
        words = [injector(), *injection, sys.executable, "-c", program]
        found.append(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
        assert (tmp_path / "seen").read_text() == "swapped\n"
        (tmp_path / "seen").unlink()
        if action == "SWAP":
            assert (tmp_path / "a").read_text() == "b"
            (tmp_path / "a").rename(tmp_path / "c")
            (tmp_path / "b").rename(tmp_path / "a")
            (tmp_path / "c").rename(tmp_path / "b")

    assert found == ["abbb", "abaa"]
    assert (tmp_path / "a").read_text() == "a"


def test_where_a_place_is_not_there_nothing_was_swapped(tmp_path: Path) -> None:
    places = [tmp_path / "a", tmp_path / "b"]
    places[0].write_text("a")
    injection = befalling("openat", 1, "SWAP", tmp_path / "seen", places)

    subprocess.run(
        [injector(), *injection, sys.executable, "-c", f"open({str(places[0])!r})"], check=True
    )

    assert (tmp_path / "seen").read_text() == ""


def test_the_program_does_not_outlive_what_answers_it(tmp_path: Path) -> None:
    injection = befalling("mkdir", 1, "KILL", tmp_path / "seen")
    program = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    with subprocess.Popen(
        [injector(), *injection, sys.executable, "-c", program], stdout=subprocess.PIPE
    ) as one:
        assert one.stdout is not None
        pid = int(one.stdout.readline())
        one.kill()
        assert one.stdout.read() == b""  # it had the other end
    # Its end of the pipe is closed before all of it is gone.
    status, until = Path(f"/proc/{pid}/status"), time.monotonic() + 20
    while status.exists() and "State:\tZ" not in status.read_text():
        assert time.monotonic() < until
        time.sleep(0.01)
