"""Findings about what is in the shards and in the WAL, as pure functions of the facts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shardtool.datadir.inventory import OldShard
from shardtool.datadir.marker import Marker
from shardtool.datadir.server import Search, Server
from shardtool.datadir.verdict import Evidence, judge
from shardtool.disk.tree import Tree
from shardtool.upgrade.facts import Asked
from shardtool.upgrade.foresight import Skipped
from shardtool.upgrade.wal_only import Gap, Target, WalOnly
from tests.unit.facts_world import (
    FACTS,
    GOOD,
    MARKED,
    OF_07,
    READ,
    SHORT,
    WAITING,
    blockers,
    by_id,
)

# -- values that will not come over --


@pytest.mark.parametrize(
    ("cause", "word", "level"),
    [
        ("future", "skips-future", "warning"),
        ("name", "skips-names", "warning"),
        ("unknown-database", "skips-databases", "warning"),
        ("expired", "retention", "blocker"),
    ],
)
def test_what_will_not_come_over_is_told_with_counts(cause: str, word: str, level: str) -> None:
    skipped = (
        Skipped("test", "cpu", cause, 40, ("00007",)),
        Skipped("test", "mem", cause, 1200, ("00007",)),
    )
    found = by_id(replace(FACTS, foresight=replace(READ, skipped=skipped)))[word]
    assert found.level == level
    assert found.message.startswith("1,240 of 1,000 ")
    assert "test/mem (1,200), test/cpu (40)" in found.message


def test_without_reading_a_space_that_forgets_blocks_and_others_are_only_unknown() -> None:
    unread = replace(FACTS, foresight=None, is_read=False)
    assert by_id(unread)["not-read"].level == "info"
    forgets = {"test": (replace(SHORT, retention="30d"),)}
    facts = replace(unread, asked=Asked("http://db1", "0.8.3", forgets, ()))
    assert blockers(facts) == ["retention"]
    assert "test/short_term (30d)" in by_id(facts)["retention"].message


def test_a_shard_that_no_engine_reads_blocks_and_one_that_changes_does_not() -> None:
    unread = (("00007", "engine-unreadable", "corrupt"),)
    assert blockers(replace(FACTS, foresight=replace(READ, unread=unread))) == ["engine-unreadable"]
    unread = (("00007", "changing", "it changes"),)
    assert blockers(replace(FACTS, foresight=replace(READ, unread=unread))) == []


# -- the WAL --

OLD_GAP = Gap(Target(True, "00007"), True, "own", 2, 1, 0, (("test", "cpu", 3),))
NEW_GAP = Gap(Target(False, "00012"), True, "own", 2, 0, 0, (("test", "cpu", 2),))


def test_writes_that_only_the_old_wal_holds_block_the_upgrade() -> None:
    found = by_id(replace(OF_07, wal=WalOnly(1, 3, (OLD_GAP,))))["wal-only"]
    assert found.blocks
    assert "3 values (00007: 3) are in 0.7's WAL alone" in found.message
    assert "start 0.7 once more" in found.advice


def test_after_the_upgrade_the_way_back_is_told_and_gone_shards_are_only_a_warning() -> None:
    found = by_id(replace(FACTS, wal=WalOnly(1, 3, (OLD_GAP,))))["wal-only"]
    assert found.blocks
    assert "restore" in found.advice
    gone = replace(OLD_GAP, is_there=False)
    assert blockers(replace(FACTS, wal=WalOnly(1, 3, (gone,)))) == []


@pytest.mark.parametrize(
    ("owner", "word"), [("other", "wal-of-others"), ("dropped", "wal-of-dropped")]
)
def test_writes_for_shards_that_are_not_this_servers_block_nothing(owner: str, word: str) -> None:
    gap = replace(OLD_GAP, owner=owner, is_there=False)
    found = by_id(replace(OF_07, wal=WalOnly(1, 3, (gap,))))
    assert found[word].level == "info"
    assert "wal-only" not in found


def test_the_torn_end_of_a_log_is_told() -> None:
    found = by_id(replace(OF_07, wal=WalOnly(1, 3, torn={"log.1": 17})))
    assert found["wal-torn"].message.startswith("log.1: the last 17 bytes")


@pytest.mark.parametrize("since", [(3, 0), (0, 5), (1, 1)])
def test_a_snapshot_that_07_went_on_after_is_no_way_back(since: tuple[int, int]) -> None:
    facts = replace(FACTS, raft_of_07_since=since[0], wal=WalOnly(1, 3, after_snapshot=since[1]))
    assert blockers(facts) == ["snapshot-outdated"]


def test_a_snapshot_whose_raft_does_not_go_on_to_todays_is_a_warning() -> None:
    facts = replace(FACTS, snapshot=replace(GOOD, raft_bytes=None))
    assert by_id(facts)["snapshot"].level == "warning"


def test_08s_own_wal_is_drained_by_a_running_server() -> None:
    stopped = by_id(replace(FACTS, wal=WalOnly(1, 2, (NEW_GAP,))))["wal-not-drained"]
    running = Search(Server(4711, "influxdb", "has /data/wal/log.1 open"))
    live = by_id(replace(FACTS, wal=WalOnly(1, 2, (NEW_GAP,)), search=running))["wal-not-drained"]
    assert (stopped.level, live.level) == ("warning", "info")


def test_a_count_that_is_too_low_says_so() -> None:
    found = by_id(replace(OF_07, wal=WalOnly(1, 3, (OLD_GAP,), is_all=False)))["wal-only"]
    assert found.message.startswith("at least 3 values")


def test_a_wal_that_can_not_be_read_to_its_end_blocks() -> None:
    problem = "/data/wal/log.1: at offset 7: garbage"
    assert by_id(replace(OF_07, wal=WalOnly(problem=problem)))["wal-unreadable"].message == problem


def test_values_that_may_have_been_deleted_are_a_warning_and_no_all_clear() -> None:
    gap = replace(OLD_GAP, missing=0, newer=0, doubtful=5)
    found = by_id(replace(OF_07, wal=WalOnly(2, 5, (gap,))))
    assert found["wal-deleted"].level == "warning"
    assert not {"wal-only", "wal"} & found.keys()


# -- entries of shard_db --


@pytest.mark.parametrize(
    ("shard", "word"),
    [
        (OldShard("00009", kind="symlink"), "symlink"),
        (OldShard("00009"), "not-a-shard"),
        (OldShard("00009", marker=Marker(True, 1), tree=Tree(files=1)), "not-a-shard"),
        (OldShard("backup-2014", has_database=True), "not-a-shard"),
        (OldShard("00009", has_database=True, foreign=("notes.txt",)), "foreign-files"),
    ],
)
def test_what_is_no_shard_is_told_with_what_the_migrator_does_to_it(
    shard: OldShard, word: str
) -> None:
    found = by_id(replace(FACTS, old=(WAITING, judge(shard))))[word]
    assert (found.level, found.subject) == ("warning", shard.name)


def test_what_is_left_of_a_leveldb_without_its_current_blocks() -> None:
    for shard in (
        OldShard("00009", tree=Tree(files=1)),
        OldShard("00009", tree=Tree(files=3), foreign=("notes", "more")),
    ):
        assert blockers(replace(FACTS, old=(WAITING, judge(shard)))) == ["ruins"]


def test_ruins_that_are_marked_are_passed_by_and_block_nothing() -> None:
    shard = OldShard("00009", marker=Marker(True, 1), tree=Tree(files=2))
    found = by_id(replace(FACTS, old=(WAITING, judge(shard))))["not-a-shard"]
    assert (found.level, "passes it by" in found.message) == ("warning", True)


def test_a_file_among_the_shards_is_passed_by() -> None:
    shard = judge(OldShard("backup.tar", kind="file"))
    found = by_id(replace(FACTS, old=(WAITING, shard)))["not-a-shard"]
    assert found.level == "info"
    assert "passes it by" in found.message


def test_a_copy_of_a_shard_under_another_name_is_migrated_too_and_that_is_told() -> None:
    copy = judge(OldShard("00007.bak", has_database=True))
    facts = replace(FACTS, old=(WAITING, copy))
    assert facts.todo == (WAITING, copy)
    assert "once more" in by_id(facts)["not-a-shard"].message


def test_an_entry_that_can_not_be_looked_at_blocks() -> None:
    shard = OldShard("00009", error="Permission denied")
    assert blockers(replace(FACTS, old=(WAITING, judge(shard)))) == ["unreadable"]


def test_a_marker_in_a_directory_that_no_08_has_been_to_is_told() -> None:
    assert by_id(replace(OF_07, old=(WAITING, MARKED)))["marked-before"].subject == "00008"


def test_marked_shards_are_told_apart_by_what_is_proven_of_them() -> None:
    lossy = judge(MARKED.shard, Evidence(values=10, missing=3, different=1))
    assert "4 values" in by_id(replace(FACTS, old=(WAITING, lossy)))["losses"].message
    assert by_id(FACTS)["not-proven"].subject == "00008"
    proven = judge(MARKED.shard, Evidence(values=10))
    found = by_id(replace(FACTS, old=(WAITING, proven)))
    assert not {"losses", "not-proven"} & found.keys()


def test_a_marker_that_cannot_be_read_blocks() -> None:
    shard = OldShard("00009", marker=Marker(True, 1, "marker-unreadable", "EIO"), has_database=True)
    assert blockers(replace(FACTS, old=(WAITING, judge(shard)))) == ["marker-unreadable"]


def test_a_new_shard_that_cannot_be_looked_at_blocks_and_is_named() -> None:
    found = by_id(replace(FACTS, new_unreadable=(("00052", "Input/output error"),)))
    assert found["new-unreadable"].blocks
    assert found["new-unreadable"].subject == "00052"
    assert "Input/output error" in found["new-unreadable"].message
