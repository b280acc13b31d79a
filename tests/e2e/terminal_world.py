"""A real terminal, in which tests type and read."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tests.conftest import COMMAND, REPOSITORY


class Terminal:
    """A program that runs in a terminal of its own: shardtool, or another one.

    Args:
        args: of the program.
        program: its words.
        environment: what is added to ours.
    """

    def __init__(
        self, *args: str | Path, program: Sequence[str] = COMMAND, **environment: str
    ) -> None:
        self._screen, end = pty.openpty()
        self.shown = ""
        self.process = subprocess.Popen(
            [*program, *map(str, args)],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), "TERM": "xterm", **environment},
            stdin=end,
            stdout=end,
            stderr=end,
            start_new_session=True,
        )
        os.close(end)

    def wait_for(self, text: str, seconds: float = 20) -> str:
        """Read until `text` was shown; return all that was shown so far."""
        end = time.monotonic() + seconds
        while text not in self.shown:
            assert time.monotonic() < end, f"never saw {text!r} in {self.shown!r}"
            if select.select([self._screen], [], [], 0.1)[0]:
                try:
                    self.shown += os.read(self._screen, 4096).decode()
                except OSError:  # the other end was closed
                    assert text in self.shown, self.shown
        return self.shown

    def type(self, text: str) -> None:
        os.write(self._screen, text.encode())

    def end(self) -> int:
        """Read what is left and return the exit code."""
        while True:
            try:
                more = os.read(self._screen, 4096)
            except OSError:
                break
            if not more:
                break
            self.shown += more.decode()
        os.close(self._screen)
        return self.process.wait(20)
