"""raft/log and raft/snapshot: what a power cut leaves is tolerated, anything else is named."""

from __future__ import annotations

import base64
import io
import json
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures import raft as encoder
from fixtures.encode import message
from shardtool.influxdb import raft
from shardtool.influxdb.errors import CatalogueError, LogError

Capture = Callable[[str], Path]

COMMANDS = st.lists(
    st.builds(
        encoder.Command,
        st.sampled_from(["create_db", "raft:nop", "x", "ünïcöde"]),
        st.one_of(st.none(), st.dictionaries(st.text(max_size=5), st.text(max_size=9))),
    ),
    min_size=1,
    max_size=5,
)
LOG = encoder.encode_log([[encoder.join(), encoder.nop(), encoder.create_db("test")]])
STARTS = [entry.offset for entry in raft.parse_log(io.BytesIO(LOG), len(LOG))]


def parse(data: bytes) -> list[raft.Entry]:
    return list(raft.parse_log(io.BytesIO(data), len(data)))


def directory(tmp_path: Path, log: bytes) -> Path:
    (tmp_path / "log").write_bytes(log)
    return tmp_path


# -- the log --


@given(st.lists(COMMANDS, max_size=3))
def test_entries_come_back(eras: list[list[encoder.Command]]) -> None:
    log = encoder.encode_log(eras)
    found = parse(log)
    theirs = encoder.read_log(log)
    assert [(e.index, e.term, e.name, e.command) for e in found] == [
        (e.index, e.term, e.name, e.command) for e in theirs
    ]
    assert all(log[e.offset + 8 : e.offset + 9] == b"\n" for e in found)


@given(COMMANDS)
def test_a_log_cut_anywhere_keeps_the_entries_before(commands: list[encoder.Command]) -> None:
    log = encoder.encode_log([commands])
    ends = [*(entry.offset for entry in parse(log)), len(log)][1:]
    for end in range(len(log)):
        assert len(parse(log[:end])) == sum(offset <= end for offset in ends)


@pytest.mark.parametrize("zeros", [1, 8, 9, 10, 5000])
def test_zeros_at_the_end_are_no_entries(zeros: int) -> None:
    assert len(parse(LOG + bytes(zeros))) == 3


def test_a_head_whose_entry_is_still_zeros_ends_the_log() -> None:
    assert len(parse(LOG + b"      20\n" + bytes(100))) == 3


@pytest.mark.parametrize("garbage", [b"not a head and longer than one", b"\0" * 20 + b"x" * 20])
def test_garbage_in_the_middle_is_named_with_its_offset(tmp_path: Path, garbage: bytes) -> None:
    path = directory(tmp_path, LOG[: STARTS[2]] + garbage + LOG[STARTS[2] :])
    with pytest.raises(CatalogueError) as error:
        list(raft.entries(path))
    assert f"{path}/log: at offset {STARTS[2]}: expected 8 hex digits" in str(error.value)
    assert "restore raft" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_length_that_swallows_the_entries_behind_it_is_no_torn_tail() -> None:
    changed = LOG[: STARTS[1]] + b"ffffffff\n" + LOG[STARTS[1] + 9 :]
    with pytest.raises(LogError, match=f"at offset {STARTS[1]}: .* with others in it"):
        parse(changed)
    # The last entry has none behind it: that is what a torn write looks like.
    assert len(parse(LOG[: STARTS[2]] + b"ffffffff\n" + LOG[STARTS[2] + 9 :])) == 2


def test_a_head_that_is_followed_by_another_is_no_torn_tail() -> None:
    with pytest.raises(LogError, match=f"at offset {STARTS[1]}"):
        parse(LOG[: STARTS[1]] + b"ffffffff\n" + LOG[STARTS[1] :])


def test_an_entry_that_is_no_message_is_named(tmp_path: Path) -> None:
    start = STARTS[1]
    changed = LOG[: start + 9] + b"\xff" * 4 + LOG[start + 13 :]
    with pytest.raises(CatalogueError, match=f"at offset {start}: expected a LogEntry, found"):
        list(raft.entries(directory(tmp_path, changed)))


def test_a_missing_entry_is_named() -> None:
    with pytest.raises(LogError, match=f"at offset {STARTS[1]}: expected the entry 2, found 3"):
        parse(LOG[: STARTS[1]] + LOG[STARTS[2] :])


def test_an_entry_without_a_name_is_refused() -> None:
    body = message((1, 1), (2, 0))
    with pytest.raises(LogError, match="expected an index and a command's name"):
        parse(b"%8x\n" % len(body) + body)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        parse(data)
    except LogError as error:
        assert 0 <= error.offset <= len(data)


@given(COMMANDS, st.data())
def test_a_changed_log_is_read_or_refused(
    commands: list[encoder.Command], data: st.DataObject
) -> None:
    changed = bytearray(encoder.encode_log([commands]))
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    try:
        parse(bytes(changed))
    except LogError as error:
        assert 0 <= error.offset <= len(changed)


@pytest.mark.parametrize("kind", ["fifo", "link", "directory", "missing"])
def test_a_log_that_is_no_regular_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "log"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "link":
        (tmp_path / "other").write_bytes(LOG)
        path.symlink_to("other")
    elif kind == "directory":
        path.mkdir()
    with pytest.raises(CatalogueError, match=str(path)):
        list(raft.entries(tmp_path))


