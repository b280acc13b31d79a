"""Lost values become points that arrive as they were; what can't be sent is told, never rounded."""

from __future__ import annotations

import json
import math
import resource
import struct
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.encode import field_value
from shardtool.errors import ShardtoolError
from shardtool.proof.columns import Name
from shardtool.proof.prove import Lost
from shardtool.rescue.plan import Plan, Spools, make_plan, require_nothing_new
from shardtool.rescue.points import (
    WHY,
    Batch,
    Entry,
    Point,
    Run,
    Unsendable,
    batches_of,
    entries_of,
    json_of,
    points_of,
    trouble_with_identity,
    trouble_with_name,
)
from shardtool.rescue.send import Sender
from shardtool.rescue.spool import Spool, Value, columns_in, values_of

CPU = Name("test", "cpu", "v")
U64 = (1 << 64) - 1


def suffix(time_us: int, sequence: int = 10_001) -> bytes:
    """Return a key without its column."""
    return struct.pack(">QQ", time_us + (1 << 63), sequence)


def run(column: str, *times: int, value: Any = 1) -> Run:
    """Return the lost values of a column of cpu."""
    values = (Value(suffix(time), field_value(value), "name", False) for time in times)
    return Run(Name("test", "cpu", column), values)


# -- values --


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3, "3"),
        ((1 << 63) - 1, "9223372036854775807"),
        (-(1 << 63), "-9223372036854775808"),
        (3.0, "3.0"),
        (-0.0, "-0.0"),
        (1e22, "1e+22"),
        (5e-324, "5e-324"),
        (0.1, "0.1"),
        (True, "true"),
        (False, "false"),
        ("", '""'),
        ('"\\\n\x00é😀', r'"\"\\\n\u0000\u00e9\ud83d\ude00"'),
    ],
)
def test_a_value_is_written_so_that_it_arrives_as_its_type(value: Any, text: str) -> None:
    assert json_of(field_value(value)) == text


@pytest.mark.parametrize(
    ("stored", "why"),
    [
        (field_value(math.nan), "number"),
        (field_value(math.inf), "number"),
        (field_value(-math.inf), "number"),
        (b"\x0a\x01\xff", "bytes"),
        (b"\xff\xff", "unreadable"),
        (field_value(None), "unreadable"),
        (b"", "unreadable"),
        (b"\x28\x81\x00", "unreadable"),  # two bytes for a one: 0.8 would write other ones
        (b"\x28\x01\x20\x01", "unreadable"),  # a one and a true
    ],
)
def test_what_json_does_not_have_is_told_and_not_rounded(stored: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=f"^{why}$"):
        json_of(stored)
    assert why in WHY


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_double_comes_back_as_itself_and_never_as_an_integer(value: float) -> None:
    text = json_of(field_value(value))
    assert struct.pack(">d", json.loads(text)) == struct.pack(">d", value)
    assert isinstance(json.loads(text), float)


@pytest.mark.parametrize(
    ("time_us", "sequence", "why"),
    [
        (0, 1, ""),
        (-1, 0, ""),
        (1 << 53, 1 << 53, ""),
        ((1 << 53) + 1, 1, "time"),
        ((1 << 53) + 2, 1, ""),
        (1, 990_000_000_000_010_001, "sequence"),
        (1, 990_000_000_000_009_984, ""),
        (1, U64, "sequence"),
        (1, 1 << 63, "sequence"),
        (-62_135_596_800_000_000, 1, ""),
        (-62_135_596_800_000_001, 1, "time"),
        (253_402_300_800_000_000, 1, "time"),
    ],
)
def test_an_identity_that_a_float64_changes_can_not_be_sent(
    time_us: int, sequence: int, why: str
) -> None:
    assert trouble_with_identity(time_us, sequence) == why


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (CPU, ""),
        (Name("a~b", 'say "hi"\n', "~\\😀"), ""),
        (Name("test", "cpu", "time"), "name"),
        (Name("test", "cpu", "sequence_number"), "name"),
        (Name("", "", "#0100000000000000"), "name"),
        (Name("a/b", "cpu", "v"), "name"),
        (Name("a%b", "cpu", "v"), "name"),
        (Name("test", "", "v"), "name"),
        (Name("test", "cpu", ""), "name"),
        (Name("test", "c\udcff", "v"), "bytes"),
    ],
)
def test_a_name_that_no_request_can_hold_is_told(name: Name, why: str) -> None:
    assert trouble_with_name(name) == why


# -- points --


def test_columns_of_the_same_time_and_sequence_become_one_point() -> None:
    assert list(points_of([run("a", 1, 2), run("b", 2, 3, value="x")])) == [
        Point(1, 10_001, (("a", "1"),)),
        Point(2, 10_001, (("a", "1"), ("b", '"x"'))),
        Point(3, 10_001, (("b", '"x"'),)),
    ]


