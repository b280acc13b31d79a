"""What raft knows of a node: captures, and nodes of the builder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fixtures import Node
from fixtures import raft as encoder
from fixtures.encode import microseconds
from shardtool.influxdb import catalogue
from shardtool.influxdb.catalogue import (
    CatalogueError,
    Dropped,
    Server,
    from_configuration,
    read_catalogue,
)
from shardtool.influxdb.raft import SnapshotFile, snapshot_files
from tests.unit.catalogue.world import (
    MONDAY,
    READY,
    SHORT,
    WEEK,
    Raft,
    configuration,
    ids_of,
    remove_space,
    shard_07,
    shard_08,
)

Capture = Callable[[str], Path]


def test_the_raft_directory_says_what_the_server_said(capture: Capture) -> None:
    found = read_catalogue(capture("migrated-08") / "raft")
    assert replace(found, own_server=None, dropped=Dropped()) == from_configuration(configuration())
    ids = [i for d in found.ids.values() for series in d.values() for i in series.values()]
    assert (max(ids), len(set(ids))) == (55, 55)
    assert (found.own_server, found.dropped) == (1, Dropped())
    assert (found.shards[0].id, found.shards[-1].id) == (28, 68)
    assert found.shards[0].start_us == -315_705_600_000_000


@pytest.mark.parametrize("name", ["original-07", "stopped-07", "compacted-07"])
def test_a_node_of_07_has_databases_and_nothing_of_08(capture: Capture, name: str) -> None:
    found = read_catalogue(capture(name) / "raft")
    assert found.databases == {"test", "metrics"}
    assert found.servers == (Server(1, "ab01bbc6779e57"),)
    assert (found.ids, found.spaces, found.shards, found.own_server) == ({}, {}, (), 1)


def test_a_server_killed_in_mid_migration_has_what_it_made(capture: Capture) -> None:
    found = read_catalogue(capture("partial-08") / "raft")
    assert [shard.id for shard in found.shards] == [10, 11, 12, 13, 14, 15, 16]
    assert found.ids["metrics"] == {"reqs": {"n": 5}}
    assert [space.name for space in found.spaces["test"]] == ["long_term", "short_term"]


def test_a_compacted_07_that_was_upgraded_goes_on_with_its_numbers(capture: Capture) -> None:
    raft = capture("compacted-07") / "raft"
    commands = [encoder.nop(), encoder.add_shard_space("test", SHORT), shard_08()]
    with (raft / "log").open("ab") as log:
        for index, command in enumerate(commands, 36):
            log.write(encoder.encode_entry(index, 2, command))
    assert [shard.id for shard in read_catalogue(raft).shards] == [28]


def compacted(tmp_path: Path) -> Node:
    node = Node(tmp_path / "data", version="0.8")
    for number in (1, 2, 9):
        node.old_shard(number, points=20)
        node.migrate(number)
    node.drop_series("test", "cpu")
    return node


@pytest.mark.parametrize("keep", [0, 1, 5, 200])
@pytest.mark.parametrize("by", ["0.7", "0.8"])
def test_compaction_changes_nothing_that_is_known(tmp_path: Path, keep: int, by: Any) -> None:
    node = compacted(tmp_path)
    whole = read_catalogue(node.raft)
    assert {shard.id for shard in whole.shards} == set(node.new)
    node.compact_raft(keep, by=by)
    found = read_catalogue(node.raft)
    assert replace(found, dropped=whole.dropped) == whole
    assert found.dropped == (Dropped() if (keep, by) == (0, "0.8") else whole.dropped)


def test_the_ids_are_those_of_the_values(tmp_path: Path) -> None:
    node = compacted(tmp_path)
    ids = read_catalogue(node.raft).ids
    assert {tuple(column): number for column, number in node.ids.items()} == {
        (database, series, column): number
        for database, several in ids.items()
        for series, columns in several.items()
        for column, number in columns.items()
    }


HISTORY = [*READY, shard_08(), ids_of("cpu", "a"), shard_08(week=1), ids_of("mem", "b")]


LAST = 1 + len(HISTORY)


def test_entries_that_the_snapshot_holds_are_not_replayed(tmp_path: Path) -> None:
    raft = Raft(
        tmp_path / "raft", [*HISTORY, encoder.drop_series("test", "cpu"), ids_of("cpu", "a")]
    )
    whole = raft.catalogue
    for index in range(1, len(raft.commands) + 1):
        path = raft.snapshot(index)
        assert raft.catalogue == whole
        raft.write(first=index + 1)
        assert replace(raft.catalogue, dropped=whole.dropped) == whole
        raft.write()
        path.unlink()


@pytest.mark.parametrize("first", [3, 5, LAST])
def test_a_log_without_its_beginning_and_without_a_snapshot_is_an_error(
    tmp_path: Path, first: int
) -> None:
    raft = Raft(tmp_path / "raft", HISTORY)
    raft.write(first=first)
    with pytest.raises(CatalogueError) as error:
        _ = raft.catalogue
    assert f"{raft.path}/log: expected entry 1 or an earlier one first" in str(error.value)
    assert f"(no snapshot), found entry {first}; restore raft" in str(error.value)


def test_a_gap_between_snapshot_and_log_is_an_error_that_names_both(tmp_path: Path) -> None:
    raft = Raft(tmp_path / "raft", HISTORY)
    path = raft.snapshot(3)
    raft.write(first=4)
    assert len(raft.catalogue.shards) == 2
    raft.write(first=5)
    with pytest.raises(CatalogueError) as error:
        _ = raft.catalogue
    assert f"the snapshot {path} ends at entry 3" in str(error.value)
    assert f"{raft.path}/log: " in str(error.value)
    assert "found entry 5" in str(error.value)


def test_a_newer_snapshot_that_is_broken_is_passed_over_where_the_log_has_it_all(
    tmp_path: Path,
) -> None:
    raft = Raft(tmp_path / "raft", HISTORY)
    whole = raft.catalogue
    raft.snapshot(2)
    broken = raft.snapshot(5)
    broken.write_bytes(broken.read_bytes()[:-1])
    raft.write(first=3)
    assert raft.catalogue == whole
    raft.write(first=4)
    with pytest.raises(CatalogueError, match=rf"ends at entry 2, {broken}: expected the checksum"):
        _ = raft.catalogue


def test_a_broken_snapshot_alone_is_passed_over_where_the_log_is_whole(tmp_path: Path) -> None:
    raft = Raft(tmp_path / "raft", HISTORY)
    whole = raft.catalogue
    raft.snapshot(5).write_bytes(b"")
    assert raft.catalogue == whole
    raft.write(first=2)
    with pytest.raises(CatalogueError, match="expected the checksum"):
        _ = raft.catalogue


def test_a_log_that_ends_before_a_broken_snapshot_is_an_error(tmp_path: Path) -> None:
    raft = Raft(tmp_path / "raft", HISTORY)
    raft.snapshot(5).write_bytes(b"")
    raft.write(last=5)
    assert len(raft.catalogue.shards) == 1
    raft.write(last=4)
    with pytest.raises(CatalogueError, match=r"expected entries up to 5, .*, found them up to 4"):
        _ = raft.catalogue


def test_a_snapshot_whose_state_is_no_gob_is_passed_over(tmp_path: Path) -> None:
    raft = Raft(tmp_path / "raft", HISTORY)
    raft.snapshot(5).write_bytes(encoder.encode_snapshot(5, 1, b"\0"))
    assert len(raft.catalogue.shards) == 2
    raft.write(first=2)
    with pytest.raises(CatalogueError, match="expected a state in gob"):
        _ = raft.catalogue


def test_a_snapshot_and_no_entries_is_all_there_is(tmp_path: Path) -> None:
    raft = Raft(tmp_path / "raft", HISTORY)
    whole = raft.catalogue
    raft.snapshot(LAST)
    (raft.path / "log").write_bytes(b"")
    assert raft.catalogue == whole


@pytest.mark.parametrize("log", [b"", b"      2", b"\0" * 100])
def test_neither_snapshot_nor_entries_is_an_error(tmp_path: Path, log: bytes) -> None:
    raft = Raft(tmp_path / "raft")
    (raft.path / "log").write_bytes(log)
    with pytest.raises(CatalogueError, match=r"expected entries from 1 on \(no snapshot\), found"):
        _ = raft.catalogue


def test_a_drop_in_the_overlap_is_told(tmp_path: Path) -> None:
    drops = [
        encoder.drop_series("test", "cpu"),
        remove_space("test", "short_term"),
        encoder.drop_db("test"),
    ]
    raft = Raft(tmp_path / "raft", [*HISTORY, *drops])
    raft.snapshot(LAST + 3)
    told = Dropped(
        frozenset({"test"}), frozenset({("test", "cpu")}), frozenset({("test", "short_term")})
    )
    for first in (1, 3, LAST, LAST + 1):  # the last: nothing but the drops is left
        raft.write(first=first)
        assert raft.catalogue.dropped == told


def test_a_drop_by_07_in_the_overlap_is_not_told_where_a_later_command_is_07s(
    tmp_path: Path,
) -> None:
    before = [encoder.create_db("old"), shard_07(), encoder.drop_db("old"), shard_07(1)]
    raft = Raft(tmp_path / "raft", before, HISTORY)
    raft.snapshot(len(raft.commands), term=2)
    for first in (1, 2, 3, 4):
        raft.write(first=first)
        assert raft.catalogue.dropped == Dropped()


def test_a_drop_by_08_is_told_though_07_ran_again_afterwards(tmp_path: Path) -> None:
    rolled_back = [encoder.nop(), shard_07()]
    drop = [ids_of("cpu", "b"), encoder.drop_db("gone")]
    raft = Raft(tmp_path / "raft", HISTORY, drop, rolled_back, [encoder.nop()])
    raft.snapshot(len(raft.commands), term=4)
    for first in (LAST, LAST + 1):
        raft.write(first=first)
        assert raft.catalogue.dropped == Dropped(databases=frozenset({"gone"}))


def test_a_drop_among_07s_own_shards_is_07s_though_08_ran_before(tmp_path: Path) -> None:
    rolled_back = [encoder.drop_db("old"), shard_07()]
    raft = Raft(tmp_path / "raft", HISTORY, rolled_back, [encoder.nop()])
    raft.snapshot(len(raft.commands), term=3)
    raft.write(first=LAST)
    assert raft.catalogue.dropped == Dropped()


def test_a_drop_before_a_snapshot_of_07_is_07s(tmp_path: Path) -> None:
    raft = Raft(tmp_path / "raft", [encoder.create_db("old"), encoder.drop_db("old")], HISTORY)
    raft.snapshot(3, by="0.7")
    for first in (1, 2, 3, 4):
        raft.write(first=first)
        assert raft.catalogue.dropped == Dropped()


def test_a_snapshot_that_a_server_takes_meanwhile_is_read_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raft = Raft(tmp_path / "raft", HISTORY)
    whole = raft.catalogue
    times: list[Path] = []

    def listed_just_before(path: Path) -> list[SnapshotFile]:
        found = snapshot_files(path)
        if not times:
            raft.snapshot(LAST)
            raft.write(first=LAST + 1)
        times.append(path)
        return found

    monkeypatch.setattr(catalogue, "snapshot_files", listed_just_before)
    assert raft.catalogue == whole
    assert len(times) == 3  # the first look, another after the error, the second attempt's


def test_07s_shards_are_numbered_as_07_did_which_makes_no_range_twice(tmp_path: Path) -> None:
    raft = Raft(tmp_path, [shard_07(0, 2), shard_07(0), shard_07(2)])
    assert raft.catalogue.old_shards == {1: (1,), 2: (1,), 3: (1,)}


def test_07s_shards_keep_the_times_that_07_gave_them(tmp_path: Path) -> None:
    raft = Raft(tmp_path, [shard_07(0), shard_07(2), encoder.drop_shard(1)])
    start = microseconds(MONDAY + 2 * WEEK)
    assert raft.catalogue.old_ranges == {2: (start, start + WEEK // timedelta(microseconds=1))}


def test_07s_shards_of_other_servers_are_known_as_theirs_and_dropped_ones_are_gone(
    tmp_path: Path,
) -> None:
    theirs = encoder.create_shards_07([(MONDAY, MONDAY + WEEK)], server_id=2)
    raft = Raft(tmp_path, [theirs, shard_07(1), shard_07(2), encoder.drop_shard(2)])
    assert raft.catalogue.old_shards == {1: (2,), 3: (1,)}


def test_a_snapshot_of_07_knows_the_same_shards_as_the_log_did(
    capture: Capture,
) -> None:
    compacted = read_catalogue(capture("compacted-07") / "raft")
    stopped = read_catalogue(capture("stopped-07") / "raft")
    assert compacted.old_shards == stopped.old_shards
    assert compacted.old_ranges == stopped.old_ranges
    assert len(compacted.old_ranges) == len(compacted.old_shards) == 27
