"""The command in a real terminal: the question, ctrl-C, colors, the live view."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from fixtures import Node
from tests.conftest import COMMAND, REPOSITORY
from tests.e2e.terminal_world import Terminal


@pytest.fixture
def node(tmp_path: Path) -> Node:
    made = Node(tmp_path / "data", version="0.8")
    made.old_shard(1, points=5)
    made.migrate(1)
    return made


def test_prune_asks_with_count_and_bytes_and_takes_only_yes(node: Node) -> None:
    for answer in ("\n", "y\n", "no\n", "YES\n", "\x04"):
        terminal = Terminal("--data", node.path, "prune", "--trust", "marker")
        terminal.wait_for("Delete 1 old shard (")
        terminal.type(answer)
        assert terminal.end() == 1
        assert "nothing was deleted" in terminal.shown
        assert (node.shard_db / "00001").is_dir()
    terminal = Terminal("--data", node.path, "prune", "--trust", "marker")
    terminal.wait_for("Type yes to go on:")
    terminal.type("yes\n")
    assert terminal.end() == 0
    assert "deleted 1 shard" in terminal.shown
    assert not (node.shard_db / "00001").exists()


def test_ctrl_c_at_the_question_deletes_nothing(node: Node) -> None:
    terminal = Terminal("--data", node.path, "prune", "--trust", "marker")
    terminal.wait_for("Type yes to go on:")
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.end() == 130
    assert "Traceback" not in terminal.shown
    assert (node.shard_db / "00001").is_dir()


def test_the_lock_is_held_while_the_question_waits(node: Node) -> None:
    terminal = Terminal("--data", node.path, "prune", "--trust", "marker")
    terminal.wait_for("Type yes to go on:")
    second = Terminal("--data", node.path, "prune", "--trust", "marker", "--yes")
    assert second.end() == 4
    assert f"pid {terminal.process.pid}" in second.shown
    terminal.type("no\n")
    terminal.end()


def test_colors_are_for_terminals_that_want_them(node: Node) -> None:
    plain = Terminal("--data", node.path, "status", NO_COLOR="1")
    assert plain.end() == 0
    assert "\x1b" not in plain.shown
    colored = Terminal("--data", node.path, "status")
    assert colored.end() == 0
    assert "\x1b[33mmarked\x1b[0m" in colored.shown


def test_watch_redraws_until_ctrl_c_and_sees_what_changes(node: Node) -> None:
    node.old_shard(2, points=5)
    terminal = Terminal("--data", node.path, "status", "--watch", "--every", "1s")
    terminal.wait_for("unmigrated")
    node.migrate(2)
    terminal.wait_for("2 old shards, 2 marked")
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.end() == 130
    assert "Traceback" not in terminal.shown
    # The terminal is given back: the alternate screen left, the cursor shown.
    assert terminal.shown.rindex("\x1b[?1049l") > terminal.shown.rindex("\x1b[?1049h")
    assert "\x1b[?25h" in terminal.shown


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_polite_kill_is_an_interruption_of_one_line(node: Node, number: signal.Signals) -> None:
    terminal = Terminal("--data", node.path, "prune", "--trust", "marker")
    terminal.wait_for("Type yes to go on:")
    terminal.process.send_signal(number)
    assert terminal.end() == 130
    assert f"interrupted by {number.name}" in terminal.shown
    assert "Traceback" not in terminal.shown


def test_a_hang_up_under_nohup_is_ignored(node: Node) -> None:
    """nohup sets SIGHUP to be ignored; whoever says so means it."""
    script = "trap '' HUP; exec \"$@\""
    process = subprocess.Popen(
        ["sh", "-c", script, "sh", *COMMAND, "--data", str(node.path), "status", "--watch"],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert "old shard" in process.stdout.readline()
    process.send_signal(signal.SIGHUP)
    assert "old shard" in process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 130
