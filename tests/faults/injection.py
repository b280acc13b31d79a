"""Run shardtool and have it be killed, or fail, at its n-th system call.

strace does so to the installed command where children or paths are to be told apart. It stops a
process at each call that it makes, so that a run takes twice its time: inject.c does for one thread
what it does, and to a process that has been forked after its imports.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.conftest import COMMAND, environment_of
from tests.faults.compiled import write_bytecode
from tests.faults.injection_calls import CHANGING, WHOLE, Call, calls_in
from tests.preloaded import NAMESPACE, has_namespaces, preloaded_alone

Done = subprocess.CompletedProcess[str]
Words = tuple[str | Path, ...]


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
    return struck(words, befalling(call, number, action.partition("=")[2], trace), trace, env)


def struck(
    words: Sequence[str | Path],
    injection: Words,
    seen: Path,
    env: Mapping[str, str] | None = None,
) -> tuple[bool, Done]:
    """Run `shardtool *words` with what befalls it; return whether it came so far, and the run.

    It never ends in a traceback.
    """
    seen.unlink(missing_ok=True)
    done = preloaded_alone().run(words, _environment(env or {}), injection=injection)
    return seen.exists(), _clean(done)


def befalling(
    calls: str, number: int, action: str, seen: Path, places: Sequence[Path] = ()
) -> Words:
    """Return inject.c's words for something to befall a process at a call of its main thread.

    Args:
        calls: the system calls that count, with commas between them.
        number: at which of them, from 1 on.
        action: an errno, 'KILL', 'KILL_CREATING', 'SWAP' or 'FLASH', as inject.c has it.
        seen: a file that is there when it came so far.
        places: only calls count that have to do with these, or with what is below them.
    """
    return (calls, str(number), action, seen, ":".join(map(str, places)))


def recorded(
    words: Sequence[str | Path],
    trace: Path,
    env: Mapping[str, str],
    place: Path,
    *,
    dies_at: Call | None = None,
) -> tuple[list[Call], Done]:
    """Run `shardtool *words` to its end; return the calls by which it changed the disk, and it.

    Args:
        words: of the command line.
        trace: where strace writes.
        env: more for the environment.
        place: whose calls are to have numbers of their own.
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
    # Where it is to be killed: what is told of other processes is a write more elsewhere.
    namespace = NAMESPACE if has_namespaces() else ()
    done = _run([*namespace, *strace, *COMMAND, *words], env)
    return calls_in(trace, place), done


def killed_at(
    words: Sequence[str | Path], trace: Path, call: Call, env: Mapping[str, str], place: Path
) -> None:
    """Run `shardtool *words` and kill it when it is about to make `call`, which it must come to.

    Calls count where they have to do with `place`: those elsewhere, for what children tell of two
    shards at once, come sooner or later than others.

    Args:
        words: of the command line.
        trace: where it is noted.
        call: of a run that was recorded before, with this `place`.
        env: more for the environment.
        place: what the call has to do with.
    """
    action = "KILL_CREATING" if call.creates else "KILL"
    kill = befalling(call.name, call.inside, action, trace, [place])
    came, done = struck(words, kill, trace, env)
    assert came, f"did not come to {call}: {done.stderr}"
    path = trace.read_text()
    assert alike(path) in map(alike, call.paths), f"{path} was struck, not {call}"


def alike(path: str) -> str:
    """Return a path without what no two runs have in common: times, processes, random names, and
    which of two shards was proven first."""
    path = re.sub(r"/tmp/(shardtool-\w+-)?\w{8}(/\w{8})?(/s\w{8})?(?=/|$)", r"/tmp/\1", path)
    return str(Path(re.sub(r"\d| \(deleted\)$", "", path)))


def _run(words: Sequence[str | Path], env: Mapping[str, str]) -> Done:
    done = subprocess.run(
        words,
        env=_environment(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return _clean(done)


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    return environment_of({"PYTHONDONTWRITEBYTECODE": "1", **more})


def _clean(done: Done) -> Done:
    assert "Traceback" not in done.stderr, done.stderr
    assert "mistake in shardtool" not in done.stderr, done.stderr
    return done