def test_of_a_point_what_can_be_sent_is_and_the_rest_is_told() -> None:
    found = list(points_of([run("a", 1), run("b", 1, value=math.nan), run("time", 1)]))
    assert found == [
        Unsendable(Name("test", "cpu", "b"), 1, 10_001, "number"),
        Unsendable(Name("test", "cpu", "time"), 1, 10_001, "name"),
        Point(1, 10_001, (("a", "1"),)),
    ]


VALUES = st.sampled_from([1, 2, "", "x", math.inf])
CELLS = st.dictionaries(
    st.tuples(st.integers(0, 6), st.integers(1, 2), st.sampled_from("abc")), st.integers(0, 9)
)


@given(CELLS, st.integers(1, 4), st.integers(1, 300))
def test_entries_hold_each_value_once_and_only_points_with_the_same_columns(
    cells: dict[tuple[int, int, str], int], most_points: int, most_bytes: int
) -> None:
    runs = [
        Run(
            Name("test", "cpu", column),
            iter(
                [
                    Value(suffix(time, sequence), field_value(value), "future", False)
                    for (time, sequence, name), value in sorted(cells.items())
                    if name == column
                ]
            ),
        )
        for column in "abc"
    ]
    points = [found for found in points_of(runs) if isinstance(found, Point)]
    assert len(points) == len({key[:2] for key in cells})
    found: dict[tuple[int, int, str], int] = {}
    for entry in entries_of("test", "cpu", points, most_points=most_points, most_bytes=most_bytes):
        assert 0 < len(entry.points) <= most_points
        body = json.loads(entry.json)
        assert body["columns"] == ["time", "sequence_number", *entry.columns]
        for time, sequence, *values in body["points"]:
            assert None not in values  # a null deletes
            for column, value in zip(entry.columns, values, strict=True):
                assert (time, sequence, column) not in found
                found[time, sequence, column] = value
    assert found == cells


SERIES = st.tuples(st.sampled_from("de"), st.sampled_from("xyz"), st.integers(1, 4))


@given(st.lists(SERIES), st.integers(4, 9), st.integers(1, 400))
def test_batches_hold_each_entry_once_and_never_two_of_one_series(
    series: list[tuple[str, str, int]], most_points: int, most_bytes: int
) -> None:
    entries = [
        Entry(database, name, ("v",), tuple(Point(time, 1, (("v", "1"),)) for time in range(many)))
        for database, name, many in series
    ]
    batches = list(batches_of(entries, most_points=most_points, most_bytes=most_bytes))
    found = [entry for batch in batches for entry in batch.entries]
    assert sorted(found, key=repr) == sorted(entries, key=repr)
    for batch in batches:
        assert {entry.database for entry in batch.entries} == {batch.database}
        assert len({entry.series for entry in batch.entries}) == len(batch.entries)
        assert batch.points <= most_points
        assert len(batch.entries) == 1 or sum(len(e.json) for e in batch.entries) <= most_bytes
        assert json.loads(batch.body()) == [json.loads(entry.json) for entry in batch.entries]


@given(
    st.lists(st.dictionaries(st.tuples(st.integers(0, 4), st.sampled_from("ab")), VALUES)),
)
def test_of_several_shards_the_first_counts_and_what_others_have_else_is_told(
    shards: list[dict[tuple[int, str], Any]],
) -> None:
    runs = [
        Run(
            Name("test", "cpu", column),
            iter(
                [
                    Value(suffix(time), field_value(value), "name", False)
                    for (time, name), value in sorted(cells.items())
                    if name == column
                ]
            ),
        )
        for cells in shards
        for column in "ab"
    ]
    first: dict[tuple[int, str], Any] = {}
    for cells in reversed(shards):
        first |= cells
    unsent = {key for key, value in first.items() if value is math.inf}
    found = list(points_of(runs))
    points = [one for one in found if isinstance(one, Point)]
    told = [one for one in found if isinstance(one, Unsendable)]
    sent = {(p.time_us, column): text for p in points for column, text in p.values}
    assert sent == {
        key: json_of(field_value(value)) for key, value in first.items() if key not in unsent
    }
    others = [
        (key, "contradicted") for cells in shards for key, v in cells.items() if v != first[key]
    ]
    same = [(key, "number") for cells in shards for key, v in cells.items() if v is math.inf]
    assert sorted(((one.time_us, one.name.column), one.why) for one in told) == sorted(
        [*others, *(one for one in same if one[0] in unsent)]
    )


# -- sending --


