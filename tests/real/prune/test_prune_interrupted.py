"""A run that ends anywhere loses nothing, and the next one finishes it."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import Any

import pytest

from fixtures import MARKED_AT, Node
from shardtool.errors import ShardtoolError
from shardtool.journal import Journal
from tests.real.prune.world import (
    NAMES,
    carry_out,
    contents,
    events,
    in_trash,
    layout_of,
    lose_the_journal_after,
    plan_for,
    records,
    set_back,
    shards,
)


def whereabouts(node: Node, whole: dict[str, dict[str, bytes]]) -> None:
    """Assert that each shard is whole in its place, or in the trash, whole or being removed."""
    begun = {name for event, name in events(node) if event == "renamed"}
    gone = {name for event, name in events(node) if event == "deleted"}
    for name, files in whole.items():
        place = node.shard_db / name
        waiting = [entry for entry in in_trash(node) if entry.startswith(name)]
        if place.exists():
            assert contents(place) == files
            assert not waiting
        elif waiting:
            left = contents(node.db / ".shardtool/trash" / waiting[0])
            assert left == files or (name in begun and left.items() <= files.items())
        else:
            # All of its files may be gone a moment before the journal says so.
            assert name in gone | begun


def next_run_ends_it(node: Node) -> None:
    """Assert that one fresh run leaves what an uninterrupted one leaves."""
    outcome = carry_out(node)
    assert outcome.failed == []
    assert (shards(node), in_trash(node)) == ([], [])
    assert carry_out(node).run
    ends = [name for event, name in events(node) if event in ("deleted", "finished")]
    assert len(ends) == len(set(ends))


@pytest.mark.parametrize("lasting", [True, False])
@pytest.mark.parametrize("call", range(5))
def test_a_journal_that_cannot_be_written_ends_the_run_and_loses_nothing(
    call: int, lasting: bool, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = {name: contents(node.shard_db / name) for name in NAMES}
    real, calls = Journal.append_all, [0]

    def fail(journal: Journal, records: Any) -> None:
        calls[0] += 1
        if calls[0] == call + 1 or (lasting and calls[0] > call):
            raise ShardtoolError("the journal can't be written: no space")
        real(journal, records)

    monkeypatch.setattr(Journal, "append_all", fail)
    outcome = carry_out(node)
    monkeypatch.undo()
    assert calls[0] == call + 1
    assert outcome.failed
    whereabouts(node, whole)
    next_run_ends_it(node)


def test_no_file_goes_once_the_journal_is_lost(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(journal: Journal, records: Any) -> None:
        raise ShardtoolError("the journal can't be written: no space")

    monkeypatch.setattr(Journal, "append_all", fail)
    outcome = carry_out(node)
    assert (shards(node), outcome.deleted) == (NAMES, [])
    assert "the shard is in its place" in outcome.failed[0][1]


def test_every_shard_that_a_lost_journal_leaves_in_the_trash_is_told(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_the_journal_after(1, monkeypatch)
    outcome = carry_out(node)
    stranded = [entry.split(".")[0] for entry in in_trash(node)]
    assert stranded == NAMES
    assert sorted(name for name, _ in outcome.failed) == stranded


def test_what_failed_before_the_journal_was_lost_is_told_too(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, rename = plan_for(node), os.rename

    def refuse(source: Any, target: Any, **settings: Any) -> None:
        if source == "00001":
            raise PermissionError(1, "Operation not permitted")
        rename(source, target, **settings)

    monkeypatch.setattr(os, "rename", refuse)
    lose_the_journal_after(1, monkeypatch)
    outcome = carry_out(node, plan)
    assert [name for name, _ in outcome.failed] == NAMES
    assert "it is in its place" in outcome.failed[0][1]


def test_a_shard_that_was_kept_is_not_said_to_be_in_the_trash(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of a batch was kept, the others were renamed, then the journal is lost."""
    plan = plan_for(node)
    set_back(node.shard_db / "00001/CURRENT")
    lose_the_journal_after(1, monkeypatch)
    outcome = carry_out(node, plan)
    assert "00001" in shards(node)
    for name, error in outcome.failed:
        assert name != "00001" or "in the trash" not in error


CALLS = ["rename", "unlink", "rmdir", "fsync", "mkdir", "write"]


