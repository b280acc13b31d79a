"""Prove many old shards at once: a process a shard, as many at a time as there are cores.

A process each, because an engine may die of what a hostile file makes it do: then one shard is
unreadable, and the others go on.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import os
import resource
import shutil
import signal
import tempfile
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any, Protocol

from shardtool.disk.durable import READ_DIRECTORY_ITSELF, opened
from shardtool.errors import ShardtoolError, reason_of
from shardtool.influxdb.catalogue import Catalogue
from shardtool.influxdb.engines import EngineBusyError, EngineError
from shardtool.proof.listing import Listing
from shardtool.proof.prove import Asker, Finding, Lost, Question, prove
from shardtool.proof.state import state_of
from shardtool.proof.storage import LocalShard, NewStorage

_ATTEMPTS = 3  # files that vanish under the reader: link again so many times in all
_TELL_SECONDS = 0.2
_PR_SET_PDEATHSIG = 1  # prctl(2)
_PREFIX = "shardtool-links-"


@dataclass(frozen=True)
class Outcome:
    """How the proof of one shard ended.

    Args:
        shard: its name.
        finding: what was found; None where it could not be read.
        word: the reason where it could not: 'engine-unreadable', 'changing' or 'in-use'.
        detail: what was met, in words.
    """

    shard: str
    finding: Finding | None
    word: str = ""
    detail: str = ""


class Told(Protocol):
    """Who is told how a run goes."""

    def progress(self, shard: str, values: int, size: int) -> None:
        """So many values and bytes of a shard are done with, in all."""

    def lines(self, lines: bytes) -> None:
        """Whole JSON lines of a shard's lost values, where they are listed."""


@dataclass(frozen=True)
class Setting:
    """What all proofs of a run share.

    Args:
        catalogue: what the new storage knows.
        local: the new shards on this node's disk, by name.
        ask: opens a way to ask a running cluster; None where there is none.
    """

    catalogue: Catalogue
    local: Mapping[str, LocalShard]
    ask: Callable[[], contextlib.AbstractContextManager[Asker]] | None = None


@dataclass(frozen=True)
class Job:
    """An old shard to prove: its question but for the state, and its size in bytes."""

    question: Question
    size: int


def prove_all(jobs: Sequence[Job], setting: Setting, told: Told) -> Generator[Outcome, None, None]:
    """Prove each of `jobs`, the largest first, and yield each outcome as it comes.

    Args:
        jobs: the old shards.
        setting: what they are compared with.
        told: told how it goes.

    Raises:
        ShardtoolError: there is no room for links, or a server that is to be asked refuses.
    """
    waiting = deque(sorted(jobs, key=lambda job: -job.size))
    cores = len(os.sched_getaffinity(0))
    running: dict[Connection, tuple[int, Job]] = {}
    gc.freeze()  # what is here now stays shared with the children
    with _scratch() as scratch:
        try:
            while waiting or running:
                while waiting and len(running) < cores:
                    job = waiting.popleft()
                    pid, connection = _start(job, setting, scratch, list(running))
                    running[connection] = pid, job
                for ready in wait(list(running)):
                    assert isinstance(ready, Connection)
                    end = _heard(ready, *running[ready], told)
                    if end is not None:
                        del running[ready]
                    if isinstance(end, ShardtoolError):
                        raise end
                    if end is not None:
                        yield end
        finally:
            for connection, (pid, _) in running.items():
                connection.close()
                # ctrl-C may have come right after one was waited for.
                with contextlib.suppress(ProcessLookupError, ChildProcessError):
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    """Make a directory for links and yield it; it goes at the end, and so do those of runs that
    were killed."""
    parent = Path(tempfile.gettempdir())
    with contextlib.ExitStack() as stack:
        try:
            _sweep(parent)
            path = _made_and_locked(stack)
        except OSError as error:
            raise ShardtoolError(
                f"{parent}: expected room for links to the shards' files, "
                f"found: {reason_of(error)}; set TMPDIR to a directory that can be written"
            ) from None
        yield path


def _made_and_locked(stack: contextlib.ExitStack) -> Path:
    """Make a directory with a lock on it, which tells other runs that it is in use."""
    while True:
        with contextlib.ExitStack() as made:
            directory = tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True)
            path = Path(made.enter_context(directory))
            # Before the lock is on it, another run may sweep it away: then there is a next one.
            with contextlib.suppress(FileNotFoundError, BlockingIOError):
                descriptor = made.enter_context(opened(path, READ_DIRECTORY_ITSELF))
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if path.exists():
                    stack.push(made.pop_all())
                    return path


