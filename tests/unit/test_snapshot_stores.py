"""A store is made for its owner alone, lists all that is in it, and follows nothing in it."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from shardtool.disk.copy import Entry
from shardtool.errors import ShardtoolError
from shardtool.snapshots.metadata import MOST_BYTES, DamagedError, Metadata
from shardtool.snapshots.store import (
    Listing,
    Snapshot,
    create_store,
    describe,
    has_snapshot,
    list_store,
    opened_store,
    told,
)
from tests.needs import needs_root
from tests.real.snapshot_world import make_node
from tests.unit.staging_world import rights_of, taken

NOBODY = 65534
OLD, MIDDLE, NEW = "20261124T175153Z", "20261124T175153Z-2", "20261124T175153Z-10"
TOPS = (Entry("raft", "directory", 0o755, 0, 0, 0, 1), Entry("wal", "directory", 0o755, 0, 0, 0, 1))
MARKED = "shardtool.json"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


def put(store: Path, name: str, *, identity: str = "") -> Path:
    """Put a snapshot into the store: as much of one as a list looks at."""
    files = (
        Entry("raft/log", "file", 0o600, 0, 0, 11, 1),
        Entry("wal/l", "file", 0o600, 0, 0, 4, 1),
    )
    sources, made_by = {"raft": "/r", "wal": "/w"}, {"host": "a.example"}
    found = Metadata(identity or name, True, sources, (*TOPS, *files), made_by=made_by)
    (store / name).mkdir()
    (store / name / MARKED).write_bytes(found.encoded())
    return store / name


def line(*parts: object) -> str:
    """Return what matches one whole line that tells a path and these words."""
    return "^" + re.escape("".join(map(str, parts))) + "$"


# -- making and opening one --


def test_a_store_and_what_is_missing_above_it_are_for_their_owner_alone(tmp_path: Path) -> None:
    create_store(tmp_path / "some/store")
    assert [stat.S_IMODE(p.stat().st_mode) for p in tmp_path.rglob("*")] == [0o700, 0o700]


@needs_root
def test_a_store_belongs_to_whom_the_directory_above_belongs(tmp_path: Path) -> None:
    """To the server's user, beside raft: what root made there, that user has to be able to read."""
    os.chown(tmp_path, NOBODY, 4712)
    create_store(tmp_path / "some/store")
    assert {(p.stat().st_uid, p.stat().st_gid) for p in tmp_path.rglob("*")} == {(NOBODY, 4712)}


def test_a_store_that_is_there_stays_as_it_is(store: Path) -> None:
    store.chmod(0o755)
    put(store, OLD)
    create_store(store)
    assert (stat.S_IMODE(store.stat().st_mode), os.listdir(store)) == (0o755, [OLD])