class Picky:
    """A server that refuses whole requests with these (time, column) in them."""

    def __init__(self, refused: Iterable[tuple[int, str]]) -> None:
        self.refused = set(refused)
        self.taken: set[tuple[int, str]] = set()
        self.requests = 0

    def write_points(self, database: str, body: bytes) -> str:
        self.requests += 1
        cells = {
            (p[0], column)
            for entry in json.loads(body)
            for p in entry["points"]
            for column in entry["columns"][2:]
        }
        if cells & self.refused:
            return "no"
        self.taken |= cells
        return ""


def parts_of(points: tuple[Point, ...]) -> list[tuple[str, tuple[Point, ...]]]:
    """Return points as those of three series."""
    return [("x", points[:7]), ("y", points[7:8]), ("z", points[8:])]


@given(st.sets(st.tuples(st.integers(0, 20), st.sampled_from("ab"))))
def test_what_is_refused_is_found_to_the_value_and_all_the_rest_goes_through(
    refused: set[tuple[int, str]],
) -> None:
    points = tuple(Point(time, 1, (("a", "1"), ("b", "2"))) for time in range(21))
    server = Picky(refused)
    sender = Sender(server, 0, lambda entry: None)
    halves = [Entry("test", name, ("a", "b"), part) for name, part in parts_of(points)]
    found = list(sender.send(Batch(tuple(halves))))
    assert {(one.value.time_us, one.value.name.column) for one in found} == refused
    assert server.taken == {(time, c) for time in range(21) for c in "ab"} - refused
    assert sender.sent == len(server.taken)
    assert server.requests <= 1 + len(refused) * 2 * 8


class Unwilling(Picky):
    """A server that refuses some series, whatever of them is asked."""

    def __init__(self, *series: str) -> None:
        super().__init__(())
        self.series = series

    def write_points(self, database: str, body: bytes) -> str:
        if any(entry["name"] in self.series for entry in json.loads(body)):
            self.requests += 1
            return "not that one"
        return super().write_points(database, body)


def entry(series: str, many: int) -> Entry:
    return Entry("test", series, ("v",), tuple(Point(n, 1, (("v", "1"),)) for n in range(many)))


def test_a_series_that_is_refused_and_refused_keeps_no_other_from_going_through() -> None:
    server = Unwilling("x")
    sender = Sender(server, 0, lambda batch: None)
    found = []
    for part in (entry("a", 5), entry("x", 1000), entry("x", 1000), entry("y", 7)):
        found += list(sender.send(Batch((part,))))
    assert len(found) == 2000
    assert {(one.value.name.series, one.text) for one in found} == {("x", "not that one")}
    assert sender.sent == 12
    assert server.requests < 1000


def test_values_that_are_refused_of_one_series_are_not_held_against_another() -> None:
    server = Picky({(time, "v") for time in range(1000)})
    sender = Sender(server, 0, lambda batch: None)
    points = tuple(Point(time, 1, (("v", "1"),)) for time in range(801, 1199))
    bad = tuple(Point(time, 1, (("v", "1"),)) for time in range(199))
    found = list(sender.send(Batch((Entry("test", "a", ("v",), bad),))))
    found += list(sender.send(Batch((Entry("test", "b", ("v",), points[198:]),))))
    assert len(found) == 199 + 1
    assert server.taken == {(time, "v") for time in range(1000, 1199)}


def test_behind_very_many_that_are_refused_of_a_series_the_others_still_go() -> None:
    server = Picky({(time, "v") for time in range(500)})
    sender = Sender(server, 0, lambda batch: None)
    points = tuple(Point(time, 1, (("v", "1"),)) for time in range(2000))
    found = list(sender.send(Batch((Entry("test", "a", ("v",), points),))))
    assert 500 <= len(found) < 500 + 64
    assert len(server.taken) + len(found) == 2000
    assert server.requests < 500


def test_a_server_that_refuses_series_after_series_is_not_asked_for_ever() -> None:
    server = Unwilling("a", "b", "c", "d")
    sender = Sender(server, 0, lambda batch: None)
    with pytest.raises(ShardtoolError, match=r"values of 3 series, the last time with 'not that"):
        for name in "abcd":
            list(sender.send(Batch((entry(name, 1000),))))
    assert server.requests < 2000


# -- plans --


def spooled(directory: Path, **shards: dict[int, int]) -> Spools:
    """Return spools of shards s1, s2...: time to value, of one series."""
    spools = Spools(directory)
    for shard, values in shards.items():
        spool = Spool(shard, directory)
        for time, value in sorted(values.items()):
            spool.add(Lost(CPU, suffix(time), field_value(value), None, "name", CPU))
        spool.column_ends("unknown")
        for piece in spool.chunks():
            spools.add(shard[1:], piece)
    return spools


