"""What export writes, taken by a real InfluxDB of the 1.x line (Debian's package influxdb).

Its parser is the one that line protocol is defined by. Not part of CI: where influxd is neither on
the PATH nor named by SHARDTOOL_INFLUXD, these are skipped; the same is proven against another
parser in tests/unit/test_export_line.py.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shardtool.export.left import Left
from shardtool.export.line import Line, Sequences, Style
from shardtool.export.values import Value
from tests.unit.test_export_line import AWKWARD, NAMES, Points, window_of

# The tests of every machine are those with the parser from PyPI (test_export_line.py). These here
# ask a whole database of today besides, and Debian's package of it is nothing that CI installs.
INFLUXD = os.environ.get("SHARDTOOL_INFLUXD") or shutil.which("influxd")
pytestmark = pytest.mark.skipif(not INFLUXD, reason="no influxd of 1.x here (Debian's influxdb)")

_CONFIG = """
reporting-disabled = true
bind-address = "127.0.0.1:{rpc}"
[meta]
dir = "{path}/meta"
[data]
dir = "{path}/data"
wal-dir = "{path}/wal"
query-log-enabled = false
[http]
bind-address = "127.0.0.1:{http}"
log-enabled = false
[monitor]
store-enabled = false
"""
# A float of JSON tells no type apart, and 1.x sends integers beyond 2^53 exactly.
_VALUES = st.one_of(
    AWKWARD,
    st.text(max_size=20),
    st.booleans(),
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.floats(allow_nan=False, allow_infinity=False),
)
_TYPES = {str: "string", bool: "boolean", int: "integer", float: "float"}
_numbers = itertools.count()


class Influx:
    """A running server."""

    def __init__(self, url: str) -> None:
        self._url = url

    def query(self, query: str, database: str = "") -> Any:
        words = urllib.parse.urlencode({"q": query, "db": database, "epoch": "ns"})
        with urllib.request.urlopen(f"{self._url}/query", words.encode()) as answer:
            (result,) = json.load(answer)["results"]
        assert "error" not in result, result
        return result.get("series", [])

    def write(self, database: str, lines: bytes) -> None:
        address = f"{self._url}/write?{urllib.parse.urlencode({'db': database})}"
        try:
            urllib.request.urlopen(address, lines).close()
        except urllib.error.HTTPError as error:
            pytest.fail(f"{error.read().decode()} for {lines!r}")


@pytest.fixture(scope="module")
def influx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Influx]:
    path = tmp_path_factory.mktemp("influx")
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        ports = {"http": one.getsockname()[1], "rpc": other.getsockname()[1]}
    (path / "conf").write_text(_CONFIG.format(path=path, **ports))
    command = [str(INFLUXD), "-config", str(path / "conf")]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{ports['http']}"
        for _ in range(200):
            try:
                urllib.request.urlopen(f"{url}/ping").close()
                break
            except OSError:
                time.sleep(0.1)
        yield Influx(url)
    finally:
        server.kill()
        server.wait()


def quoted(name: str) -> str:
    """Return a name as InfluxQL writes it."""
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


@settings(max_examples=int(os.environ.get("SHARDTOOL_INFLUXD_EXAMPLES", "60")))
@given(
    series=NAMES,
    points=st.dictionaries(
        st.tuples(st.integers(-3, 3), st.integers(1, 3)),
        st.dictionaries(NAMES, st.integers(0, 99), min_size=1, max_size=4),
        min_size=1,
        max_size=4,
    ),
    kinds=st.dictionaries(NAMES, _VALUES, max_size=4),
    sequence=st.sampled_from(["auto", "tag"]),
)
@example("a", {(1, 1): {"v": 1}}, {"s": 'a\0b\r\x1b\\" \\'}, "auto")
def test_the_server_has_each_value_that_was_not_left(
    influx: Influx,
    series: str,
    points: dict[tuple[int, int], dict[str, int]],
    kinds: dict[str, Value],
    sequence: Sequences,
) -> None:
    # A field has one type there: a column of each type, and others of integers.
    every: Points = {key: dict(values) for key, values in points.items()}
    for values in every.values():
        values.update({f"t{n}{name}": v for n, (name, v) in enumerate(kinds.items())})
    left = Left("00001")
    window = window_of(series, every)
    style = Style(sequence, line_feeds=True)
    content, _, values_written = Line(left, style).written(window)
    gone = {
        (one["time_us"], one["sequence_number"], one["column"])
        for one in map(json.loads, left.take().splitlines())
    }
    expected = {
        (us, number, name): value
        for (us, number), values in every.items()
        for name, value in values.items()
        if (us, number, name) not in gone
    }
    assert len(expected) == values_written
    if not content:
        return
    database = f"d{next(_numbers)}"
    influx.query(f"CREATE DATABASE {database}")
    influx.write(database, content)
    (names,) = influx.query("SHOW MEASUREMENTS", database)
    assert names["values"] == [[series]]
    (keys,) = influx.query(f"SHOW FIELD KEYS FROM {quoted(series)}", database)
    types = {_TYPES[type(value)] for value in expected.values()}
    assert {kind for _, kind in keys["values"]} == types
    found: dict[tuple[int, int, str], Value] = {}
    for name, kind in keys["values"]:
        rows = influx.query(
            f"SELECT {quoted(name)} FROM {quoted(series)} GROUP BY sequence_number", database
        )
        for row in rows:
            tag = row["tags"]["sequence_number"]
            for time_ns, value in row["values"]:
                numbers = [n for us, n in every if us * 1000 == time_ns]
                number = int(tag) if tag else numbers[0]
                # Go writes a large float without an exponent, which Python takes for an integer.
                found[time_ns // 1000, number, name] = float(value) if kind == "float" else value
    influx.query(f"DROP DATABASE {database}")
    assert found == expected


def test_a_directory_of_then_goes_into_a_database_of_today(
    influx: Influx, capture: Any, shardtool: Any, tmp_path: Path
) -> None:
    file = tmp_path / "out.lp"
    done = shardtool(
        *("--data", capture("original-07"), "export", "--database", "test", "--json"),
        *("--to", file, "--line-feeds"),
    )
    document = json.loads(done.stdout)
    influx.query("CREATE DATABASE test")
    influx.write("test", file.read_bytes())
    total = 0
    for (name,) in influx.query("SHOW MEASUREMENTS", "test")[0]["values"]:
        for row in influx.query(f"SELECT COUNT(*) FROM {quoted(name)}", "test"):
            total += sum(row["values"][0][1:])
    assert total == document["values"] > 17_000
    # Two series hold values of several types, which no field does.
    assert {"type"} <= {one["why"] for one in document["left"]}
