"""Every system call of every command fails once, with what disks, quotas and limits answer.

Never a traceback, never a success with something undone, nothing lost; and one plain rerun ends
as a run that nothing has befallen.
"""

from __future__ import annotations

import difflib
import errno
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import Run
from tests.faults.every_error import Fault, fail, faults
from tests.faults.steps_world import (
    CHANGING,
    READING,
    Step,
    Words,
    answer,
    copy_world,
    environment,
    everything,
    prepared,
)
from tests.needs import needs_root

pytestmark = [pytest.mark.usefixtures("strace"), pytest.mark.timeout(1800), needs_root]

Done = subprocess.CompletedProcess[str]
STANDS = "the snapshot stands there"
# Verify's result is the proof; where its receipt can't be kept, it says so, and that is all.
NO_RECEIPT = "expected to write a receipt"


def lines_of(done: Done) -> list[str]:
    """Return what was said on stderr, but for warnings and what restore says beforehand."""
    said = ("shardtool: warning: ", "shardtool: the present ", "shardtool: the snapshot stays ")
    return [line for line in done.stderr.splitlines() if not line.startswith(said)]


def failed_clearly(done: Done) -> str:
    """Return what is wrong with the way in which a run says that it failed, or nothing."""
    lines = lines_of(done)
    if done.returncode not in (1, 3, 4):
        return f"exit code {done.returncode}"
    if not all(line.startswith("shardtool: ") for line in lines):
        return "a line that is not shardtool's"
    if done.returncode == 1 and not lines:
        return "it does not say why"
    return ""


def is_told(fault: Fault, done: Done, whole: Done) -> bool:
    """Say whether an answer that is not the whole one says so itself."""
    if done.returncode == 0:
        return False  # all is well, it says, and has not seen all (law 9)
    added = set(done.stdout.splitlines()) - set(whole.stdout.splitlines())
    reason = os.strerror(getattr(errno, fault.errno))
    words = (reason, "unknown", "unreadable")
    return bool(lines_of(done)) or any(word in line for line in added for word in words)


def told(fault: Fault, wrong: str, done: Done, whole: Done) -> str:
    """Return a fault and what came of it, as somebody has to read it who looks for the cause."""
    lines = difflib.unified_diff(whole.stdout.splitlines(), done.stdout.splitlines(), n=0)
    other = "\n".join(line for line in lines if line[:2] not in ("--", "++", "@@"))
    return f"{fault}: {wrong}\n{done.returncode} {done.stderr}{other}"


def clear_temporary(world: Path) -> None:
    """Remove what the run before could not: the next one would, and come to its fault by another
    way than was recorded."""
    shutil.rmtree(world / "tmp")
    (world / "tmp").mkdir()


def undisturbed(step: Step, original: Path, world: Path, run: Run) -> tuple[Done, object]:
    """Run a step that nothing befalls; return the run, and what it left."""
    with step.ready(copy_world(original, world)) as words:
        done = fail(words, None, world, env=environment(world))
    assert done.returncode == step.code, (done.stdout, done.stderr)
    return done, step.ended(world, run)


@pytest.mark.slow
@pytest.mark.parametrize("name", READING)
def test_a_command_that_reads_is_never_content_with_less(
    name: str, alone: Run, memory_path: Path
) -> None:
    step, world = READING[name], memory_path / "world"
    original = prepared(step, memory_path / "original", alone)
    whole, before = undisturbed(step, original, world, alone)
    problems = []
    with step.ready(world) as words:
        turn = [*READING].index(name)
        for fault in faults(words, world, turn=turn, env=environment(world)):
            clear_temporary(world)
            done = fail(words, fault, world, env=environment(world))
            if done.returncode == step.code and answer(done.stdout) == answer(whole.stdout):
                continue  # what failed was no loss
            wrong = "" if is_told(fault, done, whole) else "less than all, and no word of it"
            if done.returncode not in (0, step.code):
                wrong = failed_clearly(done)
            if step.ended(world, alone) != before:
                wrong += "; something has changed"
            if wrong:
                problems.append(told(fault, wrong, done, whole))
    assert not problems, "\n\n".join(problems)


@pytest.mark.slow
@pytest.mark.parametrize("name", CHANGING)
def test_a_step_that_fails_anywhere_loses_nothing_and_a_rerun_ends_as_any_run(
    name: str, alone: Run, memory_path: Path
) -> None:
    step, world = CHANGING[name], memory_path / "world"
    original = prepared(step, memory_path / "original", alone)
    whole, wanted = undisturbed(step, original, world, alone)
    with step.ready(copy_world(original, world)) as words:
        turn = [*CHANGING].index(name)
        every = faults(words, world, turn=turn, env=environment(world))
    problems = []
    is_fresh = False
    for fault in every:
        if not is_fresh:
            copy_world(original, world)
        untouched = everything(world)
        with step.ready(world) as words:
            done = fail(words, fault, world, env=environment(world))
            wrong = after(step, done, words, wanted, world, alone)
            # Where nothing has changed a rerun is the undisturbed run again.
            is_fresh = everything(world) == untouched
            if not is_fresh and not wrong and done.returncode != step.code:
                wrong = of_rerun(step, done, words, wanted, world, alone)
        if wrong:
            problems.append(told(fault, wrong, done, whole))
    assert not problems, "\n\n".join(problems)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*READING, *CHANGING])
def test_a_call_that_a_signal_interrupts_is_simply_made_again(
    name: str, alone: Run, memory_path: Path
) -> None:
    step, world = {**READING, **CHANGING}[name], memory_path / "world"
    original = prepared(step, memory_path / "original", alone)
    whole, wanted = undisturbed(step, original, world, alone)
    with step.ready(copy_world(original, world)) as words:
        every = faults(words, world, only="EINTR", env=environment(world))
    # One of each call is enough of what Python does by itself.
    for fault in {fault.call: fault for fault in every}.values():
        with step.ready(copy_world(original, world)) as words:
            done = fail(words, fault, world, env=environment(world))
        assert (done.returncode, lines_of(done)) == (whole.returncode, lines_of(whole)), fault
        assert step.ended(world, alone) == wanted, fault


def after(step: Step, done: Done, words: Words, wanted: object, world: Path, run: Run) -> str:
    """Return what is wrong after a run with a fault, or nothing."""
    if done.returncode != step.code:
        return failed_clearly(done)
    if step.ended(world, run) == wanted:
        return ""
    if NO_RECEIPT not in done.stderr:
        return f"exit code {done.returncode}, but not all is done"
    again = of_rerun(step, done, words, wanted, world, run)
    return f"without a receipt, and {again}" if again else ""


def of_rerun(step: Step, done: Done, words: Words, wanted: object, world: Path, run: Run) -> str:
    """Run a step once more; return what is wrong then, or nothing."""
    if STANDS in done.stderr and step.ended(world, run) == wanted:
        return ""  # all is done, and a second run has nowhere to do it again
    again = run(*words, env=environment(world))
    if again.returncode != step.code:
        return f"the rerun ends with {again.returncode}: {again.stderr}"
    ended = step.ended(world, run)
    return "" if ended == wanted else f"the rerun leaves something else: {ended}"
