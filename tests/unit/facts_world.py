"""A node that is ready for its next step, as facts; tests change what they are about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from shardtool.datadir.inventory import OldShard
from shardtool.datadir.marker import Marker
from shardtool.datadir.server import Search
from shardtool.datadir.verdict import judge
from shardtool.disk.tree import Tree
from shardtool.influxdb.model import Catalogue, Dropped, Space
from shardtool.influxdb.model import Server as Member
from shardtool.snapshots.freshness import Newest
from shardtool.upgrade.checks import findings
from shardtool.upgrade.facts import Asked, Facts
from shardtool.upgrade.findings import Finding
from shardtool.upgrade.foresight import Foresight
from shardtool.upgrade.room import Room
from shardtool.upgrade.wal_only import WalOnly

STORE = Path("/data/snapshots")
GOOD = Newest(STORE, "20261124T175153Z", raft_bytes=100)
ROOM = Room(Path("/data/db"), 100 << 30, 1 << 30, 0, "leveldb", 300, 1024, "a server")
SHORT = Space("short_term", "test", "/.*/", "inf", "7d", 1, 1)
LONG = Space("long_term", "test", "/^[A-Z].*/", "inf", "30d", 1, 1)
RAFT = Catalogue(
    frozenset({"test"}), {}, {"test": (LONG, SHORT)}, (), (Member(1, "ab01"),), 1, Dropped()
)
WAITING = judge(OldShard("00007", has_database=True, tree=Tree(apparent_bytes=1000)))
MARKED = judge(OldShard("00008", marker=Marker(True, 1), has_database=True))
READ = Foresight(1, 1000, 500, 3, (), ())
FACTS = Facts(
    old=(WAITING, MARKED),
    is_08=True,
    new_unreadable=(),
    raft=RAFT,
    raft_problem="",
    own_name="ab01",
    raft_snapshot=False,
    raft_of_07_since=0,
    search=Search(),
    snapshot=GOOD,
    snapshot_problem="",
    half_restored=False,
    is_read=True,
    foresight=READ,
    wal=WalOnly(requests=1, values=2),
    room=ROOM,
    asked=Asked("http://db1:8086", "0.8.3", RAFT.spaces, ()),
    pause_us=100_000,
)
OF_07 = replace(FACTS, old=(WAITING,), is_08=False, asked=None, raft=replace(RAFT, spaces={}))


def by_id(facts: Facts) -> Mapping[str, Finding]:
    """Return the findings by their ids; none may be there twice."""
    found = findings(facts)
    assert len({one.id for one in found}) == len(found)
    return {one.id: one for one in found}


def blockers(facts: Facts) -> list[str]:
    """Return the ids of what blocks the next step."""
    return [one.id for one in findings(facts) if one.blocks]
