"""Directories that are made where they are missing are on disk, and as wide as was asked for."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardtool.disk.durable import (
    READ_DIRECTORY,
    made_directory,
    make_directories,
    opened,
    sync_directory,
)
from tests.needs import needs_root

NOBODY = 65534


@pytest.fixture
def no_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def made_in(directory: Path) -> None:
    with (
        opened(directory, READ_DIRECTORY) as above,
        made_directory("new", dir_fd=above, like=directory),
    ):
        pass


def test_a_directory_is_synced(tmp_path: Path, synced: list[Path]) -> None:
    sync_directory(tmp_path)
    assert synced == [tmp_path]


def test_each_that_is_made_is_synced_and_so_is_its_name(tmp_path: Path, synced: list[Path]) -> None:
    make_directories(tmp_path / "a/b", like=tmp_path)
    assert synced == [tmp_path / "a", tmp_path, tmp_path / "a/b", tmp_path / "a"]


def test_one_that_a_killed_run_may_have_made_is_synced_all_the_same(
    tmp_path: Path, synced: list[Path]
) -> None:
    (tmp_path / "new").mkdir()
    made_in(tmp_path)
    assert synced == [tmp_path / "new", tmp_path]


@pytest.mark.usefixtures("no_umask")
def test_others_may_look_and_not_write_unless_something_else_is_asked_for(tmp_path: Path) -> None:
    make_directories(tmp_path / "a/b", like=tmp_path)
    make_directories(tmp_path / "c/d", like=tmp_path, mode=0o700)
    made_in(tmp_path)
    assert [mode(tmp_path / name) for name in ("a", "a/b", "new")] == [0o755] * 3
    assert [mode(tmp_path / name) for name in ("c", "c/d")] == [0o700] * 2


@needs_root
def test_one_that_was_there_is_not_given_away_even_where_it_is_empty(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    os.chown(tmp_path, NOBODY, NOBODY)
    made_in(tmp_path)
    assert (tmp_path / "new").stat().st_uid == 0
