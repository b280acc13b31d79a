"""A shard that changed since the plan, or in the last moment, stays or is put back."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fixtures import Node
from tests.conftest import Hold
from tests.real.prune.world import (
    carry_out,
    contents,
    events,
    in_trash,
    kept,
    plan_for,
    records,
    set_back,
    shards,
)


def before_rename(monkeypatch: pytest.MonkeyPatch, name: str, action: Callable[[], object]) -> None:
    """Have something happen in the moment between the last look at a shard and its rename."""
    real = os.rename

    def rename(source: Any, target: Any, **settings: Any) -> None:
        if source == name and not done:
            done.append(True)
            action()
        real(source, target, **settings)

    done: list[bool] = []
    monkeypatch.setattr(os, "rename", rename)


CHANGES: dict[str, Callable[[Path], Any]] = {
    "content changed and mtime set back": lambda shard: set_back(shard / "CURRENT"),
    "a new table": lambda shard: (shard / "999999.ldb").write_bytes(b"values"),
    "a new file of somebody's": lambda shard: (shard / "notes").touch(),
    "the marker went": lambda shard: (shard / "MIGRATED").unlink(),
    "the marker changed": lambda shard: (shard / "MIGRATED").write_bytes(b"gone.\n"),
    "another directory in its place": lambda shard: (
        shutil.copytree(shard, shard.with_name("copy")),
        shard.rename(shard.parents[2] / "aside"),
        shard.with_name("copy").rename(shard),
    ),
    "a link in its place": lambda shard: shard.symlink_to(shard.rename(shard.parents[2] / "aside")),
    "a file in its place": lambda shard: (
        shard.rename(shard.parents[2] / "aside"),
        shard.write_bytes(b""),
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_shard_is_kept_if_since_the_plan_there_is(change: str, node: Node) -> None:
    plan = plan_for(node)
    CHANGES[change](node.shard_db / "00002")
    outcome = carry_out(node, plan)
    assert outcome.deleted == ["00001", "00003"]
    assert list(kept(outcome)) == ["00002"]
    assert (shards(node), in_trash(node)) == (["00002"], [])


@pytest.mark.parametrize("change", CHANGES)
def test_a_shard_is_kept_if_in_the_last_moment_there_is(
    change: str, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = node.shard_db / "00002"
    before_rename(monkeypatch, "00002", lambda: CHANGES[change](shard))
    outcome = carry_out(node)
    assert outcome.deleted == ["00001", "00003"]
    assert kept(outcome) == {"00002": ["changed"]}
    assert (shards(node), in_trash(node)) == (["00002"], [])


def test_a_shard_that_changed_since_the_plan_is_not_even_moved(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_for(node)
    set_back(node.shard_db / "00002/CURRENT")
    moved: list[bool] = []
    before_rename(monkeypatch, "00002", lambda: moved.append(True))
    outcome = carry_out(node, plan)
    assert (kept(outcome), moved) == ({"00002": ["changed"]}, [])
    record = records(node, "kept")["00002"]
    assert (record["reasons"], record["trash"]) == (["changed"], f"00002.{outcome.run}")


def test_what_was_in_a_swapped_directory_is_still_there(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = node.shard_db / "00002"
    other = node.path / "precious"
    other.mkdir()
    (other / "values").write_bytes(b"precious")

    def swap() -> None:
        shard.rename(node.path / "aside")
        other.rename(shard)

    before_rename(monkeypatch, "00002", swap)
    carry_out(node)
    assert (shard / "values").read_bytes() == b"precious"
    assert (node.path / "aside/CURRENT").exists()


def test_a_shard_that_went_by_itself_is_no_error(node: Node) -> None:
    plan = plan_for(node)
    shutil.rmtree(node.shard_db / "00002")
    outcome = carry_out(node, plan)
    assert (outcome.deleted, kept(outcome)) == (["00001", "00003"], {"00002": ["gone"]})


def test_a_shard_that_goes_in_the_last_moment_is_told_and_hinders_no_other(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_rename(monkeypatch, "00002", lambda: shutil.rmtree(node.shard_db / "00002"))
    outcome = carry_out(node)
    assert outcome.deleted == ["00001", "00003"]
    assert [name for name, _ in outcome.failed] == ["00002"]
    record = records(node, "failed")["00002"]
    assert (record["shard"], record["error"]) == outcome.failed[0]


@pytest.mark.parametrize(
    ("how", "word"),
    [
        ("database", "locked"),
        ("lock", "locked"),
        ("open", "open-files"),
        ("mapped", "open-files"),
    ],
)
def test_a_shard_that_a_process_opens_after_the_plan_is_kept(
    how: str, word: str, node: Node, hold: Hold
) -> None:
    plan = plan_for(node)
    shard = node.shard_db / "00002"
    hold({"database": shard, "lock": shard / "LOCK"}.get(how, shard / "CURRENT"), how)
    before = contents(shard)
    outcome = carry_out(node, plan)
    assert outcome.deleted == ["00001", "00003"]
    assert word in kept(outcome)["00002"]
    assert contents(shard) == before


@pytest.mark.parametrize("how", ["database", "lock"])
def test_a_shard_that_a_process_opens_in_the_last_moment_is_put_back(
    how: str, node: Node, hold: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = node.shard_db / "00002"
    path = shard if how == "database" else shard / "LOCK"
    before_rename(monkeypatch, "00002", lambda: hold(path, how))
    outcome = carry_out(node)
    assert outcome.deleted == ["00001", "00003"]
    assert kept(outcome) in ({"00002": ["locked"]}, {"00002": ["changed"]})
    assert (shards(node), in_trash(node)) == (["00002"], [])
    assert ("kept", "00002") in events(node)


def test_who_opened_a_shard_in_the_last_moment_is_told(
    node: Node, hold: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids: list[int] = []
    lock = node.shard_db / "00002/LOCK"
    before_rename(monkeypatch, "00002", lambda: pids.append(hold(lock, "lock")))
    ((_, (reason,)),) = carry_out(node).kept
    assert str(reason) == f"locked: pid {pids[0]} opened it just now"


def test_a_lock_that_cannot_be_looked_at_in_the_last_moment_is_taken_for_held(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = node.shard_db / "00002/LOCK"

    def make_fifo() -> None:
        lock.unlink()
        os.mkfifo(lock)

    before_rename(monkeypatch, "00002", make_fifo)
    outcome = carry_out(node)
    ((name, (reason,)),) = outcome.kept
    assert (name, shards(node)) == ("00002", ["00002"])
    assert str(reason) == "locked: another process opened it just now"


def test_a_shard_that_cannot_be_put_back_is_whole_in_the_trash_and_told(
    node: Node, hold: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = node.shard_db / "00002"
    whole = contents(shard)
    rename = os.rename

    def refuse(source: Any, target: Any, **settings: Any) -> None:
        if target == "00002":
            raise OSError(errno.EROFS, "Read-only file system")
        rename(source, target, **settings)

    monkeypatch.setattr(os, "rename", refuse)
    before_rename(monkeypatch, "00002", lambda: hold(shard / "LOCK", "lock"))
    outcome = carry_out(node)
    ((name, error),) = outcome.failed
    (left,) = in_trash(node)
    assert name == "00002"
    assert "whole in the trash" in error
    assert left in error
    assert contents(node.db / ".shardtool/trash" / left) == whole
