"""A copied tree gets its owners, modes and times, is synced whole, and had its room beforehand."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from shardtool.disk.copy import Entry, room_for, set_attributes, sync_tree
from shardtool.disk.durable import READ_DIRECTORY, opened
from tests.conftest import Unprivileged
from tests.needs import needs_root

# -- syncing --


def test_every_file_and_directory_is_synced_and_the_root_last(
    root: int, tmp_path: Path, synced: list[Path]
) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    for name in ("a/b/file", "a/file", "file"):
        (tmp_path / name).touch()
    sync_tree(root)
    assert sorted(synced) == sorted([tmp_path, *tmp_path.rglob("*")])
    assert synced.index(tmp_path / "a/b") < synced.index(tmp_path / "a") < synced.index(tmp_path)
    assert synced[-1] == tmp_path


@pytest.mark.timeout(20)
def test_what_has_no_content_is_not_synced_and_no_error(
    root: int, tmp_path: Path, synced: list[Path]
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "lost").symlink_to("nowhere")
    os.mkfifo(tmp_path / "fifo")
    sync_tree(root)
    assert synced == [tmp_path / "file", tmp_path]


def test_what_can_not_be_listed_is_not_taken_for_durable(
    locked: Path, unprivileged: Unprivileged
) -> None:
    def sync() -> None:
        with opened(locked, READ_DIRECTORY) as root:
            sync_tree(root)

    with pytest.raises(OSError, match="Permission denied") as refused:
        unprivileged(sync)
    assert refused.value.filename == "b"


@pytest.mark.parametrize("name", ["file", "a", "."])
def test_a_sync_that_fails_is_told(
    name: str, root: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "file").touch()
    fsync = os.fsync

    def fails(descriptor: int) -> None:
        if os.path.samestat(os.fstat(descriptor), (tmp_path / name).stat()):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match="Input/output error"):
        sync_tree(root)


# -- owners, modes and times --


def test_a_link_gets_its_own_time_and_what_it_leads_to_stays_as_it_is(
    root: int, tmp_path: Path
) -> None:
    owner = (os.geteuid(), os.getegid())
    (tmp_path / "file").touch(mode=0o600)
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "lost").symlink_to("nowhere")
    before = (tmp_path / "file").stat()
    entries = [Entry(name, "link", 0o777, 0, 0, 0, 7) for name in ("link", "lost")]
    set_attributes(entries, dict.fromkeys(("link", "lost"), owner), dir_fd=root)
    assert (tmp_path / "file").stat() == before
    assert [(tmp_path / name).lstat().st_mtime_ns for name in ("link", "lost")] == [7, 7]


@needs_root
def test_root_gives_each_its_owner_a_link_too_and_set_id_bits_outlive_that(
    root: int, tmp_path: Path
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/file").touch()
    (tmp_path / "a/link").symlink_to("file")
    kinds = {"a": ("directory", 0o2750), "a/file": ("file", 0o4755), "a/link": ("link", 0o777)}
    entries = [Entry(path, kind, mode, 0, 0, 0, 1) for path, (kind, mode) in kinds.items()]
    owners = {path: (7 + number, 70 + number) for number, path in enumerate(kinds)}
    set_attributes(entries, owners, dir_fd=root)
    for path, (_, mode) in kinds.items():
        found = (tmp_path / path).lstat()
        assert (found.st_uid, found.st_gid) == owners[path]
        assert stat.S_IMODE(found.st_mode) == mode


def test_a_directory_whose_mode_shuts_its_owner_out_gets_it_after_what_is_in_it(
    public_path: Path, unprivileged: Unprivileged
) -> None:
    def restored() -> list[tuple[int, int]]:
        (public_path / "a/b").mkdir(parents=True)
        (public_path / "a/b/file").touch()
        entries = [
            Entry(path, kind, mode, 0, 0, 0, number)
            for number, (path, kind, mode) in enumerate(
                [("a", "directory", 0), ("a/b", "directory", 0o100), ("a/b/file", "file", 0o400)]
            )
        ]
        with opened(public_path, READ_DIRECTORY) as root:
            set_attributes(entries, {}, dir_fd=root)
        found = []
        for path in ("a", "a/b", "a/b/file"):
            entry = (public_path / path).stat()
            found.append((stat.S_IMODE(entry.st_mode), entry.st_mtime_ns))
            (public_path / path).chmod(0o700)
        return found

    public_path.chmod(0o777)
    assert unprivileged(restored) == [(0, 0), (0o100, 1), (0o400, 2)]


# -- room --


@pytest.mark.parametrize(
    ("sizes", "blocks"),
    [([], 0), ([0], 1), ([1, 0], 3), ([4096], 2), ([4097], 3), ([1, 4096, 12289], 9)],
)
def test_room_is_a_block_a_name_and_whole_blocks_for_the_content(
    sizes: list[int], blocks: int
) -> None:
    entries = [Entry("x", "file", 0o600, 0, 0, size, 0) for size in sizes]
    assert room_for(entries, 4096) == blocks * 4096
