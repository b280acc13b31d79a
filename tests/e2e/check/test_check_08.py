"""`shardtool check` on an 0.8, and what it looks like."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures import Node, influxd
from fixtures.server import Faults, serve
from tests.conftest import Listing, Run
from tests.e2e.check.world import check, finding, ids
from tests.e2e.proof_world import not_ours, one_line

pytestmark = pytest.mark.preloaded

PASSWORD = {"SHARDTOOL_PASSWORD": "root"}


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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
