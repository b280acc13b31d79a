"""Forget, on real snapshots with the real command."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.real.snapshot_world import backed_up, document, make_node, shardtool


@pytest.fixture
def node(tmp_path: Path) -> Path:
    return make_node(tmp_path / "node")


@pytest.fixture
def snapshots(node: Path) -> list[Path]:
    return [backed_up(node) for _ in range(3)]


def spoil(snapshot: Path) -> None:
    """Change a byte of the payload; the list does not see it."""
    (snapshot / "data" / "raft" / "log").write_bytes(b"A raft log\n")


def left(node: Path) -> list[str]:
    return sorted(os.listdir(node / "snapshots"))


def test_what_no_rule_keeps_goes(node: Path, snapshots: list[Path]) -> None:
    done = document("--data", node, "forget", "--keep-last", "1")
    assert done["removed"] == [snapshots[0].name, snapshots[1].name]
    assert done["freed_bytes"] > 2 * 256 * 9000
    assert left(node) == [snapshots[2].name]


def test_a_dry_run_prints_the_plan_that_is_then_executed(node: Path, snapshots: list[Path]) -> None:
    spoil(snapshots[2])
    dry = document("--data", node, "forget", "--keep-last", "1", "--dry-run")
    assert len(left(node)) == 3
    real = document("--data", node, "forget", "--keep-last", "1")
    assert {key: dry[key] for key in ("keep", "remove", "verified", "damaged")} == {
        key: real[key] for key in ("keep", "remove", "verified", "damaged")
    }
    assert real["removed"] == [entry["id"] for entry in dry["remove"]]


def test_the_last_good_one_stays_when_those_to_keep_are_damaged(
    node: Path, snapshots: list[Path]
) -> None:
    spoil(snapshots[2])
    result = shardtool("--data", node, "forget", "--keep-last", "1")
    assert result.returncode == 3
    assert left(node) == [snapshots[1].name, snapshots[2].name]


def test_nothing_goes_when_none_is_good(node: Path, snapshots: list[Path]) -> None:
    for snapshot in snapshots:
        spoil(snapshot)
    result = shardtool("--data", node, "forget", "--keep-within", "0s")
    assert result.returncode == 3
    assert len(left(node)) == 3
    assert result.stdout.count("none-good damaged") == 3


def test_one_whose_metadata_is_damaged_is_left_alone(node: Path, snapshots: list[Path]) -> None:
    (snapshots[0] / "shardtool.json").unlink()
    result = shardtool("--data", node, "forget", "--keep-last", "1")
    assert result.returncode == 3
    assert left(node) == [snapshots[0].name, snapshots[2].name]


def test_a_rule_is_needed(node: Path) -> None:
    assert shardtool("--data", node, "forget").returncode == 2


def test_a_link_with_a_snapshots_name_is_not_followed(
    node: Path, snapshots: list[Path], tmp_path: Path
) -> None:
    shutil.copytree(snapshots[0], tmp_path / "precious")
    (node / "snapshots" / "20200101T000000Z").symlink_to(tmp_path / "precious")
    assert shardtool("--data", node, "forget", "--keep-last", "1").returncode == 0
    assert (tmp_path / "precious" / "data" / "raft" / "log").exists()


def test_what_a_killed_forget_left_is_finished_by_the_next(
    node: Path, snapshots: list[Path]
) -> None:
    snapshots[0].rename(node / "snapshots" / f".forgotten-{snapshots[0].name}")
    assert shardtool("--data", node, "forget", "--keep-last", "2").returncode == 0
    assert left(node) == [snapshots[1].name, snapshots[2].name]


def test_it_is_in_the_journal_before_and_after(node: Path, snapshots: list[Path]) -> None:
    shardtool("--data", node, "forget", "--keep-last", "2")
    lines = (node / "db" / ".shardtool" / "journal").read_text().splitlines()
    events = [(json.loads(line)["event"], json.loads(line)["snapshots"]) for line in lines]
    assert events == [(event, [snapshots[0].name]) for event in ("forget-intent", "forgotten")]


def test_a_store_alone_is_enough(node: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    for _ in range(2):
        backed_up(node, "--to", store)
    assert shardtool("forget", "--keep-last", "1", "--store", store).returncode == 0
    assert len(os.listdir(store)) == 1
