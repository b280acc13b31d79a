"""-qq, as cron runs it: nothing while all is well or another shardtool is at work, else a mail."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from fixtures import Node, Row
from tests.conftest import COMMAND, REPOSITORY, Hold, Run
from tests.e2e.proof_world import AT, Capture
from tests.e2e.rescue_world import PASSWORD, lossy, served

MOST_LINES, WIDTH = 60, 80


def mail(done: subprocess.CompletedProcess[str], code: int) -> str:
    """Assert that a run ended with `code` and a mail on stdout; return the text, in one line."""
    assert (done.returncode, done.stderr) == (code, ""), done
    lines = done.stdout.splitlines()
    assert len(lines) <= MOST_LINES
    assert max(map(len, lines)) <= WIDTH
    assert all(line.isprintable() for line in lines)
    heads = [line.split()[0] for line in lines if line and not line.startswith(" ")][:4]
    assert heads in (["host", kind, "command", "result"] for kind in ("data", "config"))
    assert f"exit code {code}: " in done.stdout
    return " ".join(done.stdout.split())


def nothing(done: subprocess.CompletedProcess[str], code: int = 0) -> None:
    """Assert that a run ended with `code` and without a word."""
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["status"],
        ["verify"],
        ["verify", "--again"],
        ["backup"],
        ["snapshots"],
        ["snapshots", "verify"],
        ["forget", "--keep-last", "1"],
        ["history"],
        ["prune", "--dry-run"],
        ["prune", "--yes"],
        ["export", "--database", "test", "--to", "out.lp"],
    ],
)
def test_while_all_is_well_there_is_nothing_to_read(
    words: list[str], proven: Node, tmp_path: Path, shardtool: Run
) -> None:
    if words[0] in ("snapshots", "forget"):
        assert shardtool("backup", "--data", proven.path).returncode == 0
    nothing(shardtool(*words, "--data", proven.path, "-qq", cwd=tmp_path))


def test_what_was_to_be_done_is_done(proven: Node, shardtool: Run) -> None:
    nothing(shardtool("prune", "--data", proven.path, "--yes", "-q", "--quiet"))
    assert list(proven.shard_db.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("words", [["prune", "--yes"], ["backup"], ["forget", "--keep-last", "1"]])
def test_another_shardtool_at_work_is_no_alarm(
    words: list[str], proven: Node, shardtool: Run, hold: Hold
) -> None:
    assert shardtool("backup", "--data", proven.path).returncode == 0
    hold(proven.db, "flock")
    hold(proven.path / "snapshots", "flock")
    nothing(shardtool(*words, "--data", proven.path, "-qq"), 4)
    assert "at work on it" in shardtool(*words, "--data", proven.path).stderr


def test_a_server_in_the_way_is_told(proven: Node, shardtool: Run, hold: Hold) -> None:
    hold(proven.raft / "log", "open")
    text = mail(shardtool("backup", "--data", proven.path, "-qq"), 4)
    assert "expected no server on it" in text
    assert "a running server is in the way" in text


@pytest.mark.slow
def test_a_mail_begins_with_what_is_wrong_and_ends_with_the_summary(
    capture: Capture, shardtool: Run
) -> None:
    data = capture("migrated-08")
    text = mail(shardtool("verify", "--data", data, "-qq"), 3)
    assert text.index("00001: incomplete: values-missing") < text.index("OLD VERDICT")
    assert "27 old shards, 14 incomplete, 13 proven; 20,536 values, 440 missing" in text
    text = mail(shardtool("prune", "--data", data, "-qq", "--yes"), 3)
    assert text.index("00001: incomplete, kept: values-missing") < text.index(
        "deleted 13 shards: freed"
    )
    assert "Bring them over: shardtool rescue" in text


def test_a_long_list_says_how_much_more_there_is_and_what_shows_it(
    tmp_path: Path, shardtool: Run
) -> None:
    node = Node(tmp_path / "data", version="0.8")
    for number in range(1, 151):
        (node.shard_db / f"{number:05}").mkdir()
    text = mail(shardtool("status", "--data", node.path, "-qq"), 3)
    assert "00001: suspect: not-a-shard" in text
    assert " messages more: shardtool status --data" in text
    assert " lines more: shardtool status --data" in text
    assert "150 old shards" in text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["stauts"], 2, "did you mean status?"),
        ([], 2, "expected a command"),
        (["prune", "--older-than", "soon"], 2, "duration"),
        (["status", "--json"], 2, "give one of them"),
        (["verify", "--list"], 2, "give one of them"),
        (["status", "--watch"], 2, "give one"),
        (["prune"], 2, "-qq asks nothing"),
        (["verify", "99"], 1, "00099"),
    ],
)
def test_what_fails_is_a_mail_too(
    words: list[str], code: int, said: str, proven: Node, shardtool: Run
) -> None:
    data = ["--data", str(proven.path)] if words and words[0] != "stauts" else []
    assert said in mail(shardtool(*words, *data, "-qq"), code)


def test_metrics_that_can_not_be_written_hide_nothing_else_that_is_wrong(
    proven: Node, shardtool: Run
) -> None:
    (proven.shard_db / "00009").mkdir()
    target = proven.path / "gone" / "x.prom"
    text = mail(shardtool("status", "-qq", "--data", proven.path, "--prometheus", target), 1)
    assert "expected to write the metrics" in text
    assert text.index("expected to write") < text.index("00009: suspect: not-a-shard")
    assert "; no-marker " in text
    text = mail(shardtool("verify", "-qq", "--data", proven.path), 3)
    assert "; no-marker " in text


def test_a_directory_that_is_not_there_is_a_mail(tmp_path: Path, shardtool: Run) -> None:
    text = mail(shardtool("status", "-qq", "--data", tmp_path / "no\x1b[31m\nwhere"), 1)
    assert "No such file or directory" in text


def test_a_working_directory_that_was_removed_is_a_mail(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    done = subprocess.run(
        [
            *("sh", "-c", 'rmdir ../gone && exec "$@"', "sh"),
            *(*COMMAND, "verify", "-qq", "--data", "node"),
        ],
        cwd=tmp_path / "gone",
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "data node" in mail(done, 1)


@pytest.mark.parametrize(
    ("words", "module", "code", "said"),
    [
        (["status", "--nagios"], "plugin", 3, "SHARDTOOL UNKNOWN - interrupted"),
        (["status", "-qq"], "mail", 130, "shardtool: interrupted"),
    ],
    ids=["nagios", "-qq"],
)
def test_a_signal_before_the_command_has_begun_is_a_line(
    words: list[str], module: str, code: int, said: str, proven: Node, strace: None
) -> None:
    early = ["-P", f"{REPOSITORY}/shardtool/cli/{module}.py", "-e", "inject=all:signal=TERM:when=1"]
    done = subprocess.run(
        ["strace", "-o", "/dev/null", *early, *COMMAND, *words, "--data", str(proven.path)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (code, f"{said}\n")


def test_a_signal_is_a_mail(proven: Node, strace: None) -> None:
    signalled = ["strace", "-o", "/dev/null", "-e", "inject=statfs:signal=TERM:when=1"]
    done = subprocess.run(
        [*signalled, *COMMAND, "status", "--data", str(proven.path), "-qq"],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "interrupted by SIGTERM" in mail(done, 130)


def test_what_an_export_writes_to_stdout_stays_there_alone(
    kinds: Node, tmp_path: Path, shardtool: Run
) -> None:
    words = ("export", "--data", kinds.path, "--database", "test", "--to", "-", "--format", "line")
    plain = shardtool(*words)
    quiet = shardtool(*words, "-qq")
    assert quiet.stdout == plain.stdout != ""
    if plain.returncode:
        assert "exit code 3" in quiet.stderr
        assert "exit code" not in quiet.stdout
    else:
        assert quiet.stderr == ""


def test_help_and_version_are_shown_all_the_same(shardtool: Run) -> None:
    assert "usage: shardtool status" in shardtool("status", "-qq", "--help").stdout
    assert shardtool("-qq", "--version").stdout.startswith("shardtool ")


def test_a_mail_that_can_not_be_sent_changes_no_exit_code(tmp_path: Path) -> None:
    for where in (">/dev/full", ">&-", "| true; exit ${PIPESTATUS[0]}"):
        script = f'"$@" status --data {tmp_path} -qq {where}'
        done = subprocess.run(
            ["bash", "-c", script, "bash", *COMMAND],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (1, ""), where


@pytest.mark.slow
def test_a_rescue_that_sends_all_is_quiet_and_one_that_can_not_is_a_mail(
    tmp_path: Path, shardtool: Run
) -> None:
    node = lossy(tmp_path / "data", [Row("test", "~x", "v", AT, 10_001, 1)])
    words = ("rescue", "--data", node.path, "--yes", "-qq", "--api")
    with served(node) as (url, faults):
        faults.status, faults.text, faults.method = 500, "no room", "POST"
        done = shardtool(*words, url, env=PASSWORD)
        assert "no room" in mail(done, done.returncode)
        assert done.returncode in (1, 3)
        faults.status = 0
        nothing(shardtool(*words, url, env=PASSWORD))
