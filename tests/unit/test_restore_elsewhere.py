"""A restore elsewhere gives its directory a name by one rename, or leaves all as it was."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardtool.errors import ShardtoolError
from shardtool.snapshots.metadata import CONFIG
from shardtool.snapshots.restore import restore_to
from tests.conftest import Mount
from tests.needs import needs_root
from tests.real.snapshot_world import Uncounted, make_node, state
from tests.unit.staging_world import Taken, acting, noted, taken

NOBODY = 65534


@pytest.fixture
def snapshot(tmp_path: Path) -> Iterator[Taken]:
    with taken(make_node(tmp_path / "node"), tmp_path / "store") as snapshot:
        yield snapshot


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "above").mkdir()
    return tmp_path / "above/target"


def restored(snapshot: Taken, target: Path) -> tuple[str, ...]:
    return restore_to(snapshot.store, snapshot.verified, target, Uncounted)


def staging(snapshot: Taken, target: Path) -> Path:
    return target.with_name(f"{target.name}.restoring-{snapshot.verified.id}")


@pytest.mark.parametrize("mode", [None, 0o700, 0o751])
def test_all_is_there_under_the_mode_that_the_empty_directory_had(
    mode: int | None, snapshot: Taken, target: Path
) -> None:
    if mode is not None:
        target.mkdir(mode)
    assert restored(snapshot, target) == ()
    assert state(target) == state(snapshot.layout.raft.parent)
    assert stat.S_IMODE(target.stat().st_mode) == (mode or 0o755)
    assert os.listdir(target.parent) == ["target"]


def test_directories_that_are_missing_above_it_are_made(snapshot: Taken, target: Path) -> None:
    restored(snapshot, target / "some" / "levels")
    assert state(target / "some" / "levels") == state(snapshot.layout.raft.parent)


def test_a_directory_with_something_in_it_is_refused_and_stays(
    snapshot: Taken, target: Path
) -> None:
    (target / "mine").mkdir(parents=True)
    with pytest.raises(ShardtoolError, match="found: one with something in it"):
        restored(snapshot, target)
    assert (os.listdir(target), os.listdir(target.parent)) == (["mine"], ["target"])


@needs_root
@pytest.mark.parametrize("is_there", [True, False])
def test_it_belongs_to_whom_the_empty_one_or_the_one_above_belongs(
    is_there: bool, snapshot: Taken, target: Path
) -> None:
    if is_there:
        target.mkdir()
    os.chown(target if is_there else target.parent, NOBODY, 4712)
    restored(snapshot, target)
    assert (target.stat().st_uid, target.stat().st_gid) == (NOBODY, 4712)


def test_all_is_on_disk_before_it_gets_its_name_and_then_so_is_the_name(
    snapshot: Taken, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = noted(monkeypatch)
    restored(snapshot, target)
    name = staging(snapshot, target).name
    assert steps.seen[-4:] == [
        f"chmod {name} 755",
        f"sync {name}",
        f"rename {name} target",
        "sync above",
    ]


def test_what_a_kill_left_is_removed(snapshot: Taken, target: Path) -> None:
    (staging(snapshot, target) / "wal").mkdir(parents=True)
    restored(snapshot, target)
    assert sorted(os.listdir(target)) == [CONFIG, "raft", "wal"]
    assert os.listdir(target.parent) == ["target"]


@pytest.mark.parametrize("name", ["raft/log", "wal/log.1", CONFIG])
def test_another_byte_than_was_verified_leaves_nothing(
    name: str, snapshot: Taken, target: Path
) -> None:
    path = snapshot.path / "data" / name
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(ShardtoolError, match="other bytes than were in the snapshot"):
        restored(snapshot, target)
    assert os.listdir(target.parent) == []


def test_an_interrupt_leaves_nothing(snapshot: Taken, target: Path) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        restore_to(snapshot.store, snapshot.verified, target, acting("verifying", interrupted))
    assert os.listdir(target.parent) == []


def test_what_somebody_puts_there_meanwhile_stays(snapshot: Taken, target: Path) -> None:
    def put() -> None:
        (target / "precious").mkdir(parents=True, exist_ok=True)

    with pytest.raises(ShardtoolError, match="Directory not empty"):
        restore_to(snapshot.store, snapshot.verified, target, acting("verifying", put))
    assert os.listdir(target) == ["precious"]
    assert os.listdir(target.parent) == ["target"]


@needs_root
def test_a_mount_point_is_refused_and_not_tried(
    snapshot: Taken, target: Path, mount: Mount
) -> None:
    target.mkdir()
    mount(target)
    with pytest.raises(ShardtoolError, match="a mount point: name a directory in it"):
        restored(snapshot, target)
    assert os.listdir(target) == []


def test_a_directory_that_has_taken_the_place_of_ours_gets_nothing_and_is_told(
    snapshot: Taken, target: Path
) -> None:
    def change_places() -> None:
        if not target.with_name("mine").exists():
            staging(snapshot, target).rename(target.with_name("mine"))
            staging(snapshot, target).mkdir()

    words = "to make its name durable, found: .*something that another process put there"
    with pytest.raises(ShardtoolError, match=words):
        restore_to(snapshot.store, snapshot.verified, target, acting("staging", change_places))
    assert os.listdir(target) == []
    assert sorted(os.listdir(target.with_name("mine"))) == [CONFIG, "raft", "wal"]


def test_a_name_that_may_not_be_on_disk_is_told(
    snapshot: Taken, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def failing(descriptor: int) -> None:
        if target.exists():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(ShardtoolError, match="may not outlive a power cut"):
        restored(snapshot, target)
    assert sorted(os.listdir(target)) == [CONFIG, "raft", "wal"]
