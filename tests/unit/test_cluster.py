"""What is said of a cluster: its servers, whose shards are whose, and what is each node's own."""

from __future__ import annotations

from dataclasses import replace

from shardtool.influxdb.model import Catalogue, ClusterServer, Dropped, Server, ShardRange
from shardtool.upgrade.cluster import cluster_lines, server_documents, spaces_line

TWO = Catalogue(
    databases=frozenset(),
    ids={},
    spaces={},
    shards=(ShardRange(7, "test", "a", 0, 1, (2,)),),
    servers=(Server(1, "ab01"), Server(2, "ab02")),
    own_server=2,
    dropped=Dropped(),
    old_shards={3: (1,), 4: (1, 2)},
)
LIVE = (ClusterServer(1, "ab01", True, "Leader", "db1:8099"),)


def test_servers_and_shards_are_told_with_what_to_do_on_each() -> None:
    first, old, new = cluster_lines(TWO, LIVE)
    assert first.startswith(
        "2 servers: 1 (ab01 at db1:8099, the leader), 2 (ab02); this is server 2 (ab02); each has"
    )
    assert "migrate and verify on every one of them" in first
    assert old == "old shards: server 1 has 00003, 00004; server 2 has 00004"
    assert new == "new shards: server 1 has none; server 2 has 00007"


def test_of_spaces_one_line_is_told() -> None:
    line = spaces_line(replace(TWO, own_server=None), LIVE)
    assert "2 (ab02); shard spaces are the whole cluster's" in line
    assert "each node's own shard_db has to be migrated and verified on that node" in line


def test_a_server_that_is_alone_is_no_cluster() -> None:
    alone = replace(TWO, servers=TWO.servers[:1])
    assert (cluster_lines(alone), spaces_line(alone)) == ((), "")
    assert [one["raft_name"] for one in server_documents(alone)] == ["ab01"]
