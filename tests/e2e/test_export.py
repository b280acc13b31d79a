"""`shardtool export` as it is installed: every value once, in each format, as it was chosen."""

from __future__ import annotations

import gzip
import importlib
import json
import os
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import zstandard
from line_protocol_parser import parse_line

from fixtures import Node, Row
from fixtures.encode import Value
from fixtures.server import serve
from shardtool.cli.app import main
from tests.conftest import Hold, Run, Unprivileged
from tests.e2e.export_world import Cell, cell, export, json_cells, left_cells, line_cells, stored
from tests.e2e.proof_world import AT, Capture, List, one_line
from tests.needs import needs_plyvel, needs_root

# -- what real servers wrote --


@pytest.mark.slow
@pytest.mark.parametrize("capture_name", ["original-07", "migrated-08", "partial-08"])
def test_each_value_of_a_capture_is_in_the_json_once_with_its_type(
    capture_name: str, capture: Capture, shardtool: Run, listing: List, tmp_path: Path
) -> None:
    data = capture(capture_name)
    before = listing(data)
    found: Counter[Cell] = Counter()
    expected = stored(data)
    databases = {text.split(b"~")[0].decode() for text, _ in expected}
    for database in sorted(databases):
        file = tmp_path / f"{database}.json"
        told = export(shardtool, data, "--database", database, "--to", file)
        cells = Counter(json_cells(file.read_text(), database))
        assert (told["values"], told["left"]) == (cells.total(), [])
        found += cells
    assert found == expected
    assert listing(data) == before


@pytest.mark.slow
def test_each_value_of_a_capture_is_a_field_once_with_its_type_or_listed(
    capture: Capture, shardtool: Run, tmp_path: Path
) -> None:
    data = capture("original-07")
    found: Counter[Cell] = Counter()
    for database in ("metrics", "test"):
        file = tmp_path / f"{database}.lp"
        code = 3 if database == "test" else 0
        told = export(
            shardtool,
            data,
            *("--database", database, "--to", file, "--sequence", "tag"),
            code=code,
        )
        for line in file.read_text().split("\n")[:-1]:  # and at no other end of a line
            found.update(line_cells(line, database))
        left = Counter(left_cells(tmp_path / f"{database}.lp.left"))
        assert sum(one["values"] for one in told["left"]) == left.total()
        found += left
    assert found == stored(data)
    assert found.total() == 20_536