def test_a_store_may_be_a_link_to_a_directory(store: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(put(store, OLD).parent)
    create_store(link)
    assert [found.path for found in list_store(link).snapshots] == [link / OLD]


def changes_of(path: Path) -> tuple[int, ...]:
    """Return what tells that a name is another file, or a changed one: not whether it was read."""
    found = path.lstat()
    return found.st_ino, found.st_mode, found.st_mtime_ns, found.st_ctime_ns


@pytest.mark.parametrize(
    "occupy",
    [
        lambda path: path.touch(),
        lambda path: path.symlink_to("nowhere"),
        os.mkfifo,
    ],
    ids=["file", "dangling link", "fifo"],
)
def test_what_has_a_stores_name_and_is_none_is_told_and_stays(
    occupy: Callable[[Path], object], tmp_path: Path
) -> None:
    path = tmp_path / "store"
    occupy(path)
    before = changes_of(path)
    words = (
        "to create the snapshot directory, found: Not a directory; name another one with --to DIR"
    )
    with pytest.raises(ShardtoolError, match=line(path, ": expected ", words)):
        create_store(path)
    assert changes_of(path) == before


@needs_root
@pytest.mark.parametrize("name", ["store", "shut/store", "shut/store/below"])
def test_a_store_that_may_not_be_made_or_looked_for_is_told(name: str, public_path: Path) -> None:
    (public_path / "shut").mkdir(0o700)
    words = line(
        public_path / name,
        ": expected to create the snapshot directory, found: Permission denied; "
        "run this as the server's user or as root",
    )
    with rights_of(NOBODY, NOBODY), pytest.raises(ShardtoolError, match=words):
        create_store(public_path / name)


def test_a_name_that_no_file_system_takes_is_told(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 300)
    with pytest.raises(ShardtoolError, match=r"to create .* name too long; name another one with"):
        create_store(path)


@pytest.mark.parametrize(
    ("name", "reason"), [("missing", "No such file or directory"), ("file", "Not a directory")]
)
@pytest.mark.parametrize(
    "reading",
    [list_store, lambda store: opened_store(store).__enter__()],
    ids=["list", "open"],
)
def test_a_store_that_is_not_there_is_told(
    name: str, reason: str, reading: Callable[[Path], object], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    words = f": expected the snapshot directory, found: {reason}; name it with --store DIR"
    with pytest.raises(ShardtoolError, match=line(tmp_path / name, words)):
        reading(tmp_path / name)


def test_what_goes_wrong_in_an_open_store_is_not_told_as_if_the_store_were_missing(
    store: Path,
) -> None:
    with pytest.raises(FileNotFoundError), opened_store(store) as directory:
        os.stat("missing", dir_fd=directory)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(directory)


def test_a_look_at_a_store_leaves_no_access_times(store: Path) -> None:
    bag = put(store, OLD)
    paths = (store, bag, bag / MARKED)
    for path in paths:
        os.utime(path, ns=(1, 1_400_000_000_000_000_000))  # relatime would note an access
    list_store(store)
    assert [path.stat().st_atime_ns for path in paths] == [1, 1, 1]
    assert has_snapshot(store)
    assert store.stat().st_atime_ns == 1


# -- what a list shows --


def test_a_snapshot_that_was_taken_is_listed_with_what_is_in_it(tmp_path: Path) -> None:
    with taken(make_node(tmp_path / "node"), tmp_path / "store") as snapshot:
        found = list_store(tmp_path / "store")
        metadata = snapshot.metadata
    length = 11 + 4 + 256 * 9000 + 0 + 10  # raft: log, name; wal: log.1, empty; config.toml
    listed = Snapshot(metadata.id, snapshot.path, False, 5, length, origin=metadata.origin)
    assert found == Listing((listed,))
    assert metadata.origin.endswith(f":{tmp_path}/node/raft")


def test_snapshots_are_listed_by_age_and_what_is_none_by_what_it_is(store: Path) -> None:
    for name in (NEW, OLD, MIDDLE):
        put(store, name)
    for name in (f".partial-{OLD}", f".forgotten-{OLD}-2.below.3", "20261124T175153Z-0", "notes"):
        (store / name).mkdir()
    (store / "20200101T000000Z").symlink_to(OLD)
    (store / "20200101T000000Z-2").write_bytes((store / OLD / MARKED).read_bytes())
    found = list_store(store)
    assert found.snapshots == tuple(
        Snapshot(name, store / name, True, 2, 15, origin="a.example:/r")
        for name in (OLD, MIDDLE, NEW)
    )
    assert found.others == (
        (f".forgotten-{OLD}-2.below.3", "being removed"),
        (f".partial-{OLD}", "unfinished backup"),
        ("20200101T000000Z", "a link or a file, not followed"),
        ("20200101T000000Z-2", "a link or a file, not followed"),
        ("20261124T175153Z-0", "no snapshot's name"),
        ("notes", "no snapshot's name"),
    )


def replaced(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda file: file.unlink(), "unreadable: No such file or directory"),
        (lambda file: replaced(file, os.mkfifo), "unreadable: no regular file"),
        (lambda file: replaced(file, lambda path: path.mkdir()), "unreadable: no regular file"),
        (
            lambda file: replaced(file, lambda path: path.symlink_to(f"../{OLD}/{MARKED}")),
            "unreadable: Too many levels of symbolic links",
        ),
        (lambda file: os.truncate(file, MOST_BYTES + 1), "unreadable: more than 32 MiB"),
        (lambda file: os.truncate(file, 20), "no metadata of a snapshot (JSONDecodeError: "),
    ],
    ids=["missing", "fifo", "directory", "link", "long", "cut"],
)
def test_what_is_wrong_with_a_snapshot_is_listed_and_the_others_are_too(
    spoil: Callable[[Path], object], problem: str, store: Path
) -> None:
    put(store, OLD)
    spoil(put(store, MIDDLE) / MARKED)
    put(store, NEW)
    _, found, _ = list_store(store).snapshots
    assert found == Snapshot(MIDDLE, store / MIDDLE, problem=found.problem)
    assert found.problem.startswith(problem)


