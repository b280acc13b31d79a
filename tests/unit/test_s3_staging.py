"""What is staged for a bucket is private, and nothing of it stays; others' things do."""

from __future__ import annotations

import fcntl
import os
import re
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from shardtool.disk.durable import READ_DIRECTORY, opened
from shardtool.errors import ShardtoolError
from shardtool.snapshots.remote.staging import staging
from tests.conftest import Mount
from tests.needs import needs_root
from tests.unit.staging_world import rights_of

NOBODY = 65534
LEFT = "shardtool-s3-left0123"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a TMPDIR of the test's own."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    return tmp_path / "tmp"


def left_in(place: Path, name: str = LEFT) -> Path:
    """Leave there what a killed run leaves."""
    (place / name).mkdir(mode=0o700)
    (place / name / "store/snapshot").mkdir(parents=True)
    (place / name / "store/snapshot/file").write_bytes(b"hash")
    return place / name


# -- where it is, and that it goes --


def test_it_is_an_empty_directory_of_our_own_and_gone_afterwards(place: Path) -> None:
    umask = os.umask(0)
    try:
        with staging() as store:
            assert (store.name, store.parent.parent) == ("store", place)
            assert re.fullmatch(r"shardtool-s3-\w+", store.parent.name)
            assert os.listdir(store) == []
            modes = {stat.S_IMODE(path.stat().st_mode) for path in (store, store.parent)}
            assert modes == {0o700}
            (store / "file").write_bytes(b"hash")
    finally:
        os.umask(umask)
    assert os.listdir(place) == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_it_is_gone_however_the_work_ends(error: type[BaseException], place: Path) -> None:
    with pytest.raises(error), staging() as store:
        (store / "file").write_bytes(b"hash")
        raise error
    assert os.listdir(place) == []


def test_it_may_be_gone_before(place: Path) -> None:
    with staging() as store:
        store.rmdir()
        store.parent.rmdir()
    assert os.listdir(place) == []


def test_a_tmpdir_may_be_named_by_where_we_are(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place.parent)
    monkeypatch.setenv("TMPDIR", "tmp")
    with staging() as store:
        assert store.parent.parent == place


def test_without_a_tmpdir_it_is_where_large_things_go(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", "")
    with staging() as store:
        assert store.parent.parent == Path("/var/tmp")
    assert not store.parent.exists()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    wanted: list[tuple[Path, int]] = []

    def refuse(path: Path, mode: int) -> bool:
        wanted.append((path, mode))
        return False

    monkeypatch.setattr(os, "access", refuse)
    with staging() as store:
        assert store.parent.parent == place
    assert wanted == [(Path("/var/tmp"), os.W_OK | os.X_OK)]


@needs_root
def test_what_can_not_be_removed_is_told(place: Path, mount: Mount) -> None:
    with pytest.raises(ShardtoolError) as told, staging() as store:
        (store / "in").mkdir()
        mount(store / "in")
    assert str(told.value).startswith(
        f"{store.parent}: expected to remove what was staged, found: "
    )
    assert "remove it by hand, it holds password hashes" in str(told.value)
    assert store.parent.is_dir()


def test_a_directory_that_can_not_be_removed_itself_is_told(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove = os.rmdir

    def refuse(name: str, *, dir_fd: int) -> None:
        if name.startswith("shardtool-s3-"):
            raise PermissionError(1, "Operation not permitted")
        remove(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "rmdir", refuse)
    with pytest.raises(ShardtoolError) as told, staging() as store:
        pass
    assert f"found: {store.parent.name}: Operation not permitted; remove" in str(told.value)


@needs_root
@pytest.mark.parametrize("mode", [None, 0o500])
def test_where_it_can_not_be_made_another_tmpdir_is_advised(
    mode: int | None, public_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = public_path / "tmp"
    if mode is not None:
        place.mkdir()
        os.chown(place, NOBODY, NOBODY)
        place.chmod(mode)
    monkeypatch.setenv("TMPDIR", str(place))
    line = f"^{re.escape(str(place))}: expected to make a directory in it, found: "
    with rights_of(NOBODY, NOBODY), pytest.raises(ShardtoolError, match=line), staging():
        pytest.fail("it can't be made")


# -- what others have there --


def test_what_a_killed_run_left_is_removed(place: Path) -> None:
    left_in(place)
    with staging() as store:
        assert os.listdir(place) == [store.parent.name]


def test_what_a_run_at_work_has_is_left_alone(place: Path) -> None:
    left = left_in(place)
    with opened(left, READ_DIRECTORY) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with staging() as store:
            assert sorted(os.listdir(place)) == sorted([LEFT, store.parent.name])
    assert (left / "store/snapshot/file").exists()


def another_name(place: Path) -> Path:
    return left_in(place, "shardtool-s3-left.0123")


def with_another_mode(place: Path) -> Path:
    left = left_in(place)
    left.chmod(0o755)
    return left


def of_somebody_else(place: Path) -> Path:
    left = left_in(place)
    os.chown(left, NOBODY, NOBODY)
    return left


def behind_a_link(place: Path) -> Path:
    left = left_in(place.parent)
    (place / LEFT).symlink_to(left)
    return left


@needs_root
@pytest.mark.parametrize("make", [another_name, with_another_mode, of_somebody_else, behind_a_link])
def test_what_may_not_be_ours_is_left_alone(make: Callable[[Path], Path], place: Path) -> None:
    left = make(place)
    ours = left_in(place, "shardtool-s3-zzzz")
    with staging():
        assert not ours.exists()  # and it hides none that comes after it
    assert (left / "store/snapshot/file").exists()


def test_one_that_somebody_else_got_hold_of_first_is_not_taken(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever looks for leftovers at that moment takes it for one: another is made."""
    make = tempfile.mkdtemp
    held: list[int] = []

    def made(prefix: str, dir: Path) -> str:
        path = make(prefix=prefix, dir=dir)
        if not held:
            held.append(os.open(path, READ_DIRECTORY))
            fcntl.flock(held[0], fcntl.LOCK_EX)
        return path

    monkeypatch.setattr(tempfile, "mkdtemp", made)
    with staging() as store:
        assert len(os.listdir(place)) == 2
        assert os.listdir(store) == []
    os.close(held[0])


def test_it_is_locked_until_it_is_gone(place: Path) -> None:
    with staging() as store, opened(store.parent, READ_DIRECTORY) as other:
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with staging():
            assert store.is_dir()
