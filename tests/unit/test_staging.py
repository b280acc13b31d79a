"""What a restore stages is what was in the snapshot, on disk, ours alone until then, or gone."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from shardtool.disk.copy import Entry, room_for
from shardtool.disk.durable import READ_DIRECTORY, opened
from shardtool.errors import ShardtoolError
from shardtool.snapshots.metadata import CONFIG
from shardtool.snapshots.moves import Move, moves_into
from shardtool.snapshots.staging import stage
from tests.needs import needs_root
from tests.real.snapshot_world import Uncounted, make_node, state
from tests.unit.staging_world import STAMP, Taken, acting, noted, rights_of, taken

NOBODY = 65534


@pytest.fixture
def node(tmp_path: Path) -> Path:
    node = make_node(tmp_path / "node")
    (node / CONFIG).chmod(0o644)
    return node


@pytest.fixture
def snapshot(node: Path, tmp_path: Path) -> Iterator[Taken]:
    with taken(node, tmp_path / "store") as snapshot:
        yield snapshot


@pytest.fixture
def wal(snapshot: Taken) -> Move:
    return snapshot.moves[1]


@pytest.fixture
def config(tmp_path: Path) -> Move:
    """Return where config.toml goes: the one file that is staged by itself."""
    (tmp_path / "into").mkdir()
    return Move(CONFIG, *[tmp_path / "into" / CONFIG] * 3)


def with_mode(snapshot: Taken, path: str, mode: int) -> Taken:
    """Return the snapshot as if `path` had had another mode."""

    def changed(entry: Entry) -> Entry:
        return replace(entry, mode=mode) if entry.path == path else entry

    metadata = replace(snapshot.metadata, entries=tuple(map(changed, snapshot.metadata.entries)))
    return replace(snapshot, verified=replace(snapshot.verified, metadata=metadata))


# -- what is staged --


def test_what_is_staged_is_what_was_there(node: Path, snapshot: Taken) -> None:
    before = state(node)
    assert snapshot.staged() == ()
    for move in snapshot.moves:
        shutil.rmtree(move.place)
        move.staged.rename(move.place)
    assert state(node) == before


@needs_root
def test_the_top_gets_its_owner_too(node: Path, tmp_path: Path) -> None:
    os.chown(node / "raft", 2, 12345)
    with taken(node, tmp_path / "store") as snapshot:
        assert snapshot.staged() == ()
        found = snapshot.moves[0].staged.stat()
    assert (found.st_uid, found.st_gid) == (2, 12345)


def test_no_file_gets_a_set_id_bit(snapshot: Taken) -> None:
    raft = snapshot.moves[0]
    with_mode(snapshot, "raft/log", 0o7755).staged(raft)
    assert stat.S_IMODE((raft.staged / "log").stat().st_mode) == 0o1755


def test_a_link_has_the_mode_that_links_have_here(snapshot: Taken, wal: Move) -> None:
    """Elsewhere they have others, which no chmod can give them."""
    with_mode(snapshot, "wal/current", 0o755).staged(wal)
    assert (wal.staged / "current").readlink() == Path("log.1")


def test_of_a_file_that_has_grown_since_it_was_verified_what_was_verified_is_staged(
    snapshot: Taken, wal: Move
) -> None:
    with (snapshot.path / "data/wal/log.1").open("ab") as file:
        file.write(b"more")
    snapshot.staged(wal)
    assert (wal.staged / "log.1").read_bytes() == (wal.place / "log.1").read_bytes()


@needs_root
def test_who_can_not_give_files_away_is_told_whose_they_are(public_path: Path) -> None:
    node, store = public_path / "node", public_path / "store"
    for name in ("db", "raft", "wal"):
        (node / name).mkdir(parents=True)
    os.chown(node / "raft", 2, 12345)
    os.chown(node, NOBODY, 0)
    with taken(node, store) as snapshot:
        subprocess.run(["chown", "-R", str(NOBODY), store], check=True)
        with rights_of(NOBODY, 4712):
            warnings = snapshot.staged()
    mine, end = f"uid {NOBODY}, gid 4712", "as in the snapshot: only root can give them away"
    assert warnings == (
        f"some files belong to {mine} and not to uid 2, gid 12345 {end}",
        f"some files belong to {mine} and not to uid 0, gid 0 {end}",
    )


# -- what is not as it should be --


def flip_a_byte(path: Path) -> None:
    times, content = path.stat(), path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def assert_refused(snapshot: Taken, move: Move, words: str, act: Callable[[], object]) -> None:
    """Assert that what another process does to what is staged is seen, and nothing is left."""
    beside = sorted(os.listdir(move.place.parent))
    with pytest.raises(ShardtoolError, match=words) as told:
        snapshot.staged(move, meter=acting("verifying", act))
    assert str(told.value).startswith(f"{move.staged}: expected to stage the snapshot, found: ")
    assert sorted(os.listdir(move.place.parent)) == beside


def test_another_byte_on_the_disk_is_seen(snapshot: Taken, wal: Move) -> None:
    words = "other bytes than were in the snapshot"
    assert_refused(snapshot, wal, words, lambda: flip_a_byte(wal.staged / "log.1"))


@pytest.mark.parametrize(
    "change",
    [
        lambda staged: (staged / "log.1").chmod(0o666),
        lambda staged: os.utime(staged / "log.1", ns=(0, 0)),
        lambda staged: (staged / "current").unlink(),
        lambda staged: (staged / "current").rename(staged / "other"),
    ],
    ids=["mode", "time", "missing", "renamed"],
)
def test_what_differs_in_anything_but_its_bytes_is_seen(
    change: Callable[[Path], object], snapshot: Taken, wal: Move
) -> None:
    words = "data/wal/.* not as it is in the snapshot"
    assert_refused(snapshot, wal, words, lambda: change(wal.staged))


def test_what_somebody_adds_is_seen(snapshot: Taken, wal: Move) -> None:
    words = r"\./more which is not in the snapshot"
    assert_refused(snapshot, wal, words, (wal.staged / "more").touch)


def test_where_the_second_goes_wrong_the_first_does_not_stay(snapshot: Taken) -> None:
    flip_a_byte(snapshot.path / "data/wal/log.1")
    with pytest.raises(ShardtoolError, match="other bytes"):
        snapshot.staged()
    assert not any(move.staged.exists() for move in snapshot.moves)


def test_of_an_interrupted_one_nothing_stays(snapshot: Taken) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        snapshot.staged(meter=acting("verifying", interrupted))
    assert not any(move.staged.exists() for move in snapshot.moves)


def test_a_single_file_is_written_through_no_link(
    snapshot: Taken, config: Move, tmp_path: Path
) -> None:
    (tmp_path / "precious").write_text("precious")
    config.staged.symlink_to(tmp_path / "precious")
    with pytest.raises(ShardtoolError, match="File exists"):
        snapshot.staged(config)
    assert (tmp_path / "precious").read_text() == "precious"


# -- room --


@pytest.mark.parametrize("lacking", [0, 1])
def test_it_begins_only_where_there_is_room_for_all_on_one_file_system(
    lacking: int, snapshot: Taken, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = room_for([e for e in snapshot.metadata.entries if e.path != CONFIG], 1)
    free = needed - lacking
    room = os.statvfs_result((4096, 1, free, free, free, 0, 0, 0, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda path: room)
    begun: list[str] = []
    meter = acting("staging", lambda: begun.append("staging"))
    if not lacking:
        snapshot.staged(meter=meter)
        return
    words = f"expected room for {needed:,} bytes, found {free:,} free"
    with pytest.raises(ShardtoolError, match=words):
        snapshot.staged(meter=meter)
    assert begun == []


# -- the order --


def test_a_directory_is_on_disk_before_it_is_read_back_and_before_others_get_in(
    snapshot: Taken, wal: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = noted(monkeypatch)
    snapshot.staged(wal, meter=steps.meter)
    name = f"wal.restoring-{STAMP}"
    assert steps.seen == [
        "staging",
        "sync log.1",
        "sync empty",
        f"sync {name}",
        "verifying",
        f"chmod {name} 711",
        f"sync {name}",
        "sync node",
    ]


def test_a_single_file_is_on_disk_before_it_is_read_back_and_before_others_may_read_it(
    snapshot: Taken, config: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = noted(monkeypatch)
    snapshot.staged(config, meter=steps.meter)
    assert steps.seen == [
        f"chmod {CONFIG} 600",
        "staging",
        f"sync {CONFIG}",
        "verifying",
        f"chmod {CONFIG} 644",
        f"sync {CONFIG}",
        "sync into",
    ]


def test_with_a_directory_that_is_open_all_goes_into_that_one(
    snapshot: Taken, tmp_path: Path
) -> None:
    made, elsewhere = tmp_path / "made", tmp_path / "elsewhere"
    made.mkdir()
    elsewhere.mkdir()
    moves = moves_into(made, snapshot.metadata)
    with opened(made, READ_DIRECTORY) as into:
        made.rename(tmp_path / "mine")
        made.symlink_to(elsewhere)
        stage(snapshot.store, snapshot.verified, moves, Uncounted, into=into)
    assert sorted(os.listdir(tmp_path / "mine")) == [CONFIG, "raft", "wal"]
    assert os.listdir(elsewhere) == []
