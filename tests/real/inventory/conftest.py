"""Fixtures of the tests of the inventory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from fixtures import MARKED_AT, Node
from shardtool.datadir.verdict import Judged, judge_all
from tests.real.inventory.world import inventory


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    """Make a sound old shard that is marked."""
    return Node(tmp_path / "data").old_shard(7, points=2, marked_at=MARKED_AT)


@pytest.fixture
def sharing(tmp_path: Path) -> Iterator[tuple[Judged, ...]]:
    """Judge two marked shards that share a table by hard links."""
    node = Node(tmp_path / "data")
    paths = [node.old_shard(number, points=2) for number in (7, 8)]
    (paths[0] / "000099.ldb").write_bytes(b"x" * 100_000)
    os.utime(paths[0] / "000099.ldb", (0, 0))
    os.link(paths[0] / "000099.ldb", paths[1] / "000099.ldb")
    for number in (7, 8):
        node.mark(number, at=MARKED_AT + timedelta(days=1))
    yield judge_all(inventory(node.path))
