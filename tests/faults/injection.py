"""Run the installed command under strace, which kills or fails it at its n-th system call."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.conftest import COMMAND, REPOSITORY


def injected(
    words: Sequence[str | Path],
    trace: Path,
    call: str,
    number: int,
    action: str,
    *,
    options: Sequence[str | Path] = (),
) -> tuple[bool, subprocess.CompletedProcess[str]]:
    """Run `shardtool *words` and have `action` befall its `number`-th `call`.

    Args:
        words: of the command line.
        trace: where strace writes what it has seen.
        call: a system call's name.
        number: from 1 on.
        action: 'signal=KILL' or 'error=ENOSPC', as strace has it.
        options: more for strace: '-f' for children too, '-P' and a path for calls that have to do
            with it.

    Returns:
        Whether it came so far (a run that ends by itself has fewer such calls), and the run. It
        never ends in a traceback.
    """
    done = subprocess.run(
        [
            *("strace", "-qq", "-o", trace, *options),
            *("-e", f"trace={call}", "-e", f"inject={call}:{action}:when={number}"),
            *(*COMMAND, *words),
        ],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert "mistake in shardtool" not in done.stderr, done.stderr
    found = trace.read_text()
    return ("killed by SIGKILL" if "signal" in action else "INJECTED") in found, done
