"""Fixtures of the tests of the engines."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures import Node
from tests.real.engines.world import KINDS, MIB


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("links")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """Make a new shard of each kind; tests that damage one take a copy."""
    node = Node(tmp_path_factory.mktemp("node") / "data", version="0.8", lmdb_map_size=MIB)
    return {
        (engine, storage): node.new_shard(number, engine, points=900, storage=storage)
        for number, (engine, storage) in enumerate(KINDS, 1)
    }


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an old shard with one table of many blocks."""
    node = Node(tmp_path_factory.mktemp("node") / "data")
    return node.old_shard(1, points=6000, storage="tables")


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an old shard that is a log of several blocks."""
    return Node(tmp_path_factory.mktemp("node") / "data").old_shard(1, points=600)


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[Path], Path]:
    return lambda shard: Path(shutil.copytree(shard, tmp_path / shard.name))
