"""Signals that come where Python drops what is raised: the command ends all the same."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

# What a dying object of a library's does as little as a signal's coming at that moment can be had
# from outside: the object sends it.
_STRUCK = """\
import os, signal, sys, time, weakref

class Dying:
    def __del__(self):
        if HOW == "del":
            os.kill(os.getpid(), NUMBER)
            time.sleep(0.001)

def callback(reference):
    if HOW == "weakref":
        os.kill(os.getpid(), NUMBER)
        time.sleep(0.001)

def run(args, out):
    for _ in range(TIMES):
        dying = Dying()
        reference = weakref.ref(dying, callback)
        del dying
    time.sleep(10)
    return 0

import shardtool.cli.status
shardtool.cli.status.run = run
from shardtool.cli.app import program
sys.argv = ["shardtool", "status"]
program()
"""


def struck(script: str) -> subprocess.CompletedProcess[str]:
    """Run a script of Python's."""
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("name", "how", "times"),
    [
        ("SIGINT", "weakref", 1),
        ("SIGINT", "del", 3),
        ("SIGTERM", "del", 1),
        ("SIGTERM", "weakref", 3),
        ("SIGHUP", "del", 3),
    ],
)
def test_an_interruption_that_python_drops_comes_again(name: str, how: str, times: int) -> None:
    begin = f"from signal import {name} as NUMBER\nHOW, TIMES = {how!r}, {times}\n"
    done = struck(begin + _STRUCK)
    said = "interrupted" if name == "SIGINT" else f"interrupted by {name}"
    assert (done.returncode, done.stdout, done.stderr) == (130, "", f"shardtool: {said}\n")


def test_a_second_one_while_python_drops_the_first_loses_neither() -> None:
    twice = """\
def twice(*words, at=signal.setitimer):
    signal.setitimer = at
    os.kill(os.getpid(), NUMBER)
    time.sleep(0.001)
    at(*words)

signal.setitimer = twice
"""
    script = _STRUCK.replace("class Dying", f"{twice}\nclass Dying")
    begin = "from signal import SIGHUP as NUMBER\nHOW, TIMES = 'del', 1\n"
    done = struck(begin + script)
    assert (done.returncode, done.stderr) == (130, "shardtool: interrupted by SIGHUP\n")


def test_what_else_is_dropped_is_told_as_python_does() -> None:
    script = _STRUCK.replace("os.kill(os.getpid(), NUMBER)", "raise ValueError('mine')")
    done = struck("HOW, TIMES = 'del', 1\n" + script.replace("time.sleep(10)", ""))
    assert done.returncode == 0
    assert done.stderr.startswith("Exception ignored in: <function Dying.__del__")
    assert done.stderr.endswith("ValueError: mine\n")
