"""`shardtool verify` as it is installed: what it finds, what it says, what it leaves untouched."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fixtures import Node, Row
from fixtures.convert import rewrite_new_shards
from fixtures.encode import ID_PREFIX, SERIES_PREFIX, old_id, value_key
from fixtures.engines import Engine
from tests.conftest import Run
from tests.e2e.proof_world import (
    AT,
    Capture,
    List,
    agrees,
    document,
    expected,
    new_of,
    not_ours,
    one_line,
    receipts,
    verdicts,
    verify,
)
from tests.e2e.terminal_world import Terminal
from tests.needs import needs_plyvel

# -- the captures of real servers --


@pytest.mark.parametrize("name", ["migrated-08", "partial-08"])
def test_a_capture_is_as_an_independent_reader_found_it(
    name: str, capture: Capture, shardtool: Run
) -> None:
    done = shardtool("--data", capture(name), "verify", "--json")
    found = document(done)
    assert (done.returncode, done.stderr) == (3, "")
    assert found["schema"] == "shardtool/verify/1"
    agrees({shard["id"]: shard for shard in found["shards"]}, name)
    totals = {key: sum(s[key] for s in found["shards"]) for key in ("values", "missing")}
    assert {key: found["totals"][key] for key in totals} == totals
    if name == "migrated-08":
        assert totals == {"values": 20536, "missing": 440}
        assert Counter(s["verdict"] for s in found["shards"]) == {"incomplete": 14, "proven": 13}


@pytest.mark.slow
def test_the_causes_on_migrated_08_are_future_and_name(capture: Capture, shardtool: Run) -> None:
    shards = verify(shardtool, capture("migrated-08"))
    columns = [column for shard in shards.values() for column in shard["columns"]]
    for column in columns:
        in_the_future = column["series"] in ("future", "Future")
        assert column["cause"] == ("future" if in_the_future else "name"), column
    lost: Counter[str] = Counter()
    for column in columns:
        lost[column["cause"]] += column["missing"]
    assert lost == {"name": 400, "future": 40}


@pytest.mark.slow
def test_the_cause_on_partial_08_is_not_migrated(capture: Capture, shardtool: Run) -> None:
    shards = verify(shardtool, capture("partial-08"))
    assert {c["cause"] for s in shards.values() for c in s["columns"]} == {"not-migrated"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["original-07", "stopped-07", "compacted-07"])
def test_before_the_migration_every_value_is_missing_as_not_migrated(
    name: str, capture: Capture, shardtool: Run
) -> None:
    data = capture(name)
    done = shardtool("--data", data, "verify", "--json")
    found = document(done)
    assert done.returncode == 3
    assert found["totals"]["values"] == found["totals"]["missing"] == 20536
    wanted = expected("migrated-08")  # the same points, a step later
    for shard in found["shards"]:
        assert shard["verdict"] == "incomplete"
        assert shard["values"] == shard["missing"] == wanted[shard["id"]]["values"]
        assert shard["reasons"] == ["no-marker", "values-missing"]
        assert {column["cause"] for column in shard["columns"]} == {"not-migrated"}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["rocksdb", "lmdb", "hyperleveldb"])
@pytest.mark.parametrize("name", ["migrated-08", "partial-08"])
def test_every_engine_of_08_gives_the_same_result(
    name: str, engine: Engine, capture: Capture, shardtool: Run
) -> None:
    data = capture(name)
    rewrite_new_shards(data, engine)
    agrees(verify(shardtool, data), name)


@pytest.mark.slow
@needs_plyvel
def test_new_shards_in_tables_give_the_same_result(capture: Capture, shardtool: Run) -> None:
    data = capture("migrated-08")
    rewrite_new_shards(data, "leveldb", storage="tables")
    agrees(verify(shardtool, data), "migrated-08")


# -- what it leaves as it is --


def test_the_data_directory_is_untouched_but_for_receipts(
    capture: Capture, shardtool: Run, listing: List
) -> None:
    data = capture("migrated-08")
    before = listing(data)
    for words in ((), ("--list",), ("7", "-q", "--again")):
        assert shardtool("--data", data, "verify", *words).returncode == 3
        assert not_ours(listing(data)) == before
    assert receipts(data) == [f"{number:05d}.json" for number in range(1, 28)]


@pytest.mark.parametrize("engine", ["leveldb", "rocksdb", "lmdb"])
def test_no_engine_touches_a_shard_that_it_reads(
    engine: Engine, tmp_path: Path, shardtool: Run, listing: List
) -> None:
    node = Node(tmp_path / "data", version="0.8", lmdb_map_size=1 << 20)
    node.old_shard(1, points=10, storage="tables")
    node.migrate(1, engine=engine, storage="tables" if engine == "leveldb" else "log")
    before = listing(node.path)
    assert verdicts(verify(shardtool, node.path)) == {"00001": "proven"}
    assert not_ours(listing(node.path)) == before


@pytest.mark.slow
def test_a_capture_of_07_is_untouched(capture: Capture, shardtool: Run, listing: List) -> None:
    data = capture("compacted-07")
    before = listing(data)
    assert shardtool("--data", data, "verify").returncode == 3
    assert not_ours(listing(data)) == before


# -- exit codes --


def test_all_proven_is_0(proven: Node, shardtool: Run) -> None:
    done = shardtool("--data", proven.path, "verify")
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 old shards, 2 proven; 80 values, 0 missing, 0 different" in done.stdout


def test_no_old_shards_is_0(tmp_path: Path, shardtool: Run) -> None:
    node = Node(tmp_path / "data", version="0.8")
    done = shardtool("--data", node.path, "verify")
    assert (done.returncode, done.stdout) == (0, "no old shards\n")


@pytest.mark.parametrize("how", ["lose", "change"])
def test_one_value_missing_or_different_is_3(how: str, tmp_path: Path, shardtool: Run) -> None:
    node = Node(tmp_path / "data", version="0.8")
    node.old_shard(1, points=10)
    node.migrate(1, lose=int(how == "lose"), change=int(how == "change"))
    done = shardtool("--data", node.path, "verify", "--json")
    (shard,) = document(done)["shards"]
    assert done.returncode == 3
    assert (shard["missing"], shard["different"]) == ((1, 0) if how == "lose" else (0, 1))
    assert shard["verdict"] == "incomplete"
    assert shard["reasons"] == ["values-missing" if how == "lose" else "values-different"]


@pytest.mark.parametrize(
    "words", [["--json", "--list"], ["--lists"], ["--again=yes"], ["--api"]], ids=" ".join
)
def test_wrong_usage_is_2(words: list[str], proven: Node, shardtool: Run) -> None:
    done = shardtool("--data", proven.path, "verify", *words)
    one_line(done, 2)
    assert done.stdout == ""
    assert receipts(proven.path) == []


def test_a_shard_that_is_not_there_is_1_and_nothing_is_read(proven: Node, shardtool: Run) -> None:
    line = one_line(shardtool("--data", proven.path, "verify", "1", "77"), 1)
    assert "00077" in line
    assert receipts(proven.path) == []


def test_only_the_named_shards_are_verified(proven: Node, shardtool: Run) -> None:
    assert list(verify(shardtool, proven.path, "2")) == ["00002"]
    assert receipts(proven.path) == ["00002.json"]


# -- the list --


@pytest.fixture
def values_of_every_kind(tmp_path: Path) -> Node:
    """A marked shard with nothing of it in the new storage: every type, at its limits."""
    node = Node(tmp_path / "data", version="0.8")
    contents: list[tuple[str, str | bool | int | float]] = [
        ("int", (1 << 53) + 1),
        ("int", -(1 << 63)),
        ("int", (1 << 63) - 1),
        ("double", float("nan")),
        ("double", float("inf")),
        ("double", float("-inf")),
        ("double", 3.0),
        ("double", 0.1),
        ("double", -0.0),
        ("bool", True),
        ("bool", False),
        ("text", "\x1b[31mred\x1b[0m\n\u2028"),
        ("text", ""),
    ]
    rows = [Row("test", "s", name, AT + i, 10_001 + i, v) for i, (name, v) in enumerate(contents)]
    node.old_shard(1, rows=rows)
    node.mark(1)
    return node


def listed(run: Run, data: Path, *words: str) -> list[dict[str, Any]]:
    """Return what `verify --list` prints, a document a line."""
    done = run("--data", data, "verify", "--list", *words)
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_the_list_has_exactly_the_lost_values_with_the_causes_of_json(
    capture: Capture, shardtool: Run
) -> None:
    data = capture("migrated-08")
    lines = listed(shardtool, data)
    by_column: Counter[tuple[str, ...]] = Counter(
        tuple(line[key] for key in ("shard", "database", "series", "column", "cause"))
        for line in lines
    )
    shards = verify(shardtool, data)
    assert by_column == {
        (name, c["database"], c["series"], c["column"], c["cause"]): c["missing"] + c["different"]
        for name, shard in shards.items()
        for c in shard["columns"]
    }
    parts = ("shard", "database", "series", "column", "time_us", "sequence_number")
    assert len({tuple(line[part] for part in parts) for line in lines}) == len(lines) == 440


def test_the_list_of_a_column_that_came_in_part_has_the_causes_of_json(
    tmp_path: Path, shardtool: Run
) -> None:
    """What the cause is depends on the whole column, the list must wait for its end."""
    node = Node(tmp_path / "data", version="0.8")
    node.old_shard(1, points=300)
    node.migrate(1, lose=400)
    lines = listed(shardtool, node.path)
    columns = verify(shardtool, node.path)["00001"]["columns"]
    assert {column["cause"] for column in columns} == {"not-migrated", "unknown"}
    assert Counter((x["series"], x["column"], x["cause"]) for x in lines) == {
        (c["series"], c["column"], c["cause"]): c["missing"] for c in columns
    }


def test_the_list_has_values_and_types_exactly(values_of_every_kind: Node, shardtool: Run) -> None:
    lines = listed(shardtool, values_of_every_kind.path)
    by_sequence = {line["sequence_number"]: line for line in lines}
    found = [
        (by_sequence[n]["type"], by_sequence[n]["value"]) for n in sorted(by_sequence, key=int)
    ]
    wanted: list[tuple[str, object]] = [
        ("int64", 9007199254740993),
        ("int64", -9223372036854775808),
        ("int64", 9223372036854775807),
        ("double", "nan"),
        ("double", "inf"),
        ("double", "-inf"),
        ("double", 3.0),
        ("double", 0.1),
        ("double", -0.0),
        ("bool", True),
        ("bool", False),
        ("string", "\x1b[31mred\x1b[0m\n\u2028"),
        ("string", ""),
    ]
    assert [(kind, repr(value)) for kind, value in found] == [(k, repr(v)) for k, v in wanted]
    assert sorted(line["time_us"] for line in lines) == [AT + i for i in range(len(wanted))]


def test_the_list_tells_what_the_new_storage_has_instead(tmp_path: Path, shardtool: Run) -> None:
    node = Node(tmp_path / "data", version="0.8")
    row = Row("test", "s", "v", AT, 10_001, (1 << 60) + 1)
    node.old_shard(1, rows=[row])
    node.migrate(1)
    node.write_new([row._replace(value=float(1 << 60))])
    (line,) = listed(shardtool, node.path)
    assert (line["type"], line["value"]) == ("int64", (1 << 60) + 1)
    assert (line["found_type"], line["found_value"]) == ("double", float(1 << 60))


@pytest.mark.slow
def test_a_name_that_is_no_utf_8_is_listed_and_shown_escaped(
    tmp_path: Path, shardtool: Run
) -> None:
    node = Node(tmp_path / "data", version="0.8", databases=["test"])
    node.old_shard(1, points=0)
    node.old[1].store.write(
        [
            (SERIES_PREFIX + b"test~caf\xe9", b""),
            (ID_PREFIX + b"test~caf\xe9~v", old_id(9)),
            (value_key(old_id(9), AT, 10_001), b"\x28\x07"),
        ]
    )
    node.mark(1)
    done = shardtool("--data", node.path, "verify", "--list")
    assert done.stdout.isascii()
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["series"].encode(errors="surrogateescape") == b"caf\xe9"
    assert r"caf\xe9" in shardtool("--data", node.path, "verify").stdout
    # From the receipt too.
    (shard,) = verify(shardtool, node.path).values()
    assert shard["from_receipt"]
    assert shard["columns"][0]["series"].encode(errors="surrogateescape") == b"caf\xe9"


def test_a_value_that_is_no_message_is_listed_in_hex(tmp_path: Path, shardtool: Run) -> None:
    node = Node(tmp_path / "data", version="0.8", databases=["test"])
    node.old_shard(1, points=0)
    node.old[1].store.write(
        [
            (ID_PREFIX + b"test~s~v", old_id(9)),
            (value_key(old_id(9), AT, 10_001), b"\xff\xff\xff"),
        ]
    )
    node.mark(1)
    (line,) = listed(shardtool, node.path)
    assert (line["type"], line["value"]) == ("unreadable", "ffffff")


def test_the_list_of_proven_shards_is_empty(proven: Node, shardtool: Run) -> None:
    done = shardtool("--data", proven.path, "verify", "--list")
    assert (done.returncode, done.stdout) == (0, "")


# -- streams and terminals --


def test_quiet_is_one_line(capture: Capture, shardtool: Run) -> None:
    done = shardtool("--data", capture("migrated-08"), "verify", "--quiet")
    totals = "14 incomplete, 13 proven; 20,536 values, 440 missing, 0 different"
    assert done.stdout == f"27 old shards, {totals}\n"
    assert done.stderr == ""


def test_piped_it_has_no_colors_and_no_progress(capture: Capture, shardtool: Run) -> None:
    done = shardtool("--data", capture("migrated-08"), "verify")
    assert "\x1b" not in done.stdout + done.stderr
    assert "\r" not in done.stdout + done.stderr
    assert done.stderr == ""


def test_a_terminal_shows_it_in_80_columns_and_in_color(capture: Capture) -> None:
    data = capture("migrated-08")
    colored = Terminal("--data", data, "verify")
    assert colored.end() == 3
    assert "\x1b[31mincomplete\x1b[0m" in colored.shown
    assert "\x1b[32mproven\x1b[0m" in colored.shown
    plain = Terminal("--data", data, "verify", NO_COLOR="1")
    assert plain.end() == 3
    assert "\x1b" not in plain.shown
    lines = plain.shown.replace("\r\n", "\n").split("\n")
    assert max(map(len, lines)) <= 80
    assert sum(line.startswith("000") for line in lines) == 27


def test_no_name_reaches_the_terminal_raw(tmp_path: Path) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\nnext\rline\x9b31m\u202e"
    node = Node(tmp_path / "data", version="0.8")
    node.old_shard(1, rows=[Row(evil, evil, evil, AT, 10_001, evil)])
    node.mark(1)
    (node.shard_db / evil).mkdir()
    (node.shard_db / "00001" / evil).touch()
    for words in ((), ("--list",), ("--json",)):
        terminal = Terminal("--data", node.path, "verify", *words, NO_COLOR="1")
        assert terminal.end() == 3
        shown = terminal.shown.replace("\r\n", "\n")
        assert all(c == "\n" or c.isprintable() for c in shown), repr(shown)
        assert "\nnext" not in shown


def test_an_engines_words_reach_the_terminal_escaped(proven: Node) -> None:
    (new_of(proven, 1).path / "type").write_bytes(b"\x1b[31msled\n")
    terminal = Terminal("--data", proven.path, "verify", NO_COLOR="1")
    assert terminal.end() == 3
    assert "\x1b" not in terminal.shown
    assert "engine-unreadable" in terminal.shown
