"""`shardtool verify` on a node of a cluster: what other servers hold is asked for, or missing."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fixtures import MARKED_AT, Node, Row
from fixtures.encode import microseconds
from fixtures.server import Faults, serve
from shardtool.datadir.layout import find_layout
from shardtool.influxdb.api import Api
from shardtool.proof.receipts import Receipts
from shardtool.proof.source import catalogue_of
from tests.conftest import Run
from tests.e2e.proof_world import (
    Capture,
    document,
    events,
    kept,
    lose_one_value,
    prune,
    receipts,
    verdicts,
    verify,
)

pytestmark = pytest.mark.preloaded

PASSWORD = "s3cret-p4ss"
ENV: dict[str, str | None] = {"SHARDTOOL_PASSWORD": PASSWORD}
AT = microseconds(MARKED_AT) - 400 * 86_400_000_000
WEEK = 7 * 86_400_000_000
VALUES: list[str | bool | int | float] = [(1 << 53) + 1, "text", True, 0.1, -7, 3.0]


class World:
    """Two servers of one cluster; each old shard is on both, its new shard on one of them."""

    def __init__(self, path: Path) -> None:
        self.nodes = [
            Node(path / str(number), version="0.8", servers=2, server_id=number)
            for number in (1, 2)
        ]
        rows = [
            Row("test", "cpu", f"c{i}", AT + week * WEEK, 10_001 + i * 10_000, value)
            for week in range(2)
            for i, value in enumerate(VALUES)
        ]
        for node in self.nodes:
            for number in (1, 2):
                node.old_shard(number, rows=rows[(number - 1) * 6 : number * 6])
                node.migrate(number)
        self.node, self.other = self.nodes
        # Servers take turns: one shard's values are here, the other's are there.
        assert (len(self.node.new), len(self.node.elsewhere)) == (1, 1)

    def serve(self, faults: Faults | None = None) -> contextlib.AbstractContextManager[str]:
        """Serve the whole cluster; the node itself is asked."""
        return serve(*self.nodes, password=PASSWORD, faults=faults)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A cluster whose old shard 2 has its values on the other server."""
    return World(tmp_path)


def receipt(node: Node, shard: str) -> Any:
    """Return a shard's receipt as it is on disk."""
    return json.loads((node.db / f".shardtool/proofs/{shard}.json").read_text())


def test_without_asking_values_on_other_servers_are_missing_and_say_so(
    world: World, shardtool: Run
) -> None:
    done = shardtool("--data", world.node.path, "verify", "--json")
    shards = {one["id"]: one for one in document(done)["shards"]}
    assert done.returncode == 3
    assert verdicts(shards) == {"00001": "proven", "00002": "incomplete"}
    assert shards["00002"]["reasons"] == ["values-missing", "on-other-servers"]
    assert shards["00002"]["missing"] == shards["00002"]["values"] == len(VALUES)
    assert "--api" in shards["00002"]["details"][1]
    # On the other node it is the other way round.
    there = verdicts(verify(shardtool, world.other.path))
    assert there == {"00001": "incomplete", "00002": "proven"}


def test_values_that_the_cluster_answers_are_found_and_marked(world: World, shardtool: Run) -> None:
    with world.serve() as url:
        done = shardtool("--data", world.node.path, "verify", "--json", "--api", url, env=ENV)
    shards = {one["id"]: one for one in document(done)["shards"]}
    assert (done.returncode, done.stderr) == (0, "")
    assert verdicts(shards) == {"00001": "proven", "00002": "proven"}
    asked = {name: one["found_by_asking"] for name, one in shards.items()}
    assert asked == {"00001": 0, "00002": len(VALUES)}
    assert receipt(world.node, "00002")["asked"] == len(VALUES)
    assert receipt(world.node, "00001")["asked"] == 0


def test_only_what_is_on_other_servers_is_asked_for(world: World, shardtool: Run) -> None:
    faults = Faults()
    with world.serve(faults) as url:
        verify(shardtool, world.node.path, "--api", url, env=ENV)
    queries = [request.query for request in faults.seen if request.target.startswith("/db/")]
    assert queries
    assert all("cpu" in query for query in queries)
    # Shard 2's week begins after shard 1's: its times are asked for, none before.
    assert all(str(AT)[:6] not in query for query in queries)


def test_prune_asks_too_and_the_journal_says_how_many(world: World, shardtool: Run) -> None:
    assert kept(prune(shardtool, world.node.path, "--dry-run")) == {
        "00002": ["values-missing", "on-other-servers"]
    }
    with world.serve() as url:
        pruned = prune(shardtool, world.node.path, "--yes", "--api", url, env=ENV)
    assert sorted(pruned["deleted"]) == ["00001", "00002"]
    asked = {record["shard"]: record["asked"] for record in events(world.node.path, "deleted")}
    assert asked == {"00001": 0, "00002": len(VALUES)}


