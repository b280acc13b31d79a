"""Which servers a cluster has, and what of it is each server's own: words, shared. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from shardtool.influxdb.model import Catalogue, ClusterServer
from shardtool.words import names

EACH_ITS_OWN = (
    "each has a shard_db of its own: migrate and verify on every one of them, one after the other; "
    "--api on one speaks for that server alone"
)
_MOST = 6  # shards of a server


def cluster_lines(catalogue: Catalogue, asked: Iterable[ClusterServer] = ()) -> tuple[str, ...]:
    """Return what there is to know of a cluster before one of its nodes is changed, a line each.

    Args:
        catalogue: what raft knows, over HTTP or from disk.
        asked: the servers as the API tells of them, with their addresses; may be empty.

    Returns:
        Nothing for a server that is alone.
    """
    if len(catalogue.servers) < 2:
        return ()
    return (f"{members(catalogue, asked)}; {EACH_ITS_OWN}", *owned(catalogue))


def spaces_line(catalogue: Catalogue, asked: Iterable[ClusterServer] = ()) -> str:
    """Return what there is to know of a cluster where its shard spaces are shown or made; may be
    empty. See cluster_lines."""
    if len(catalogue.servers) < 2:
        return ""
    return (
        f"{members(catalogue, asked)}; shard spaces are the whole cluster's, but each node's own "
        "shard_db has to be migrated and verified on that node"
    )


def members(catalogue: Catalogue, asked: Iterable[ClusterServer] = ()) -> str:
    """Return '2 servers: 1 (ab01), 2 (ab02 at db2:8099, the leader); this is server 1 (ab01)'."""
    states = {one.id: one for one in asked}
    shown = []
    for server in catalogue.servers:
        live = states.get(server.id)
        more = f" at {live.address}" if live is not None else ""
        more += ", the leader" if live is not None and live.is_leader else ""
        shown.append(f"{server.id} ({server.raft_name}{more})")
    own = next((one for one in catalogue.servers if one.id == catalogue.own_server), None)
    here = f"; this is server {own.id} ({own.raft_name})" if own else ""
    return f"{len(shown)} servers: {', '.join(shown)}{here}"


def owned(catalogue: Catalogue) -> tuple[str, ...]:
    """Return which shards are whose, old ones and new ones, a line each where there are any."""
    old = dict(sorted(catalogue.old_shards.items()))
    new = {shard.id: shard.servers for shard in catalogue.shards}
    kinds = (("old shards", old), ("new shards", new))
    return tuple(f"{kind}: {_whose(catalogue, shards)}" for kind, shards in kinds if shards)


def _whose(catalogue: Catalogue, shards: Mapping[int, tuple[int, ...]]) -> str:
    parts = []
    for server in catalogue.servers:
        own = [f"{number:05d}" for number, ids in shards.items() if server.id in ids]
        parts.append(f"server {server.id} has {names(own, _MOST) if own else 'none'}")
    return "; ".join(parts)


def server_documents(
    catalogue: Catalogue, asked: Iterable[ClusterServer] = ()
) -> list[dict[str, object]]:
    """Return the servers of a cluster as JSON documents have them."""
    live = {one.id: one for one in asked}
    return [
        {
            "id": server.id,
            "raft_name": server.raft_name,
            "address": live[server.id].address if server.id in live else None,
            "is_leader": live[server.id].is_leader if server.id in live else None,
        }
        for server in catalogue.servers
    ]
