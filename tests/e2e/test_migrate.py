"""shardtool migrate against a server that is a process of its own and really migrates."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fixtures import Node
from fixtures.influxd import started
from fixtures.server import Faults, Pace, serve
from shardtool.cli.migrate import _pause
from shardtool.cli.migrated import Told
from shardtool.datadir.layout import find_layout
from shardtool.journal import Journal
from shardtool.upgrade.pause import Pause
from tests.conftest import COMMAND, REPOSITORY, Listing, Run
from tests.e2e.proof_world import document
from tests.e2e.terminal_world import Terminal
from tests.real.api_world import Asked, listening

Migrate = Callable[..., subprocess.CompletedProcess[str]]

READY = ("--override", "no-snapshot", "--override", "no-spaces", "--no-read")
"""What lets a node that was only just upgraded through."""
PASSWORD = {"SHARDTOOL_PASSWORD": "root"}
SHARDS = ["00001", "00002", "00003", "00004"]
SLOW = ("--seconds-per-shard", "0.7")
NOT_READY_LINES = 2
"""What is said of the two overridden blockers on stderr."""


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """A node of 0.7 with four shards."""
    made = Node(tmp_path / "data")
    for name in SHARDS:
        made.old_shard(int(name), points=20)
    return made


@pytest.fixture
def migrate(shardtool: Run, node: Node) -> Migrate:
    """Run shardtool migrate on the node."""

    def run(url: str, *args: str, ready: bool = True, **settings: Any) -> Any:
        settings.setdefault("env", PASSWORD)
        more = READY if ready else ()
        return shardtool("--data", node.path, "migrate", "--api", url, *more, *args, **settings)

    return run


def marked(node: Node) -> list[str]:
    return sorted(path.parent.name for path in node.shard_db.glob("*/MIGRATED"))


def wait_for(what: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


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


def events(node: Node) -> list[str]:
    return [record["event"] for record in records(node)]


def records(node: Node) -> list[dict[str, Any]]:
    return list(Journal(find_layout(str(node.path), None, {})).read().records)


# -- to the end --


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


# -- what goes wrong in the server --


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


# -- interrupted --


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


# -- a start whose answer is lost --

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


# -- which pause --


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


# -- what does not begin --


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


# -- on a terminal --


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
