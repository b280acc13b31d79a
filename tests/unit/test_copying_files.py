"""Trees are listed, copied, hashed and synced as they are: no link followed, no name left out."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shardtool.disk import copy
from shardtool.disk.copy import (
    Entry,
    Reader,
    entry_of,
    kind_of,
    new_file,
    open_regular,
    opened_below,
    read_bounded,
    survey,
)
from shardtool.disk.durable import READ_DIRECTORY, opened
from tests.conftest import Unprivileged

CONTENT = random.Random(7).randbytes((4 << 20) + 5)  # five reads, the last one short
LONGEST = "/".join(["d" * 255] * 7 + ["e" * 127, "f" * 128])  # 2,048 bytes


class Count:
    """Counts what a Reader has done."""

    done = 0

    def advance(self, count: int) -> None:
        """Count it."""
        self.done += count


@pytest.fixture
def reader() -> Iterator[Reader]:
    with Reader() as reader:
        yield reader


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "file").write_bytes(CONTENT)
    with opened(tmp_path / "file", os.O_RDONLY) as descriptor:
        yield descriptor


@pytest.fixture
def forgotten(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Return a list, which grows, of what memory was told to forget: descriptor, begin, length."""
    seen: list[tuple[int, ...]] = []
    advise = os.posix_fadvise

    def noted(descriptor: int, begin: int, length: int, advice: int) -> None:
        advise(descriptor, begin, length, advice)
        assert advice == os.POSIX_FADV_DONTNEED
        seen.append((descriptor, begin, length))

    monkeypatch.setattr(os, "posix_fadvise", noted)
    return seen


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def descriptors() -> list[str]:
    return sorted(os.listdir("/proc/self/fd"))


# -- listing --


