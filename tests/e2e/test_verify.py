"""`shardtool verify` as it is installed: what it finds, what it says, what it leaves untouched."""

from __future__ import annotations

import base64
import contextlib
import importlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fixtures import MARKED_AT, Column, Node, Row
from fixtures.convert import rewrite_new_shards
from fixtures.encode import ID_PREFIX, SERIES_PREFIX, microseconds, old_id, value_key
from fixtures.engines import Engine
from fixtures.server import Faults, serve
from shardtool.cli.app import main
from tests.conftest import COMMAND, REPOSITORY, Hold, Mount, Run, Unprivileged
from tests.e2e.proof_world import (
    Capture,
    List,
    document,
    expected,
    new_of,
    not_ours,
    receipts,
    rewrite,
    verdicts,
    verify,
)
from tests.e2e.test_terminal import Terminal
from tests.needs import needs_plyvel

AT = microseconds(MARKED_AT) - 86_400_000_000  # a day before the migration


def one_line(done: subprocess.CompletedProcess[str], code: int) -> str:
    """Assert that a run ended with `code` and one line on stderr; return the line."""
    assert done.returncode == code, (done.stdout, done.stderr)
    (line,) = done.stderr.splitlines()
    assert line.startswith("shardtool: ")
    return line


def lost_by_column(shard: dict[str, Any]) -> dict[str, int]:
    """Return the missing values of one shard of the document by `database~series~column`."""
    found: Counter[str] = Counter()
    for one in shard["columns"]:
        found["~".join((one["database"], one["series"], one["column"]))] += one["missing"]
    return dict(found)


def agrees(shards: dict[str, Any], name: str) -> None:
    """Assert that a document says what an independent reader found, value for value."""
    wanted = expected(name)
    assert set(shards) == set(wanted)
    for number, shard in shards.items():
        assert shard["values"] == wanted[number]["values"], number
        assert shard["missing"] == wanted[number]["missing"], number
        assert shard["different"] == 0, number
        assert lost_by_column(shard) == wanted[number]["missing_by_column"], number
        complete = wanted[number]["missing"] == 0
        assert shard["verdict"] == ("proven" if complete else "incomplete"), number
        words = ([] if wanted[number]["marked"] else ["no-marker"]) + ["values-missing"]
        assert shard["reasons"] == ([] if complete else words), number


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


def test_the_cause_on_partial_08_is_not_migrated(capture: Capture, shardtool: Run) -> None:
    shards = verify(shardtool, capture("partial-08"))
    assert {c["cause"] for s in shards.values() for c in s["columns"]} == {"not-migrated"}


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


@pytest.mark.parametrize("engine", ["rocksdb", "lmdb", "hyperleveldb"])
@pytest.mark.parametrize("name", ["migrated-08", "partial-08"])
def test_every_engine_of_08_gives_the_same_result(
    name: str, engine: Engine, capture: Capture, shardtool: Run
) -> None:
    data = capture(name)
    rewrite_new_shards(data, engine)
    agrees(verify(shardtool, data), name)


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


# -- receipts --


def without(shards: dict[str, Any], *keys: str) -> dict[str, Any]:
    """Given verify's shards, return them without some of what is said of each."""
    return {n: {k: v for k, v in s.items() if k not in keys} for n, s in shards.items()}


@pytest.fixture
def proven(tmp_path: Path) -> Node:
    """A node with two shards whose every value is in the new storage."""
    node = Node(tmp_path / "data", version="0.8")
    for number in (1, 2):
        node.old_shard(number, points=10)
        node.migrate(number)
    return node


def test_a_second_run_says_the_same_from_receipts(capture: Capture, shardtool: Run) -> None:
    data = capture("migrated-08")
    first = verify(shardtool, data)
    assert not any(shard["from_receipt"] for shard in first.values())
    second = verify(shardtool, data)
    assert all(shard["from_receipt"] for shard in second.values())
    assert without(second, "from_receipt") == without(first, "from_receipt")


