"""What the other shards of a run have of a series: points of the same time, and values twice.

Shards of one time exist: 0.7 may spread a series at random over several, 0.8 splits, and an old
shard and the new one that it was copied to may go into one file. Points that only differ in their
shard would replace each other in what reads the file. So a shard is read together with those whose
times overlap with its own: of these no more than what lies at the times of the window that is on
its way. Memory holds the window, and a few pairs of theirs. One is opened when there is a window
that it may have anything of; of very many some are opened each time that they are asked.

One identity (time and sequence number) in several shards is one value. The last shard that has it
is right, as in rescue; the same content goes out once, with the first shard that has it.
"""

from __future__ import annotations

import dataclasses
import resource
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

from shardtool.export.columns import Column
from shardtool.export.left import Left
from shardtool.export.look import Look, series_digest
from shardtool.export.windows import Choice, Part, Window
from shardtool.influxdb.engines import EngineError, Pair, Reader
from shardtool.influxdb.keys import ID_BYTES, VALUE_KEY
from shardtool.proof.columns import Name
from shardtool.words import names

Sayable: TypeAlias = Callable[[Name, bytes, bytes], bool]
"""Says of a column's name, a key without its id and what is stored whether it can go out."""

_TIME_BYTES = 8
_ATTEMPTS = 3  # where files vanish
# Shards that stay open at a time. Each may have its 64 tables open, and some files more.
_MOST_OPEN = 256
_FILES, _OTHER_FILES = 80, 200
_FIRST_STEP, _MOST_STEP = 4, 128  # pairs that are read at a time


@dataclass(frozen=True)
class Other:
    """Another shard of the run, open.

    Args:
        reader: reads it.
        columns: the wanted ones, by name; there may be several of one.
        choice: chooses among its values; None takes all.
        is_later: it is written after the one at hand.
        is_whole: all of it is in the file already, or listed.
    """

    reader: Reader
    columns: Mapping[tuple[str, str], Sequence[Column]]
    choice: Choice | None
    is_later: bool
    is_whole: bool

    def of(self, series: tuple[str, str], times: Sequence[bytes]) -> Iterator[tuple[Name, Pair]]:
        """Yield what it has of a series at some times, which are in order.

        Raises:
            EngineError: it can't be read.
        """
        for column in self.columns.get(series, ()):
            for pairs in self._near(column, times):
                for pair in pairs:
                    yield column.name, pair

    def _near(self, column: Column, times: Sequence[bytes]) -> Iterator[list[Pair]]:
        """Yield pairs of a column, some at a time, that have all of `times`, and few others."""
        at = 0
        wanted = set(times)

        def is_wanted(key: bytes) -> bool:
            return len(key) == VALUE_KEY and _time_of(key) in wanted

        while at < len(times):
            stream = self.reader.pairs(column.id + times[at])
            step = _FIRST_STEP
            while True:
                pairs = stream.take(step)
                mine = [pair for pair in pairs if pair[0].startswith(column.id)]
                found = [pair for pair in self._chosen(mine) if is_wanted(pair[0])]
                if found:
                    yield found
                if len(mine) < step:
                    return
                before, at = at, bisect_left(times, _time_of(mine[-1][0]), at)
                # Where nothing was wanted, the next one that is may be far. But a time has no end
                # of pairs that aren't: to seek it again would find the same ones.
                is_far = not found and at > before
                if is_far or at == len(times):
                    break
                step = min(2 * step, _MOST_STEP)

    def _chosen(self, pairs: Sequence[Pair]) -> Sequence[Pair]:
        return pairs if self.choice is None or not pairs else self.choice.among(pairs)


class Near:
    """Another shard of the run, which is opened when it is asked for something."""

    def __init__(
        self, shard: str, look: Look, opened: Callable[[], AbstractContextManager[Other]]
    ) -> None:
        """Begin with it closed.

        Args:
            shard: its name.
            look: what it has.
            opened: opens it; raises EngineError where that can't be done.
        """
        self.shard = shard
        self._look = look
        self._opened = opened
        self._other: Other | None = None
        self._stack = ExitStack()

    @property
    def is_open(self) -> bool:
        return self._other is not None

    def may_have(self, series: tuple[str, str], times: Sequence[bytes]) -> bool:
        """Say whether it may have anything of a series between some times, which are in order."""
        if not self._look.reaches(times[0], times[-1]):
            return False
        return self._digests is None or series_digest(*series) in self._digests

    @cached_property
    def _digests(self) -> frozenset[bytes] | None:
        return self._look.digests()

    def ask(self, ask: Callable[[Other], None], *, stays_open: bool) -> None:
        """Ask it for something, again where files vanish under it, as a running server's do.

        Args:
            ask: does so; what it did before it fails does no harm when it is done once more.
            stays_open: it is asked again soon.

        Raises:
            EngineError: it can't be read.
        """
        failure = EngineError("")
        for _ in range(_ATTEMPTS):
            try:
                if self._other is None:
                    self._other = self._stack.enter_context(self._opened())
                ask(self._other)
            except EngineError as error:
                failure = error
                self.close()
                continue
            if not stays_open:
                self.close()
            return
        raise failure

    def close(self) -> None:
        """Close it until it is asked again."""
        self._other = None
        self._stack.close()


