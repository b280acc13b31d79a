"""`shardtool export` and its file: whole or not there, however it ends; nothing else changes."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from line_protocol_parser import parse_line

from fixtures import Node, Row
from tests.conftest import COMMAND, REPOSITORY, Hold, Listing, Run
from tests.e2e.export_world import export, left_cells
from tests.e2e.proof_world import List, one_line
from tests.e2e.terminal_world import Terminal

pytestmark = pytest.mark.preloaded


@pytest.mark.slow
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
    part = tmp_path / ".out.lp.shardtool-part"
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


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_leaves_nothing(number: signal.Signals, tmp_path: Path) -> None:
    node = Node(tmp_path / "data")
    node.old_shard(1, points=400_000, databases={"test": ("cpu",)})
    file = tmp_path / "out.lp"
    command = [*COMMAND, "--data", str(node.path), "export", "--to", str(file)]
    running = subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stderr=subprocess.PIPE,
        text=True,
    )
    part = tmp_path / ".out.lp.shardtool-part"
    end = time.monotonic() + 30
    while not (part.exists() and part.stat().st_size):
        assert time.monotonic() < end
        time.sleep(0.005)
    running.send_signal(number)
    _, told = running.communicate()
    assert running.returncode == 130, told
    assert "nothing incomplete was left" in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


@pytest.mark.slow
def test_people_see_a_bar_where_it_takes_its_time(tmp_path: Path) -> None:
    node = Node(tmp_path / "data")
    node.old_shard(1, points=300_000, databases={"test": ("cpu", "mem", "disk")})
    terminal = Terminal("--data", node.path, "export", "--to", tmp_path / "out.lp.gz")
    terminal.wait_for("exporting", 60)
    assert terminal.end() == 0
    assert "1,200,000 values of 300,000 points" in terminal.shown.replace("\r\n", " ")


@pytest.mark.slow
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


@pytest.fixture
def with_nan(tmp_path: Path) -> Node:
    """A node with a value that goes out, and one that is listed."""
    node = Node(tmp_path / "data")
    rows = [Row("test", "cpu", "v", n, 1, value) for n, value in enumerate((1.5, math.nan))]
    node.old_shard(1, rows=rows)
    return node


def test_the_list_replaces_a_link_and_never_what_the_link_leads_to(
    with_nan: Node, shardtool: Run, tmp_path: Path
) -> None:
    current = with_nan.shard_db / "00001/CURRENT"
    before = current.read_bytes()
    left = tmp_path / "out.lp.left"
    left.symlink_to(current)
    export(shardtool, with_nan.path, "--to", tmp_path / "out.lp", "--force", code=3)
    assert current.read_bytes() == before
    assert not left.is_symlink()
    assert len(left.read_text().splitlines()) == 1
    # And a FILE whose list would lie among InfluxDB's is refused.
    (with_nan.shard_db / "x.lp").symlink_to(tmp_path / "y.lp")
    done = shardtool("--data", with_nan.path, "export", "--to", with_nan.shard_db / "x.lp")
    assert "is InfluxDB's" in one_line(done, 2)
    done = shardtool(
        *("--data", with_nan.path, "export", "--to", tmp_path / "z.lp"),
        *("--left", with_nan.shard_db / "left"),
    )
    assert "is InfluxDB's" in one_line(done, 2)


def test_a_file_of_the_users_with_a_likely_name_stays(
    kinds: Node, shardtool: Run, tmp_path: Path
) -> None:
    (tmp_path / ".out.lp.part").write_text("mine")
    export(shardtool, kinds.path, "--to", tmp_path / "out.lp")
    assert (tmp_path / ".out.lp.part").read_text() == "mine"


@pytest.mark.parametrize("words", [(), ("--force",)])
def test_a_list_that_can_not_be_is_told_before_anything_is_read(
    words: tuple[str, ...], kinds: Node, shardtool: Run, tmp_path: Path
) -> None:
    (tmp_path / "q.lp.left").mkdir()
    done = shardtool("--data", kinds.path, "export", "--to", tmp_path / "q.lp", *words)
    assert "q.lp.left" in one_line(done, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "q.lp.left"]


def test_a_name_that_is_too_long_for_its_list_has_one_all_the_same(
    with_nan: Node, shardtool: Run, tmp_path: Path
) -> None:
    long = tmp_path / ("x" * 252 + ".lp")
    document = export(shardtool, with_nan.path, "--to", long, code=3)
    (left,) = [file["path"] for file in document["files"] if file["path"].endswith(".left")]
    assert len(list(left_cells(Path(left)))) == 1


@pytest.mark.slow
def test_a_list_of_any_name_is_there_for_streams_too(
    with_nan: Node, shardtool: Run, tmp_path: Path
) -> None:
    left = tmp_path / "left.json"
    words = ("--data", with_nan.path, "export", "--to", "-", "--format", "line", "--left", left)
    done = shardtool(*words)
    assert done.returncode == 3
    assert f"1 value left out (see {left})" in done.stderr
    assert len(list(left_cells(left))) == 1
    assert "--force" in one_line(shardtool(*words), 2)
    # What is asked for is there, with nothing in it too.
    done = shardtool(*words, "--until", "1", "--force")
    assert done.returncode == 0
    assert left.read_bytes() == b""


def test_a_list_that_is_no_other_file_is_refused(
    kinds: Node, shardtool: Run, tmp_path: Path
) -> None:
    for words in (("x.lp", "x.lp"), ("x.lp", "-"), ("x.lp", "./x.lp")):
        to, left = words
        where = left if left == "-" else str(tmp_path / left)
        done = shardtool("--data", kinds.path, "export", "--to", tmp_path / to, "--left", where)
        assert "--left" in one_line(done, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "fifo"])
def test_what_is_stdout_by_another_name_has_no_summary_in_it(
    name: str, kinds: Node, tmp_path: Path
) -> None:
    command = [*COMMAND, "--data", str(kinds.path), "export", "--format", "line", "--to"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    if name == "fifo":
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        script = 'cat "$0" & "$@" > "$0"; wait'
        command = ["bash", "-c", script, str(fifo), *command, str(fifo)]
    else:
        command = [*command, name]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert [line for line in done.stdout.splitlines() if line.startswith("test,")] == []
    assert "12 values" in done.stderr
    assert done.stdout.count("\n") == 5
    # A file that stdout goes to is neither replaced nor in the way.
    if name != "fifo":
        with (tmp_path / "out").open("w") as file:
            subprocess.run(command, env=environment, stdout=file, check=True)
        assert (tmp_path / "out").read_text() == done.stdout


def test_a_closed_stdout_is_a_failure(kinds: Node) -> None:
    command = [*COMMAND, "--data", str(kinds.path), "export", "--format", "line", "--to", "-"]
    done = subprocess.run(
        ["bash", "-c", '"$@" >&-', "bash", *command],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "closed" in one_line(done, 1)


@pytest.mark.parametrize(
    "words",
    [
        ("--to", "x.json", "--sequence", "tag"),
        ("--to", "x.json", "--floats"),
        ("--to", "x.parquet", "--line-feeds"),
        ("--to", "y.parquet", "--format", "line"),
        ("--to", "x.lp", "--from", "2014-01-02", "--until", "2014-01-01"),
        ("--to", "x.lp", "--from", "5", "--until", "5"),
    ],
)
def test_words_that_do_nothing_are_refused(
    words: tuple[str, ...], kinds: Node, shardtool: Run, tmp_path: Path
) -> None:
    done = shardtool("--data", kinds.path, "export", *words, cwd=tmp_path)
    one_line(done, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.slow
def test_the_list_of_a_file_that_is_replaced_goes_wherever_the_new_one_is(
    shardtool: Run, tmp_path: Path
) -> None:
    node = Node(tmp_path / "data")
    node.old_shard(
        1, rows=[Row("test", "cpu", "v", n, n, value) for n, value in enumerate([1.5, math.nan])]
    )
    file, stale, other = (tmp_path / name for name in ("out.lp", "out.lp.left", "other"))
    export(shardtool, node.path, "--to", file, code=3)
    assert stale.exists()
    export(shardtool, node.path, "--to", file, "--left", other, "--force", code=3)
    assert not stale.exists()
    assert other.exists()
    (tmp_path / "link").symlink_to(stale)
    for name in (stale, tmp_path / "link"):
        export(shardtool, node.path, "--to", file, "--left", name, "--force", code=3)
        assert stale.read_text() == other.read_text()
    stale.unlink()
    stale.mkdir()
    export(shardtool, node.path, "--to", file, "--left", other, "--force", code=3)
    assert stale.is_dir()
