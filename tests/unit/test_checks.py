"""Findings, as pure functions of the facts: what is told, how bad it is, what to do."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardtool.datadir.server import Search, Server
from shardtool.datadir.verdict import Judged
from shardtool.influxdb.model import ClusterServer, ShardRange, Space
from shardtool.influxdb.model import Server as Member
from shardtool.snapshots.freshness import Newest
from shardtool.upgrade.checks import findings
from shardtool.upgrade.facts import Asked
from shardtool.upgrade.findings import LEVELS, Finding, worst_first
from shardtool.upgrade.foresight import Skipped
from shardtool.upgrade.wal_only import Gap, Target, WalOnly
from tests.unit.facts_world import (
    FACTS,
    GOOD,
    LONG,
    MARKED,
    OF_07,
    RAFT,
    READ,
    ROOM,
    SHORT,
    STORE,
    WAITING,
    blockers,
    by_id,
)


def test_a_node_that_is_ready_has_neither_blockers_nor_warnings() -> None:
    for facts in (FACTS, OF_07):
        assert {one.level for one in findings(facts)} == {"info"}


def test_blockers_come_first_and_what_is_of_one_level_stays_as_it_was() -> None:
    several = [Finding(str(n), LEVELS[n % 3], "", "") for n in range(9)]
    assert [one.id for one in worst_first(several)] == list("258147036")


# -- the snapshot --


@pytest.mark.parametrize(
    ("newest", "expected"),
    [
        (Newest(STORE), "no-snapshot"),
        (replace(GOOD, problem="data/raft/log: missing"), "snapshot-damaged"),
        (replace(GOOD, changed=("raft/log", "wal/log.1")), "snapshot-outdated"),
        (None, "snapshot-unreadable"),
    ],
)
def test_before_the_upgrade_only_a_whole_snapshot_of_what_is_there_will_do(
    newest: Newest | None, expected: str
) -> None:
    facts = replace(OF_07, snapshot=newest, snapshot_problem="/data/snapshots: no permission")
    assert blockers(facts) == [expected]


def test_what_changed_since_the_snapshot_is_named() -> None:
    facts = replace(OF_07, snapshot=replace(GOOD, changed=("raft/log", "wal/log.1")))
    assert "raft/log, wal/log.1" in by_id(facts)["snapshot-outdated"].message


def test_on_08_raft_has_changed_and_the_snapshot_of_before_is_what_is_wanted() -> None:
    assert blockers(replace(FACTS, snapshot=replace(GOOD, changed=("raft/log",)))) == []
    assert blockers(replace(FACTS, snapshot=Newest(STORE))) == ["no-snapshot"]


def test_when_everything_is_marked_a_snapshot_is_not_asked_for() -> None:
    assert blockers(replace(FACTS, old=(MARKED,), snapshot=Newest(STORE))) == []


# -- the server --


def test_before_the_upgrade_a_running_server_blocks_and_after_it_is_good_to_know() -> None:
    running = Search(Server(4711, "influxdb", "has /data/wal/log.1 open"))
    assert by_id(replace(OF_07, search=running))["server-running"].level == "blocker"
    assert by_id(replace(FACTS, search=running))["server-running"].level == "info"


def test_that_no_server_was_seen_is_no_certainty_where_processes_hide() -> None:
    assert "server-unknown" in by_id(replace(FACTS, search=Search(unseen=2)))
    assert "server-stopped" in by_id(FACTS)


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("0.8.0", "version-0.8.0"),
        ("0.8.0-rc.3", "version-0.8.0"),
        ("0.8.1", None),
        ("0.8.3", None),
        ("0.8.4", "version"),
        ("0.8.10", "version"),
        ("0.9.0", "version"),
        ("0.7.3", "version"),
        ("", "version"),
    ],
)
def test_only_080_to_083_migrate(version: str, expected: str | None) -> None:
    found = by_id(replace(FACTS, asked=Asked("http://db1:8086", version, RAFT.spaces, ())))
    assert {one for one in found if one.startswith("version")} == (
        {expected} if expected else set()
    )
    if expected:
        assert found[expected].level == ("blocker" if expected == "version" else "warning")


def test_a_later_08_is_fine_when_nothing_is_left_to_migrate() -> None:
    facts = replace(FACTS, old=(MARKED,), asked=Asked("http://db1:8086", "0.8.8", {}, ()))
    assert blockers(facts) == []


def test_that_nobody_was_asked_is_said_while_it_matters() -> None:
    assert by_id(replace(FACTS, asked=None))["not-asked"].level == "info"
    assert "not-asked" not in by_id(replace(FACTS, asked=None, old=(MARKED,)))
    assert "not-asked" not in by_id(OF_07)


def test_a_raft_snapshot_of_07_is_told_before_the_upgrade() -> None:
    assert "0.8.0" in by_id(replace(OF_07, raft_snapshot=True))["raft-snapshot"].message


# -- raft, spaces --


def test_a_space_with_shards_that_is_never_asked_hides_their_values() -> None:
    default = Space("default", "test", "/.*/", "inf", "7d", 1, 1)
    shards = tuple(ShardRange(n, "test", "default", 0, 1, (1,)) for n in (1, 2))
    raft = replace(RAFT, spaces={"test": (LONG, SHORT, default)}, shards=shards)
    found = by_id(replace(FACTS, raft=raft, asked=None))
    assert "space-order" not in found
    hidden = found["hidden-shards"]
    assert (hidden.level, hidden.subject) == ("warning", "test/default")
    assert "it has 2 shards, whose values no query finds" in hidden.message
    assert "put them in order" not in hidden.advice


def test_a_wrong_order_with_shards_blocks_and_says_what_is_hidden() -> None:
    shards = (ShardRange(1, "test", "long_term", 0, 1, (1,)),)
    raft = replace(RAFT, spaces={"test": (SHORT, LONG)}, shards=shards)
    facts = replace(FACTS, raft=raft, asked=None)
    assert blockers(facts) == ["space-order"]
    assert "'short_term' is gone" in by_id(facts)["space-order"].advice
    assert "it has 1 shard" in by_id(facts)["hidden-shards"].message


def test_a_raft_that_can_not_be_read_blocks_and_says_why() -> None:
    facts = replace(FACTS, raft=None, raft_problem="/data/raft/log: at offset 3: torn", asked=None)
    assert by_id(facts)["raft-unreadable"].message == "/data/raft/log: at offset 3: torn"


def test_a_raft_that_knows_no_database_blocks_a_migration() -> None:
    empty = replace(RAFT, databases=frozenset(), spaces={})
    assert "no-databases" in blockers(replace(FACTS, raft=empty))
    assert "no-databases" not in blockers(replace(FACTS, raft=empty, old=(MARKED,)))


def test_a_migration_that_would_take_nothing_blocks() -> None:
    skipped = (Skipped("gone", "cpu", "unknown-database", 1000, ("00007",)),)
    nothing = replace(READ, points=0, skipped=skipped)
    assert blockers(replace(FACTS, foresight=nothing)) == ["takes-nothing"]


def test_databases_without_spaces_are_named() -> None:
    raft = replace(RAFT, databases=frozenset({"test", "metrics", "logs"}))
    found = by_id(replace(FACTS, raft=raft))["no-spaces"]
    assert (found.blocks, found.subject) == (True, "logs, metrics")


def test_spaces_in_the_wrong_order_block() -> None:
    wrong = {"test": (SHORT, LONG)}
    facts = replace(FACTS, asked=Asked("http://db1:8086", "0.8.3", wrong, ()))
    assert by_id(facts)["space-order"].subject == "test/long_term"
    assert blockers(facts) == ["space-order"]


def test_what_the_server_says_of_spaces_counts_more_than_raft_on_disk() -> None:
    facts = replace(FACTS, raft=replace(RAFT, spaces={}))
    assert blockers(facts) == []
    assert blockers(replace(facts, asked=None)) == ["no-spaces"]


def test_the_default_space_behind_one_for_everything_is_no_blocker() -> None:
    default = Space("default", "test", "/.*/", "inf", "7d", 1, 1)
    facts = replace(FACTS, asked=Asked("http://db1", "0.8.3", {"test": (LONG, SHORT, default)}, ()))
    assert by_id(facts)["space-order"].level == "warning"


def test_a_series_that_no_space_takes_blocks_where_there_are_others() -> None:
    only = {"test": (LONG,)}
    read = replace(READ, to_come={("test", "Mem"): 5, ("test", "cpu"): 7, ("logs", "x"): 1})
    asked = Asked("http://db1:8086", "0.8.3", only, ())
    assert by_id(replace(FACTS, asked=asked, foresight=read))["no-space-for"].subject == "test/cpu"
    assert blockers(replace(FACTS, asked=asked, foresight=read)) == ["no-space-for"]
    assert "no-space-for" not in by_id(replace(FACTS, foresight=read))


def test_alone_too_the_server_asked_has_to_be_the_one_on_this_directory() -> None:
    asked = Asked("http://localhost:8086", "0.8.3", RAFT.spaces, (), is_here=False)
    assert blockers(replace(FACTS, asked=asked)) == ["other-server"]


# -- room --


def test_too_little_room_blocks_and_hardly_enough_is_a_warning() -> None:
    for free, level in ((1000, "blocker"), (1 << 30, "warning"), (2 << 30, "info")):
        room = replace(ROOM, free_bytes=free)
        assert by_id(replace(FACTS, room=room))["disk-space"].level == level


def test_what_an_engine_may_preallocate_is_counted_but_does_not_block() -> None:
    room = replace(ROOM, preallocated_bytes=200 << 30)
    assert by_id(replace(FACTS, room=room))["disk-space"].level == "warning"


def test_too_few_open_files_are_a_warning_and_no_limit_is_nothing_to_tell() -> None:
    assert by_id(FACTS)["open-files"].level == "info"
    room = replace(ROOM, files=2000)
    assert by_id(replace(FACTS, room=room))["open-files"].level == "warning"
    assert "open-files" not in by_id(replace(FACTS, room=replace(ROOM, most_files=None)))


def test_the_pauses_alone_are_told_as_the_least_that_a_migration_takes() -> None:
    message = by_id(replace(FACTS, pause_us=60_000_000))["duration"].message
    assert "500 points (1,000 values) in 1 shard: 3 pauses of 1m take 3m;" in message
    assert message.endswith("it is 3m in all")


# -- a cluster --


def test_in_a_cluster_servers_and_their_shards_are_told() -> None:
    shards = tuple(
        ShardRange(number, "test", "short_term", 0, 1, (number % 2 + 1,)) for number in range(1, 12)
    )
    raft = replace(RAFT, servers=(Member(1, "ab01"), Member(2, "ab02")), shards=shards)
    live = (ClusterServer(2, "ab02", True, "Leader", "db2:8099"),)
    asked = Asked("http://db1:8086", "0.8.3", raft.spaces, live)
    found = by_id(replace(FACTS, raft=raft, asked=asked))
    assert "1 (ab01), 2 (ab02 at db2:8099, the leader)" in found["cluster"].message
    assert "this is server 1" in found["cluster"].message
    assert "server 2 has 00001, 00003" in found["cluster-shards"].message
    assert "cluster" not in by_id(FACTS)


def test_on_07_old_shards_are_said_to_be_whose_they_are() -> None:
    old = {number: (number % 2 + 1, 3) for number in range(1, 10)}
    servers = tuple(Member(number, f"ab0{number}") for number in (1, 2, 3, 4))
    facts = replace(OF_07, raft=replace(RAFT, spaces={}, servers=servers, old_shards=old))
    message = by_id(facts)["cluster-shards"].message
    assert message.startswith("old shards: server 1 has 00002, 00004, 00006, 00008; server 2 has ")
    assert message.endswith("00006 and 3 more; server 4 has none")


def test_a_server_of_another_node_blocks() -> None:
    theirs = (ClusterServer(1, "cd02", True, "Leader", "db9:8099"),)
    facts = replace(FACTS, asked=Asked("http://db9:8086", "0.8.3", RAFT.spaces, theirs))
    assert blockers(facts) == ["other-server"]
    assert "cd02" in by_id(facts)["other-server"].message
    ours = (ClusterServer(1, "ab01", True, "Leader", "db1:8099"),)
    assert blockers(replace(FACTS, asked=Asked("http://db1", "0.8.3", RAFT.spaces, ours))) == []


@pytest.mark.parametrize(
    ("is_here", "level"), [(True, None), (None, "blocker"), (False, "blocker")]
)
def test_in_a_cluster_the_server_asked_has_to_be_the_one_on_this_directory(
    is_here: bool | None, level: str | None
) -> None:
    members = tuple(ClusterServer(n, f"ab0{n}", n == 1, "Leader", f"db{n}:8099") for n in (1, 2))
    asked = Asked("http://localhost:8086", "0.8.3", RAFT.spaces, members, is_here)
    found = by_id(replace(FACTS, asked=asked))
    assert (found["other-server"].level if level else "other-server" in found) == (level or False)


# -- anything at all --

NAMES = st.text(max_size=6)
SKIPPED = st.builds(
    Skipped,
    NAMES,
    NAMES,
    st.sampled_from(["future", "name", "unknown-database", "expired"]),
    st.integers(1, 1 << 40),
    st.lists(NAMES, min_size=1, max_size=3).map(tuple),
)
GAPS = st.builds(
    Gap,
    st.builds(Target, st.booleans(), NAMES),
    st.booleans(),
    st.sampled_from(["own", "other", "dropped"]),
    st.integers(0, 9),
    st.integers(0, 9),
    st.integers(0, 9),
    st.just(()),
)


@given(
    is_08=st.booleans(),
    skipped=st.lists(SKIPPED, max_size=4).map(tuple),
    gaps=st.lists(GAPS, max_size=4).map(tuple),
    free=st.integers(0, 1 << 60),
    files=st.integers(0, 1 << 40),
    version=st.none() | st.text(max_size=8),
    old=st.lists(st.sampled_from([WAITING, MARKED]), max_size=2).map(tuple),
)
def test_any_facts_give_findings_of_one_line_each(
    is_08: bool,
    skipped: tuple[Skipped, ...],
    gaps: tuple[Gap, ...],
    free: int,
    files: int,
    version: str | None,
    old: tuple[Judged, ...],
) -> None:
    facts = replace(
        FACTS,
        is_08=is_08,
        old=old,
        foresight=replace(READ, skipped=skipped),
        wal=WalOnly(1, 1, gaps),
        room=replace(ROOM, free_bytes=free, files=files),
        asked=None if version is None else Asked("http://db1", version, {}, ()),
    )
    found = findings(facts)
    assert found
    assert all(one.level in LEVELS and one.id and one.message for one in found)
    lossy = {one.id for one in found if one.id in ("skips-future", "skips-names", "retention")}
    assert bool(lossy) == any(one.cause != "unknown-database" for one in skipped)
