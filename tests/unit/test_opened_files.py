"""What is opened is what was meant, nobody sees that it was, and it is closed again."""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from shardtool.disk.durable import READ_DIRECTORY, open_quietly, opened, opened_quietly
from shardtool.disk.files import is_zero, opened_file, temporary_directory, zeros_until_end
from tests.conftest import Unprivileged

LONG_AGO = 1_000_000_000


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "file"
    made.write_bytes(b"words")
    return made


@pytest.mark.parametrize("way", [opened, opened_quietly])
@pytest.mark.parametrize("is_failing", [True, False])
def test_what_was_opened_is_closed(
    way: Callable[[Path, int], AbstractContextManager[int]], is_failing: bool, file: Path
) -> None:
    try:
        with way(file, os.O_RDONLY) as descriptor:
            assert os.read(descriptor, 10) == b"words"
            if is_failing:
                raise ZeroDivisionError
    except ZeroDivisionError:
        assert is_failing
    with pytest.raises(OSError) as closed:
        os.fstat(descriptor)
    assert closed.value.errno == errno.EBADF


def test_what_is_created_everybody_may_read_and_its_owner_write(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with opened(tmp_path / "new", os.O_WRONLY | os.O_CREAT) as descriptor:
            assert stat.S_IMODE(os.fstat(descriptor).st_mode) == 0o644
    finally:
        os.umask(before)


def test_reading_quietly_leaves_no_access_time(file: Path) -> None:
    os.utime(file, (LONG_AGO, LONG_AGO))  # any mount would set it at the next read, or none does
    with opened_quietly(file, os.O_RDONLY) as descriptor:
        assert os.read(descriptor, 10) == b"words"
    assert file.stat().st_atime == LONG_AGO


def test_who_may_not_read_quietly_reads_the_same_file(unprivileged: Unprivileged) -> None:
    def read() -> bytes:
        with opened("/etc", READ_DIRECTORY) as directory:
            descriptor = open_quietly("passwd", os.O_RDONLY, dir_fd=directory)
        with open(descriptor, "rb") as passwd:
            return passwd.read()

    assert unprivileged(read) == read() == Path("/etc/passwd").read_bytes()


@pytest.mark.parametrize("limit", [5, 6])
def test_a_file_is_opened_with_its_size(limit: int, file: Path) -> None:
    with opened_file(file, limit) as (content, size):
        assert (content.read(), size) == (b"words", 5)


def test_a_file_larger_than_it_may_be_is_refused(file: Path) -> None:
    with pytest.raises(OSError, match="5 bytes, more than the 4"), opened_file(file, 4):
        pass


def test_a_link_is_not_followed(file: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(file)
    with pytest.raises(OSError) as refused, opened_file(tmp_path / "link", 10):
        pass
    assert refused.value.errno == errno.ELOOP


@pytest.mark.timeout(20)
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_refused_and_not_waited_for(
    make: Callable[[Path], None], tmp_path: Path
) -> None:
    make(tmp_path / "made")
    with pytest.raises(OSError, match="no regular file"), opened_file(tmp_path / "made", 1 << 20):
        pass


def test_a_temporary_directory_is_its_owners_alone_and_goes_with_what_is_in_it(
    file: Path, tmp_path: Path
) -> None:
    with temporary_directory(prefix="mine-", parent=tmp_path) as path:
        assert path.parent == tmp_path
        assert path.name.startswith("mine-")
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        (path / "directory").mkdir()
        (path / "link").symlink_to(file)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    assert file.read_bytes() == b"words"


def test_a_temporary_directory_that_somebody_has_removed_is_no_error(tmp_path: Path) -> None:
    with temporary_directory(parent=tmp_path) as path:
        path.rmdir()


@pytest.mark.parametrize(
    ("data", "are_zeros"),
    [(b"", True), (bytes(3), True), (b"\0\1\0", False), (b"\1", False)],
)
def test_zeros_are_told_from_anything_else(data: bytes, are_zeros: bool) -> None:
    assert is_zero(data) is are_zeros
    for before in b"", bytes(3 << 20):
        assert zeros_until_end(io.BytesIO(before + data)) is are_zeros
