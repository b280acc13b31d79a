"""Where links are by default, in memory: a run that ends or is killed leaves none for ever."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fixtures import Node
from shardtool.proof import scratch
from tests.conftest import COMMAND, REPOSITORY, Run

MEMORY = "/dev/shm/shardtool-links-"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Node:
    if not scratch._memory_is_free():
        pytest.skip("too little memory is free, or /dev/shm has no room")
    node = Node(tmp_path_factory.mktemp("node") / "data", version="0.8")
    node.old_shard(1, points=150_000, databases={"test": ("cpu",)})
    return node


@contextmanager
def reading(node: Node, cwd: Path, *words: str) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Run a command that reads the shard; yield it and its directory, once there are links."""
    named = {"TMPDIR", "TEMP", "TMP"}
    with subprocess.Popen(
        [*COMMAND, "--data", str(node.path), *words],
        env={
            **{name: value for name, value in os.environ.items() if name not in named},
            "PYTHONPATH": str(REPOSITORY),
        },
        cwd=cwd,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        try:
            yield running, links_of(running.pid)
        finally:
            running.kill()


def links_of(pid: int) -> Path:
    """Wait until a run has links in memory; return its directory: it holds a lock on it."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            try:
                path = os.readlink(descriptor)
            except FileNotFoundError:
                continue
            if path.startswith(MEMORY) and list(Path(path).glob("*/s*")):
                return Path(path)
        time.sleep(0.005)
    raise AssertionError("no links in memory")


WORDS = pytest.mark.parametrize(
    "words",
    [("verify", "--again"), ("export", "--lost", "--to", "x.lp")],
    ids=["verify", "export"],
)


@WORDS
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda one: one.name)
def test_a_signal_leaves_no_links_in_memory(
    number: signal.Signals, words: tuple[str, ...], node: Node, tmp_path: Path
) -> None:
    with reading(node, tmp_path, *words) as (running, links):
        mode = links.stat().st_mode
        running.send_signal(number)
        running.communicate()
        assert running.returncode == 130
        assert not links.exists()
        assert mode & 0o777 == 0o700


@WORDS
def test_what_a_kill_leaves_in_memory_goes_with_the_next_run_wherever_its_links_are(
    words: tuple[str, ...], node: Node, shardtool: Run, tmp_path: Path
) -> None:
    with reading(node, tmp_path, *words) as (running, links):
        running.kill()
        running.wait()
    shardtool("--data", node.path, "verify", "--again", env={"TMPDIR": str(tmp_path)})
    assert not links.exists()
