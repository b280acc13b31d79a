"""The event loop that a bucket's requests run on: a signal ends them, wherever it comes.

If they blocked in native code it could not. A handler that raises does so wherever the loop's
thread happens to be: in a callback of native code, which may drop what is raised, and the work
goes on as if there had been no signal. So it is handled only when the work has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Coroutine, Iterator
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")

# asyncio does the same for SIGINT.
_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class Loop:
    """Runs coroutines one after the other; close it in the end."""

    def __init__(self) -> None:
        """Make the loop."""
        self._runner = _runner()

    def close(self) -> None:
        """End whatever is on it."""
        self._runner.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` to its end, or until a signal; then nothing of it goes on behind our back."""
        try:
            with _deferred() as deferred:
                return self._runner.run(deferred.heeding(work))
        except BaseException:
            self._runner.close()
            self._runner = _runner()
            raise


def _runner() -> asyncio.Runner:
    """Return what runs coroutines, and never prints on stderr by itself: whatever fails, a signal's
    interruption of any task included, reaches the operator through the one who called."""
    runner = asyncio.Runner()
    runner.get_loop().set_exception_handler(lambda loop, context: None)
    return runner


class _Deferred:
    """A signal that ends the work, if one has come."""

    def __init__(self) -> None:
        self._task: asyncio.Task[Any] | None = None
        self.caught: int | None = None

    async def heeding(self, work: Coroutine[Any, Any, T]) -> T:
        """Do `work`; a signal that is caught cancels it."""
        self._task = asyncio.current_task()
        if self.caught is not None:
            work.close()
            raise asyncio.CancelledError
        return await work

    def catch(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal by cancelling the work."""
        self.caught = number
        if self._task is not None and not self._task.done():
            self._task.cancel()
            # It may wait for its next event: this is one.
            self._task.get_loop().call_soon_threadsafe(lambda: None)


@contextlib.contextmanager
def _deferred() -> Iterator[_Deferred]:
    """Defer the signals that have a handler to the end of the block."""
    deferred = _Deferred()
    if threading.current_thread() is not threading.main_thread():
        yield deferred  # signals go to the main thread alone
        return
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    handlers = {number: handler for number, handler in handlers.items() if callable(handler)}
    with _held_back():
        for number in handlers:
            signal.signal(number, deferred.catch)
    try:
        yield deferred
    finally:
        with _held_back():
            for number, handler in handlers.items():
                signal.signal(number, handler)
            if deferred.caught is not None:
                signal.raise_signal(deferred.caught)


@contextlib.contextmanager
def _held_back() -> Iterator[None]:
    """Have signals come at the end of the block: in its middle some would have a new handler."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
