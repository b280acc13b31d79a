"""What goes when a run ends: links in memory where they may be, else where TMPDIR says."""

from __future__ import annotations

import fcntl
import gc
import os
import sys
import tempfile
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import psutil
import pytest

from shardtool.errors import ShardtoolError
from shardtool.proof import scratch
from shardtool.proof.scratch import (
    SpoolFile,
    childs_directory,
    directory_for_links,
    scratch_directory,
)
from tests.needs import needs_root

PREFIX = "shardtool-links-"
ROOM = {"f_bavail": 32768, "f_frsize": 4096, "f_blocks": 1, "f_favail": 400_000, "f_files": 1}
GIB = 1 << 30


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the usual place for temporary files, which no variable names."""
    path = tmp_path / "temporary"
    path.mkdir()
    for name in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(path))
    return path


@pytest.fixture(autouse=True)
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return what stands for /dev/shm: with just as much room as it takes."""
    path = tmp_path / "memory"
    path.mkdir()
    monkeypatch.setattr(scratch, "_MEMORY", path)
    monkeypatch.setattr(scratch, "_LAST_SYSTEM_USER", os.geteuid())
    has(monkeypatch)
    return path


def has(monkeypatch: pytest.MonkeyPatch, available: int = 2 * GIB, **room: int) -> None:
    """Let there be so much memory, in bytes, and so much room in what is mounted there."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=available))
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(**{**ROOM, **room}))


def place_of_links() -> Path:
    with directory_for_links(2) as path:
        assert path.name.startswith(PREFIX)
        assert path.stat().st_mode & 0o777 == 0o700
        found = path.parent
    assert not path.exists()
    return found


# -- which place --


def test_links_are_in_memory_and_nothing_else_is(memory: Path, temporary: Path) -> None:
    assert place_of_links() == memory
    with scratch_directory() as path:
        assert path.parent == temporary


@pytest.mark.parametrize("name", ["TMPDIR", "TEMP", "TMP"])
def test_links_are_where_the_user_says(
    name: str, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, str(temporary))
    assert place_of_links() == temporary


def test_a_variable_that_is_empty_says_nothing(
    memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", "")
    assert place_of_links() == memory


@pytest.mark.parametrize(
    "short", [{"available": 2 * GIB - 1}, {"f_bavail": 32767}, {"f_favail": 399_999}], ids=str
)
def test_links_are_on_disk_where_memory_is_short(
    short: dict[str, Any], temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    has(monkeypatch, **short)
    assert place_of_links() == temporary


def test_links_are_on_disk_where_logind_removes_what_is_in_memory(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch, "_LAST_SYSTEM_USER", os.geteuid() - 1)
    assert place_of_links() == temporary


def test_memory_without_limits_takes_links(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A tmpfs that is mounted with size=0,nr_inodes=0.
    has(monkeypatch, f_files=0, f_favail=0, f_blocks=0, f_bavail=0)
    assert place_of_links() == memory


def test_memory_takes_links_where_there_is_no_other_place(
    memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> NoReturn:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", fail)
    assert place_of_links() == memory
    words = "^temporary files: expected a directory .*, found: No such file .*; set TMPDIR to one$"
    with pytest.raises(ShardtoolError, match=words), scratch_directory():
        pass


def test_links_are_on_disk_where_there_is_no_such_memory(
    memory: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> NoReturn:
        raise FileNotFoundError(2, "No such file or directory", str(path))

    memory.rmdir()
    monkeypatch.setattr(os, "statvfs", fail)
    assert place_of_links() == temporary


def test_links_are_on_disk_where_memory_takes_none(memory: Path, temporary: Path) -> None:
    memory.rmdir()
    memory.touch()
    assert place_of_links() == temporary


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (psutil, "virtual_memory"),
        (os, "statvfs"),
        (tempfile, "mkdtemp"),
        (scratch, "opened"),
        (fcntl, "flock"),
    ],
    ids=lambda one: one if isinstance(one, str) else one.__name__,
)
def test_whatever_fails_in_memory_links_are_on_disk(
    module: Any, name: str, memory: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = getattr(module, name)
    failed: list[str] = []

    def fail_once(*args: Any, **named: Any) -> Any:
        if not failed:
            failed.append(name)
            raise OSError(12, "Cannot allocate memory")
        return real(*args, **named)

    monkeypatch.setattr(module, name, fail_once)
    assert place_of_links() == temporary
    assert failed == [name]
    assert list(memory.iterdir()) == []


def test_a_child_without_room_for_links_is_told_what_to_do(tmp_path: Path) -> None:
    words = f"^{tmp_path}/gone: expected room for links .*No such file.*; set TMPDIR to a directory"
    with pytest.raises(ShardtoolError, match=words), childs_directory(tmp_path / "gone"):
        pass


def test_a_spool_that_does_not_fit_is_told_what_to_do(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **named: Any) -> NoReturn:
        raise OSError(28, "No space left on device")

    with SpoolFile() as spool:
        spool.write(b"x" * (1 << 20))
        monkeypatch.setattr(tempfile, "TemporaryFile", fail)
        words = f"^{temporary}: expected room for values .*No space.*; set TMPDIR to a directory"
        with pytest.raises(ShardtoolError, match=words):
            spool.write(b"x")


def test_a_spool_whose_last_bytes_do_not_fit_is_told_what_to_do(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = f"^{temporary}: expected room for values .*No space.*; set TMPDIR to a directory"
    ignored: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", ignored.append)
    spool = SpoolFile()
    # What it writes to once it is large.
    spool._file = os.fdopen(os.open("/dev/full", os.O_RDWR), "w+b")
    spool.write(b"x")
    with pytest.raises(ShardtoolError, match=words):
        spool.seek(0)
    spool.close()  # as its end does, where an error would be a traceback
    del spool
    gc.collect()
    assert ignored == []


# -- what killed runs left --


@pytest.mark.parametrize("is_named", [False, True])
def test_what_a_killed_run_left_is_swept_in_both_places(
    is_named: bool, memory: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_named:
        monkeypatch.setenv("TMPDIR", str(temporary))
    for place in (memory, temporary):
        (place / f"{PREFIX}killed" / "below").mkdir(parents=True)
    place_of_links()
    assert [*memory.iterdir(), *temporary.iterdir()] == []


def test_what_a_killed_run_left_is_swept_and_nothing_else(temporary: Path) -> None:
    (temporary / f"{PREFIX}killed" / "below").mkdir(parents=True)
    (temporary / "shardtool-other").mkdir()
    with scratch_directory() as path:
        there = {path.name, "shardtool-other"}
        assert set(os.listdir(temporary)) == there
        assert path.name.startswith(PREFIX)
        with scratch_directory() as other:  # nobody sweeps what is in use
            assert set(os.listdir(temporary)) == {*there, other.name}
    assert os.listdir(temporary) == ["shardtool-other"]


def test_nobody_waits_for_a_run_that_is_at_work(temporary: Path) -> None:
    used = temporary / f"{PREFIX}used"
    used.mkdir()
    held = os.open(used, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    later = threading.Timer(5, fcntl.flock, [held, fcntl.LOCK_UN])
    later.start()
    with scratch_directory():
        assert used.exists()
        assert later.is_alive()
    later.cancel()
    os.close(held)


@needs_root
def test_what_is_anothers_is_not_swept(temporary: Path) -> None:
    other = temporary / f"{PREFIX}others"
    other.mkdir()
    os.chown(other, 65534, 65534)
    with scratch_directory():
        assert other.exists()


def test_no_room_for_links_is_told(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(temporary / "gone"))
    with (
        pytest.raises(
            ShardtoolError, match=r"gone: expected a directory that .* set TMPDIR to one$"
        ),
        scratch_directory(),
    ):
        pass
