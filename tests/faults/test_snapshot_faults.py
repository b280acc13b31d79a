"""Full disks, kills at every rename, hostile stores: what is left is whole, and is finished."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.real.snapshot_world import backed_up, damage, document, make_node, shardtool, state

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
NEEDS_STRACE = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")

# A restore's renames: its pending file, raft and wal aside, raft and wal into place.
RENAMES = 5


@pytest.fixture
def node(tmp_path: Path) -> Path:
    return make_node(tmp_path / "node")


@contextmanager
def mounted(place: Path, *options: str) -> Iterator[Path]:
    """Mount a small file system of its own at `place`."""
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", *options, "none", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def killed_at(call: str, number: int, log: Path) -> list[str]:
    """Return the words in front of a command that kill it at a system call's n-th entry."""
    return [*traced(call, log), "-e", f"inject={call}:signal=KILL:when={number}"]


def traced(call: str, log: Path) -> list[str]:
    """Return the words in front of a command that let strace see a system call of it."""
    return ["strace", "-f", "-qq", "-o", str(log), "-e", f"trace={call}"]


@ROOT_ONLY
def test_a_store_without_room_is_refused_before_the_copy(node: Path, tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "-o", "size=1m") as small:
        result = shardtool("--data", node, "backup", "--to", small)
        assert result.returncode == 1
        assert "expected room for" in result.stderr
        assert "found 1,048,576 free" in result.stderr
        assert os.listdir(small) == []


