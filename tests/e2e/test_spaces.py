"""`shardtool spaces` as it is installed, against a server on a real socket."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from fixtures import Node, Row
from fixtures.answers import Faults
from fixtures.raft import Space
from fixtures.server import serve
from shardtool.influxdb.api import Api
from shardtool.influxdb.catalogue import read_catalogue
from shardtool.upgrade.spaces import Had, Step, like_07, plan_spaces
from shardtool.upgrade.spaces_apply import execute
from tests.conftest import COMMAND, REPOSITORY, Listing, Run
from tests.e2e.test_terminal import Terminal

PASSWORD = "s3cret-p4ss"
Captured = Callable[[str], Path]
Listed = Callable[[Path], Listing]
CPU = """\
[[spaces]]
name = "cpu"
regex = "/^cpu/"
retentionPolicy = "inf"
shardDuration = "30d"
"""
WIDE = CPU.replace("cpu", "all").replace("^all", ".*")


@dataclass
class World:
    """A data directory that is served, and the command that asks the server."""

    path: Path
    run: Run
    url: str
    faults: Faults = field(default_factory=Faults)

    def spaces(self, *words: str | Path, **settings: Any) -> subprocess.CompletedProcess[str]:
        """Run `shardtool spaces` with --api and the password."""
        env = {"SHARDTOOL_PASSWORD": PASSWORD}
        command = ("--data", self.path, "spaces", *words, "--api", self.url)
        return self.run(*command, env=env, **settings)

    def apply(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """Run `shardtool spaces apply --yes`."""
        return self.spaces("apply", *words, "--yes")

    def file(self, content: str, name: str = "spaces.toml") -> Path:
        """Write a file of spaces."""
        path = self.path.parent / name
        path.write_text(content)
        return path

    def asked(self, database: str = "test") -> list[str]:
        """Return the names of the spaces as raft's log on disk has them, the newest first."""
        return [one.name for one in read_catalogue(self.path / "raft").spaces.get(database, ())]

    def changes(self) -> list[str]:
        """Return the requests that were to change something."""
        return [f"{one.method} {one.target}" for one in self.faults.seen if one.method != "GET"]

    def events(self) -> list[dict[str, Any]]:
        """Return what the journal tells of spaces."""
        journal = self.path / "db" / ".shardtool" / "journal"
        records = [json.loads(line) for line in journal.read_text().splitlines()]
        return [record for record in records if record["event"].startswith("space-")]


@pytest.fixture
def world(tmp_path: Path, shardtool: Run) -> Iterator[Callable[..., World]]:
    """Serve a node; 0.8's without spaces unless others are given."""
    with ExitStack() as stack:

        def make(
            *spaces: Space, rows: tuple[Row, ...] = (), version: str = "0.8.3", **settings: Any
        ) -> World:
            node = Node(
                tmp_path / "data",
                version="0.8",
                databases=["metrics", "test"],
                spaces=spaces,
                **settings,
            )
            if rows:
                node.write_new(rows)
            faults = Faults()
            url = stack.enter_context(
                serve(node, password=PASSWORD, faults=faults, version=version)
            )
            return World(node.path, shardtool, url, faults)

        yield make


Make = Callable[..., World]
SHORT, LONG = Space("short_term", "/.*/", 7), Space("long_term", "/^[A-Z].*/", 30)


def row(series: str) -> Row:
    """Return a point of a series."""
    return Row("test", series, "v", 1_400_000_000_000_000, 10001, 1)


def one_line(done: subprocess.CompletedProcess[str], code: int) -> str:
    """Return the only line that a run has told on stderr, and insist on its exit code."""
    assert done.returncode == code, done
    (line,) = done.stderr.splitlines()
    assert line.startswith("shardtool: ")
    return line


# -- list and explain --


def test_list_shows_spaces_as_asked_without_a_password_and_changes_nothing(
    capture: Captured, shardtool: Run, listing: Listed
) -> None:
    path = capture("migrated-08")
    before = listing(path)
    done = shardtool("--data", path, "spaces", "list")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[:4] == [
        "metrics",
        "   SPACE       RETENTION  DURATION  COPIES  SPLIT  SHARDS  REGEX",
        "1  long_term   inf        30d            1      1       7  /^[A-Z].*/",
        "2  short_term  inf        7d             1      1       9  /.*/",
    ]
    assert listing(path) == before


