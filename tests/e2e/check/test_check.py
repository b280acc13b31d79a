"""`shardtool check` before the upgrade: the captures, and what stands in its way."""

from __future__ import annotations

import os
import shutil
import struct
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fixtures import Node, raft, wal
from fixtures.build import WRITTEN_AT
from fixtures.encode import message, microseconds
from shardtool.datadir.inventory import take_inventory
from shardtool.datadir.layout import find_layout
from shardtool.influxdb.catalogue import read_catalogue
from shardtool.upgrade.foresight import foresight, read_ahead
from tests.conftest import Hold, Listing, Run
from tests.e2e.check.world import check, finding, ids
from tests.e2e.proof_world import document, expected

Capture = Callable[[str], Path]


# When the capture's migration ran: /work/shared/captures/migrated-08/influxdb.log.
MIGRATED_AT = datetime(2026, 11, 24, 16, 19, 57, tzinfo=UTC)


def skipped(found: dict[str, Any]) -> dict[tuple[str, str, str], int]:
    """Return the values that will not come over, by database, series and cause."""
    return {
        (one["database"], one["series"], one["cause"]): one["values"] for one in found["skipped"]
    }


@pytest.mark.slow
def test_on_original_07_it_names_what_the_migration_of_the_same_data_then_lost(
    shardtool: Run, capture: Capture
) -> None:
    found = check(shardtool, capture("original-07"))
    lost: Counter[tuple[str, str, str]] = Counter()
    for shard in document(shardtool("--data", capture("migrated-08"), "verify", "--json"))[
        "shards"
    ]:
        for column in shard["columns"]:
            lost[column["database"], column["series"], column["cause"]] += column["missing"]
    told = skipped(found)
    assert {key: count for key, count in told.items() if key[2] == "name"} == {
        key: count for key, count in lost.items() if key[2] == "name"
    }
    assert sum(count for key, count in told.items() if key[2] == "name") == 400
    # What is of the future depends on the clock: those series, and no more values than then.
    then = {key: count for key, count in lost.items() if key[2] == "future"}
    now = {key: count for key, count in told.items() if key[2] == "future"}
    assert now.keys() <= then.keys()
    assert all(count <= then[key] for key, count in now.items())
    assert finding(found, "wal")["message"] == "all 20,536 values of the WAL are in the shards"


def test_at_the_moment_of_the_captures_migration_it_would_have_foretold_each_shards_losses(
    capture: Capture,
) -> None:
    layout = find_layout(str(capture("original-07")), None, {})
    per_shard: Counter[str] = Counter()

    class Nobody:
        def progress(self, shard: str, values: int, size: int) -> None:
            """Nobody looks."""

        def listed(self, shard: str, piece: bytes) -> None:
            """Nobody reads."""

    outcomes = read_ahead(
        take_inventory(layout).old or (),
        layout.old_shards,
        read_catalogue(layout.raft),
        Nobody(),
        now_us=microseconds(MIGRATED_AT),
    )
    for outcome in outcomes:
        per_shard[outcome.shard] += sum(one.values for one in foresight([outcome]).skipped)
    wanted = {name: shard["missing"] for name, shard in expected("migrated-08").items()}
    assert dict(per_shard) == wanted


@pytest.mark.slow
def test_on_stopped_07_without_one_shard_its_values_are_in_the_wal_alone(
    shardtool: Run, capture: Capture
) -> None:
    data = capture("stopped-07")
    shutil.rmtree(data / "db/shard_db/00007")
    found = check(shardtool, data)
    (gap,) = found["wal_only"]
    values = expected("migrated-08")["00007"]["values"]
    assert (gap["shard"], gap["present"], gap["values"]) == ("00007", False, values)
    assert "wal-only" in ids(found, "blocker")
    assert "start 0.7 once more" in finding(found, "wal-only")["advice"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["original-07", "stopped-07", "compacted-07", "partial-08"])
def test_nothing_of_a_capture_changes_and_the_missing_snapshot_blocks(
    name: str, shardtool: Run, capture: Capture, listing: Callable[[Path], Listing]
) -> None:
    data = capture(name)
    before = listing(data)
    found = check(shardtool, data)
    assert ids(found, "blocker") == ["no-snapshot"]
    assert listing(data) == before


