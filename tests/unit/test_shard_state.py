"""The state of a shard's directory, which has to change with what it holds; and its syncing."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from shardtool.influxdb.engines import EngineError
from shardtool.proof import state
from shardtool.proof.state import drop_from_memory, make_durable, state_of

DIARIES = ("LOG", "LOG.old", "LOG.old.17", "LOCK", "lock.mdb")
TABLE, LATER = "000005.ldb", "MANIFEST-000002"  # before and after the diaries in the alphabet
PLACE = f"../{TABLE}"  # where a file is that a link leads to


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    shard = tmp_path / "00007"
    shard.mkdir()
    for name in (*DIARIES, TABLE, LATER):
        (shard / name).write_text("content")
    return shard


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return a list of what is synced, which grows; nothing really is."""
    found: list[Path] = []
    monkeypatch.setattr(
        os, "fsync", lambda fd: found.append(Path(f"/proc/self/fd/{fd}").readlink())
    )
    return found


# -- the state --


def test_nobody_touched_it_and_its_state_is_the_same(shard: Path) -> None:
    found = state_of(shard)
    assert state_of(shard) == found
    assert (len(found), int(found, 16) > 0) == (64, True)


@pytest.mark.parametrize("name", DIARIES)
def test_the_engines_diaries_and_locks_are_no_part_of_it(shard: Path, name: str) -> None:
    before = state_of(shard)
    (shard / name).write_text("another day")
    assert state_of(shard) == before
    (shard / name).unlink()
    assert state_of(shard) == before


def same_size_same_mtime(path: Path) -> None:
    times = path.stat()
    path.write_text("CONTENT")
    while path.stat().st_ctime_ns == times.st_ctime_ns:  # the kernel's clock ticks in milliseconds
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def other_file(path: Path) -> None:
    path.rename(path.with_name("LOG"))
    path.write_text("content")


@pytest.mark.parametrize("name", [TABLE, LATER])
@pytest.mark.parametrize(
    "change",
    [
        Path.unlink,
        other_file,
        same_size_same_mtime,
        lambda path: path.write_text("content and more"),
        lambda path: path.chmod(0o600),
        lambda path: path.rename(path.with_name("000009.ldb")),
        lambda path: path.with_name("000009.ldb").touch(),
        lambda path: path.with_name("LOCK2").touch(),
        lambda path: os.utime(path, ns=(0, 0)),
    ],
)
def test_whatever_is_changed_in_a_shard_its_state_is_another(
    shard: Path, name: str, change: Callable[[Path], object]
) -> None:
    before = state_of(shard)
    change(shard / name)
    assert state_of(shard) != before


def test_another_directory_with_the_same_files_is_in_another_state(shard: Path) -> None:
    before = state_of(shard)
    first = shard.rename(shard.with_name("first"))
    shard.mkdir()
    for name in (TABLE, LATER):
        os.link(first / name, shard / name)
    both = state_of(first), state_of(shard)
    assert (before in both, both[0] == both[1]) == (False, False)


def test_a_link_counts_itself_and_not_what_it_leads_to(shard: Path) -> None:
    (shard / PLACE).write_text("content")
    os.link(shard / PLACE, shard.parent / "the-same")
    states = [state_of(shard)]
    link = shard / "000009.ldb"
    for target in ("nowhere", PLACE, "../the-same"):
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        states.append(state_of(shard))
    assert len(set(states)) == 4
    (shard / PLACE).write_text("something else")
    assert state_of(shard) == states[-1]