def test_the_server_lists_the_same_as_the_directory(world: Make) -> None:
    w = world(SHORT, LONG, rows=(row("cpu"), row("Mem")))
    offline = w.run("--data", w.path, "spaces", "list", "--json")
    online = w.spaces("list", "--json")
    assert json.loads(offline.stdout) == json.loads(online.stdout)
    spaces = json.loads(online.stdout)["spaces"]
    assert [(one["database"], one["name"], len(one["shards"])) for one in spaces] == [
        ("metrics", "long_term", 0),
        ("metrics", "short_term", 0),
        ("test", "long_term", 1),
        ("test", "short_term", 1),
    ]
    assert spaces[0]["shardDuration"] == "30d"


def test_list_says_which_space_is_never_asked_and_which_database_has_none(
    world: Make,
) -> None:
    w = world(LONG, SHORT)
    shown = w.spaces("list", "--database", "test").stdout
    assert "long_term is never asked: short_term before it takes all that it takes" in shown
    assert "metrics" not in shown
    document = json.loads(w.spaces("list", "--json").stdout)
    assert document["schema"] == "shardtool/spaces/1"
    assert [one["never_asked_because_of"] for one in document["spaces"]] == [
        *(None, "short_term"),
        *(None, "short_term"),
    ]


def test_a_07_directory_has_no_spaces(capture: Captured, shardtool: Run) -> None:
    path = capture("original-07")
    done = shardtool("--data", path, "spaces", "list")
    assert done.stdout.splitlines()[:2] == [
        "metrics: no space",
        "  the first write or migrated point makes 'default': /.*/, 7d, inf",
    ]
    done = shardtool("--data", path, "spaces", "explain", "cpu", "--database", "test")
    assert "no space takes cpu" in done.stdout


def test_explain_says_who_takes_a_series_and_why(world: Make) -> None:
    w = world(SHORT, LONG, rows=(row("cpu.load"), row("Mem")))
    shown = w.spaces("explain", "cpu.load", "--database", "test").stdout
    assert shown.splitlines() == [
        "test: short_term takes cpu.load",
        "   SPACE       ANSWER          REGEX",
        "1  long_term   does not match  /^[A-Z].*/",
        "2  short_term  matches         /.*/",
    ]
    shown = w.spaces("explain", "Nothing").stdout
    assert "metrics: long_term takes Nothing (no such series yet)" in shown
    assert "2  short_term  would match  /.*/" in shown
    document = json.loads(w.spaces("explain", "Mem", "--json").stdout)
    assert document["known_in"] == ["test"]
    assert [one["takes"] for one in document["spaces"]] == [True, False, True, False]
    assert [one["matches"] for one in document["spaces"]] == [True] * 4


def test_quiet_is_one_line(world: Make) -> None:
    w = world(SHORT, LONG)
    assert w.spaces("list", "-q").stdout == "4 spaces in 2 databases\n"
    shown = w.spaces("explain", "Mem", "-q").stdout
    assert shown == "metrics: long_term; test: long_term\n"
    assert w.spaces("apply", "--like-0.7", "test", "-q", "--yes").stdout.count("\n") == 1


def test_an_unknown_database_is_an_error_that_says_which_there_are(world: Make) -> None:
    line = one_line(world().spaces("list", "--database", "nope"), 1)
    assert "expected a database 'nope', found metrics, test" in line


# -- apply --


def test_like_07_makes_the_guides_two_spaces_in_the_guides_order(world: Make) -> None:
    w = world()
    done = w.apply("--like-0.7", "test", "metrics")
    assert (done.returncode, done.stderr) == (0, "")
    assert w.asked("test") == w.asked("metrics") == ["long_term", "short_term"]
    assert (
        w.changes()
        == ["POST /cluster/shard_spaces/test"] * 2 + ["POST /cluster/shard_spaces/metrics"] * 2
    )
    assert [record["event"] for record in w.events()] == ["space-created"] * 4
    assert w.events()[0]["space"]["name"] == "short_term"
    shown = w.run("--data", w.path, "history").stdout
    assert "space-created  -      test: long_term /^[A-Z].*/, kept inf, 30d a shard" in shown


def test_a_second_run_has_nothing_to_do(world: Make) -> None:
    w = world()
    w.apply("--like-0.7", "test")
    sent = w.changes()
    done = w.spaces("apply", "--like-0.7", "test")  # so nothing is asked for either
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "nothing to do: the server has them so"
    assert w.changes() == sent


