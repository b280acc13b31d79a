"""What goes on a receipt: what its proof rests on is as it was, and on disk, before the rename."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fixtures import Node, Row
from fixtures.build import FIRST_START, WRITTEN_AT
from fixtures.encode import microseconds
from shardtool.journal import Journal
from shardtool.proof.receipts import Receipt, Receipts
from tests.real.prune.world import (
    carry_out,
    events,
    in_trash,
    kept,
    layout_of,
    lose_the_journal_after,
    prove,
    proven_plan,
    records,
    shards,
)

ONE, TWO = "00001", "00002"


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """A node with two proven shards: the first rests on one new shard, the second on it and on one
    more, since it begins in the middle of the first one's week."""
    made = Node(tmp_path / "data", version="0.8", phantoms=False)
    with made.holding_back_raft():
        for number, days in ((1, 0), (2, 4)):
            start = FIRST_START + timedelta(days=days)
            made.old_shard(number, points=10, databases={"test": ("cpu",)}, start=start)
            made.migrate(number)
    made.compact_raft(keep=2)
    prove(made)
    return made


def receipt_of(node: Node, shard: str) -> Receipt:
    """Return a shard's receipt."""
    receipt = Receipts(layout_of(node)).read(shard)
    assert receipt is not None
    return receipt


def accept(node: Node, shard: str) -> Receipt:
    """Accept what a shard's receipt says is lost, as `shardtool accept` does; return it."""
    receipt = receipt_of(node, shard)
    digests = {name: getattr(receipt.finding, name) for name in ("digest", "losses_digest")}
    Journal(layout_of(node)).append("accepted", shard=shard, **digests)
    return receipt


def new_side(node: Node, shard: str) -> list[Path]:
    """Return the new shards that a shard's proof rests on."""
    return [node.shard_db_v2 / name for name in receipt_of(node, shard).finding.new_states]


