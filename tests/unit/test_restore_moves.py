"""What a restore can move, and what of killed ones goes before it begins: its node's alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shardtool.datadir.layout import Layout
from shardtool.errors import ShardtoolError
from shardtool.snapshots.moves import moves_for, refuse_immovable
from shardtool.snapshots.pending import Pending
from shardtool.snapshots.restore import prepare_node
from tests.conftest import Mount
from tests.needs import needs_root

STAMP = "20261127T080000Z"
PENDING = "20261126T080000Z-2"
OTHERS = (
    "other.raft.restoring-20260101T000000Z",
    "raft.before-restore-20260101T000000Z",
    "raft.restoring-20260101T000000",
    "raft.restoring-20260101T000000Z.mine",
    "raft2.restoring-20260101T000000Z",
    "raftrestoring-20260101T000000Z",
)
OURS = (
    "raft.restoring-20260101T000000Z",
    "raft.restoring-20260101T000000Z-2",
    "raft.restoring-20260101T000000Z-2.below.7",
    "raft.restoring-20261126T080000Z",
    "wal.restoring-20260101T000000Z.below.7.below.8",
)
KEPT = (f"raft.restoring-{PENDING}", f"wal.restoring-{PENDING}")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    data = tmp_path / "data"
    for name in ("db", "raft", "wal", *OTHERS, *OURS, *KEPT):
        (data / name / "x").mkdir(parents=True)
    return Layout(data / "db", data / "raft", data / "wal", None, "the node")


def prepared(layout: Layout, unfinished: Pending | None) -> list[str]:
    """Prepare the node for a restore; return what is beside db, raft and wal then."""
    prepare_node(layout, moves_for(layout, STAMP), unfinished)
    return sorted(set(os.listdir(layout.raft.parent)) - {"db", "raft", "wal"})


def test_what_killed_restores_staged_goes_and_nobody_elses(layout: Layout) -> None:
    assert prepared(layout, None) == sorted(OTHERS)
    assert layout.own.is_dir()


def test_what_the_pending_restore_staged_stays(layout: Layout) -> None:
    pending = Pending("20261125T080000Z", "/store", PENDING, ())
    assert prepared(layout, pending) == sorted([*OTHERS, *KEPT])


@pytest.mark.parametrize(("length", "fits"), [(207, True), (208, False)])
def test_a_name_is_refused_where_what_comes_behind_it_does_not_fit(
    length: int, fits: bool, tmp_path: Path
) -> None:
    assert os.pathconf(tmp_path, "PC_NAME_MAX") == 255
    layout = Layout(tmp_path / "db", tmp_path / ("r" * length), tmp_path / "wal", None, "the node")
    moves = moves_for(layout, STAMP)
    if fits:
        refuse_immovable(moves)
        return
    with pytest.raises(ShardtoolError, match="found it too long"):
        refuse_immovable(moves)


def test_where_the_directory_above_is_missing_it_is_asked_for(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "db", tmp_path / "disk/raft", tmp_path / "wal", None, "the node")
    with pytest.raises(ShardtoolError, match=r"disk/raft: expected its parent directory"):
        refuse_immovable(moves_for(layout, STAMP))


@needs_root
@pytest.mark.parametrize("below", ["", "x"])
def test_a_mount_point_that_no_rename_sets_aside_is_refused(
    below: str, layout: Layout, mount: Mount
) -> None:
    there = mount(layout.wal / below)
    with pytest.raises(ShardtoolError, match=f"found {there} mounted"):
        refuse_immovable(moves_for(layout, STAMP))
