"""`shardtool migrate` from its start to the end, in the pause that fits, on a terminal."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures import Node
from fixtures.influxd import started
from shardtool.cli.migrate import _pause
from shardtool.cli.migrated import Told
from shardtool.datadir.layout import find_layout
from shardtool.journal import Journal
from shardtool.upgrade.pause import Pause
from tests.conftest import COMMAND, REPOSITORY, Listing, Run
from tests.e2e.migrate.world import READY, SHARDS, SLOW, Migrate, events, marked, records, wait_for
from tests.e2e.proof_world import document
from tests.e2e.terminal_world import Terminal

NOT_READY_LINES = 2


@pytest.mark.slow
def test_a_migration_is_started_followed_to_its_end_and_told(node: Node, migrate: Migrate) -> None:
    with started(node.path, *SLOW) as server:
        done = migrate(server.url, "--wait", "--pause", "100u")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "the migration has started: 4 old shards to go, pause 100us"
    assert [line[:12] for line in lines[1:5]] == [f"marked {n}" for n in reversed(SHARDS)]
    assert "100%" in lines[4]
    assert "4 of 4 old shards are marked" in lines[5]
    assert lines[6] == "a marker proves nothing; next: shardtool verify"
    assert max(map(len, lines)) <= 80
    assert len(done.stderr.splitlines()) == NOT_READY_LINES
    assert marked(node) == SHARDS


@pytest.mark.slow
def test_what_was_done_is_in_the_journal_and_in_history(
    node: Node, migrate: Migrate, shardtool: Run
) -> None:
    with started(node.path) as server:
        assert migrate(server.url, "--wait", "--quiet").returncode == 0
    first, last = records(node)
    assert (first["event"], first["pause"], first["version"]) == (
        "migration-started",
        "100ms",
        "0.8.3",
    )
    assert first["shards"] == SHARDS
    assert first["overridden"] == ["no-snapshot", "no-spaces"]
    assert (last["event"], last["how"], last["errors"]) == ("migration-ended", "marked", 0)
    assert (last["marked"], last["left"], last["passed_over"]) == (SHARDS[::-1], [], [])
    shown = shardtool("--data", node.path, "history").stdout
    assert "4 shards, pause 100ms; overridden: no-snapshot, no-spaces" in shown
    assert "marked: 4 marked, 0 left, 0 passed over; 0 errors" in shown


@pytest.mark.slow
def test_json_is_one_document_and_nothing_else_on_stdout(node: Node, migrate: Migrate) -> None:
    with started(node.path) as server:
        found = document(migrate(server.url, "--wait", "--json"))
    assert found["schema"] == "shardtool/migrate/1"
    assert (found["started"], found["already_running"]) == (True, False)
    assert (found["ended"], found["marked"], found["left"]) == ("marked", SHARDS, [])
    assert (found["passed_over"], found["errors"], found["refused"]) == ([], [], [])
    assert found["seconds"] > 0


@pytest.mark.slow
def test_quiet_is_a_line(node: Node, migrate: Migrate) -> None:
    with started(node.path) as server:
        done = migrate(server.url, "--wait", "--quiet")
    assert len(done.stdout.splitlines()) == 1
    assert "4 of 4 old shards are marked" in done.stdout


@pytest.mark.slow
def test_without_wait_it_starts_it_and_says_how_to_follow(node: Node, migrate: Migrate) -> None:
    with started(node.path, *SLOW) as server:
        done = migrate(server.url)
        assert done.returncode == 0
        assert f"follow it: shardtool status --watch --data {node.path}" in done.stdout
        again = f"shardtool migrate --wait --data {node.path} --api {server.url}"
        assert again in done.stdout
        wait_for(lambda: marked(node) == SHARDS)


@pytest.mark.slow
def test_where_all_are_marked_nothing_is_sent_and_no_server_is_needed(
    node: Node, migrate: Migrate
) -> None:
    with started(node.path) as server:
        assert migrate(server.url, "--wait").returncode == 0
    before = records(node)
    done = migrate("http://127.0.0.1:1", "--json", env={})
    assert done.returncode == 0, done.stderr
    found = document(done)
    assert (found["started"], found["ended"], found["marked"]) == (False, "nothing-to-do", SHARDS)
    assert records(node) == before
    assert "all 4 old shards are marked" in migrate("http://127.0.0.1:1", env={}).stdout


@pytest.mark.slow
def test_a_second_one_follows_what_the_first_has_started(node: Node, migrate: Migrate) -> None:
    with started(node.path, *SLOW) as server:
        assert migrate(server.url).returncode == 0
        # Whatever the check has found: what runs is not held up by it, so nothing is overridden.
        found = document(migrate(server.url, "--wait", "--json", ready=False))
    assert (found["started"], found["already_running"]) == (False, True)
    assert (found["ended"], found["marked"]) == ("marked", SHARDS)


def test_the_pause_of_a_start_that_was_refused_is_not_that_of_the_one_that_runs(
    node: Node,
) -> None:
    layout = find_layout(str(node.path), None, {})
    journal = Journal(layout)
    for event, pause in (
        ("migration-started", "2s"),
        ("migration-started", "5ms"),
        ("migration-joined", ""),
        ("migration-started", "7ms"),
        ("migration-failed", ""),
    ):
        journal.append(event, **({"pause": pause} if pause else {}))
    args = argparse.Namespace(pause=Pause.of("100ms"))
    assert _pause(args, layout, Told(already_running=True)) == 2.0
    journal.append("migration-started", pause="3s")
    journal.append("migration-unknown", error="x")
    assert _pause(args, layout, Told(already_running=True)) == 3.0
    assert _pause(args, layout, Told(started=True)) == 0.1


@pytest.mark.slow
def test_a_blocker_refuses_and_nothing_is_sent(
    node: Node, migrate: Migrate, listing: Callable[[Path], Listing]
) -> None:
    with started(node.path) as server:
        before = listing(node.path)
        done = migrate(server.url, "--wait", "--json", ready=False)
        assert done.returncode == 3
        refused = {one["id"] for one in document(done)["refused"]}
        assert refused == {"no-snapshot", "no-spaces"}
        assert "nothing was sent" in done.stderr
        one = migrate(server.url, "--wait", "--override", "no-spaces", ready=False)
        assert one.returncode == 3
        assert "overridden: no-spaces" in one.stderr
        assert "blocker: no-snapshot" in one.stderr
        assert listing(node.path) == before
    assert (marked(node), events(node)) == ([], [])


@pytest.mark.slow
def test_an_override_that_no_finding_has_is_wrong_usage_and_names_the_blockers(
    node: Node, migrate: Migrate
) -> None:
    with started(node.path) as server:
        done = migrate(server.url, "--override", "no-space")
    assert done.returncode == 2
    assert "--override no-space: no finding" in done.stderr
    assert "no-snapshot, no-spaces" in done.stderr
    assert marked(node) == []


@pytest.mark.slow
def test_a_version_that_can_not_migrate_is_a_blocker(node: Node, migrate: Migrate) -> None:
    with started(node.path, "--version", "0.8.4") as server:
        done = migrate(server.url)
        assert done.returncode == 3
        assert "blocker: version" in done.stderr
        assert migrate(server.url, "--override", "version").returncode == 1
    assert marked(node) == []
    assert events(node)[-1] == "migration-failed"


def test_0_7_gets_one_clear_line(node: Node, migrate: Migrate) -> None:
    with started(node.path, "--version", "0.7.3") as server:
        done = migrate(server.url, "--wait")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "expected a directory that 0.8 has been started on" in done.stderr
    assert events(node) == []


@pytest.mark.slow
def test_in_a_cluster_the_other_servers_are_named(migrate: Migrate, tmp_path: Path) -> None:
    node = Node(tmp_path / "one", version="0.8", servers=2)
    node.old_shard(1, points=4)
    with started(node.path) as server:
        words = ("--data", str(node.path), "--override", "no-snapshot")
        done = migrate(server.url, *words, ready=False)
    assert done.returncode == 0, done.stderr
    assert "shardtool: 2 servers: 1 (" in done.stderr
    assert "old shards: server 1 has 00001; server 2 has none" in done.stderr
    assert "migrate and verify on every one of them" in done.stderr


@pytest.mark.slow
def test_a_wrong_password_is_one_line_without_it(node: Node, migrate: Migrate) -> None:
    with started(node.path) as server:
        done = migrate(server.url, "--wait", env={"SHARDTOOL_PASSWORD": "sesame-9"})
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "refused the user 'root'" in done.stderr
    assert "sesame-9" not in done.stderr
    assert events(node) == []


@pytest.mark.slow
def test_a_wrong_port_is_one_line(node: Node, migrate: Migrate) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens there
        done = migrate(f"http://127.0.0.1:{taken.getsockname()[1]}", "--wait")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_the_server_of_another_directory_is_refused_and_overridden_it_stalls(
    node: Node, migrate: Migrate, tmp_path: Path
) -> None:
    other = Node(tmp_path / "other")
    other.old_shard(1, points=4)
    with started(node.path), started(other.path) as server:
        refused = migrate(server.url, "--wait", "--stall", "1s")
        assert (refused.returncode, events(node)) == (3, [])
        assert "--override other-server" in refused.stderr
        words = ("--wait", "--stall", "1s", "--override", "other-server")
        done = migrate(server.url, *words)
    assert done.returncode == 1
    assert f"make sure that {server.url} is the server on this directory" in done.stderr


def test_a_log_that_is_not_there_is_told_before_anything_is_sent(
    node: Node, migrate: Migrate
) -> None:
    with started(node.path) as server:
        done = migrate(server.url, "--log", "/nowhere/influxdb.log")
    assert (done.returncode, events(node)) == (1, [])
    assert "expected InfluxDB's log, found nothing" in done.stderr


@pytest.mark.parametrize(
    ("option", "value"), [("--pause", "100"), ("--pause", "2h"), ("--stall", "0s")]
)
def test_wrong_durations_are_wrong_usage(
    migrate: Migrate, node: Node, option: str, value: str
) -> None:
    assert migrate("http://127.0.0.1:1", option, value).returncode == 2


@pytest.mark.slow
def test_on_a_terminal_a_block_is_drawn_and_gone_at_the_end(node: Node) -> None:
    with started(node.path, *SLOW) as server:
        terminal = Terminal(
            "--data", node.path, "migrate", "--api", server.url, *READY, "--wait",
            SHARDTOOL_PASSWORD="root", COLUMNS="80",
        )  # fmt: skip
        terminal.wait_for("migrating 00002: 50%")
        terminal.wait_for("next: shardtool verify")
        assert terminal.end() == 0
    assert "the new shards have grown by" in terminal.shown
    assert terminal.shown.rindex("\x1b[2K") < terminal.shown.index("it has ended")


def test_status_watch_shows_the_migration_that_runs(node: Node, migrate: Migrate) -> None:
    node.old_shard(5, points=8, databases={"test": ('say "hi"',)})
    with started(node.path, "--seconds-per-shard", "2") as server:
        assert migrate(server.url).returncode == 0
        terminal = Terminal("--data", node.path, "status", "--watch", "--every", "1s")
        terminal.wait_for("migrating 0000")
        terminal.wait_for("errors in InfluxDB's log: 1, the last:")
        terminal.wait_for('Problem migrating series say "hi"')
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.end() == 130
        watched = subprocess.Popen(
            [*COMMAND, "--data", str(node.path), "status", "--watch", "--every", "1s"],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert watched.stdout is not None
        line = watched.stdout.readline()
        assert "; migrating 0000" in line
        watched.kill()
        watched.communicate()


def test_status_watch_says_nothing_of_a_migration_where_none_runs(node: Node) -> None:
    with started(node.path):
        terminal = Terminal("--data", node.path, "status", "--watch", "--every", "1s")
        terminal.wait_for("stage: upgraded")
        time.sleep(1.5)
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.end() == 130
    assert "migrating" not in terminal.shown
