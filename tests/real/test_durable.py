"""A file that is replaced is whole under its name at every moment, whatever goes wrong."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardtool.disk.durable import READ_DIRECTORY, replace_file


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    """Open a directory."""
    descriptor = os.open(tmp_path, READ_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


def test_a_file_gets_its_content_its_mode_and_no_other_name(tmp_path: Path, directory: int) -> None:
    before = os.umask(0o077)
    try:
        for content in (b"first", b"second, longer", b""):
            replace_file(directory, "file", content)
            assert (tmp_path / "file").read_bytes() == content
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644
    assert names(tmp_path) == ["file"]


def test_a_reader_that_has_the_old_one_open_keeps_it(tmp_path: Path, directory: int) -> None:
    replace_file(directory, "file", b"old")
    with (tmp_path / "file").open("rb") as reader:
        replace_file(directory, "file", b"new")
        assert reader.read() == b"old"


@pytest.mark.parametrize("planted", ["file", ".file.{pid}"])
def test_nothing_is_written_through_a_link(planted: str, tmp_path: Path, directory: int) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / planted.format(pid=os.getpid())).symlink_to(victim)
    replace_file(directory, "file", b"new")
    assert victim.read_bytes() == b"precious"
    assert not (tmp_path / "file").is_symlink()
    assert names(tmp_path) == ["file", "victim"]


def test_a_fifo_under_the_name_is_replaced_and_not_waited_for(
    tmp_path: Path, directory: int
) -> None:
    os.mkfifo(tmp_path / "file")
    os.mkfifo(tmp_path / f".file.{os.getpid()}")
    replace_file(directory, "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"


def test_nothing_is_written_to_what_gets_the_new_ones_name_at_the_last_moment(
    tmp_path: Path, directory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")

    def planted(name: str, *, dir_fd: int) -> None:
        monkeypatch.undo()
        (tmp_path / name).hardlink_to(victim)

    monkeypatch.setattr(os, "unlink", planted)
    with pytest.raises(FileExistsError):
        replace_file(directory, "file", b"new")
    assert victim.read_bytes() == b"precious"
    assert names(tmp_path) == ["victim"]


@pytest.mark.parametrize("call", ["write", "fsync", "rename"])
def test_what_fails_leaves_the_old_one_and_nothing_else(
    call: str, tmp_path: Path, directory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_file(directory, "file", b"old")

    def fail(*given: object, **named: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="No space left"):
        replace_file(directory, "file", b"new")
    monkeypatch.undo()
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["file"]
