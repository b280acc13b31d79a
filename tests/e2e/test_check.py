"""`shardtool check` from outside: what stands in the way, on captures and on made-up nodes."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fixtures import Node, influxd, raft, wal
from fixtures.build import WRITTEN_AT
from fixtures.encode import Row, message, microseconds
from fixtures.server import Faults, serve
from shardtool.datadir.inventory import take_inventory
from shardtool.datadir.layout import find_layout
from shardtool.influxdb.catalogue import read_catalogue
from shardtool.upgrade.foresight import foresight, read_ahead
from tests.conftest import Hold, Listing, Run
from tests.e2e.proof_world import document, expected, not_ours, one_line

Capture = Callable[[str], Path]
PASSWORD = {"SHARDTOOL_PASSWORD": "root"}
# When the capture's migration ran: /work/shared/captures/migrated-08/influxdb.log.
MIGRATED_AT = datetime(2026, 11, 24, 16, 19, 57, tzinfo=UTC)


def check(run: Run, data: Path, *args: str, **settings: Any) -> dict[str, Any]:
    """Check and return the document."""
    found: dict[str, Any] = document(run("--data", data, "check", "--json", *args, **settings))
    return found


def ids(found: dict[str, Any], level: str) -> list[str]:
    """Return the ids of the findings of one level."""
    return sorted(one["id"] for one in found["findings"] if one["level"] == level)


def finding(found: dict[str, Any], word: str) -> dict[str, str]:
    """Return the finding with an id."""
    several: list[dict[str, str]] = found["findings"]
    (one,) = [one for one in several if one["id"] == word]
    return one


def skipped(found: dict[str, Any]) -> dict[tuple[str, str, str], int]:
    """Return the values that will not come over, by database, series and cause."""
    return {
        (one["database"], one["series"], one["cause"]): one["values"] for one in found["skipped"]
    }


# -- the captures --


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


# -- before the upgrade --

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


# -- on an 0.8 --


@pytest.fixture
def upgraded(tmp_path: Path, shardtool: Run) -> Node:
    """A node that 0.8 has started on, with a snapshot, without spaces."""
    node = Node(tmp_path / "data", databases=["test"], spaces=())
    now = microseconds(datetime.now(UTC))
    day = timedelta(days=1) // timedelta(microseconds=1)
    ages = (1, 10, 100)
    rows = [Row("test", "cpu", "v", now - days * day, 10_001, days) for days in ages]
    node.old_shard(1, rows=rows)
    shardtool("--data", node.path, "backup")
    node.upgrade()
    return node


def test_missing_spaces_block_and_made_ones_do_not(upgraded: Node, shardtool: Run) -> None:
    assert ids(check(shardtool, upgraded.path), "blocker") == ["no-spaces"]
    with serve(upgraded) as url:
        shardtool(
            *("--data", upgraded.path, "spaces", "apply", "--like-0.7", "test", "--api", url),
            "--yes",
            env=PASSWORD,
        )
        found = check(shardtool, upgraded.path, "--api", url, env=PASSWORD)
    assert ids(found, "blocker") == []
    assert "not-asked" not in ids(found, "info")


def test_a_space_that_forgets_too_early_blocks_with_the_exact_count(
    upgraded: Node, shardtool: Run
) -> None:
    upgraded.raft_command(
        "add_shard_space",
        {
            "ShardSpace": {
                "name": "month",
                "database": "test",
                "regex": "/.*/",
                "retentionPolicy": "30d",
                "shardDuration": "7d",
                "replicationFactor": 1,
                "split": 1,
            }
        },
    )
    found = check(shardtool, upgraded.path)
    assert ids(found, "blocker") == ["retention"]
    assert finding(found, "retention")["message"].startswith("1 of 3 values are older")


@pytest.mark.parametrize(
    ("version", "level"), [("0.8.0", "warning"), ("0.8.4", "blocker"), ("0.7.3", "blocker")]
)
def test_the_version_of_the_running_server_is_looked_at(
    version: str, level: str, upgraded: Node, shardtool: Run
) -> None:
    faults = Faults(version=f"InfluxDB v{version} (git: x) (leveldb: 1.7)")
    with serve(upgraded, faults=faults) as url:
        found = check(shardtool, upgraded.path, "--api", url, env=PASSWORD)
    (told,) = [one for one in found["findings"] if one["id"].startswith("version")]
    assert told["level"] == level
    assert version in told["message"]


def test_a_server_of_another_node_is_not_taken_for_this_ones(
    upgraded: Node, tmp_path: Path, shardtool: Run
) -> None:
    other = Node(tmp_path / "other", version="0.8", databases=["test"])
    name = (other.raft / "name").read_text()
    (upgraded.raft / "name").write_text("0123456789abcd")
    with serve(other) as url:
        found = check(shardtool, upgraded.path, "--api", url, env=PASSWORD)
    assert "other-server" in ids(found, "blocker")
    assert name in finding(found, "other-server")["message"]


def test_whatever_is_neither_07_nor_08_gets_no_password(upgraded: Node, shardtool: Run) -> None:
    faults = Faults(version="0.9.6")
    with serve(upgraded, faults=faults) as url:
        found = check(shardtool, upgraded.path, "--api", url, env=PASSWORD)
    assert "0.9.6" in finding(found, "version")["message"]
    assert [request.target for request in faults.seen] == ["/ping"]
    assert "Authorization" not in faults.seen[0].headers


def test_what_07_wrote_after_the_snapshot_blocks_after_the_upgrade_too(
    tmp_path: Path, shardtool: Run
) -> None:
    node = Node(tmp_path / "data")
    node.old_shard(1, points=10)
    node.write_wal(3)
    shardtool("--data", node.path, "backup")
    node.old_shard(2, points=10)
    node.write_wal(5)
    node.upgrade()
    found = check(shardtool, node.path)
    message = finding(found, "snapshot-outdated")["message"]
    assert "requests of the WAL's" in message


def test_writes_that_08_has_not_drained_are_told(upgraded: Node, shardtool: Run) -> None:
    found = check(shardtool, upgraded.path)
    assert "wal-only" not in ids(found, "blocker")
    with influxd.started(upgraded.path):
        assert finding(check(shardtool, upgraded.path), "server-running")["level"] == "info"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("faults", "words"),
    [
        (Faults(unauthorized=True), "refused the user"),
        (Faults(only="/cluster", body=b"<html>"), "expected the JSON of InfluxDB"),
        (Faults(version=""), "expected an InfluxDB"),
        (Faults(only="/cluster", cuts=9), "expected"),
        (Faults(only="/cluster", huge=32 << 20), "expected"),
        (Faults(only="/cluster", location="http://127.0.0.1:1/"), "302"),
    ],
)
def test_a_server_that_is_none_gets_one_line(
    faults: Faults, words: str, upgraded: Node, shardtool: Run
) -> None:
    with serve(upgraded, faults=faults) as url:
        done = shardtool("--data", upgraded.path, "check", "--api", url, env=PASSWORD)
    line = one_line(done, 1)
    assert words in line
    assert "root:" not in line


def test_a_port_that_nobody_listens_on_gets_one_line(upgraded: Node, shardtool: Run) -> None:
    started = time.monotonic()
    api = ("--api", "http://127.0.0.1:1")
    line = one_line(shardtool("--data", upgraded.path, "check", *api, env=PASSWORD), 1)
    assert "127.0.0.1:1" in line
    assert time.monotonic() - started < 30


# -- what it looks like --


@pytest.mark.slow
def test_it_fits_80_columns_and_needs_no_color(upgraded: Node, shardtool: Run) -> None:
    done = shardtool("--data", upgraded.path, "check")
    assert done.returncode == 3
    assert max(map(len, done.stdout.splitlines()[1:])) <= 80
    assert "\x1b" not in done.stdout
    quiet: subprocess.CompletedProcess[str] = shardtool("--data", upgraded.path, "check", "-q")
    assert quiet.stdout.count("\n") == 1


def test_the_document_has_what_the_design_promises(
    upgraded: Node, shardtool: Run, listing: Callable[[Path], Listing]
) -> None:
    before = not_ours(listing(upgraded.path))
    done = shardtool("--data", upgraded.path, "check", "--json")
    found = json.loads(done.stdout)
    assert found["schema"] == "shardtool/check/1"
    assert found["stage"] == "upgraded"
    assert all(
        one.keys() == {"id", "level", "subject", "message", "advice"} for one in found["findings"]
    )
    assert found["migration"] == {"shards": 1, "values": 3, "points": 3, "pause_seconds": 0.0}
    assert not_ours(listing(upgraded.path)) == before
