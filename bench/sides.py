"""What every measurement shares: ways to do the work, and two of them compared by turns."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ONE_CORE = ("taskset", "-c", "0")
SHARDTOOL = str(Path(sys.executable).with_name("shardtool"))
_PEAK = (
    "import resource,subprocess,sys;"
    "done=subprocess.run(sys.argv[1:],stdout=subprocess.DEVNULL);"
    "print(done.returncode,resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
)


@dataclass(frozen=True)
class Side:
    """One way to do the work: a name, the commands, and what must be in place before them."""

    name: str
    commands: Sequence[Sequence[str]]
    prepare: Callable[[], None] = lambda: None
    good: tuple[int, ...] = (0,)


def seconds(side: Side) -> float:
    """Do the work once, its preparation apart; return the wall time in seconds.

    Raises:
        SystemExit: a command failed: a failed run measures nothing.
    """
    side.prepare()
    begin = time.perf_counter()
    for command in side.commands:
        done = subprocess.run(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False
        )
        if done.returncode not in side.good:
            sys.exit(f"{' '.join(command)}: exit {done.returncode}: {done.stderr.decode()}")
    return time.perf_counter() - begin


def compare(ours: Side, theirs: Side, aim: float | None, rounds: int) -> tuple[float, float]:
    """Take turns, `rounds` times, and print the median ratio of neighbouring runs.

    Returns the median seconds of ours and of theirs.
    """
    seconds(ours), seconds(theirs)  # both warm
    times, others = [], []
    for _ in range(rounds):
        others.append(seconds(theirs))
        times.append(seconds(ours))
    ratios = [one / other for one, other in zip(times, others, strict=True)]
    noise = max(others) / min(others)
    wanted = f"aim {aim:.1f}" if aim else "for information"
    print(
        f"{ours.name:<26} {theirs.name:<34} {statistics.median(ratios):5.2f}  "
        f"({min(ratios):.2f}-{max(ratios):.2f}, noise {noise:.2f}x, {wanted})",
        flush=True,
    )
    return statistics.median(times), statistics.median(others)


def peak_memory(command: Sequence[str], good: tuple[int, ...] = (0,)) -> int:
    """Run a command and return the peak RSS in bytes of the largest of all its processes.

    Raises:
        SystemExit: the command failed.
    """
    # RUSAGE_CHILDREN has the largest of the children and of whomever they waited for themselves.
    told = subprocess.check_output([sys.executable, "-c", _PEAK, *command])
    code, kilobytes = map(int, told.split())
    if code not in good:
        sys.exit(f"{' '.join(command)}: exit {code}")
    return kilobytes * 1024
