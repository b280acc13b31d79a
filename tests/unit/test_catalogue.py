"""What raft knows: equal to what the server says, complete or an error, and 0.8.3's semantics."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures import Node
from fixtures import raft as encoder
from fixtures.encode import microseconds
from fixtures.raft import Command, Space
from fixtures.saved import state as saved_state
from shardtool.influxdb import catalogue
from shardtool.influxdb.catalogue import (
    Catalogue,
    CatalogueError,
    Dropped,
    Server,
    from_configuration,
    read_catalogue,
)
from shardtool.influxdb.raft import SnapshotFile, snapshot_files
from tests.needs import CAPTURES, lacking

Capture = Callable[[str], Path]

SHORT, LONG = encoder.SPACES
MONDAY = datetime(2014, 9, 1, tzinfo=UTC)
WEEK = timedelta(days=7)
ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)


class Raft:
    """A raft directory from commands alone: one list per run of the server."""

    def __init__(self, path: Path, *eras: list[Command]) -> None:
        self.path = path
        self.eras = [[encoder.join()], *eras]
        self.commands = [command for era in self.eras for command in era]
        (path / "snapshot").mkdir(parents=True)
        (path / "name").write_bytes(encoder.NAME)
        self.write()

    def write(self, first: int = 1, last: int | None = None) -> None:
        log = encoder.encode_log(self.eras, first=first)
        entries = encoder.read_log(log)
        if last is not None:
            keep = [e for e in entries if e.index <= last]
            log = log[: len(log) - sum(len(_again(e)) for e in entries[len(keep) :])]
        (self.path / "log").write_bytes(log)

    def snapshot(self, index: int, term: int = 1, *, by: str = "0.8") -> Path:
        version: Any = by
        state = saved_state(self.commands[:index], version)
        path = self.path / "snapshot" / encoder.snapshot_name(index, term)
        path.write_bytes(encoder.encode_snapshot(index, term, state))
        return path

    @property
    def catalogue(self) -> Catalogue:
        return read_catalogue(self.path)


def _again(entry: encoder.Entry) -> bytes:
    return encoder.encode_entry(entry.index, entry.term, Command(entry.name, entry.command))


def shard_08(database: str = "test", space: Space = SHORT, week: int = 0) -> Command:
    start = MONDAY + week * WEEK
    return encoder.create_shards_08(space.name, database, start, start + WEEK)


def shard_07(week: int = 0, count: int = 1) -> Command:
    weeks = range(week, week + count)
    return encoder.create_shards_07([(MONDAY + n * WEEK, MONDAY + (n + 1) * WEEK) for n in weeks])


def ids_of(series: str, *columns: str, database: str = "test") -> Command:
    return encoder.create_series_field_ids(database, series, columns)


def remove_space(database: str, name: str) -> Command:
    return Command("remove_shard_space", {"Database": database, "Name": name})


def update_space(database: str, space: Space) -> Command:
    return Command("update_shard_space", encoder.add_shard_space(database, space).payload)


READY = [encoder.create_db("test"), encoder.add_shard_space("test", SHORT)]


# -- captures --


def configuration() -> Any:
    path = CAPTURES / "http-08" / "43-cluster-configuration-after.txt"
    if not path.is_file():
        lacking(str(path))
    content = path.read_text(encoding="utf-8")
    return json.JSONDecoder().raw_decode(content[content.index('{"Databases"') :])[0]


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


# -- nodes of the builder, whole and compacted --


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


# -- shard numbers --


def test_numbers_go_on_after_those_of_07(tmp_path: Path) -> None:
    raft = Raft(tmp_path / "raft", [shard_07(0, 3)], [*READY, shard_08()])
    assert [shard.id for shard in raft.catalogue.shards] == [4]


def test_a_range_that_07_was_asked_for_twice_takes_two_numbers_of_08(tmp_path: Path) -> None:
    raft = Raft(tmp_path / "raft", [shard_07(), shard_07()], [*READY, shard_08()])
    assert [shard.id for shard in raft.catalogue.shards] == [3]


def test_a_range_that_exists_in_its_space_takes_no_number(tmp_path: Path) -> None:
    other = encoder.add_shard_space("test", LONG)
    again = [shard_08(), shard_08(), shard_08(space=LONG), shard_08(week=1)]
    raft = Raft(tmp_path / "raft", [*READY, other, *again])
    found = [(shard.id, shard.space) for shard in raft.catalogue.shards]
    assert found == [(1, "short_term"), (2, "long_term"), (3, "short_term")]


def test_a_range_of_an_unknown_space_uses_its_number_up(tmp_path: Path) -> None:
    raft = Raft(tmp_path / "raft", [*READY, shard_08("nosuch"), shard_08(space=LONG), shard_08()])
    assert [shard.id for shard in raft.catalogue.shards] == [3]


def test_split_shards_share_a_range_and_have_owners(tmp_path: Path) -> None:
    made = encoder.create_shards_08("short_term", "test", MONDAY, MONDAY + WEEK, [(1,), (2, 1)])
    raft = Raft(tmp_path / "raft", [*READY, made, made])
    assert [(shard.id, shard.servers) for shard in raft.catalogue.shards] == [
        (1, (1,)),
        (2, (2, 1)),
    ]


def test_a_range_can_be_made_again_when_its_last_shard_is_dropped(tmp_path: Path) -> None:
    made = encoder.create_shards_08("short_term", "test", MONDAY, MONDAY + WEEK, [(1,), (1,)])
    drops = [encoder.drop_shard(1), made, encoder.drop_shard(2), made]
    raft = Raft(tmp_path / "raft", [*READY, made, *drops])
    assert [shard.id for shard in raft.catalogue.shards] == [3, 4]


def test_a_dropped_shard_is_gone_and_its_number_stays_used(tmp_path: Path) -> None:
    raft = Raft(tmp_path / "raft", [*READY, shard_08(), encoder.drop_shard(1), shard_08()])
    assert [shard.id for shard in raft.catalogue.shards] == [2]


def test_a_shard_dropped_from_one_of_its_servers_keeps_the_other(tmp_path: Path) -> None:
    made = encoder.create_shards_08("short_term", "test", MONDAY, MONDAY + WEEK, [(1, 2)])
    raft = Raft(tmp_path / "raft", [*READY, made, encoder.drop_shard(1)])
    assert raft.catalogue.shards[0].servers == (2,)


# -- spaces --


def test_a_new_space_is_asked_first_and_a_second_of_its_name_is_refused(tmp_path: Path) -> None:
    twice = encoder.add_shard_space("test", SHORT._replace(regex="/b/"))
    raft = Raft(tmp_path / "raft", [*READY, encoder.add_shard_space("test", LONG), twice])
    found = [(space.name, space.regex) for space in raft.catalogue.spaces["test"]]
    assert found == [("long_term", "/^[A-Z].*/"), ("short_term", "/.*/")]


def test_a_space_of_an_unknown_database_is_refused_but_the_default_one(tmp_path: Path) -> None:
    default = encoder.add_shard_space("gone", Space("default", "/.*/", 7))
    raft = Raft(tmp_path / "raft", [encoder.add_shard_space("gone", SHORT), default])
    assert [space.name for space in raft.catalogue.spaces["gone"]] == ["default"]


def test_a_space_says_one_where_nothing_was_said_of_split_and_replication(tmp_path: Path) -> None:
    zero = encoder.add_shard_space("test", LONG._replace(split=0, replication=0))
    space = Raft(tmp_path / "raft", [*READY, zero]).catalogue.spaces["test"][0]
    assert (space.split, space.replication) == (1, 1)


def test_an_updated_space_keeps_its_place(tmp_path: Path) -> None:
    updates = [
        update_space("test", SHORT._replace(days=1, retention="30d")),
        update_space("test", Space("nosuch", "/.*/", 7)),
    ]
    raft = Raft(tmp_path / "raft", [*READY, encoder.add_shard_space("test", LONG), *updates])
    long_term, short_term = raft.catalogue.spaces["test"]
    assert long_term.name == "long_term"
    assert (short_term.shard_duration, short_term.retention) == ("1d", "30d")


def test_a_removed_space_takes_its_shards_along(tmp_path: Path) -> None:
    both = [encoder.add_shard_space("test", LONG), shard_08(), shard_08(space=LONG)]
    removals = [remove_space("test", "short_term"), remove_space("test", "nosuch")]
    found = Raft(tmp_path / "raft", [*READY, *both, *removals]).catalogue
    assert [space.name for space in found.spaces["test"]] == ["long_term"]
    assert [shard.id for shard in found.shards] == [2]
    assert found.dropped == Dropped(spaces=frozenset({("test", "short_term")}))


def test_a_database_without_its_last_space_has_none(tmp_path: Path) -> None:
    found = Raft(tmp_path / "raft", [*READY, remove_space("test", "short_term")]).catalogue
    assert found.spaces == {}


# -- ids, databases, series --


def test_a_dropped_database_loses_ids_spaces_and_shards(tmp_path: Path) -> None:
    commands = [*READY, shard_08(), ids_of("cpu", "a"), encoder.drop_db("test")]
    found = Raft(tmp_path / "raft", commands).catalogue
    assert (found.databases, found.ids, found.spaces, found.shards) == (frozenset(), {}, {}, ())
    assert found.dropped == Dropped(databases=frozenset({"test"}))


def test_what_is_made_again_gets_new_ids_and_stays_dropped(tmp_path: Path) -> None:
    once = [ids_of("cpu", "a", "b"), ids_of("mem", "a")]
    drops = [encoder.drop_series("test", "cpu"), encoder.drop_series("test", "nosuch")]
    again = [encoder.drop_db("test"), *READY, ids_of("cpu", "a")]
    raft = Raft(tmp_path / "raft", [*READY, *once, *drops, ids_of("cpu", "b", "a"), *again])
    found = raft.catalogue
    assert found.ids == {"test": {"cpu": {"a": 6}}}
    assert found.databases == {"test"}
    assert found.dropped == Dropped(frozenset({"test"}), frozenset({("test", "cpu")}))


def test_a_column_that_has_an_id_keeps_it(tmp_path: Path) -> None:
    raft = Raft(tmp_path / "raft", [*READY, ids_of("cpu", "b", "a", "b"), ids_of("cpu", "a", "c")])
    assert raft.catalogue.ids == {"test": {"cpu": {"b": 1, "a": 2, "c": 3}}}


def test_dropping_an_unknown_database_leaves_even_its_ids(tmp_path: Path) -> None:
    raft = Raft(tmp_path / "raft", [ids_of("cpu", "a", database="late"), encoder.drop_db("late")])
    assert raft.catalogue.ids == {"late": {"cpu": {"a": 1}}}
    assert raft.catalogue.dropped == Dropped()


def test_what_07_dropped_is_not_dropped_by_08(tmp_path: Path) -> None:
    before = [encoder.create_db("old"), encoder.drop_db("old")]
    assert Raft(tmp_path / "raft", before, READY).catalogue.dropped == Dropped()


# -- servers --


def test_servers_are_numbered_as_they_join(tmp_path: Path) -> None:
    joins = [encoder.join(b"aa"), encoder.join(), encoder.join(b"bb")]
    found = Raft(tmp_path / "raft", joins).catalogue
    assert found.servers == (Server(1, "ab01bbc6779e57"), Server(2, "aa"), Server(3, "bb"))


def test_a_server_that_was_forced_to_leave_is_gone(tmp_path: Path) -> None:
    commands = [encoder.join(b"aa"), encoder.join(b"bb"), Command("force_leave", {"id": 2})]
    found = Raft(tmp_path / "raft", commands).catalogue
    assert found.servers == (Server(1, "ab01bbc6779e57"), Server(3, "bb"))


def test_the_own_server_is_the_one_of_the_name(tmp_path: Path) -> None:
    raft = Raft(tmp_path / "raft", [encoder.join(b"aa")])
    for name, number in ((b"aa", 2), (b"ab01bbc6779e57", 1), (b"unknown", None)):
        (raft.path / "name").write_bytes(name)
        assert raft.catalogue.own_server == number
    (raft.path / "name").unlink()
    assert raft.catalogue.own_server is None


# -- snapshots, gaps and what was dropped before them --

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


# -- hostile content --


@pytest.mark.parametrize(
    "command",
    [
        Command("create_db", b"{"),
        Command("create_db", b""),
        Command("create_db", b"[" * 100_000),
        Command("create_db", []),
        Command("create_db", {"name": 1}),
        Command("drop_shard", {"ShardId": -1}),
        Command("drop_shard", {"ShardId": True}),
        Command("create_shards", {"Shards": [1]}),
        Command("create_shards", {"Shards": [{"StartTime": "yesterday"}]}),
        Command("create_series_field_ids", {"Database": "x", "Series": [{"fields": [{}]}]}),
        Command("add_shard_space", {"ShardSpace": {"split": "1"}}),
    ],
)
def test_a_command_that_is_none_is_named_with_its_offset(tmp_path: Path, command: Command) -> None:
    raft = Raft(tmp_path / "raft", [command])
    offset = len(encoder.encode_log([[encoder.join()]]))
    with pytest.raises(CatalogueError) as error:
        _ = raft.catalogue
    assert f"{raft.path}/log: at offset {offset}, entry 2: {command.name}" in str(error.value)
    assert "\n" not in str(error.value)


def test_commands_about_other_things_are_not_even_read(tmp_path: Path) -> None:
    raft = Raft(tmp_path / "raft", [*READY, Command("save_db_user", b"{"), Command("nosuch")])
    assert raft.catalogue.databases == {"test"}


@given(ANYTHING)
def test_a_configuration_of_any_shape_is_read_or_refused(document: Any) -> None:
    with pytest.raises(CatalogueError):
        from_configuration(document)


@given(st.data())
def test_a_configuration_with_any_part_changed_is_read_or_refused(data: st.DataObject) -> None:
    document: Any = copy.deepcopy(CONFIGURATION)
    at, key = document, data.draw(st.sampled_from(sorted(document)))
    for _ in range(data.draw(st.integers(0, 4))):
        inner = at[key]
        if not isinstance(inner, (dict, list)) or not inner:
            break
        keys: list[Any] = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
        at, key = inner, data.draw(st.sampled_from(keys))
    at[key] = data.draw(ANYTHING)
    try:
        from_configuration(document)
    except CatalogueError as error:
        assert "\n" not in str(error)


SPACE = {
    "name": "short_term",
    "database": "test",
    "regex": "/.*/",
    "retentionPolicy": "inf",
    "shardDuration": "7d",
    "replicationFactor": 1,
    "split": 1,
}
CONFIGURATION: dict[str, Any] = {
    "Databases": {"test": 0},
    "Servers": [{"Id": 1, "RaftName": "aa"}],
    "MetaStore": {"StringsToIds": {"test": {"cpu": {"value": 1}}}, "LastIdUsed": 1},
    "LastShardIdUsed": 3,
    "DatabaseShardSpaces": {"test": [SPACE]},
    "Shards": [
        {
            "Id": 3,
            "SpaceName": "short_term",
            "Database": "test",
            "StartTime": "2014-09-01T02:00:00.5+02:00",
            "EndTime": "2014-09-08T00:00:00Z",
            "ServerIds": [1],
        }
    ],
}


def test_times_of_a_configuration_may_have_zones_and_fractions() -> None:
    (shard,) = from_configuration(CONFIGURATION).shards
    assert shard.start_us == 1_409_529_600_500_000
    assert shard.end_us - shard.start_us == 7 * 86_400_000_000 - 500_000


@pytest.mark.parametrize(
    "time",
    [
        "2014-13-01T00:00:00Z",
        "2014-00-01T00:00:00Z",
        "2014-01-32T00:00:00Z",
        "2014-01-01T24:00:00Z",
        "2014-01-01T00:60:00Z",
        "2014-01-01T00:00:60Z",
        "2014-01-01T00:00:00",
        "2014-01-01",
        "٢٠١٤-01-01T00:00:00Z",
        1409529600,
        None,
    ],
)
def test_what_is_no_time_is_refused(time: object) -> None:
    document = copy.deepcopy(CONFIGURATION)
    document["Shards"][0]["EndTime"] = time
    with pytest.raises(CatalogueError, match=r"Shards\.EndTime: expected a time, found"):
        from_configuration(document)


@given(st.datetimes(timezones=st.just(UTC)))
def test_every_time_is_the_moment_that_datetime_says(moment: datetime) -> None:
    document = copy.deepcopy(CONFIGURATION)
    document["Shards"][0]["StartTime"] = moment.isoformat()
    (shard,) = from_configuration(document).shards
    assert shard.start_us == microseconds(moment)


def test_what_go_leaves_out_or_calls_null_is_empty() -> None:
    found = from_configuration({"MetaStore": {"StringsToIds": None}, "Shards": None})
    assert (found.ids, found.shards, found.databases) == ({}, (), frozenset())


def test_a_configuration_of_07_is_refused() -> None:
    with pytest.raises(CatalogueError, match=r"expected the configuration of a 0\.8"):
        from_configuration({"Databases": {}, "ShortTermShards": []})


# -- 0.7's own shards --


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
