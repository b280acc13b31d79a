"""What is to be sent and what is not: the one plan that is shown and then executed.

It is made of the spools of proofs, and goes through every value once: what a server can't be sent
is known before anything is.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from shardtool.proof.causes import NOT_WANTED
from shardtool.rescue.points import Point, Run, Unsendable, points_of
from shardtool.rescue.spool import Column, Value, columns_in, values_of

DIFFERENT, NO_DATABASE, ACCEPTED = "different", "no-database", "accepted"
_MOST_LISTED = 10_000

LEFT = {
    "expired": "older than its shard space keeps values: 0.8 would drop it again",
    "dropped": "its series, database or space was dropped in 0.8",
    DIFFERENT: "0.8 has another value there, which is newer perhaps: it is not overwritten",
    ACCEPTED: "it was accepted that they go (shardtool accept); name the shard to send them",
    NO_DATABASE: "0.8 does not know the database: --create-databases makes it",
}
"""Why values stay behind that could be sent; rescue.points.WHY has the others."""


@dataclass(frozen=True)
class SeriesPart:
    """Lost values of one series in one shard's spool.

    Args:
        shard: the old shard.
        database: the series'.
        series: its name.
        columns: where its columns are in the spool.
    """

    shard: str
    database: str
    series: str
    columns: tuple[Column, ...]


@dataclass
class Plan:
    """What a rescue sends.

    Args:
        parts: what is sent, shard by shard.
        values: to send, by (database, series).
        points: to send.
        left: values that are not sent, by the word that says why.
        examples: of those that can't be sent, the first 10,000.
        databases: to be created.
    """

    parts: list[SeriesPart] = field(default_factory=list)
    values: Counter[tuple[str, str]] = field(default_factory=Counter)
    points: int = 0
    left: Counter[str] = field(default_factory=Counter)
    examples: list[Unsendable] = field(default_factory=list)
    databases: set[str] = field(default_factory=set)

    @property
    def total(self) -> int:
        """Values to send."""
        return self.values.total()


class Spools:
    """Files of lost values, one a shard, filled as proofs end; a context manager."""

    def __init__(self, directory: Path) -> None:
        """Keep them in `directory`, which is the caller's to remove."""
        self._directory = directory
        self._stack = contextlib.ExitStack()
        self._files: dict[str, BinaryIO] = {}

    def __enter__(self) -> Spools:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def add(self, shard: str, piece: bytes) -> None:
        """Append a piece to a shard's spool."""
        if shard not in self._files:
            path = self._directory / f"{len(self._files)}.spool"
            self._files[shard] = self._stack.enter_context(path.open("w+b"))
        self._files[shard].write(piece)

    def parts(self) -> Iterator[SeriesPart]:
        """Yield what is lost, series by series of each shard."""
        for shard, file in sorted(self._files.items()):
            file.seek(0)
            series: dict[tuple[str, str], list[Column]] = {}
            for column in columns_in(file):
                key = column.name.database, column.name.series
                series.setdefault(key, []).append(column)
            for (database, name), columns in series.items():
                yield SeriesPart(shard, database, name, tuple(columns))

    def points(self, part: SeriesPart, also: Collection[str]) -> Iterator[Point | Unsendable]:
        """Yield the points of a part, left out what is not wanted; see is_wanted."""
        file = self._files[part.shard]
        return points_of(
            [
                Run(
                    column.name,
                    (v for v in values_of(file, column) if is_wanted(v, also)),
                    column.is_sure,
                )
                for column in part.columns
            ]
        )

    def count(self, part: SeriesPart) -> int:
        """Return how many values a part has."""
        file = self._files[part.shard]
        return sum(1 for column in part.columns for _ in values_of(file, column))

    def not_wanted(self, part: SeriesPart, also: Collection[str]) -> Counter[str]:
        """Return how many values of a part are not to be sent, by the word of LEFT."""
        file = self._files[part.shard]
        return Counter(
            DIFFERENT if value.is_different else value.cause
            for column in part.columns
            for value in values_of(file, column)
            if not is_wanted(value, also)
        )


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
    for part in spools.parts():
        if part.shard in accepted:
            plan.left[ACCEPTED] += spools.count(part)
            continue
        plan.left.update(spools.not_wanted(part, also))
        is_new = part.database not in known
        sendable = 0
        for found in spools.points(part, also):
            if isinstance(found, Unsendable):
                plan.left[found.why] += 1
                if len(plan.examples) < _MOST_LISTED:
                    plan.examples.append(found)
            elif is_new and not create:
                plan.left[NO_DATABASE] += len(found.values)
            else:
                sendable += len(found.values)
                plan.points += 1
        if sendable:
            plan.parts.append(part)
            plan.values[part.database, part.series] += sendable
            if is_new:
                plan.databases.add(part.database)
    return plan


def by_database(plan: Plan) -> Mapping[str, int]:
    """Return the values to send by database."""
    counts: Counter[str] = Counter()
    for (database, _), count in plan.values.items():
        counts[database] += count
    return counts