def test_what_the_other_server_lacks_stays_missing(world: World, shardtool: Run) -> None:
    lose_one_value(next(iter(world.other.new.values())).path)
    with world.serve() as url:
        shards = verify(shardtool, world.node.path, "--api", url, env=ENV)
        pruned = prune(shardtool, world.node.path, "--yes", "--api", url, env=ENV)
    assert shards["00002"]["missing"] == 1
    assert shards["00002"]["found_by_asking"] == len(VALUES) - 1
    assert "values-missing" in kept(pruned)["00002"]
    assert (world.node.shard_db / "00002").is_dir()


def test_a_value_that_is_another_there_stays_lost(world: World, shardtool: Run) -> None:
    world.other.write_new([Row("test", "cpu", "c0", AT + WEEK, 10_001, 1 << 53)])
    with world.serve() as url:
        (shard,) = verify(shardtool, world.node.path, "2", "--api", url, env=ENV).values()
    assert shard["missing"] + shard["different"] == 1
    assert shard["verdict"] == "incomplete"


def test_a_receipt_that_says_missing_elsewhere_does_not_keep_verify_from_asking(
    world: World, shardtool: Run
) -> None:
    verify(shardtool, world.node.path)
    with world.serve() as url:
        shards = verify(shardtool, world.node.path, "--api", url, env=ENV)
    assert verdicts(shards)["00002"] == "proven"
    assert {name for name, one in shards.items() if one["from_receipt"]} == {"00001"}


def test_a_receipt_that_says_missing_elsewhere_does_not_keep_prune_from_asking(
    world: World, shardtool: Run
) -> None:
    verify(shardtool, world.node.path)
    with world.serve() as url:
        pruned = prune(shardtool, world.node.path, "--yes", "--api", url, env=ENV)
    assert sorted(pruned["deleted"]) == ["00001", "00002"]


@pytest.mark.slow
def test_a_receipt_of_answers_holds_for_a_day(world: World, shardtool: Run) -> None:
    with world.serve() as url:
        verify(shardtool, world.node.path, "--api", url, env=ENV)
    assert verify(shardtool, world.node.path)["00002"]["from_receipt"]
    stored = Receipts(find_layout(str(world.node.path), None, {}))
    (now,) = [stored.read("00002")]
    assert now is not None
    for days in (2, -2):
        stored.write(replace(now, proven_at=now.proven_at - timedelta(days=days)))
        assert not verify(shardtool, world.node.path)["00002"]["from_receipt"]


@pytest.mark.slow
@pytest.mark.parametrize("words", [(), ("--no-verify",)])
def test_what_others_answered_once_is_no_evidence_for_a_deletion_now(
    words: tuple[str, ...], world: World, shardtool: Run
) -> None:
    with world.serve() as url:
        shards = verify(shardtool, world.node.path, "--api", url, env=ENV)
        assert verdicts(shards)["00002"] == "proven"
        # The other server loses a value; only whoever asks again can know.
        lose_one_value(next(iter(world.other.new.values())).path)
        asking = prune(shardtool, world.node.path, "--yes", "--api", url, *words, "2", env=ENV)
    assert "00002" in kept(asking)
    assert "00002" in kept(prune(shardtool, world.node.path, "--yes", *words, "2"))
    assert (world.node.shard_db / "00002").is_dir()


def test_the_catalogue_that_a_server_tells_is_rafts(world: World) -> None:
    layout = find_layout(str(world.node.path), None, {})
    with world.serve() as url, Api(url, "root", PASSWORD) as api:
        told = catalogue_of(layout, api)
    assert told == catalogue_of(layout, None)
    world.node.compact_raft(keep=3)
    assert told == catalogue_of(layout, None)


@pytest.mark.slow
def test_the_captures_verdicts_are_the_same_by_api(capture: Capture, shardtool: Run) -> None:
    data = capture("migrated-08")
    by_raft = verify(shardtool, data)
    with serve(data, password=PASSWORD) as url:
        by_api = verify(shardtool, data, "--again", "--api", url, env=ENV)
    for name, shard in by_raft.items():
        for key in ("verdict", "reasons", "values", "missing", "columns", "digest"):
            assert by_api[name][key] == shard[key], (name, key)
        assert by_api[name]["found_by_asking"] == 0


def test_with_a_server_to_ask_the_nodes_own_raft_log_may_be_damaged(
    world: World, shardtool: Run, tmp_path: Path
) -> None:
    # The server that is asked knows its raft from before.
    live = Path(shutil.copytree(world.node.path, tmp_path / "live"))
    (world.node.raft / "log").write_bytes(b"garbage")
    with serve(live, world.other, password=PASSWORD) as url:
        shards = verify(shardtool, world.node.path, "--api", url, env=ENV)
    assert verdicts(shards) == {"00001": "proven", "00002": "proven"}


