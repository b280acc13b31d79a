"""`shardtool export` and its file: whole or not there, however it ends; nothing else changes."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from line_protocol_parser import parse_line

from fixtures import Node
from tests.conftest import COMMAND, REPOSITORY, Hold, Listing, Run
from tests.e2e.export_world import export
from tests.e2e.proof_world import List, one_line
from tests.e2e.test_terminal import Terminal


def test_a_file_that_is_there_is_replaced_only_with_force(
    kinds: Node, shardtool: Run, tmp_path: Path
) -> None:
    for name in ("out.lp", "out.lp.left"):
        file = tmp_path / name
        file.write_text("mine")
        done = shardtool("--data", kinds.path, "export", "--to", tmp_path / "out.lp")
        assert "--force" in one_line(done, 2)
        assert file.read_text() == "mine"
        file.unlink()
    (tmp_path / "out.lp").write_text("mine")
    export(shardtool, kinds.path, "--to", tmp_path / "out.lp", "--force")
    assert (tmp_path / "out.lp").read_text().startswith("# DML")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "out.lp"]


def test_a_file_that_another_run_writes_is_busy_and_one_left_by_a_kill_is_not(
    kinds: Node, shardtool: Run, tmp_path: Path, hold: Hold
) -> None:
    part = tmp_path / ".out.lp.part"
    part.write_text("of a run that was killed")
    hold(part, "flock")
    done = shardtool("--data", kinds.path, "export", "--to", tmp_path / "out.lp")
    assert "another shardtool" in one_line(done, 4)
    part.rename(tmp_path / "held")
    part.write_text("of a run that was killed")
    export(shardtool, kinds.path, "--to", tmp_path / "out.lp")
    assert not part.exists()


def test_a_link_is_followed_and_a_long_name_is_possible(
    kinds: Node, shardtool: Run, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "out.lp").symlink_to(elsewhere / "real.lp")
    export(shardtool, kinds.path, "--to", tmp_path / "out.lp")
    assert (elsewhere / "real.lp").read_text().startswith("# DML")
    long = tmp_path / ("x" * 250 + ".lp")
    export(shardtool, kinds.path, "--to", long)
    assert long.read_text().startswith("# DML")


def test_stdout_carries_the_lines_and_nothing_else(kinds: Node, shardtool: Run) -> None:
    done = shardtool("--data", kinds.path, "export", "--to", "-", "--format", "line")
    assert done.returncode == 0
    assert done.stdout.count("\n") == 5
    assert "12 values of 3 points" in done.stderr
    named = shardtool("--data", kinds.path, "export", "--to", "/dev/stdout", "--format", "line")
    assert named.stdout.startswith(done.stdout)


def test_a_fifo_is_written_directly(kinds: Node, shardtool: Run, tmp_path: Path) -> None:
    fifo = tmp_path / "pipe.lp"
    os.mkfifo(fifo)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(fifo.read_text()))
    reader.start()
    done = shardtool("--data", kinds.path, "export", "--to", fifo)
    reader.join()
    assert done.returncode == 0
    assert read[0].count("\n") == 5


def test_a_reader_that_has_gone_ends_it_quietly(shardtool: Run, tmp_path: Path) -> None:
    node = Node(tmp_path / "data")
    node.old_shard(1, points=20_000)
    command = [*COMMAND, "--data", str(node.path), "export", "--to", "-", "--format", "line"]
    done = subprocess.run(
        ["bash", "-c", 'set -o pipefail; "$@" | head -1', "bash", *command],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "# DML\n", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_leaves_nothing(number: signal.Signals, tmp_path: Path) -> None:
    node = Node(tmp_path / "data")
    node.old_shard(1, points=150_000, databases={"test": ("cpu",)})
    file = tmp_path / "out.lp"
    command = [*COMMAND, "--data", str(node.path), "export", "--to", str(file)]
    running = subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stderr=subprocess.PIPE,
        text=True,
    )
    part = tmp_path / ".out.lp.part"
    end = time.monotonic() + 30
    while not (part.exists() and part.stat().st_size):
        assert time.monotonic() < end
        time.sleep(0.005)
    running.send_signal(number)
    _, told = running.communicate()
    assert running.returncode == 130
    assert "nothing incomplete was left" in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_people_see_a_bar_where_it_takes_its_time(tmp_path: Path) -> None:
    node = Node(tmp_path / "data")
    node.old_shard(1, points=300_000, databases={"test": ("cpu", "mem", "disk")})
    terminal = Terminal("--data", node.path, "export", "--to", tmp_path / "out.lp.gz")
    terminal.wait_for("exporting", 60)
    assert terminal.end() == 0
    assert "1,200,000 values of 300,000 points" in terminal.shown.replace("\r\n", " ")


def test_memory_does_not_grow_with_the_shard_nor_with_its_columns(tmp_path: Path) -> None:
    from bench.sides import peak_memory

    peaks = []
    for name, points, columns in (("small", 2_000, 4), ("long", 100_000, 4), ("wide", 50, 4000)):
        node = Node(tmp_path / name)
        kinds: Any = {f"c{n:04}": ("double", "int64", "string")[n % 3] for n in range(columns)}
        node.old_shard(1, points=points, columns=kinds, databases={"test": ("cpu",)})
        command = [
            *COMMAND,
            "--data",
            str(node.path),
            "export",
            "--to",
            str(tmp_path / f"{name}.lp"),
        ]
        peaks.append(peak_memory(command) / 1e6)
    assert max(peaks) < 200, peaks
    lines = (tmp_path / "wide.lp").read_text().splitlines()[2:]
    assert sum(len(parse_line(line)["fields"]) for line in lines) == 200_000


def test_nothing_below_the_data_directory_is_changed(
    proven: Node, shardtool: Run, listing: List, tmp_path: Path
) -> None:
    before: Listing = listing(proven.path)
    export(shardtool, proven.path, "--to", tmp_path / "a.json")
    export(shardtool, proven.path, "--new", "all", "--to", tmp_path / "b.json")
    assert listing(proven.path) == before