def test_everything_is_listed_as_what_it_is(
    root: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dir/sub").mkdir(parents=True)
    (tmp_path / "dir/file").write_bytes(b"12345")
    (tmp_path / "dir/link").symlink_to("file")
    (tmp_path / "dir/lost").symlink_to("nowhere")
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as listener, monkeypatch.context() as patch:
        patch.chdir(tmp_path)
        listener.bind("sock")
    assert [(entry.path, entry.kind, entry.size, entry.target) for entry in survey(root)] == [
        ("dir", "directory", 0, ""),
        ("dir/file", "file", 5, ""),
        ("dir/link", "link", 0, "file"),
        ("dir/lost", "link", 0, "nowhere"),
        ("dir/sub", "directory", 0, ""),
        ("fifo", "fifo", 0, ""),
        ("sock", "socket", 0, ""),
    ]
    assert kind_of(os.stat("/dev/null").st_mode) == "device"


def test_a_root_with_a_name_is_the_first_and_begins_all_others(root: int, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    first, second = survey(root, "wal")
    assert first == entry_of("wal", os.fstat(root))
    assert second == entry_of("wal/file", (tmp_path / "file").stat())


def test_of_an_entry_its_owner_mode_time_and_identity_are_those_of_the_file(
    root: int, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "file").chmod(0o4750)
    os.utime(tmp_path / "file", ns=(1, 2))
    found = (tmp_path / "file").stat()
    (entry,) = survey(root)
    assert (entry.mode, entry.mtime_ns) == (0o4750, 2)
    assert (entry.uid, entry.gid) == (found.st_uid, found.st_gid)
    assert entry.identity == (found.st_dev, found.st_ino, found.st_ctime_ns)


@pytest.mark.parametrize("is_directory", [True, False])
def test_what_vanishes_meanwhile_hides_nothing_behind_it(
    is_directory: bool, root: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file before it is looked at, a directory before it is opened."""
    (tmp_path / "b").touch()
    look = os.stat
    if is_directory:
        (tmp_path / "a").mkdir()

    def then_removed(name: str, **settings: Any) -> os.stat_result:
        found = look(name, **settings)
        if name == "a":
            (tmp_path / "a").rmdir()
        return found

    listed = os.listdir
    monkeypatch.setattr(os, "stat", then_removed)
    monkeypatch.setattr(os, "listdir", lambda at: sorted({"a", *listed(at)}))
    assert [entry.path for entry in survey(root)] == ["b"]


def test_a_directory_that_may_not_be_listed_is_told_with_the_reason_and_the_rest_is_listed(
    locked: Path, unprivileged: Unprivileged
) -> None:
    def listed() -> list[Entry]:
        with opened(locked, READ_DIRECTORY) as root:
            return survey(root)

    a, b, c = unprivileged(listed)
    assert b == Entry("b", "unreadable", 0, 0, 0, 0, 0, "Permission denied")
    assert [(entry.path, entry.kind) for entry in (a, c)] == [("a", "file"), ("c", "file")]


def test_a_directory_that_the_disk_can_not_list_is_told_and_left_open_by_nobody(
    root: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").touch()
    listed, before = os.listdir, descriptors()

    def fails(at: int | str) -> list[str]:
        if isinstance(at, int) and os.path.samestat(os.fstat(at), (tmp_path / "a").stat()):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return listed(at)

    monkeypatch.setattr(os, "listdir", fails)
    a, b = survey(root)
    assert a == Entry("a", "unreadable", 0, 0, 0, 0, 0, "Input/output error")
    assert b.path == "b"
    assert descriptors() == before


def test_a_path_is_listed_up_to_the_length_that_can_be_worked_with(
    root: int, tmp_path: Path
) -> None:
    (tmp_path / LONGEST).mkdir(parents=True)
    before = descriptors()
    assert survey(root)[-1].path == LONGEST
    assert descriptors() == before
    (tmp_path / LONGEST).with_name("f" * 129).touch()
    with pytest.raises(OSError) as refused:
        survey(root)
    assert refused.value.errno == errno.ENAMETOOLONG
    assert descriptors() == before


# -- opening --


def test_a_file_below_is_opened_for_reading_and_closed(root: int, tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/file").write_bytes(b"words")
    before = descriptors()
    with opened_below(root, "a/b/file") as file:
        assert os.read(file, 10) == b"words"
    assert descriptors() == before


@pytest.mark.parametrize("path", ["link/b/file", "a/link/file", "a/b/link"])
def test_no_part_of_a_path_is_followed_where_it_is_a_link(
    path: str, root: int, tmp_path: Path
) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/file").touch()
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "a/link").symlink_to("b")
    (tmp_path / "a/b/link").symlink_to("file")
    assert (tmp_path / path).exists()
    with pytest.raises(OSError) as refused, opened_below(root, path):
        pass
    assert refused.value.errno in (errno.ELOOP, errno.ENOTDIR)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_refused_and_not_waited_for(
    make: Callable[[Path], None], root: int, tmp_path: Path
) -> None:
    make(tmp_path / "made")
    with pytest.raises(OSError, match="no regular file"), open_regular("made", dir_fd=root):
        pass
    with pytest.raises(OSError, match="no regular file"), open_regular(tmp_path / "made"):
        pass


@pytest.mark.parametrize("most", [5, 6, 1 << 20])
def test_a_file_as_long_as_it_may_be_is_read_whole(most: int, root: int, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"words")
    assert read_bounded("file", most, dir_fd=root) == b"words"


@pytest.mark.parametrize("most", [0, 4])
def test_a_file_longer_than_it_may_be_is_refused(most: int, root: int, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"words")
    with pytest.raises(OSError, match=f"more than {most} bytes"):
        read_bounded("file", most, dir_fd=root)


def test_a_new_file_is_its_owners_alone_and_closed_when_it_is_written(
    root: int, tmp_path: Path
) -> None:
    umask = os.umask(0)
    before = descriptors()
    try:
        with new_file("new", dir_fd=root) as file:
            os.write(file, b"words")
    finally:
        os.umask(umask)
    assert descriptors() == before
    assert (tmp_path / "new").read_bytes() == b"words"
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["file", "link", "lost"])
def test_nothing_is_written_where_something_has_the_name(
    name: str, root: int, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"words")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "lost").symlink_to("nowhere")
    with pytest.raises(FileExistsError), new_file(name, dir_fd=root):
        pass
    assert (tmp_path / "file").read_bytes() == b"words"
    assert not (tmp_path / "nowhere").exists()


# -- reading and copying --


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (2 << 20) - 1, len(CONTENT)])
def test_what_is_copied_is_what_was_hashed_and_counted(
    size: int, reader: Reader, root: int, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(CONTENT[:size])
    counter = Count()
    with opened_below(root, "file") as source, new_file("copy", dir_fd=root) as target:
        found = reader.digest(source, counter, target=target)
    assert found == (sha256(CONTENT[:size]), size)
    assert counter.done == size
    assert sha256((tmp_path / "copy").read_bytes()) == found[0]


@pytest.mark.parametrize("most", [0, 1, 1 << 20, (1 << 20) + 9, len(CONTENT), len(CONTENT) + 1])
@pytest.mark.parametrize("way", [Reader.digest, Reader.digest_from_disk])
def test_of_a_file_that_grows_no_more_is_read_than_was_asked_for(
    way: Callable[..., tuple[str, int]], most: int, reader: Reader, file: int
) -> None:
    counter = Count()
    wanted = CONTENT[:most]
    assert way(reader, file, counter, most=most) == (sha256(wanted), len(wanted))
    assert counter.done == len(wanted)


def test_nothing_is_read_over_what_is_not_hashed_yet(
    reader: Reader, file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow:
        def __init__(self) -> None:
            self.real = hashlib.new("sha256")
            self.hexdigest = self.real.hexdigest

        def update(self, content: memoryview) -> None:
            time.sleep(0.02)  # longer than all of it takes to read
            self.real.update(content)

    wanted = sha256(CONTENT)
    monkeypatch.setattr(hashlib, "sha256", Slow)
    assert reader.digest(file, Count()) == (wanted, len(CONTENT))


def test_a_file_is_told_to_be_forgotten_whole_before_the_disk_is_asked_for_it(
    reader: Reader, file: int, forgotten: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    digest, before = reader.digest, []

    def noted(*words: Any, **settings: Any) -> tuple[str, int]:
        before.extend(forgotten)
        return digest(*words, **settings)

    monkeypatch.setattr(reader, "digest", noted)
    assert reader.digest_from_disk(file, Count()) == (sha256(CONTENT), len(CONTENT))
    assert before == forgotten == [(file, 0, 0)]  # a length of 0: to the end, posix_fadvise(2)


def test_a_large_copy_leaves_memory_to_others_as_it_goes_on(
    reader: Reader,
    file: int,
    root: int,
    forgotten: list[tuple[int, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(copy, "_FLUSH", 2 << 20)
    reader.digest(file, Count())
    assert forgotten == []
    os.lseek(file, 0, os.SEEK_SET)
    with new_file("copy", dir_fd=root) as target:
        reader.digest(file, Count(), target=target)
    assert forgotten == [(target, 0, 2 << 20), (target, 0, 4 << 20)]


def test_a_reader_leaves_no_thread(file: int) -> None:
    before = threading.active_count()
    with Reader() as reader:
        reader.digest(file, Count())
        assert threading.active_count() > before
    assert threading.active_count() == before
