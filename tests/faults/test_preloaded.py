"""What runs shardtool without its start runs the same program, and no run is in the next."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from fixtures import Node
from tests.conftest import Run, environment_of, run_shardtool
from tests.faults.injection import befalling
from tests.faults.steps_world import CHANGING, answer, copy_world, environment, prepared
from tests.needs import needs_root
from tests.preloaded import Preloaded, preloaded, preloaded_alone, run_alone, run_preloaded


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("--version",),
        ("status", "--json"),
        ("status",),
        ("check",),
        ("prune", "--dry-run"),
        ("prune",),  # asks, and nobody answers
        ("no-such-command",),
        ("status", "--no-such-option"),
        ("--data", "/nowhere", "status"),
        ("snapshots",),
        ("history", "--help"),
    ],
    ids=" ".join,
)
def test_it_says_and_returns_what_the_installed_command_does(
    words: tuple[str, ...], node: Node
) -> None:
    def run(how: Run) -> tuple[object, ...]:
        done = how(*words, env={"SHARDTOOL_DATA": str(node.path), "COLUMNS": "80"})
        return done.returncode, answer(done.stdout), done.stderr

    assert run(run_preloaded) == run(run_shardtool)


@pytest.mark.slow
@needs_root
@pytest.mark.parametrize("name", CHANGING)
def test_it_does_what_the_installed_command_does(name: str, tmp_path: Path) -> None:
    step, world = CHANGING[name], tmp_path / "world"
    original = prepared(step, tmp_path / "original", run_shardtool)

    def run(how: Run) -> tuple[object, ...]:
        with step.ready(copy_world(original, world)) as words:
            done = how(*words, env=environment(world))
            ended = step.ended(world, how)
        lines = re.sub(r"\d+", "N", done.stdout + done.stderr).splitlines()
        # Alone there is nobody who could not be looked into.
        said = [line for line in lines if "whether a server runs here is unknown" not in line]
        return done.returncode, said, ended

    found = run(run_preloaded)
    assert found[0] == step.code
    assert found == run(run_shardtool) == run(run_alone)


@pytest.mark.slow
def test_its_directory_and_environment_are_of_the_one_run(node: Node, tmp_path: Path) -> None:
    here = node.path.parent
    there = run_preloaded("--data", node.path.name, "backup", "-q", "--to", "out", cwd=here)
    assert there.returncode == 0, there.stderr
    assert (here / "out").is_dir()
    none = run_preloaded("--data", node.path.name, "status", cwd="/")
    assert none.returncode == 1
    assert run_preloaded("status", env={"SHARDTOOL_DATA": str(node.path)}).returncode == 0
    without = run_preloaded("status", env={"HOME": str(tmp_path)})
    assert without.returncode == 1
    assert "SHARDTOOL_DATA" in without.stderr


def test_a_kill_is_seen_and_the_next_run_is_whole(node: Node, tmp_path: Path) -> None:
    words = ("--data", str(node.path), "backup", "-q", "--to", str(tmp_path / "out"))
    env = environment_of({})
    seen = tmp_path / "seen"
    killed = preloaded().run(words, env, injection=befalling("fsync", 5, "KILL", seen))
    assert (killed.returncode, killed.stdout, killed.stderr) == (-9, "", "")
    assert seen.exists()
    assert os.listdir(tmp_path / "out") != []
    created = preloaded().run(words, env, dies_at_creation=2)
    assert created.returncode == -9
    assert preloaded().run(words, env).returncode == 0
    assert run_shardtool("snapshots", "verify", "--store", tmp_path / "out").returncode == 0


@needs_root
def test_alone_it_sees_no_process_of_others(node: Node) -> None:
    words = ("--data", node.path, "backup", "-q")
    with (node.raft / "log").open():
        among = run_preloaded(*words)
        alone = preloaded_alone().run(words, environment_of({}))
    assert among.returncode == 4, "we have the raft log open, as a server has"
    assert alone.returncode == 0


@pytest.mark.slow
def test_a_run_without_end_is_ended_and_all_that_it_forked(node: Node) -> None:
    one = Preloaded((), {})
    env = environment_of({})
    assert one.run(("--version",), env).returncode == 0
    words = ("--data", node.path, "status", "--watch", "--every", "1s")
    with pytest.raises(subprocess.TimeoutExpired):
        one.run(words, env, timeout_s=0.5)
    end = time.monotonic() + 30
    while left := [pid for pid in all_processes() if session_of(pid) == one.group]:
        assert time.monotonic() < end, f"{left}: what it forked goes on"
        time.sleep(0.01)
    assert one.run(("--version",), env).returncode == 0, "the next run has another"


def all_processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def session_of(pid: int) -> int:
    """Return a process's session, or 0 for a zombie: nobody may be there to wait for it."""
    with contextlib.suppress(OSError):
        if "State:\tZ" not in Path(f"/proc/{pid}/status").read_text():
            return os.getsid(pid)
    return 0


@pytest.mark.slow
def test_what_does_not_come_to_shardtool_is_no_exit_code_of_its(node: Node, tmp_path: Path) -> None:
    one = Preloaded((), {})
    env = environment_of({})
    with pytest.raises(AssertionError, match="No such file"):
        one.run(("--version",), env, cwd=tmp_path / "nowhere")
    injection = befalling("clone3", 1, "EIO", tmp_path / "seen")
    with pytest.raises(AssertionError, match="has ended"):
        one.run(("--version",), env, injection=injection)
    assert one.run(("--version",), env).returncode == 0


def test_it_is_no_child_of_ours() -> None:
    assert preloaded().run(("--version",), environment_of({})).returncode == 0
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
