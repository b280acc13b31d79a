"""`shardtool spaces`: list, explain, and apply by one plan."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fixtures import Node
from fixtures.raft import Space
from tests.conftest import COMMAND, REPOSITORY, Listing, Run
from tests.e2e.spaces_world import CPU, LONG, PASSWORD, SHORT, WIDE, Make, one_line, row
from tests.e2e.terminal_world import Terminal

pytestmark = pytest.mark.preloaded

Captured = Callable[[str], Path]
Listed = Callable[[Path], Listing]


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


def test_the_server_lists_the_same_as_the_directory(spaces_world: Make) -> None:
    w = spaces_world(SHORT, LONG, rows=(row("cpu"), row("Mem")))
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


@pytest.mark.slow
def test_list_says_which_space_is_never_asked_and_which_database_has_none(
    spaces_world: Make,
) -> None:
    w = spaces_world(LONG, SHORT)
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


def test_explain_says_who_takes_a_series_and_why(spaces_world: Make) -> None:
    w = spaces_world(SHORT, LONG, rows=(row("cpu.load"), row("Mem")))
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


def test_quiet_is_one_line(spaces_world: Make) -> None:
    w = spaces_world(SHORT, LONG)
    assert w.spaces("list", "-q").stdout == "4 spaces in 2 databases\n"
    shown = w.spaces("explain", "Mem", "-q").stdout
    assert shown == "metrics: long_term; test: long_term\n"
    assert w.spaces("apply", "--like-0.7", "test", "-q", "--yes").stdout.count("\n") == 1


def test_an_unknown_database_is_an_error_that_says_which_there_are(spaces_world: Make) -> None:
    line = one_line(spaces_world().spaces("list", "--database", "nope"), 1)
    assert "expected a database 'nope', found metrics, test" in line


# -- apply --


def test_like_07_makes_the_guides_two_spaces_in_the_guides_order(spaces_world: Make) -> None:
    w = spaces_world()
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


@pytest.mark.slow
def test_a_second_run_has_nothing_to_do(spaces_world: Make) -> None:
    w = spaces_world()
    w.apply("--like-0.7", "test")
    sent = w.changes()
    done = w.spaces("apply", "--like-0.7", "test")  # so nothing is asked for either
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "nothing to do: the server has them so"
    assert w.changes() == sent


@pytest.mark.parametrize("name", ["s.toml", "s.json", "-"])
def test_a_files_order_does_not_count(name: str, spaces_world: Make) -> None:
    w = spaces_world()
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
    spaces_world: Make, listing: Listed
) -> None:
    w = spaces_world(SHORT)
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


def test_a_wrong_order_is_put_right_where_there_are_no_shards(spaces_world: Make) -> None:
    w = spaces_world(LONG, SHORT)
    done = w.apply("--like-0.7", "test")
    assert done.returncode == 0, done.stderr
    assert "- long_term   made again: it has to be asked before 'short_term'" in done.stdout
    assert "- long_term   while it is away, its series go elsewhere" in done.stdout
    assert w.asked() == ["long_term", "short_term"]
    assert w.changes()[0] == "DELETE /cluster/shard_spaces/test/long_term"
    assert [record["event"] for record in w.events()] == ["space-removed", "space-created"]


def test_a_wrong_order_with_shards_is_refused(spaces_world: Make) -> None:
    w = spaces_world(LONG, rows=(row("Mem"),))
    done = w.apply("--like-0.7", "test")
    assert done.returncode == 1
    assert "it has to be asked before 'short_term', but it has shard 1" in done.stderr
    assert done.stderr.splitlines()[-1] == "shardtool: nothing was sent"
    assert w.changes() == []


@pytest.mark.slow
def test_series_are_taken_from_a_space_with_shards_only_where_it_is_named(
    spaces_world: Make,
) -> None:
    w = spaces_world(Space("default", "/.*/", 7), rows=(row("cpu"),))
    done = w.apply("--like-0.7", "test")
    assert done.returncode == 1
    refusal, last = done.stderr.splitlines()
    assert "default: 'short_term' would take series such as 'cpu' from it" in refusal
    assert "not found any more" in refusal
    assert "--take-from default" in refusal
    assert last == "shardtool: nothing was sent"
    assert w.changes() == []
    done = w.apply("--like-0.7", "test", "--take-from", "default", "--json")
    assert done.returncode == 0
    document = json.loads(done.stdout)
    assert [space["name"] for space in document["taken_from"]] == ["default"]
    assert "not found any more" in document["warnings"][0]
    assert "(--take-from default)" in done.stderr
    assert [record["taken_from"] for record in w.events()] == [["default"], ["default"]]
    assert w.asked() == ["long_term", "short_term", "default"]
    # What it means is told from then on, and a second run needs no permission.
    shown = " ".join(w.spaces("list", "--database", "test").stdout.split())
    assert "default is never asked: short_term before it" in shown
    assert "values in its 1 shard are not found by queries" in shown
    assert w.apply("--like-0.7", "test").returncode == 0


def test_a_space_to_take_from_that_is_not_there_is_wrong_usage(spaces_world: Make) -> None:
    w = spaces_world(SHORT)
    line = one_line(w.apply("--like-0.7", "test", "--take-from", "nope"), 2)
    assert "--take-from nope: expected a space that is there, found short_term" in line
    assert w.changes() == []


def test_what_no_name_is_known_of_is_never_put_under_a_catch_all(spaces_world: Make) -> None:
    w = spaces_world()
    parts = (("greek", r"^\\p{Greek}"), ("tabbed", r"[\\t]"), ("all", ".*"))
    file = w.file("".join(CPU.replace("^cpu", rx).replace("cpu", name) for name, rx in parts))
    assert w.apply(file, "--database", "test").returncode == 0
    assert w.asked()[-1] == "all"
    assert "greek takes \u03c9" in w.spaces("explain", "\u03c9", "--database", "test").stdout


def test_a_sample_tells_regexes_apart_that_no_name_is_made_up_for(spaces_world: Make) -> None:
    w = spaces_world()
    file = w.file(CPU + CPU.replace("^cpu", "a^b").replace("cpu", "never"))
    done = w.spaces("apply", file, "--database", "test", "--dry-run")
    assert done.returncode == 1
    assert "no series is known that" in done.stderr
    assert "--sample SERIES" in done.stderr
    wide = w.file(CPU + CPU.replace("^cpu", "^cpu[^?]").replace('cpu"', 'not"'))
    assert w.apply(wide, "--database", "test", "--sample", "cpu?").returncode == 0
    assert w.asked() == ["not", "cpu"]


# -- a cluster --


@pytest.mark.slow
def test_in_a_cluster_the_servers_are_told_and_what_is_each_nodes_own(spaces_world: Make) -> None:
    w = spaces_world(SHORT, LONG, servers=2)
    for words in (["list"], ["explain", "cpu"], ["apply", "--like-0.7", "test"]):
        done = w.spaces(*words)
        shown = " ".join((done.stdout + done.stderr).split())
        assert "2 servers: 1 (" in shown
        assert ", the leader), 2 (" in shown
        assert (
            "shard spaces are the whole cluster's, but each node's own shard_db has to be" in shown
        )
        document = json.loads(w.spaces(*words, "--json").stdout)
        assert [server["id"] for server in document["servers"]] == [1, 2]
        assert document["servers"][0]["is_leader"] is True
    offline = w.run("--data", w.path, "spaces", "list")
    assert "this is server 1" in " ".join(offline.stdout.split())


def test_without_a_terminal_or_yes_nothing_is_sent(spaces_world: Make) -> None:
    w = spaces_world()
    line = one_line(w.spaces("apply", "--like-0.7", "test"), 2)
    assert "This makes 2 spaces on http://127.0.0.1" in line
    assert "say --yes" in line
    one_line(w.spaces("apply", "--like-0.7", "test", "--json"), 2)
    assert w.changes() == []


def test_a_terminal_is_asked_and_only_yes_will_do(spaces_world: Make) -> None:
    w = spaces_world()
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


def test_the_password_comes_from_a_file(spaces_world: Make, tmp_path: Path) -> None:
    w = spaces_world()
    (tmp_path / "pw").write_text(PASSWORD + "\n")
    words = ("--data", w.path, "spaces", "list", "--api", w.url, "--password-file")
    assert w.run(*words, tmp_path / "pw").returncode == 0
    assert "--password-file" in one_line(w.run(*words, tmp_path / "nothing"), 2)


def test_without_api_the_port_is_that_of_config_toml(spaces_world: Make, shardtool: Run) -> None:
    w = spaces_world()
    config = w.path / "config.toml"
    port = w.url.rpartition(":")[2]
    text = config.read_text()
    config.write_text(text.replace("[api]", "[was]") + f"\n[api]\nport = {port}\n")
    words = ("--data", w.path, "spaces", "apply", "--like-0.7", "test", "--yes")
    done = shardtool(*words, env={"SHARDTOOL_PASSWORD": PASSWORD})
    assert done.returncode == 0, done.stderr
    assert w.asked() == ["long_term", "short_term"]


def test_no_data_directory_is_needed_with_api(spaces_world: Make, shardtool: Run) -> None:
    w = spaces_world()
    words = ("spaces", "apply", "--like-0.7", "test", "--yes", "--api", w.url)
    done = shardtool(*words, env={"SHARDTOOL_PASSWORD": PASSWORD})
    assert done.returncode == 0, done.stderr
    assert not (w.path / "db" / ".shardtool").exists()


def test_another_nodes_journal_is_not_written(spaces_world: Make, tmp_path: Path) -> None:
    w = spaces_world()
    other = Node(tmp_path / "other", version="0.8")
    (other.raft / "name").write_text("deadbeef")
    words = ("spaces", "apply", "--like-0.7", "test", "--yes", "--api", w.url)
    done = w.run("--data", other.path, *words, env={"SHARDTOOL_PASSWORD": PASSWORD})
    assert done.returncode == 0
    assert not (other.db / ".shardtool").exists()


def test_a_journal_that_cannot_be_written_is_told_with_code_3(spaces_world: Make) -> None:
    w = spaces_world()
    (w.path / "db" / ".shardtool").write_text("no directory")
    done = w.apply("--like-0.7", "test")
    assert done.returncode == 3
    assert "'short_term' was made, but" in done.stderr
    assert w.asked() == ["long_term", "short_term"]
