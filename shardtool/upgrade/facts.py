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
        is_here: a process that has this node open is the one that answers there; None where
            that can't be seen.
    """

    url: str
    version: str
    spaces: Mapping[str, tuple[Space, ...]]
    servers: tuple[ClusterServer, ...]
    is_here: bool | None = None


@dataclass(frozen=True)
class Facts:
    """A node on its way from 0.7 to 0.8.

    Args:
        old: the verdict over each entry of shard_db.
        is_08: there is a shard_db_v2, so an 0.8 has run here.
        new_unreadable: new shards that can't be looked at: name and why.
        raft: what raft knows; None where it can't be read.
        raft_problem: why it can't be read.
        own_name: of this server in raft; None where raft has none.
        raft_snapshot: raft holds a snapshot, of 0.7 before the upgrade.
        raft_of_07_since: entries that 0.7 wrote to raft after the newest snapshot.
        search: who is at work on the node.
        snapshot: the newest of this node; None where that could not be looked at.
        snapshot_problem: why not.
        half_restored: a restore was interrupted in the middle of its swap.
        is_read: shards and WAL were to be read.
        foresight: what the migrator will do; None where no shard could be read.
        wal: what only the WAL holds; None where that was not compared.
        room: for what is to be migrated.
        asked: what a running server said; None where none was asked.
        pause_us: how long the migrator is to pause, us.
    """

    old: tuple[Judged, ...]
    is_08: bool
    new_unreadable: tuple[tuple[str, str], ...]
    raft: Catalogue | None
    raft_problem: str
    own_name: str | None
    raft_snapshot: bool
    raft_of_07_since: int
    search: Search
    snapshot: Newest | None
    snapshot_problem: str
    half_restored: bool
    is_read: bool
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
    """Say whether a migration will read an entry of shard_db: any directory without a marker that
    holds a LevelDB, whatever its name is."""
    shard = judged.shard
    return shard.kind == "directory" and shard.has_database and not shard.marker.present
