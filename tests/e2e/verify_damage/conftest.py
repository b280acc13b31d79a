"""Fixtures of the tests of verify's trouble."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixtures import Node


@pytest.fixture
def public(public_path: Path) -> Node:
    """A node with one proven shard, which other users can reach."""
    node = Node(public_path / "data", version="0.8")
    node.old_shard(1, points=10)
    node.migrate(1)
    for directory in (node.raft, node.raft / "snapshot"):
        directory.chmod(0o755)
    for file in (node.raft / "log", node.raft / "name"):
        file.chmod(0o644)
    for directory in (node.path, node.db, node.shard_db, node.shard_db_v2):
        directory.chmod(0o755)
    for shard in (*node.shard_db.iterdir(), *node.shard_db_v2.iterdir()):
        shard.chmod(0o755)
    return node
