"""A live copy is of one state of raft and wal, or none: what changes under it is copied again."""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shardtool.disk.durable import READ_DIRECTORY, opened
from shardtool.snapshots.copying import Copy
from tests.unit.copying_world import (
    CHANGES,
    PIECES,
    Act,
    Acting,
    World,
    append,
    node_and_bag,
)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return node_and_bag(tmp_path, monkeypatch)


@pytest.fixture
def apart(world: World) -> World:
    return world.with_wal_on_a_disk_of_its_own()


@contextlib.contextmanager
def mapped(path: Path) -> Iterator[Act]:
    """Map a file, as LevelDB does its log; yield what writes another byte to it.

    The first such write gives the file a new time, which is over when this yields. Those after it
    give it none, until the kernel has written it out.
    """
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
        numbers = itertools.count(1)

        def write() -> None:
            mapping[0] = next(numbers) % 256

        write()
        yield write


def test_nothing_is_taken_for_still_that_was_read_once(world: World) -> None:
    counter = Acting()
    job = world.copy(counter, live=True)
    assert job.live
    assert (counter.pieces, counter.done) == (2 * PIECES, 2 * world.size)
    assert world.pauses == [0.0, 0.1]


@pytest.mark.parametrize("at", [1, PIECES, PIECES + 1, 2 * PIECES])
@pytest.mark.parametrize("change", [change for change, _ in CHANGES.values()], ids=CHANGES)
def test_what_changes_while_it_is_copied_is_copied_as_it_is_at_last(
    change: Callable[[Path], object], at: int, world: World
) -> None:
    world.copy(Acting({at: lambda: change(world.node)}), live=True)
    assert len(world.pauses) > (2 if at > PIECES else 1)


@pytest.mark.parametrize("change", [change for change, _ in CHANGES.values()], ids=CHANGES)
def test_what_changes_between_two_passes_is_copied_as_it_is_at_last(
    change: Callable[[Path], object], world: World
) -> None:
    world.acts[2] = lambda: change(world.node)
    world.copy(live=True)


@pytest.mark.parametrize("at", [1, 2, PIECES])
def test_what_changes_without_a_trace_in_its_times_is_seen_by_its_bytes(
    at: int, world: World
) -> None:
    path = world.node / "raft/log"
    with mapped(path) as write:
        world.copy(Acting({at: write}), live=True)
        assert path.read_bytes()[:1] == b"\2"


def test_a_file_that_was_out_of_reach_for_a_moment_is_read_again(apart: World) -> None:
    with mapped(apart.sources["wal"] / "log.1") as write:

        def away() -> None:
            write()
            apart.take_away()

        apart.copy(Acting({PIECES + 1: away, PIECES + 4: apart.bring_back}), live=True)
    assert len(apart.pauses) > 2


def test_of_a_file_that_grows_as_it_is_read_again_no_more_is_read_than_it_had(
    world: World,
) -> None:
    path, size = world.node / "wal/log.1", world.size
    grow = dict.fromkeys(range(PIECES + 1, PIECES + 20), lambda: append(path, bytes(1 << 20)))
    counter = Acting(grow)
    done: list[int] = []
    world.acts[3] = lambda: done.append(counter.done)
    world.copy(counter, live=True)
    assert done == [2 * size]


@pytest.mark.parametrize("writes", range(1, 2 * PIECES + 3))
def test_the_copy_is_of_one_instant_whenever_the_writing_ends(writes: int, world: World) -> None:
    """Nor does it go by times: raft and wal are written in turn, without a trace in them."""
    paths = [world.node / "raft/log", world.node / "wal/log.1"]
    history: list[list[int]] = []

    def look(root: Path) -> list[int]:
        return [(root / name).read_bytes()[0] for name in ("raft/log", "wal/log.1")]

    with mapped(paths[0]) as write_raft, mapped(paths[1]) as write_wal:
        turns = itertools.cycle([write_raft, write_wal])

        def write() -> None:
            next(turns)()
            history.append(look(world.node))

        history.append(look(world.node))
        job = Copy(world.sources, world.bag, live=True, free_room="")
        with opened(world.bag, READ_DIRECTORY) as target:
            job.run(target, Acting(dict.fromkeys(range(1, writes + 1), write)))
    assert len(history) == writes + 1
    assert look(world.bag / "data") in history


def replace_kinds(node: Path) -> None:
    """Have names be something else than they were: each what another one was."""
    (node / "raft/snapshot").rename(node / "raft/was")
    (node / "raft/name").rename(node / "raft/snapshot")
    (node / "raft/was").rename(node / "raft/name")
    (node / "wal/log.1").unlink()
    (node / "wal/log.1").symlink_to("empty")
    (node / "wal/current").unlink()
    (node / "wal/current").write_bytes(b"a file")
    (node / "raft/log").unlink()
    os.mkfifo(node / "raft/log")


def test_what_becomes_something_else_is_copied_as_what_it_is_at_last(world: World) -> None:
    world.acts[2] = lambda: replace_kinds(world.node)
    job = world.copy(live=True)
    assert job.left_out == (("raft/log", "fifo"),)


def test_a_tree_that_goes_whole_goes_from_the_copy(world: World) -> None:
    deep = world.node / "raft/snapshot/deep/er"
    deep.mkdir(parents=True)
    (deep / "file").write_bytes(b"deep")
    world.acts[2] = lambda: deep.parent.rename(world.node / "db/away")
    world.copy(live=True)
    assert not (world.bag / "data/raft/snapshot/deep").exists()


def test_a_file_that_came_and_went_is_not_in_the_copy(world: World) -> None:
    path = world.node / "wal/log.2"
    world.acts = {2: lambda: path.write_bytes(b"2"), 3: path.unlink}
    world.copy(live=True)
    assert len(world.pauses) == 3


def test_a_file_that_came_and_went_and_came_again_is_in_the_copy_as_it_is_at_last(
    world: World,
) -> None:
    path = world.node / "wal/log.2"

    def go() -> None:
        path.unlink()
        append(world.node / "wal/log.1")

    world.acts = {2: lambda: path.write_bytes(b"2"), 3: go, 4: path.touch}
    world.copy(live=True)
    assert (world.bag / "data/wal/log.2").read_bytes() == b""


NEVER_STILL = (
    "{raft}: expected raft and wal to keep still for one pass, found them still being written "
    "({place} changed while it was copied); try again, or stop the server"
)


def test_a_server_that_never_pauses_is_told_after_some_seconds(world: World) -> None:
    path = world.node / "wal/log.1"
    line = world.refusal(Acting(dict.fromkeys(range(1, 999), lambda: append(path))), live=True)
    assert line == NEVER_STILL.format(raft=world.node / "raft", place=path)
    assert len(world.pauses) == 11
    assert 10 < sum(world.pauses) < 15
    assert world.pauses == sorted(world.pauses)


def test_one_that_writes_without_a_trace_in_the_times_is_told_too(world: World) -> None:
    path = world.node / "raft/log"
    with mapped(path) as write:
        acts = dict.fromkeys(range(1, 999), write)
        line = world.refusal(Acting(acts), live=True)
    assert line == NEVER_STILL.format(raft=world.node / "raft", place=path)


@pytest.mark.parametrize("last", [9, 10])
def test_one_that_pauses_just_in_time_is_copied(last: int, world: World) -> None:
    path = world.node / "raft/log"
    for number in range(1, last + 1):
        world.acts[number] = lambda: append(path)
    world.copy(live=True)
    assert len(world.pauses) == last + 1
