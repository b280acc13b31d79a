"""`shardtool status --nagios`: one line on stdout and a plugin's exit code, whatever happens."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from fixtures import Node
from tests.conftest import COMMAND, REPOSITORY, Hold, Run
from tests.e2e.proof_world import Capture

LINE = re.compile(r"SHARDTOOL (OK|WARNING|CRITICAL|UNKNOWN) - [^|\n]+( \| [^|\n]+)?\n")
CODES = {"OK": 0, "WARNING": 1, "CRITICAL": 2, "UNKNOWN": 3}


def plugin(done: subprocess.CompletedProcess[str]) -> str:
    """Assert that a run was a sound plugin's; return its state."""
    found = LINE.fullmatch(done.stdout)
    assert found, done
    assert done.returncode == CODES[found[1]]
    assert done.stderr == ""
    assert bool(found[2]) is (found[1] != "UNKNOWN")
    return found[1]


@pytest.mark.slow
def test_a_migrated_node_is_fine_until_somebody_looks_for_its_values(
    capture: Capture, shardtool: Run
) -> None:
    data = capture("migrated-08")
    words = ("status", "--nagios", "--data", data)
    done = shardtool(*words)
    assert plugin(done) == "OK"
    assert "27 old shards, 27 marked" in done.stdout
    assert " old=27;;;0 " in done.stdout
    shardtool("verify", "--data", data, "-q")
    done = shardtool(*words)
    assert plugin(done) == "WARNING"
    assert "440 values of 14 shards" in done.stdout
    assert " lost=440;;;0 " in done.stdout


def test_what_another_process_has_open_is_no_alarm(
    proven: Node, shardtool: Run, hold: Hold
) -> None:
    hold(proven.shard_db / "00001" / "LOCK", "lock")
    assert plugin(shardtool("status", "--nagios", "--data", proven.path)) == "OK"


def test_what_can_not_be_read_is_critical(proven: Node, shardtool: Run) -> None:
    (proven.shard_db_v2 / "12345").touch()
    done = shardtool("status", "--nagios", "--data", proven.path)
    assert plugin(done) == "CRITICAL"
    assert "1 new shard unreadable: 12345" in done.stdout


@pytest.mark.parametrize(
    ("words", "state"),
    [
        (["--warn-free", "0%"], "OK"),
        (["--warn-free", "100%"], "WARNING"),
        (["--warn-free", "999P", "--critical-free", "1K"], "WARNING"),
        (["--warn-free", "999P", "--critical-free", "998P"], "CRITICAL"),
        (["--critical-free", "100%"], "CRITICAL"),
    ],
)
def test_free_space_has_thresholds(
    words: list[str], state: str, proven: Node, shardtool: Run
) -> None:
    assert plugin(shardtool("status", "--nagios", "--data", proven.path, *words)) == state


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["status", "--nagios", "--data", "no|where\x1b[31m\n"],
        ["status", "--nagios", "--data", ""],
        ["status", "--nagios", "--data", "a", "--influx-config", "b"],
        ["status", "--nagios", "--bogus"],
        ["status", "--bogus|\n", "--nagios"],
        ["status", "--nagios", "--log-format", "xml"],
        ["status", "--nagios", "--data"],
        ["status", "--nagios", "--warn-free", "lots"],
        ["status", "--nagios", "--warn-free", "101%"],
        ["status", "--nagios", "--warn-free", "-1%"],
        ["status", "--nagios", "--warn-free", "nan%"],
        ["status", "--nagios", "--warn-free", "1%", "--critical-free", "2%"],
        ["status", "--nagios", "--watch"],
        ["status", "--nagios", "--json"],
        ["status", "--nagios", "-qq"],
        ["status", "--nagios", "--prometheus", "x"],
        ["status", "--nagios", "surplus"],
        ["prune", "--nagios"],
        ["stauts", "--nagios"],
        ["--nagios"],
    ],
)
def test_whatever_goes_wrong_is_unknown_and_never_another_code_by_accident(
    words: list[str], proven: Node, shardtool: Run
) -> None:
    has_data = "--data" in words or words[0] != "status"
    data = [] if has_data else ["--data", str(proven.path)]
    assert plugin(shardtool(*words, *data)) == "UNKNOWN"


def test_help_is_no_answer_of_a_plugin(shardtool: Run) -> None:
    assert shardtool("status", "--nagios", "--help").returncode == 3


def test_shards_that_can_not_be_listed_are_unknown(proven: Node, shardtool: Run) -> None:
    proven.shard_db.rename(proven.db / "away")
    proven.shard_db.write_text("")
    assert plugin(shardtool("status", "--nagios", "--data", proven.path)) == "UNKNOWN"


@pytest.mark.parametrize("number", ["INT", "TERM", "HUP"])
def test_an_interrupted_look_is_unknown(number: str, proven: Node, strace: None) -> None:
    signalled = ["strace", "-o", "/dev/null", "-e", f"inject=statfs:signal={number}:when=1"]
    done = subprocess.run(
        [*signalled, *COMMAND, "status", "--nagios", "--data", str(proven.path)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert plugin(done) == "UNKNOWN"


@pytest.mark.parametrize("where", [">&-", ">/dev/full", "| true; exit ${PIPESTATUS[0]}"])
@pytest.mark.parametrize("environment", [{}, {"PYTHONUNBUFFERED": "1"}])
def test_a_line_that_nobody_reads_is_no_warning_and_no_critical(
    environment: dict[str, str], where: str, proven: Node
) -> None:
    script = f'"$@" status --nagios --data {proven.path} {where}'
    done = subprocess.run(
        ["bash", "-c", script, "bash", *COMMAND],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    # A reader that goes away may have read all, and a closed stdout is written to in vain.
    assert done.returncode in (0, 3)
    if where == ">/dev/full":
        assert done.returncode == 3
    assert done.stderr == ""


def test_names_from_the_disk_do_not_break_the_line(proven: Node, shardtool: Run) -> None:
    for name in ("a|b=1;2", "\x1b[31m", "x\ny", os.fsdecode(b"\xff")):
        (proven.shard_db_v2 / name).touch()
        (proven.shard_db / name).touch()
    assert plugin(shardtool("status", "--nagios", "--data", proven.path)) == "CRITICAL"


def test_a_node_by_its_config_is_looked_at_too(tmp_path: Path, shardtool: Run) -> None:
    node = Node(tmp_path / "data")
    assert plugin(shardtool("status", "--nagios", "--influx-config", node.config)) == "OK"
