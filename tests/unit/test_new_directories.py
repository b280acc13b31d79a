"""What is made in a directory that somebody else may write in is ours, or is not given away."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from shardtool.disk.durable import (
    READ_DIRECTORY,
    insist_on_same,
    make_directories,
    new_directory,
    opened,
)
from tests.conftest import Mount
from tests.needs import needs_root

NOBODY = 65534


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Have something be done between the making of a directory and its opening."""
    mkdir = os.mkdir

    def set_to(deed: Callable[[], object]) -> None:
        def made(name: str, mode: int, *, dir_fd: int) -> None:
            mkdir(name, mode, dir_fd=dir_fd)
            deed()

        monkeypatch.setattr(os, "mkdir", made)

    return set_to


Meanwhile = Callable[[Callable[[], object]], None]


def made_in(directory: Path) -> None:
    with opened(directory, READ_DIRECTORY) as above, new_directory("new", dir_fd=above):
        pass


@needs_root
@pytest.mark.parametrize(("owner", "mode"), [(NOBODY, 0o777), (1, 0o601)])
def test_a_directory_that_somebody_has_put_in_the_place_of_ours_is_taken_from_him(
    owner: int, mode: int, tmp_path: Path, meanwhile: Meanwhile
) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    theirs.chmod(mode)
    os.chown(theirs, owner, owner)
    meanwhile(lambda: os.replace(theirs, tmp_path / "new"))

    made_in(tmp_path)

    found = (tmp_path / "new").stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (0, 0, 0o700)


def test_our_own_new_directory_is_ours_alone(tmp_path: Path) -> None:
    made_in(tmp_path)

    found = (tmp_path / "new").stat()
    assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (os.geteuid(), 0o700)
    with pytest.raises(FileExistsError):
        made_in(tmp_path)


def test_it_is_ours_alone_from_the_start(tmp_path: Path, meanwhile: Meanwhile) -> None:
    modes = []
    meanwhile(lambda: modes.append(stat.S_IMODE((tmp_path / "new").stat().st_mode)))
    before = os.umask(0)
    try:
        made_in(tmp_path)
    finally:
        os.umask(before)
    assert modes == [0o700]


@needs_root
def test_what_the_directory_above_gives_to_our_own_stays(tmp_path: Path) -> None:
    os.chown(tmp_path, 0, 4712)
    tmp_path.chmod(0o2755)
    made_in(tmp_path)
    found = (tmp_path / "new").stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (0, 4712, 0o2700)


@needs_root
def test_one_on_which_somebody_has_mounted_his_own_is_refused_and_left_as_it_is(
    tmp_path: Path, meanwhile: Meanwhile, mount: Mount
) -> None:
    meanwhile(lambda: mount(tmp_path / "new"))
    with pytest.raises(OSError, match="another process") as refused:
        made_in(tmp_path)
    assert refused.value.filename == "new"
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o1777


def test_one_in_which_something_is_put_before_it_is_taken_is_refused(
    tmp_path: Path, meanwhile: Meanwhile, monkeypatch: pytest.MonkeyPatch
) -> None:
    chmod = os.fchmod

    def put_and_taken(descriptor: int, mode: int) -> None:
        (tmp_path / "new/link").symlink_to("/")
        chmod(descriptor, mode)

    meanwhile(lambda: (tmp_path / "new").chmod(0o755))
    monkeypatch.setattr(os, "fchmod", put_and_taken)
    with pytest.raises(OSError, match="another process"):
        made_in(tmp_path)


def test_one_with_something_in_it_is_refused_and_left_as_it_is(
    tmp_path: Path, meanwhile: Meanwhile
) -> None:
    planted = tmp_path / "planted"
    (planted / "link").mkdir(parents=True)
    planted.chmod(0o755)

    def swap() -> None:
        (tmp_path / "new").rmdir()
        planted.rename(tmp_path / "new")

    meanwhile(swap)
    with pytest.raises(OSError, match="another process") as refused:
        made_in(tmp_path)
    assert refused.value.filename == "new"
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o755, "it may be anybody's"


@needs_root
@pytest.mark.parametrize("is_swapped", [True, False])
def test_only_what_is_new_and_empty_is_given_away(
    is_swapped: bool, tmp_path: Path, meanwhile: Meanwhile
) -> None:
    db = tmp_path / "db"
    (db / "private").mkdir(parents=True)
    (db / "private/secret").write_text("of root")
    os.chown(db, NOBODY, NOBODY)

    def swap() -> None:
        if is_swapped:
            (db / ".shardtool").rename(db / "moved")
            (db / "private").rename(db / ".shardtool")

    meanwhile(swap)
    make_directories(db / ".shardtool", like=db)

    assert (db / ".shardtool").stat().st_uid == (0 if is_swapped else NOBODY)


def test_a_name_is_the_same_until_it_is_given_to_something_else(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    made = (tmp_path / "a").stat()
    with opened(tmp_path, READ_DIRECTORY) as directory:
        insist_on_same("a", made, dir_fd=directory)
        with pytest.raises(OSError, match="another process"):
            insist_on_same("b", made, dir_fd=directory)
        with pytest.raises(FileNotFoundError):
            insist_on_same("c", made, dir_fd=directory)
        (tmp_path / "c").symlink_to("a")
        with pytest.raises(OSError, match="another process"):
            insist_on_same("c", made, dir_fd=directory)
