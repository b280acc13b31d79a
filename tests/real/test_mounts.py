"""Mount points, bind mounts among them, whatever their names."""

from __future__ import annotations

import os
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest

from shardtool.disk.durable import READ_DIRECTORY
from shardtool.disk.mounts import mount_id, mount_points, mounts_at_or_below
from tests.conftest import REPOSITORY, Mount
from tests.needs import lacking


def id_of(path: Path) -> int:
    """Return the id of the mount that a path lies on."""
    descriptor = os.open(path, READ_DIRECTORY)
    try:
        return mount_id(descriptor)
    finally:
        os.close(descriptor)


def test_the_root_is_a_mount_point() -> None:
    assert "/" in mount_points()


def test_a_bind_mount_of_a_directory_is_one(tmp_path: Path, mount: Mount) -> None:
    for name in ("source", "target"):
        (tmp_path / name).mkdir()
    mount(tmp_path / "target", source=tmp_path / "source")
    assert not os.path.ismount(tmp_path / "target")
    assert str(tmp_path / "target") in mount_points()
    assert id_of(tmp_path / "target") != id_of(tmp_path)


def test_a_bind_mount_of_a_file_is_one(tmp_path: Path, mount: Mount) -> None:
    for name in ("source", "target"):
        (tmp_path / name).touch()
    mount(tmp_path / "target", source=tmp_path / "source")
    assert mounts_at_or_below(tmp_path, mount_points()) == (str(tmp_path / "target"),)


@pytest.mark.parametrize(
    "name",
    [
        b"with space",
        b"tab\there",
        b"line\nbreak",
        b"back\\slash",
        b"\\040",
        b"#1",
        b"\xff\xfe",
        "größe".encode(),
        b"\x1b[2J",
        b"return\rhere",
    ],
)
def test_a_mount_point_of_any_name_is_found(name: bytes, tmp_path: Path, mount: Mount) -> None:
    target = tmp_path / os.fsdecode(name)
    target.mkdir()
    mount(target)
    assert str(target) in mount_points()


def test_a_mount_point_with_carriage_returns_crashes_nothing(tmp_path: Path) -> None:
    """Any user with FUSE can make one, anywhere on the machine. In a namespace of its own."""
    target = tmp_path / "a\rb\rc"
    target.mkdir()
    script = 'mount -t tmpfs none "$1" && exec "$2" -c "$3"'
    look = "from shardtool.disk.mounts import mount_points; assert '/' in mount_points()"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", str(target), sys.executable, look],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    if "unshare:" in done.stderr or "mount:" in done.stderr:
        lacking(f"mounts: {done.stderr.strip()}")
    assert (done.returncode, done.stderr) == (0, "")


def test_directories_of_one_mount_have_one_id(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    assert id_of(tmp_path / "x") == id_of(tmp_path)


def test_only_what_is_at_a_path_or_below_it_counts() -> None:
    mounts = frozenset({"/", "/d", "/d/7", "/d/7/x", "/d/77", "/d/7x"})
    assert mounts_at_or_below(Path("/d/7"), mounts) == ("/d/7", "/d/7/x")


def test_a_proc_that_does_not_tell_the_mount_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were it taken for the same mount as any other, a walk would cross every one."""
    told = StringIO("pos:\t0\nflags:\t0100000\n")
    monkeypatch.setattr("builtins.open", lambda *args, **settings: told)
    with pytest.raises(OSError, match="no mnt_id"):
        mount_id(0)
