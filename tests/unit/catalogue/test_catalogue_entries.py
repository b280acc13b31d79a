"""What raft's entries make of shards, spaces, ids, databases, series and servers."""

from __future__ import annotations

from pathlib import Path

from fixtures import raft as encoder
from fixtures.raft import Command, Space
from shardtool.influxdb.catalogue import (
    Dropped,
    Server,
)
from tests.unit.catalogue.world import (
    LONG,
    MONDAY,
    READY,
    SHORT,
    WEEK,
    Raft,
    ids_of,
    remove_space,
    shard_07,
    shard_08,
)


def update_space(database: str, space: Space) -> Command:
    return Command("update_shard_space", encoder.add_shard_space(database, space).payload)


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
