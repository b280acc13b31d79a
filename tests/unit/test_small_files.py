"""The small files of a node hold anything, and are read or refused: config, pending, marker."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
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
    remove_pending,
    write_pending,
)
from tests.any_json import JSON, change
from tests.needs import needs_root

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


@pytest.fixture
def done_to_disk(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Syncs, by the name of what was synced, renames and removals, in their order."""
    seen: list[str] = []

    def noting(name: str, call: Callable[..., None], what: Callable[[Any], str]) -> None:
        def noted(first: Any, *words: Any, **more: Any) -> None:
            call(first, *words, **more)
            seen.append(what(first))

        monkeypatch.setattr(os, name, noted)

    noting("fsync", os.fsync, lambda fd: Path(os.readlink(f"/proc/self/fd/{fd}")).name)
    noting("rename", os.rename, lambda name: f"rename {name}")
    noting("unlink", os.unlink, lambda name: f"unlink {name}")
    return seen


def test_a_pending_file_and_its_name_are_on_disk_when_it_is_written(
    node: Layout, done_to_disk: list[str]
) -> None:
    write_pending(node, PENDING)
    assert done_to_disk == ["restore.json.new", "rename restore.json.new", ".shardtool"]


def test_that_a_pending_file_is_gone_is_on_disk_when_it_was_removed(
    node: Layout, done_to_disk: list[str]
) -> None:
    write_pending(node, PENDING)
    done_to_disk.clear()
    remove_pending(node)
    assert not node.pending_restore.exists()
    remove_pending(node)  # one that was killed behind it has nothing to remove
    assert done_to_disk == ["unlink restore.json", ".shardtool", ".shardtool"]


@needs_root
def test_a_pending_file_is_its_databases_owners(tmp_path: Path) -> None:
    (tmp_path / "db/.shardtool").mkdir(parents=True)
    os.chown(tmp_path / "db", 65534, 65533)
    layout = Layout(tmp_path / "db", tmp_path / "raft", tmp_path / "wal", None, str(tmp_path))
    write_pending(layout, PENDING)
    found = layout.pending_restore.stat()
    assert (found.st_uid, found.st_gid) == (65534, 65533)


def test_no_pending_file_is_looked_for_through_a_link(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    for directory in (tmp_path / "db", elsewhere):
        directory.mkdir()
    layout = Layout(tmp_path / "db", tmp_path / "raft", tmp_path / "wal", None, str(tmp_path))
    layout.own.symlink_to(elsewhere)
    (elsewhere / layout.pending_restore.name).write_bytes(b"not ours")

    with pytest.raises(ShardtoolError, match=rf"{layout.own}: expected a directory of shardtool's"):
        pending_restore(layout)
    with pytest.raises(NotADirectoryError):
        write_pending(layout, PENDING)
    with pytest.raises(NotADirectoryError):
        remove_pending(layout)
    assert [path.read_bytes() for path in elsewhere.iterdir()] == [b"not ours"]


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
