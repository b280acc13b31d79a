"""Whether the newest snapshot is of what is there now: where that can't be seen, it is told."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from shardtool.datadir.layout import Layout, find_layout
from shardtool.errors import ShardtoolError
from shardtool.snapshots.freshness import newest_snapshot
from tests.needs import needs_root
from tests.real.snapshot_world import Uncounted, make_node
from tests.unit.staging_world import rights_of, take

NOBODY = 65534
AS_WHOM = "found: Permission denied; run this as the server's user or as root"

pytestmark = needs_root


@pytest.fixture
def node(public_path: Path) -> Layout:
    """A node of nobody's with a snapshot in `store`."""
    node = make_node(public_path / "node")
    (public_path / "store").mkdir()
    take(node, public_path / "store")
    for path in (public_path, *public_path.rglob("*")):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    return find_layout(str(node), None, {})


@pytest.mark.parametrize("name", ["raft", "wal"])
def test_what_can_not_be_compared_is_told_by_its_path(
    name: str, node: Layout, public_path: Path
) -> None:
    line = f"{public_path}/node/{name}: expected to read it, {AS_WHOM}"
    (public_path / "node" / name).chmod(0)
    with rights_of(NOBODY, NOBODY), pytest.raises(ShardtoolError, match=f"^{re.escape(line)}$"):
        newest_snapshot(node, public_path / "store", Uncounted)


def test_a_store_that_can_not_be_looked_for_is_not_taken_for_none(
    node: Layout, public_path: Path
) -> None:
    (public_path / "shut").mkdir(mode=0)
    store = public_path / "shut/store"
    line = f"{store}: expected to look for snapshots, {AS_WHOM}"
    with rights_of(NOBODY, NOBODY), pytest.raises(ShardtoolError, match=f"^{re.escape(line)}$"):
        newest_snapshot(node, store, Uncounted)