def interrupt_at(call: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Have Ctrl-C arrive just before the call-th change of the disk; return the count."""
    count = [0]

    def wrap(name: str) -> None:
        real = getattr(os, name)

        def interrupted(*args: Any, **settings: Any) -> Any:
            count[0] += 1
            if count[0] == call:
                raise KeyboardInterrupt
            return real(*args, **settings)

        monkeypatch.setattr(os, name, interrupted)

    for name in CALLS:
        wrap(name)
    return count


@pytest.mark.slow
def test_an_interruption_before_any_change_of_the_disk_loses_nothing(tmp_path: Path) -> None:
    call = 0
    while True:
        call += 1
        node = Node(tmp_path / f"{call}", phantoms=False)
        with node.holding_back_raft():
            for number in (1, 2):
                node.old_shard(number, points=1, marked_at=MARKED_AT)
        whole = {name: contents(node.shard_db / name) for name in NAMES[:2]}
        with pytest.MonkeyPatch.context() as patch:
            count = interrupt_at(call, patch)
            with contextlib.suppress(KeyboardInterrupt):
                carry_out(node)
        if count[0] < call:
            break
        whereabouts(node, whole)
        next_run_ends_it(node)
    assert call > 20


def test_a_file_that_cannot_go_is_told_and_the_next_run_finishes(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink = os.unlink

    def refuse(name: Any, *, dir_fd: int) -> None:
        if name == "CURRENT" and "/00001." in os.readlink(f"/proc/self/fd/{dir_fd}"):
            raise PermissionError(1, "Operation not permitted")
        unlink(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", refuse)
    outcome = carry_out(node)
    assert [name for name, _ in outcome.failed] == ["00001"]
    assert outcome.deleted == ["00002", "00003"]
    assert "CURRENT: Operation not permitted" in outcome.failed[0][1]
    records = Journal(layout_of(node)).read().records
    (told,) = [record for record in records if record["event"] == "failed"]
    assert (told["shard"], told["error"]) == outcome.failed[0]
    assert (told["trash"], told["freed_bytes"] > 0) == (f"00001.{outcome.run}", True)
    monkeypatch.undo()
    assert carry_out(node).finished == ["00001"]
    assert in_trash(node) == []


@pytest.mark.parametrize(("stuck", "more"), [(3, ""), (5, " and 2 more")])
def test_of_many_files_that_cannot_go_three_are_named_and_the_others_counted(
    stuck: int, more: str, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(stuck):
        (node.shard_db / f"00001/{number:06d}.ldb").touch()
    plan, unlink = plan_for(node, only=frozenset({"00001"})), os.unlink

    def refuse(name: Any, *, dir_fd: int) -> None:
        if str(name).endswith(".ldb"):
            raise PermissionError(1, "Operation not permitted")
        unlink(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", refuse)
    ((name, error),) = carry_out(node, plan).failed
    assert error.count(".ldb: Operation not permitted") == 3
    assert error.endswith("not permitted" + more)
    assert events(node)[-1] == ("failed", name)


def test_a_disk_that_becomes_read_only_leaves_the_shards_in_their_place(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = {name: contents(node.shard_db / name) for name in NAMES}

    def refuse(*args: Any, **settings: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    plan = plan_for(node)
    monkeypatch.setattr(os, "rename", refuse)
    outcome = carry_out(node, plan)
    assert [name for name, _ in outcome.failed] == NAMES
    assert {name: contents(node.shard_db / name) for name in NAMES} == whole
    told = {name: record["error"] for name, record in records(node, "failed").items()}
    assert told == dict(outcome.failed)


@pytest.mark.parametrize("place", ["trash", "shard_db"])
def test_renames_that_cannot_be_made_durable_end_the_run_before_a_file_goes(
    place: str, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = {name: contents(node.shard_db / name) for name in NAMES}
    fsync = os.fsync

    def refuse(descriptor: int) -> None:
        if not shards(node) and Path(f"/proc/self/fd/{descriptor}").readlink().name == place:
            raise OSError(errno.EIO, "Input/output error")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    outcome = carry_out(node)
    monkeypatch.undo()
    words = "the rename can't be made durable: Input/output error; the shard is whole in the trash"
    assert [(name, words in error) for name, error in outcome.failed] == [(n, True) for n in NAMES]
    assert (outcome.deleted, events(node)) == ([], [("intent", name) for name in NAMES])
    trash = node.db / ".shardtool/trash"
    assert {name: contents(trash / f"{name}.{outcome.run}") for name in NAMES} == whole
    next_run_ends_it(node)