def test_a_log_of_an_unreasonable_size_is_not_read(tmp_path: Path) -> None:
    path = directory(tmp_path, LOG)
    os.truncate(path / "log", raft.MAX_LOG + 1)
    with pytest.raises(CatalogueError, match="more than the 1073741824 it may have"):
        list(raft.entries(path))


def test_reading_leaves_no_access_time(tmp_path: Path) -> None:
    path = directory(tmp_path, LOG)
    os.utime(path / "log", ns=(1, 10**18))
    assert len(list(raft.entries(path))) == 3
    assert (path / "log").stat().st_atime_ns == 1


@pytest.mark.parametrize(
    ("name", "count"), [("original-07", 34), ("migrated-08", 108), ("partial-08", 30)]
)
def test_the_log_of_a_real_server_is_read_whole(capture: Capture, name: str, count: int) -> None:
    found = list(raft.entries(capture(name) / "raft"))
    assert [entry.index for entry in found] == list(range(1, count + 1))


# -- snapshots --

STATE = bytes(range(256))


def snapshot(tmp_path: Path, index: int, term: int, content: bytes | None = None) -> Path:
    path = tmp_path / "snapshot" / f"{term}_{index}.ss"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(encoder.encode_snapshot(index, term, STATE) if content is None else content)
    return path


def with_checksum(document: object) -> bytes:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return b"%08x\n" % zlib.crc32(body) + body


@given(st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 64) - 1), st.binary(max_size=99))
def test_a_snapshot_comes_back(index: int, term: int, state: bytes) -> None:
    found = raft.parse_snapshot(encoder.encode_snapshot(index, term, state))
    assert found == raft.Snapshot(index, term, state)


def test_the_snapshot_of_the_highest_index_is_the_newest(tmp_path: Path) -> None:
    for index, term in ((9, 1), (35, 1), (10, 3), (100, 2)):
        snapshot(tmp_path, index, term)
    for name in ("x.ss", "1_2.ss.new", "-1_5.ss", "1_2"):
        (tmp_path / "snapshot" / name).touch()
    found = raft.snapshot_files(tmp_path)
    assert [(file.term, file.index) for file in found] == [(2, 100), (1, 35), (3, 10), (1, 9)]
    assert raft.read_snapshot(found[0]) == raft.Snapshot(100, 2, STATE)


def test_no_directory_of_snapshots_is_no_snapshot(tmp_path: Path) -> None:
    assert raft.snapshot_files(tmp_path) == []


def test_a_link_in_the_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "snapshot").symlink_to(tmp_path)
    with pytest.raises(CatalogueError, match="expected a directory of snapshots"):
        raft.snapshot_files(tmp_path)


def test_every_changed_or_missing_byte_is_noticed() -> None:
    whole = encoder.encode_snapshot(35, 1, STATE)
    for place in range(len(whole)):
        for changed in (
            whole[:place],
            whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :],
        ):
            with pytest.raises(ValueError, match="expected the checksum"):
                raft.parse_snapshot(changed)


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        (b"{", "expected JSON"),
        (b"[" * 100_000, "expected JSON"),
        (b"\xff", "expected JSON"),
        ([], "expected an object, found list"),
        ({"lastIndex": 1, "lastTerm": 1}, "expected lastIndex, lastTerm and state"),
        ({"lastIndex": True, "lastTerm": 1, "state": ""}, "expected lastIndex"),
        ({"lastIndex": 1, "lastTerm": 1, "state": "!"}, "expected a state in base64"),
        ({"lastIndex": 1, "lastTerm": 1, "state": "ü"}, "expected a state in base64"),
    ],
)
def test_a_document_that_is_no_snapshot_is_refused(document: object, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        raft.parse_snapshot(with_checksum(document))


def test_a_snapshot_under_the_name_of_another_is_refused(tmp_path: Path) -> None:
    snapshot(tmp_path, 99, 1, encoder.encode_snapshot(35, 1, STATE))
    (file,) = raft.snapshot_files(tmp_path)
    with pytest.raises(ValueError, match="index 99, as its name says, found 1 and 35"):
        raft.read_snapshot(file)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_no_snapshot(data: bytes) -> None:
    for content in (data, with_checksum(data)):
        with pytest.raises(ValueError, match="expected"):
            raft.parse_snapshot(content)


def test_the_snapshot_of_a_real_server_is_read(capture: Capture) -> None:
    (file,) = raft.snapshot_files(capture("compacted-07") / "raft")
    found = raft.read_snapshot(file)
    assert (found.last_index, found.last_term) == (35, 1)
    assert base64.b64encode(found.state).startswith(b"/6n/gQMBARJTYXZlZENvbmZpZ3VyYXRpb24B")


# -- the name --


def test_the_own_name_is_what_the_file_says(tmp_path: Path) -> None:
    assert raft.own_name(tmp_path) is None
    (tmp_path / "name").write_bytes(encoder.NAME)
    assert raft.own_name(tmp_path) == "ab01bbc6779e57"


def test_a_name_of_an_unreasonable_size_is_refused(tmp_path: Path) -> None:
    (tmp_path / "name").write_bytes(b"a" * (raft.MAX_NAME + 1))
    with pytest.raises(CatalogueError, match="expected the server's name"):
        raft.own_name(tmp_path)
