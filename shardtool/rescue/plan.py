"""What is to be sent and what is not: the one plan that is shown and then executed.

It is made of the spools of proofs, and goes through every value once: what a server can't be sent
is known before anything is.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from shardtool.datadir.inventory import by_age
from shardtool.errors import ShardtoolError, reason_of
from shardtool.proof.causes import CAUSES, NOT_WANTED
from shardtool.proof.columns import Name
from shardtool.rescue.points import Point, Run, Unsendable, points_of
from shardtool.rescue.spool import Column, Value, columns_in, values_of

DIFFERENT, NO_DATABASE, ACCEPTED = "different", "no-database", "accepted"
UNANSWERED = "unanswered"
MOST_LISTED = 10_000

LEFT = {
    "expired": "older than its shard space keeps values: 0.8 would drop it again",
    "dropped": "its series, database or space was dropped in 0.8, as far as raft can tell",
    DIFFERENT: "0.8 has another value there, newer perhaps: it is not overwritten",
    UNANSWERED: "another server may have it, and can't be asked for such a value",
    ACCEPTED: "it was accepted that they go (shardtool accept); name the shard to send them",
    NO_DATABASE: "0.8 does not have the database: see --create-databases",
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
        parts: numbers, for Spools.parts; there may be a million of them.
    """

    database: str
    name: str
    parts: array[int]


@dataclass
class Plan:
    """What a rescue sends.

    Args:
        series: what is sent, by database and name.
        values: to send, by (database, series).
        digests: of the points to send, by (database, series).
        points: to send.
        copies: values beside those to send that are in another shard too, the same in each; by
            (database, series).
        shards: those that have anything of a series that is sent.
        left: values that are not sent, by the word that says why.
        examples: of those that can't be sent, the first 10,000.
        databases: to be created.
    """

    series: list[Series] = field(default_factory=list)
    values: Counter[tuple[str, str]] = field(default_factory=Counter)
    digests: dict[tuple[str, str], bytes] = field(default_factory=dict)
    points: int = 0
    copies: Counter[tuple[str, str]] = field(default_factory=Counter)
    shards: set[str] = field(default_factory=set)
    left: Counter[str] = field(default_factory=Counter)
    examples: list[Unsendable] = field(default_factory=list)
    databases: set[str] = field(default_factory=set)

    @property
    def total(self) -> int:
        """Values to send."""
        return self.values.total()

    def give_up(self, database: str) -> None:
        """Leave out a database that can't be made."""
        self.databases.discard(database)
        self.series = [one for one in self.series if one.database != database]
        for key in [key for key in self.values if key[0] == database]:
            self.left[NO_DATABASE] += self.values.pop(key) + self.copies.pop(key, 0)


