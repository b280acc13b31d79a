"""All that a check goes by, gathered. Facts only: upgrade.checks makes findings of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from shardtool.datadir.server import Search
from shardtool.datadir.verdict import Judged
from shardtool.influxdb.model import Catalogue, ClusterServer, Space
from shardtool.snapshots.freshness import Newest
from shardtool.upgrade.foresight import Foresight
from shardtool.upgrade.room import Room
from shardtool.upgrade.wal_only import WalOnly


@dataclass(frozen=True)
class Asked:
    """What a running server said.

    Args:
        url: of its API.
        version: such as '0.8.3'.
        spaces: per database, as asked: the newest first. Empty for a server that has none yet.
        servers: of the cluster.
    """

    url: str
    version: str
    spaces: Mapping[str, tuple[Space, ...]]
    servers: tuple[ClusterServer, ...]


@dataclass(frozen=True)
class Facts:
    """A node on its way from 0.7 to 0.8.

    Args:
        old: the verdict over each entry of shard_db.
        is_08: there is a shard_db_v2, so an 0.8 has run here.
        raft: what raft knows; None where it can't be read.
        raft_problem: why it can't be read.
        raft_snapshot_of_07: raft holds a snapshot that 0.7 took.
        search: who is at work on the node.
        snapshot: the newest of this node; None where that could not be looked at.
        snapshot_problem: why not.
        half_restored: a restore was interrupted in the middle of its swap.
        foresight: what the migrator will do; None where the shards were not read.
        wal: what only the WAL holds; None where that was not compared.
        room: for what is to be migrated.
        asked: what a running server said; None where none was asked.
        pause_us: how long the migrator is to pause, us.
    """

    old: tuple[Judged, ...]
    is_08: bool
    raft: Catalogue | None
    raft_problem: str
    raft_snapshot_of_07: bool
    search: Search
    snapshot: Newest | None
    snapshot_problem: str
    half_restored: bool
    foresight: Foresight | None
    wal: WalOnly | None
    room: Room
    asked: Asked | None
    pause_us: int

    @property
    def todo(self) -> tuple[Judged, ...]:
        """Old shards that a migration still has to visit."""
        return tuple(j for j in self.old if is_todo(j))

    @property
    def spaces(self) -> Mapping[str, tuple[Space, ...]]:
        """The shard spaces, by the server itself where it was asked."""
        if self.asked is not None:
            return self.asked.spaces
        return self.raft.spaces if self.raft is not None else {}


def is_todo(judged: Judged) -> bool:
    """Say whether a migration has to visit an entry of shard_db: a shard without a marker."""
    shard = judged.shard
    is_whole = shard.kind == "directory" and shard.has_database
    return judged.is_shard and is_whole and not shard.marker.present
