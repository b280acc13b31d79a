"""Where the catalogue comes from: the raft directory, or a running server."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from shardtool.datadir.layout import Layout
from shardtool.disk.durable import READ_DIRECTORY, opened_quietly
from shardtool.errors import ShardtoolError
from shardtool.influxdb.catalogue import (
    Catalogue,
    CatalogueError,
    read_catalogue,
)
from shardtool.influxdb.raft import own_name
from shardtool.proof.basis import ById, columns_by_id

if TYPE_CHECKING:
    from shardtool.influxdb.api import Api

_Stamp: TypeAlias = tuple[tuple[int, int, int, int] | None, ...]


def catalogue_of(layout: Layout, api: Api | None) -> Catalogue:
    """Return what the new storage knows.

    Args:
        layout: the node.
        api: a running server to ask; None to read the raft directory.

    Raises:
        CatalogueError: it can't be told.
        ShardtoolError: the server can't be asked, or is of another cluster.
    """
    if api is None:
        return read_catalogue(layout.raft)
    catalogue = api.catalogue()
    try:
        # A server tells neither which one it is nor what was dropped; the directory does.
        local = read_catalogue(layout.raft)
    except CatalogueError:
        local = catalogue
    name = own_name(layout.raft)
    if name is None:
        raise ShardtoolError(
            f"{layout.raft / 'name'}: expected the name of this node's server, found no such file: "
            f"which of the servers that {api.url} tells of this one is can't be told; restore raft"
        )
    own = [server.id for server in catalogue.servers if server.raft_name == name]
    if not own:
        raise ShardtoolError(
            f"{api.url}: expected a server of this node's cluster, found none that is called "
            f"{name!r} as {layout.raft / 'name'} is; check --api and --data"
        )
    return replace(
        catalogue,
        dropped=local.dropped,
        heard_of=catalogue.heard_of | local.heard_of,
        forgets=local.forgets,
        own_server=own[0],
    )


class RaftCatalogue:
    """What the raft directory says, read again only where it has changed."""

    def __init__(self, raft: Path) -> None:
        """Name the directory; nothing is read yet."""
        self._raft = raft
        self._stamp: _Stamp = ()
        self._known: tuple[Catalogue, ById] | None = None

    def now(self) -> tuple[Catalogue, ById] | None:
        """Return the catalogue and its columns by id; None where it can't be told."""
        stamp = tuple(_stamp(path) for path in self._files())
        if stamp != self._stamp:
            try:
                catalogue = read_catalogue(self._raft)
            except CatalogueError:
                self._known = None
            else:
                self._known = catalogue, columns_by_id(catalogue)
            self._stamp = stamp
        return self._known

    def _files(self) -> list[Path]:
        """Return all that a catalogue is read from: a snapshot may be written under its name."""
        snapshots = self._raft / "snapshot"
        files = [self._raft / "log", snapshots, self._raft / "name"]
        with contextlib.suppress(OSError), opened_quietly(snapshots, READ_DIRECTORY) as directory:
            files += [snapshots / name for name in sorted(os.listdir(directory))]
        return files


def _stamp(path: Path) -> tuple[int, int, int, int] | None:
    try:
        entry = os.lstat(path)
    except OSError:
        return None
    return entry.st_ino, entry.st_size, entry.st_mtime_ns, entry.st_ctime_ns
