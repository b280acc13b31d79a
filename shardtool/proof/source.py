"""Where the catalogue comes from: the raft directory, or a running server."""

from __future__ import annotations

from dataclasses import replace

from shardtool.datadir.layout import Layout
from shardtool.influxdb.api import Api
from shardtool.influxdb.catalogue import (
    Catalogue,
    CatalogueError,
    from_configuration,
    read_catalogue,
)
from shardtool.influxdb.raft import own_name


def catalogue_of(layout: Layout, api: Api | None) -> Catalogue:
    """Return what the new storage knows.

    Args:
        layout: the node.
        api: a running server to ask; None to read the raft directory.

    Raises:
        CatalogueError: it can't be told.
        ShardtoolError: the server can't be asked.
    """
    if api is None:
        return read_catalogue(layout.raft)
    catalogue = from_configuration(api.configuration())
    try:
        # A server tells neither which one it is nor what was dropped; the directory does.
        dropped = read_catalogue(layout.raft).dropped
    except CatalogueError:
        dropped = catalogue.dropped
    try:
        name = own_name(layout.raft)
    except CatalogueError:
        name = None
    own = next((server.id for server in catalogue.servers if server.raft_name == name), None)
    return replace(catalogue, dropped=dropped, own_server=own)