@pytest.mark.parametrize("name", ["s.toml", "s.json", "-"])
def test_a_files_order_does_not_count(name: str, world: Make) -> None:
    w = world()
    spaces = [
        {"name": "cpu", "regex": "/^cpu/", "retentionPolicy": "inf", "shardDuration": "30d"},
        {"name": "all", "regex": "/.*/", "retentionPolicy": "inf", "shardDuration": "7d"},
    ]
    if name == "-":
        content = "\n".join(json.dumps(space) for space in spaces)
        script = [*("--data", w.path, "spaces", "apply", "-", "--yes", "--api", w.url)]
        done = _with_stdin(script, ["--database", "test"], content)
    else:
        content = CPU + WIDE if name == "s.toml" else json.dumps({"spaces": spaces})
        done = w.apply(w.file(content, name), "--database", "test")
    assert done.returncode == 0, done.stderr
    assert w.asked() == ["cpu", "all"]


def _with_stdin(
    words: list[Any], more: list[str], content: str
) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY), "SHARDTOOL_PASSWORD": PASSWORD}
    return subprocess.run(
        [*COMMAND, *map(str, words), *more],
        input=content,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_dry_run_prints_the_plan_that_the_real_run_executes_and_sends_nothing(
    world: Make, listing: Listed
) -> None:
    w = world(SHORT)
    words = ("apply", w.file(CPU + WIDE.replace("all", "short_term")), "--database", "test")
    before = listing(w.path)
    dry = json.loads(w.spaces(*words, "--dry-run", "--json").stdout)
    text = w.spaces(*words, "--dry-run")
    assert (listing(w.path), w.changes()) == (before, [])
    real = json.loads(w.spaces(*words, "--yes", "--json").stdout)
    assert (dry["dry_run"], real["dry_run"]) == (True, False)
    for key in ("steps", "spaces", "warnings", "refusals"):
        assert dry[key] == real[key]
    assert [(one["action"], one["space"]["name"]) for one in real["steps"]] == [
        ("change", "short_term"),
        ("create", "cpu"),
    ]
    assert text.stdout.splitlines() == [
        "test",
        "  ~ short_term  shardDuration '7d' -> '30d'",
        "  + cpu         kept inf, 30d a shard  /^cpu/",
        "  asked then in this order: cpu, short_term",
        "This makes 1 space, changes 1 space; nothing was sent (--dry-run)",
    ]
    assert (real["done"], real["error"], real["deviations"]) == (2, None, [])


def test_a_wrong_order_is_put_right_where_there_are_no_shards(world: Make) -> None:
    w = world(LONG, SHORT)
    done = w.apply("--like-0.7", "test")
    assert done.returncode == 0, done.stderr
    assert "- long_term   made again: it has to be asked before 'short_term'" in done.stdout
    assert w.asked() == ["long_term", "short_term"]
    assert w.changes()[0] == "DELETE /cluster/shard_spaces/test/long_term"
    assert [record["event"] for record in w.events()] == ["space-removed", "space-created"]


def test_a_wrong_order_with_shards_is_refused(world: Make) -> None:
    w = world(LONG, rows=(row("Mem"),))
    done = w.apply("--like-0.7", "test")
    assert done.returncode == 1
    assert "it has to be asked before 'short_term', but it has shard 1" in done.stderr
    assert done.stderr.splitlines()[-1] == "shardtool: nothing was sent"
    assert w.changes() == []


def test_series_that_are_taken_from_an_automatic_default_are_warned_of(world: Make) -> None:
    w = world(Space("default", "/.*/", 7), rows=(row("cpu"),))
    done = w.apply("--like-0.7", "test")
    assert done.returncode == 0
    assert "'default', which has shard 1: what they hold of those is not found" in done.stderr
    assert w.asked() == ["long_term", "short_term", "default"]


def test_without_a_terminal_or_yes_nothing_is_sent(world: Make) -> None:
    w = world()
    line = one_line(w.spaces("apply", "--like-0.7", "test"), 2)
    assert "This makes 2 spaces on http://127.0.0.1" in line
    assert "say --yes" in line
    one_line(w.spaces("apply", "--like-0.7", "test", "--json"), 2)
    assert w.changes() == []


def test_a_terminal_is_asked_and_only_yes_will_do(world: Make) -> None:
    w = world()
    words = ("--data", w.path, "spaces", "apply", "--like-0.7", "test", "--api", w.url)
    for answer, code in (("no\n", 1), ("yes\n", 0)):
        terminal = Terminal(*words)
        terminal.wait_for("Password of the InfluxDB user root")
        terminal.type(PASSWORD + "\n")
        terminal.wait_for("Type yes to go on")
        assert "+ short_term" in terminal.shown
        terminal.type(answer)
        assert terminal.end() == code
        assert PASSWORD not in terminal.shown
        assert (w.changes() == []) is bool(code)
    assert w.asked() == ["long_term", "short_term"]


def test_the_password_comes_from_a_file(world: Make, tmp_path: Path) -> None:
    w = world()
    (tmp_path / "pw").write_text(PASSWORD + "\n")
    words = ("--data", w.path, "spaces", "list", "--api", w.url, "--password-file")
    assert w.run(*words, tmp_path / "pw").returncode == 0
    assert "--password-file" in one_line(w.run(*words, tmp_path / "nothing"), 2)


def test_without_api_the_port_is_that_of_config_toml(world: Make, shardtool: Run) -> None:
    w = world()
    config = w.path / "config.toml"
    port = w.url.rpartition(":")[2]
    text = config.read_text()
    config.write_text(text.replace("[api]", "[was]") + f"\n[api]\nport = {port}\n")
    words = ("--data", w.path, "spaces", "apply", "--like-0.7", "test", "--yes")
    done = shardtool(*words, env={"SHARDTOOL_PASSWORD": PASSWORD})
    assert done.returncode == 0, done.stderr
    assert w.asked() == ["long_term", "short_term"]


def test_no_data_directory_is_needed_with_api(world: Make, shardtool: Run) -> None:
    w = world()
    words = ("spaces", "apply", "--like-0.7", "test", "--yes", "--api", w.url)
    done = shardtool(*words, env={"SHARDTOOL_PASSWORD": PASSWORD})
    assert done.returncode == 0, done.stderr
    assert not (w.path / "db" / ".shardtool").exists()


def test_another_nodes_journal_is_not_written(world: Make, tmp_path: Path) -> None:
    w = world()
    other = Node(tmp_path / "other", version="0.8")
    (other.raft / "name").write_text("deadbeef")
    words = ("spaces", "apply", "--like-0.7", "test", "--yes", "--api", w.url)
    done = w.run("--data", other.path, *words, env={"SHARDTOOL_PASSWORD": PASSWORD})
    assert done.returncode == 0
    assert not (other.db / ".shardtool").exists()


def test_a_journal_that_cannot_be_written_is_told_with_code_3(world: Make) -> None:
    w = world()
    (w.path / "db" / ".shardtool").write_text("no directory")
    done = w.apply("--like-0.7", "test")
    assert done.returncode == 3
    assert "'short_term' was made, but" in done.stderr
    assert w.asked() == ["long_term", "short_term"]


# -- what goes wrong with the file --


def test_all_problems_are_told_at_once_and_nothing_is_asked(world: Make) -> None:
    w = world()
    broken = w.file(CPU.replace("30d", "7 parsecs").replace("/^cpu/", "/") + "split = 0\n")
    done = w.apply(broken, "--database", "test")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 3
    assert all(f"{broken}: cpu: " in line for line in done.stderr.splitlines())
    assert w.faults.seen == []
    document = json.loads(w.spaces("apply", broken, "--database", "test", "--json").stdout)
    assert len(document["problems"]) == 3


def test_what_only_the_server_knows_to_be_wrong_is_told_before_anything_is_sent(
    world: Make,
) -> None:
    w = world()
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
def test_words_that_make_no_sense_are_refused(words: list[str], world: Make) -> None:
    one_line(world().spaces(*words), 2)


def test_a_file_that_is_not_there_is_named(world: Make, tmp_path: Path) -> None:
    w = world()
    for path, reason in ((tmp_path / "no.toml", "No such file"), (tmp_path, "Is a directory")):
        assert reason in one_line(w.apply(path, "--database", "test"), 2)


# -- what goes wrong on the way --


def test_an_answer_that_was_lost_is_read_back_and_the_run_goes_on(world: Make) -> None:
    w = world()
    w.faults.method, w.faults.lost = "POST", 2
    done = w.apply("--like-0.7", "test")
    assert done.returncode == 0, done.stderr
    assert len(w.changes()) == 2
    assert w.asked() == ["long_term", "short_term"]


def test_a_request_that_never_arrived_ends_the_run_and_the_next_one_goes_on(world: Make) -> None:
    w = world()
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


def test_a_server_that_ends_in_the_midst_is_told_once(world: Make) -> None:
    w = world(LONG, SHORT)
    w.faults.method, w.faults.errors, w.faults.text = "DELETE", 1, "panic: \x1b[2J"
    done = w.apply("--like-0.7", "test")
    assert done.returncode == 1
    assert "\x1b" not in done.stderr
    assert "status 500 'panic: ?[2J'" in done.stderr
    assert w.asked() == ["short_term", "long_term"]


def test_a_space_that_got_shards_after_the_plan_is_not_removed(world: Make) -> None:
    w = world(LONG, rows=(row("Mem"),))
    short, long = like_07("test")
    plan = plan_spaces([short, long], {"test": Had((long,))})
    assert [step.action for step in plan.steps] == ["create", "remove", "create"]
    with Api(w.url, "root", PASSWORD) as api:
        outcome = execute(plan, api, lambda step: None)
    assert "found it changed; it was not removed" in outcome.error
    assert [step.action for step in outcome.left] == ["remove", "create"]
    assert w.changes() == ["POST /cluster/shard_spaces/test"]


def test_what_somebody_else_does_meanwhile_is_seen_when_it_is_read_back(world: Make) -> None:
    w = world()
    plan = plan_spaces(like_07("test"), {"test": Had()})
    with Api(w.url, "root", PASSWORD) as api:

        def meddle(step: Step) -> None:
            if step.space.name == "long_term":
                api.create_space(replace(step.space, name="other", regex="/x/"))

        outcome = execute(plan, api, meddle)
    assert outcome.error == ""
    (line,) = outcome.deviations
    assert "found [other, long_term, short_term]" in line


# -- other servers --


@pytest.mark.parametrize("words", [["list"], ["apply", "--like-0.7", "test", "--yes"]])
@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"unauthorized": True, "only": "/cluster"}, "refused the user 'root'"),
        ({"version": ""}, "found no InfluxDB (status 200)"),
        ({"version": "0.9.6"}, "expected an InfluxDB 0.8, found InfluxDB 0.9.6"),
        ({"body": b"nonsense", "only": "/cluster"}, "expected the JSON of InfluxDB 0.8"),
        ({"body": b"{}", "only": "/cluster"}, "expected the configuration"),
        ({"huge": 1 << 30, "only": "/cluster"}, "bytes"),
        ({"cuts": 9}, "expected an answer"),
        ({"location": "http://127.0.0.1:1/", "only": "/cluster"}, "status 302"),
        ({"status": 404, "text": "404 page not found\n", "only": "/cluster"}, "status 404"),
    ],
)
def test_a_server_that_is_not_as_it_should_be_is_one_line_with_code_1(
    words: list[str], fault: dict[str, Any], expected: str, world: Make
) -> None:
    w = world()
    for name, value in fault.items():
        setattr(w.faults, name, value)
    line = one_line(w.spaces(*words), 1)
    assert expected in line
    assert PASSWORD not in line
    assert w.changes() == []


