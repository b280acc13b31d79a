"""Directories of links to a user's files: whatever befalls them, the files are left alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NoReturn

import pytest

from fixtures import Node
from shardtool.disk.files import temporary_directory
from shardtool.influxdb.engines import open_shard
from shardtool.proof.scratch import scratch_directory


@pytest.fixture
def user_file(tmp_path: Path) -> Path:
    file = tmp_path / "file"
    file.write_bytes(b"a user's")
    file.chmod(0o640)
    return file


def refuse(*args: Any, **settings: Any) -> NoReturn:
    """Fail as unlink does in a directory that may not be changed."""
    raise PermissionError(1, "Operation not permitted")


def test_a_directory_of_links_goes_and_what_they_lead_to_stays(
    user_file: Path, tmp_path: Path
) -> None:
    with temporary_directory(parent=tmp_path) as directory:
        (directory / "link").symlink_to(user_file)
        assert directory.parent == tmp_path
        assert directory.stat().st_mode & 0o777 == 0o700
    assert not directory.exists()
    assert user_file.read_bytes() == b"a user's"


def test_a_link_that_can_not_be_removed_changes_no_mode_of_the_file_behind_it(
    user_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # tempfile's own TemporaryDirectory does, until Python 3.11.8 and 3.12.1.
    with temporary_directory(parent=tmp_path) as directory:
        (directory / "link").symlink_to(user_file)
        monkeypatch.setattr(os, "unlink", refuse)
    assert directory.exists()
    assert user_file.stat().st_mode & 0o777 == 0o640


def test_links_to_a_shard_that_can_not_be_removed_leave_the_shard_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(tmp_path / "data")
    shard = node.old_shard(1, points=3)
    before = {path.name: path.stat().st_mode for path in shard.iterdir()}
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    with scratch_directory() as scratch, open_shard(shard, "leveldb", scratch):
        monkeypatch.setattr(os, "unlink", refuse)
    assert {path.name: path.stat().st_mode for path in shard.iterdir()} == before
