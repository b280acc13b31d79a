"""What these tests rest on: the fault befalls the call that was asked for, and no other."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.injection import injecting

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
    prefix = injecting("mkdir", number, action, directory / "seen")
    words = [*prefix, sys.executable, "-c", PROGRAM]
    (directory / "made").mkdir()
    return subprocess.run(
        words, cwd=directory / "made", capture_output=True, text=True, check=False, timeout=60
    )


def made(directory: Path) -> set[str]:
    return {path.name for path in (directory / "made").iterdir()}


@pytest.mark.parametrize("number", [1, 3])
def test_one_call_of_the_first_thread_fails(number: int, tmp_path: Path) -> None:
    done = inject(number, "error=ENOSPC", tmp_path)

    assert done.stdout == f"own-{number - 1} No space left on device\n"
    assert (done.returncode, done.stderr) == (0, "")
    assert made(tmp_path) == EVERY - {f"own-{number - 1}"}
    assert (tmp_path / "seen").exists()


def test_a_kill_comes_before_the_call(tmp_path: Path) -> None:
    done = inject(2, "signal=KILL", tmp_path)

    assert done.returncode == -signal.SIGKILL
    assert made(tmp_path) == {"own-0", "child-0", "thread-0"}
    assert (tmp_path / "seen").exists()


def test_a_run_that_does_not_come_so_far_says_so(tmp_path: Path) -> None:
    done = inject(5, "signal=KILL", tmp_path)

    assert done.returncode == 0
    assert made(tmp_path) == EVERY
    assert not (tmp_path / "seen").exists()


def test_a_call_that_it_does_not_know_is_no_fault(tmp_path: Path) -> None:
    prefix = injecting("clone3", 1, "error=EIO", tmp_path / "seen")

    done = subprocess.run([*prefix, sys.executable], capture_output=True, text=True, check=False)

    assert done.returncode == 125
    assert "clone3" in done.stderr
