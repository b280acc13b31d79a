"""What a tree holds: sizes, what is newer, its fingerprint."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fixtures import Node
from shardtool.disk.tree import reclaimable_links
from tests.real.tree.world import fill, fingerprint, kinds, measured


def blocks(*paths: Path) -> int:
    """Return the bytes that the file system has given to some names, links not followed."""
    return sum(path.lstat().st_blocks * 512 for path in paths)


def test_files_bytes_and_blocks_are_what_stat_says(tmp_path: Path) -> None:
    root = fill(tmp_path / "t", a=10, b=5000, c=0)
    found = measured(root)
    assert (found.files, found.directories, found.apparent_bytes) == (3, 1, 5010)
    assert found.allocated_bytes == blocks(root, *root.iterdir())
    assert found.reclaimable_bytes == found.allocated_bytes
    assert found.last_write_ns == max(p.stat().st_mtime_ns for p in root.iterdir())
    assert found.inode == root.stat().st_ino


def test_a_shard_of_the_real_engine_measures_like_du(tmp_path: Path) -> None:
    shard = Node(tmp_path / "data").old_shard(7, storage="tables")
    found = measured(shard)
    assert found.allocated_bytes == blocks(shard, *shard.iterdir())
    assert found.oddities == ()


def test_an_empty_directory_is_itself(tmp_path: Path) -> None:
    found = measured(fill(tmp_path / "t"))
    assert (found.files, found.directories, found.last_write_ns) == (0, 1, 0)
    assert found.allocated_bytes == blocks(tmp_path / "t")


def test_a_sparse_file_of_a_terabyte_gives_back_only_what_it_has(tmp_path: Path) -> None:
    root = fill(tmp_path / "t")
    try:
        with (root / "sparse").open("wb") as file:
            file.truncate(1 << 40)
            file.write(b"x" * 8192)
    except OSError as error:
        pytest.skip(f"this file system has no sparse files of that size: {error}")
    found = measured(root)
    assert found.apparent_bytes == 1 << 40
    assert found.reclaimable_bytes == blocks(root, root / "sparse") < 1 << 20


def test_preallocated_blocks_beyond_the_end_count(tmp_path: Path) -> None:
    root = fill(tmp_path / "t")
    with (root / "000003.log").open("wb") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, 1 << 20)
        except OSError as error:
            pytest.skip(f"this file system can't preallocate: {error}")
    assert measured(root).allocated_bytes >= 1 << 20


def test_a_file_with_two_names_inside_counts_once_and_comes_back(tmp_path: Path) -> None:
    root = fill(tmp_path / "t", a=9000)
    os.link(root / "a", root / "b")
    found = measured(root)
    assert (found.files, found.apparent_bytes) == (2, 18000)
    assert found.allocated_bytes == found.reclaimable_bytes == blocks(root, root / "a")


def test_a_file_with_a_name_outside_does_not_come_back(tmp_path: Path) -> None:
    root = fill(tmp_path / "t", a=9000, b=100)
    os.link(root / "a", tmp_path / "elsewhere")
    found = measured(root)
    assert found.allocated_bytes == blocks(root, root / "a", root / "b")
    assert found.reclaimable_bytes == blocks(root, root / "b")
    (linked,) = found.linked
    assert (linked.links, linked.seen) == (2, 1)


def test_two_names_in_different_directories_of_the_tree_are_both_seen(tmp_path: Path) -> None:
    root = fill(tmp_path / "t", a=9000)
    os.link(root / "a", fill(root / "below") / "b")
    assert measured(root).reclaimable_bytes == blocks(root, root / "below", root / "a")


def test_what_trees_share_comes_back_once_when_all_of_them_go(tmp_path: Path) -> None:
    first, second = fill(tmp_path / "s", a=9000, b=5000), fill(tmp_path / "t", c=20000)
    os.link(first / "a", second / "a")
    os.link(first / "b", second / "b")
    os.link(second / "c", second / "c-again")
    one, other = measured(first).linked, measured(second).linked
    assert reclaimable_links(one) == 0
    assert reclaimable_links(other) == blocks(second / "c")
    both = blocks(first / "a", first / "b", second / "c")
    assert reclaimable_links(one + other) == both
    seen_again = one + other + one  # names that were moved meanwhile, from one to the other
    assert reclaimable_links(seen_again) == both


def test_every_directory_beside_another_is_measured_with_all_below_it(tmp_path: Path) -> None:
    root = fill(tmp_path / "t")
    for name in "xyz":
        fill(fill(root / name, b=100) / "below", c=1)
    found = measured(root)
    assert (found.files, found.directories, found.apparent_bytes) == (6, 7, 303)
    assert found.allocated_bytes == blocks(root, *root.rglob("*"))


def test_a_link_is_not_followed_and_its_target_not_counted(tmp_path: Path) -> None:
    outside = fill(tmp_path / "outside", big=1 << 20)
    root = fill(tmp_path / "t")
    (root / "directory").symlink_to(outside)
    (root / "file").symlink_to(outside / "big")
    (root / "loop").symlink_to(".")
    found = measured(root)
    assert kinds(found) == dict.fromkeys(("directory", "file", "loop"), "symlink")
    assert (found.files, found.apparent_bytes) == (3, 0)
    assert found.allocated_bytes == blocks(root, *root.iterdir())


def test_fifos_and_sockets_are_named_and_nothing_waits_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = fill(tmp_path / "t")
    os.mkfifo(root / "fifo")
    monkeypatch.chdir(root)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        assert kinds(measured(root)) == {"fifo": "fifo", "socket": "socket"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
def test_a_device_is_named(tmp_path: Path) -> None:
    root = fill(tmp_path / "t")
    try:
        os.mknod(root / "null", 0o20666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("making devices is not permitted here")
    assert kinds(measured(root)) == {"null": "device"}


@pytest.mark.parametrize(
    "name",
    [
        b"\x1b[2J\x1b]0;owned\x07",
        b"a\nb",
        b"\xff\xfe",
        b"x" * 255,
        b" ",
        b"-rf",
        "größe".encode(),
    ],
)
def test_any_name_is_measured_and_comes_back_as_it_is(name: bytes, tmp_path: Path) -> None:
    root = fill(tmp_path / "t")
    (Path(os.fsdecode(os.fsencode(root) + b"/" + name))).write_bytes(b"12345")
    found = measured(root, keep=list, fingerprint=True)
    assert (found.apparent_bytes, found.names) == (5, (os.fsdecode(name),))


def test_directories_inside_are_measured_and_named(tmp_path: Path) -> None:
    root = fill(tmp_path / "t", a=1)
    fill(fill(root / "x", b=2) / "y", c=3)
    found = measured(root)
    assert (found.files, found.directories, found.apparent_bytes) == (3, 3, 6)
    assert kinds(found) == {"x": "directory", "x/y": "directory"}


def test_only_names_at_the_top_are_kept(tmp_path: Path) -> None:
    root = fill(tmp_path / "t", a=1)
    fill(root / "x", b=2)
    assert sorted(measured(root, keep=list).names) == ["a", "x"]


@pytest.mark.parametrize("beside", ["nothing", "a directory", "a link", "a hard link"])
def test_what_was_written_after_a_moment_is_listed_whatever_lies_beside_it(
    beside: str, tmp_path: Path
) -> None:
    """Directories of plain files and mixed ones go two ways in the code, with one answer."""
    root = fill(tmp_path / "t", old=1, same=1, new=1, empty=0)
    for name, when in (("old", 5), ("same", 10), ("new", 11), ("empty", 11)):
        os.utime(root / name, ns=(0, when))
    if beside == "a directory":
        fill(root / "x", newer_below=1)
    elif beside == "a link":
        (root / "l").symlink_to("old")
    elif beside == "a hard link":
        os.link(root / "old", root / "old2")
    assert measured(root, newer_than_ns=10).newer == ("new",)


@pytest.mark.parametrize("is_mixed", [True, False])
def test_of_what_is_newer_the_first_hundred_are_listed(is_mixed: bool, tmp_path: Path) -> None:
    root = fill(tmp_path / "t", **{f"f{number}": 1 for number in range(102)})
    if is_mixed:
        (root / "x").mkdir()
    assert len(set(measured(root, newer_than_ns=1).newer)) == 100


def test_a_newer_table_is_found_behind_hundreds_of_newer_files_without_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list is bounded; what it drops must never be what a verdict hangs on."""
    root = fill(tmp_path / "t", **{f"MANIFEST-{number:06}": 1 for number in range(150)})
    (root / "zzz.ldb").write_bytes(b"values")
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: sorted(listdir(path)))
    assert measured(root, newer_than_ns=1, newer_suffixes=(".ldb",)).newer == ("zzz.ldb",)


