"""What raft knows of a node, as values: databases, column ids, spaces, shards, servers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


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
        dropped: what is gone. Something created again later stays in it: its old values went
            with the drop.
    """

    databases: frozenset[str]
    ids: Mapping[str, Mapping[str, Mapping[str, int]]]
    spaces: Mapping[str, tuple[Space, ...]]
    shards: tuple[ShardRange, ...]
    servers: tuple[Server, ...]
    own_server: int | None
    dropped: Dropped
    old_shards: Mapping[int, tuple[int, ...]] = field(default_factory=dict, compare=False)
