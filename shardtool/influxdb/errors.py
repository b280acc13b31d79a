"""The errors that several modules of this package raise; in a module of their own."""

from __future__ import annotations

from shardtool.errors import ShardtoolError


class CatalogueError(ShardtoolError):
    """What raft knows can't be told: path (and offset), expected, found and what to do."""


class LogError(ValueError):
    """A place in a log that no server wrote, nor a power cut left behind.

    Args:
        offset: where.
        what: expected and found, in words.
    """

    def __init__(self, offset: int, what: str) -> None:
        """Keep the offset apart, for the caller adds the path."""
        super().__init__(f"at offset {offset}: {what}")
        self.offset = offset
