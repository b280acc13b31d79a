"""One look at a running migration on real directories: what is marked, locked, grown, logged."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fixtures import Node
from shardtool.datadir.inventory import take_inventory
from shardtool.datadir.layout import Layout, find_layout
from shardtool.disk.locks import Lock, LockState
from shardtool.errors import ShardtoolError
from shardtool.influxdb.serverlog import MigrationLog
from shardtool.upgrade import follow
from shardtool.upgrade.follow import Watcher, find_log, look_in, open_log
from tests.conftest import Hold, Listing, Unprivileged


@pytest.fixture
def node(tmp_path: Path) -> Node:
    made = Node(tmp_path / "data", version="0.8")
    for number in (1, 2, 3):
        made.old_shard(number, points=4)
    made.mark(3)
    return made


def layout_of(node: Node) -> Layout:
    return find_layout(str(node.path), None, {})


def watcher(node: Node) -> Watcher:
    return Watcher(layout_of(node), MigrationLog(None))


# -- what is there --


def test_a_look_tells_marked_from_unmarked_with_their_bytes_and_changes_nothing(
    node: Node, listing: Callable[[Path], Listing]
) -> None:
    before = listing(node.path)
    seen = watcher(node).look()
    assert (sorted(seen.marked), sorted(seen.unmarked)) == (["00003"], ["00001", "00002"])
    files = sum(path.stat().st_size for path in (node.shard_db / "00001").iterdir())
    assert seen.unmarked["00001"] == files
    assert (seen.locked, seen.up) == (None, None)
    assert listing(node.path) == before


def test_the_shard_that_another_process_has_open_is_the_current_one(node: Node, hold: Hold) -> None:
    hold(node.shard_db / "00002" / "LOCK", "lock")
    assert watcher(node).look().locked == "00002"
    assert look_in(take_inventory(layout_of(node)), MigrationLog(None)).locked == "00002"


def test_what_the_migrator_does_not_see_does_not_count(node: Node, tmp_path: Path) -> None:
    (node.shard_db / "00009").symlink_to(tmp_path)
    (node.shard_db / "00008").write_bytes(b"")
    os.mkfifo(node.shard_db / "00007")
    (node.shard_db / "lost+found").mkdir()  # this one it does: it gets a database and a marker
    seen = watcher(node).look()
    assert sorted(seen.unmarked) == ["00001", "00002", "lost+found"]


def test_a_marker_counts_as_the_migrator_looks_at_it(node: Node) -> None:
    (node.shard_db / "00001" / "MIGRATED").mkdir()
    (node.shard_db / "00002" / "MIGRATED").symlink_to("nowhere")
    assert sorted(watcher(node).look().marked) == ["00001", "00003"]


def test_a_directory_that_may_not_be_looked_into_is_still_to_be_migrated(
    public_path: Path, unprivileged: Unprivileged
) -> None:
    node = Node(public_path / "data", version="0.8")
    node.old_shard(1, points=4)
    for path in (node.path, node.db, node.shard_db, node.shard_db_v2):
        path.chmod(0o755)
    (node.shard_db / "00001").chmod(0o700)
    assert unprivileged(lambda: dict(watcher(node).look().unmarked)) == {"00001": 0}


def test_lower_names_are_looked_at_first_so_that_what_is_just_marked_is_not_behind(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The migrator comes from above: what was seen of a lower shard must be older."""
    listdir, order = os.listdir, list[int]()

    def look(name: str, *, dir_fd: int) -> LockState:
        order.append(os.fstat(dir_fd).st_ino)
        return LockState(Lock.FREE)

    monkeypatch.setattr(os, "listdir", lambda path: sorted(listdir(path), reverse=True))
    monkeypatch.setattr(follow, "look_at_lock", look)
    watcher(node).look()
    assert order == [(node.shard_db / f"{n:05d}").stat().st_ino for n in (1, 2, 3)]


def test_the_new_side_grows(node: Node) -> None:
    looking = watcher(node)
    before = looking.look().new_bytes
    node.migrate(1)
    assert looking.look().new_bytes > before


def test_a_few_bytes_more_in_a_new_shard_are_a_change_too(node: Node) -> None:
    looking = watcher(node)
    before = looking.look()
    with (node.shard_db_v2 / "00001" / "type").open("ab") as file:
        file.write(b" ")
    assert looking.look().new_state != before.new_state


def test_status_sees_the_same_in_its_inventory(node: Node) -> None:
    light = watcher(node).look()
    whole = look_in(take_inventory(layout_of(node)), MigrationLog(None))
    assert replace(whole, at=light.at) == light


# -- the log --


def test_the_log_is_where_config_says(node: Node, tmp_path: Path) -> None:
    log = tmp_path / "elsewhere.log"
    log.write_bytes(b"")
    (node.path / "influxdb.log").write_bytes(b"")
    set_log(node, str(log))
    assert find_log(layout_of(node)) == log


@pytest.mark.parametrize(
    "named", ["/opt/gone/shared/data/influxdb.log", "influxdb.log", "logs/influxdb.log", ""]
)
def test_a_log_that_config_does_not_lead_to_is_looked_for_beside_the_data(
    node: Node, named: str
) -> None:
    log = node.path / "influxdb.log"
    log.write_bytes(b"")
    set_log(node, named)
    assert find_log(layout_of(node)) == log


@pytest.mark.parametrize("name", ["influxdb.log", "log.txt"])
def test_without_config_the_usual_names_are_looked_for(node: Node, name: str) -> None:
    node.config.unlink(missing_ok=True)
    (node.path.parent / name).write_bytes(b"")
    assert find_log(layout_of(node)) == node.path.parent / name


def test_where_no_log_is_none_is_followed(node: Node) -> None:
    set_log(node, "/opt/gone/influxdb.log")
    os.mkfifo(node.path / "influxdb.log")
    assert find_log(layout_of(node)) is None
    assert open_log(None, of_last_migration=True).reader is None


def test_a_log_that_may_not_be_read_is_refused_in_a_line(
    public_path: Path, unprivileged: Unprivileged
) -> None:
    log = public_path / "influxdb.log"
    log.write_bytes(b"")
    log.chmod(0o600)
    with pytest.raises(ShardtoolError, match="expected InfluxDB's log, found: Permission denied"):
        unprivileged(lambda: open_log(log, of_last_migration=False))


def set_log(node: Node, name: str) -> None:
    node.config.write_text(
        f'[logging]\nfile = "{name}"\n[storage]\ndir = "{node.db}"\n'
        f'[raft]\ndir = "{node.raft}"\n[wal]\ndir = "{node.wal}"\n'
    )
