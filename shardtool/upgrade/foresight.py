"""What the migrator will do with old shards that it has not been to: what it takes, what it skips.

The shards are read as a proof reads them, against a new side that holds nothing yet: so the same
code that will say why a value is missing says beforehand that it is going to be.
"""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from shardtool.datadir.inventory import OldShard
from shardtool.influxdb.model import Catalogue, Dropped
from shardtool.proof.prove import Loss, Question
from shardtool.proof.run import Job, Outcome, Setting, Told, prove_all

PAUSE_POINTS = 10_000
"""Points of one database in one shard after which the migrator pauses (FORMATS.md)."""

# What a proof calls a value whose column nothing of has come: here, one that is to come.
_TO_COME = "not-migrated"


@dataclass(frozen=True)
class Skipped:
    """Values of one series that will not be in the new storage.

    Args:
        database: its name.
        series: its name.
        cause: 'future', 'name', 'unknown-database' or 'expired' (proof.causes).
        values: how many.
        shards: names of the old shards that hold them.
    """

    database: str
    series: str
    cause: str
    values: int
    shards: tuple[str, ...]


@dataclass(frozen=True)
class Foresight:
    """What was read in shards that are to be migrated.

    Args:
        shards: how many were read.
        values: that they hold.
        points: that the migrator will write; fewer than the values, which are columns of points.
        pauses: how often it will pause for that.
        skipped: what it will not bring over, by series and cause.
        unread: shards that could not be read: name, reason word, detail.
        to_come: values that it brings over, by (database, series).
    """

    shards: int
    values: int
    points: int
    pauses: int
    skipped: tuple[Skipped, ...]
    unread: tuple[tuple[str, str, str], ...]
    to_come: Mapping[tuple[str, str], int] = field(default_factory=dict)


def read_ahead(
    shards: Sequence[OldShard], directory: Path, catalogue: Catalogue, told: Told, *, now_us: int
) -> Generator[Outcome, None, None]:
    """Read `shards` as the migrator will find them at `now_us`, and yield each outcome.

    Args:
        shards: to be migrated; each is a directory that holds a database.
        directory: shard_db.
        catalogue: what 0.8 knows, or would on this raft.
        told: told how it goes.
        now_us: the present moment, us since the epoch: the migration comes no sooner.

    Raises:
        ShardtoolError: there is no room for links.
    """
    # A migration gives a series that was dropped new ids, so what is gone does not matter.
    empty = replace(catalogue, shards=(), dropped=Dropped())
    jobs = [
        Job(Question(directory / shard.name, now_us, now_us, ""), shard.tree.apparent_bytes)
        for shard in shards
    ]
    with contextlib.closing(prove_all(jobs, Setting(empty, {}), told)) as outcomes:
        yield from outcomes


def foresight(outcomes: Iterable[Outcome]) -> Foresight:
    """Given what was read ahead, return what the migration will do."""
    values = points = pauses = read = 0
    skipped: dict[tuple[str, str, str], dict[str, int]] = defaultdict(lambda: defaultdict(int))
    unread = []
    to_come: Counter[tuple[str, str]] = Counter()
    for outcome in outcomes:
        finding = outcome.finding
        if finding is None:
            unread.append((outcome.shard, outcome.word, outcome.detail))
            continue
        read += 1
        values += finding.values
        for count in _points(finding.losses).values():
            points += count
            pauses += count // PAUSE_POINTS
        for loss in finding.losses:
            if loss.cause == _TO_COME:
                to_come[loss.name.database, loss.name.series] += loss.missing
            else:
                key = loss.name.database, loss.name.series, loss.cause
                skipped[key][outcome.shard] += loss.missing
    told = (
        Skipped(*key, sum(counts.values()), tuple(sorted(counts)))
        for key, counts in sorted(skipped.items())
    )
    return Foresight(read, values, points, pauses, tuple(told), tuple(sorted(unread)), to_come)


def _points(losses: Iterable[Loss]) -> Mapping[str, int]:
    """Given what one shard will give, return the points by database.

    A series has at least as many points as its fullest column has values; nearly always as many.
    """
    fullest: dict[tuple[str, str], int] = {}
    for loss in losses:
        if loss.cause == _TO_COME:
            key = loss.name.database, loss.name.series
            fullest[key] = max(fullest.get(key, 0), loss.missing)
    points: dict[str, int] = defaultdict(int)
    for (database, _), count in fullest.items():
        points[database] += count
    return points
