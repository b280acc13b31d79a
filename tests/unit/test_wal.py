"""wal/log.N read back: what the fixtures and real servers wrote, torn tails, and garbage."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures import Node
from fixtures import wal as encoder
from shardtool.influxdb import wal
from shardtool.influxdb.errors import LogError

Capture = Callable[[str], Path]

TEXT = st.text(max_size=8)
NUMBERS = st.integers(0, (1 << 32) - 1)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    TEXT,
    st.floats(allow_nan=False),
    st.integers(-(1 << 63), (1 << 63) - 1),
)
POINTS = st.builds(
    encoder.Point,
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.integers(0, (1 << 64) - 1),
    st.lists(VALUES, max_size=4).map(tuple),
)
REQUESTS = st.lists(
    st.builds(
        encoder.Request,
        NUMBERS,
        NUMBERS,
        TEXT,
        TEXT,
        st.lists(TEXT, max_size=4).map(tuple),
        st.lists(POINTS, max_size=3).map(tuple),
    ),
    max_size=4,
)


def parse(data: bytes) -> list[wal.Request]:
    return list(wal.parse_log(io.BytesIO(data), len(data)))


def as_written(request: wal.Request) -> encoder.Request:
    (series,) = request.series
    points = tuple(encoder.Point(*_parts(point)) for point in series.points)
    return encoder.Request(
        request.number, request.shard_id, request.database, series.name, series.columns, points
    )


def _parts(
    point: wal.Point,
) -> tuple[int, int, tuple[str | bool | int | float | None, ...]]:
    return point.time_us, point.sequence, point.values


@given(REQUESTS, st.integers(0, 50))
def test_requests_come_back_up_to_the_preallocated_zeros(
    requests: list[encoder.Request], zeros: int
) -> None:
    log, _ = encoder.encode(requests)
    found = parse(log + bytes(zeros))
    assert [as_written(one) for one in found] == requests
    assert all(one.kind == wal.WRITE for one in found)


@given(REQUESTS.filter(bool))
def test_a_log_cut_anywhere_keeps_the_requests_before(requests: list[encoder.Request]) -> None:
    log, _ = encoder.encode(requests)
    offsets = [one.offset for one in parse(log)] + [len(log)]
    for end in range(len(log)):
        whole = sum(offset <= end for offset in offsets[1:])
        assert len(parse(log[:end])) == whole


def four_requests() -> bytes:
    """Return a log of four requests."""
    requests = [
        encoder.Request(n, 1, "test", "cpu", ("n",), (encoder.Point(0, 1, (n,)),))
        for n in range(1, 5)
    ]
    return encoder.encode(requests)[0]


def test_what_a_running_server_appends_meanwhile_is_not_read_and_is_no_garbage() -> None:
    log = four_requests()
    for cut, request in enumerate(parse(log)):
        for size in (request.offset, request.offset + 5, request.end - 1):
            found = list(wal.parse_log(io.BytesIO(log[: request.end]), size))
            assert len(found) == cut


@pytest.mark.parametrize("several", [1, 2])
@pytest.mark.parametrize("garbage", [b"\xff", b"\xa7"])
def test_whole_requests_behind_several_broken_ones_are_not_passed_over(
    several: int, garbage: bytes
) -> None:
    log = four_requests()
    start, end = parse(log)[1].offset, parse(log)[several].end
    changed = log[:start] + garbage * (end - start) + log[end:]
    with pytest.raises(LogError, match=f"at offset {start}: .* at offset {end}"):
        parse(changed)


@pytest.mark.parametrize("noise", [b"\x80" * 40, b"\x00\x00\x00\x05\x00\x00\x00\x01\x7f" * 9])
def test_noise_at_the_end_is_no_torn_write(noise: bytes) -> None:
    log = four_requests()
    with pytest.raises(LogError, match=f"at offset {len(log)}: .* {len(noise)} bytes of something"):
        parse(log + noise)


@pytest.mark.parametrize("kept", [12, 13, 14, 15, 20, 40])
def test_the_beginning_of_a_request_at_the_end_is_a_torn_write(kept: int) -> None:
    log = four_requests()
    assert len(parse(log + log[: min(kept, parse(log)[0].length - 1)])) == 4


@pytest.mark.parametrize("broken", ["length", "all"])
def test_a_length_that_swallows_the_requests_behind_it_is_no_torn_tail(broken: str) -> None:
    log = four_requests()
    second = parse(log)[1].offset
    head = log[second : second + 8] if broken == "length" else b"\xfe" * 8
    changed = log[:second] + head + b"\xff\xff\xff\xff" + log[second + 12 :]
    with pytest.raises(LogError, match=rf"at offset {second}: .* with another request behind it"):
        parse(changed)


def test_a_request_whose_head_alone_reached_the_disk_ends_the_log() -> None:
    request = encoder.Request(1, 1, "test", "cpu", ("n",), (encoder.Point(0, 1, (3,)),))
    log, _ = encoder.encode([request])
    head = struct.pack(">III", 2, 1, 40)
    assert len(parse(log + head + bytes(100))) == 1


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        parse(data)
    except LogError as error:
        assert 0 <= error.offset <= len(data)


@given(REQUESTS, st.data())
def test_a_changed_log_is_read_or_refused(
    requests: list[encoder.Request], data: st.DataObject
) -> None:
    changed = bytearray(encoder.encode(requests)[0]) or bytearray(12)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    try:
        parse(bytes(changed))
    except LogError as error:
        assert 0 <= error.offset <= len(changed)


def test_a_name_that_is_not_utf8_keeps_its_bytes() -> None:
    # Request {3: database, 4: series {2: name}}, both b"\xff".
    body = b"\x1a\x01\xff" + b"\x22\x03\x12\x01\xff"
    (request,) = parse(struct.pack(">III", 1, 1, len(body)) + body)
    assert request.database == request.series[0].name == "\udcff"


def test_an_error_names_the_file_the_offset_and_what_to_do(tmp_path: Path) -> None:
    request = encoder.Request(1, 1, "test", "cpu", ("n",), (encoder.Point(0, 1, (3,)),))
    log, _ = encoder.encode([request])
    path = tmp_path / "log.1"
    path.write_bytes(log + struct.pack(">III", 2, 1, 3) + b"\xff\xff\xff" + log)
    with pytest.raises(wal.WalError) as error:
        list(wal.requests(path))
    assert str(error.value).startswith(f"{path}: at offset {len(log)}: expected a Request, found ")
    assert "shardtool backup" in str(error.value)


def test_a_request_that_says_another_number_inside_is_refused() -> None:
    request = encoder.Request(1, 1, "test", "cpu", ("n",), ())
    log, _ = encoder.encode([request])
    changed = struct.pack(">I", 7) + log[4:]
    with pytest.raises(LogError, match="expected request_number 7 as before it, found 1"):
        parse(changed)


def test_logs_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("log.10", "log.9", "index.9", "bookmark", "log.x", "log.100"):
        (tmp_path / name).touch()
    assert [path.name for path in wal.log_files(tmp_path)] == ["log.9", "log.10", "log.100"]


@pytest.mark.parametrize("kind", ["fifo", "link", "directory", "missing"])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "log.1"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "link":
        (tmp_path / "other").touch()
        path.symlink_to("other")
    elif kind == "directory":
        path.mkdir()
    with pytest.raises(wal.WalError, match=str(path)):
        list(wal.requests(path))


def test_a_fixture_and_its_unflushed_requests_are_read(tmp_path: Path) -> None:
    node = Node(tmp_path / "data", version="0.7")
    node.old_shard(1, points=20)
    node.write_wal(5, unflushed=2)
    (log,) = wal.log_files(node.wal)
    found = list(wal.requests(log))
    assert [one.number for one in found] == [1, 2, 3, 4, 5, 6, 7]
    assert [one.series[0].name for one in found[5:]] == ["unflushed", "unflushed"]


@pytest.mark.parametrize(("name", "count"), [("original-07", 259), ("partial-08", 49)])
def test_the_wal_of_a_real_server_is_read_whole(capture: Capture, name: str, count: int) -> None:
    (log,) = wal.log_files(capture(name) / "wal")
    found = list(wal.requests(log))
    assert [one.number for one in found] == list(range(1, count + 1))
    for request in found:
        for series in request.series:
            assert request.kind == wal.WRITE
            assert all(len(point.values) == len(series.columns) for point in series.points)
