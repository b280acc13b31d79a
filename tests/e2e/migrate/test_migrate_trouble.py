"""What goes wrong while a migration runs, and runs that are interrupted."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fixtures import Node
from fixtures.influxd import started
from fixtures.server import Faults, Pace, serve
from tests.conftest import COMMAND, REPOSITORY
from tests.e2e.migrate.world import (
    PASSWORD,
    READY,
    SHARDS,
    SLOW,
    Migrate,
    events,
    marked,
    records,
    wait_for,
)
from tests.e2e.proof_world import document
from tests.real.api_world import Asked, listening


def begun(node: Node, url: str, *args: str) -> subprocess.Popen[str]:
    """Start migrate --wait and return when it has started the migration."""
    command = [*COMMAND, "--data", str(node.path), "migrate", "--api", url, *READY, "--wait", *args]
    process = subprocess.Popen(
        command,
        env={**os.environ, **PASSWORD, "PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: "migration-started" in events(node) and bool(marked(node)))
    return process


@pytest.mark.slow
def test_errors_of_the_log_are_shown_with_shard_and_series(node: Node, migrate: Migrate) -> None:
    node.old_shard(5, points=8, databases={"test": ('say "hi"\x1b[31m', "a~b", "ok")})
    with started(
        node.path, *SLOW, "--fail-write", "00002", "cpu", "no shard to \x1b[2J write to"
    ) as server:
        done = migrate(server.url, "--wait")
    assert done.returncode == 3, done.stderr
    assert "error in InfluxDB's log: 00005: Problem migrating series say" in done.stdout
    assert "error in InfluxDB's log: 00005: Error looking up fields for a:" in done.stdout
    shown = "error in InfluxDB's log: 00002: Writing Series data: no shard to \\x1b[2J write to"
    assert done.stdout.count(shown) == 1
    assert "\x1b" not in done.stdout + done.stderr
    assert "5 of 5 old shards are marked, 3 errors logged" in done.stdout
    # Whoever comes later is told what was logged since that migration began, when one runs.
    assert events(node)[-1] == "migration-ended"


@pytest.mark.slow
def test_json_names_shard_and_series_of_each_error(node: Node, migrate: Migrate) -> None:
    node.old_shard(5, points=8, databases={"test": ('"q"', "a~b", "ok")})
    with started(node.path) as server:
        done = migrate(server.url, "--wait", "--json")
    assert done.returncode == 3
    errors = document(done)["errors"]
    assert {(one["shard"], one["series"]) for one in errors} == {("00005", '"q"'), ("00005", "a")}
    assert all(one["text"] for one in errors)


@pytest.mark.slow
def test_a_shard_that_was_passed_over_ends_the_wait_and_is_named(
    node: Node, migrate: Migrate
) -> None:
    with started(node.path, *SLOW, "--fail-open", "00003", "--fail-open", "00001") as server:
        done = migrate(server.url, "--wait", "--json")
    assert done.returncode == 3
    found = document(done)
    assert (found["ended"], found["marked"]) == ("passed-over", ["00002", "00004"])
    assert (found["passed_over"], found["left"]) == (["00003", "00001"], [])
    assert [one["shard"] for one in found["errors"]] == ["00003", "00001"]


@pytest.mark.slow
def test_without_a_log_a_passed_over_shard_is_told_by_the_lower_ones(
    node: Node, migrate: Migrate, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "empty.log"
    elsewhere.touch()
    with started(node.path, *SLOW, "--fail-open", "00003") as server:
        done = migrate(server.url, "--wait", "--log", str(elsewhere))
    assert done.returncode == 3
    assert "passed over, without a marker: 00003" in done.stdout


@pytest.mark.slow
def test_a_server_that_is_killed_midway_ends_the_wait(node: Node) -> None:
    with started(node.path, "--stop-after", "2") as server:
        process = begun(node, server.url, "--every", "1s")
        wait_for(lambda: len(marked(node)) == 2)
        server.kill()
        out, err = process.communicate(timeout=40)
    assert process.returncode == 1, err
    line = err.splitlines()[-1]
    assert "expected the server to answer, found it gone; 2 of 4 old shards are marked" in line
    assert "marked since: 00004, 00003; not marked: 00002, 00001" in line
    assert "shardtool migrate --wait" in line
    assert "Traceback" not in out + err
    assert records(node)[-1]["how"] == "server-died"


@pytest.mark.slow
def test_a_migration_in_which_nothing_moves_ends_the_wait(node: Node, migrate: Migrate) -> None:
    with started(node.path, "--stop-after", "1") as server:
        done = migrate(server.url, "--wait", "--stall", "2s", "--json")
    assert done.returncode == 1
    found = document(done)
    assert (found["ended"], found["marked"]) == ("stalled", ["00004"])
    assert found["left"] == ["00003", "00002", "00001"]
    assert re.search(r"found nothing that did for [2-9]s; 1 of 4 old shards are m", done.stderr)


@pytest.mark.slow
def test_the_migrators_own_pause_is_no_standstill(node: Node, migrate: Migrate) -> None:
    with started(node.path, "--points-per-pause", "5") as server:
        done = migrate(server.url, "--wait", "--stall", "1s", "--pause", "2s")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_leaves_the_migration_as_it_is(node: Node, number: signal.Signals) -> None:
    with started(node.path, *SLOW) as server:
        process = begun(node, server.url, "--json")
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
        assert process.returncode == 130, err
        assert "interrupted; the migration goes on in the server" in err
        assert f"shardtool migrate --wait --data {node.path} --api {server.url}" in err
        assert json.loads(out)["ended"] == "interrupted"
        wait_for(lambda: marked(node) == SHARDS)
    assert events(node) == ["migration-started"]


@pytest.mark.slow
def test_killed_it_leaves_the_migration_as_it_is_and_a_rerun_follows_it(
    node: Node, migrate: Migrate
) -> None:
    with started(node.path, *SLOW) as server:
        process = begun(node, server.url)
        process.kill()
        process.communicate()
        found = document(migrate(server.url, "--wait", "--json"))
    assert (found["already_running"], found["ended"], found["marked"]) == (True, "marked", SHARDS)


WITH_SPACES = ("--override", "no-snapshot", "--no-read")


@contextlib.contextmanager
def served(node: Node, **faults: Any) -> Iterator[str]:
    """Serve an upgraded node in this process; the migration's start is struck by `faults`."""
    node.upgrade()
    struck = Faults(only="/cluster/migrate_data", **faults)
    with serve(node, faults=struck, pace=Pace(seconds_per_shard=0.4)) as url:
        yield url