def test_a_07_that_runs_is_told_as_such(world: Make) -> None:
    line = one_line(world(version="0.7.3").apply("--like-0.7", "test"), 1)
    assert "expected an InfluxDB 0.8, found InfluxDB 0.7.3" in line


def test_a_port_where_nobody_listens_is_told(world: Make) -> None:
    w = world()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        w.url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        assert f"{w.url}/ping: expected an answer" in one_line(w.spaces("list"), 1)


def test_another_web_server_is_told_and_gets_no_password(world: Make) -> None:
    seen: list[str | None] = []

    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers.get("Authorization"))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>welcome")

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    w = world()
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


def test_names_of_a_server_reach_no_terminal_unescaped_and_80_columns_do(world: Make) -> None:
    hostile = "\x1b[2J\u202e" + "x" * 200
    w = world(Space(hostile, "/^" + "a" * 300 + "|\x1b/", 7, retention="7 parsecs"))
    for words in (["list"], ["explain", hostile], ["apply", "--like-0.7", "test", "-n"]):
        done = w.spaces(*words)
        whole = done.stdout + done.stderr
        assert "\x1b" not in whole
        assert "\u202e" not in whole
        assert all(len(line) <= 80 for line in done.stdout.splitlines()), done.stdout
        assert all(len(line) <= 300 for line in done.stderr.splitlines()), done.stderr
        # It would be hidden by what is to be made.
        assert done.returncode == (1 if words[0] == "apply" else 0)
