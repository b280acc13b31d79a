"""Fixtures of the tests of check."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fixtures import Node
from fixtures.encode import Row, microseconds
from tests.conftest import Run


@pytest.fixture
def upgraded(tmp_path: Path, shardtool: Run) -> Node:
    """A node that 0.8 has started on, with a snapshot, without spaces."""
    node = Node(tmp_path / "data", databases=["test"], spaces=())
    now = microseconds(datetime.now(UTC))
    day = timedelta(days=1) // timedelta(microseconds=1)
    ages = (1, 10, 100)
    rows = [Row("test", "cpu", "v", now - days * day, 10_001, days) for days in ages]
    node.old_shard(1, rows=rows)
    shardtool("--data", node.path, "backup")
    node.upgrade()
    return node