@pytest.mark.slow
def test_all_of_a_capture_is_in_one_parquet_file(
    capture: Capture, shardtool: Run, tmp_path: Path
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    data = capture("original-07")
    file = tmp_path / "all.parquet"
    told = export(shardtool, data, "--to", file)
    table = parquet.read_table(file)
    assert table.num_rows == told["values"] == 20_536
    found: Counter[Cell] = Counter()
    times = table["time"].cast("int64").to_pylist()
    for row, time_us in zip(table.to_pylist(), times, strict=True):
        (value,) = [v for k, v in row.items() if k.startswith("value_") and v is not None]
        names = (row["database"], row["series"], row["column"])
        found[cell(*names, time_us, row["sequence_number"], value)] += 1
    assert found == stored(data)
    assert parquet.ParquetFile(file).metadata.num_row_groups == 1


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ldb112-sst-64k-bloom", "ldb115-log"])
def test_a_shard_of_2014_is_exported_without_a_raft(
    engine: str, capture: Capture, shardtool: Run, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    (data / "db/shard_db").mkdir(parents=True)
    (capture("shards-2014") / engine).rename(data / "db/shard_db/00001")
    expected = stored(data)
    found: Counter[Cell] = Counter()
    for database in {text.split(b"~")[0].decode() for text, _ in expected}:
        file = tmp_path / f"{database}.json"
        done = shardtool("--data", data, "export", "--database", database, "--to", file)
        assert done.returncode == 0
        assert "own names are used" in done.stderr
        found += Counter(json_cells(file.read_text(), database))
    assert found == expected


# -- formats, by name --


def test_line_protocol_is_what_a_reader_expects(
    kinds: Node, shardtool: Run, tmp_path: Path
) -> None:
    file = tmp_path / "out.lp"
    told = export(shardtool, kinds.path, "--to", file)
    line = f'host="web",n={1 << 60}i,ok=true,value=0.1'
    assert file.read_text() == (
        f"# DML\n# CONTEXT-DATABASE: test\ncpu {line} 7000\ncpu {line} 9000\nmem {line} 8000\n"
    )
    assert (told["values"], told["points"], told["database"]) == (12, 3, "test")
    assert [(s["id"], s["values"], s["points"]) for s in told["shards"]] == [
        ("00001", 8, 2),
        ("00002", 4, 1),
    ]
    assert file.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.slow
@pytest.mark.parametrize("end", ["", ".gz", ".zst"])
@pytest.mark.parametrize("form", ["lp", "line", "txt", "json", "jsonl"])
def test_the_end_of_the_name_says_what_is_written(
    form: str, end: str, kinds: Node, shardtool: Run, tmp_path: Path
) -> None:
    file = tmp_path / f"out.{form}{end}"
    export(shardtool, kinds.path, "--to", file)
    content = file.read_bytes()
    if end == ".gz":
        content = gzip.decompress(content)
    elif end == ".zst":
        content = zstandard.ZstdDecompressor().stream_reader(content).read()
    assert content.startswith(b"[{" if form.startswith("json") else b"# DML\n")
    again = tmp_path / f"again.{form}{end}"
    export(shardtool, kinds.path, "--to", again)
    assert again.read_bytes() == file.read_bytes()


@pytest.mark.slow
def test_each_line_of_the_json_is_what_0_8_takes(
    kinds: Node, shardtool: Run, tmp_path: Path
) -> None:
    import base64
    import urllib.request

    file = tmp_path / "out.json"
    export(shardtool, kinds.path, "--to", file)
    fresh = Node(tmp_path / "fresh", version="0.8", databases=["test"])
    with serve(fresh) as url:
        for line in file.read_bytes().splitlines():
            request = urllib.request.Request(f"{url}/db/test/series?time_precision=u", line)
            login = base64.b64encode(b"root:root").decode()
            request.add_header("Authorization", f"Basic {login}")
            urllib.request.urlopen(request).close()
    again = tmp_path / "again.json"
    export(shardtool, fresh.path, "--new", "all", "--to", again)
    assert Counter(json_cells(again.read_text(), "test")) == Counter(
        json_cells(file.read_text(), "test")
    )


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["leveldb", "rocksdb", "hyperleveldb", "lmdb"])
def test_new_shards_are_exported_as_the_old_ones(
    engine: Any, kinds: Node, shardtool: Run, tmp_path: Path
) -> None:
    for number in (1, 2):
        kinds.migrate(number, engine=engine)
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    export(shardtool, kinds.path, "--to", old)
    told = export(shardtool, kinds.path, "--new", "all", "--to", new)
    assert {shard["side"] for shard in told["shards"]} == {"new"}
    cells = [Counter(json_cells(file.read_text(), "test")) for file in (old, new)]
    assert cells[0] == cells[1]


# -- what is chosen --


@pytest.mark.slow
def test_databases_series_and_times_choose(shardtool: Run, tmp_path: Path) -> None:
    node = Node(tmp_path / "data")
    day = 86_400_000_000
    rows = [
        Row(database, series, "v", AT + n * day, n, n)
        for database in ("one", "two")
        for series in ("cpu", "cpu.load", "mem")
        for n in range(5)
    ]
    node.old_shard(1, rows=rows)
    day_of = datetime.fromtimestamp(AT / 1e6, UTC)
    file = tmp_path / "out.json"
    export(
        shardtool,
        node.path,
        *("--database", "two", "--series", "^cpu", "--to", file),
        *("--from", str(AT - day), "--until", (day_of.isoformat()).replace("+00:00", "Z")),
    )
    assert file.read_text() == ""
    export(
        shardtool,
        node.path,
        *("--database", "two", "--series", "^cpu", "--to", file, "--force"),
        *("--from", str(AT + day), "--until", str(AT + 3 * day)),
    )
    assert Counter(json_cells(file.read_text(), "two")) == Counter(
        cell("two", series, "v", AT + n * day, n, n)
        for series in ("cpu", "cpu.load")
        for n in (1, 2)
    )


@pytest.mark.slow
def test_two_databases_in_one_file_are_refused_and_named(shardtool: Run, tmp_path: Path) -> None:
    node = Node(tmp_path / "data")
    node.old_shard(1, rows=[Row(name, "s", "v", 1, 1, 1) for name in ("one", "two")])
    for name in ("out.lp", "out.json"):
        done = shardtool("--data", node.path, "export", "--to", tmp_path / name)
        line = one_line(done, 2)
        assert "one, two" in line
        assert "--database" in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]
    assert shardtool("--data", node.path, "export", "--to", "-", "--format", "line").stdout == ""


