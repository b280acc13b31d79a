"""At every call by which a command changes the disk: kill it, look at the laws, run it again.

A kill at the n-th call is the state after the one before it, so that all states are met which a
killed run can leave behind.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from shardtool.datadir.layout import find_layout
from shardtool.journal import Journal
from tests.faults.injection import killed_at, recorded
from tests.faults.injection_calls import Call

Words = tuple[str | Path, ...]
T = TypeVar("T")


def _no_session() -> AbstractContextManager[Words]:
    return contextlib.nullcontext(())


def nothing() -> None:
    """Do nothing."""


def contents(directory: Path) -> dict[str, str]:
    """Return what is in each file below a directory, as a digest, by its path in it."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def records(data: Path) -> list[dict[str, Any]]:
    """Return the journal's records; only its last line may be torn, or one that was closed."""
    journal = Journal(find_layout(str(data), None, {}))
    history = journal.read()
    if history.damaged:
        lines = journal.path.read_bytes().split(b"\n")
        for number in history.damaged:
            is_last = number == len(lines) or lines[number:] == [b""]
            assert is_last or lines[number - 1].endswith(b"(torn)"), "a line is lost"
    return list(history.records)


@dataclass(frozen=True)
class World:
    """A command, what it works on, and what must hold whenever it ends.

    Args:
        root: the directory that holds all that the command may change; made anew for each run.
        start: what is copied there.
        words: of the command line.
        laws: asserts what must hold at every moment, a kill or a power cut included.
        rerun: runs the command once more as an operator would, and asserts that it says so.
        outcome: what must be the same after that as after a run that nothing came upon.
        code: with which a run ends.
        prepare: done at `root` before each run, where a copy will not do: a copy has other
            inodes and other times of change.
        session: what must be there while the command runs and is run again, a server for
            instance; it yields more words for the command.
        promised: asserts what has reached the disk once the command has ended well.
        unsynced: names in `root` of what a server has written there and not synced.
        env: more for the environment.
        put_back: says whether anything was put back that a next run takes.
    """

    root: Path
    start: Path
    words: Words
    laws: Callable[[], None]
    rerun: Callable[[Words], None]
    outcome: Callable[[], object]
    code: int = 0
    prepare: Callable[[], None] = nothing
    session: Callable[[], AbstractContextManager[Words]] = _no_session
    promised: Callable[[], None] = nothing
    unsynced: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    put_back: Callable[[], bool] = lambda: False

    def fresh(self) -> None:
        """Make `root` what it is before the command is run."""
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.copytree(self.start, self.root, symlinks=True)
        self.prepare()
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.scratch.mkdir()

    @property
    def scratch(self) -> Path:
        """Where the command makes its temporary files: those of other runs are none of its."""
        return self.root.with_name(f"{self.root.name}-scratch")

    @property
    def environment(self) -> dict[str, str]:
        """What the command finds in its environment besides our own."""
        return {"TMPDIR": str(self.scratch), **self.env}

    @property
    def trace(self) -> Path:
        """Where strace writes."""
        return self.root.with_name(f"{self.root.name}-trace")

    def record(self, more: Words = ()) -> list[Call]:
        """Run the command as it is, on a fresh root; return the calls that have to do with it.

        All of them must be one thread's, in one order: the n-th is the same in each run.
        """
        calls, done = recorded((*self.words, *more), self.trace, self.environment, self.root)
        assert done.returncode == self.code, (done.returncode, done.stdout, done.stderr)
        ours = self._ours(calls)
        assert ours, "the command changed nothing: the test looks at the wrong place"
        return ours

    def record_killed(self, call: Call) -> list[Call]:
        """Do so with a run that is killed when it is about to make a call."""
        calls, done = recorded(self.words, self.trace, self.environment, self.root, dies_at=call)
        # strace dies of what killed the command, or says so where it is the first of a namespace.
        killed = (-signal.SIGKILL, 128 + signal.SIGKILL)
        assert done.returncode in killed, f"did not come to {call}: {done.stderr}"
        return self._ours(calls)

    def record_again(self) -> list[Call]:
        """Do so with a run on what an earlier one has left; there may be nothing left to do."""
        calls, done = recorded(self.words, self.trace, self.environment, self.root)
        assert done.returncode == self.code, (done.returncode, done.stdout, done.stderr)
        return self._ours(calls)

    def _ours(self, calls: Sequence[Call]) -> list[Call]:
        ours = [call for call in calls if call.inside]
        assert {call.process for call in ours} <= {calls[0].process}, "another thread's too"
        return ours


def kill_at_every_call(
    world: World, choose: Callable[[Sequence[Call]], Sequence[Call]] = tuple
) -> None:
    """Kill the command at each of its calls in turn; after each the laws hold, and a rerun ends
    as an uninterrupted run does.

    Args:
        world: the command.
        choose: given all calls, returns those to be killed at.
    """
    world.fresh()
    with world.session() as more:
        points = world.record(more)
    held(world.laws)
    wanted = held(world.outcome)
    chosen = choose(points)
    assert chosen, "no call is left to be killed at"
    for call in chosen:
        world.fresh()
        with world.session() as more, about(f"killed at {call}"):
            words = (*world.words, *more)
            killed_at(words, world.trace, call, world.environment, world.root)
            held(world.laws)
            world.rerun(more)
            held(world.laws)
            assert held(world.outcome) == wanted


def renames_and_what_follows(calls: Sequence[Call]) -> list[Call]:
    """Choose the renames and the call after each, the few points at which most is at stake; where
    there are none, the first and the last calls."""
    places = [at for at, call in enumerate(calls) if call.name.startswith("rename")]
    if not places:
        return [calls[0], *calls[-2:]]
    return [calls[at] for at in sorted({*places, *(at + 1 for at in places)}) if at < len(calls)]


def every(step: int, begin: int) -> Callable[[Sequence[Call]], Sequence[Call]]:
    """Choose each `step`-th call from `begin` on: parts of a test for several processes."""
    return lambda calls: calls[begin::step]


def held(look: Callable[[], T]) -> T:
    """Look at what a command has left; what is not there or can't be parsed breaks a law."""
    try:
        return look()
    except (OSError, ValueError, LookupError) as error:
        raise AssertionError(f"what should be there is not: {error!r}") from error


@contextlib.contextmanager
def about(what: str) -> Iterator[None]:
    """Say in a failure of the block what was done."""
    try:
        yield
    except AssertionError as error:
        error.add_note(what)
        raise
