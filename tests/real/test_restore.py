"""Restore, on real files with the real command."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.real.snapshot_world import (
    backed_up,
    command,
    damage,
    document,
    environment,
    holding_open,
    make_node,
    shardtool,
    state,
    unpacked,
)


@pytest.fixture
def node(tmp_path: Path) -> Path:
    return make_node(tmp_path / "node")


@pytest.fixture
def snapshot(node: Path) -> Path:
    return backed_up(node)


@pytest.mark.parametrize("capture", ["stopped-07", "migrated-08"])
def test_a_real_servers_raft_and_wal_come_back_to_the_byte(capture: str, tmp_path: Path) -> None:
    node = unpacked(capture, tmp_path)
    before = state(node)
    backed_up(node)
    shutil.rmtree(node / "wal")
    (node / "raft" / "log").write_bytes(b"")
    assert shardtool("--data", node, "restore", "--yes").returncode == 0
    assert state(node) == before


def test_modes_times_links_and_empty_directories_come_back(node: Path) -> None:
    before = state(node)
    backed_up(node)
    damage(node)
    assert shardtool("--data", node, "restore", "--yes").returncode == 0
    assert state(node) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_owners_come_back(node: Path) -> None:
    os.chown(node / "raft" / "log", 2, 12345)
    os.chown(node / "wal" / "current", 3, 4, follow_symlinks=False)
    before = state(node)
    backed_up(node)
    damage(node)
    shardtool("--data", node, "restore", "--yes")
    assert state(node) == before


def test_the_present_ones_are_set_aside_whole(node: Path, snapshot: Path) -> None:
    damage(node)
    damaged = state(node)
    done = document("--data", node, "restore", "--yes")
    raft, wal = map(Path, done["set_aside"])
    shutil.rmtree(node / "raft")
    shutil.rmtree(node / "wal")
    raft.rename(node / "raft")
    wal.rename(node / "wal")
    assert state(node) == damaged


def test_the_newest_is_what_is_restored_when_none_is_named(node: Path, snapshot: Path) -> None:
    (node / "raft" / "log").write_bytes(b"later")
    backed_up(node)
    done = document("--data", node, "restore", "--yes")
    assert done["snapshot"]["id"] != snapshot.name
    assert (node / "raft" / "log").read_bytes() == b"later"


def test_a_lost_raft_and_wal_are_restored(node: Path, snapshot: Path) -> None:
    shutil.rmtree(node / "raft")
    shutil.rmtree(node / "wal")
    done = document("--data", node, "restore", "--yes")
    assert done["set_aside"] == []
    assert (node / "raft" / "log").exists()


def test_where_raft_is_a_link_the_link_stays(node: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (node / "raft").rename(tmp_path / "disk" / "r")
    (node / "raft").symlink_to(tmp_path / "disk" / "r")
    backed_up(node)
    (node / "raft" / "log").write_bytes(b"later")
    done = document("--data", node, "restore", "--yes")
    assert (node / "raft").is_symlink()
    assert (node / "raft" / "log").read_bytes() == b"a raft log\n"
    assert Path(done["set_aside"][0]).parent == tmp_path / "disk"


def test_a_damaged_snapshot_is_refused(node: Path, snapshot: Path) -> None:
    (snapshot / "data" / "raft" / "log").write_bytes(b"A raft log\n")
    before = state(node)
    result = shardtool("--data", node, "restore", "--yes")
    assert result.returncode == 1
    assert "data/raft/log" in result.stderr
    assert state(node) == before


def test_a_running_server_is_refused_by_pid(node: Path, snapshot: Path) -> None:
    before = state(node)
    with holding_open(node / "raft" / "log") as pid:
        result = shardtool("--data", node, "restore", "--yes")
    assert result.returncode == 4
    assert f"pid {pid}" in result.stderr
    assert state(node) == before


def test_without_a_terminal_and_without_yes_nothing_is_done(node: Path, snapshot: Path) -> None:
    before = state(node)
    result = shardtool("--data", node, "restore")
    assert result.returncode == 2
    assert "--yes" in result.stderr
    assert state(node) == before
    assert not (node / "db" / ".shardtool").exists()


def test_a_no_changes_nothing(node: Path, snapshot: Path) -> None:
    before = state(node)
    main, terminal = pty.openpty()
    words = command("--data", node, "restore")
    with subprocess.Popen(
        words, env=environment(), stdin=terminal, stderr=subprocess.PIPE
    ) as process:
        os.write(main, b"y\n")
        process.communicate()
    os.close(main)
    os.close(terminal)
    assert process.returncode == 1
    assert state(node) == before


def test_elsewhere_gets_everything_and_the_node_nothing(node: Path, tmp_path: Path) -> None:
    backed_up(node)
    before = state(node)
    with holding_open(node / "raft" / "log"):
        result = shardtool("--data", node, "restore", "--to", tmp_path / "new" / "place")
    assert result.returncode == 0
    assert state(tmp_path / "new" / "place") == before == state(node)
    assert (tmp_path / "new" / "place" / "config.toml").read_text() == "# made up\n"


def test_elsewhere_must_be_empty(node: Path, snapshot: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious").touch()
    result = shardtool("--data", node, "restore", "--to", tmp_path / "full")
    assert result.returncode == 1
    assert os.listdir(tmp_path / "full") == ["precious"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_mount_point_is_refused_before_anything_is_done(node: Path, snapshot: Path) -> None:
    subprocess.run(["mount", "--bind", node / "wal", node / "wal"], check=True)
    try:
        result = shardtool("--data", node, "restore", "--yes")
    finally:
        subprocess.run(["umount", node / "wal"], check=True)
    assert result.returncode == 1
    assert "--to" in result.stderr
    assert sorted(os.listdir(node)) == ["config.toml", "db", "raft", "snapshots", "wal"]


@pytest.mark.slow
def test_a_planted_set_id_bit_is_not_restored(node: Path) -> None:
    (node / "raft" / "name").chmod(0o4755)
    backed_up(node)
    assert shardtool("--data", node, "restore", "--yes").returncode == 0
    assert (node / "raft" / "name").stat().st_mode & 0o7777 == 0o755


@pytest.mark.slow
def test_a_restore_is_in_the_journal_before_and_after(node: Path, snapshot: Path) -> None:
    shardtool("--data", node, "restore", "--yes")
    lines = (node / "db" / ".shardtool" / "journal").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["event"] for record in records] == ["restore-intent", "restored"]
    assert {record["snapshot"] for record in records} == {snapshot.name}


@pytest.mark.slow
def test_what_a_killed_restore_staged_is_removed_by_the_next(node: Path, snapshot: Path) -> None:
    staged = node / "wal.restoring-20260101T000000Z"
    (staged / "x").mkdir(parents=True)
    shardtool("--data", node, "restore", "--yes")
    assert not staged.exists()


def test_elsewhere_on_a_nodes_directory_removes_nothing(node: Path, snapshot: Path) -> None:
    staged = node / "raft.restoring-20260101T000000Z"
    staged.mkdir()
    result = shardtool("--data", node, "restore", "--to", node)
    assert (result.returncode, "found: one with something in it" in result.stderr) == (1, True)
    assert staged.is_dir()


@pytest.mark.slow
@pytest.mark.parametrize("place", ["raft", "wal/x", "db/x", "db/.shardtool/x", "snapshots/x"])
def test_elsewhere_may_not_lie_in_the_node_or_the_store(
    node: Path, snapshot: Path, place: str
) -> None:
    before = state(node)
    result = shardtool("--data", node, "restore", "--to", node / place)
    assert (result.returncode, "found one inside" in result.stderr) == (1, True)
    assert state(node) == before
    assert os.listdir(node / "snapshots") == [snapshot.name]


def test_elsewhere_may_not_be_the_root(node: Path, snapshot: Path) -> None:
    result = shardtool("--data", node, "restore", "--to", "/")
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert "/: expected a directory that does not exist or is empty" in result.stderr


def test_elsewhere_an_empty_directory_keeps_its_mode(
    node: Path, snapshot: Path, tmp_path: Path
) -> None:
    target = tmp_path / "empty"
    target.mkdir(0o700)
    result = shardtool("--data", node, "restore", "--to", target)
    assert (result.returncode, target.stat().st_mode & 0o7777) == (0, 0o700)
    assert "raft, wal and config.toml restored and verified" in result.stdout


def test_an_empty_name_is_wrong_usage(node: Path, snapshot: Path) -> None:
    for words in (("--to", ""), ("--store", "")):
        assert shardtool("--data", node, "restore", "--yes", *words).returncode == 2


def test_a_name_that_leaves_no_room_for_its_own_aside_is_refused(
    node: Path, tmp_path: Path
) -> None:
    long = tmp_path / ("r" * 220)
    (node / "raft").rename(long)
    (node / "raft").symlink_to(long)
    backed_up(node)
    result = shardtool("--data", node, "restore", "--yes")
    assert (result.returncode, "too long" in result.stderr) == (1, True)
    assert long.is_dir()


def test_latest_is_never_an_older_one_than_the_newest(node: Path, snapshot: Path) -> None:
    newest = backed_up(node)
    (newest / "shardtool.json").unlink()
    before = state(node)
    result = shardtool("--data", node, "restore", "--yes")
    assert result.returncode == 1
    assert newest.name in result.stderr
    assert f"looks good is {snapshot.name}" in result.stderr
    assert state(node) == before


def test_a_snapshot_of_another_node_is_told_from_this_ones(
    node: Path, snapshot: Path, tmp_path: Path
) -> None:
    other = make_node(tmp_path / "other")
    words = ("--data", other, "restore", "--store", node / "snapshots")
    asked = shardtool(*words)
    assert f"from {node}/raft" in asked.stderr
    assert asked.stderr.count("see that it is this node's") == 2
    foreign = "see that it is this node's"
    assert sum(foreign in text for text in document(*words, "--yes")["warnings"]) == 2
    own = document("--data", node, "restore", "--yes")["warnings"]
    assert not any(foreign in text for text in own)
