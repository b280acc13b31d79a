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


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("how", ["del", "weakref"])
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_an_interruption_that_python_drops_comes_again(name: str, how: str, times: int) -> None:
    begin = f"from signal import {name} as NUMBER\nHOW, TIMES = {how!r}, {times}\n"
    done = subprocess.run(
        [sys.executable, "-c", begin + _STRUCK],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = "interrupted" if name == "SIGINT" else f"interrupted by {name}"
    assert (done.returncode, done.stdout, done.stderr) == (130, "", f"shardtool: {said}\n")


def test_what_else_is_dropped_is_told_as_python_does() -> None:
    struck = _STRUCK.replace("os.kill(os.getpid(), NUMBER)", "raise ValueError('mine')")
    done = subprocess.run(
        [sys.executable, "-c", "HOW, TIMES = 'del', 1\n" + struck.replace("time.sleep(10)", "")],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
    assert done.stderr.startswith("Exception ignored in: <function Dying.__del__")
    assert done.stderr.endswith("ValueError: mine\n")
