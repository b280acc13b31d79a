"""Fixtures of the tests of migrate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fixtures import Node
from tests.conftest import Run
from tests.e2e.migrate.world import PASSWORD, READY, SHARDS, Migrate


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """A node of 0.7 with four shards."""
    made = Node(tmp_path / "data")
    for name in SHARDS:
        made.old_shard(int(name), points=20)
    return made


@pytest.fixture
def migrate(shardtool: Run, node: Node) -> Migrate:
    """Run shardtool migrate on the node."""

    def run(url: str, *args: str, ready: bool = True, **settings: Any) -> Any:
        settings.setdefault("env", PASSWORD)
        more = READY if ready else ()
        return shardtool("--data", node.path, "migrate", "--api", url, *more, *args, **settings)

    return run