def test_accept_asks_too_and_finds_nothing_to_accept(world: World, shardtool: Run) -> None:
    verify(shardtool, world.node.path)
    words = ("accept", "2", "--because", "x", "--missing", "6")
    with world.serve() as url:
        done = shardtool("--data", world.node.path, *words, "--api", url, env=ENV)
    assert (done.returncode, events(world.node.path, "accepted")) == (0, [])
    assert "nothing to accept" in done.stdout


# -- what can't be asked --


def refused(run: Run, node: Node, *words: str, env: dict[str, str | None] | None = None) -> str:
    """Verify with an --api that fails: one line, exit 1, no receipt, no password anywhere."""
    done: subprocess.CompletedProcess[str] = run(
        "--data", node.path, "verify", "--json", *words, env=env or ENV
    )
    assert done.returncode == 1, (done.stdout, done.stderr)
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("shardtool: ")
    for secret in (PASSWORD, "another-one"):
        assert secret not in done.stdout + done.stderr
    assert receipts(node.path) == []
    return line


def test_a_wrong_password_is_one_line(world: World, shardtool: Run) -> None:
    with world.serve() as url:
        env: dict[str, str | None] = {"SHARDTOOL_PASSWORD": "another-one"}
        line = refused(shardtool, world.node, "--api", url, env=env)
    assert url in line


def test_a_server_that_is_not_there_is_one_line(world: World, shardtool: Run) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        assert url in refused(shardtool, world.node, "--api", url)


@pytest.mark.slow
@pytest.mark.parametrize(
    "faults",
    [
        Faults(body=b"<html>nginx</html>"),
        Faults(body=b"[]"),
        Faults(body=b'{"MetaStore": 7}'),
        Faults(body=b"[" * 200_000),
        Faults(status=404, text="not here"),
        Faults(version="", body=b"{}"),
    ],
    ids=["html", "a list", "another document", "deep", "404", "no version"],
)
def test_what_is_no_influxdb_is_one_line_or_no_catalogue(
    faults: Faults, world: World, shardtool: Run
) -> None:
    with world.serve(faults) as url:
        done = shardtool("--data", world.node.path, "verify", "--json", "--api", url, env=ENV)
    assert "Traceback" not in done.stderr
    assert "mistake in shardtool" not in done.stderr
    assert PASSWORD not in done.stdout + done.stderr
    assert receipts(world.node.path) == []
    if done.returncode == 1:
        assert len(done.stderr.splitlines()) == 1
    else:
        assert done.returncode == 3
        reasons = {tuple(one["reasons"]) for one in document(done)["shards"]}
        assert reasons == {("catalogue-unreadable",)}


@pytest.fixture
def refusing(world: World) -> Iterator[str]:
    """A cluster that tells its configuration and then answers no query."""
    with world.serve(Faults(only="/db/", status=403, text="no")) as url:
        yield url


def test_a_server_that_answers_no_query_leaves_no_proof(
    world: World, shardtool: Run, refusing: str
) -> None:
    done = shardtool("--data", world.node.path, "verify", "--api", refusing, env=ENV)
    assert done.returncode in (1, 3)
    assert "Traceback" not in done.stderr
    assert "00002.json" not in receipts(world.node.path) or receipt(world.node, "00002")["missing"]
    kept_now = kept(prune(shardtool, world.node.path, "--no-verify", "--dry-run"))
    assert "00002" in kept_now


@pytest.mark.slow
def test_an_answer_that_is_cut_in_its_middle_proves_nothing(world: World, shardtool: Run) -> None:
    with world.serve(Faults(only="/db/", cuts=1000)) as url:
        done = shardtool("--data", world.node.path, "verify", "--api", url, env=ENV)
    assert done.returncode in (1, 3)
    assert "00002" in kept(prune(shardtool, world.node.path, "--no-verify", "--dry-run"))


@pytest.mark.parametrize("url", ["ftp://x", "localhost:8086x", "http://", "http://u:p@h:1"])
def test_an_address_that_is_none_is_wrong_usage_and_shows_no_password(
    url: str, world: World, shardtool: Run
) -> None:
    done = shardtool("--data", world.node.path, "verify", "--api", url, env=ENV)
    assert done.returncode in (1, 2)
    assert len(done.stderr.splitlines()) == 1
    assert PASSWORD not in done.stderr


def test_a_new_shard_of_another_server_that_lies_here_too_is_not_taken_for_storage(
    world: World, shardtool: Run
) -> None:
    """Left from a time when the shard was this server's: nobody asks it any more."""
    there = next(iter(world.other.new.values())).path
    shutil.copytree(there, world.node.shard_db_v2 / there.name, dirs_exist_ok=True)
    assert verdicts(verify(shardtool, world.node.path))["00002"] == "incomplete"
