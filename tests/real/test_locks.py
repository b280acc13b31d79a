"""Locks of others are seen without one being taken; our own keeps a second shardtool out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures import Node
from shardtool.disk import locks
from shardtool.disk.durable import READ_DIRECTORY
from shardtool.disk.locks import Lock, LockState, exclusive, look_at_lock
from shardtool.errors import BusyError
from tests.conftest import Hold, Unprivileged


def look(directory: Path) -> LockState:
    """Look at a shard's LOCK."""
    descriptor = os.open(directory, READ_DIRECTORY)
    try:
        return look_at_lock("LOCK", dir_fd=descriptor)
    finally:
        os.close(descriptor)


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    """Make an old shard."""
    return Node(tmp_path / "data").old_shard(7, points=2)


def test_a_database_that_is_open_elsewhere_is_seen_with_its_pid(shard: Path, hold: Hold) -> None:
    pid = hold(shard, "database")
    assert look(shard) == LockState(Lock.HELD, pid)


def test_a_plain_posix_lock_is_seen_with_its_pid(shard: Path, hold: Hold) -> None:
    pid = hold(shard / "LOCK", "lock")
    assert look(shard) == LockState(Lock.HELD, pid)


HOLDING = """
import fcntl, os, struct, sys
held = open(sys.argv[1], "r+b")
start, length, kind = int(sys.argv[2]), int(sys.argv[3]), getattr(fcntl, sys.argv[4])
fcntl.fcntl(held, kind, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, start, length, 0))
print(os.getpid(), flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(
    ("start", "kind", "has_pid"),
    [(0, "F_SETLK", True), (7, "F_SETLK", True), (0, "F_OFD_SETLK", False)],
)
def test_a_lock_on_any_byte_is_seen_with_the_pid_that_the_kernel_tells(
    start: int, kind: str, has_pid: bool, shard: Path
) -> None:
    words = [sys.executable, "-c", HOLDING, str(shard / "LOCK"), str(start), "1", kind]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        pid = int(holder.stdout.readline())
        seen = look(shard)
        holder.communicate()
    assert seen == LockState(Lock.HELD, pid if has_pid else None)


def test_a_shard_that_nobody_has_open_is_free(shard: Path) -> None:
    assert look(shard) == LockState(Lock.FREE)


def test_a_shard_without_a_lock_file_is_free(shard: Path) -> None:
    (shard / "LOCK").unlink(missing_ok=True)
    assert look(shard) == LockState(Lock.FREE)
    assert not (shard / "LOCK").exists()


def test_looking_takes_no_lock_and_takes_none_away(shard: Path, hold: Hold) -> None:
    look(shard)
    hold(shard / "LOCK", "lock")  # would block for ever
    assert look(shard).state is look(shard).state is Lock.HELD


@pytest.mark.parametrize("kind", ["fifo", "directory", "link", "dangling"])
def test_a_lock_file_that_is_none_is_unknown_and_nothing_waits(kind: str, shard: Path) -> None:
    lock = shard / "LOCK"
    lock.unlink(missing_ok=True)
    if kind == "fifo":
        os.mkfifo(lock)
    elif kind == "directory":
        lock.mkdir()
    else:
        lock.symlink_to("CURRENT" if kind == "link" else "nowhere")
    assert look(shard).state is Lock.UNKNOWN


def test_a_lock_file_that_may_not_be_read_is_unknown(
    public_path: Path, unprivileged: Unprivileged
) -> None:
    (public_path / "LOCK").touch(mode=0o000)
    state: LockState = unprivileged(lambda: look(public_path))
    assert state.state is Lock.UNKNOWN


def test_one_shardtool_keeps_another_out_and_is_named(tmp_path: Path, hold: Hold) -> None:
    pid = hold(tmp_path, "flock")
    with pytest.raises(BusyError, match=f"found pid {pid} at work") as error:
        exclusive(tmp_path, purpose="data directory").__enter__()
    assert "data directory" in str(error.value)


def test_whoever_has_another_lock_is_not_taken_for_the_holder(tmp_path: Path, hold: Hold) -> None:
    # Each of them: one is the first in the kernel's table, in whichever order that is.
    holders = {}
    for name in ("one", "another", "a third"):
        (tmp_path / name).mkdir()
        holders[tmp_path / name] = hold(tmp_path / name, "flock")
    hold(Node(tmp_path / "data").old_shard(7, points=2) / "LOCK", "lock")
    assert len(set(holders.values())) == 3
    for directory, pid in holders.items():
        with (
            pytest.raises(BusyError, match=f"found pid {pid} at work"),
            exclusive(directory, purpose="directory"),
        ):
            pass


def test_a_holder_that_the_kernel_does_not_name_is_another_process(
    tmp_path: Path, hold: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold(tmp_path, "flock")
    monkeypatch.setattr(locks, "_flock_holder", lambda descriptor: None)
    with (
        pytest.raises(BusyError, match="found another process at work"),
        exclusive(tmp_path, purpose="directory"),
    ):
        pass


def test_the_lock_is_let_go_at_the_end_even_of_a_failure(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), exclusive(tmp_path, purpose="data directory"):
        raise ZeroDivisionError
    with exclusive(tmp_path, purpose="data directory"):
        pass


def test_two_in_one_process_exclude_each_other_too(tmp_path: Path) -> None:
    second = exclusive(tmp_path, purpose="x")
    with exclusive(tmp_path, purpose="x"), pytest.raises(BusyError):
        second.__enter__()


def test_the_lock_dies_with_its_process(tmp_path: Path) -> None:
    pid = os.fork()
    if not pid:
        exclusive(tmp_path, purpose="x").__enter__()
        os.kill(os.getpid(), 9)
    os.waitpid(pid, 0)
    with exclusive(tmp_path, purpose="x"):
        pass


def test_the_lock_leaves_nothing_behind(tmp_path: Path) -> None:
    before = tmp_path.stat().st_mtime_ns
    with exclusive(tmp_path, purpose="x"):
        assert list(tmp_path.iterdir()) == []
    assert tmp_path.stat().st_mtime_ns == before


def test_a_directory_that_is_not_there_is_the_systems_own_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), exclusive(tmp_path / "x", purpose="x"):
        sys.exit("never reached")
