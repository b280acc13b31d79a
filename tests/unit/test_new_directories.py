"""What is made in a directory that somebody else may write in is ours, or is not given away."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from shardtool.disk.durable import (
    READ_DIRECTORY,
    insist_on_same,
    make_directories,
    opened,
    take_new_directory,
)
from tests.needs import needs_root

NOBODY = 65534


def taken(path: Path) -> None:
    with opened(path, READ_DIRECTORY) as descriptor:
        take_new_directory(path.name, descriptor)


@needs_root
def test_a_directory_that_somebody_has_put_in_the_place_of_ours_is_taken_from_him(
    tmp_path: Path,
) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    theirs.chmod(0o777)
    os.chown(theirs, NOBODY, NOBODY)

    taken(theirs)

    found = theirs.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (0, 0, 0o700)


def test_our_own_new_directory_is_left_as_it_is(tmp_path: Path) -> None:
    ours = tmp_path / "ours"
    ours.mkdir(0o700)
    before = ours.stat()

    taken(ours)

    assert ours.stat().st_ctime_ns == before.st_ctime_ns


def test_one_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "planted/link").mkdir(parents=True)
    (tmp_path / "planted").chmod(0o755)

    with pytest.raises(OSError, match="another process") as refused:
        taken(tmp_path / "planted")
    assert refused.value.filename == "planted"
    assert stat.S_IMODE((tmp_path / "planted").stat().st_mode) == 0o755, "it may be anybody's"


@needs_root
@pytest.mark.parametrize("content", [True, False])
def test_only_what_is_new_and_empty_is_given_away(
    content: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db, mkdir = tmp_path / "db", os.mkdir
    (db / "private").mkdir(parents=True)
    os.chown(db, NOBODY, NOBODY)

    def swapped(name: str, mode: int, *, dir_fd: int) -> None:
        mkdir(name, mode, dir_fd=dir_fd)
        if content:
            (db / name).rename(db / "moved")
            (db / "private/secret").write_text("of root")
            (db / "private").rename(db / name)

    monkeypatch.setattr(os, "mkdir", swapped)
    make_directories(db / ".shardtool", like=db)

    assert (db / ".shardtool").stat().st_uid == (0 if content else NOBODY)


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