def content(*directories: Path) -> set[Path]:
    """Return the files in new shards, and in raft, that hold anything: all but the diaries."""
    files = {path for directory in directories for path in directory.iterdir() if path.is_file()}
    return {path for path in files if path.name not in ("LOG", "LOCK")}


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return a list that fills with what is synced, and with the names of shards as they move."""
    found: list[Path] = []
    fsync, rename = os.fsync, os.rename

    def note_sync(descriptor: int) -> None:
        found.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    def note_rename(source: Any, target: Any, **settings: Any) -> None:
        found.append(Path(source))
        rename(source, target, **settings)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "rename", note_rename)
    return found


def fail_to_sync(monkeypatch: pytest.MonkeyPatch, *paths: Path) -> None:
    """Have the disk fail under some files or directories."""
    fsync = os.fsync

    def fails(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink() in paths:
            raise OSError(errno.EIO, "Input/output error")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fails)


def after_rename(monkeypatch: pytest.MonkeyPatch, name: str, action: Callable[[], object]) -> None:
    """Have something happen right after a shard was renamed into the trash."""
    rename = os.rename

    def then(source: Any, target: Any, **settings: Any) -> None:
        rename(source, target, **settings)
        if source == name:
            action()

    monkeypatch.setattr(os, "rename", then)


# -- what a proof rests on is on disk --


def test_what_a_proof_rests_on_is_on_disk_before_its_shard_is_moved(
    node: Node, seen: list[Path]
) -> None:
    raft, snapshot = node.raft, node.raft / "snapshot"
    first, both = new_side(node, ONE), new_side(node, TWO)
    assert (len(first), len(both), set(first) < set(both)) == (1, 2, True)
    assert (len(content(raft)), len(content(snapshot))) == (3, 1)
    plan = proven_plan(node)
    assert carry_out(node, plan).deleted == [ONE, TWO]
    rest = {raft, snapshot, *content(raft, snapshot), node.shard_db_v2, node.db, node.path}
    before_one = seen[: seen.index(Path(ONE))]
    before_two = seen[: seen.index(Path(TWO))]
    assert {*first, *content(*first), *rest} <= set(before_one)
    assert {*both, *content(*both), *rest} <= set(before_two)


def test_what_two_proofs_rest_on_is_synced_once_a_run(node: Node, seen: list[Path]) -> None:
    plan = proven_plan(node)
    carry_out(node, plan)
    synced = [*content(*new_side(node, TWO), node.raft, node.raft / "snapshot"), node.shard_db_v2]
    assert {path: seen.count(path) for path in synced} == dict.fromkeys(synced, 1)
    seen.clear()
    plan = proven_plan(node)
    assert (plan.delete, carry_out(node, plan).deleted) == ((), [])
    assert not set(synced) & set(seen)


@pytest.mark.parametrize(
    "place",
    [
        lambda node: next(iter(content(*new_side(node, ONE)))),
        lambda node: new_side(node, ONE)[0],
        lambda node: node.raft / "log",
        lambda node: node.raft / "name",
        lambda node: node.raft,
        lambda node: next(iter(content(node.raft / "snapshot"))),
        lambda node: node.raft / "snapshot",
        lambda node: node.shard_db_v2,
        lambda node: node.path,
    ],
    ids=[
        *("a new shard's file", "a new shard", "raft's log", "raft's name", "raft"),
        *("a snapshot", "its directory", "shard_db_v2", "raft's parent"),
    ],
)
def test_a_shard_stays_where_what_its_proof_rests_on_cannot_be_synced(
    place: Callable[[Node], Path], node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, broken = proven_plan(node), place(node)
    fail_to_sync(monkeypatch, broken)
    outcome = carry_out(node, plan)
    words = ["new-side-not-durable"]
    assert (kept(outcome), outcome.deleted) == ({ONE: words, TWO: words}, [])
    assert (shards(node), in_trash(node)) == ([ONE, TWO], [])
    assert records(node, "kept")[ONE]["reasons"] == words
    detail = outcome.kept[0][1][0].detail
    assert detail.endswith("can't be synced to disk: Input/output error")
    assert Path(detail.split()[0]) in (broken, broken.parent)


def test_a_shard_goes_whose_own_new_side_is_on_disk_when_anothers_is_not(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = proven_plan(node)
    (second,) = set(new_side(node, TWO)) - set(new_side(node, ONE))
    fail_to_sync(monkeypatch, *content(second))
    outcome = carry_out(node, plan)
    assert (outcome.deleted, kept(outcome)) == ([ONE], {TWO: ["new-side-not-durable"]})


def test_a_sync_that_fails_once_keeps_all_that_rests_on_it_and_ends_their_proofs(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel tells of an error once; the next sync of the same bytes succeeds."""
    plan = proven_plan(node)
    (shared,) = new_side(node, ONE)
    broken, dropped = content(shared), []
    fsync, drop = os.fsync, os.posix_fadvise

    def fails_once(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path in broken:
            broken.clear()
            raise OSError(errno.EIO, "Input/output error")
        fsync(descriptor)

    def note(descriptor: int, offset: int, length: int, advice: int) -> None:
        assert (offset, length, advice) == (0, 0, os.POSIX_FADV_DONTNEED)
        dropped.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        drop(descriptor, offset, length, advice)

    monkeypatch.setattr(os, "fsync", fails_once)
    monkeypatch.setattr(os, "posix_fadvise", note)
    outcome = carry_out(node, plan)
    words = ["new-side-not-durable"]
    assert (kept(outcome), outcome.deleted) == ({ONE: words, TWO: words}, [])
    # The next proof reads all of it again, and from the disk.
    assert content(shared) <= set(dropped)
    assert Receipts(layout_of(node)).names() == frozenset()
    monkeypatch.undo()
    prove(node)
    assert carry_out(node, proven_plan(node)).deleted == [ONE, TWO]


def test_a_proof_whose_receipt_can_not_be_ended_keeps_its_shard_all_the_same(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = proven_plan(node)
    fail_to_sync(monkeypatch, node.raft / "log")
    (node.db / ".shardtool/proofs" / f"{ONE}.json").unlink()
    assert set(kept(carry_out(node, plan))) == {ONE, TWO}


def test_where_raft_and_the_new_storage_are_links_to_other_disks_a_proven_shard_goes(
    node: Node, seen: list[Path], tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    for place in (node.raft, node.shard_db_v2):
        place.rename(disk / place.name)
        place.symlink_to(disk / place.name)
    prove(node)
    seen.clear()
    assert carry_out(node, proven_plan(node)).deleted == [ONE, TWO]
    raft = disk / "raft"
    wanted = {disk, raft, node.path, disk / "shard_db_v2", *content(raft, raft / "snapshot")}
    assert wanted <= set(seen[: seen.index(Path(ONE))])


# -- and it is as it was --


def test_a_shard_whose_new_side_changed_since_the_plan_is_not_even_moved(
    node: Node, seen: list[Path]
) -> None:
    plan = proven_plan(node)
    (second,) = set(new_side(node, TWO)) - set(new_side(node, ONE))
    (second / "000999.ldb").touch()
    outcome = carry_out(node, plan)
    assert (outcome.deleted, kept(outcome)) == ([ONE], {TWO: ["new-side-changed"]})
    assert (Path(ONE) in seen, Path(TWO) in seen) == (True, False)
    assert records(node, "kept")[TWO]["reasons"] == ["new-side-changed"]


def test_no_shard_is_moved_once_raft_cannot_be_read_any_more(node: Node, seen: list[Path]) -> None:
    plan = proven_plan(node)
    (node.raft / "log").write_bytes(b"garbage" * 9)
    outcome = carry_out(node, plan)
    words = ["catalogue-unreadable"]
    assert (kept(outcome), outcome.deleted) == ({ONE: words, TWO: words}, [])
    assert not {Path(ONE), Path(TWO)} & set(seen)
    assert str(node.raft) in outcome.kept[0][1][0].detail


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda node: (new_side(node, ONE)[0] / "000999.ldb").touch(), "new-side-changed"),
        (lambda node: shutil.rmtree(new_side(node, ONE)[0]), "new-side-changed"),
        (lambda node: node.drop_series("test", "cpu"), "new-side-changed"),
        (lambda node: (node.raft / "log").unlink(), "catalogue-unreadable"),
    ],
    ids=["a new file", "a new shard gone", "a series dropped", "raft's log gone"],
)
def test_a_shard_is_put_back_whose_new_side_changes_in_the_last_moment(
    change: Callable[[Node], object], word: str, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = proven_plan(node)
    after_rename(monkeypatch, ONE, lambda: change(node))
    outcome = carry_out(node, plan)
    assert (outcome.deleted, kept(outcome)[ONE]) == ([], [word])
    assert (shards(node), in_trash(node)) == ([ONE, TWO], [])
    assert ("kept", ONE) in events(node)


# -- and the journal tells it --


def proof_of(receipt: Receipt) -> dict[str, object]:
    """Return what the journal is to keep of a proof."""
    finding = receipt.finding
    return {
        "proven_at": receipt.proven_at.isoformat().removesuffix("+00:00") + "Z",
        "values": finding.values,
        "missing": finding.missing,
        "different": finding.different,
        "asked": finding.asked,
        "digest": finding.digest,
    }


def test_the_journal_keeps_what_each_proof_found(node: Node) -> None:
    proof = proof_of(receipt_of(node, TWO))
    assert proof["values"] == 40
    assert carry_out(node, proven_plan(node)).deleted == [ONE, TWO]
    for event in ("intent", "deleted"):
        record = records(node, event)[TWO]
        assert record["evidence"] == "proof"
        assert proof.items() <= record.items()


def test_the_journal_keeps_what_was_lost_with_a_shard_whose_losses_were_accepted(
    tmp_path: Path,
) -> None:
    node = Node(tmp_path / "data", version="0.8", phantoms=False)
    node.old_shard(1, points=10, databases={"test": ("cpu",)})
    node.migrate(1, lose=2, change=1)
    prove(node)
    receipt = accept(node, ONE)
    assert carry_out(node, proven_plan(node)).deleted == [ONE]
    for event in ("intent", "deleted"):
        record = records(node, event)[ONE]
        assert record["evidence"] == "accepted"
        assert proof_of(receipt).items() <= record.items()
        assert (record["values"], record["missing"], record["different"]) == (40, 2, 1)


def interrupted_after_rename(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """End a prune between its renames and the journal's word for them."""
    plan = proven_plan(node)
    with monkeypatch.context() as patch:
        lose_the_journal_after(1, patch)
        carry_out(node, plan)
    assert shards(node) == []


def test_what_was_left_in_the_trash_is_removed_while_its_proof_holds(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted_after_rename(node, monkeypatch)
    outcome = carry_out(node, proven_plan(node))
    assert (outcome.finished, outcome.put_back) == ([ONE, TWO], [])


def test_what_was_left_in_the_trash_is_put_back_once_its_new_side_has_changed(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted_after_rename(node, monkeypatch)
    (second,) = set(new_side(node, TWO)) - set(new_side(node, ONE))
    shutil.rmtree(second)
    outcome = carry_out(node, proven_plan(node))
    assert (outcome.finished, outcome.put_back) == ([ONE], [TWO])
    assert (shards(node), in_trash(node)) == ([TWO], [])


@pytest.mark.parametrize("other", [{"digest": "f" * 64}, {"asked": 1}], ids=["values", "answers"])
def test_what_was_left_in_the_trash_is_put_back_once_its_receipt_is_of_other(
    other: dict[str, Any], node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A receipt that holds, but that is of other values, or of what other servers answered."""
    interrupted_after_rename(node, monkeypatch)
    receipt = receipt_of(node, ONE)
    Receipts(layout_of(node)).write(replace(receipt, finding=replace(receipt.finding, **other)))
    outcome = carry_out(node, proven_plan(node))
    assert (outcome.finished, outcome.put_back) == ([TWO], [ONE])
    assert (shards(node), in_trash(node)) == ([ONE], [])


# -- an acceptance is of these losses, beside these values --


@pytest.mark.parametrize(("second", "value"), [(0, 77), (60, 6)], ids=["another value", "one more"])
def test_an_acceptance_ends_with_the_values_that_it_saw_though_the_losses_are_the_same(
    second: int, value: int, tmp_path: Path
) -> None:
    node = Node(tmp_path / "data", version="0.8", phantoms=False)
    at = microseconds(FIRST_START)
    rows = [Row("test", "cpu", "n", at + n * 1_000_000, 10_001, n) for n in range(6)]
    node.old_shard(1, rows=rows, start=FIRST_START)
    node.migrate(1, lose=2)
    prove(node)
    before = accept(node, ONE).finding
    assert [deletion.name for deletion in proven_plan(node).delete] == [ONE]
    # It is in both, so it is proven, and what is lost are the same two.
    row = Row("test", "cpu", "n", at + second * 1_000_000, 10_001, value)
    node.write_old(1, [row], at=WRITTEN_AT)
    node.write_new([row])
    prove(node)
    after = receipt_of(node, ONE).finding
    assert (after.lost, after.losses_digest) == (2, before.losses_digest)
    plan = proven_plan(node)
    assert (plan.delete, [r.word for k in plan.keep for r in k.reasons]) == ((), ["values-missing"])
    accept(node, ONE)
    assert carry_out(node, proven_plan(node)).deleted == [ONE]
