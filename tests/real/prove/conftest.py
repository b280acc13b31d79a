"""Fixtures of the tests of the proof."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixtures import Node
from shardtool.proof import compare
from tests.real.prove.world import MIB


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "data", version="0.8", phantoms=False, lmdb_map_size=MIB)


@pytest.fixture(params=[8, compare.BLOCK], ids=["small-blocks", "blocks"])
def any_block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "BLOCK", request.param)
