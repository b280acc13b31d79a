"""What is proven goes, and what has changed since its proof stays."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures import Node, Row
from fixtures.encode import microseconds
from tests.conftest import Run
from tests.e2e.proof_world import (
    PROVEN_NAMES,
    Capture,
    List,
    document,
    events,
    in_trash,
    kept,
    lose_one_value,
    new_of,
    old_shards,
    prune,
    receipts,
    verdicts,
    verify,
)
from tests.e2e.prune_proof.world import NOT_FOUND, directory_lost, file_lost, value_lost
from tests.e2e.terminal_world import Terminal
from tests.needs import needs_plyvel
from tests.real.prune.world import carry_out, proven_plan


def test_a_plain_prune_deletes_the_13_proven_and_keeps_14_with_words(
    capture: Capture, shardtool: Run
) -> None:
    data = capture("migrated-08")
    everything = old_shards(data)
    done = shardtool("--data", data, "prune", "--yes")
    assert done.returncode == 3, done.stderr
    assert old_shards(data) == sorted(set(everything) - set(PROVEN_NAMES))
    assert len(old_shards(data)) == 14
    assert in_trash(data) == []
    assert "to delete: 13 shards" in done.stdout
    assert "to keep: 14 shards" in done.stdout
    assert "values-missing: 32 of 1,462 are nowhere in the new storage" in done.stdout
    assert "would lose them for good" in done.stdout
    assert "deleted 13 shards" in done.stdout
    deleted = {record["shard"]: record for record in events(data, "deleted")}
    assert sorted(deleted) == PROVEN_NAMES
    assert {record["evidence"] for record in deleted.values()} == {"proof"}
    assert deleted["00012"]["values"] == 340
    assert deleted["00012"]["missing"] == deleted["00012"]["different"] == 0


@pytest.mark.slow
def test_a_dry_run_shows_the_very_plan_that_is_executed_and_deletes_nothing(
    capture: Capture, shardtool: Run, listing: List
) -> None:
    data = capture("migrated-08")
    before = listing(data / "db/shard_db")
    planned = document(shardtool("--data", data, "prune", "--dry-run", "--json"))
    assert listing(data / "db/shard_db") == before
    assert not (data / "db/.shardtool/journal").exists()
    assert sorted(one["id"] for one in planned["delete"]) == PROVEN_NAMES
    assert {one["evidence"] for one in planned["delete"]} == {"proof"}
    assert {one["verdict"] for one in planned["keep"]} == {"incomplete"}
    assert set(map(tuple, kept(planned).values())) == {("values-missing",)}
    pruned = prune(shardtool, data, "--yes")
    for key in ("delete", "keep", "finish", "reclaimable_bytes"):
        assert pruned[key] == planned[key]
    assert sorted(pruned["deleted"]) == PROVEN_NAMES


def test_without_reading_and_without_receipts_all_stay(capture: Capture, shardtool: Run) -> None:
    data = capture("migrated-08")
    done = shardtool("--data", data, "prune", "--no-verify", "--yes", "--json")
    pruned = document(done)
    assert done.returncode == 3
    assert (pruned["delete"], pruned["deleted"]) == ([], [])
    assert set(map(tuple, kept(pruned).values())) == {("not-proven",)}
    assert receipts(data) == []


@pytest.mark.slow
def test_without_reading_the_receipts_of_verify_are_enough(
    capture: Capture, shardtool: Run
) -> None:
    data = capture("migrated-08")
    verify(shardtool, data)
    pruned = prune(shardtool, data, "--no-verify", "--yes")
    assert sorted(pruned["deleted"]) == PROVEN_NAMES


def test_a_trusted_marker_does_not_outweigh_losses_that_a_receipt_shows(
    capture: Capture, shardtool: Run
) -> None:
    data = capture("migrated-08")
    verify(shardtool, data, "1", "2")
    pruned = prune(shardtool, data, "--trust", "marker", "--yes", "1", "2", "4")
    assert kept(pruned) == {"00001": ["values-missing"]}
    # 00004 has losses too, but nobody looked, and the marker was trusted out loud.
    assert sorted(pruned["deleted"]) == ["00002", "00004"]
    evidence = {record["shard"]: record["evidence"] for record in events(data, "deleted")}
    assert evidence == {"00002": "proof", "00004": "marker"}


def test_partial_08_loses_exactly_its_four_proven_shards(capture: Capture, shardtool: Run) -> None:
    data = capture("partial-08")
    done = shardtool("--data", data, "prune", "--yes", "--json")
    assert sorted(document(done)["deleted"]) == ["00006", "00007", "00008", "00009"]
    assert done.returncode == 0  # what was not migrated yet stays, and that is as it should be
    assert old_shards(data) == [f"0000{number}" for number in range(1, 6)]


@pytest.mark.slow
def test_a_shard_without_marker_stays_however_complete_it_is(
    tmp_path: Path, shardtool: Run
) -> None:
    node = Node(tmp_path / "data", version="0.8")
    node.old_shard(1, points=10)
    node.migrate(1, mark=False)
    assert verdicts(verify(shardtool, node.path)) == {"00001": "proven"}
    pruned = prune(shardtool, node.path, "--yes")
    assert kept(pruned) == {"00001": ["no-marker"]}


def value_changed(node: Node) -> None:
    """Have a client write another value over one of shard 1's."""
    at = microseconds(node.old[1].start)
    node.write_new([Row("test", "cpu", "n", at, 10_000_010_001, -77)])