def test_another_snapshots_metadata_is_not_taken_for_its_own(store: Path) -> None:
    put(store, MIDDLE, identity=OLD)
    problem = f"the metadata of another snapshot, {OLD!r}"
    assert list_store(store) == Listing((Snapshot(MIDDLE, store / MIDDLE, problem=problem),))


def test_a_link_that_takes_a_snapshots_place_as_it_is_looked_at_is_not_followed(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, OLD).rename(tmp_path / "theirs")
    (store / OLD).mkdir()
    look = os.stat

    def swapped(path: str, *, dir_fd: int, follow_symlinks: bool) -> os.stat_result:
        found = look(path, dir_fd=dir_fd, follow_symlinks=follow_symlinks)
        (store / OLD).rmdir()
        (store / OLD).symlink_to(tmp_path / "theirs")
        return found

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", swapped)
        (found,) = list_store(store).snapshots
    assert found.problem == "unreadable: Not a directory"


@needs_root
def test_who_may_not_open_a_snapshot_is_told_that_and_not_that_it_is_none(
    public_path: Path,
) -> None:
    put(public_path, OLD).chmod(0o700)
    problem = "unreadable: Permission denied"
    shut = Listing((Snapshot(OLD, public_path / OLD, problem=problem),))
    with rights_of(NOBODY, NOBODY):
        assert list_store(public_path) == shut
    public_path.chmod(0o744)  # names can be listed, and not be looked at
    with rights_of(NOBODY, NOBODY):
        assert list_store(public_path) == shut


def test_a_store_whose_names_can_not_be_read_is_told(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(directory: int) -> list[str]:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    put(store, OLD)
    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", failing)
        words = "to list the snapshot directory, found: Input/output error; check the disk$"
        with pytest.raises(ShardtoolError, match=f"{store}: expected {words}"):
            list_store(store)
        assert not has_snapshot(store)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda store: None, False),
        (lambda store: put(store, OLD), True),
        (lambda store: (put(store, OLD) / MARKED).unlink(), True),
        (lambda store: put(store, f".partial-{OLD}", identity=OLD), False),
        (lambda store: (store / OLD).touch(), False),
        (lambda store: (store / OLD).symlink_to(store), False),
        (lambda store: store.rmdir(), False),
    ],
    ids=["empty", "one", "damaged", "unfinished", "file", "link", "none"],
)
def test_a_store_has_a_snapshot_where_a_list_shows_one(
    make: Callable[[Path], object], expected: bool, store: Path
) -> None:
    make(store)
    assert has_snapshot(store) is expected


# -- what goes wrong, in one line --


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EACCES, "run this as the server's user or as root"),
        (errno.EPERM, "run this as the server's user or as root"),
        (errno.EROFS, "make the file system writable, or name another place"),
        (errno.EIO, "check the disk"),
        (errno.ENOSPC, "free room there"),
        (0, "free room there"),
    ],
)
def test_an_error_is_told_with_the_advice_that_fits_it(number: int, advice: str) -> None:
    reason = os.strerror(number) if number else "no regular file"
    words = line("/s: expected to write it, found: ", reason, "; ", advice)
    with pytest.raises(ShardtoolError, match=words), told("/s", "to write it", "free room there"):
        raise OSError(number, reason, "/elsewhere")


def test_an_error_is_described_by_its_reason_alone() -> None:
    assert describe(OSError("just words")) == "just words"
    assert describe(OSError(errno.EIO, "Input/output error", "/path")) == "Input/output error"
    assert describe(DamagedError("no raft in it")) == "no raft in it"