def _sweep(parent: Path) -> None:
    """Remove what killed runs of this user left in `parent`: links, and engines' diaries."""
    for path in parent.glob(f"{_PREFIX}*"):
        with (
            contextlib.suppress(OSError),
            opened(path, READ_DIRECTORY_ITSELF) as descriptor,
        ):
            if os.fstat(descriptor).st_uid == os.geteuid():
                # Whoever still works there holds this lock.
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path)


def _start(
    job: Job, setting: Setting, scratch: Path, others: list[Connection]
) -> tuple[int, Connection]:
    reader, writer = Pipe(duplex=False)
    parent = os.getpid()
    pid = os.fork()
    if pid:
        writer.close()
        return pid, reader
    # The child: nothing of the parent's may run here, so every way out is os._exit.
    status = 1
    try:
        # With no reader left but the parent, a child ends when it writes to one that has died.
        for connection in (reader, *others):
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
        _work(job, setting, scratch, writer)
        status = 0
    finally:
        os._exit(status)


def _end_with(parent: int) -> None:
    """Have the kernel end this process when its parent dies, however it does.

    What goes on reading after a kill has the shard open, which is busy to the next run then.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it was killed just before


def _heard(
    connection: Connection, pid: int, job: Job, told: Told
) -> Outcome | ShardtoolError | None:
    """Take one message of a child; return its outcome if that was it, or if the child died, or
    the error that ends the whole run."""
    name = job.question.shard.name
    try:
        kind, content = connection.recv()
    except (EOFError, OSError):
        connection.close()
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        detail = f"{job.question.shard}: the process that read it died ({how}): a corrupt file?"
        return Outcome(name, None, "engine-unreadable", detail)
    if kind == "progress":
        told.progress(name, *content)
        return None
    if kind == "lines":
        told.lines(content)
        return None
    connection.close()
    os.waitpid(pid, 0)
    if kind == "error":
        return ShardtoolError(content)
    outcome: Outcome = content
    return outcome


class _Teller:
    """Watches a proof in the child and tells the parent, now and then."""

    def __init__(self, writer: Connection, listing: Listing) -> None:
        self._writer = writer
        self._listing = listing
        self._due = 0.0

    def progress(self, values: int, size: int) -> None:
        now = time.monotonic()
        if now >= self._due:
            self._due = now + _TELL_SECONDS
            self._writer.send(("progress", (values, size)))

    def lost(self, lost: Lost) -> None:
        self._listing.add(lost)

    def column_ends(self, cause: str) -> None:
        self._listing.column_ends(cause)


def _work(job: Job, setting: Setting, scratch: Path, writer: Connection) -> None:
    message: tuple[str, Any]
    try:
        with tempfile.TemporaryDirectory(dir=scratch) as own, contextlib.ExitStack() as stack:
            asker = stack.enter_context(setting.ask()) if setting.ask is not None else None
            message = "outcome", _attempts(job, setting, Path(own), writer, asker)
    except ShardtoolError as error:
        message = "error", str(error)
    except OSError as error:
        message = "error", f"{error.filename or scratch}: {reason_of(error)}"
    writer.send(message)


def _attempts(
    job: Job, setting: Setting, scratch: Path, writer: Connection, asker: Asker | None
) -> Outcome:
    """Prove the shard, again where what was read has changed meanwhile."""
    shard = job.question.shard
    failure = EngineError(f"{shard}: it changes all the time: another process writes to it")
    for _ in range(_ATTEMPTS):
        listing = Listing(shard.name, scratch)
        storage = NewStorage(setting.catalogue, setting.local, scratch)
        try:
            state = state_of(shard)
        except EngineError as error:
            return Outcome(shard.name, None, "engine-unreadable", str(error))
        question = replace(job.question, old_state=state)
        try:
            with storage:
                teller = _Teller(writer, listing)
                finding = prove(question, setting.catalogue, storage, scratch, teller, asker)
            if state_of(shard) == question.old_state:
                for lines in listing.chunks():
                    writer.send(("lines", lines))
                return Outcome(shard.name, finding)
        except EngineBusyError as error:
            return Outcome(shard.name, None, "in-use", str(error))
        except EngineError as error:
            if not _has_changed(question, storage, setting.local):
                return Outcome(shard.name, None, "engine-unreadable", str(error))
            failure = error
    return Outcome(shard.name, None, "changing", str(failure))


def _has_changed(question: Question, storage: NewStorage, local: Mapping[str, LocalShard]) -> bool:
    """Say whether anything that was being read is in another state than before."""
    try:
        return state_of(question.shard) != question.old_state or any(
            state_of(local[name].path) != state for name, state in storage.states.items()
        )
    except EngineError:
        return True
