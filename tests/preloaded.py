"""Run shardtool many times without its start: in a process that was forked after the imports.

It is the same code from the entry point on: tests/faults/test_preloaded.py compares the two. What
a user does is tested by the installed command (conftest's run_shardtool); this is for the thousands
of further cases of the same.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
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
from tests.preloaded_server import LONGEST, TROUBLE

NAMESPACE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
"""What stands before a command for it to see no process but its own children."""
# Tests count their own children, and wait for all of them.
_AS_NO_CHILD = "import os, sys; os.fork() and os._exit(0); os.execvp(sys.argv[1], sys.argv[1:])"
_OF_THE_START = ("PYTHON", "LANG", "LC_", "TZ")
_LONGEST_S = 300
_ALL: dict[tuple[int, tuple[str, ...]], Preloaded] = {}
"""By the process that made it, and what it is started with."""


class Preloaded:
    """The process that forks, and our end of the line to it."""

    def __init__(self, prefix: Sequence[str], env: Mapping[str, str]) -> None:
        """Remember how it is started: as what stands after `prefix`, with `env` added to the
        environment."""
        self._prefix = prefix
        self._env = {**os.environ, **env, "PYTHONPATH": str(REPOSITORY)}
        self._channel: socket.socket | None = None
        self.group = 0
        """The process group, and the session, of all that it forks."""

    def run(
        self,
        words: Sequence[str | Path],
        env: Mapping[str, str],
        *,
        injection: Sequence[str | Path] = (),
        cwd: str | Path = "",
        timeout_s: float = _LONGEST_S,
    ) -> subprocess.CompletedProcess[str]:
        """Run `shardtool *words` to its end, and return it.

        Args:
            words: of the command line.
            env: its whole environment.
            injection: what befalls it, as `befalling` returns it.
            cwd: its working directory; ours where it is empty.
            timeout_s: how long it may take.

        Raises:
            AssertionError: it did not come to shardtool's first line, or could not be struck.
            TimeoutExpired: it took longer, and was ended with all that it forked.
        """
        request = {
            "words": [*map(str, words)],
            "env": {**env},
            "injection": [*map(str, injection)],
            "library": str(injector_library()) if injection else "",
            "cwd": str(cwd or os.getcwd()),
        }
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            status = self._asked(
                json.dumps(request).encode(), [out.fileno(), err.fileno()], timeout_s
            )
            streams = []
            for stream in (out, err):
                stream.seek(0)
                streams.append(stream.read().decode())
        code = os.waitstatus_to_exitcode(int(status))
        assert code != TROUBLE, streams
        return subprocess.CompletedProcess(["shardtool", *map(str, words)], code, *streams)

    def _asked(self, message: bytes, descriptors: list[int], timeout_s: float) -> bytes:
        """Ask for a run and return its status; if that goes wrong, the next run has a new start."""
        assert len(message) < LONGEST
        channel, self._channel = self._channel or self._start(), None
        channel.settimeout(timeout_s)
        try:
            socket.send_fds(channel, [message], descriptors)
            status = channel.recv(64)
            assert status, "what forks for the runs has ended"
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.group, signal.SIGKILL)
            channel.close()
            if isinstance(error, TimeoutError):
                raise subprocess.TimeoutExpired("shardtool", timeout_s) from None
            raise
        self._channel = channel
        return status

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            words = [*self._prefix, sys.executable, "-m", "tests.preloaded_server"]
            started = subprocess.Popen(
                [sys.executable, "-c", _AS_NO_CHILD, *words, str(theirs.fileno())],
                cwd=REPOSITORY,
                env=self._env,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        assert started.wait() == 0
        self.group = started.pid
        return ours


def preloaded() -> Preloaded:
    """Return one among all other processes."""
    return _of_this_process((), {})


def preloaded_alone() -> Preloaded:
    """Return one in a PID namespace of its own, whose runs make the same calls each time.

    Each look for holders is one through all processes that there are: without others it is short.
    What is mounted after its start it does not see. Where none can be made it is one among all
    other processes.
    """
    if not has_namespaces():
        return preloaded()
    return _of_this_process(NAMESPACE, {"PYTHONHASHSEED": "0"})


def _of_this_process(prefix: tuple[str, ...], env: Mapping[str, str]) -> Preloaded:
    """Return one that no other process has: of two, each might get what the other asked for."""
    return _ALL.setdefault((os.getpid(), prefix), Preloaded(prefix, env))


@functools.cache
def has_namespaces() -> bool:
    """Say whether we may make a PID namespace, and mount its /proc."""
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode == 0


def run_preloaded(
    *args: str | Path, env: Mapping[str, str | None] | None = None, **settings: Any
) -> subprocess.CompletedProcess[str]:
    """Run shardtool as conftest's run_shardtool does, but for its start."""
    # Another user or other streams; or what Python and C look at when they start, and never again.
    if set(settings) - {"cwd"} or any(name.startswith(_OF_THE_START) for name in env or ()):
        return run_shardtool(*args, env=env, **settings)
    return preloaded().run(args, environment_of(env), **settings)


def run_alone(
    *args: str | Path, env: Mapping[str, str | None] | None = None
) -> subprocess.CompletedProcess[str]:
    """Do so where no other processes are."""
    return preloaded_alone().run(args, environment_of(env))
