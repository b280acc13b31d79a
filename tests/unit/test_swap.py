"""The renames that end a restore: what was staged goes in, what was there is set aside, whole."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from shardtool.datadir.layout import Layout
from shardtool.errors import ShardtoolError
from shardtool.journal import Journal
from shardtool.snapshots import swap
from shardtool.snapshots.moves import Move, moves_for
from shardtool.snapshots.pending import Pending, pending_restore, write_pending

STAMP = "20261127T080000Z"
SNAPSHOT = "20261126T080000Z"
OLD, NEW = "the one before", "the snapshot's"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """Return a node with a raft, a wal, and what was staged for both."""
    data = tmp_path / "data"
    layout = Layout(data / "db", data / "raft", data / "wal", None, "the node")
    layout.own.mkdir(parents=True)
    for move in moves_for(layout, STAMP):
        filled(move.place, OLD)
        filled(move.staged, NEW)
    return layout


@pytest.fixture
def moves(layout: Layout) -> tuple[Move, ...]:
    return moves_for(layout, STAMP)


@pytest.fixture
def pending(layout: Layout, moves: tuple[Move, ...]) -> Pending:
    return swap.pending_of(SNAPSHOT, Path("/store"), STAMP, moves)


def filled(directory: Path, words: str) -> None:
    directory.mkdir()
    (directory / "log").write_text(words)


def words_in(directory: Path) -> str:
    return (directory / "log").read_text()


def begun(layout: Layout, pending: Pending, moves: tuple[Move, ...]) -> None:
    swap.begin(layout, pending, moves, lambda: None)


def killed_after(renames: int, moves: tuple[Move, ...]) -> None:
    """Make the first of the renames of a swap, as a kill leaves them."""
    steps = [(move.place, move.aside) for move in moves]
    steps += [(move.staged, move.place) for move in moves]
    for source, target in steps[:renames]:
        source.rename(target)


def test_what_was_staged_is_in_place_and_what_was_there_is_aside(
    layout: Layout, pending: Pending, moves: tuple[Move, ...]
) -> None:
    begun(layout, pending, moves)
    assert not swap.is_swapped(layout, pending)
    assert pending_restore(layout) == pending
    assert swap.finish(layout, pending) == tuple(move.aside for move in moves)
    assert [words_in(move.place) for move in moves] == [NEW, NEW]
    assert [words_in(move.aside) for move in moves] == [OLD, OLD]
    assert not any(move.staged.exists() for move in moves)
    assert swap.is_swapped(layout, pending)
    assert pending_restore(layout) is None
    intent, done = Journal(layout).read().records
    assert (intent["event"], done["event"]) == ("restore-intent", "restored")
    assert intent["moves"] == [{"place": str(m.place), "aside": str(m.aside)} for m in moves]
    assert done["set_aside"] == [str(move.aside) for move in moves]
    for record in intent, done:
        assert record["snapshot"] == SNAPSHOT
        assert (record["path"], record["stamp"]) == ("/store", STAMP)


@pytest.mark.parametrize("renames", range(5))
def test_wherever_a_kill_came_the_next_one_finishes(
    renames: int, layout: Layout, pending: Pending, moves: tuple[Move, ...]
) -> None:
    begun(layout, pending, moves)
    killed_after(renames, moves)
    assert swap.is_swapped(layout, pending) == (renames == 4)
    assert swap.why_unfinishable(layout, pending) == ""
    assert swap.finish(layout, pending) == tuple(move.aside for move in moves)
    assert [words_in(move.place) for move in moves] == [NEW, NEW]
    assert [words_in(move.aside) for move in moves] == [OLD, OLD]


@pytest.mark.parametrize("renames", range(5))
def test_what_a_killed_run_did_is_on_disk_before_more_is_done(
    renames: int,
    layout: Layout,
    pending: Pending,
    moves: tuple[Move, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun(layout, pending, moves)
    killed_after(renames, moves)
    seen: list[str] = []
    fsync, rename, unlink = os.fsync, os.rename, os.unlink

    def note_sync(descriptor: int) -> None:
        seen.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    def note(call: str, act: Callable[..., None]) -> Callable[..., None]:
        def noted(*words: object, **settings: object) -> None:
            seen.append(call)
            act(*words, **settings)

        return noted

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "rename", note("rename", rename))
    monkeypatch.setattr(os, "unlink", note("unlink", unlink))
    swap.finish(layout, pending)
    first = [*seen, "rename"].index("rename")
    assert {".shardtool", "data"} <= set(seen[:first])
    assert seen.count("rename") == 4 - renames
    assert all(seen[n + 1] == "data" for n, call in enumerate(seen) if call == "rename")
    assert seen.index("unlink") > first or renames == 4


def test_where_nothing_was_nothing_is_set_aside(
    layout: Layout, pending: Pending, moves: tuple[Move, ...]
) -> None:
    raft, wal = moves
    raft.place.rename(layout.raft.with_name("elsewhere"))
    begun(layout, pending, moves)
    assert swap.finish(layout, pending) == (wal.aside,)
    assert [words_in(move.place) for move in moves] == [NEW, NEW]


def test_what_a_server_made_meanwhile_is_set_aside_too_under_a_name_of_its_own(
    layout: Layout, pending: Pending, moves: tuple[Move, ...]
) -> None:
    raft, wal = moves
    begun(layout, pending, moves)
    raft.place.rename(raft.aside)
    filled(raft.place, "a server's")
    second = raft.aside.with_name(f"{raft.aside.name}-2")
    assert swap.finish(layout, pending) == (raft.aside, second, wal.aside)
    assert words_in(raft.aside) == OLD
    assert words_in(second) == "a server's"
    assert words_in(raft.place) == NEW
    filled(raft.aside.with_name(f"{raft.aside.name}-10"), "a tenth")
    filled(raft.aside.with_name(f"{raft.aside.name}-x"), "nobody's")
    assert [path.name.rpartition("Z")[2] for path in swap.set_aside((raft,))] == ["", "-2", "-10"]


def test_a_link_without_a_target_is_set_aside_and_not_replaced(
    layout: Layout, pending: Pending, moves: tuple[Move, ...]
) -> None:
    raft, _ = moves
    begun(layout, pending, moves)
    raft.place.rename(raft.aside)
    raft.aside.with_name(f"{raft.aside.name}-2").symlink_to("nowhere")
    filled(raft.place, "a server's")
    swap.finish(layout, pending)
    assert words_in(raft.aside.with_name(f"{raft.aside.name}-3")) == "a server's"


def test_a_directory_that_leads_elsewhere_by_now_gets_no_rename(
    layout: Layout,
    pending: Pending,
    moves: tuple[Move, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun(layout, pending, moves)
    data, other = tmp_path / "data", tmp_path / "other"
    (other / "db/.shardtool").mkdir(parents=True)
    for name in ("raft", "wal"):
        filled(other / name, "another node's")
    assured = swap.why_unfinishable

    def led_away(layout: Layout, pending: Pending) -> str:
        problem = assured(layout, pending)
        data.rename(tmp_path / "mine")
        data.symlink_to(other)
        return problem

    monkeypatch.setattr(swap, "why_unfinishable", led_away)
    with pytest.raises(ShardtoolError, match=r"found: .*something else"):
        swap.finish(layout, pending)
    assert sorted(os.listdir(other)) == ["db", "raft", "wal"]
    assert words_in(other / "raft") == words_in(other / "wal") == "another node's"
    monkeypatch.undo()
    data.unlink()
    (tmp_path / "mine").rename(data)
    swap.finish(layout, pending)
    assert [words_in(move.place) for move in moves] == [NEW, NEW]


def test_what_was_staged_and_is_gone_is_told_with_a_way_back_that_works(
    layout: Layout, pending: Pending, moves: tuple[Move, ...]
) -> None:
    raft, wal = moves
    begun(layout, pending, moves)
    for move in moves:
        move.place.rename(move.aside)
    raft.staged.rename(raft.place)
    wal.staged.rename(wal.staged.with_name("gone"))
    problem = swap.why_unfinishable(layout, pending)
    assert f"found {wal.staged} gone or changed; " in problem
    assert f"{raft.place} is the restored one, the one before it is {raft.aside}" in problem
    assert f"{wal.place} is missing, the one before it is {wal.aside}" in problem
    with pytest.raises(ShardtoolError) as told:
        swap.finish(layout, pending)
    assert str(told.value) == problem
    assert pending_restore(layout) == pending
    subprocess.run(["sh", "-c", problem.partition("go back by hand: ")[2]], check=True)
    assert [words_in(move.place) for move in moves] == [OLD, OLD]
    assert words_in(raft.place.with_name("raft.half-restored")) == NEW
    assert pending_restore(layout) is None


def test_a_later_directory_under_the_staged_name_is_not_taken_for_it(
    layout: Layout, pending: Pending, moves: tuple[Move, ...]
) -> None:
    raft, wal = moves
    begun(layout, pending, moves)
    raft.staged.rename(raft.staged.with_name("gone"))
    filled(raft.staged, "somebody's")
    problem = swap.why_unfinishable(layout, pending)
    assert f"found {raft.staged} gone or changed; " in problem
    assert f"{raft.place} is not the restored one; {wal.place} is not" in problem
    assert "mv" not in problem.partition("go back by hand: ")[2]


def test_a_link_to_what_was_staged_is_not_taken_for_it(
    layout: Layout, pending: Pending, moves: tuple[Move, ...], tmp_path: Path
) -> None:
    raft, _ = moves
    begun(layout, pending, moves)
    raft.staged.rename(tmp_path / "elsewhere")
    raft.staged.symlink_to(tmp_path / "elsewhere")
    assert f"found {raft.staged} gone or changed; " in swap.why_unfinishable(layout, pending)
    with_link = swap.pending_of(SNAPSHOT, Path("/store"), STAMP, moves)
    assert with_link.staged[0].inode == raft.staged.lstat().st_ino


def test_the_way_back_sets_a_servers_new_one_aside_and_what_came_where_nothing_was(
    layout: Layout, pending: Pending, moves: tuple[Move, ...]
) -> None:
    raft, wal = moves
    begun(layout, pending, moves)
    raft.place.rename(raft.aside)
    filled(raft.place, "a server's")
    raft.staged.rename(raft.staged.with_name("gone"))
    wal.place.rename(wal.place.with_name("never there"))
    wal.staged.rename(wal.place)
    problem = swap.why_unfinishable(layout, pending)
    subprocess.run(["sh", "-c", problem.partition("go back by hand: ")[2]], check=True)
    assert words_in(raft.place) == OLD
    assert words_in(raft.place.with_name("raft.half-restored")) == "a server's"
    assert not wal.place.exists()
    assert words_in(wal.place.with_name("wal.half-restored")) == NEW


def test_where_a_disk_is_not_mounted_what_was_staged_on_it_is_told_as_gone(
    layout: Layout, pending: Pending, moves: tuple[Move, ...], tmp_path: Path
) -> None:
    begun(layout, pending, moves)
    disk = tmp_path / "disk"
    later = Layout(layout.db, disk / "raft", layout.wal, None, "the node")
    problem = swap.why_unfinishable(later, pending)
    assert f"found {disk}/raft.restoring-{STAMP} gone" in problem
    assert f"{disk}/raft is missing; " in problem


def test_another_time_on_the_same_inode_is_another_directory(
    layout: Layout, pending: Pending, moves: tuple[Move, ...]
) -> None:
    begun(layout, pending, moves)
    os.utime(moves[0].staged, ns=(0, 0))
    assert str(moves[0].staged) in swap.why_unfinishable(layout, pending)


def test_a_node_that_has_moved_is_told_where_the_restore_was_begun(
    layout: Layout, pending: Pending, moves: tuple[Move, ...], tmp_path: Path
) -> None:
    begun(layout, pending, moves)
    moved = tmp_path / "moved"
    moved.mkdir()
    later = Layout(layout.db, moved / "raft", moved / "wal", None, "the node")
    told = f"(it was begun for {layout.raft} and {layout.wal})"
    assert told in swap.why_unfinishable(later, pending)
    moves[0].staged.rename(moves[0].staged.with_name("gone"))
    assert "it was begun for" not in swap.why_unfinishable(layout, pending)


def test_what_is_in_the_way_before_the_swap_takes_what_was_staged_along(
    layout: Layout, pending: Pending, moves: tuple[Move, ...]
) -> None:
    def refused() -> None:
        raise ShardtoolError("a server runs")

    with pytest.raises(ShardtoolError, match="a server runs"):
        swap.begin(layout, pending, moves, refused)
    assert not any(move.staged.exists() for move in moves)
    assert [words_in(move.place) for move in moves] == [OLD, OLD]
    assert pending_restore(layout) is None
    assert not Journal(layout).path.exists()


def test_where_the_pending_file_may_stand_what_was_staged_stays(
    layout: Layout, pending: Pending, moves: tuple[Move, ...]
) -> None:
    """An interrupt after the rename of the pending file, for instance."""
    begun(layout, pending, moves)

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        swap.begin(layout, pending, moves, interrupted)
    assert [words_in(move.staged) for move in moves] == [NEW, NEW]
    layout.pending_restore.write_text("half of it")
    with pytest.raises(KeyboardInterrupt):
        swap.begin(layout, pending, moves, interrupted)
    assert [words_in(move.staged) for move in moves] == [NEW, NEW]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_pending_file_of_more_or_fewer_than_raft_and_wal_is_refused(
    count: int, layout: Layout, pending: Pending
) -> None:
    write_pending(layout, replace(pending, staged=(*pending.staged, *pending.staged)[:count]))
    with pytest.raises(ShardtoolError, match="found: something else"):
        pending_restore(layout)


def test_of_what_is_not_there_no_pending_file_is_made(moves: tuple[Move, ...]) -> None:
    moves[1].staged.rename(moves[1].staged.with_name("gone"))
    with pytest.raises(ShardtoolError, match="run restore again"):
        swap.pending_of(SNAPSHOT, Path("/store"), STAMP, moves)


def test_where_every_name_aside_is_taken_the_swap_ends_in_a_line_and_the_next_one_finishes(
    layout: Layout, pending: Pending, moves: tuple[Move, ...]
) -> None:
    begun(layout, pending, moves)
    raft, _ = moves
    names = [raft.aside, *(raft.aside.with_name(f"{raft.aside.name}-{n}") for n in range(2, 1000))]
    for name in names:
        name.symlink_to("nowhere")
    with pytest.raises(ShardtoolError, match="all names like it are taken"):
        swap.finish(layout, pending)
    assert [words_in(move.place) for move in moves] == [OLD, OLD]
    names[500].unlink()
    swap.finish(layout, pending)
    assert words_in(names[500]) == OLD
    assert [words_in(move.place) for move in moves] == [NEW, NEW]
