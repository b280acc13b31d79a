"""Fixtures of the tests of a prune by proof."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixtures import Node


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """A node with two shards a year apart, both proven: no new shard has values of both."""
    made = Node(tmp_path / "data", version="0.8")
    for number in (1, 50):
        made.old_shard(number, points=10, databases={"test": ("cpu",)})
        made.migrate(number)
    return made
