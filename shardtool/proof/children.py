"""Read hostile shards in child processes: one an item, as many at a time as there are cores.

A process each, because an engine may die of what a corrupt file makes it do: then one item has
no answer, and the others go on.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import resource
import signal
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

from shardtool.errors import ShardtoolError, placed
from shardtool.proof.scratch import childs_directory, directory_for_links, place_of_spools

_PR_SET_PDEATHSIG = 1  # prctl(2)
_READERS = ("rocksdict", "re2")

Item = TypeVar("Item")
Answer = TypeVar("Answer")
Tell: TypeAlias = Callable[[object], None]
"""What a child says to its parent before it has its answer."""


@dataclass(frozen=True)
class Died:
    """A child that ended without an answer: 'signal SIGSEGV' or 'exit code 1'."""

    how: str


class Children(Generic[Item, Answer]):
    """Children that work on items, and what they say."""

    def __init__(
        self,
        work: Callable[[Item, Path, Tell], Answer],
        heard: Callable[[Item, Any], None],
    ) -> None:
        """Prepare; nothing is started yet.

        Args:
            work: called in a child with its item, a directory of its own for links, which may be
                in memory, and what tells the parent something. What it raises as ShardtoolError or
                OSError ends the whole run.
            heard: called in the parent with each thing told.
        """
        self._work = work
        self._heard = heard
        self._running: dict[Connection, tuple[int, Item]] = {}

    def answers(self, items: Sequence[Item]) -> Generator[tuple[Item, Answer | Died], None, None]:
        """Work on `items`, begun in their order, and yield each with its answer as it comes.

        Raises:
            ShardtoolError: there is no room for links, or the work itself raised it.
        """
        waiting = deque(items)
        cores = len(os.sched_getaffinity(0))
        if items:
            _prepare()
        gc.freeze()  # what is here now stays shared with the children
        with directory_for_links(cores) as links:
            try:
                while waiting or self._running:
                    while waiting and len(self._running) < cores:
                        self._start(waiting.popleft(), links)
                    for ready in wait(list(self._running)):
                        assert isinstance(ready, Connection)
                        item = self._running[ready][1]
                        end = self._listen(ready)
                        if isinstance(end, ShardtoolError):
                            raise end
                        if end is not None:
                            yield item, end
            finally:
                self._stop()

    def _start(self, item: Item, links: Path) -> None:
        reader, writer = Pipe(duplex=False)
        parent = os.getpid()
        pid = os.fork()
        if pid:
            writer.close()
            self._running[reader] = pid, item
            return
        # The child: nothing of the parent's may run here, so every way out is os._exit.
        status = 1
        try:
            # With no reader left but the parent, a child ends when it writes to one that has died.
            for connection in (reader, *self._running):
                connection.close()
            # The parent is told of ctrl-C too, and ends its children.
            _end_with(parent)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            for number in (signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            gc.disable()  # its objects make no cycles, and there are millions of them
            with contextlib.suppress(OSError, ValueError):
                _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
                resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
            self._answer(item, links, writer)
            status = 0
        finally:
            os._exit(status)

    def _answer(self, item: Item, links: Path, writer: Connection) -> None:
        message: tuple[str, Any]
        try:
            with childs_directory(links) as own:
                answer = self._work(item, own, lambda told: writer.send(("told", told)))
            message = "answer", answer
        except ShardtoolError as error:
            message = "error", str(error)
        except OSError as error:
            # Links, shards and logs have errors of their own: what has no path is of a spool.
            message = "error", placed(error, place_of_spools())
        writer.send(message)

    def _listen(self, connection: Connection) -> Answer | Died | ShardtoolError | None:
        """Take one message of a child; return its answer if that was it, that it died, or the
        error that ends the whole run."""
        item = self._running[connection][1]
        try:
            kind, content = connection.recv()
        except (EOFError, OSError):
            status = self._wait(connection)
            code = os.waitstatus_to_exitcode(status)
            return Died(f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}")
        if kind == "told":
            self._heard(item, content)
            return None
        self._wait(connection)
        if kind == "error":
            return ShardtoolError(content)
        answer: Answer = content
        return answer

    def _wait(self, connection: Connection) -> int:
        connection.close()
        _, status = os.waitpid(self._running[connection][0], 0)
        del self._running[connection]
        return status

    def _stop(self) -> None:
        for connection, (pid, _) in self._running.items():
            connection.close()
            # ctrl-C may have come right after one was waited for.
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        self._running.clear()


def _prepare() -> None:
    """Import what reads shards, once for all children: it is most of what a small one costs."""
    for name in _READERS:
        # Whatever is wrong with it fails in the child, as its answer or its end.
        with contextlib.suppress(Exception):
            importlib.import_module(name)


def _end_with(parent: int) -> None:
    """Have the kernel end this process when its parent dies, however it does.

    What goes on reading after a kill has the shard open, which is busy to the next run then.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it was killed just before