def test_again_reads_what_has_a_receipt(proven: Node, shardtool: Run) -> None:
    first = verify(shardtool, proven.path)
    again = verify(shardtool, proven.path, "--again")
    assert not any(shard["from_receipt"] for shard in again.values())
    assert all(again[name]["proven_at"] > first[name]["proven_at"] for name in first)
    volatile = ("proven_at", "from_receipt")
    assert without(again, *volatile) == without(first, *volatile)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"schema": "shardtool/receipt/1"}',
        b"\xff" * 100,
        b"[" * 100_000,
        b'{"schema": "shardtool/receipt/2", "shard": "00001"}',
    ],
    ids=range(7),
)
def test_a_damaged_receipt_does_not_hold(content: bytes, proven: Node, shardtool: Run) -> None:
    verify(shardtool, proven.path)
    (proven.db / ".shardtool/proofs/00001.json").write_bytes(content)
    shards = verify(shardtool, proven.path)
    assert [shard["from_receipt"] for shard in shards.values()] == [False, True]
    assert set(verdicts(shards).values()) == {"proven"}


def test_a_receipt_of_another_shard_does_not_hold(proven: Node, shardtool: Run) -> None:
    verify(shardtool, proven.path)
    proofs = proven.db / ".shardtool/proofs"
    shutil.copy(proofs / "00001.json", proofs / "00002.json")
    shards = verify(shardtool, proven.path)
    assert [shard["from_receipt"] for shard in shards.values()] == [True, False]


def touch_old(node: Node) -> None:
    """Change the mtime of a file of old shard 1."""
    os.utime(node.old[1].path / "000003.log")


def rewrite_old_in_place(node: Node) -> None:
    """Write other bytes into old shard 1 and set its mtime back."""
    file = node.old[1].path / "000003.log"
    entry = file.stat()
    content = file.read_bytes()
    file.write_bytes(content)
    os.utime(file, ns=(entry.st_atime_ns, entry.st_mtime_ns))


def touch_new(node: Node) -> None:
    """Change the mtime of a file of a new shard."""
    os.utime(new_of(node, 1).path / "000003.log")


def write_to_new(node: Node) -> None:
    """Have a client write one more point beside old shard 1's."""
    at = microseconds(node.old[1].start)
    node.write_new([Row("test", "cpu", "n", at + 5, 50_001, 5)])


@pytest.mark.parametrize("change", [touch_old, rewrite_old_in_place, touch_new, write_to_new])
def test_a_receipt_holds_only_while_both_sides_are_unchanged(
    change: Callable[[Node], None], proven: Node, shardtool: Run
) -> None:
    verify(shardtool, proven.path)
    change(proven)
    assert not verify(shardtool, proven.path, "1")["00001"]["from_receipt"]


def test_receipts_can_be_read_by_all_and_belong_to_the_owner_of_db(
    proven: Node, shardtool: Run
) -> None:
    if os.geteuid() == 0:
        os.chown(proven.db, 65534, 65534)
    verify(shardtool, proven.path)
    owner = proven.db.stat().st_uid
    own = proven.db / ".shardtool"
    for path in (own, own / "proofs", own / "proofs/00001.json"):
        assert path.stat().st_uid == owner, path
    assert (own / "proofs/00001.json").stat().st_mode & 0o777 == 0o644


# -- interrupted --


@contextmanager
def hanging(tmp_path: Path) -> Iterator[tuple[Node, str, Faults, Path]]:
    """A node whose shard 2 is proven at once, and whose shard 1 waits for another server's answer.

    Yields node, URL, the server's faults (hang = 0 ends the waiting) and an empty TMPDIR.
    """
    node = Node(tmp_path / "data", version="0.8", servers=2)
    other = Node(tmp_path / "other", version="0.8", servers=2, server_id=2)
    rows = [Row("test", "cpu", "v", AT, 10_001, 1)]
    for one in (node, other):
        one.old_shard(2, rows=rows)
        one.migrate(2)  # the first new shard is the first server's
        one.old_shard(1, points=20, databases={"test": ("cpu",)})
        one.migrate(1)
    assert node.elsewhere
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    faults = Faults(only="/db/", hang=60)
    with serve(node, other, faults=faults) as url:
        yield node, url, faults, scratch