@pytest.mark.preloaded
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--to", "out"), "--format"),
        (("--to", "out.parquet.gz"), "compressed in itself"),
        (("--to", "out.lp", "--series", "("), "regex"),
        (("--to", "out.lp", "--from", "yesterday"), "expected a time"),
        (("--to", "out.lp", "--until", "0", "--from", "0"), "before --until"),
        (("--to", "-", "--format", "line", "--json"), "stdout"),
        (("--to", "DATA/db/out.lp"), "is InfluxDB's"),
        (("--to", "DATA/raft/out.lp"), "is InfluxDB's"),
        ((), "--to"),
    ],
)
def test_words_that_mean_nothing_are_one_line_and_2(
    words: tuple[str, ...], said: str, kinds: Node, shardtool: Run, tmp_path: Path
) -> None:
    words = tuple(word.replace("DATA", str(kinds.path)) for word in words)
    done = shardtool("--data", kinds.path, "export", *words, cwd=tmp_path)
    assert said in one_line(done, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


@pytest.mark.slow
def test_a_database_that_nobody_knows_is_refused(
    kinds: Node, shardtool: Run, tmp_path: Path
) -> None:
    for name in ("out.lp", "out.json", "out.parquet"):
        words = ("--database", "tset", "--database", "test", "--to", tmp_path / name)
        done = shardtool("--data", kinds.path, "export", *words)
        assert "tset" in one_line(done, 2)
    # One that has nothing of what is wanted is another matter.
    words = ("--database", "test", "--series", "nothing", "--to", tmp_path / "out.lp")
    assert export(shardtool, kinds.path, *words)["values"] == 0


def test_where_there_is_no_shard_it_is_said(shardtool: Run, tmp_path: Path) -> None:
    node = Node(tmp_path / "new", version="0.8")
    done = shardtool("--data", node.path, "export", "--new", "all", "--to", tmp_path / "out.lp")
    assert done.returncode == 0
    assert "no shard" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["out.lp", "out.json", "out.parquet"])
def test_old_and_new_shards_in_one_file_have_each_value_once(
    name: str, shardtool: Run, tmp_path: Path
) -> None:
    node = Node(tmp_path / "data", version="0.8")
    node.old_shard(1, rows=[Row("test", "cpu", "v", AT + n, n, 1.5 * n) for n in range(1, 4)])
    node.migrate(1)
    node.old_shard(2, rows=[Row("test", "cpu", "v", AT + 1, 1, 9.5)])
    words = ("1", "2", "--new", "all", "--to", tmp_path / name)
    document = export(shardtool, node.path, *words, code=3)
    assert (document["values"], document["twice"]) == (3, 3)
    assert document["left"] == [{"why": "contradicted", "values": 1}]
    assert [value for _, (_, value) in left_cells(tmp_path / f"{name}.left")] == ["9.5"]


@pytest.mark.parametrize("words", [(), ("--json",), ("--quiet",)])
def test_a_log_that_ends_in_the_midst_of_a_record_is_told(
    words: tuple[str, ...], shardtool: Run, tmp_path: Path
) -> None:
    node = Node(tmp_path / "data")
    node.old_shard(1, rows=[Row("test", "cpu", "v", AT + n, n, 1.5) for n in range(1000)])
    (log,) = (node.shard_db / "00001").glob("*.log")
    os.truncate(log, log.stat().st_size - 5)
    done = shardtool("--data", node.path, "export", "--to", tmp_path / "out.lp", *words)
    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    assert f"{log}: ends in the midst of a record, at offset " in line
    # What was before it is there.
    assert 900 < (tmp_path / "out.lp").read_text().count("cpu v=1.5") < 1000


@pytest.mark.slow
def test_a_shard_that_is_not_there_is_named(kinds: Node, shardtool: Run, tmp_path: Path) -> None:
    for words in (("9",), ("--new", "9")):
        done = shardtool("--data", kinds.path, "export", *words, "--to", tmp_path / "out.lp")
        assert "00009" in one_line(done, 1)


# -- what is left out --


@pytest.mark.slow
def test_what_lines_cant_hold_is_listed_and_the_code_is_3(shardtool: Run, tmp_path: Path) -> None:
    node = Node(tmp_path / "data")
    rows = [
        Row("test", "cpu", "v", 1, 1, float("nan")),
        Row("test", "cpu", "w", 1, 1, 1.5),
        Row("test", "#cpu", "v", 1, 1, 1),
        Row("test", "cpu", "v", (1 << 62), 1, 1.0),
    ]
    node.old_shard(1, rows=rows)
    file = tmp_path / "out.lp"
    told = export(shardtool, node.path, "--to", file, code=3)
    assert file.read_text().splitlines()[2:] == ["cpu w=1.5 1000"]
    assert told["left"] == [{"why": why, "values": 1} for why in ("name", "number", "time")]
    listed = [json.loads(line) for line in (tmp_path / "out.lp.left").read_text().splitlines()]
    assert {(one["series"], one["why"]) for one in listed} == {
        ("cpu", "number"),
        ("cpu", "time"),
        ("#cpu", "name"),
    }
    done = shardtool("--data", node.path, "export", "--to", "-", "--format", "line")
    assert done.returncode == 3
    assert done.stdout.splitlines()[2:] == ["cpu w=1.5 1000"]
    assert "1 value left out: NaN" in done.stderr
    # Nothing is left of it now, and no list says that there is.
    export(shardtool, node.path, "--to", file, "--force", "--series", "^nothing$")
    assert not (tmp_path / "out.lp.left").exists()


