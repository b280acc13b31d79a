"""Trees that are in the way: links, mounts, depth, and what changes during the walk."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from shardtool.disk import tree as tree_module
from shardtool.disk.tree import Tree
from tests.conftest import Mount, Unprivileged
from tests.real.tree.world import fill, kinds, measured


@contextmanager
def deep(path: Path, depth: int) -> Iterator[None]:
    """Make a chain of directories, and take it away again: pytest's own removal recurses."""
    here = os.getcwd()
    path.mkdir()
    os.chdir(path)
    try:
        for _ in range(depth):
            os.mkdir("d")
            os.chdir("d")
        yield
    finally:
        os.chdir(path)
        for _ in range(depth):
            try:
                os.chdir("d")
            except FileNotFoundError:
                break
        while not os.path.samefile(".", path):
            os.chdir("..")
            os.rmdir("d")
        os.chdir(here)


def test_a_directory_listed_in_batches_measures_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = fill(tmp_path / "t", **{f"f{number}": number for number in range(50)})
    fill(root / "x", c=1)
    os.link(root / "f1", root / "f1-again")
    settings: dict[str, Any] = {"fingerprint": True, "newer_than_ns": 1, "keep": sorted}
    whole = measured(root, **settings)
    monkeypatch.setattr(tree_module, "_LIST_WHOLE_BELOW", 0)
    monkeypatch.setattr(tree_module, "_BATCH", 7)
    batched = measured(root, **settings)
    assert sorted(batched.names) == sorted(whole.names)
    assert sorted(batched.newer) == sorted(whole.newer)
    assert batched.fingerprint == whole.fingerprint
    assert (batched.files, batched.allocated_bytes) == (whole.files, whole.allocated_bytes)


def test_a_tree_fifteen_hundred_deep_is_measured(tmp_path: Path) -> None:
    with deep(tmp_path / "t", 1500):
        found = measured(tmp_path / "t", fingerprint=True)
    assert (found.directories, found.files) == (1501, 0)
    assert len(found.oddities) == 100


@pytest.mark.slow
def test_a_tree_deeper_than_there_are_descriptors_is_an_oddity_and_no_crash(
    tmp_path: Path, file_limit: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree_module, "_MOST_LISTED", 10_000)
    with deep(tmp_path / "t", 1500):
        file_limit(len(os.listdir("/proc/self/fd")) + 100)
        found = measured(tmp_path / "t")
        file_limit(4096)
    last = found.oddities[-1]
    assert (last.kind, last.detail) == ("unreadable", "Too many open files")


def test_running_out_of_descriptors_is_seen_behind_a_hundred_directories(
    tmp_path: Path, file_limit: Callable[[int], None]
) -> None:
    with deep(tmp_path / "t", 1500):
        file_limit(len(os.listdir("/proc/self/fd")) + 200)
        found = measured(tmp_path / "t")
        file_limit(4096)
    assert "unreadable" in kinds(found).values()


def test_measuring_leaves_no_descriptor_open(tmp_path: Path) -> None:
    fill(fill(fill(tmp_path / "t", a=1) / "x", b=1) / "y", c=1)
    before = sorted(os.listdir("/proc/self/fd"))
    measured(tmp_path / "t", fingerprint=True)
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_a_walk_that_is_interrupted_closes_the_directories_that_it_is_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(fill(fill(tmp_path / "t") / "x") / "y")
    before = sorted(os.listdir("/proc/self/fd"))
    real = os.open

    def interrupted(path: Any, *args: Any, **settings: Any) -> int:
        if path == "y":
            raise KeyboardInterrupt
        return real(path, *args, **settings)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "open", interrupted)
        measured(tmp_path / "t")
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_what_has_the_same_names_in_the_working_directory_is_not_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, elsewhere = fill(tmp_path / "t", a=1, b=2), fill(tmp_path / "u", a=100, b=2000, x=3)
    fill(root / "x", b=4)
    monkeypatch.chdir(elsewhere)
    found = measured(root)
    assert (found.files, found.apparent_bytes, found.directories) == (3, 7, 2)


def test_files_that_all_vanish_during_the_walk_leave_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = fill(tmp_path / "t")
    monkeypatch.setattr(os, "listdir", lambda path: ["vanished", "too"])
    found = measured(root, fingerprint=True, newer_than_ns=0)
    assert (found.files, found.directories, found.oddities) == (0, 1, ())


