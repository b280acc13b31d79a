"""`shardtool export --lost`: what is in old shards and nowhere else, and not a value more."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from fixtures import MARKED_AT, Node, Row
from tests.conftest import COMMAND, REPOSITORY, Hold, Run
from tests.e2e.export_world import Cell, cell, export, json_cells, left_cells, stored
from tests.e2e.proof_world import (
    AT,
    Capture,
    List,
    document,
    expected,
    new_of,
    not_ours,
    one_line,
    verify,
)
from tests.e2e.rescue_world import rescue, sent, served
from tests.e2e.test_verify_cluster import ENV, World
from tests.needs import needs_plyvel

pytestmark = pytest.mark.preloaded


def lost(run: Run, data: Path, to: Path, *words: str, code: int = 0) -> Counter[Cell]:
    """Export what is lost of the database `test` as JSON; return the values in both files."""
    told = export(
        run, data, "--lost", "--database", "test", "--to", to, "--force", *words, code=code
    )
    found = Counter(json_cells(to.read_text(), "test"))
    left = Counter(left_cells(to.with_name(f"{to.name}.left")))
    assert (told["values"], sum(one["values"] for one in told["left"])) == (
        found.total(),
        left.total(),
    )
    return found + left


def columns_of(cells: Counter[Cell]) -> Counter[str]:
    """Count values by database~series~column."""
    counts: Counter[str] = Counter()
    for (text, _), count in cells.items():
        counts[text.decode().rsplit("~", 2)[0]] += count
    return counts


# -- what a real server left behind --


@pytest.mark.slow
def test_migrated_08_gives_its_440_values_and_those_are_what_rescue_sends(
    capture: Capture, shardtool: Run, listing: List, tmp_path: Path
) -> None:
    data = capture("migrated-08")
    before, every = listing(data), stored(data)
    losses = {number: one["missing"] for number, one in expected("migrated-08").items()}
    wanted: Counter[str] = Counter()
    for shard in expected("migrated-08").values():
        wanted.update(shard["missing_by_column"])
    found: Counter[Cell] = Counter()
    file = tmp_path / "lost.json"
    for database in sorted({column.split("~")[0] for column in wanted}):
        words = ("--lost", "--database", database, "--to", file, "--force")
        told = export(shardtool, data, *words)
        assert {one["id"]: one["lost"]["missing"] for one in told["shards"]} == losses
        found += Counter(json_cells(file.read_text(), database))
    assert listing(data) == before  # not even a receipt
    assert columns_of(found) == wanted
    assert (found.total(), max(found.values())) == (440, 1)
    assert not found - every
    with served(data) as (url, faults):
        assert rescue(shardtool, data, url)["sent"] == 440
    assert Counter(cell(*value[:6]) for value in sent(faults)) == found
    nothing = export(shardtool, data, "--lost", "--to", file, "--force")
    assert (nothing["values"], file.read_bytes()) == (0, b"")


@pytest.mark.slow
def test_all_that_migrated_08_lost_is_in_one_parquet_file(
    capture: Capture, shardtool: Run, tmp_path: Path
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    file = tmp_path / "lost.parquet"
    export(shardtool, capture("migrated-08"), "--lost", "--to", file)
    assert parquet.read_table(file).num_rows == 440


# -- what rescue can't send --


@pytest.mark.slow
def test_what_rescue_leaves_is_what_is_exported_then(shardtool: Run, tmp_path: Path) -> None:
    big = 990_000_000_000_010_001
    unsendable = [
        Row("test", "a~b", "nan", AT, 10_001, math.nan),
        Row("test", "a~b", "inf", AT, 10_001, -math.inf),
        Row("test", "a~b", "good", AT, big, 2),
        Row("test", "a~b", "time", AT, 10_001, 3),
        Row("test", "a~b", "good", (1 << 53) + 1, 10_001, 4),
    ]
    node = Node(tmp_path / "data", version="0.8")
    rows = [Row("test", "a~b", "good", AT, 10_001, 1), *unsendable]
    node.old_shard(1, rows=rows, marked_at=MARKED_AT)
    with served(node) as (url, _):
        found = rescue(shardtool, node.path, url)
    assert (found["sent"], found["missing"]) == (1, 5)
    file = tmp_path / "lost.json"
    told = export(shardtool, node.path, "--lost", "--to", file, code=3)
    # 0.8 takes no more of its JSON from export than from rescue: each of them is listed.
    assert file.read_bytes() == b""
    whys = {"number": 2, "reserved": 1, "sequence": 1, "time": 1}
    assert told["left"] == [{"why": why, "values": count} for why, count in whys.items()]
    assert {name for name, _ in left_cells(tmp_path / "lost.json.left")} == {
        name
        for row in unsendable
        for name, _ in [cell("test", "a~b", row.column, row.time_us, row.sequence, row.value)]
    }
    parquet = pytest.importorskip("pyarrow.parquet")
    export(shardtool, node.path, "--lost", "--to", tmp_path / "lost.parquet")
    table = parquet.read_table(tmp_path / "lost.parquet").to_pylist()
    columns = sorted((row["column"], row["sequence_number"]) for row in table)
    assert columns == sorted((row.column, row.sequence) for row in unsendable)
    assert sorted(map(str, (row["value_float"] for row in table))).count("nan") == 1


# -- what counts as lost --


@pytest.mark.slow
def test_nothing_lost_is_a_file_without_values_as_of_an_empty_choice(
    proven: Node, shardtool: Run, tmp_path: Path
) -> None:
    for end in ("lp", "json"):
        files = [tmp_path / f"{name}.{end}" for name in ("lost", "none")]
        told = export(shardtool, proven.path, "--lost", "--to", files[0])
        export(shardtool, proven.path, "--series", "^nothing$", "--to", files[1])
        assert files[0].read_bytes() == files[1].read_bytes()
        assert (told["values"], told["points"]) == (0, 0)
    done = shardtool("--data", proven.path, "export", "--lost", "--to", tmp_path / "again.lp")
    assert done.returncode == 0
    assert "0 lost values of 0 points, from 2 shards" in done.stdout


@pytest.mark.slow
def test_a_value_that_is_another_there_is_lost_as_the_old_shard_has_it(
    shardtool: Run, tmp_path: Path
) -> None:
    node = Node(tmp_path / "data", version="0.8")
    node.old_shard(1, rows=[Row("test", "cpu", "v", AT + n, 10_001, n) for n in range(9)])
    node.migrate(1, change=1, lose=1)
    found = lost(shardtool, node.path, tmp_path / "lost.json")
    assert found == Counter(cell("test", "cpu", "v", AT + n, 10_001, n) for n in (7, 8))
    told = export(shardtool, node.path, "--lost", "--to", tmp_path / "again.json")
    assert [shard["lost"] for shard in told["shards"]] == [
        {"missing": 1, "different": 1, "on_other_servers": False}
    ]


@pytest.mark.slow
def test_what_was_dropped_and_what_was_accepted_is_exported_too(
    shardtool: Run, tmp_path: Path
) -> None:
    node = Node(tmp_path / "data", version="0.8")
    node.old_shard(1, rows=[Row("test", "gone", "v", AT + n, 10_001, n) for n in range(3)])
    node.old_shard(2, rows=[Row("test", "kept", "v", AT + n, 10_001, n) for n in range(3)])
    node.migrate(1)
    node.migrate(2, lose=2)
    node.drop_series("test", "gone")
    words = ("accept", "2", "--missing", "2", "--because", "known")
    verify(shardtool, node.path)
    done = shardtool("--data", node.path, *words)
    assert done.returncode == 0, done.stderr
    found = lost(shardtool, node.path, tmp_path / "lost.json")
    assert columns_of(found) == {"test~gone~v": 3, "test~kept~v": 2}


@pytest.mark.slow
def test_of_a_shard_without_marker_all_that_is_not_there_yet_is_lost(
    shardtool: Run, tmp_path: Path
) -> None:
    node = Node(tmp_path / "data", version="0.8")
    node.old_shard(1, points=10)
    node.old_shard(2, points=10)
    node.migrate(1)
    node.migrate(2, lose=30, mark=False)
    assert lost(shardtool, node.path, tmp_path / "lost.json").total() == 30
    assert lost(shardtool, node.path, tmp_path / "lost.json", "1").total() == 0


def test_other_choices_hold_too(shardtool: Run, tmp_path: Path) -> None:
    node = Node(tmp_path / "data", version="0.8")
    rows = [Row("test", name, "v", AT + n, 10_001, n) for name in ("a~b", "c~d") for n in range(20)]
    node.old_shard(1, rows=rows)
    node.migrate(1, like_083=True)
    words = ("--series", "^a~b$", "--from", str(AT + 5), "--until", str(AT + 7))
    found = lost(shardtool, node.path, tmp_path / "lost.json", *words)
    assert found == Counter(cell("test", "a~b", "v", AT + n, 10_001, n) for n in (5, 6))


@pytest.mark.slow
def test_only_databases_that_lost_something_count(shardtool: Run, tmp_path: Path) -> None:
    node = Node(tmp_path / "data", version="0.8")
    rows = [Row(name, "s", "v", AT, 10_001, 1) for name in ("one", "two")]
    node.old_shard(1, rows=rows)
    node.old_shard(2, rows=[Row("one", "x~y", "v", AT, 10_001, 1)])
    node.migrate(1)
    node.migrate(2, like_083=True)
    assert export(shardtool, node.path, "--lost", "--to", tmp_path / "x.lp")["database"] == "one"
    node.old_shard(3, rows=[Row("two", "x~y", "v", AT, 10_001, 1)])
    done = shardtool("--data", node.path, "export", "--lost", "--to", tmp_path / "y.lp")
    assert "one, two" in one_line(done, 2)
    assert not (tmp_path / "y.lp").exists()


@pytest.mark.slow
@pytest.mark.parametrize("form", ["json", "lp"])
def test_stdout_carries_the_lost_values_and_nothing_else(
    form: str, shardtool: Run, tmp_path: Path
) -> None:
    node = Node(tmp_path / "data", version="0.8")
    node.old_shard(1, rows=[Row("test", "cpu", "v", AT + n, 10_001, n) for n in range(9)])
    node.migrate(1, lose=2)
    name = {"json": "json", "lp": "line"}[form]
    done = shardtool("--data", node.path, "export", "--lost", "--to", "-", "--format", name)
    file = tmp_path / f"x.{form}"
    export(shardtool, node.path, "--lost", "--to", file)
    assert done.stdout == file.read_text()
    assert "2 lost values of 2 points" in done.stderr


# -- what can't be told --


@pytest.mark.slow
@needs_plyvel
def test_a_damaged_shard_is_not_exported_at_all_and_hides_no_other(
    shardtool: Run, listing: List, tmp_path: Path
) -> None:
    node = Node(tmp_path / "data", version="0.8")
    for number in (1, 2, 3):
        node.old_shard(number, points=2000, storage="tables")
        node.migrate(number, lose=number)
    (table,) = (node.shard_db / "00002").glob("*.ldb")
    content = bytearray(table.read_bytes())
    content[len(content) // 2] ^= 0xFF
    table.write_bytes(content)
    before = listing(node.path)
    told = export(shardtool, node.path, "--lost", "--to", tmp_path / "out.lp", code=3)
    reasons = [(one["id"], one["values"], one["reasons"]) for one in told["shards"]]
    assert reasons == [("00001", 1, []), ("00002", 0, ["engine-unreadable"]), ("00003", 3, [])]
    assert [one["lost"] and one["lost"]["missing"] for one in told["shards"]] == [1, None, 3]
    assert listing(node.path) == before
    done = shardtool("--data", node.path, "export", "--lost", "--to", tmp_path / "again.lp")
    assert "00002: engine-unreadable: " in done.stdout


def test_where_the_new_side_cant_be_read_nothing_is_taken_for_lost(
    shardtool: Run, tmp_path: Path
) -> None:
    node = Node(tmp_path / "data", version="0.8")
    for number in (1, 50):  # a year apart, so in new shards of their own
        node.old_shard(number, points=10)
        node.migrate(number, lose=1)
    (new_of(node, 50).path / "CURRENT").write_bytes(b"nonsense")
    told = export(shardtool, node.path, "--lost", "--to", tmp_path / "out.json", code=3)
    assert [(one["id"], one["values"], one["reasons"]) for one in told["shards"]] == [
        ("00001", 1, []),
        ("00050", 0, ["engine-unreadable"]),
    ]


def test_without_a_readable_raft_there_is_no_file(shardtool: Run, tmp_path: Path) -> None:
    node = Node(tmp_path / "data", version="0.8")
    node.old_shard(1, points=10)
    node.migrate(1, lose=1)
    (node.raft / "log").write_bytes(b"\xff" * 64)
    done = shardtool("--data", node.path, "export", "--lost", "--to", tmp_path / "out.lp")
    assert "raft/log" in one_line(done, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_an_lmdb_that_a_server_has_open_is_told(shardtool: Run, hold: Hold, tmp_path: Path) -> None:
    node = Node(tmp_path / "data", version="0.8")
    node.old_shard(1, points=10)
    node.migrate(1, lose=1, engine="lmdb")
    hold(new_of(node, 1).path / "lock.mdb", "lock")
    told = export(shardtool, node.path, "--lost", "--to", tmp_path / "out.json", code=3)
    assert [(one["values"], one["reasons"]) for one in told["shards"]] == [(0, ["in-use"])]


@pytest.mark.slow
def test_in_a_cluster_other_servers_are_asked_or_said_to_be_unasked(
    shardtool: Run, tmp_path: Path
) -> None:
    world = World(tmp_path)
    data = world.node.path
    done = shardtool("--data", data, "export", "--lost", "--to", tmp_path / "x.json", "--json")
    told = document(done)
    assert (done.returncode, told["values"]) == (0, 6)
    assert "1 shard (00002)" in done.stderr
    assert "--api" in done.stderr
    assert [one["lost"]["on_other_servers"] for one in told["shards"]] == [False, True]
    with world.serve() as url:
        words = ("--lost", "--to", tmp_path / "y.json", "--json", "--api", url)
        done = shardtool("--data", data, "export", *words, env=ENV)
    assert (done.returncode, done.stderr, document(done)["values"]) == (0, "", 0)


# -- the command --


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--lost", "--new", "all"), "--new"),
        (("--api", "http://localhost:1"), "--lost"),
        (("--lost", "--api", "nonsense"), "nonsense"),
    ],
)
def test_words_that_mean_nothing_with_lost_are_one_line_and_2(
    words: tuple[str, ...], said: str, proven: Node, shardtool: Run, tmp_path: Path
) -> None:
    done = shardtool("--data", proven.path, "export", *words, "--to", tmp_path / "x.lp")
    assert said in one_line(done, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_a_file_that_is_there_is_refused_before_anything_is_compared(
    proven: Node, shardtool: Run, tmp_path: Path
) -> None:
    (tmp_path / "x.lp").write_text("mine")
    done = shardtool("--data", proven.path, "export", "--lost", "--to", tmp_path / "x.lp")
    assert "--force" in one_line(done, 2)
    assert (tmp_path / "x.lp").read_text() == "mine"


def test_an_interrupt_while_it_compares_leaves_nothing(tmp_path: Path) -> None:
    node = Node(tmp_path / "data", version="0.8")
    node.old_shard(1, points=150_000, databases={"test": ("cpu",)})
    running = subprocess.Popen(
        [*COMMAND, "--data", str(node.path), "export", "--lost", "--to", str(tmp_path / "x.lp")],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "TMPDIR": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
    )
    end = time.monotonic() + 30
    while not list(tmp_path.glob("shardtool-links-*/*/s*")):  # a child has begun to read
        assert time.monotonic() < end
        time.sleep(0.005)
    assert (tmp_path / ".x.lp.shardtool-part").stat().st_size == 0
    running.send_signal(signal.SIGINT)
    _, told = running.communicate()
    assert running.returncode == 130
    assert "nothing incomplete was left" in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


@pytest.mark.slow
def test_memory_is_flat_at_a_million_lost_values(tmp_path: Path) -> None:
    from bench.sides import peak_memory

    node = Node(tmp_path / "data", version="0.8")
    node.old_shard(1, points=250_000)
    command = [*COMMAND, "--data", str(node.path), "export", "--to"]
    lost_only, whole = tmp_path / "lost.json", tmp_path / "whole.json"
    peaks = [
        peak_memory([*command, str(lost_only), "--lost"]) / 1e6,
        peak_memory([*command, str(whole)]) / 1e6,
    ]
    assert lost_only.read_bytes() == whole.read_bytes()
    points = (json.loads(line)[0]["points"] for line in whole.read_text().splitlines())
    assert sum(len(point) - 2 for some in points for point in some) == 1_000_000
    assert peaks[0] < min(200, peaks[1] + 20), peaks


def test_nothing_of_the_users_is_changed_and_no_receipt_is_written(
    shardtool: Run, listing: List, tmp_path: Path
) -> None:
    node = Node(tmp_path / "data", version="0.8")
    node.old_shard(1, points=10)
    node.migrate(1, lose=3)
    before = listing(node.path)
    export(shardtool, node.path, "--lost", "--to", tmp_path / "x.json")
    assert listing(node.path) == before
    assert not_ours(before) == before
