"""Fixtures of the tests of receipts."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardtool.datadir.layout import Layout, find_layout
from tests.real.receipts.world import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    (tmp_path / "db").mkdir()
    return find_layout(str(tmp_path), None, {})
