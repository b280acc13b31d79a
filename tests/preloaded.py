"""Run shardtool many times without its start: in a process that was forked after the imports.

It is the same code from the entry point on. A test that makes a few runs takes the installed
command (conftest's run_shardtool); this one is for those that make hundreds, which differ in what
befalls them.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.conftest import REPOSITORY, environment_of, run_shardtool
from tests.faults.compiled import injector_library
from tests.preloaded_server import LONGEST

_NAMESPACE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")


class Preloaded:
    """The process that forks, and our end of the line to it."""

    def __init__(self, prefix: Sequence[str], env: Mapping[str, str]) -> None:
        """Start it, as what stands after `prefix`, with `env` added to the environment."""
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [
                    *(*prefix, sys.executable, "-m", "tests.preloaded_server"),
                    *(str(theirs.fileno()), injector_library()),
                ],
                cwd=REPOSITORY,
                env={**os.environ, **env, "PYTHONPATH": str(REPOSITORY)},
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

    def run(
        self,
        words: Sequence[str | Path],
        env: Mapping[str, str],
        *,
        injection: Sequence[str | Path] = (),
        dies_at_creation: int = 0,
        cwd: str | Path = "",
        timeout_s: float = 60,
    ) -> subprocess.CompletedProcess[str]:
        """Run `shardtool *words` to its end, and return it.

        Args:
            words: of the command line.
            env: its whole environment.
            injection: what befalls it, as `befalling` returns it.
            dies_at_creation: at which open that may create it is killed, from 1 on; 0 for none.
            cwd: its working directory; ours where it is empty.
            timeout_s: how long it may take.
        """
        request = {
            "words": [*map(str, words)],
            "env": {**env},
            "injection": [*map(str, injection)],
            "dies_at_creation": dies_at_creation,
            "cwd": str(cwd or os.getcwd()),
        }
        message = json.dumps(request).encode()
        assert len(message) < LONGEST
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            self._channel.settimeout(timeout_s)
            socket.send_fds(self._channel, [message], [out.fileno(), err.fileno()])
            try:
                status = self._channel.recv(64)
            except TimeoutError:
                os.killpg(self._process.pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired([*map(str, words)], timeout_s) from None
            streams = []
            for stream in (out, err):
                stream.seek(0)
                streams.append(stream.read().decode())
        assert status, f"what forks for the runs has ended: {self._process.poll()}"
        code = os.waitstatus_to_exitcode(int(status))
        return subprocess.CompletedProcess(["shardtool", *map(str, words)], code, *streams)


@functools.cache
def preloaded() -> Preloaded:
    """Return one among all other processes."""
    return Preloaded((), {})


@functools.cache
def preloaded_alone() -> Preloaded:
    """Return one in a PID namespace of its own, whose runs make the same calls each time.

    Each look for holders is one through all processes that there are: without others it is short.
    What is mounted after its start it does not see. Without root it is one among all others.
    """
    if os.geteuid():
        return preloaded()
    return Preloaded(_NAMESPACE, {"PYTHONHASHSEED": "0"})


def run_preloaded(
    *args: str | Path, env: Mapping[str, str | None] | None = None, **settings: Any
) -> subprocess.CompletedProcess[str]:
    """Run shardtool as conftest's run_shardtool does, but for its start."""
    if set(settings) - {"cwd"}:
        return run_shardtool(*args, env=env, **settings)  # another user, other streams
    return preloaded().run(args, environment_of(env), **settings)


def run_alone(
    *args: str | Path, env: Mapping[str, str | None] | None = None
) -> subprocess.CompletedProcess[str]:
    """Do so where no other processes are."""
    return preloaded_alone().run(args, environment_of(env))
