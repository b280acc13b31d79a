"""Work on many items in child processes: one a core, sharing nothing but the answers."""

from __future__ import annotations

import gc
import os
import pickle
import signal
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from shardtool.errors import ShardtoolError

Item = TypeVar("Item")
Answer = TypeVar("Answer")

_FEWEST_ITEMS = 16  # below this, starting children costs more than it saves


class Pending(Generic[Item, Answer]):
    """Work that children do while the caller goes on with its own; `answers` waits for it.

    multiprocessing.Pool would do, at the price of three threads in the parent and of an
    import as long as half of what a `du` of 200,000 files takes.
    """

    def __init__(self, work: Callable[[Item], Answer], items: Sequence[Item]) -> None:
        """Start on `items` at once, in child processes where there are many items and cores.

        Args:
            work: called once per item, in a child; it must not raise what pickle can't carry.
            items: what to work on.
        """
        self._work = work
        self._items = items
        self._children: list[tuple[int, int]] = []
        cores = len(os.sched_getaffinity(0))
        if cores > 1 and len(items) >= _FEWEST_ITEMS:
            try:
                for first in range(cores):
                    self._children.append(self._start(first, cores))
            except OSError:
                self.stop()  # no process or descriptor to be had: `answers` does it all itself

    def _start(self, first: int, step: int) -> tuple[int, int]:
        reader, writer = os.pipe()
        try:
            pid = os.fork()
        except OSError:
            os.close(reader)
            os.close(writer)
            raise
        if pid:
            os.close(writer)
            return pid, reader
        # The child: nothing of the parent's may run here, so every way out is os._exit.
        status = 1
        try:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            gc.disable()  # short-lived, and its objects make no cycles
            answers = [self._work(item) for item in self._items[first::step]]
            with open(writer, "wb") as pipe:
                pickle.dump(answers, pipe, pickle.HIGHEST_PROTOCOL)
            status = 0
        finally:
            os._exit(status)

    def answers(self) -> list[Answer]:
        """Wait for the work and return its answers in the order of the items.

        Raises:
            ShardtoolError: a child died (killed, out of memory) before it had answered.
        """
        if not self._children:
            return [self._work(item) for item in self._items]
        try:
            shares = [self._collect(*child) for child in self._children]
        finally:
            self.stop()
        return [
            shares[index % len(shares)][index // len(shares)] for index in range(len(self._items))
        ]

    def _collect(self, pid: int, reader: int) -> list[Answer]:
        with open(reader, "rb", closefd=False) as pipe:
            content = pipe.read()
        try:
            found: list[Answer] = pickle.loads(content)
        except (EOFError, pickle.UnpicklingError):
            raise ShardtoolError(
                f"a scanning process (pid {pid}) died before it was done; "
                "see whether the machine ran out of memory, and run this again"
            ) from None
        return found

    def stop(self) -> None:
        """End the children that still run and forget them; safe to call at any time."""
        for pid, reader in self._children:
            os.close(reader)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        self._children = []
