"""Of a snapshot that is forgotten all goes or its name does first; what is not ours stays."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shardtool.disk.durable import READ_DIRECTORY, opened
from shardtool.errors import ShardtoolError
from shardtool.snapshots.forget import forget
from shardtool.snapshots.opened import open_place
from shardtool.snapshots.retention import Plan
from shardtool.snapshots.store import list_store, remove_leftovers
from tests.conftest import Mount
from tests.needs import needs_root

OLD, MIDDLE, NEW = "20261124T175153Z", "20261125T175153Z", "20261126T175153Z"
CONTENT = bytes(20_000)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


@pytest.fixture
def directory(store: Path) -> Iterator[int]:
    with opened(store, READ_DIRECTORY) as descriptor:
        yield descriptor


def put(store: Path, *names: str) -> None:
    """Put directories into the store that have in them what a snapshot has."""
    for name in names:
        (store / name / "data/raft").mkdir(parents=True)
        (store / name / "data/raft/log").write_bytes(CONTENT)
        (store / name / "shardtool.json").write_bytes(b"{}")


def is_whole(snapshot: Path) -> bool:
    there = (snapshot / "data/raft/log", snapshot / "shardtool.json")
    return [path.is_file() and path.stat().st_size for path in there] == [len(CONTENT), 2]


def left(store: Path) -> list[str]:
    return sorted(os.listdir(store))


def removing(*names: str) -> Plan:
    return Plan(((NEW, ("keep-last",)),), names, good=NEW)


def on_sync(monkeypatch: pytest.MonkeyPatch, store: Path, act: Callable[[], object]) -> None:
    """Have `act` done whenever the store is to be synced, before it is."""
    fsync = os.fsync

    def synced(descriptor: int) -> None:
        if os.path.samestat(os.fstat(descriptor), store.stat()):
            act()
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", synced)


def failing() -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


# -- forgetting --


def test_what_the_plan_removes_goes_and_nothing_else(store: Path, directory: int) -> None:
    put(store, OLD, MIDDLE, NEW, "mine")
    done = forget(directory, removing(OLD, MIDDLE))
    assert (done.removed, done.failed) == ((OLD, MIDDLE), ())
    assert left(store) == [NEW, "mine"]
    assert is_whole(store / NEW)
    assert is_whole(store / "mine")


def test_it_tells_how_much_the_removal_of_all_gave_back(store: Path, directory: int) -> None:
    put(store, OLD, MIDDLE)
    blocks = 512 * sum(path.stat().st_blocks for path in store.rglob("*"))
    assert forget(directory, removing(OLD, MIDDLE)).freed_bytes == blocks
    assert blocks > 2 * len(CONTENT)


def test_a_snapshot_is_whole_until_it_is_certain_that_no_list_shows_it(
    store: Path, directory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut before that brings back its name: behind it there must be all of it."""
    put(store, OLD, MIDDLE)
    seen: list[tuple[str, bool]] = []

    def look() -> None:
        seen.extend((name, is_whole(store / name)) for name in left(store))

    on_sync(monkeypatch, store, look)
    forget(directory, removing(OLD, MIDDLE))
    assert seen == [(f".forgotten-{OLD}", True), (MIDDLE, True), (f".forgotten-{MIDDLE}", True)]


