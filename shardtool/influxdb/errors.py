"""The error of this package that a command shows; in a module of its own, for all to import."""

from __future__ import annotations

from shardtool.errors import ShardtoolError


class CatalogueError(ShardtoolError):
    """What raft knows can't be told: path (and offset), expected, found and what to do."""