def planned(spools: Spools) -> Plan:
    return make_plan(spools, known=["test"], create=False, also=())


def sent_of(spools: Spools) -> dict[int, str]:
    """Return what a plan's points hold, by time."""
    (series,) = planned(spools).series
    points = [one for one in spools.points(series, ()) if isinstance(one, Point)]
    return {point.time_us: point.values[0][1] for point in points}


def test_a_shard_is_later_by_its_number(tmp_path: Path) -> None:
    assert sent_of(spooled(tmp_path, s99999={1: 1}, s100000={1: 2})) == {1: "2"}


def test_what_is_not_to_be_sent_keeps_an_older_content_out(tmp_path: Path) -> None:
    spools = spooled(tmp_path, s00001={1: 1, 2: 5, 3: 1}, s00002={1: 2, 2: 5})
    spools.sent = {"00001"}
    assert sent_of(spools) == {2: "5", 3: "1"}
    plan = planned(spools)
    assert (plan.total, plan.left, plan.shards) == (2, {"contradicted": 1}, {"00001"})


def test_a_value_in_two_shards_is_counted_once_and_its_copy_apart(tmp_path: Path) -> None:
    plan = planned(spooled(tmp_path, s00001={1: 1, 2: 1}, s00002={1: 1}))
    assert (plan.total, plan.copies.total(), plan.left) == (2, 1, {})


def test_a_plan_with_other_points_is_not_the_one_that_was_shown(tmp_path: Path) -> None:
    plans = []
    for number, values in enumerate([{1: 1, 2: 1}, {1: 1, 3: 1}, {1: 1, 2: 2}]):
        (tmp_path / str(number)).mkdir()
        plans.append(planned(spooled(tmp_path / str(number), s00001=values)))
    require_nothing_new(plans[0], plans[0])
    require_nothing_new(plans[0], Plan())
    for other in plans[1:]:
        with pytest.raises(ShardtoolError, match="other values are lost now"):
            require_nothing_new(plans[0], other)


def test_what_another_server_may_have_and_cant_be_asked_for_is_not_sent(tmp_path: Path) -> None:
    spools, spool = Spools(tmp_path), Spool("00001", tmp_path)
    for time in (1, 2):
        is_unanswered = time == 2
        value = Lost(CPU, suffix(time), field_value(1), None, "", CPU, is_unanswered=is_unanswered)
        spool.add(value)
    spool.column_ends("not-migrated")
    for piece in spool.chunks():
        spools.add("00001", piece)
    assert sent_of(spools) == {1: "1"}
    assert planned(spools).left == {"unanswered": 1}


# -- the spool --

LOST = st.lists(
    st.tuples(
        st.sampled_from(["", "name", "future"]),
        st.binary(min_size=16, max_size=16),
        st.binary(max_size=9) | st.just(b"x" * 200_000),
        st.none() | st.binary(max_size=3),
    ),
    max_size=5,
)
COLUMNS = st.lists(st.tuples(st.text(max_size=4), LOST.filter(bool)), max_size=4)


@given(COLUMNS, st.sampled_from(["unknown", "not-migrated"]))
def test_a_spool_gives_back_what_was_put_in(
    columns: list[tuple[str, list[Any]]], rest: str
) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        spool = Spool("00001", Path(scratch))
        for number, (series, lost) in enumerate(columns):
            for cause, key, stored, other in lost:
                name = Name("d\udcff", series, str(number))
                spool.add(Lost(name, key, stored, other, cause, name))
            spool.column_ends(rest)
        path = Path(scratch, "spool")
        path.write_bytes(b"".join(spool.chunks()))
        found = list(columns_in(path))
        assert [(one.name.series, one.name.column) for one in found] == [
            (series, str(number)) for number, (series, _) in enumerate(columns)
        ]
        readers = [values_of(path, column) for column in found]
        for reader, (_, lost) in zip(readers, columns, strict=True):
            assert list(reader) == [
                Value(key, stored, cause or rest, other is not None)
                for cause, key, stored, other in lost
            ]


def test_more_shards_than_a_process_has_files_are_read_side_by_side(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    spools = Spools(tmp_path)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    try:
        for number in range(300):
            spool = Spool(f"{number:05d}", tmp_path)
            spool.add(Lost(CPU, suffix(number), field_value(1), None, "name", CPU))
            spool.column_ends("unknown")
            for piece in spool.chunks():
                spools.add(f"{number:05d}", piece)
        (series,) = spools.series()
        found = [one for one in spools.points(series, ()) if isinstance(one, Point)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert [point.time_us for point in found] == list(range(300))
