"""What is to be sent and what is not: the one plan that is shown and then executed.

It is made of the spools of proofs, and goes through every value once: what a server can't be sent
is known before anything is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from shardtool.errors import ShardtoolError
from shardtool.proof.causes import NOT_WANTED
from shardtool.rescue.points import Point, Run, Unsendable, points_of
from shardtool.rescue.spool import Column, Value, columns_in, values_of

DIFFERENT, NO_DATABASE, ACCEPTED = "different", "no-database", "accepted"
MOST_LISTED = 10_000

LEFT = {
    "expired": "older than its shard space keeps values: 0.8 would drop it again",
    "dropped": "its series, database or space was dropped in 0.8",
    DIFFERENT: "0.8 has another value there, which is newer perhaps: it is not overwritten",
    ACCEPTED: "it was accepted that they go (shardtool accept); name the shard to send them",
    NO_DATABASE: "0.8 does not know the database: --create-databases makes it",
}
"""Why values stay behind that could be sent; rescue.points.WHY has the others."""


class Part(NamedTuple):
    """Lost values of one column in one shard: the shard, and where they are in its spool."""

    shard: str
    column: Column


@dataclass(frozen=True)
class Series:
    """Lost values of one series.

    Args:
        database: the series'.
        name: its name.
        parts: its columns, those of later shards first: where two shards have another value under
            the same time and sequence number, the one of the later shard is sent.
    """

    database: str
    name: str
    parts: tuple[Part, ...]


@dataclass
class Plan:
    """What a rescue sends.

    Args:
        series: what is sent, by database and name.
        values: to send, by (database, series).
        points: to send.
        left: values that are not sent, by the word that says why.
        examples: of those that can't be sent, the first 10,000.
        databases: to be created.
    """

    series: list[Series] = field(default_factory=list)
    values: Counter[tuple[str, str]] = field(default_factory=Counter)
    points: int = 0
    left: Counter[str] = field(default_factory=Counter)
    examples: list[Unsendable] = field(default_factory=list)
    databases: set[str] = field(default_factory=set)

    @property
    def total(self) -> int:
        """Values to send."""
        return self.values.total()

    @property
    def shards(self) -> set[str]:
        """Those that have anything of what is sent."""
        return {part.shard for series in self.series for part in series.parts}


class Spools:
    """Files of lost values, one a shard, filled as proofs end."""

    def __init__(self, directory: Path) -> None:
        """Keep them in `directory`, which is the caller's to remove."""
        self._directory = directory
        self._paths: dict[str, Path] = {}

    def add(self, shard: str, piece: bytes) -> None:
        """Append a piece to a shard's spool."""
        path = self._paths.setdefault(shard, self._directory / f"{len(self._paths)}.spool")
        with path.open("ab", buffering=0) as file:
            file.write(piece)

    def series(self, without: Collection[str] = ()) -> Iterator[Series]:
        """Yield what is lost, series by series, but for what these shards have."""
        found: dict[tuple[str, str], list[Part]] = {}
        for shard, path in sorted(self._paths.items(), reverse=True):
            if shard not in without:
                for column in columns_in(path):
                    key = column.name.database, column.name.series
                    found.setdefault(key, []).append(Part(shard, column))
        for (database, name), parts in sorted(found.items()):
            yield Series(database, name, tuple(parts))

    def points(self, series: Series, also: Collection[str]) -> Iterator[Point | Unsendable]:
        """Yield the points of a series, left out what is not wanted; see is_wanted."""
        return points_of(
            [
                Run(
                    part.column.name,
                    (v for v in self._values(part, len(series.parts)) if is_wanted(v, also)),
                    part.column.is_sure,
                )
                for part in series.parts
            ]
        )

    def count(self, shard: str) -> int:
        """Return how many values of a shard are lost."""
        if shard not in self._paths:
            return 0
        columns = columns_in(self._paths[shard])
        return sum(1 for column in columns for _ in self._values(Part(shard, column)))

    def not_wanted(self, series: Series, also: Collection[str]) -> Counter[str]:
        """Return how many values of a series are not to be sent, by the word of LEFT."""
        return Counter(
            DIFFERENT if value.is_different else value.cause
            for part in series.parts
            for value in self._values(part)
            if not is_wanted(value, also)
        )

    def _values(self, part: Part, of_many: int = 1) -> Iterator[Value]:
        return values_of(self._paths[part.shard], part.column, of_many=of_many)


def is_wanted(value: Value, also: Collection[str]) -> bool:
    """Say whether a lost value is to be sent: not one that 0.8 has otherwise, nor one that is gone
    for a reason, unless that is among `also`."""
    return not value.is_different and (value.cause not in NOT_WANTED or value.cause in also)


def make_plan(
    spools: Spools,
    *,
    known: Collection[str],
    create: bool,
    also: Collection[str],
    accepted: Collection[str] = (),
) -> Plan:
    """Go through all lost values and return what is to be sent.

    Args:
        spools: of the shards that were proven.
        known: the databases that the server has.
        create: those that it has not are to be made.
        also: causes whose values are to be sent although somebody wanted them gone.
        accepted: shards whose losses may go.
    """
    plan = Plan()
    plan.left[ACCEPTED] = sum(map(spools.count, accepted))
    for series in spools.series(without=accepted):
        plan.left.update(spools.not_wanted(series, also))
        is_new = series.database not in known
        sendable = 0
        for found in spools.points(series, also):
            if isinstance(found, Unsendable):
                plan.left[found.why] += 1
                if len(plan.examples) < MOST_LISTED:
                    plan.examples.append(found)
            elif is_new and not create:
                plan.left[NO_DATABASE] += len(found.values)
            else:
                sendable += len(found.values)
                plan.points += 1
        if sendable:
            plan.series.append(series)
            plan.values[series.database, series.name] += sendable
            if is_new:
                plan.databases.add(series.database)
    plan.left = +plan.left
    return plan


def require_nothing_new(shown: Plan, plan: Plan) -> None:
    """Insist that a plan has nothing that was not shown.

    Raises:
        ShardtoolError: it has.
    """
    if not (plan.values <= shown.values and plan.databases <= shown.databases):
        raise ShardtoolError(
            "other values are lost now than were shown when the question was asked; nothing was "
            "sent: run rescue again"
        )
