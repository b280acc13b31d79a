"""`shardtool spaces` where something is wrong: with the file, on the way, with the server."""

from __future__ import annotations

import json
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from fixtures.raft import Command, Space, append
from tests.e2e.spaces_world import CPU, LONG, PASSWORD, SHORT, Make, one_line

pytestmark = pytest.mark.preloaded

# -- what goes wrong with the file --


def test_all_problems_are_told_at_once_and_nothing_is_asked(spaces_world: Make) -> None:
    w = spaces_world()
    broken = w.file(CPU.replace("30d", "7 parsecs").replace("/^cpu/", "/") + "split = 0\n")
    done = w.apply(broken, "--database", "test")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 3
    assert all(f"{broken}: cpu: " in line for line in done.stderr.splitlines())
    assert w.faults.seen == []
    document = json.loads(w.spaces("apply", broken, "--database", "test", "--json").stdout)
    assert len(document["problems"]) == 3


def test_what_only_the_server_knows_to_be_wrong_is_told_before_anything_is_sent(
    spaces_world: Make,
) -> None:
    w = spaces_world()
    done = w.apply(w.file(CPU + "replicationFactor = 2\n"), "--database", "nope")
    assert done.returncode == 2
    assert "found 'nope'; it has metrics, test" in done.stderr
    assert "expected 1 to 1, as many servers as there are" in done.stderr
    assert w.changes() == []


@pytest.mark.parametrize(
    "words",
    [
        ["apply"],
        ["apply", "a.toml", "--like-0.7", "test"],
        ["list", "cpu"],
        ["explain"],
        ["list", "--dry-run"],
        ["drop", "x"],
        ["apply", "--like-0.7", "test", "--database", "test"],
        [],
    ],
)
def test_words_that_make_no_sense_are_refused(words: list[str], spaces_world: Make) -> None:
    one_line(spaces_world().spaces(*words), 2)


def test_a_file_that_is_not_there_is_named(spaces_world: Make, tmp_path: Path) -> None:
    w = spaces_world()
    for path, reason in ((tmp_path / "no.toml", "No such file"), (tmp_path, "Is a directory")):
        assert reason in one_line(w.apply(path, "--database", "test"), 2)


def test_a_change_that_go_of_2014_cannot_compile_is_never_sent(spaces_world: Make) -> None:
    w = spaces_world(Space("cpu", "/^cpu/", 30))
    done = w.apply(w.file(CPU.replace("^cpu", r"^\\p{Vithkuqi}")), "--database", "test")
    assert "is unknown to 0.8's Go" in one_line(done, 2)
    assert w.changes() == []


# -- what goes wrong on the way --


def test_an_answer_that_was_lost_is_read_back_and_the_run_goes_on(spaces_world: Make) -> None:
    w = spaces_world()
    w.faults.method, w.faults.lost = "POST", 2
    done = w.apply("--like-0.7", "test")
    assert done.returncode == 0, done.stderr
    assert len(w.changes()) == 2
    assert w.asked() == ["long_term", "short_term"]


def test_a_request_that_never_arrived_ends_the_run_and_the_next_one_goes_on(
    spaces_world: Make,
) -> None:
    w = spaces_world()
    w.faults.only, w.faults.method, w.faults.drops = "/cluster/shard_spaces/metrics", "POST", 1
    done = w.apply("--like-0.7", "test", "metrics")
    assert done.returncode == 1
    first, second = done.stderr.splitlines()
    assert "read back: it was not done" in first
    assert second == (
        "shardtool: done: create short_term, create long_term; "
        "not done: create short_term, create long_term; run it again to go on from there"
    )
    done = w.apply("--like-0.7", "test", "metrics")
    assert done.returncode == 0
    assert w.asked("metrics") == w.asked("test") == ["long_term", "short_term"]
    assert len(w.changes()) == 5  # the one that was dropped is sent again, no other


def test_a_server_that_ends_in_the_midst_is_told_once(spaces_world: Make) -> None:
    w = spaces_world(LONG, SHORT)
    w.faults.method, w.faults.errors, w.faults.text = "DELETE", 1, "panic: \x1b[2J"
    done = w.apply("--like-0.7", "test")
    assert done.returncode == 1
    assert "\x1b" not in done.stderr
    assert "status 500 'panic: ?[2J'" in done.stderr
    assert w.asked() == ["short_term", "long_term"]


