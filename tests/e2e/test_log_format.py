"""--log-format: each line on stderr a JSON object, whatever happens; and no secret anywhere."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from fixtures import Node
from tests.conftest import COMMAND, REPOSITORY, Hold, Run
from tests.e2e.proof_world import Capture
from tests.e2e.spaces_world import CPU, PASSWORD, World
from tests.e2e.terminal_world import Terminal
from tests.real.api_world import Asked, listening, sound

pytestmark = pytest.mark.preloaded

MESSAGE = {"time", "level", "command", "message"}


def logged(text: str) -> list[dict[str, Any]]:
    """Assert that a text is JSON lines as they are documented; return them."""
    lines = [json.loads(line) for line in text.splitlines()]
    for line in lines:
        assert set(line) - {"exit_code"} == MESSAGE
        assert datetime.fromisoformat(line["time"]).utcoffset() is not None
        assert line["level"] in ("error", "warning", "info")
        assert line["message"].isprintable()
    return lines


def last(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """Assert that a run logged JSON and that its last line has the exit code; return the line."""
    *others, end = logged(done.stderr)
    assert not any("exit_code" in line for line in others)
    assert end["exit_code"] == done.returncode
    return end


@pytest.mark.parametrize(
    ("words", "command", "said"),
    [
        (["stauts"], None, "did you mean status?"),
        ([], None, "expected a command"),
        (["--bogus"], None, "--bogus"),
        (["status", "--bogus\x1b[31m\n"], "status", "--bogus\\x1b[31m\\x0a"),
        (["prune", "--older-than", "soon"], "prune", "duration"),
        (["status", "--data", "a", "--influx-config", "b"], "status", "give one of them"),
        (["status", "--data", "nowhere\udcff"], "status", "No such file"),
        (["status", "--watch", "--json"], "status", "--watch draws"),
    ],
)
@pytest.mark.parametrize("by", ["option", "environment"])
def test_what_fails_is_a_json_line_before_parsing_and_after(
    by: str, words: list[str], command: str | None, said: str, proven: Node, shardtool: Run
) -> None:
    env: dict[str, str | None] = {"SHARDTOOL_DATA": str(proven.path)}
    if by == "environment":
        done = shardtool(*words, env={**env, "SHARDTOOL_LOG_FORMAT": "json"})
    else:
        done = shardtool(*words, "--log-format=json", env=env)
    line = last(done)
    assert done.stdout == ""
    assert (line["level"], line["command"]) == ("error", command)
    assert said in line["message"]


def test_a_log_format_that_is_none_is_wrong_usage(proven: Node, shardtool: Run) -> None:
    words = ("status", "--data", proven.path)
    done = shardtool(*words, "--log-format", "xml")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    done = shardtool(*words, env={"SHARDTOOL_LOG_FORMAT": "xml"})
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "SHARDTOOL_LOG_FORMAT" in done.stderr
    assert shardtool(*words, "--log-format=text", env={"SHARDTOOL_LOG_FORMAT": "xml"}).stderr == ""


def test_what_goes_well_logs_nothing_and_stdout_is_as_ever(proven: Node, shardtool: Run) -> None:
    for words in (["history"], ["history", "--json"], ["status", "-q"]):
        plain = shardtool(*words, "--data", proven.path)
        logs = shardtool(*words, "--data", proven.path, "--log-format", "json")
        assert (logs.returncode, logs.stderr) == (0, "")
        assert logs.stdout == plain.stdout


@pytest.mark.slow
def test_code_3_is_told_to_machines_with_the_warnings_before_it(
    capture: Capture, shardtool: Run
) -> None:
    data = capture("migrated-08")
    done = shardtool("verify", "--data", data, "--log-format=json", "-q")
    assert last(done)["level"] == "warning"
    listed = shardtool("verify", "--data", data, "--log-format=json", "--list")
    first, end = logged(listed.stderr)
    assert (first["level"], end["exit_code"]) == ("info", 3)
    assert "440 missing" in first["message"]
    assert all(json.loads(line) for line in listed.stdout.splitlines())


def test_another_shardtool_at_work_is_information(proven: Node, shardtool: Run, hold: Hold) -> None:
    hold(proven.db, "flock")
    done = shardtool("prune", "--yes", "--data", proven.path, "--log-format=json")
    assert (last(done)["level"], done.returncode) == ("info", 4)


def test_a_reader_that_goes_away_is_told(proven: Node) -> None:
    script = '"$@" status --log-format json | true; exit ${PIPESTATUS[0]}'
    done = subprocess.run(
        ["bash", "-c", script, "bash", *COMMAND, "--data", str(proven.path)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:  # it may have been quicker
        assert last(done)["exit_code"] == 1


def test_nothing_is_drawn_on_a_terminal_and_nobody_is_asked(proven: Node) -> None:
    terminal = Terminal("--data", proven.path, "prune", "--log-format", "json", TERM="xterm")
    assert terminal.end() == 2
    assert "--log-format json asks nothing" in terminal.shown.replace("\r\n", "")
    assert "\x1b" not in terminal.shown.splitlines()[-1]
    assert (proven.shard_db / "00001").is_dir()


def test_into_the_journal_each_line_has_its_level_and_no_color(proven: Node) -> None:
    ours, theirs = socket.socketpair()
    entry = os.fstat(theirs.fileno())
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY), "SHARDTOOL_DATA": "/nowhere"}
    env["JOURNAL_STREAM"] = f"{entry.st_dev}:{entry.st_ino}"
    for words in (["status"], ["status", "-qq"]):
        done = subprocess.run(
            [*COMMAND, *words], env=env, stderr=theirs.fileno(), stdout=subprocess.PIPE, check=False
        )
        line = ours.recv(4096).decode()
        assert line.startswith("<3>shardtool: /nowhere: expected a directory")
        assert line.count("\n") == 1
        assert "\x1b" not in line
        assert done.returncode == 1
        # The mail leaves out what the journal has.
        assert (b"expected" in done.stdout, b"result " in done.stdout) == (False, "-qq" in words)
    elsewhere = subprocess.run(
        [*COMMAND, "status"], env=env, capture_output=True, text=True, check=False
    )
    assert elsewhere.stderr.startswith("shardtool: ")
    ours.close()
    theirs.close()


# -- secrets --

AWS = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
BASIC = base64.b64encode(f"root:{PASSWORD}".encode()).decode()
SECRETS = (PASSWORD, BASIC, AWS, "h0rse-battery")
MANNERS = [[], ["--json"], ["-qq"], ["--log-format=json"], ["--log-format=json", "-qq"]]


def no_secret(*texts: str) -> None:
    """Assert that no text holds a secret, however it is spelled."""
    for text in texts:
        for secret in SECRETS:
            assert secret not in text, text


def files(path: Path) -> str:
    """Return all that shardtool has written of its own."""
    own = [one for one in (path / "db" / ".shardtool").rglob("*") if one.is_file()]
    return "\n".join(one.read_text() for one in own)


@pytest.mark.slow
@pytest.mark.parametrize("words", ["spaces list", "spaces apply spaces.toml --database test --yes"])
@pytest.mark.parametrize(
    ("by", "manner"),
    [
        ("environment", ["--json"]),
        ("file", ["--log-format=json", "-qq"]),
        ("wrong", ["--log-format=json"]),
        ("wrong", ["-qq"]),
    ],
)
def test_no_secret_is_in_what_commands_say_and_write(
    by: str,
    manner: list[str],
    words: str,
    spaces_world: Callable[..., World],
    shardtool: Run,
    tmp_path: Path,
) -> None:
    world = spaces_world()
    world.file(CPU)
    env: dict[str, str | None] = {"AWS_SECRET_ACCESS_KEY": AWS, "SHARDTOOL_PASSWORD": PASSWORD}
    login = ["--api", world.url]
    if by == "file":
        (tmp_path / "password").write_text(PASSWORD)
        env["SHARDTOOL_PASSWORD"] = None
        login += ["--password-file", "password"]
    elif by == "wrong":
        env["SHARDTOOL_PASSWORD"] = "h0rse-battery"
    words_given = ["--data", str(world.path), *words.split(), *login, *manner]
    done = shardtool(*words_given, env=env, cwd=tmp_path)
    assert done.returncode in ((1,) if by == "wrong" else (0,))
    metrics = tmp_path / "x.prom"
    shardtool("--data", world.path, "status", "--prometheus", metrics, env=env)
    no_secret(done.stdout, done.stderr, metrics.read_text(), files(world.path))


def test_no_secret_is_in_what_a_migration_says_and_writes(
    spaces_world: Callable[..., World], shardtool: Run
) -> None:
    world = spaces_world()
    (world.path / "db" / "shard_db" / "00001").mkdir()
    env: dict[str, str | None] = {"SHARDTOOL_PASSWORD": PASSWORD, "AWS_SECRET_ACCESS_KEY": AWS}
    words = ("migrate", "--data", world.path, "--api", world.url)
    wrong = shardtool(*words, "-qq", env={**env, "SHARDTOOL_PASSWORD": "h0rse-battery"})
    started = shardtool(*words, "--log-format=json", env=env)
    assert (wrong.returncode, started.returncode) == (1, 0)
    assert "migration-started" in files(world.path)
    no_secret(wrong.stdout, wrong.stderr, started.stdout, started.stderr, files(world.path))


@pytest.mark.slow
@pytest.mark.parametrize("manner", [["-q"], ["--log-format=json", "-qq"]], ids=" ".join)
@pytest.mark.parametrize("status", ["200 OK", "400 Bad Request"])
def test_a_server_that_echoes_what_it_was_sent_gives_no_secret_away(
    status: str, manner: list[str], proven: Node, shardtool: Run
) -> None:
    half = len(PASSWORD) // 2

    def echo(connection: socket.socket, asked: Asked) -> None:
        if asked.path == "/ping":
            sound(connection, b"{}")
            return
        # What is shown of an answer is cut at 500 characters: that is in the middle of it.
        padding = b" " * (500 - half)
        decoded = f"{PASSWORD} {BASIC} pass={PASSWORD} ".encode()
        sound(connection, padding + decoded + asked.head, status)

    env: dict[str, str | None] = {"SHARDTOOL_PASSWORD": PASSWORD}
    with listening(echo) as url:
        for words in (["spaces", "list"], ["verify", "--again"], ["check"]):
            done = shardtool("--data", proven.path, *words, "--api", url, *manner, env=env)
            assert done.returncode == 1
            assert PASSWORD[:half] not in done.stdout + done.stderr
            no_secret(done.stdout, done.stderr)
    no_secret(files(proven.path))


@pytest.mark.slow
@pytest.mark.parametrize("manner", MANNERS, ids=" ".join)
@pytest.mark.parametrize(
    "words",
    [
        ["--api", f"http://root:{PASSWORD}@127.0.0.1:1"],
        ["--api", f"http://127.0.0.1:1/?u=root&p={PASSWORD}"],
        ["--password", PASSWORD],
        [f"--password={PASSWORD}"],
        ["--api", "http://127.0.0.1:1", "--aws-secret-access-key", AWS],
    ],
    ids=lambda words: words[0],
)
def test_a_secret_that_was_given_in_a_wrong_place_is_not_repeated(
    words: list[str], manner: list[str], proven: Node, shardtool: Run
) -> None:
    env: dict[str, str | None] = {"SHARDTOOL_PASSWORD": PASSWORD}
    done = shardtool("--data", proven.path, "verify", *words, *manner, env=env)
    assert done.returncode in (1, 2)
    no_secret(done.stdout, done.stderr)