class Spools:
    """Files of lost values, one a shard, filled as proofs end.

    Args:
        directory: for them; the caller's to remove.

    Attributes:
        sent: the shards whose values are to be sent; None for all. What others have only stands
            in the way of another content under the same key.
    """

    def __init__(self, directory: Path) -> None:
        """Begin without any."""
        self.sent: Collection[str] | None = None
        self._directory = directory
        self._paths: dict[str, Path] = {}
        self._columns: list[str] = []

    def add(self, shard: str, piece: bytes) -> None:
        """Append a piece to a shard's spool.

        Raises:
            ShardtoolError: there is no room for it.
        """
        path = self._paths.setdefault(shard, self._directory / f"{len(self._paths)}.spool")
        try:
            with path.open("ab", buffering=0) as file:
                rest = memoryview(piece)
                while rest:
                    rest = rest[file.write(rest) :]
        except OSError as error:
            raise ShardtoolError(
                f"{self._directory}: expected room for the values that are lost, found: "
                f"{reason_of(error)}; set TMPDIR to a directory with more"
            ) from None

    def series(self) -> Iterator[Series]:
        """Yield what is lost, series by series."""
        found: dict[tuple[str, str], array[int]] = {}
        numbers = {name: number for number, name in enumerate(self._columns)}
        texts: dict[str, str] = {}  # one string for what thousands of shards have
        ordered = sorted(self._paths, key=by_age, reverse=True)
        for place, shard in enumerate(ordered):
            for name, start, end, rest, is_sure in columns_in(self._paths[shard]):
                key = texts.setdefault(name.database, name.database), name.series
                if name.column not in numbers:
                    numbers[name.column] = len(self._columns)
                    self._columns.append(name.column)
                found.setdefault(key, array("q")).extend(
                    (place, numbers[name.column], start, end, 2 * CAUSES.index(rest) + is_sure)
                )
        self._ordered = ordered
        for (database, series), parts in sorted(found.items()):
            yield Series(database, series, parts)

    def parts(self, series: Series) -> Iterator[Part]:
        """Yield a series' columns, those of later shards first: where two shards have another
        value under the same time and sequence number, the one of the later shard is sent."""
        for at in range(0, len(series.parts), _NUMBERS):
            place, column, start, end, flags = series.parts[at : at + _NUMBERS]
            name = Name(series.database, series.name, self._columns[column])
            of = Column(name, start, end, CAUSES[flags // 2], bool(flags % 2))
            yield Part(self._ordered[place], of)

    def is_sent(self, part: Part) -> bool:
        """Say whether the values of a part are to be sent at all."""
        return self.sent is None or part.shard in self.sent

    def points(self, series: Series, also: Collection[str]) -> Iterator[Point | Unsendable]:
        """Yield the points of a series, left out what is not wanted; see why_not."""
        many = len(series.parts) // _NUMBERS
        return points_of(
            [
                Run(
                    part.column.name,
                    (v for v in self._values(part, many) if not why_not(v, also)),
                    part.column.is_sure,
                    self.is_sent(part),
                )
                for part in self.parts(series)
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
            why
            for part in self.parts(series)
            if self.is_sent(part)
            for value in self._values(part)
            if (why := why_not(value, also))
        )

    def _values(self, part: Part, of_many: int = 1) -> Iterator[Value]:
        return values_of(self._paths[part.shard], part.column, of_many=of_many)


_NUMBERS = 5  # of each part in Series.parts


def why_not(value: Value, also: Collection[str]) -> str:
    """Return the word of LEFT for a lost value that is not to be sent: 0.8 has another one, or may
    have, or it is gone for a reason that is not among `also`. Empty for all others."""
    if value.is_different:
        return DIFFERENT
    if value.is_unanswered:
        return UNANSWERED
    return value.cause if value.cause in NOT_WANTED and value.cause not in also else ""


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
        accepted: shards whose losses may go; they are not among those that are sent.
    """
    plan = Plan()
    plan.left[ACCEPTED] = sum(map(spools.count, accepted))
    for series in spools.series():
        sent = {part.shard for part in spools.parts(series) if spools.is_sent(part)}
        if not sent:
            continue
        plan.left.update(spools.not_wanted(series, also))
        is_new = series.database not in known
        key = series.database, series.name
        sendable = 0
        digest = blake2b(digest_size=16)
        for found in spools.points(series, also):
            if isinstance(found, Unsendable):
                plan.left[found.why] += 1
                if len(plan.examples) < MOST_LISTED:
                    plan.examples.append(found)
            elif is_new and not create:
                plan.left[NO_DATABASE] += len(found.values) + found.copies
            else:
                sendable += len(found.values)
                plan.copies[key] += found.copies
                plan.points += 1
                digest.update(repr(found).encode())
        if sendable:
            plan.series.append(series)
            plan.shards |= sent
            plan.values[key] += sendable
            plan.digests[key] = digest.digest()
            if is_new:
                plan.databases.add(series.database)
    plan.left = +plan.left
    return plan


def require_nothing_new(shown: Plan, plan: Plan) -> None:
    """Insist that a plan has no series of which other points were shown, or none.

    Raises:
        ShardtoolError: it has.
    """
    if not (plan.digests.items() <= shown.digests.items() and plan.databases <= shown.databases):
        raise ShardtoolError(
            "other values are lost now than were shown when the question was asked; nothing was "
            "sent: run rescue again"
        )
