"""What raft knows of a node, as values: databases, column ids, spaces, shards, servers."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate

from shardtool.influxdb.keys import time_bytes


@dataclass(frozen=True)
class Space:
    """A shard space. Durations and the regex are as they were written; '' stands for a default."""

    name: str
    database: str
    regex: str
    retention: str
    shard_duration: str
    replication: int
    split: int


@dataclass(frozen=True, slots=True)
class ShardRange:
    """A new shard: its space and the time range [start, end) in us since the epoch."""

    id: int
    database: str
    space: str
    start_us: int
    end_us: int
    servers: tuple[int, ...]


@dataclass(frozen=True)
class Timeline:
    """A database's new shards in time, so that those of a moment are found among thousands.

    Args:
        shards: by their starts.
        times: when any of them begins or ends, us since the epoch.
        bounds: the same as keys hold them.
        ends: for each of `shards`, when the last of it and those before it ends.
    """

    shards: tuple[ShardRange, ...]
    times: tuple[int, ...]
    bounds: tuple[bytes, ...]
    ends: tuple[int, ...]

    @classmethod
    def of(cls, shards: Iterable[ShardRange]) -> Timeline:
        """Given shards in any order, return their timeline."""
        ordered = tuple(sorted(shards, key=_start))
        times = tuple(sorted({time for s in ordered for time in (s.start_us, s.end_us)}))
        ends = tuple(accumulate((s.end_us for s in ordered), max))
        return cls(ordered, times, tuple(map(time_bytes, times)), ends)

    def cover(self, at: int) -> list[ShardRange]:
        """Return, by id, the shards of the times from the `at`-th bound on, until the next one.

        Bounds count from 1; 0 is what is before the first of them.
        """
        if at == 0:
            return []
        time = self.times[at - 1]
        place = bisect_right(self.shards, time, key=_start)
        found = []
        while place and self.ends[place - 1] > time:
            place -= 1
            if self.shards[place].end_us > time:
                found.append(self.shards[place])
        return sorted(found, key=lambda shard: shard.id)


def _start(shard: ShardRange) -> int:
    return shard.start_us


@dataclass(frozen=True)
class Server:
    """A server of the cluster. `raft_name` is what its raft/name says."""

    id: int
    raft_name: str


@dataclass(frozen=True)
class ClusterServer:
    """A server of the cluster as the API tells of it.

    Args:
        id: its number in the cluster.
        raft_name: what its raft/name says; '' from a 0.7.
        is_leader: raft's leader.
        state: such as 'Potential'; '' from a 0.7.
        address: host and port that the others reach it under.
    """

    id: int
    raft_name: str
    is_leader: bool
    state: str
    address: str


@dataclass(frozen=True)
class Dropped:
    """What was dropped while 0.8 had it, as far as the raft log on disk tells.

    Args:
        databases: names.
        series: (database, series).
        spaces: (database, space).
    """

    databases: frozenset[str] = frozenset()
    series: frozenset[tuple[str, str]] = frozenset()
    spaces: frozenset[tuple[str, str]] = frozenset()


@dataclass(frozen=True)
class Catalogue:
    """What raft knows of a node.

    Args:
        databases: those that exist.
        ids: database, series and column to the column's id in every new shard.
        spaces: per database, in the order in which a series asks them: the newest first.
        shards: 0.8's, by id; neither phantoms nor 0.7's.
        servers: of the cluster, by id.
        own_server: the id of the server whose raft directory this is; None where it is not
            known, as over HTTP.
        old_shards: 0.7's, as far as raft on disk tells: number to the ids of their servers. One
            that 0.7 has dropped is not among them. 0.8 itself does not know them: no two
            catalogues differ by that.
        old_ranges: number of such a shard to its time range [start, end), us since the epoch.
        dropped: what is gone. Something created again later stays in it: its old values went
            with the drop.
        heard_of: all databases that raft on disk tells of, those that are gone too.
        forgets: series were dropped that raft on disk no longer names: column ids are missing,
            and its log does not begin at the beginning.
    """

    databases: frozenset[str]
    ids: Mapping[str, Mapping[str, Mapping[str, int]]]
    spaces: Mapping[str, tuple[Space, ...]]
    shards: tuple[ShardRange, ...]
    servers: tuple[Server, ...]
    own_server: int | None
    dropped: Dropped
    old_shards: Mapping[int, tuple[int, ...]] = field(default_factory=dict, compare=False)
    old_ranges: Mapping[int, tuple[int, int]] = field(default_factory=dict, compare=False)
    heard_of: frozenset[str] = field(default=frozenset(), compare=False)
    forgets: bool = field(default=False, compare=False)

    @cached_property
    def timelines(self) -> Mapping[str, Timeline]:
        """The new shards of each database that has any, in time."""
        shards = defaultdict(list)
        for shard in self.shards:
            shards[shard.database].append(shard)
        return {database: Timeline.of(found) for database, found in shards.items()}

    @cached_property
    def shards_by_name(self) -> Mapping[str, ShardRange]:
        """The new shards by their names in shard_db_v2."""
        return {f"{shard.id:05d}": shard for shard in self.shards}