def test_a_link_is_not_followed_beside_what_vanishes_during_the_walk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, outside = fill(tmp_path / "t"), fill(tmp_path / "outside", big=1 << 20)
    (root / "directory").symlink_to(outside)
    (root / "file").symlink_to(outside / "big")
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: [*listdir(path), "vanished"])
    found = measured(root)
    assert kinds(found) == {"directory": "symlink", "file": "symlink"}
    assert (found.files, found.directories, found.apparent_bytes) == (2, 1, 0)


def test_files_that_vanish_during_the_walk_are_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = fill(tmp_path / "t", a=1, b=1)
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: ["first", *listdir(path), "vanished"])
    found = measured(root, fingerprint=True, keep=list)
    assert (found.files, found.oddities) == (2, ())
    assert sorted(found.names) == ["a", "b"]


def test_a_directory_that_vanishes_during_the_walk_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = fill(tmp_path / "t", a=1)
    (root / "x").mkdir()
    real = os.open

    def remove_first(path: Any, *args: Any, **settings: Any) -> int:
        if path == "x":
            (root / "x").rmdir()
        return real(path, *args, **settings)

    monkeypatch.setattr(os, "open", remove_first)
    assert (measured(root).files, kinds(measured(root))) == (1, {})


@pytest.mark.parametrize("error", [errno.ENOENT, errno.EACCES])
def test_directories_are_measured_behind_one_that_vanished_or_can_not_be_opened(
    error: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = fill(tmp_path / "t")
    for name in "xyz":
        fill(root / name, b=1)
    listdir, real = os.listdir, os.open

    def fails(path: Any, *args: Any, **settings: Any) -> int:
        if path == "x":
            raise OSError(error, os.strerror(error))
        return real(path, *args, **settings)

    monkeypatch.setattr(os, "open", fails)
    monkeypatch.setattr(os, "listdir", lambda path: sorted(listdir(path)))
    found = measured(root)
    assert (found.files, found.apparent_bytes) == (2, 2)
    unreadable = [oddity.path for oddity in found.oddities if oddity.kind == "unreadable"]
    assert unreadable == (["x"] if error == errno.EACCES else [])


def test_a_directory_that_becomes_a_link_during_the_walk_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, outside = fill(tmp_path / "t"), fill(tmp_path / "outside", big=1 << 20)
    (root / "x").mkdir()
    real = os.open

    def swap_first(path: Any, *args: Any, **settings: Any) -> int:
        if path == "x" and not (root / "x").is_symlink():
            (root / "x").rmdir()
            (root / "x").symlink_to(outside)
        return real(path, *args, **settings)

    monkeypatch.setattr(os, "open", swap_first)
    found = measured(root)
    assert (found.files, found.apparent_bytes) == (0, 0)
    assert "unreadable" in [oddity.kind for oddity in found.oddities]


def test_a_directory_without_rights_is_unreadable_and_the_rest_is_measured(
    public_path: Path, unprivileged: Unprivileged
) -> None:
    root = fill(public_path / "t", a=1)
    root.chmod(0o755)
    (root / "x").mkdir(mode=0o000)
    found: Tree = unprivileged(lambda: measured(root))
    (root / "x").chmod(0o700)
    assert found.files == 1
    assert ("x", "unreadable", "Permission denied") in [
        (o.path, o.kind, o.detail) for o in found.oddities
    ]


def test_a_directory_that_may_be_listed_but_not_entered_is_unreadable(
    public_path: Path, unprivileged: Unprivileged
) -> None:
    root = fill(public_path / "t", a=1, b=1)
    root.chmod(0o444)
    found: Tree = unprivileged(lambda: measured(root))
    root.chmod(0o755)
    assert kinds(found) == {"a": "unreadable", "b": "unreadable"}


@pytest.mark.parametrize("what", ["tmpfs", "bind"])
def test_a_mount_inside_is_named_and_not_entered(what: str, tmp_path: Path, mount: Mount) -> None:
    root, outside = fill(tmp_path / "t", a=1), fill(tmp_path / "outside", big=1 << 20)
    (root / "x").mkdir()
    mount(root / "x", source=outside if what == "bind" else None)
    found = measured(root)
    assert ("x", "mount-point") in [(o.path, o.kind) for o in found.oddities]
    assert (found.files, found.apparent_bytes) == (1, 1)