@pytest.mark.slow
def test_a_raft_snapshot_of_07_is_told(shardtool: Run, capture: Capture) -> None:
    assert "0.8.0" in finding(check(shardtool, capture("compacted-07")), "raft-snapshot")["message"]


@pytest.mark.slow
def test_on_migrated_08_the_proofs_are_what_is_left_to_do(shardtool: Run, capture: Capture) -> None:
    data = capture("migrated-08")
    found = check(shardtool, data)
    assert ids(found, "blocker") == []
    assert finding(found, "not-proven")["message"].startswith("27 marked shards")
    shardtool("--data", data, "verify")
    assert finding(check(shardtool, data), "losses")["message"].startswith(
        "440 values of 14 marked shards are not"
    )


GARBAGE = struct.pack(">III", 1, 1, 4) + b"\xff\xff\xff\xff"


@pytest.mark.slow
def test_with_a_snapshot_of_what_is_there_nothing_blocks_until_raft_changes(
    tmp_path: Path, shardtool: Run
) -> None:
    node = Node(tmp_path / "data")
    node.old_shard(1, points=10)
    shardtool("--data", node.path, "backup")
    done = shardtool("--data", node.path, "check")
    assert (done.returncode, "0 blockers" in done.stdout) == (0, True)
    with (node.raft / "log").open("ab") as log:
        log.write(b"")
    os.utime(node.raft / "log")
    found = check(shardtool, node.path)
    assert ids(found, "blocker") == ["snapshot-outdated"]
    assert "raft/log" in finding(found, "snapshot-outdated")["message"]


def test_a_snapshot_that_lost_a_byte_is_no_snapshot(tmp_path: Path, shardtool: Run) -> None:
    node = Node(tmp_path / "data")
    node.old_shard(1, points=10)
    shardtool("--data", node.path, "backup")
    (log,) = (node.path / "snapshots").glob("*/data/raft/log")
    log.chmod(0o600)
    log.write_bytes(log.read_bytes()[:-1])
    assert ids(check(shardtool, node.path), "blocker") == ["snapshot-damaged"]


def test_writes_that_only_the_wal_holds_are_counted_by_shard(
    tmp_path: Path, shardtool: Run
) -> None:
    node = Node(tmp_path / "data")
    node.old_shard(1, points=10)
    node.write_wal(5, unflushed=3)
    found = check(shardtool, node.path)
    (gap,) = found["wal_only"]
    assert (gap["shard"], gap["missing"], gap["series"][0]["series"]) == ("00001", 3, "unflushed")
    assert "3 values (00001: 3) are in 0.7's WAL alone" in finding(found, "wal-only")["message"]


def test_a_server_that_runs_is_told_and_its_shards_are_read_when_it_is_gone(
    tmp_path: Path, shardtool: Run, hold: Hold
) -> None:
    node = Node(tmp_path / "data")
    shard = node.old_shard(1, points=10)
    hold(shard / "LOCK", "lock")
    found = check(shardtool, node.path)
    assert finding(found, "server-running")["level"] == "blocker"
    assert finding(found, "not-read")["level"] == "warning"
    assert found["migration"] is None


@pytest.mark.slow
def test_what_is_no_shard_is_told(tmp_path: Path, shardtool: Run) -> None:
    node = Node(tmp_path / "data")
    node.old_shard(1, points=10)
    (node.shard_db / "00002").mkdir()
    (node.shard_db / "00003").symlink_to(node.shard_db / "00001")
    (node.shard_db / "old copy\x1b[31m").mkdir()
    found = check(shardtool, node.path)
    subjects = {one["subject"]: one["id"] for one in found["findings"]}
    assert subjects["00002"] == "not-a-shard"
    assert subjects["00003"] == "symlink"
    done = shardtool("--data", node.path, "check")
    assert "\x1b" not in done.stdout + done.stderr
    assert "old copy\\x1b[31m" in done.stdout