class Beside:
    """Compares the windows of a shard with what others of the run have."""

    def __init__(self, others: Sequence[Near], left: Left, one_a_time: Sayable | None) -> None:
        """Begin with all of them closed.

        Args:
            others: those whose times overlap, in the order of the run.
            left: takes what can't go out.
            one_a_time: of a series' points of one time only the first goes out that has any value
                of which this says that it can; None where all do.
        """
        self.twice = 0
        """How many values went out with an earlier shard."""
        self._failed: dict[str, str] = {}
        self._others = list(others)
        self._left = left
        self._one_a_time = one_a_time

    def settled(self, window: Window) -> Window | None:
        """Return a window with what is to go out of it, and what is beside it; None for nothing."""
        if not self._others or not window.parts[0].column.is_named:
            return window
        series = window.database, window.series
        times = sorted({_time_of(key) for part in window.parts for key in part.keys})
        others = [other for other in self._others if other.may_have(series, times)]
        if not others:
            return window
        met = _Met(window, self._one_a_time)

        def ask(other: Other) -> None:
            met.take(other, other.of(series, times))

        room = most_open() - sum(near.is_open for near in self._others)
        for near in others:
            room += near.is_open
            try:
                near.ask(ask, stays_open=room > 0)
            except EngineError as error:
                self._failed[near.shard] = str(error)
                self._others.remove(near)
            room -= near.is_open
        return self._without(met, window)

    @property
    def trouble(self) -> str:
        """Which shards could not be compared with to the end, in words; '' for none."""
        if not self._failed:
            return ""
        return (
            f"could not be compared with {names(self._failed)}: points of one time may replace "
            "each other in what reads the file, and a value may be in it twice: "
            f"{next(iter(self._failed.values()))}"
        )

    def close(self) -> None:
        """Close what is open."""
        for near in self._others:
            near.close()

    def _without(self, met: _Met, window: Window) -> Window | None:
        parts = []
        for part in window.parts:
            whys = [self._why(met, part, key[ID_BYTES:]) for key in part.keys]
            kept = [why == "" for why in whys]
            if all(kept):
                parts.append(part)
                continue
            for key, stored, why in zip(part.keys, part.values, whys, strict=True):
                if why == "twice":
                    self.twice += 1
                elif why:
                    self._left.add(part.column.name, key[ID_BYTES:], stored, why)
            if any(kept):
                keys = [key for key, keep in zip(part.keys, kept, strict=True) if keep]
                values = [value for value, keep in zip(part.values, kept, strict=True) if keep]
                parts.append(Part(part.column, keys, values))
        if not parts:
            return None
        return dataclasses.replace(window, parts=tuple(parts), beside=met.points)

    def _why(self, met: _Met, part: Part, suffix: bytes) -> str:
        """Return why a value does not go out, '' where it does."""
        place = part.column.name.column, suffix
        if place in met.contradicted:
            return "contradicted"
        if place in met.twice:
            return "twice"
        first, _ = met.points.get(suffix[:_TIME_BYTES], (suffix, suffix))
        return "same-time" if self._one_a_time is not None and first < suffix else ""


class _Met:
    """What others have at a window's times, as far as it matters.

    Attributes:
        points: of times, the first and the last point that counts.
        contradicted: values, by column and point, of which the last shard has another content.
        twice: those that are in the file with the same content.
    """

    def __init__(self, window: Window, counts: Sayable | None) -> None:
        self._counts = counts
        self.points: dict[bytes, tuple[bytes, bytes]] = {}
        self.contradicted: set[tuple[str, bytes]] = set()
        self.twice: set[tuple[str, bytes]] = set()
        self._parts: dict[str, list[Part]] = {}
        for part in window.parts:
            self._parts.setdefault(part.column.name.column, []).append(part)
        self._own: dict[str, dict[bytes, bytes]] = {}

    def take(self, other: Other, found: Iterable[tuple[Name, Pair]]) -> None:
        """Take what another shard has; the later ones come last."""
        for name, (key, stored) in found:
            point = key[ID_BYTES:]
            if self._counts is None or self._counts(name, point, stored):
                first, last = self.points.get(point[:_TIME_BYTES], (point, point))
                self.points[point[:_TIME_BYTES]] = min(first, point), max(last, point)
            mine = self._stored(name.column).get(point)
            if mine is None:
                continue
            place = name.column, point
            if other.is_later:
                (self.contradicted.discard if stored == mine else self.contradicted.add)(place)
            elif other.is_whole and stored == mine:
                self.twice.add(place)

    def _stored(self, column: str) -> dict[bytes, bytes]:
        """Return the window's own values of a column."""
        if column not in self._own:
            self._own[column] = {
                key[ID_BYTES:]: stored
                for part in self._parts.get(column, ())
                for key, stored in zip(part.keys, part.values, strict=True)
            }
        return self._own[column]


def most_open() -> int:
    """Return how many shards may stay open beside the one that is read."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return _MOST_OPEN
    return max(0, min(_MOST_OPEN, (limit - _OTHER_FILES) // _FILES))


def _time_of(key: bytes) -> bytes:
    return key[ID_BYTES : ID_BYTES + _TIME_BYTES]
