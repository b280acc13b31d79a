"""The small files of a node hold anything, and are read or refused: config, pending, marker."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardtool.datadir.config import read_config
from shardtool.datadir.layout import Layout
from shardtool.datadir.marker import CONTENT, MARKER, read_marker
from shardtool.disk.durable import READ_DIRECTORY, opened
from shardtool.errors import ShardtoolError
from shardtool.snapshots.pending import (
    Pending,
    Staged,
    pending_restore,
    refuse_half_restored,
    write_pending,
)
from tests.any_json import JSON, change

ID = "20261124T175153Z"
PENDING = Pending(ID, "/snapshots", ID, (Staged("/raft", 7, 8), Staged("/wal", 9, 10)))


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    root = tmp_path_factory.mktemp("node")
    (root / "db/.shardtool").mkdir(parents=True)
    return Layout(root / "db", root / "raft", root / "wal", None, str(root))


def test_a_pending_file_is_read_as_it_was_written(node: Layout) -> None:
    write_pending(node, PENDING)
    assert pending_restore(node) == PENDING


def test_a_node_is_whole_unless_a_restore_was_interrupted_in_its_swap(node: Layout) -> None:
    node.pending_restore.unlink(missing_ok=True)
    refuse_half_restored(node)
    write_pending(node, PENDING)
    with pytest.raises(ShardtoolError, match=f"the restore of {ID} interrupted"):
        refuse_half_restored(node)


STAGED = {"place": "/raft", "inode": 7, "mtime_ns": 8}


@pytest.mark.parametrize(
    "wrong",
    [
        {"schema": "shardtool/pending-restore/1"},
        {"stamp": "yesterday"},
        {"snapshot": "latest"},
        {"path": 7},
        {"staged": [STAGED]},
        {"staged": [STAGED] * 3},
        *({"staged": [STAGED, STAGED | part]} for part in ({"place": 1}, {"mtime_ns": True})),
        *({"staged": [STAGED, STAGED | part]} for part in ({"inode": "7"}, {"mtime_ns": None})),
    ],
)
def test_a_pending_file_that_shardtool_did_not_write_is_refused(
    node: Layout, wrong: dict[str, Any]
) -> None:
    write_pending(node, PENDING)
    document = json.loads(node.pending_restore.read_text())
    node.pending_restore.write_text(json.dumps(document | wrong))
    with pytest.raises(ShardtoolError, match="found: something else"):
        pending_restore(node)


def test_what_a_kill_left_of_a_pending_file_is_in_no_ones_way(node: Layout) -> None:
    temporary = node.pending_restore.with_name(f"{node.pending_restore.name}.new")
    temporary.write_bytes(b"{")
    write_pending(node, PENDING)
    assert pending_restore(node) == PENDING
    assert not temporary.exists()


def test_a_pending_file_and_its_name_are_on_disk_when_it_is_written(
    node: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    fsync, rename = os.fsync, os.rename

    def note_sync(descriptor: int) -> None:
        seen.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    def note_rename(source: Path, target: Path) -> None:
        seen.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "rename", note_rename)
    write_pending(node, PENDING)
    assert seen == ["restore.json.new", "rename", ".shardtool"]


@given(data=st.data(), value=JSON)
def test_a_pending_file_with_any_part_changed_is_refused_or_can_be_written_again(
    node: Layout, data: st.DataObject, value: Any
) -> None:
    write_pending(node, PENDING)
    document = json.loads(node.pending_restore.read_text())
    change(data, document, value)
    node.pending_restore.write_text(json.dumps(document))
    with contextlib.suppress(ShardtoolError):
        found = pending_restore(node)
        assert found is not None
        write_pending(node, found)
        assert pending_restore(node) == found


@given(st.binary(max_size=80) | st.text(max_size=80).map(lambda text: text.encode("utf-8")))
def test_any_bytes_are_a_config_or_refused_in_one_line(node: Layout, content: bytes) -> None:
    path: Path = node.db.parent / "config.toml"
    path.write_bytes(content)
    try:
        read_config(path)
    except ShardtoolError as error:
        assert "\n" not in str(error)


@given(st.binary(max_size=20) | st.just(CONTENT))
def test_a_marker_of_any_bytes_is_sound_only_where_they_are_the_servers(
    node: Layout, content: bytes
) -> None:
    (node.db / MARKER).write_bytes(content)
    with opened(node.db, READ_DIRECTORY) as shard:
        assert read_marker(shard).valid == (content == b"done.\n")
