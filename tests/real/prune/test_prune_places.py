"""Where the trash is, and hostile things that stand in its place."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

import pytest

from fixtures import Node
from shardtool.errors import ShardtoolError
from shardtool.prune.execute import Outcome, execute
from shardtool.prune.trash import trash_of
from tests.conftest import Mount
from tests.needs import needs_root
from tests.real.prune.world import NAMES, carry_out, kept, layout_of, plan_for, shards


@pytest.mark.parametrize("link", [".shardtool", ".shardtool/trash"])
def test_a_trash_that_is_a_link_is_refused_and_nothing_moves(
    link: str, node: Node, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (node.db / link).parent.mkdir(exist_ok=True)
    (node.db / link).symlink_to(elsewhere)
    plan = plan_for(node)
    with pytest.raises(ShardtoolError, match="directory of shardtool's own"):
        carry_out(node, plan)
    assert shards(node) == NAMES
    assert [path for path in elsewhere.rglob("*") if path.name.startswith("0000")] == []


def test_a_link_in_place_of_shardtools_own_directory_leads_to_nothing_being_made(
    node: Node, tmp_path: Path
) -> None:
    """Root must not be led to make, and to give away, a directory elsewhere."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (node.db / ".shardtool").symlink_to(elsewhere)
    plan = plan_for(node)
    with contextlib.suppress(ShardtoolError):
        carry_out(node, plan)
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("file", [".shardtool", ".shardtool/trash"])
def test_a_trash_that_is_a_file_is_refused_and_nothing_moves(file: str, node: Node) -> None:
    (node.db / file).parent.mkdir(exist_ok=True)
    (node.db / file).write_bytes(b"precious")
    with pytest.raises(ShardtoolError, match=r"\.shardtool"):
        carry_out(node)
    assert shards(node) == NAMES
    assert (node.db / file).read_bytes() == b"precious"


def test_a_shard_db_that_becomes_a_file_is_named_in_the_error(node: Node) -> None:
    plan, layout = plan_for(node), layout_of(node)
    node.shard_db.rename(node.path / "aside")
    node.shard_db.write_bytes(b"")
    with pytest.raises((ShardtoolError, OSError)) as error:
        execute(plan, layout, Outcome(), lambda names: None)
    assert ".shardtool" not in str(error.value)


def test_a_shard_db_on_another_disk_has_its_trash_there(
    node: Node, tmp_path: Path, mount: Mount
) -> None:
    disk = tmp_path / "disk2"
    disk.mkdir()
    mount(disk)
    shutil.move(node.shard_db, disk / "shard_db")
    node.shard_db.symlink_to(disk / "shard_db")
    outcome = carry_out(node)
    assert (outcome.deleted, outcome.failed) == (NAMES, [])
    assert os.listdir(disk / ".shardtool/trash") == []
    assert os.listdir(disk / "shard_db") == []


@pytest.mark.parametrize("what", ["tmpfs", "bind"])
def test_a_shard_db_that_is_a_mount_point_is_refused_before_anything_is_done(
    what: str, node: Node, tmp_path: Path, mount: Mount
) -> None:
    outside = tmp_path / "outside"
    node.shard_db.rename(outside)
    node.shard_db.mkdir()
    if what == "bind":
        mount(node.shard_db, source=outside)
    else:
        mount(node.shard_db)
        for shard in outside.iterdir():
            shutil.copytree(shard, node.shard_db / shard.name)
    with pytest.raises(ShardtoolError, match="mount point"):
        trash_of(layout_of(node))


def test_a_mount_below_a_shard_that_appears_after_the_plan_keeps_it(
    node: Node, tmp_path: Path, mount: Mount
) -> None:
    plan = plan_for(node)
    (tmp_path / "file").write_bytes(b"x")
    mount(node.shard_db / "00002/CURRENT", source=tmp_path / "file")
    outcome = carry_out(node, plan)
    assert "mount-point" in kept(outcome)["00002"]
    assert shards(node) == ["00002"]


@needs_root
def test_what_root_makes_belongs_to_the_owner_of_the_database(node: Node) -> None:
    os.chown(node.db, 4711, 4712)
    carry_out(node)
    own = node.db / ".shardtool"
    for path in (own, own / "trash", own / "journal"):
        assert (path.stat().st_uid, path.stat().st_gid) == (4711, 4712)
