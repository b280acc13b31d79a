"""Removing a tree: all of it, nothing else, and what came back is counted."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from shardtool.disk.durable import READ_DIRECTORY
from shardtool.disk.remove import Removal, remove_tree
from shardtool.disk.tree import measure
from tests.conftest import Mount, Unprivileged


def removed(path: Path, **settings: Any) -> Removal:
    """Remove a path."""
    parent = os.open(path.parent, READ_DIRECTORY)
    try:
        return remove_tree(parent, path.name, **settings)
    finally:
        os.close(parent)


def fill(directory: Path, *names: str) -> Path:
    """Make a directory with files of 5,000 bytes."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in names:
        (directory / name).write_bytes(b"x" * 5000)
    return directory


def reclaimable(path: Path) -> int:
    """Return what measure predicts for a tree."""
    descriptor = os.open(path, READ_DIRECTORY)
    try:
        return measure(descriptor).reclaimable_bytes
    finally:
        os.close(descriptor)


@pytest.fixture
def trash(tmp_path: Path) -> Path:
    """Make an empty trash."""
    return fill(tmp_path / "trash")


def test_a_tree_goes_and_what_was_predicted_came_back(trash: Path) -> None:
    root = fill(trash / "00007.run", "a", "b")
    fill(root / "x" / "y", "c")
    os.link(root / "a", root / "x" / "a-again")
    predicted = reclaimable(root)
    done = removed(root)
    assert list(trash.iterdir()) == []
    assert (done.files, done.failed, done.freed_bytes) == (4, 0, predicted)


def test_a_file_with_a_name_elsewhere_stays_there_and_is_not_counted(
    trash: Path, tmp_path: Path
) -> None:
    root = fill(trash / "00007.run", "a")
    os.link(root / "a", tmp_path / "elsewhere")
    done = removed(root)
    assert (tmp_path / "elsewhere").read_bytes() == b"x" * 5000
    assert done.freed_bytes < 5000


def test_a_link_goes_and_what_it_leads_to_stays(trash: Path, tmp_path: Path) -> None:
    outside = fill(tmp_path / "outside", "precious")
    root = fill(trash / "00007.run")
    (root / "directory").symlink_to(outside)
    (root / "file").symlink_to(outside / "precious")
    assert removed(root).failed == 0
    assert (outside / "precious").exists()
    assert not root.exists()


def test_a_link_that_leads_nowhere_goes_too(trash: Path) -> None:
    root = fill(trash / "00007.run", "a")
    (root / "link").symlink_to("nowhere")
    done = removed(root)
    assert (done.files, done.failed) == (2, 0)
    assert list(trash.iterdir()) == []


def test_each_file_that_goes_is_told_once(trash: Path) -> None:
    root = fill(trash / "00007.run", *"abc")
    fill(root / "x", *"de")
    told: list[int] = []
    removed(root, progress=told.append)
    assert sum(told) == 5
    assert min(told) >= 0