def test_hostile_names_reach_no_terminal(shardtool: Run, tmp_path: Path) -> None:
    node = Node(tmp_path / "data")
    name = "\x1b[31mred\x07"
    several: tuple[Value, ...] = (1, 1.5, "x")
    rows = [Row(name, name, name, n, n, value) for n, value in enumerate(several)]
    node.old_shard(1, rows=rows)
    file = tmp_path / "out.lp"
    done = shardtool("--data", node.path, "export", "--to", file)
    assert done.returncode == 3  # a field has one type
    assert "several types" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr
    assert name in file.read_text()
    assert file.read_text().startswith("# DML\n\x1b")


# -- shards that can't be read --


@pytest.mark.slow
@needs_plyvel
def test_a_shard_that_cant_be_read_hides_no_other(
    shardtool: Run, listing: List, tmp_path: Path
) -> None:
    node = Node(tmp_path / "data")
    for number in (1, 2, 3):
        node.old_shard(number, points=2000, storage="tables")
    (table,) = (node.shard_db / "00002").glob("*.ldb")
    content = bytearray(table.read_bytes())
    content[len(content) // 2] ^= 0xFF
    table.write_bytes(content)
    before = listing(node.path)
    file = tmp_path / "out.lp"
    told = export(shardtool, node.path, "--to", file, code=3)
    assert [shard["reasons"] for shard in told["shards"]] == [[], ["engine-unreadable"], []]
    assert [shard["values"] for shard in told["shards"]][::2] == [8000, 8000]
    fields = sum(len(parse_line(line)["fields"]) for line in file.read_text().splitlines()[2:])
    assert fields == told["values"]
    assert listing(node.path) == before
    done = shardtool("--data", node.path, "export", "--to", tmp_path / "again.lp")
    assert "00002: engine-unreadable: " in done.stdout
    assert "1 shard not read to the end" in done.stdout


def test_a_shard_that_a_server_has_open_is_told_and_hides_no_other(
    kinds: Node, shardtool: Run, hold: Hold, tmp_path: Path
) -> None:
    hold(kinds.shard_db / "00001/LOCK", "lock")
    told = export(shardtool, kinds.path, "--to", tmp_path / "out.lp", code=3)
    assert [(s["id"], s["reasons"], s["values"]) for s in told["shards"]] == [
        ("00002", [], 4),
        ("00001", ["locked"], 0),
    ]


def test_what_is_no_shard_is_told_and_hides_no_other(
    kinds: Node, shardtool: Run, tmp_path: Path
) -> None:
    (kinds.shard_db / "00007").mkdir()
    (kinds.shard_db / "00008").symlink_to(tmp_path)
    told = export(shardtool, kinds.path, "--to", tmp_path / "out.lp", code=3)
    reasons = {shard["id"]: shard["reasons"] for shard in told["shards"]}
    assert reasons == {"00001": [], "00002": [], "00007": ["not-a-shard"], "00008": ["not-a-shard"]}
    assert told["values"] == 12


@needs_root
def test_who_may_read_needs_no_root(public_path: Path, unprivileged: Unprivileged) -> None:
    node = Node(public_path / "data")
    node.old_shard(1, points=4)
    for path in (public_path, *public_path.rglob("*")):
        os.chmod(path, 0o755)
    out = public_path / "out"
    out.mkdir()
    out.chmod(0o777)
    # This Python may be out of that user's reach: what it needs is here before.
    codecs = ("encodings.ascii", "encodings.raw_unicode_escape")
    for module in ("shardtool.cli.export", "rocksdict", "re2", *codecs):
        importlib.import_module(module)

    def run() -> int:
        words = ["--data", node.path, "export", "--to", out / "x.lp", "--quiet"]
        sys.argv = ["shardtool", *map(str, words)]
        return main()

    assert unprivileged(run) == 0
    assert (out / "x.lp").read_text().count("\n") == 6