# -- other servers --


@pytest.mark.slow
@pytest.mark.parametrize("words", [["list"], ["apply", "--like-0.7", "test", "--yes"]])
@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"unauthorized": True, "only": "/cluster"}, "refused the user 'root'"),
        ({"version": ""}, "found no InfluxDB (status 200)"),
        ({"version": "0.9.6"}, "expected an InfluxDB 0.8, found InfluxDB 0.9.6"),
        ({"body": b"nonsense", "only": "/cluster"}, "expected the JSON of InfluxDB 0.8"),
        ({"body": b"{}", "only": "/cluster"}, "/cluster/configuration: expected the "),
        ({"huge": 1 << 30, "only": "/cluster"}, "bytes"),
        ({"cuts": 9}, "expected an answer"),
        ({"location": "http://127.0.0.1:1/", "only": "/cluster"}, "status 302"),
        ({"status": 404, "text": "404 page not found\n", "only": "/cluster"}, "status 404"),
    ],
)
def test_a_server_that_is_not_as_it_should_be_is_one_line_with_code_1(
    words: list[str], fault: dict[str, Any], expected: str, spaces_world: Make
) -> None:
    w = spaces_world()
    for name, value in fault.items():
        setattr(w.faults, name, value)
    line = one_line(w.spaces(*words), 1)
    assert expected in line
    assert PASSWORD not in line
    assert w.changes() == []


def test_a_07_that_runs_is_told_as_such(spaces_world: Make) -> None:
    line = one_line(spaces_world(version="0.7.3").apply("--like-0.7", "test"), 1)
    assert "expected an InfluxDB 0.8, found InfluxDB 0.7.3" in line


def test_a_port_where_nobody_listens_is_told(spaces_world: Make) -> None:
    w = spaces_world()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        w.url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        assert f"{w.url}/ping: expected an answer" in one_line(w.spaces("list"), 1)


def test_another_web_server_is_told_and_gets_no_password(spaces_world: Make) -> None:
    seen: list[str | None] = []

    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers.get("Authorization"))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>welcome")

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    w = spaces_world()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Other)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    w.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        assert "found no InfluxDB" in one_line(w.apply("--like-0.7", "test"), 1)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert seen == [None]


# -- hostile names --


@pytest.mark.slow
def test_names_of_a_server_reach_no_terminal_unescaped_and_80_columns_do(
    spaces_world: Make,
) -> None:
    hostile = "\x1b[2J\u202e" + "x" * 200
    w = spaces_world(Space(hostile, "/^" + "a" * 300 + "|\x1b/", 7, retention="7 parsecs"))
    for words in (["list"], ["explain", hostile], ["apply", "--like-0.7", "test", "-n"]):
        done = w.spaces(*words)
        whole = done.stdout + done.stderr
        assert "\x1b" not in whole
        assert "\u202e" not in whole
        assert all(len(line) <= 80 for line in done.stdout.splitlines()), done.stdout
        assert all(len(line) <= 300 for line in done.stderr.splitlines()), done.stderr
        # It would be hidden by what is to be made.
        assert done.returncode == (1 if words[0] == "apply" else 0)


def test_half_a_surrogate_pair_in_raft_is_taken_as_the_server_takes_it(spaces_world: Make) -> None:
    w = spaces_world(Space("a", "/^a/", 7))
    space = {"name": "s", "database": "test", "regex": "/\ud800/", "retentionPolicy": "inf"}
    command = {"ShardSpace": {**space, "shardDuration": "7d", "replicationFactor": 1, "split": 1}}
    new = {"Database": "test", "Series": [{"name": "x\udfff", "fields": ["v"]}]}
    log = w.path / "raft" / "log"
    append(log, Command("add_shard_space", json.dumps(command).encode() + b"\n"))
    append(log, Command("create_series_field_ids", json.dumps(new).encode() + b"\n"))
    for words in (["list"], ["explain", "\ufffd"]):
        done = w.run("--data", w.path, "spaces", *words, "--database", "test")
        assert (done.returncode, done.stderr) == (0, "")
        assert "/\\ud800/" in done.stdout
    assert "test: s takes" in done.stdout