def begun(node: Node, url: str, scratch: Path) -> subprocess.Popen[str]:
    """Start a verify and return it once it has written a receipt and waits for the other shard."""
    process = subprocess.Popen(
        [*COMMAND, "--data", str(node.path), "verify", "--json", "--api", url],
        env={
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "TMPDIR": str(scratch),
            "SHARDTOOL_PASSWORD": "root",
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    end = time.monotonic() + 30
    while receipts(node.path) != ["00002.json"]:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "no receipt was written"
        time.sleep(0.01)
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_an_interrupted_run_keeps_the_finished_shards_receipts(
    number: signal.Signals, tmp_path: Path, shardtool: Run
) -> None:
    with hanging(tmp_path) as (node, url, faults, scratch):
        process = begun(node, url, scratch)
        process.send_signal(number)
        assert process.wait(30) == (-number if number == signal.SIGKILL else 130)
        if number != signal.SIGKILL:
            stdout, stderr = process.communicate()
            assert stdout == ""
            assert re.fullmatch("shardtool: interrupted; 1 of 2 shards [^\n]*\n", stderr), stderr
            assert list(scratch.iterdir()) == []
        assert receipts(node.path) == ["00002.json"]
        faults.hang = 0
        env: dict[str, str | None] = {"SHARDTOOL_PASSWORD": "root", "TMPDIR": str(scratch)}
        shards = verify(shardtool, node.path, "--api", url, env=env)
        assert list(scratch.iterdir()) == []  # nor anything of the killed run, now
    assert verdicts(shards) == {"00001": "proven", "00002": "proven"}
    assert {name for name, shard in shards.items() if shard["from_receipt"]} == {"00002"}


def test_a_finished_run_leaves_nothing_in_tmpdir(
    proven: Node, shardtool: Run, tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    for words in (["--list"], ["--json"]):
        shardtool("--data", proven.path, "verify", *words, env={"TMPDIR": str(scratch)})
        assert list(scratch.iterdir()) == []


# -- what can't be read --


def corrupt(file: Path) -> None:
    """Turn one byte in the middle of a file."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)


def one(shard: Path, pattern: str) -> Path:
    """Return the one file of a shard that a pattern matches."""
    (file,) = shard.glob(pattern)
    return file


def linked(path: Path, elsewhere: Path) -> None:
    """Move a file or directory elsewhere and leave a link to it."""
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def replaced(shard: Path) -> None:
    """Put a file in the place of a directory."""
    shutil.rmtree(shard)
    shard.touch()


def fifo(file: Path) -> None:
    """Put a FIFO in the place of a file."""
    file.unlink()
    os.mkfifo(file)


OLD_DAMAGE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a table is corrupt": ("000005.ldb", lambda shard: corrupt(shard / "000005.ldb")),
    "a table is cut short": ("000005.ldb", lambda shard: os.truncate(shard / "000005.ldb", 2000)),
    "a table is empty": ("000005.ldb", lambda shard: os.truncate(shard / "000005.ldb", 0)),
    "a table is gone": ("000005", lambda shard: (shard / "000005.ldb").unlink()),
    "the MANIFEST is gone": ("MANIFEST-", lambda shard: one(shard, "MANIFEST-*").unlink()),
    "the MANIFEST is corrupt": ("", lambda shard: corrupt(one(shard, "MANIFEST-*"))),
    "CURRENT is garbage": ("CURRENT", lambda shard: (shard / "CURRENT").write_bytes(b"\0" * 16)),
    "the log is corrupt": (
        ".log",
        lambda shard: one(shard, "*.log").write_bytes(b"\x07" * 7 + b"garbage" * 9000),
    ),
}


@pytest.mark.parametrize("damage", OLD_DAMAGE)
def test_a_damaged_old_shard_is_unreadable_and_hides_no_other(
    damage: str, capture: Capture, shardtool: Run
) -> None:
    data = capture("migrated-08")
    for path in (data / "db/shard_db").iterdir():
        if path.name not in ("00002", "00003", "00012"):
            shutil.rmtree(path)
    file, harm = OLD_DAMAGE[damage]
    shard = data / "db/shard_db/00002"
    harm(shard)
    done = shardtool("--data", data, "verify", "--json")
    shards = {one["id"]: one for one in document(done)["shards"]}
    assert done.returncode == 3
    assert verdicts(shards) == {"00002": "unreadable", "00003": "proven", "00012": "proven"}
    assert shards["00002"]["reasons"][0] == "engine-unreadable"
    assert f"{shard}" in shards["00002"]["details"][0]
    assert file in shards["00002"]["details"][0]
    assert receipts(data) == ["00003.json", "00012.json"]


NEW_DAMAGE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "its log is corrupt": ("", lambda shard: corrupt(shard / "000003.log")),
    "the MANIFEST is gone": ("MANIFEST-", lambda shard: one(shard, "MANIFEST-*").unlink()),
    "CURRENT is gone": ("CURRENT", lambda shard: (shard / "CURRENT").unlink()),
    "its engine is unknown": ("", lambda shard: (shard / "type").write_bytes(b"sled")),
    "its type ends in a newline": ("", lambda shard: (shard / "type").write_bytes(b"leveldb\n")),
    "its engine is another": ("", lambda shard: (shard / "type").write_bytes(b"lmdb")),
    "a file is a link": (
        "000003.log",
        lambda shard: linked(shard / "000003.log", shard.parent / "log"),
    ),
    "it is a link": ("", lambda shard: linked(shard, shard.parents[1] / "x")),
    "it is a file": ("", replaced),
}


@pytest.mark.parametrize("damage", NEW_DAMAGE)
def test_a_damaged_new_shard_makes_those_unreadable_that_need_it(
    damage: str, tmp_path: Path, shardtool: Run
) -> None:
    node = Node(tmp_path / "data", version="0.8")
    for number in (1, 50):  # a year apart: no new shard has values of both
        node.old_shard(number, points=10)
        node.migrate(number)
    file, harm = NEW_DAMAGE[damage]
    new = new_of(node, 1).path
    harm(new)
    done = shardtool("--data", node.path, "verify", "--json")
    shards = {one["id"]: one for one in document(done)["shards"]}
    assert done.returncode == 3
    assert verdicts(shards) == {"00001": "unreadable", "00050": "proven"}
    assert shards["00001"]["reasons"] == ["engine-unreadable"]
    (detail,) = shards["00001"]["details"]
    assert str(new) in detail
    assert file in detail


def test_a_new_shard_that_is_gone_has_lost_its_values(proven: Node, shardtool: Run) -> None:
    shutil.rmtree(new_of(proven, 1).path)
    shards = verify(shardtool, proven.path)
    assert shards["00001"]["verdict"] == "incomplete"
    assert shards["00001"]["missing"] > 0


def test_a_directory_of_a_shard_that_raft_does_not_know_is_no_storage(
    proven: Node, shardtool: Run
) -> None:
    """0.8 answers nothing from it: what is only there is lost (FORMATS.md, phantom shards)."""
    new = new_of(proven, 1).path
    new.rename(new.with_name("00099"))
    assert verify(shardtool, proven.path)["00001"]["verdict"] == "incomplete"


RAFT_DAMAGE: dict[str, tuple[str, Callable[[Node], object]]] = {
    "garbage in the middle of the log": (
        "raft/log: at offset ",
        lambda node: splice(node.raft / "log", b"garbage!garbage!"),
    ),
    "no raft directory": ("raft/log: ", lambda node: shutil.rmtree(node.raft)),
    "no log": ("raft/log: ", lambda node: (node.raft / "log").unlink()),
    "an empty log": ("raft/log: ", lambda node: os.truncate(node.raft / "log", 0)),
    "a log that is a link": (
        "raft/log: ",
        lambda node: linked(node.raft / "log", node.raft / "x"),
    ),
    "a log that is a FIFO": (
        "raft/log: ",
        lambda node: fifo(node.raft / "log"),
    ),
    "a snapshot's gob cut short": (".ss: ", lambda node: cut_gob(node.compact_raft(keep=2))),
    "a snapshot with a wrong checksum": (".ss: ", lambda node: corrupt(node.compact_raft(keep=2))),
    "a gap between snapshot and log": (
        "raft/log: ",
        lambda node: node.compact_raft(keep=2).unlink(),
    ),
}


def splice(file: Path, garbage: bytes) -> None:
    """Put garbage between two entries in the middle of a raft log."""
    content = file.read_bytes()
    heads = [match.start() for match in re.finditer(rb"[ 0-9a-f]{7}[0-9a-f]\n\x08", content)]
    at = heads[len(heads) // 2]
    file.write_bytes(content[:at] + garbage + content[at:])


def cut_gob(snapshot: Path) -> None:
    """Cut a snapshot's gob short, under a checksum that is right."""
    document = json.loads(snapshot.read_bytes()[9:])
    state = base64.b64decode(document["state"])
    document["state"] = base64.b64encode(state[: len(state) // 2]).decode()
    body = json.dumps(document).encode()
    snapshot.write_bytes(b"%08x\n" % zlib.crc32(body) + body)


@pytest.mark.parametrize("damage", RAFT_DAMAGE)
def test_without_a_sound_catalogue_every_shard_is_unreadable(
    damage: str, proven: Node, shardtool: Run
) -> None:
    named, harm = RAFT_DAMAGE[damage]
    harm(proven)
    done = shardtool("--data", proven.path, "verify", "--json")
    shards = {one["id"]: one for one in document(done)["shards"]}
    assert done.returncode == 3
    assert done.stderr == ""
    assert set(verdicts(shards).values()) == {"unreadable"}
    for shard in shards.values():
        assert shard["reasons"] == ["catalogue-unreadable"]
        assert str(proven.raft) in shard["details"][0]
        assert named in shard["details"][0], shard["details"]
    assert receipts(proven.path) == []
    assert shardtool("--data", proven.path, "prune", "--yes").returncode == 3
    assert sorted(os.listdir(proven.shard_db)) == ["00001", "00002"]


def test_a_torn_tail_of_the_raft_log_is_what_a_power_cut_leaves(
    proven: Node, shardtool: Run
) -> None:
    with (proven.raft / "log").open("ab") as log:
        log.write(b"      90\n\x08\x63torn")
    assert set(verdicts(verify(shardtool, proven.path)).values()) == {"proven"}


@pytest.mark.parametrize("by", ["0.7", "0.8"])
def test_a_compacted_raft_gives_the_same(by: Any, proven: Node, shardtool: Run) -> None:
    proven.compact_raft(keep=3, by=by)
    assert set(verdicts(verify(shardtool, proven.path)).values()) == {"proven"}


# -- rights and room --


@pytest.fixture
def public(public_path: Path) -> Node:
    """A node with one proven shard, which other users can reach."""
    if os.geteuid() != 0:
        pytest.skip("only root may become another user")
    node = Node(public_path / "data", version="0.8")
    node.old_shard(1, points=10)
    node.migrate(1)
    for directory in (node.raft, node.raft / "snapshot"):
        directory.chmod(0o755)
    for file in (node.raft / "log", node.raft / "name"):
        file.chmod(0o644)
    for directory in (node.path, node.db, node.shard_db, node.shard_db_v2):
        directory.chmod(0o755)
    for shard in (*node.shard_db.iterdir(), *node.shard_db_v2.iterdir()):
        shard.chmod(0o755)
    return node


def as_nobody(unprivileged: Unprivileged, data: Path) -> subprocess.CompletedProcess[str]:
    """Run `verify --json` as another user, within this process's Python: its own may be out of
    that user's reach."""
    codecs = ("encodings.ascii", "encodings.raw_unicode_escape")
    for module in ("shardtool.cli.verify", "rocksdict", "lmdb", "re2", *codecs):
        importlib.import_module(module)

    def run() -> tuple[int, str, str]:
        stdout, stderr = io.StringIO(), io.StringIO()
        sys.argv = ["shardtool", "--data", str(data), "verify", "--json"]
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            code = main()
        return code, stdout.getvalue(), stderr.getvalue()

    code, stdout, stderr = unprivileged(run)
    return subprocess.CompletedProcess([], code, stdout, stderr)


def test_where_receipts_cant_be_kept_the_result_is_the_same_with_a_warning(
    public: Node, unprivileged: Unprivileged
) -> None:
    done = as_nobody(unprivileged, public.path)
    assert verdicts({s["id"]: s for s in document(done)["shards"]}) == {"00001": "proven"}
    line = one_line(done, 0)
    assert "proofs/00001.json: expected to write a receipt" in line
    assert "ermission denied" in line
    assert not (public.db / ".shardtool").exists()


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("db/shard_db/00001/000003.log", "engine-unreadable"),
        ("db/shard_db/00001", "unreadable"),
        ("raft/log", "catalogue-unreadable"),
        ("raft", "catalogue-unreadable"),
    ],
)
def test_without_the_rights_to_read_a_shard_is_unreadable(
    place: str, reason: str, public: Node, unprivileged: Unprivileged
) -> None:
    (public.path / place).chmod(0)
    done = as_nobody(unprivileged, public.path)
    (shard,) = document(done)["shards"]
    assert done.returncode == 3
    assert shard["verdict"] == "unreadable"
    assert shard["reasons"][0] == reason
    assert "ermission denied" in shard["details"][0]


def test_without_the_rights_to_read_a_new_shard_the_old_one_is_unreadable(
    public: Node, unprivileged: Unprivileged
) -> None:
    new = new_of(public, 1).path
    new.chmod(0)
    (shard,) = document(as_nobody(unprivileged, public.path))["shards"]
    assert (shard["verdict"], shard["reasons"]) == ("unreadable", ["engine-unreadable"])
    assert str(new) in shard["details"][0]


def test_a_tmpdir_without_room_for_links_is_one_line_and_1(
    proven: Node, shardtool: Run, tmp_path: Path, mount: Mount
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    mount(scratch)
    options = "remount,nr_inodes=6"
    subprocess.run(["mount", "-o", options, str(scratch)], check=True, capture_output=True)
    done = shardtool("--data", proven.path, "verify", "--json", env={"TMPDIR": str(scratch)})
    line = one_line(done, 1)
    assert str(scratch) in line
    assert "No space left" in line
    assert done.stdout == ""
    assert list(scratch.iterdir()) == []
    assert receipts(proven.path) == []


def test_a_list_that_does_not_fit_tmpdir_is_one_line_and_1(
    tmp_path: Path, shardtool: Run, mount: Mount
) -> None:
    node = Node(tmp_path / "data", version="0.8")
    node.old_shard(1, points=3000)
    node.mark(1)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    mount(scratch, size="64k")
    done = shardtool("--data", node.path, "verify", "--list", env={"TMPDIR": str(scratch)})
    line = one_line(done, 1)
    assert "No space left" in line
    assert list(scratch.iterdir()) == []


def test_a_tmpdir_on_another_file_system_does(
    capture: Capture, shardtool: Run, tmp_path: Path, mount: Mount
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    mount(scratch, size="4m")
    data = capture("migrated-08")
    agrees(verify(shardtool, data, env={"TMPDIR": str(scratch)}), "migrated-08")


# -- odd old shards --


def a_link(node: Node) -> None:
    """Make shard 1 a link to a directory elsewhere."""
    shard = node.shard_db / "00001"
    shard.rename(node.path / "elsewhere")
    shard.symlink_to(node.path / "elsewhere")


def a_file(node: Node) -> None:
    """Make shard 1 a file."""
    shutil.rmtree(node.shard_db / "00001")
    (node.shard_db / "00001").write_bytes(b"file")


def empty(node: Node) -> None:
    """Make shard 1 an empty directory."""
    shutil.rmtree(node.shard_db / "00001")
    (node.shard_db / "00001").mkdir()


def foreign(node: Node) -> None:
    """Put a file into shard 1 that no LevelDB writes."""
    (node.shard_db / "00001/notes.txt").touch()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (a_link, "symlink"),
        (a_file, "not-a-shard"),
        (empty, "no-marker"),
        (foreign, "foreign-files"),
    ],
)
def test_what_is_no_sound_shard_is_suspect_and_hides_no_other(
    make: Callable[[Node], None], reason: str, proven: Node, shardtool: Run
) -> None:
    make(proven)
    done = shardtool("--data", proven.path, "verify", "--json")
    shards = {one["id"]: one for one in document(done)["shards"]}
    assert done.returncode == 3
    assert verdicts(shards) == {"00001": "suspect", "00002": "proven"}
    assert reason in shards["00001"]["reasons"]
    # Nor does prune take it, proof or no proof.
    assert shardtool("--data", proven.path, "prune", "--yes").returncode == 3
    assert sorted(os.listdir(proven.shard_db)) == ["00001"]


def test_a_shard_that_another_process_has_locked_is_busy(
    proven: Node, shardtool: Run, hold: Hold
) -> None:
    pid = hold(proven.shard_db / "00001/LOCK", "lock")
    done = shardtool("--data", proven.path, "verify", "--json")
    shards = {one["id"]: one for one in document(done)["shards"]}
    assert done.returncode == 3
    assert verdicts(shards) == {"00001": "busy", "00002": "proven"}
    assert shards["00001"]["reasons"] == ["locked", "open-files"]
    assert str(pid) in shards["00001"]["details"][0]
    assert receipts(proven.path) == ["00002.json"]


def test_a_new_shard_that_a_server_has_open_is_read_beside_it(
    proven: Node, shardtool: Run, hold: Hold
) -> None:
    hold(new_of(proven, 1).path / "LOCK", "lock")
    assert set(verdicts(verify(shardtool, proven.path)).values()) == {"proven"}


def test_an_lmdb_that_a_server_has_open_makes_its_old_shard_busy(
    tmp_path: Path, shardtool: Run, hold: Hold
) -> None:
    node = Node(tmp_path / "data", version="0.8", default_engine="lmdb", lmdb_map_size=1 << 20)
    node.old_shard(1, points=10)
    node.migrate(1)
    assert verdicts(verify(shardtool, node.path, "--again")) == {"00001": "proven"}
    hold(new_of(node, 1).path / "lock.mdb", "lock")
    shards = verify(shardtool, node.path, "--again")
    assert verdicts(shards) == {"00001": "busy"}
    assert shards["00001"]["reasons"] == ["in-use"]


# -- what came after the marker --


@pytest.mark.parametrize("migrated", [True, False], ids=["found", "lost"])
def test_values_written_after_the_marker_are_looked_for_like_all_others(
    migrated: bool, proven: Node, shardtool: Run
) -> None:
    row = Row("test", "cpu", "n", microseconds(proven.old[1].start) + 7, 70_001, 7)
    proven.write_old(1, [row])
    if migrated:
        proven.write_new([row])
    before = document(shardtool("--data", proven.path, "status", "--json"))["old_shards"][0]
    assert (before["verdict"], before["reasons"]) == ("suspect", ["written-after-marker"])
    shards = verify(shardtool, proven.path)
    assert shards["00001"]["missing"] == (0 if migrated else 1)
    after = document(shardtool("--data", proven.path, "status", "--json"))["old_shards"][0]
    assert after["verdict"] == shards["00001"]["verdict"]
    wanted = ("proven", []) if migrated else ("incomplete", ["values-missing"])
    assert (after["verdict"], after["reasons"]) == wanted


def test_status_counts_what_is_proven_and_incomplete(capture: Capture, shardtool: Run) -> None:
    data = capture("migrated-08")
    verify(shardtool, data)
    done = shardtool("--data", data, "status", "--json")
    status = document(done)
    assert done.returncode == 0
    counts = {key: status["totals"][key] for key in ("marked", "proven", "incomplete")}
    assert counts == {"marked": 0, "proven": 13, "incomplete": 14}
    proven = [shard for shard in status["old_shards"] if shard["verdict"] == "proven"]
    reclaimable = sum(shard["reclaimable_bytes"] for shard in proven)
    assert status["totals"]["reclaimable_bytes"] == reclaimable > 0
    others = [shard for shard in status["old_shards"] if shard["verdict"] != "proven"]
    assert {shard["reclaimable_bytes"] for shard in others} == {0}


def test_a_value_that_is_found_elsewhere_than_its_time_says_is_missing(
    tmp_path: Path, shardtool: Run
) -> None:
    """0.8 looks for a value in the shard of its time only."""
    node = Node(tmp_path / "data", version="0.8")
    node.old_shard(1, points=10)
    node.migrate(1)
    node.old_shard(50, points=10)
    node.migrate(50)
    new, other = new_of(node, 1), new_of(node, 50)
    from fixtures import pairs

    moved = [pair for pair in pairs(new.path) if len(pair[1])]
    assert other.store is not None
    other.store.write(moved)
    rewrite(new.path, lambda key, value: not value)
    assert verify(shardtool, node.path)["00001"]["missing"] > 0


def test_columns_of_one_name_in_other_shards_are_told_apart(tmp_path: Path, shardtool: Run) -> None:
    """Column ids are per old shard: the id of one shard means nothing in the next."""
    node = Node(tmp_path / "data", version="0.8")
    node.old_shard(1, rows=[Row("a", "s", "v", AT, 10_001, 1)])
    node.old_shard(2, rows=[Row("b", "s", "v", AT, 10_001, 1)])
    node.migrate(1)
    node.mark(2)
    shards = verify(shardtool, node.path)
    assert verdicts(shards) == {"00001": "proven", "00002": "incomplete"}
    assert Column("b", "s", "v") not in node.ids
