"""Fixtures that several tests of the installed command share."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixtures import Node


@pytest.fixture
def proven(tmp_path: Path) -> Node:
    """A node with two shards whose every value is in the new storage."""
    node = Node(tmp_path / "data", version="0.8")
    for number in (1, 2):
        node.old_shard(number, points=10)
        node.migrate(number)
    return node
