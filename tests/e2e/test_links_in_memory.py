"""Where links are by default, in memory: a run that ends or is killed leaves none for ever."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from fixtures import Node
from tests.conftest import COMMAND, REPOSITORY
from tests.needs import lacking


@dataclass(frozen=True)
class Memory:
    """A /dev/shm of its own, in which no other test's run removes anything.

    Args:
        enter: what goes before a command to have it there.
        path: the directory, as it is seen from here.
    """

    enter: tuple[str, ...]
    path: Path

    @contextmanager
    def running(self, *words: str | Path, **env: str) -> Iterator[subprocess.Popen[str]]:
        """Run shardtool there, with none of TMPDIR, TEMP and TMP but what is given."""
        named = {"TMPDIR", "TEMP", "TMP"}
        kept = {name: value for name, value in os.environ.items() if name not in named}
        with subprocess.Popen(
            [*self.enter, *COMMAND, *words],
            env={**kept, "PYTHONPATH": str(REPOSITORY), **env},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def links(self) -> Path:
        """Wait until a child has links; return the directory of the whole run."""
        end = time.monotonic() + 30
        while time.monotonic() < end:
            for found in self.path.glob("*/*/s*"):
                return found.parents[1]
            time.sleep(0.005)
        raise AssertionError("no links in memory")


@pytest.fixture(scope="module")
def memory() -> Iterator[Memory]:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        lacking("a mount namespace (unshare, as root)")
    # Without limits: half of a small machine's memory would be too few inodes.
    script = (
        "mount -t tmpfs -o size=0,nr_inodes=0 none /dev/shm && echo ready && exec sleep infinity"
    )
    with subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script], stdout=subprocess.PIPE, text=True
    ) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "ready\n"
            inside = Path(f"/proc/{holder.pid}")
            yield Memory(("nsenter", f"--mount={inside}/ns/mnt"), inside / "root/dev/shm")
        finally:
            holder.kill()


@pytest.fixture(autouse=True)
def enough() -> None:
    if psutil.virtual_memory().available < len(os.sched_getaffinity(0)) << 30:
        lacking("a GiB of free memory for each core")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Node:
    node = Node(tmp_path_factory.mktemp("node") / "data", version="0.8")
    node.old_shard(1, points=150_000, databases={"test": ("cpu",)})
    return node


WORDS = pytest.mark.parametrize(
    "words", [("verify", "--again"), ("export", "--lost", "--to")], ids=["verify", "export"]
)


def command(words: tuple[str, ...], node: Node, tmp_path: Path) -> tuple[str | Path, ...]:
    to = (tmp_path / "x.lp",) if words[-1] == "--to" else ()
    return "--data", node.path, *words, *to


@WORDS
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda one: one.name)
def test_a_signal_leaves_no_links_in_memory(
    number: signal.Signals, words: tuple[str, ...], node: Node, memory: Memory, tmp_path: Path
) -> None:
    with memory.running(*command(words, node, tmp_path)) as process:
        links = memory.links()
        assert links.name.startswith("shardtool-links-")
        assert links.stat().st_mode & 0o777 == 0o700
        process.send_signal(number)
        process.communicate()
        assert process.returncode == 130
    assert list(memory.path.iterdir()) == []


@WORDS
def test_what_a_kill_leaves_in_memory_goes_with_the_next_run_wherever_its_links_are(
    words: tuple[str, ...], node: Node, memory: Memory, tmp_path: Path
) -> None:
    with memory.running(*command(words, node, tmp_path)) as process:
        links = memory.links()
        process.kill()
        process.wait()
        assert links.exists()
    again = "--data", node.path, "verify", "--again"
    with memory.running(*again, TMPDIR=str(tmp_path)) as process:
        _, told = process.communicate()
        assert process.returncode == 3, told
    assert list(memory.path.iterdir()) == []