def test_something_unreadable_is_found_behind_hundreds_of_odd_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = fill(tmp_path / "t", zzz=1)
    for number in range(150):
        (root / f"{number:03}").symlink_to("x")
    listdir, stat = os.listdir, os.stat

    def look(name: Any, **settings: Any) -> os.stat_result:
        if name == "zzz":
            raise OSError(5, "Input/output error")
        return stat(name, **settings)

    monkeypatch.setattr(os, "listdir", lambda path: sorted(listdir(path)))
    monkeypatch.setattr(os, "stat", look)
    assert "unreadable" in kinds(measured(root)).values()


def set_back(path: Path, content: bytes) -> None:
    """Change a file's content and set its mtime back."""
    before = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace_with_copy(path: Path) -> None:
    """Put an equal file with equal times in a file's place."""
    before = path.stat()
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.rename(path)


CHANGES: dict[str, Callable[[Path], object]] = {
    "a file is added": lambda root: (root / "new").touch(),
    "a file goes": lambda root: (root / "a").unlink(),
    "a file gets another name": lambda root: (root / "a").rename(root / "z"),
    "two files swap names": lambda root: (
        (root / "a").rename(root / "t"),
        (root / "b").rename(root / "a"),
        (root / "t").rename(root / "b"),
    ),
    "a file grows": lambda root: (root / "a").write_bytes(b"longer than before"),
    "content changes and mtime is set back": lambda root: set_back(root / "a", b"y"),
    "an equal file takes its place": lambda root: replace_with_copy(root / "a"),
    "a mode changes": lambda root: (root / "a").chmod(0o600),
    "a time changes": lambda root: os.utime(root / "a", ns=(0, 0)),
    "a directory is added": lambda root: (root / "d").mkdir(),
    "a file below changes": lambda root: set_back(root / "x/c", b"y"),
    "a file moves up": lambda root: (root / "x/c").rename(root / "c"),
    "a hard link is made": lambda root: os.link(root / "a", root.parent / "elsewhere"),
    "a link is added": lambda root: (root / "l").symlink_to("a"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_tree_is_not_the_same_any_more_when(change: str, tmp_path: Path) -> None:
    root = fill(tmp_path / "t", a=1, b=1)
    fill(root / "x", c=1)
    before = measured(root, fingerprint=True)
    assert before.is_same_as(measured(root, fingerprint=True))
    CHANGES[change](root)
    assert not before.is_same_as(measured(root, fingerprint=True))


def test_a_tree_is_the_same_when_nothing_changes_but_the_place(tmp_path: Path) -> None:
    root = fill(tmp_path / "t", a=1, b=1)
    fill(root / "x", c=1)
    before = measured(root, fingerprint=True)
    moved = root.rename(tmp_path / "elsewhere")
    assert before.is_same_as(measured(moved, fingerprint=True))


def test_only_the_changes_tell_that_a_name_elsewhere_of_its_file_went(tmp_path: Path) -> None:
    """A prune does that to the shard that shares a file with one that went."""
    root = fill(tmp_path / "t", a=1, b=1)
    os.link(root / "a", tmp_path / "elsewhere")
    before = measured(root, fingerprint=True)
    (tmp_path / "elsewhere").unlink()
    after = measured(root, fingerprint=True)
    assert before.fingerprint == after.fingerprint
    assert before.changes != after.changes


def test_a_shared_file_hides_no_change_of_another_file(tmp_path: Path) -> None:
    root = fill(tmp_path / "t", a=1, b=1)
    os.link(root / "a", tmp_path / "elsewhere")
    before = measured(root, fingerprint=True)
    set_back(root / "b", b"y")
    assert not before.is_same_as(measured(root, fingerprint=True))


def test_an_equal_copy_has_another_fingerprint(tmp_path: Path) -> None:
    assert fingerprint(fill(tmp_path / "s")) != fingerprint(fill(tmp_path / "t"))


def documented(path: Path, name: str = "") -> int:
    """Return what a name below a tree, and all below that, adds to the tree's fingerprint."""
    found = path.lstat()
    line = os.fsencode(name) + b"\0%d %o" % (found.st_ino, found.st_mode)
    if path.is_dir() and not path.is_symlink():
        below = sum(documented(path / part, f"{name}/{part}") for part in os.listdir(path))
        return number_of(line) + below
    return number_of(line + b" %d %d" % (found.st_size, found.st_mtime_ns))


def number_of(line: bytes) -> int:
    return int(hashlib.sha256(line).hexdigest(), 16)


def test_the_next_version_finds_the_fingerprint_and_changes_that_a_journal_holds(
    tmp_path: Path,
) -> None:
    root = fill(tmp_path / "t", a=1, b=22)
    fill(fill(root / "x", c=3) / "y", d=4)
    (root / "link").symlink_to("a")
    found = measured(root, fingerprint=True)
    own = root.stat()
    parts = [documented(root / name, name) for name in os.listdir(root)]
    whole = number_of(b"%d %d" % (own.st_dev, own.st_ino)) + sum(parts)
    assert int(found.fingerprint, 16) == whole % (1 << 256)
    files = [path.lstat() for path in root.rglob("*") if path.is_symlink() or path.is_file()]
    assert (len(files), found.changes) == (5, sum(file.st_ctime_ns for file in files))


def test_a_fingerprint_has_64_digits_whatever_it_sums_up(tmp_path: Path) -> None:
    root = fill(tmp_path / "t", a=1, b=1)
    found = set()
    for when in range(100):
        os.utime(root / "a", ns=(0, when))
        found.add(fingerprint(root))
    assert (len(found), {len(text) for text in found}) == (100, {64})


def test_a_fingerprint_is_taken_only_if_asked_for(tmp_path: Path) -> None:
    assert measured(fill(tmp_path / "t", a=1)).fingerprint == ""