def test_a_directory_that_somebody_keeps_filling_is_left_at_last_and_told(
    trash: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, unlink = fill(trash / "00007.run", "a"), os.unlink

    def undo(name: str, **settings: Any) -> None:
        unlink(name, **settings)
        (root / name).touch()

    monkeypatch.setattr(os, "unlink", undo)
    done = removed(root)
    assert done.failures == ("00007.run: names keep appearing in it",)
    assert (done.failed, root.exists()) == (1, True)


def test_a_link_in_the_trees_own_place_goes_alone(trash: Path, tmp_path: Path) -> None:
    outside = fill(tmp_path / "outside", "precious")
    (trash / "00007.run").symlink_to(outside)
    assert removed(trash / "00007.run").failed == 0
    assert (outside / "precious").exists()
    assert list(trash.iterdir()) == []


def test_neighbours_stay(trash: Path) -> None:
    fill(trash / "00008.run", "a")
    removed(fill(trash / "00007.run", "a"))
    assert [path.name for path in trash.iterdir()] == ["00008.run"]


def test_what_is_not_there_is_no_error(trash: Path) -> None:
    assert removed(trash / "00007.run") == Removal()


def test_special_files_go_and_nothing_waits(trash: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = fill(trash / "00007.run")
    os.mkfifo(root / "fifo")
    monkeypatch.chdir(root)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
    monkeypatch.chdir("/")
    done = removed(root)
    assert (done.files, done.failed) == (2, 0)


@pytest.mark.parametrize(
    "name", [b"\x1b[2J", b"a\nb", b"\xff\xfe", b"x" * 255, b"-rf", b".below.0"]
)
def test_any_name_goes_as_a_file_and_as_a_directory(name: bytes, trash: Path) -> None:
    root = fill(trash / "00007.run")
    fill(root / "files", os.fsdecode(name))
    fill(root / os.fsdecode(name), "a")
    assert (removed(root).failed, list(trash.iterdir())) == (0, [])


def test_a_directory_of_more_than_one_batch_goes(trash: Path) -> None:
    root = trash / "00007.run"
    root.mkdir()
    for number in range(2500):
        (root / str(number)).touch()
    told: list[int] = []
    assert removed(root, progress=told.append).files == 2500
    assert sum(told) == 2500
    assert len(told) > 1


def test_a_tree_three_thousand_deep_goes(trash: Path) -> None:
    root = fill(trash / "00007.run")
    here = os.getcwd()
    os.chdir(root)
    for _ in range(3000):
        os.mkdir("d")
        os.chdir("d")
    os.chdir(here)
    done = removed(root)
    assert (done.failed, list(trash.iterdir())) == (0, [])


def test_what_a_kill_left_lifted_is_not_lost(trash: Path) -> None:
    """A name that is taken already is never replaced, though rename would replace it empty."""
    taken = fill(trash / "00007.run.below.0")
    inode = taken.stat().st_ino
    root = fill(trash / "00007.run")
    fill(root / "x", "a")
    assert removed(root).failed == 0
    assert taken.stat().st_ino == inode


def test_a_link_to_nothing_under_a_lifted_name_is_in_no_ones_way(trash: Path) -> None:
    fill(trash / "00007.run" / "below", "file")
    (trash / "00007.run.below.0").symlink_to("nowhere")
    assert removed(trash / "00007.run").failures == ()
    assert [path.name for path in trash.iterdir()] == ["00007.run.below.0"]


def test_no_descriptor_stays_open(trash: Path) -> None:
    root = fill(trash / "00007.run", "a")
    fill(root / "x", "b")
    before = sorted(os.listdir("/proc/self/fd"))
    removed(root)
    assert sorted(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("what", ["tmpfs", "bind"])
def test_what_is_mounted_inside_stays_and_is_told(
    what: str, trash: Path, tmp_path: Path, mount: Mount
) -> None:
    outside = fill(tmp_path / "outside", "precious")
    root = fill(trash / "00007.run", "a")
    (root / "x").mkdir()
    mount(root / "x", source=outside if what == "bind" else None)
    done = removed(root)
    assert done.failed == 1
    assert "x" in done.failures[0]
    assert (outside / "precious").exists()
    assert (root / "x").is_dir()


def test_a_file_that_something_is_mounted_on_stays_and_is_told(
    trash: Path, tmp_path: Path, mount: Mount
) -> None:
    outside = fill(tmp_path / "outside", "precious")
    root = fill(trash / "00007.run", "a")
    mount(root / "a", source=outside / "precious")
    done = removed(root)
    assert done.failed == 1
    assert (outside / "precious").exists()


@pytest.mark.parametrize("what", ["tmpfs", "bind"])
def test_a_mount_in_the_trees_own_place_is_left_alone(
    what: str, trash: Path, tmp_path: Path, mount: Mount
) -> None:
    outside = fill(tmp_path / "outside", "precious")
    mount(fill(trash / "00007.run"), source=outside if what == "bind" else None)
    done = removed(trash / "00007.run")
    assert done.failures == ("00007.run: something is mounted there",)
    assert (outside / "precious").exists()


def test_a_file_that_cannot_go_does_not_keep_the_others(
    trash: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = fill(trash / "00007.run", "a", "b", "c")
    unlink = os.unlink

    def refuse(name: str, **settings: Any) -> None:
        if name == "b":
            raise PermissionError(1, "Operation not permitted")
        unlink(name, **settings)

    monkeypatch.setattr(os, "unlink", refuse)
    done = removed(root)
    assert [path.name for path in root.iterdir()] == ["b"]
    assert (done.files, done.failed) == (2, 1)
    assert done.failures == ("00007.run/b: Operation not permitted",)


def test_a_file_that_cannot_go_does_not_keep_those_of_later_batches(
    trash: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = trash / "00007.run"
    root.mkdir()
    for number in range(2500):
        (root / str(number)).touch()
    unlink, refused = os.unlink, set[str]()

    def refuse(name: str, **settings: Any) -> None:
        if not refused or name in refused:
            refused.add(name)
            raise PermissionError(1, "Operation not permitted")
        unlink(name, **settings)

    monkeypatch.setattr(os, "unlink", refuse)
    removed(root)
    assert len(list(root.iterdir())) == 1


def test_of_many_failures_the_first_few_are_named_and_all_are_counted(
    trash: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = fill(trash / "00007.run", *"abcdefgh")

    def refuse(name: str, **settings: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "unlink", refuse)
    done = removed(root)
    assert (done.failed, len(done.failures), done.freed_bytes) == (8, 3, 0)


def test_without_rights_nothing_goes_and_it_is_told(
    public_path: Path, unprivileged: Unprivileged
) -> None:
    root = fill(public_path / "00007.run", "a")
    root.chmod(0o555)
    public_path.chmod(0o555)
    done: Removal = unprivileged(lambda: removed(root))
    public_path.chmod(0o755)
    root.chmod(0o755)
    assert done.failures == ("00007.run/a: Permission denied",)
    assert (root / "a").exists()


def test_a_directory_that_becomes_a_link_during_the_removal_is_not_followed(
    trash: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = fill(tmp_path / "outside", "precious")
    root = fill(trash / "00007.run", "a")
    real = os.open

    def swap_first(path: Any, *args: Any, **settings: Any) -> int:
        if path == "00007.run" and not root.is_symlink():
            root.rename(trash / "moved")
            root.symlink_to(outside)
        return real(path, *args, **settings)

    monkeypatch.setattr(os, "open", swap_first)
    done = removed(root)
    assert (outside / "precious").exists()
    assert done.failed == 1
