"""A snapshot's own files: what is written is read again, and what nobody wrote is refused."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardtool.disk.copy import Entry
from shardtool.snapshots import bag
from shardtool.snapshots.metadata import DamagedError, Metadata, decoded, is_id, new_id
from tests.any_json import JSON, change

ID = "20261124T175153Z"
TOPS = (
    Entry("raft", "directory", 0o744, 0, 0, 0, 1),
    Entry("wal", "directory", 0o755, 0, 0, 0, 2),
)
FILE = Entry("wal/log.1", "file", 0o600, 5, 6, 7, -8)
LINK = Entry("wal/l", "link", 0o777, 0, 0, 0, 3, "\udc80/x")


def metadata(*entries: Entry) -> Metadata:
    return Metadata(ID, False, {"raft": "/r"}, (*TOPS, *entries), {0: "root"}, {}, (("s", "fifo"),))


def changed(**fields: Any) -> bytes:
    document = json.loads(metadata(FILE).encoded())
    document["entries"][-1].update(fields)
    return json.dumps(document).encode()


def test_metadata_is_read_as_it_was_written() -> None:
    whole = metadata(FILE, LINK)
    assert decoded(whole.encoded()) == whole


@pytest.mark.parametrize(
    "path",
    [
        *(
            "../x",
            "wal/../x",
            "/etc/passwd",
            "wal//x",
            "wal",
            "other",
            "wal/no/such",
            "wal/a\0b",
            "",
        ),
        *("wal/", "wal/.", "wal/..", "config.toml/x"),
    ],
)
def test_a_path_that_leads_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(DamagedError):
        decoded(changed(path=path))


def test_the_configuration_is_a_file_and_raft_and_wal_are_there() -> None:
    config = Entry("config.toml", "file", 0o644, 0, 0, 5, 0)
    assert decoded(metadata(config).encoded()).files == (config,)
    document = json.loads(metadata(config).encoded())
    for wrong in (
        [*document["entries"][:2], document["entries"][2] | {"kind": "directory"}],
        document["entries"][:1],
        document["entries"][1:],
        [],
    ):
        with pytest.raises(DamagedError):
            decoded(json.dumps(document | {"entries": wrong}).encode())


def test_the_document_tells_what_a_list_of_snapshots_shows() -> None:
    document = json.loads(metadata(FILE, LINK).encoded())
    shown = {key: document[key] for key in ("created_at", "files", "bytes", "live")}
    assert shown == {"created_at": "2026-11-24T17:51:53Z", "files": 1, "bytes": 7, "live": False}
    file, link = document["entries"][2:]
    assert set(link) - set(file) == {"target"}
    assert "identity" not in file


@pytest.mark.parametrize("name", ["wal/\ud800", f"wal/{'x' * 4092}"])
def test_a_path_that_no_file_system_has_is_refused(name: str) -> None:
    with pytest.raises(DamagedError):
        decoded(changed(path=name))


@pytest.mark.parametrize("target", ["\ud800", "x" * 4096, "", "a\0b"])
def test_a_target_that_no_link_has_is_refused(target: str) -> None:
    with pytest.raises(DamagedError):
        decoded(changed(kind="link", target=target))


def test_an_entry_below_a_link_is_refused() -> None:
    below = Entry("wal/l/x", "file", 0o600, 0, 0, 0, 0)
    with pytest.raises(DamagedError):
        decoded(metadata(LINK, below).encoded())


@pytest.mark.parametrize(
    "fields",
    [
        {"mode": "77777"},
        {"mode": 5},
        {"size": -1},
        {"size": True},
        {"uid": 1 << 32},
        {"mtime_ns": 1 << 70},
        {"kind": "device"},
        {"mode": "10000"},
        {"size": 1 << 63},
        {"uid": (1 << 32) - 1},
        {"gid": -1},
        {"mtime_ns": 1 << 63},
        {"mtime_ns": -(1 << 63)},
        {"path": "wal/" + "x" * 4092},
    ],
)
def test_a_value_out_of_its_range_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(DamagedError):
        decoded(changed(**fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"mode": "0000"},
        {"mode": "7777"},
        {"size": 0},
        {"size": (1 << 63) - 1},
        {"uid": 0, "gid": (1 << 32) - 2},
        {"mtime_ns": (1 << 63) - 1},
        {"mtime_ns": 1 - (1 << 63)},
        {"path": "wal/" + "x" * 4091},
    ],
)
def test_a_value_at_the_end_of_its_range_is_taken(fields: dict[str, Any]) -> None:
    found = json.loads(decoded(changed(**fields)).encoded())["entries"][-1]
    assert {key: found[key] for key in fields} == fields


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("schema", "shardtool/snapshot/2"), ("schema", None)),
        *(("id", "20261324T175153Z"), ("id", "../20261124T175153Z"), ("id", "")),
    ],
)
def test_another_schema_and_what_is_no_id_are_refused(field: str, value: object) -> None:
    document = json.loads(metadata(FILE).encoded())
    assert decoded(json.dumps(document).encode())
    with pytest.raises(DamagedError, match=field):
        decoded(json.dumps(document | {field: value}).encode())


def test_a_snapshot_says_of_which_node_it_is() -> None:
    assert replace(metadata(FILE), made_by={"host": "a"}).origin == "a:/r"
    assert replace(metadata(FILE), sources={}).origin == "?:?"


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"null", b"[" * 100_000, b"\xff", b"1e999"])
def test_what_is_no_metadata_is_refused(content: bytes) -> None:
    with pytest.raises(DamagedError):
        decoded(content)


@given(data=st.data(), value=JSON)
def test_metadata_with_any_part_changed_is_refused_or_can_be_written_again(
    data: st.DataObject, value: Any
) -> None:
    document = json.loads(metadata(FILE, LINK).encoded())
    change(data, document, value)
    with contextlib.suppress(DamagedError):
        found = decoded(json.dumps(document).encode())
        assert decoded(found.encoded()) == found


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader_of_manifests(content: bytes) -> None:
    with contextlib.suppress(DamagedError):
        bag.parsed_manifest(content)


LINE = f"{'0' * 64}  data/x\n"


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (LINE[:-1], "a last line that is cut off"),
        (LINE + "x\n", "line 2 is not 'SHA-256  path'"),
        (LINE + LINE, "line 2 names 'data/x' a second time"),
        (LINE + LINE.replace("x", "y\0"), "line 2 has a path that leads out of the bag"),
        (LINE.replace("data", "."), "line 1 has a path that leads out of the bag"),
    ],
)
def test_what_is_wrong_with_a_manifest_is_told_with_its_line(content: str, found: str) -> None:
    with pytest.raises(DamagedError, match=re.escape(found)):
        bag.parsed_manifest(content.encode())


@pytest.mark.parametrize("path", ["../../etc/passwd", "data/../../x", "/etc/passwd", "data//x"])
def test_a_manifest_that_leads_out_of_the_bag_is_refused(path: str) -> None:
    with pytest.raises(DamagedError, match="out of the bag"):
        bag.parsed_manifest(f"{'0' * 64}  {path}\n".encode())


def test_a_manifest_is_read_as_it_was_written() -> None:
    digests = {"data/a b": "1" * 64, "data/\\é\x1b[1m": "2" * 64}
    assert bag.parsed_manifest(bag.manifest(digests)) == digests


@pytest.mark.parametrize(
    "name", ["a\nb", "a\r", "a\u2028b", "a\x85", "a ", "%0A", "100%", "\udcff", "a\n"]
)
def test_a_name_that_one_of_the_readers_would_take_for_another_is_refused(name: str) -> None:
    assert bag.problem_with_name(f"raft/{name}")


@pytest.mark.parametrize("byte", range(0x80, 0x100))
def test_a_name_of_any_byte_that_is_no_utf8_is_refused(byte: int) -> None:
    assert bag.problem_with_name(os.fsdecode(b"raft/" + bytes([byte]))).startswith("bytes")


@pytest.mark.parametrize("name", ["raft/log", "wal/log.1", "wal/a b", "wal/é"])
def test_a_plain_name_is_no_problem(name: str) -> None:
    assert bag.problem_with_name(name) == ""


def test_names_that_differ_only_in_normalization_are_refused() -> None:
    assert bag.problem_with_names(["raft/é", "raft/e\u0301"]) is not None
    assert bag.problem_with_names(["raft/a", "raft/b", "raft/é"]) is None


def test_the_first_name_that_no_manifest_can_carry_is_told() -> None:
    path, why = bag.problem_with_names(["raft/a", "raft/b%", "raft/c\n"]) or ("", "")
    assert (path, why) == ("raft/b%", "a % in its name")


def test_what_a_bag_says_of_itself_is_of_its_snapshot() -> None:
    files = bag.tag_files(metadata(FILE), {"data/wal/log.1": "0" * 64})
    info = files[bag.INFO].decode().splitlines()
    assert "Bagging-Date: 2026-11-24" in info
    assert f"External-Identifier: {ID}" in info
    assert "Payload-Oxum: 7.1" in info
    assert set(bag.parsed_manifest(files[bag.TAG_MANIFEST])) == set(bag.TAG_FILES)
    digest = hashlib.sha256(files[bag.MANIFEST]).hexdigest()
    assert bag.parsed_manifest(files[bag.TAG_MANIFEST])[bag.MANIFEST] == digest


def test_an_id_is_a_time_that_exists() -> None:
    names = [ID, f"{ID}-2", "20261324T175153Z", f"{ID}-0", "latest", f"{ID}\n", "²0261124T175153Z"]
    assert [name for name in names if is_id(name)] == [ID, f"{ID}-2"]


def test_a_second_snapshot_of_one_second_gets_a_number() -> None:
    assert new_id(0, {"19700101T000000Z"}.__contains__) == "19700101T000000Z-2"