@pytest.mark.slow
def test_a_refusal_that_follows_a_lost_answer_is_a_start_of_our_own(
    node: Node, migrate: Migrate
) -> None:
    with served(node, lost=1) as url:
        done = migrate(url, *WITH_SPACES, "--wait", "--pause", "1ms", ready=False)
    assert done.returncode == 0, done.stderr
    first = done.stdout.splitlines()[0]
    assert first == "the migration has started: 4 old shards to go, pause 1ms"
    assert events(node) == ["migration-started", "migration-ended"]


@pytest.mark.slow
def test_a_start_without_an_answer_may_have_been_one_and_says_how_to_find_out(
    node: Node, migrate: Migrate
) -> None:
    with served(node, lost=1, status=502, text="a proxy") as url:
        done = migrate(url, *WITH_SPACES, ready=False)
        assert done.returncode == 1
        line = done.stderr.splitlines()[-1]
        assert "it may have started: shardtool migrate --wait --data" in line
        assert "finds out" in line
        assert events(node) == ["migration-started", "migration-unknown"]
        assert "a proxy" in records(node)[-1]["error"]


@pytest.mark.slow
def test_a_start_that_no_server_answers_at_all_is_not_a_failed_one(
    node: Node, migrate: Migrate
) -> None:
    with served(node, drops=9) as url:
        done = migrate(url, *WITH_SPACES, ready=False)
    assert done.returncode == 1
    assert "it may have started" in done.stderr.splitlines()[-1]
    assert events(node) == ["migration-started", "migration-unknown"]


@pytest.mark.slow
@pytest.mark.parametrize("drip", [b"HTTP/1.1 200 OK\r\nX-A: ", b"HTTP/1.1 102 Processing\r\n\r\n"])
def test_a_server_that_drips_ends_the_wait(node: Node, migrate: Migrate, drip: bytes) -> None:
    def between(connection: socket.socket, asked: Asked) -> None:
        if asked.path == "/ping" and "migration-started" in events(node):
            connection.sendall(drip)
            while True:
                connection.sendall(drip[-1:] if drip.endswith(b" ") else drip)
                time.sleep(0.1)
        port = int(server.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as behind, connection:
            behind.sendall(asked.head.replace(b"keep-alive", b"close"))
            while received := behind.recv(1 << 16):
                connection.sendall(received)

    with started(node.path, "--stop-after", "1") as server, listening(between) as url:
        began = time.monotonic()
        words = ("--wait", "--stall", "5s", "--json", "--override", "other-server")
        done = migrate(url, *words)
        assert time.monotonic() - began < 40
    assert done.returncode == 1, done.stderr
    assert document(done)["ended"] in ("stalled", "server-died")
