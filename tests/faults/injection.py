"""Run the installed command and have it be killed, or fail, at its n-th system call.

strace does so where children or paths are to be told apart. It stops a process at each call that
it makes, so that a run takes twice its time: inject.c does for one thread what it does.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.conftest import COMMAND, REPOSITORY
from tests.faults.compiled import injector, write_bytecode
from tests.faults.injection_calls import CHANGING, WHOLE, Call, calls_in

Done = subprocess.CompletedProcess[str]
Words = tuple[str | Path, ...]
TROUBLE = 125
"""With which inject ends if it can't do its work."""

# Python's own audit event of each open: strace can't tell the few that create from the many that
# read, whose number is another one in each run (the look through /proc).
_DIES_AT_CREATION = """\
import os, signal, sys

at, pid, seen = int(os.environ.pop("DIE_AT_CREATION")), os.getpid(), 0


def hook(event, args):
    global seen
    if event == "open" and args[2] & os.O_CREAT and os.getpid() == pid:
        seen += 1
        if seen == at:
            os.kill(pid, signal.SIGKILL)


sys.addaudithook(hook)
"""


def injected(
    words: Sequence[str | Path],
    trace: Path,
    call: str,
    number: int,
    action: str,
    *,
    options: Sequence[str | Path] = (),
    env: Mapping[str, str] | None = None,
) -> tuple[bool, Done]:
    """Run `shardtool *words` and have `action` befall its `number`-th `call`.

    Args:
        words: of the command line.
        trace: where strace writes what it has seen, or inject that it came so far.
        call: a system call's name.
        number: from 1 on; of the main thread's calls, with no `options`.
        action: 'signal=KILL' or 'error=ENOSPC', as strace has it.
        options: of strace: '-f' for children too, '-P' and a path for calls that have to do
            with it.
        env: more for the environment.

    Returns:
        Whether it came so far (a run that ends by itself has fewer such calls), and the run. It
        never ends in a traceback.
    """
    if options:
        trace.unlink(missing_ok=True)
        inject = ("-e", f"trace={call}", "-e", f"inject={call}:{action}:when={number}")
        done = _run(["strace", "-qq", "-o", trace, *options, *inject, *COMMAND, *words], env or {})
        found = trace.read_text()
        return ("killed by SIGKILL" if "signal" in action else "INJECTED") in found, done
    return struck(words, injecting(call, number, action.partition("=")[2], trace), trace, env)


def struck(
    words: Sequence[str | Path],
    prefix: Words,
    seen: Path,
    env: Mapping[str, str] | None = None,
) -> tuple[bool, Done]:
    """Run `shardtool *words` after `injecting`'s words; return whether it came so far, and the run.

    It never ends in a traceback.
    """
    seen.unlink(missing_ok=True)
    done = _run([*prefix, *COMMAND, *words], env or {})
    assert done.returncode != TROUBLE, done.stderr
    return seen.exists(), done


def injecting(
    calls: str, number: int, action: str, seen: Path, places: Sequence[Path] = ()
) -> Words:
    """Return what stands before a command for something to befall it at a call of its main thread.

    Args:
        calls: the system calls that count, with commas between them.
        number: at which of them, from 1 on.
        action: an errno, 'KILL', 'SWAP' or 'FLASH', as inject.c has it.
        seen: a file that is there when it came so far.
        places: only calls count that have to do with these, or with what is below them.
    """
    return (injector(), calls, str(number), action, seen, ":".join(map(str, places)))


def recorded(
    words: Sequence[str | Path], trace: Path, env: Mapping[str, str], *, dies_at: Call | None = None
) -> tuple[list[Call], Done]:
    """Run `shardtool *words` to its end; return the calls by which it changed the disk, and it.

    Args:
        words: of the command line.
        trace: where strace writes.
        env: more for the environment.
        dies_at: of a run that was recorded before: it is killed when it is about to make this call,
            which creates nothing.
    """
    write_bytecode()
    trace.unlink(missing_ok=True)
    strace: tuple[str | Path, ...] = ("strace", "-f", "-qq", "-o", trace)
    strace += ("-y", "-xx", "-s", str(WHOLE), "-e", f"trace={','.join(CHANGING)}")
    if dies_at is None:
        strace += ("--seccomp-bpf",)  # faster, but sends no signals
    else:
        strace += ("-e", f"inject={dies_at.name}:signal=KILL:when={dies_at.number}")
    done = _run([*strace, *COMMAND, *words], env)
    return calls_in(trace), done


def killed_at(words: Sequence[str | Path], trace: Path, call: Call, env: Mapping[str, str]) -> None:
    """Run `shardtool *words` and kill it when it is about to make `call`, which it must come to.

    Args:
        words: of the command line.
        trace: where it is noted; a directory for a hook is made beside it.
        call: of a run that was recorded before.
        env: more for the environment.
    """
    if call.creates:
        hook = trace.with_name("hook")
        hook.mkdir(exist_ok=True)
        (hook / "sitecustomize.py").write_text(_DIES_AT_CREATION)
        path = f"{hook}{os.pathsep}{REPOSITORY}"
        more = {**env, "PYTHONPATH": path, "DIE_AT_CREATION": str(call.number)}
        done = _run([*COMMAND, *words], more)
        assert done.returncode == -signal.SIGKILL, f"did not come to {call}: {done.stderr}"
        return
    came, done = injected(words, trace, call.name, call.number, "signal=KILL", env=env)
    assert came, f"did not come to {call}: {done.stderr}"


def _run(words: Sequence[str | Path], env: Mapping[str, str]) -> Done:
    done = subprocess.run(
        words,
        env={
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "PYTHONDONTWRITEBYTECODE": "1",
            **env,
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert "mistake in shardtool" not in done.stderr, done.stderr
    return done
