"""What runs shardtool without its start runs the same program, and no run is in the next."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from fixtures import Node
from fixtures.server import serve
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
@pytest.mark.parametrize(
    "words",
    [
        "check --api {url}",
        "check --api {url} --json",
        "verify --api {url}",
        "prune --dry-run --api {url}",
        "accept 1 --because tests --missing 3 --api {url} --json",
        "rescue --dry-run --api {url}",
        "rescue --yes --also expired --also dropped --api {url} --pause 0ms",
        "export --to {out}/a.json --left {out}/left",
        "export --to {out}/a.parquet --database test",
        "export --to {out}/a.lp --force --floats --sequence none --line-feeds",
        "export --lost --to {out}/a.lp --api {url} --json",
        "spaces list --api {url} --json",
        "spaces list --api {url} --password-file {out}/password -q",
        "spaces explain cpu --api {url} --json",
        "spaces explain cpu -q",
        "spaces apply --like-0.7 test --dry-run --sample cpu --api {url}",
        "spaces apply --like-0.7 test --yes -q --api {url}",
        "backup --json",
        "backup --live --to {out}/store",
        "restore {id} --yes --json",
        "restore latest --to {out}/there",
        "forget --keep-last 1 --json",
        "forget --keep-within 1d --dry-run",
        "snapshots verify --json",
        "status --prometheus {out}/shardtool.prom",
        "report --html {out}/page.html -q",
        "history --json",
    ],
)
def test_with_these_options_too(words: str, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def run(how: Run) -> tuple[object, ...]:
        shutil.rmtree(out, ignore_errors=True)
        node = Node(out / "data", version="0.8")
        node.old_shard(1, points=10, databases={"test": ("cpu",)})
        node.migrate(1, lose=3)
        (out / "password").write_text("root\n")
        env = {"SHARDTOOL_DATA": str(node.path), "SHARDTOOL_PASSWORD": "root", "COLUMNS": "80"}
        taken = ""
        if words.startswith(("restore", "forget", "snapshots")):
            made = run_preloaded("backup", "--json", env=env)
            taken = json.loads(made.stdout)["snapshot"]["id"]
        with serve(node) if "{url}" in words else contextlib.nullcontext("") as url:
            asked = words.format(url=url, out=out, id=taken).split()
            done = how(*asked, env=env)
        said = (re.sub(r"[0-9a-f]{16,}|\d+", "N", text) for text in (done.stdout, done.stderr))
        return done.returncode, *said, sorted(os.listdir(out))

    found = run(run_preloaded)
    assert found[0] in (0, 3), found
    assert found == run(run_shardtool)


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
    seen, created = tmp_path / "seen", tmp_path / "created"
    killed = preloaded().run(words, env, injection=befalling("fsync", 5, "KILL", seen))
    assert (killed.returncode, killed.stdout, killed.stderr) == (-9, "", "")
    assert seen.exists()
    assert os.listdir(tmp_path / "out") != []
    creation = befalling("openat", 2, "KILL_CREATING", created, [tmp_path / "out"])
    assert preloaded().run(words, env, injection=creation).returncode == -9
    assert not Path(created.read_text()).exists()
    assert preloaded().run(words, env).returncode == 0
    assert run_shardtool("snapshots", "verify", "--store", tmp_path / "out").returncode == 0


def test_a_process_that_is_forked_has_answers_of_its_own() -> None:
    env = environment_of({})
    asked = {"--version": 0, "no-such-command": 2}
    assert preloaded().run(["--version"], env).returncode == 0
    children = []
    for word, code in asked.items():
        pid = os.fork()
        if not pid:
            wrong = 100
            try:
                wrong = sum(preloaded().run([word], env).returncode != code for _ in range(20))
            finally:
                os._exit(wrong)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0]


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
