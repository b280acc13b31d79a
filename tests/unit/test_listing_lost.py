"""The list of lost values: a JSON line for each, whatever it is, and none is left out."""

from __future__ import annotations

import json
import math
import os
import struct
import tempfile
from pathlib import Path
from typing import Any

import pytest

from shardtool.influxdb.messages import stored
from shardtool.proof.columns import Name
from shardtool.proof.listing import Listing, iso_us
from shardtool.proof.prove import Lost

NAME = Name("test", "cpu", "idle")
MIB = 1 << 20
NULL = b"\x30\x01"


def lost(
    cause: str = "never-migrated",
    *,
    time_us: int = 1_400_000_000_000_001,
    value: bytes = b"",
    found: bytes | None = None,
) -> Lost:
    suffix = struct.pack(">QQ", time_us + (1 << 63), 10_001)
    return Lost(NAME, suffix, value or stored(1), found, cause)


@pytest.fixture
def listing() -> Listing:
    return Listing("00007")


def lines(listing: Listing) -> list[dict[str, Any]]:
    return [json.loads(line) for line in b"".join(listing.chunks()).splitlines()]


def test_a_line_tells_all_of_a_value(listing: Listing) -> None:
    listing.add(lost(value=stored("w\u00f6rd"), found=stored(2.5)))
    listing.add(lost())
    first, second = lines(listing)
    assert first == {
        "shard": "00007",
        "database": "test",
        "series": "cpu",
        "column": "idle",
        "time": "2014-05-13T16:53:20.000001Z",
        "time_us": 1_400_000_000_000_001,
        "sequence_number": 10_001,
        "type": "string",
        "value": "w\u00f6rd",
        "cause": "never-migrated",
        "found_type": "double",
        "found_value": 2.5,
    }
    assert not any(name.startswith("found") for name in second)


@pytest.mark.parametrize(
    ("value", "kind", "said"),
    [
        (stored("x"), "string", "x"),
        (stored(True), "bool", True),
        (stored(-(2**63)), "int64", -(2**63)),
        (stored(3.0), "double", 3.0),
        (stored(math.inf), "double", "inf"),
        (stored(-math.inf), "double", "-inf"),
        (stored(math.nan), "double", "nan"),
        (NULL, "null", None),
        (b"\xff\xff", "unreadable", "ffff"),
    ],
)
def test_each_type_has_a_word(listing: Listing, value: bytes, kind: str, said: object) -> None:
    listing.add(lost(value=value, found=value))
    (line,) = lines(listing)
    assert (line["type"], line["value"]) == (kind, said)
    assert (line["found_type"], line["found_value"]) == (kind, said)
    assert type(line["value"]) is type(said)


def test_the_cause_of_a_column_is_that_of_its_values_without_one(listing: Listing) -> None:
    listing.add(lost("", time_us=1))
    listing.add(lost("own", time_us=2))
    listing.add(lost("", time_us=3))
    listing.column_ends("first")
    listing.column_ends("of a column that lost nothing")
    listing.add(lost("", time_us=4))
    listing.column_ends("second")
    found = [(line["time_us"], line["cause"]) for line in lines(listing)]
    assert found == [(2, "own"), (1, "first"), (3, "first"), (4, "second")]


def test_the_list_can_be_had_twice(listing: Listing) -> None:
    listing.add(lost())
    assert lines(listing) == lines(listing)
    assert len(lines(listing)) == 1


def test_pieces_are_of_whole_lines(listing: Listing) -> None:
    for number in range(1000):
        listing.add(lost(time_us=number))
    pieces = list(listing.chunks())
    assert len(pieces) > 1
    assert all(piece.endswith(b"}\n") for piece in pieces)
    assert [line["time_us"] for line in lines(listing)] == list(range(1000))


def test_what_does_not_fit_memory_waits_in_tmpdir(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    listing = Listing("00007")
    for cause in ("x", ""):
        listing.add(lost(cause, value=stored("x" * MIB)))
    opened = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
    assert sum(path.startswith(str(tmp_path)) for path in opened) == 2
    listing.column_ends("y")
    assert [(line["cause"], len(line["value"])) for line in lines(listing)] == [
        ("x", MIB),
        ("y", MIB),
    ]


@pytest.mark.parametrize(
    ("time_us", "said"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (-1, "1969-12-31T23:59:59.999999Z"),
        (2**63 - 1, "9999-12-31T23:59:59.999999Z"),
        (-(2**63), "0001-01-01T00:00:00Z"),
    ],
)
def test_a_time_beyond_the_calendar_is_its_nearest_end(time_us: int, said: str) -> None:
    assert iso_us(time_us) == said