def test_what_a_server_removes_meanwhile_leaves_the_state_of_a_moment_later(
    shard: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = os.listdir

    def then_removed(directory: int) -> list[str]:
        names = listed(directory)
        (shard / TABLE).unlink()
        return names

    monkeypatch.setattr(os, "listdir", then_removed)
    meanwhile = state_of(shard)
    monkeypatch.undo()
    assert meanwhile == state_of(shard)
    (shard / LATER).unlink()
    assert meanwhile != state_of(shard)


@pytest.mark.parametrize(
    "make",
    [
        lambda path: None,
        Path.touch,
        os.mkfifo,
        lambda path: path.symlink_to("nowhere"),
        lambda path: path.symlink_to("00007"),
    ],
)
def test_what_is_no_directory_has_no_state(shard: Path, make: Callable[[Path], object]) -> None:
    path = shard.with_name("00008")
    make(path)
    with pytest.raises(EngineError, match="00008: can't be looked at"):
        state_of(path)
    with pytest.raises(OSError):
        make_durable(path)


# -- making it durable --


def test_every_file_is_synced_and_then_the_directory_itself(
    shard: Path, synced: list[Path]
) -> None:
    (shard / "lost").mkdir()
    for number in range(20):  # so that diaries and they are mixed, however they are listed
        (shard / f"{number:06d}.sst").touch()
    before = state_of(shard)
    make_durable(shard)
    wanted = {path for path in shard.iterdir() if path.name not in DIARIES}
    assert (set(synced[:-1]), len(synced[:-1])) == (wanted, len(wanted))
    assert synced[-1] == shard
    assert state_of(shard) == before


@pytest.mark.parametrize(
    "make",
    [
        os.mkfifo,
        lambda path: path.symlink_to("nowhere"),
        lambda path: path.symlink_to(path.name),  # to itself
        lambda path: path.symlink_to(f"{TABLE}/below-a-file"),
        lambda path: path.symlink_to("/dev/null"),
    ],
)
def test_what_has_nothing_on_disk_is_passed_over(
    shard: Path, synced: list[Path], make: Callable[[Path], object]
) -> None:
    make(shard / "000009.ldb")
    make_durable(shard)
    assert sorted(synced[:-1]) == [shard / TABLE, shard / LATER]
    assert synced[-1] == shard


def test_a_link_whose_target_can_not_be_looked_at_may_lead_to_content(
    shard: Path, synced: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (shard / "000009.ldb").symlink_to(TABLE)
    look = os.stat

    def failing(path: str, *, dir_fd: int, follow_symlinks: bool = True) -> os.stat_result:
        if follow_symlinks:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return look(path, dir_fd=dir_fd, follow_symlinks=False)

    monkeypatch.setattr(os, "stat", failing)
    with pytest.raises(OSError, match="Input/output error"):
        make_durable(shard)
    assert shard not in synced


@pytest.mark.parametrize("target", [TABLE, PLACE, "."])
def test_content_behind_a_link_is_never_called_durable(
    shard: Path, synced: list[Path], target: str
) -> None:
    (shard / PLACE).touch()
    (shard / "000009.ldb").symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"):
        make_durable(shard)
    assert shard not in synced
    assert (shard / PLACE).resolve() not in synced


def test_what_a_server_removes_meanwhile_need_not_be_synced(
    shard: Path, synced: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = os.listdir
    monkeypatch.setattr(os, "listdir", lambda directory: ["gone", *listed(directory)])
    make_durable(shard)
    assert sorted(synced[:-1]) == [shard / TABLE, shard / LATER]


@pytest.mark.timeout(20)
def test_a_fifo_that_takes_a_files_place_is_an_error_and_nothing_is_waited_for(
    shard: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at = state._holds_content

    def then_swapped(name: str, directory: int) -> bool:
        found = looked_at(name, directory)
        (shard / name).unlink()
        os.mkfifo(shard / name)
        return found

    monkeypatch.setattr(state, "_holds_content", then_swapped)
    with pytest.raises(OSError, match="Invalid argument"):
        make_durable(shard)


def test_a_sync_that_fails_is_told(shard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match="Input/output error"):
        make_durable(shard)


# -- what is read after a sync that failed --


def test_all_that_holds_anything_is_dropped_whole_from_memory(
    shard: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(shard / "000001.fifo")
    (shard / "000009.ldb").symlink_to(TABLE)  # which is not followed, and hides no other
    dropped: list[tuple[str, int, int, int]] = []

    def note(file: int, offset: int, length: int, advice: int) -> None:
        dropped.append((Path(f"/proc/self/fd/{file}").readlink().name, offset, length, advice))

    monkeypatch.setattr(os, "posix_fadvise", note)
    before = state_of(shard)
    drop_from_memory(shard)
    names = {path.name for path in shard.iterdir() if path.is_file() and not path.is_symlink()}
    assert sorted(dropped) == [(n, 0, 0, os.POSIX_FADV_DONTNEED) for n in sorted(names)]
    assert state_of(shard) == before


def test_a_shard_that_is_gone_has_nothing_in_memory(shard: Path) -> None:
    drop_from_memory(shard.with_name("00008"))
