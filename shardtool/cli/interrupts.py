"""Signals that end a command: each raises where the command is, and none of them is lost.

Python drops what is raised in a `__del__`, in a weak reference's callback, in a callback of native
code: it prints a traceback and goes on, as if there had been no signal.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType

from shardtool.errors import InterruptedByUserError

_NUMBERS = (signal.SIGTERM, signal.SIGHUP)
_SOON_S = 0.01


class Interrupts:
    """SIGTERM and SIGHUP raise InterruptedByUserError from now on, and ctrl-C KeyboardInterrupt."""

    def __init__(self) -> None:
        """Install the handlers; under nohup a hang-up is to be ignored, and stays so."""
        self._latest = signal.SIGINT
        for number in _NUMBERS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._raise)
        self._tell_others = sys.unraisablehook
        sys.unraisablehook = self._raise_later

    @staticmethod
    def end() -> None:
        """Have no signal disturb what comes after."""
        for number in (signal.SIGINT, *_NUMBERS):
            signal.signal(number, signal.SIG_IGN)
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _raise(self, number: int, frame: FrameType | None) -> None:
        self._latest = signal.Signals(number)
        while frame is not None:
            if frame.f_code is Interrupts._raise_later.__code__:
                self._arm()  # what is raised in there is dropped, and the first with it
                return
            frame = frame.f_back
        raise InterruptedByUserError(f"interrupted by {self._latest.name}")

    def _raise_later(self, dropped: sys.UnraisableHookArgs) -> None:
        """Send a signal again whose exception is being dropped."""
        if not isinstance(dropped.exc_value, KeyboardInterrupt):
            self._tell_others(dropped)
            return
        if not isinstance(dropped.exc_value, InterruptedByUserError):
            self._latest = signal.SIGINT
        self._arm()

    def _arm(self) -> None:
        signal.signal(signal.SIGALRM, self._raise_now)
        signal.setitimer(signal.ITIMER_REAL, _SOON_S)

    def _raise_now(self, number: int, frame: FrameType | None) -> None:
        signal.raise_signal(self._latest)