def test_what_may_not_be_forgotten_on_disk_is_kept_whole_and_the_next_is_tried(
    store: Path, directory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails_first() -> None:
        if MIDDLE in left(store):
            failing()

    put(store, OLD, MIDDLE)
    on_sync(monkeypatch, store, fails_first)
    done = forget(directory, removing(OLD, MIDDLE))
    assert (done.removed, done.failed) == ((MIDDLE,), ((OLD, "Input/output error"),))
    assert left(store) == [f".forgotten-{OLD}"]
    assert is_whole(store / f".forgotten-{OLD}")


def test_what_can_not_be_renamed_stays_as_it_is_and_the_next_is_tried(
    store: Path, directory: int
) -> None:
    put(store, MIDDLE, NEW, f".forgotten-{MIDDLE}")
    done = forget(directory, removing(OLD, MIDDLE, NEW))
    assert done.removed == (NEW,)
    reasons = {OLD: "No such file or directory", MIDDLE: "Directory not empty"}
    assert done.failed == tuple(reasons.items())
    assert left(store) == [f".forgotten-{MIDDLE}", MIDDLE]
    assert is_whole(store / MIDDLE)


def test_of_what_goes_in_part_what_stays_and_why_is_told_and_the_next_is_tried(
    store: Path, directory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink = os.unlink

    def refused(name: str, *, dir_fd: int) -> None:
        if name == "immutable":
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        unlink(name, dir_fd=dir_fd)

    put(store, OLD, MIDDLE)
    (store / OLD / "data/immutable").touch()
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", refused)
        done = forget(directory, removing(OLD, MIDDLE))
    below = f".forgotten-{OLD}.below.0"
    assert done.removed == (MIDDLE,)
    assert done.failed == ((OLD, f"{below}/immutable: Operation not permitted"),)
    assert done.freed_bytes > 2 * len(CONTENT)
    assert (left(store), left(store / below)) == ([below], ["immutable"])


def test_a_link_that_has_taken_a_snapshots_name_goes_alone(
    store: Path, directory: int, tmp_path: Path
) -> None:
    put(tmp_path, "theirs")
    (store / OLD).symlink_to(tmp_path / "theirs")
    assert forget(directory, removing(OLD)).removed == (OLD,)
    assert left(store) == []
    assert is_whole(tmp_path / "theirs")


def test_it_works_in_the_store_that_is_open_and_in_none_that_takes_its_name(
    store: Path, directory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, OLD)
    other = store.rename(store.with_name("other"))
    put(store, OLD)
    monkeypatch.chdir(store)
    assert forget(directory, removing(OLD)).removed == (OLD,)
    assert (left(other), is_whole(store / OLD)) == ([], True)


def test_an_interrupted_forget_is_finished_by_what_removes_leftovers(
    store: Path, directory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    put(store, OLD, NEW)
    with monkeypatch.context() as patch:
        on_sync(patch, store, interrupted)
        with pytest.raises(KeyboardInterrupt):
            forget(directory, removing(OLD))
    assert [found.id for found in list_store(store).snapshots] == [NEW]
    assert remove_leftovers(directory) == ()
    assert left(store) == [NEW]


# -- leftovers --


@pytest.mark.parametrize(
    "name",
    [
        f".partial-{OLD}",
        f".partial-{OLD}-2",
        f".forgotten-{OLD}",
        f".forgotten-{OLD}-12",
        f".forgotten-{OLD}.below.0",
        f".partial-{OLD}-2.below.11.below.0",
    ],
)
def test_what_a_kill_left_goes(name: str, store: Path, directory: int) -> None:
    put(store, name, NEW)
    assert remove_leftovers(directory) == ()
    assert left(store) == [NEW]


@pytest.mark.parametrize(
    "name",
    [
        OLD,
        "mine",
        ".partial-",
        ".partial-mine",
        f".partial-{OLD}.mine",
        f".partial-{OLD}\n",
        f"mine.partial-{OLD}",
        f".partial-{OLD}.below.",
        f".removed-{OLD}",
        ".partial-2026112\N{ARABIC-INDIC DIGIT FOUR}T175153Z",
    ],
)
def test_what_no_run_of_ours_has_left_stays(name: str, store: Path, directory: int) -> None:
    put(store, name, f".partial-{OLD}")
    assert remove_leftovers(directory) == ()
    assert left(store) == [name]
    assert is_whole(store / name)


def test_it_is_certain_that_no_list_shows_a_leftover_before_anything_of_it_goes(
    store: Path, directory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rename of a forget that was killed may be in memory alone."""
    names = [f".forgotten-{OLD}", f".forgotten-{MIDDLE}", f".partial-{NEW}"]
    put(store, *names)
    seen: list[bool] = []
    on_sync(monkeypatch, store, lambda: seen.append(all(is_whole(store / n) for n in names)))
    remove_leftovers(directory)
    assert (seen, left(store)) == ([True], [])


def test_leftovers_that_may_come_back_stay_whole_and_are_told(
    store: Path, directory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f".forgotten-{OLD}", f".partial-{MIDDLE}"]
    put(store, *names)
    on_sync(monkeypatch, store, failing)
    assert remove_leftovers(directory) == tuple(f"{name}: Input/output error" for name in names)
    assert all(is_whole(store / name) for name in names)


def test_a_store_whose_names_can_not_be_read_is_not_taken_for_one_without_leftovers(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, f".partial-{OLD}")
    line = f"{store}: expected to list the snapshot directory, found: Input/output error; check the"
    with open_place(store) as opened, monkeypatch.context() as patch:
        patch.setattr(os, "listdir", lambda directory: failing())
        with pytest.raises(ShardtoolError, match=re.escape(line)):
            opened.remove_leftovers()
    assert is_whole(store / f".partial-{OLD}")


def test_a_store_without_leftovers_is_not_written_to(
    store: Path, directory: int, synced: list[Path]
) -> None:
    put(store, OLD, NEW)
    assert remove_leftovers(directory) == ()
    assert synced == []


@needs_root
def test_what_can_not_be_removed_is_told_and_the_rest_goes(
    store: Path, directory: int, mount: Mount
) -> None:
    first, second, third = f".forgotten-{OLD}", f".forgotten-{MIDDLE}", f".partial-{NEW}"
    put(store, third)
    for name in (first, second):
        (store / name / "mounted").mkdir(parents=True)
        mount(store / name / "mounted")
    assert remove_leftovers(directory) == tuple(
        f"{name}/mounted: Device or resource busy" for name in (first, second)
    )
    assert left(store) == sorted([first, second])


def test_a_link_under_a_leftovers_name_goes_alone(
    store: Path, directory: int, tmp_path: Path
) -> None:
    put(tmp_path, "theirs")
    (store / f".partial-{OLD}").symlink_to(tmp_path / "theirs")
    assert remove_leftovers(directory) == ()
    assert left(store) == []
    assert is_whole(tmp_path / "theirs")
