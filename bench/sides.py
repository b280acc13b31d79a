"""What every measurement shares: ways to do the work, two of them by turns, and one's memory."""

from __future__ import annotations

import functools
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.table import Ratio

ONE_CORE = ("taskset", "-c", "0")
SHARDTOOL = str(Path(sys.executable).with_name("shardtool"))
NO_PLYVEL = "plyvel, which writes tables: Python 3.12 or earlier"
_DROP = Path("/proc/sys/vm/drop_caches")
_PEAK = (
    "import resource,subprocess,sys;"
    "done=subprocess.run(sys.argv[1:],stdout=subprocess.DEVNULL);"
    "print(done.returncode,resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
)
# What the command itself is, and then what it was: its own peak, and that of its largest child.
_PEAKS = """
import resource, sys
to = sys.argv.pop(1)
from shardtool.cli.app import main
code = main()
with open("/proc/self/status") as status:
    own = next(line.split()[1] for line in status if line.startswith("VmHWM"))
with open(to, "w") as file:
    print(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=file)
sys.exit(code)
"""


@dataclass(frozen=True)
class Side:
    """One way to do the work: the commands, what must be in place before them, and good codes."""

    commands: Sequence[Sequence[str]]
    prepare: Callable[[], None] = lambda: None
    good: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Measured:
    """One run of shardtool: what it said, how long it took, and its peak memory in bytes.

    `child` is that of the largest of its children, 0 where it had none; pages that a child shares
    with its parent count in both.
    """

    code: int
    said: str
    seconds: float
    own: int
    child: int


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


def compare(ours: Side, theirs: Side, rounds: int) -> Ratio:
    """Take turns, `rounds` times, and return the ratios of neighbouring runs.

    The noise is what the other tool, which did the same each time, differed from itself.
    """
    seconds(ours), seconds(theirs)  # both warm
    times, others = [], []
    for _ in range(rounds):
        others.append(seconds(theirs))
        times.append(seconds(ours))
    ratios = [one / other for one, other in zip(times, others, strict=True)]
    return Ratio(statistics.median(ratios), min(ratios), max(ratios), max(others) / min(others))


def measured(*arguments: str | Path, good: tuple[int, ...] = (0,)) -> Measured:
    """Run shardtool once and return what is to be told of it.

    Raises:
        SystemExit: it failed.
    """
    with tempfile.NamedTemporaryFile("r") as told:
        begin = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", _PEAKS, told.name, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        taken = time.perf_counter() - begin
        if done.returncode not in good:
            words = f"{' '.join(map(str, arguments))}: exit {done.returncode}"
            sys.exit(f"shardtool {words}: {done.stderr or done.stdout[:1000]}")
        own, child = (int(kilobytes) * 1024 for kilobytes in told.read().split())
    return Measured(done.returncode, done.stdout, taken, own, child)


def peak_memory(command: Sequence[str]) -> int:
    """Run any command and return the peak RSS in bytes of the largest of all its processes.

    Raises:
        SystemExit: it failed.
    """
    # RUSAGE_CHILDREN has the largest of the children and of whomever they waited for themselves.
    told = subprocess.check_output([sys.executable, "-c", _PEAK, *command])
    code, kilobytes = map(int, told.split())
    if code:
        sys.exit(f"{' '.join(command)}: exit {code}")
    return kilobytes * 1024


@functools.cache
def why_never_cold() -> str:
    """Say why nothing can be measured cold here; empty where it can."""
    try:
        drop_caches()
    except OSError:
        return "root, to drop the kernel's caches"
    return ""


def drop_caches() -> None:
    """Have the kernel forget what it has read of any disk.

    Raises:
        OSError: only root may ask for that, and not in every container.
    """
    subprocess.run(["sync"], check=True)
    _DROP.write_text("3\n")