def cut(node: Node) -> None:
    """Cut the log of shard 1's new shard in its middle, and set its mtime back."""
    log = new_of(node, 1).path / "000003.log"
    entry = log.stat()
    os.truncate(log, entry.st_size // 2)
    os.utime(log, ns=(entry.st_atime_ns, entry.st_mtime_ns))


def swapped(node: Node) -> None:
    """Put the new shard of the other old shard in the place of shard 1's."""
    one, other = new_of(node, 1).path, new_of(node, 50).path
    one.rename(one.with_name("x"))
    shutil.copytree(other, one)


CHANGED = ["new-side-changed"], ["new-side-not-durable"]


LOSSES = [value_lost, file_lost, directory_lost, value_changed, cut, swapped]


@pytest.mark.slow
@pytest.mark.parametrize("lose", LOSSES)
def test_a_shard_whose_new_side_changes_after_verify_is_proven_again_and_stays(
    lose: Callable[[Node], None], node: Node, shardtool: Run
) -> None:
    assert set(verdicts(verify(shardtool, node.path)).values()) == {"proven"}
    lose(node)
    pruned = prune(shardtool, node.path, "--yes")
    assert pruned["deleted"] == ["00050"]
    assert set(kept(pruned)["00001"]) <= NOT_FOUND
    assert old_shards(node.path) == ["00001"]


@pytest.mark.slow
@pytest.mark.parametrize("lose", LOSSES)
def test_a_shard_whose_new_side_changes_after_verify_stays_without_a_new_proof_too(
    lose: Callable[[Node], None], node: Node, shardtool: Run
) -> None:
    verify(shardtool, node.path)
    lose(node)
    pruned = prune(shardtool, node.path, "--no-verify", "--yes")
    assert pruned["deleted"] == ["00050"]
    assert kept(pruned) == {"00001": ["not-proven"]}


@needs_plyvel
def test_a_shard_whose_new_side_loses_a_table_stays_as_unreadable(
    tmp_path: Path, shardtool: Run
) -> None:
    node = Node(tmp_path / "data", version="0.8")
    node.old_shard(1, points=10, databases={"test": ("cpu",)})
    node.migrate(1, storage="tables")
    verify(shardtool, node.path)
    next(iter(new_of(node, 1).path.glob("*.ldb"))).unlink()
    pruned = prune(shardtool, node.path, "--yes")
    assert pruned["deleted"] == []
    assert kept(pruned) == {"00001": ["engine-unreadable"]}


@pytest.mark.slow
@pytest.mark.parametrize("lose", LOSSES)
def test_a_shard_whose_new_side_changes_between_plan_and_execution_stays(
    lose: Callable[[Node], None], node: Node, shardtool: Run
) -> None:
    verify(shardtool, node.path)
    plan = proven_plan(node)
    assert [deletion.name for deletion in plan.delete] == ["00001", "00050"]
    lose(node)
    outcome = carry_out(node, plan)
    assert outcome.deleted == ["00050"]
    ((name, reasons),) = outcome.kept
    assert name == "00001"
    assert [reason.word for reason in reasons] in CHANGED
    assert old_shards(node.path) == ["00001"]
    assert in_trash(node.path) == []


def test_a_change_in_the_moment_of_the_rename_puts_the_shard_back(
    node: Node, shardtool: Run, monkeypatch: pytest.MonkeyPatch, listing: List
) -> None:
    verify(shardtool, node.path)
    plan = proven_plan(node)
    before = listing(node.shard_db / "00001")
    rename = os.rename

    def late(source: str, target: str, **settings: int) -> None:
        rename(source, target, **settings)
        if source == "00001":
            lose_one_value(new_of(node, 1).path)

    monkeypatch.setattr(os, "rename", late)
    outcome = carry_out(node, plan)
    assert outcome.deleted == ["00050"]
    assert [name for name, _ in outcome.kept] == ["00001"]
    assert listing(node.shard_db / "00001") == before


def test_what_changes_while_the_question_waits_stays(node: Node) -> None:
    terminal = Terminal("--data", node.path, "prune")
    terminal.wait_for("Type yes to go on:")
    lose_one_value(new_of(node, 1).path)
    terminal.type("yes\n")
    assert terminal.end() == 3
    assert old_shards(node.path) == ["00001"]
    assert "00001: kept: new-side-changed" in terminal.shown.replace("\r\n", " ")


def test_an_old_shard_that_takes_a_value_after_its_proof_stays(node: Node, shardtool: Run) -> None:
    verify(shardtool, node.path)
    at = microseconds(node.old[1].start)
    node.write_old(1, [Row("test", "cpu", "n", at + 3, 90_001, 5)])
    assert kept(prune(shardtool, node.path, "--yes")) == {"00001": ["values-missing"]}
    assert old_shards(node.path) == ["00001"]


def test_a_shard_whose_values_lie_in_a_space_that_0_8_no_longer_asks_stays(
    node: Node, shardtool: Run
) -> None:
    """HAZARDS.md, 15: the newest space that matches takes the series, wherever its values are."""
    verify(shardtool, node.path)
    more = {"retentionPolicy": "inf", "shardDuration": "7d", "replicationFactor": 1, "split": 1}
    space = {"name": "hot", "database": "test", "regex": "/^cpu$/", **more}
    node.raft_command("add_shard_space", {"ShardSpace": space})
    assert kept(prune(shardtool, node.path, "--yes", "1")) == {
        "00001": ["values-missing", "in-other-space"]
    }
    assert old_shards(node.path)[0] == "00001"


@pytest.mark.slow
@pytest.mark.parametrize(
    "forget",
    [
        lambda node: node.drop_series("test", "cpu"),
        lambda node: node.drop_database("test"),
        lambda node: node.raft_command(
            "drop_shard", {"ShardId": new_of(node, 1).id, "ServerIds": [1]}
        ),
        lambda node: (node.raft / "log").unlink(),
    ],
    ids=["series dropped", "database dropped", "new shard dropped", "raft lost"],
)
def test_a_shard_whose_columns_raft_has_forgotten_since_its_proof_stays(
    forget: Callable[[Node], object], node: Node, shardtool: Run
) -> None:
    """After a restore of raft, say, or a drop whose files are still there."""
    verify(shardtool, node.path)
    forget(node)
    prune(shardtool, node.path, "--yes")
    assert "00001" in old_shards(node.path)