def test_a_corrupt_shard_blocks_and_the_others_are_read(tmp_path: Path, shardtool: Run) -> None:
    node = Node(tmp_path / "data")
    node.old_shard(1, points=10)
    broken = node.old_shard(2, points=10)
    for file in broken.glob("*.log"):
        file.write_bytes(b"\x00" * 7 + file.read_bytes()[7:])
    (broken / "CURRENT").write_text("MANIFEST-999999\n")
    found = check(shardtool, node.path)
    assert finding(found, "engine-unreadable")["subject"] == "00002"
    assert found["migration"]["shards"] == 1


def test_the_ruins_of_a_shard_block_before_a_server_makes_an_empty_one_of_them(
    tmp_path: Path, shardtool: Run
) -> None:
    node = Node(tmp_path / "data")
    node.old_shard(1, points=10)
    ruin = node.old_shard(2, points=10)
    (ruin / "CURRENT").unlink()
    found = check(shardtool, node.path)
    assert finding(found, "ruins")["subject"] == "00002"
    assert "ruins" in ids(found, "blocker")


def test_writes_behind_a_log_that_grows_while_it_is_read_are_no_garbage(
    tmp_path: Path, shardtool: Run
) -> None:
    node = Node(tmp_path / "data")
    node.old_shard(1, points=20)
    whole = node.write_wal(20).read_bytes()
    half = len(whole) // 2
    (node.wal / "log.1").write_bytes(whole[:half])
    found = check(shardtool, node.path)
    assert "wal-unreadable" not in ids(found, "blocker")
    assert finding(found, "wal-torn")["level"] == "info"


def test_writes_for_another_servers_shard_are_none_of_this_ones(
    tmp_path: Path, shardtool: Run
) -> None:
    node = Node(tmp_path / "data")
    node.old_shard(1, points=5)
    node.write_wal(5, unflushed=1)
    theirs = raft.create_shards_07([(WRITTEN_AT, WRITTEN_AT + timedelta(days=7))], server_id=2)
    raft.append(node.raft / "log", theirs)
    log = node.wal / "log.1"
    last = wal.read_log(log.read_bytes())[-1]
    log.write_bytes(wal.encode([last._replace(shard_id=2)])[0])
    found = check(shardtool, node.path)
    assert finding(found, "wal-of-others")["level"] == "info"
    assert "wal-only" not in ids(found, "blocker")


def test_a_delete_in_the_wal_casts_no_doubt_on_other_series(tmp_path: Path, shardtool: Run) -> None:
    node = Node(tmp_path / "data")
    node.old_shard(1, points=5)
    log = node.write_wal(5, unflushed=3)
    query = message((2, 2), (3, "test"), (6, 1), (7, "delete from cpu"), (9, 9))
    with log.open("ab") as file:
        file.write(struct.pack(">III", 9, 1, len(query)) + query)
    found = check(shardtool, node.path)
    assert finding(found, "wal-only")["message"].startswith("3 values")
    assert "wal" not in ids(found, "info")


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (lambda node: (node.raft / "log").write_bytes(b"not a raft log"), "raft-unreadable"),
        (lambda node: (node.wal / "log.1").write_bytes(GARBAGE), "wal-unreadable"),
        (lambda node: shutil.rmtree(node.wal), "wal-unreadable"),
        (lambda node: shutil.rmtree(node.raft), "raft-unreadable"),
    ],
)
def test_raft_or_wal_that_can_not_be_read_block(
    damage: Callable[[Node], object], word: str, tmp_path: Path, shardtool: Run
) -> None:
    node = Node(tmp_path / "data")
    node.old_shard(1, points=10)
    damage(node)
    assert word in ids(check(shardtool, node.path), "blocker")


def test_without_reading_nothing_is_foretold_and_that_is_said(
    tmp_path: Path, shardtool: Run
) -> None:
    node = Node(tmp_path / "data")
    node.old_shard(1, points=10, databases={"test": ("a~b",)})
    found = check(shardtool, node.path, "--no-read")
    assert (found["skipped"], found["migration"]) == ([], None)
    assert finding(found, "not-read")["level"] == "info"