def test_a_disk_that_fills_up_in_the_middle_leaves_nothing(node: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    # A limit on a file's size is the nearest to a full disk that needs no root: EFBIG.
    limited = ["prlimit", f"--fsize={1 << 20}"]
    if shutil.which("prlimit") is None:
        pytest.skip("needs prlimit")
    result = shardtool("--data", node, "backup", "--to", store, prefix=limited)
    assert result.returncode == 1
    assert "wal/log.1: expected to copy it to" in result.stderr
    assert os.listdir(store) == []


@NEEDS_STRACE
def test_no_space_left_in_the_middle_leaves_nothing(node: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    full = [*traced("fsync", tmp_path / "log"), "-e", "inject=fsync:error=ENOSPC:when=6"]
    result = shardtool("--data", node, "backup", "--to", store, prefix=full)
    assert result.returncode == 1
    assert "No space left on device" in result.stderr
    assert os.listdir(store) == []


@ROOT_ONLY
def test_a_read_only_store_is_one_clear_line(node: Path, tmp_path: Path) -> None:
    with mounted(tmp_path / "store", "-o", "ro") as store:
        result = shardtool("--data", node, "backup", "--to", store)
        assert result.returncode == 1
        assert result.stderr.count("\n") == 1
        assert "Read-only file system" in result.stderr


@ROOT_ONLY
def test_a_read_only_store_can_be_verified_and_restored_from(node: Path, tmp_path: Path) -> None:
    with mounted(tmp_path / "store") as store:
        backed_up(node, "--to", store)
        before = state(node)
        damage(node)
        subprocess.run(["mount", "-o", "remount,ro", store], check=True)
        assert shardtool("snapshots", "verify", "--store", store).returncode == 0
        result = shardtool("--data", node, "restore", "--yes", "--store", store)
        assert result.returncode == 0
        assert state(node) == before


@NEEDS_STRACE
@pytest.mark.parametrize("number", range(1, RENAMES + 1))
def test_a_kill_at_any_rename_of_a_restore_is_finished_by_the_next(
    node: Path, tmp_path: Path, number: int
) -> None:
    before = state(node)
    snapshot = backed_up(node)
    damage(node)
    damaged = state(node)
    renames = "rename,renameat,renameat2"
    prefix = killed_at(renames, number, tmp_path / "log")
    result = shardtool("--data", node, "restore", "--yes", prefix=prefix)
    assert result.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL)
    assert snapshot.exists()
    if number > 1:
        assert f"{node}/raft.before-restore-" in result.stderr
        refused = shardtool("--data", node, "backup")
        assert (refused.returncode, "restore finishes it" in refused.stderr) == (1, True)

    done = document("--data", node, "restore", "--yes")

    assert done["finished_earlier"] == (number > 1)
    assert state(node) == before
    assert not (node / "db" / ".shardtool" / "restore.json").exists()
    assert not list(node.glob("*.restoring-*"))
    for path in map(Path, done["set_aside"]):
        shutil.rmtree(node / path.name.partition(".")[0])
        path.rename(node / path.name.partition(".")[0])
    assert state(node) == damaged


@NEEDS_STRACE
def test_a_kill_after_the_swap_is_finished_by_the_next(node: Path, tmp_path: Path) -> None:
    before = state(node)
    backed_up(node)
    damage(node)
    # The first unlink is of an old temporary pending file, the second of the pending file.
    prefix = killed_at("unlink", 2, tmp_path / "log")
    shardtool("--data", node, "restore", "--yes", prefix=prefix)
    assert (node / "db" / ".shardtool" / "restore.json").exists()
    assert document("--data", node, "restore", "--yes")["finished_earlier"]
    assert state(node) == before


def test_what_a_server_made_in_a_half_restored_directory_is_set_aside(node: Path) -> None:
    before = state(node)
    snapshot = backed_up(node)
    assert shardtool("--data", node, "restore", "--yes").returncode == 0
    # As a kill after raft's last rename leaves it, and then a server's start.
    (aside,) = node.glob("wal.before-restore-*")
    stamp = aside.name.rpartition("-")[2]
    (node / "wal").rename(node / f"wal.restoring-{stamp}")
    (node / "wal").mkdir()
    (node / "wal" / "new").write_bytes(b"points")
    pending = {"snapshot": snapshot.name, "path": str(snapshot), "stamp": stamp}
    content = {"schema": "shardtool/pending-restore/1", **pending}
    (node / "db" / ".shardtool" / "restore.json").write_text(json.dumps(content))
    assert shardtool("--data", node, "restore", "--yes").returncode == 0
    assert state(node) == before
    assert (node / f"{aside.name}-2" / "new").read_bytes() == b"points"


def test_a_pending_file_that_nobody_wrote_is_one_clear_line(node: Path) -> None:
    backed_up(node)
    (node / "db" / ".shardtool").mkdir()
    (node / "db" / ".shardtool" / "restore.json").write_text('{"stamp": "../../etc"}')
    for words in (("backup",), ("restore", "--yes")):
        result = shardtool("--data", node, *words)
        assert (result.returncode, result.stderr.count("\n")) == (1, 1)


@NEEDS_STRACE
def test_a_killed_forget_leaves_whole_snapshots_and_is_finished(node: Path, tmp_path: Path) -> None:
    old, new = backed_up(node), backed_up(node)
    prefix = killed_at("unlinkat", 2, tmp_path / "log")
    shardtool("--data", node, "forget", "--keep-last", "1", prefix=prefix)
    assert not old.exists()
    assert os.listdir(node / "snapshots") != [new.name]
    assert shardtool("--data", node, "forget", "--keep-last", "1").returncode == 0
    assert os.listdir(node / "snapshots") == [new.name]


def test_a_hostile_store_is_told_as_what_it_is(node: Path, tmp_path: Path) -> None:
    snapshot = backed_up(node)
    store = snapshot.parent
    (store / "20200101T000000Z").symlink_to("/")
    (store / "\x1b[31mname\n").mkdir()
    (store / "20200102T000000Z").mkdir()
    with (store / "20200102T000000Z" / "shardtool.json").open("wb") as huge:
        huge.truncate(1 << 40)
    (store / "20200103T000000Z").mkdir()
    os.mkfifo(store / "20200103T000000Z" / "shardtool.json")
    result = shardtool("--data", node, "snapshots")
    assert result.returncode == 3
    assert "\x1b" not in result.stdout
    assert "20200101T000000Z: a link or a file" in result.stdout
    assert "more than 32 MiB" in result.stdout
    assert "no regular file" in result.stdout


def test_a_link_in_a_snapshot_is_not_followed(node: Path, tmp_path: Path) -> None:
    snapshot = backed_up(node)
    shutil.move(snapshot / "data" / "raft", tmp_path / "elsewhere")
    (snapshot / "data" / "raft").symlink_to(tmp_path / "elsewhere")
    result = shardtool("--data", node, "snapshots", "verify")
    assert result.returncode == 3
    assert "data/raft: is a link, expected a directory" in result.stdout
