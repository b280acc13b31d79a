"""Old shards proven against new ones of real engines: exactly what is missing, and never less."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures import MARKED_AT, Column, Node, Row, read
from fixtures.encode import Value, microseconds, old_id, value_key
from fixtures.engines import Engine, Storage
from fixtures.raft import Space
from shardtool.datadir.inventory import take_inventory
from shardtool.datadir.layout import find_layout
from shardtool.influxdb.catalogue import Catalogue
from shardtool.influxdb.engines import EngineError
from shardtool.proof import compare, run, storage
from shardtool.proof.causes import CAUSES
from shardtool.proof.evidence import local_shards
from shardtool.proof.prove import Asker, Finding, Question, Watcher, prove
from shardtool.proof.run import Job, Outcome, Setting, prove_all
from shardtool.proof.source import catalogue_of
from shardtool.proof.storage import LocalShard, NewStorage
from tests.needs import needs_plyvel

NOW = microseconds(MARKED_AT + timedelta(days=30))
MIB = 1 << 20
WEEK = timedelta(days=7)
START = datetime(2012, 2, 23, tzinfo=UTC)  # a Thursday: 7-day shards begin here
T0 = microseconds(START)
KINDS: tuple[tuple[Engine, Storage], ...] = (
    ("leveldb", "log"),
    ("leveldb", "tables"),
    ("rocksdb", "log"),
    ("lmdb", "log"),
)


class Quiet:
    """Watches, and says nothing."""

    def progress(self, *told: object) -> None:
        pass

    def lost(self, lost: object) -> None:
        pass

    def column_ends(self, cause: str) -> None:
        pass

    def listed(self, shard: str, piece: bytes) -> None:
        pass


def setting(node: Node) -> Setting:
    layout = find_layout(str(node.path), None, {})
    return Setting(catalogue_of(layout, None), local_shards(layout, take_inventory(layout)))


def question(node: Node, number: int, *, now_us: int = NOW) -> Question:
    shard = node.shard_db / f"{number:05d}"
    marker = shard / "MIGRATED"
    marked = marker.stat().st_mtime_ns // 1000 if marker.exists() else None
    return Question(shard, marked, now_us, "")


def proven(
    node: Node,
    number: int,
    *,
    catalogue: Catalogue | None = None,
    now_us: int = NOW,
    of: Setting | None = None,
) -> Finding:
    """Prove one shard in this process."""
    of = of or setting(node)
    with tempfile.TemporaryDirectory() as scratch:
        new = NewStorage(catalogue or of.catalogue, of.local, Path(scratch))
        with new:
            return prove(
                question(node, number, now_us=now_us),
                catalogue or of.catalogue,
                new,
                Path(scratch),
                Quiet(),
            )


def outcomes(node: Node, *numbers: int) -> dict[str, Outcome]:
    """Prove shards as the commands do, a process each."""
    jobs = [Job(question(node, number), number) for number in numbers or node.old]
    return {outcome.shard: outcome for outcome in prove_all(jobs, setting(node), Quiet())}


def lost_by_column(found: Finding) -> dict[Column, int]:
    lost: Counter[Column] = Counter()
    for loss in found.losses:
        name = Column(loss.name.database, loss.name.series, loss.name.column)
        lost[name] += loss.missing + loss.different
    return dict(lost)


def causes(found: Finding) -> dict[str, int]:
    told: Counter[str] = Counter()
    for loss in found.losses:
        told[loss.cause] += loss.missing + loss.different
    return dict(told)


def rows(
    count: int, *, first: int = 0, series: str = "s", column: str = "n", value: Value = 1
) -> list[Row]:
    """Return values a second apart, from T0 on."""
    return [
        Row("test", series, column, T0 + number * 1_000_000, 10_001, value)
        for number in range(first, first + count)
    ]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "data", version="0.8", phantoms=False, lmdb_map_size=MIB)


@pytest.fixture(params=[8, compare.BLOCK], ids=["small-blocks", "blocks"])
def any_block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "BLOCK", request.param)


# -- found, missing, different --


@pytest.mark.parametrize(("engine", "kept_as"), KINDS)
@pytest.mark.parametrize("old_storage", ["log", "tables"])
@pytest.mark.usefixtures("any_block")
def test_nothing_lost_is_nothing_missing(
    engine: Engine, kept_as: Storage, old_storage: Storage, node: Node
) -> None:
    node.old_shard(7, points=150, storage=old_storage, nulls_every=3)
    node.migrate(7, engine=engine, storage=kept_as)
    found = proven(node, 7)
    assert (found.missing, found.different, found.losses) == (0, 0, ())
    assert found.values == node.old[7].values == len(list(read.values(node.old[7].path)))
    assert found.new_states.keys() <= {path.name for path in node.shard_db_v2.iterdir()}
    assert found.new_states


@pytest.mark.parametrize(("engine", "kept_as"), KINDS)
@pytest.mark.parametrize(("lose", "change"), [(1, 0), (0, 1), (37, 11), (600, 0), (599, 1)])
@pytest.mark.usefixtures("any_block")
def test_each_loss_and_each_change_is_counted(
    engine: Engine, kept_as: Storage, lose: int, change: int, node: Node
) -> None:
    node.old_shard(7, points=150)
    done = node.migrate(7, lose=lose, change=change, engine=engine, storage=kept_as)
    found = proven(node, 7)
    assert (found.values, found.missing, found.different) == (600, done.lost, done.changed)
    expected = Counter(dict(done.lost_columns))
    if not change:
        assert lost_by_column(found) == dict(expected)
    assert sum(lost_by_column(found).values()) == lose + change


@pytest.mark.usefixtures("any_block")
def test_what_083_leaves_behind_is_missing_with_its_cause(node: Node) -> None:
    awkward = ["plain", "a~b", 'quo"te', "tilde", "tilde~x", "spoilt"]
    start = MARKED_AT - timedelta(days=3)
    node.old_shard(7, points=300, databases={"test": awkward, "d~b": ("s",)}, start=start)
    more = microseconds(MARKED_AT) - 5_000_000
    node.write_old(7, [Row("test", "spoilt", "c~d", more, 1, 1)], at=MARKED_AT - WEEK)
    done = node.migrate(7, like_083=True)
    found = proven(node, 7)
    assert found.missing == done.lost
    assert lost_by_column(found).keys() == done.lost_columns.keys()
    assert causes(found).keys() == {"future", "name"}
    later = sum(
        1
        for key, _ in read.values(node.old[7].path)
        if int.from_bytes(key[8:16]) - (1 << 63) > microseconds(MARKED_AT)
    )
    assert causes(found)["future"] == later


@pytest.mark.parametrize("replication", [1, 2])
@pytest.mark.usefixtures("any_block")
def test_a_split_space_is_looked_for_in_all_of_its_shards(replication: int, tmp_path: Path) -> None:
    spaces = (Space("all", "/.*/", 7, split=3, replication=replication),)
    node = Node(tmp_path / "data", version="0.8", spaces=spaces, servers=replication)
    node.old_shard(7, points=300, databases={"test": [f"s{n}" for n in range(9)]})
    done = node.migrate(7, lose=10)
    assert len(node.new) >= 3
    assert proven(node, 7).missing == done.lost == 10


@pytest.mark.slow
@pytest.mark.parametrize("most_open", [1, 2])
def test_more_shards_than_may_be_open_at_a_time_are_opened_in_turn(
    most_open: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "_MOST_OPEN", most_open)
    spaces = (Space("all", "/.*/", 7, split=5),)
    node = Node(tmp_path / "data", version="0.8", spaces=spaces)
    node.old_shard(7, points=300, days=21, databases={"test": [f"s{n}" for n in range(9)]})
    done = node.migrate(7, lose=10)
    assert proven(node, 7).missing == done.lost == 10


@pytest.mark.usefixtures("any_block")
def test_other_values_before_between_and_after_change_nothing(node: Node) -> None:
    old = rows(100)[10:90:2]
    node.old_shard(7, rows=old, start=START)
    node.migrate(7, lose=3)
    for other in (rows(10), rows(100)[11:90:2], rows(10, first=90), rows(100, column="other")):
        node.write_new(other)
    assert proven(node, 7).missing == 3


def test_a_value_that_a_client_wrote_over_is_different(node: Node) -> None:
    node.old_shard(7, rows=rows(10), start=START)
    node.migrate(7)
    node.write_new(rows(1, first=4, value=2))
    found = proven(node, 7)
    assert (found.missing, found.different) == (0, 1)


def test_the_same_time_with_another_sequence_number_is_not_the_value(node: Node) -> None:
    node.old_shard(7, rows=rows(3), start=START)
    node.migrate(7, lose=1)
    node.write_new([row._replace(sequence=20_001) for row in rows(3)])
    assert proven(node, 7).missing == 1


def test_an_equal_value_of_another_column_is_not_the_value(node: Node) -> None:
    node.old_shard(7, rows=rows(3), start=START)
    node.mark(7)
    node.write_new([*rows(3, column="m"), *rows(3, series="t")])
    assert proven(node, 7).missing == 3


def test_an_integer_and_a_double_of_one_value_are_different(node: Node) -> None:
    node.old_shard(7, rows=rows(3), start=START)
    node.mark(7)
    node.write_new(rows(3, value=1.0))
    found = proven(node, 7)
    assert (found.missing, found.different) == (0, 3)


@pytest.mark.usefixtures("any_block")
def test_two_old_shards_in_one_new_one_are_told_apart(node: Node) -> None:
    node.old_shard(6, rows=rows(50), start=START)
    node.old_shard(7, rows=rows(50, first=50), start=START)
    node.migrate(6, lose=2)
    node.migrate(7, lose=5)
    assert len(node.new) == 1
    assert (proven(node, 6).missing, proven(node, 7).missing) == (2, 5)


@pytest.mark.usefixtures("any_block")
def test_one_old_shard_over_several_new_ones(node: Node) -> None:
    node.old_shard(7, points=200, days=60)
    done = node.migrate(7, lose=7)
    assert len(node.new) > 8
    found = proven(node, 7)
    assert found.missing == done.lost == 7
    assert len(found.new_states) > 8


@pytest.mark.usefixtures("any_block")
def test_overlapping_old_shards_each_count_their_own(node: Node) -> None:
    node.old_shard(6, rows=rows(60), start=START)
    node.old_shard(7, rows=rows(60, first=30), start=START)
    node.migrate(6)
    node.mark(7)
    # The first half of 7 came with 6.
    assert proven(node, 6).missing == 0
    assert proven(node, 7).missing == 30


@pytest.mark.usefixtures("any_block")
def test_values_written_by_a_07_after_a_rollback_are_missing(node: Node) -> None:
    node.old_shard(7, rows=rows(40), start=START)
    node.migrate(7)
    node.write_old(7, [*rows(5, first=100), *rows(2, column="new")])
    found = proven(node, 7)
    assert (found.values, found.missing) == (47, 7)
    assert lost_by_column(found) == {("test", "s", "n"): 5, ("test", "s", "new"): 2}


def test_a_point_that_a_rolled_back_07_wrote_over_is_different(node: Node) -> None:
    node.old_shard(7, rows=rows(5), start=START)
    node.migrate(7)
    node.write_old(7, rows(1, first=2, value=9))
    found = proven(node, 7)
    assert (found.values, found.missing, found.different) == (5, 0, 1)


@pytest.mark.usefixtures("any_block")
def test_index_keys_as_long_as_value_keys_are_no_values(node: Node) -> None:
    # 8 + 16 bytes: database~series~column of 16 characters.
    columns = [("test", f"ser{n:03d}", "colu") for n in range(30)]
    assert {len("~".join(column)) for column in columns} == {16}
    node.old_shard(7, rows=[Row(*column, T0, 1, 1) for column in columns], start=START)
    node.migrate(7, lose=4)
    found = proven(node, 7)
    assert (found.values, found.missing) == (30, 4)


@pytest.mark.parametrize("lose", [0, 1, 6])
def test_two_columns_that_share_an_index_key_are_looked_for_under_both_names(
    lose: int, node: Node
) -> None:
    node.old_shard(
        7,
        start=START,
        rows=[
            *(Row("test", "a~b", "c", T0 + n, 1, n) for n in range(6)),
            *(Row("test", "a", "b~c", T0 + 10 + n, 1, n) for n in range(6)),
        ],
    )
    assert len(set(node.old[7].columns.values())) == 1
    node.migrate(7, lose=lose)
    assert proven(node, 7).missing == lose


@pytest.mark.slow
@settings(max_examples=40)
@given(
    owners=st.lists(st.booleans(), min_size=1, max_size=40),
    kept=st.lists(st.booleans(), min_size=40, max_size=40),
    block=st.sampled_from([1, 2, 3, 8, 2048]),
)
def test_interleaved_values_of_two_possible_names_are_counted_exactly(
    owners: list[bool], kept: list[bool], block: int
) -> None:
    """The same cursor then goes back and forth between two columns."""
    with fresh_node() as node, pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare, "BLOCK", block)
        values = [
            Row("test", *(("a~b", "c") if owner else ("a", "b~c")), T0 + n, 1, n)
            for n, owner in enumerate(owners)
        ]
        node.old_shard(7, rows=values, start=START)
        node.mark(7)
        arrived = [row for row, there in zip(values, kept, strict=False) if there]
        node.write_new(arrived)
        assert proven(node, 7).missing == len(values) - len(arrived)


@pytest.mark.parametrize("by", ["0.7", "0.8"])
def test_a_compacted_node_gives_the_same(by: str, node: Node) -> None:
    node.old_shard(7, points=100)
    node.migrate(7, lose=5)
    before = proven(node, 7)
    node.compact_raft(keep=3, by="0.7" if by == "0.7" else "0.8")
    assert proven(node, 7) == before


def test_a_value_without_an_index_entry_is_missing(node: Node) -> None:
    node.old_shard(7, rows=rows(3), start=START)
    node.migrate(7)
    node.old[7].store.write([(value_key(old_id(99), T0, 1), b"\x28\x01")])
    found = proven(node, 7)
    assert (found.values, found.missing) == (4, 1)
    assert [loss.name.column for loss in found.losses] == [f"#{old_id(99).hex()}"]


@pytest.mark.parametrize("time_us", [-(1 << 63), -1, 0, (1 << 63) - 1])
def test_the_oldest_and_the_latest_times_are_found_only_where_they_are(
    time_us: int, node: Node
) -> None:
    node.old_shard(7, rows=[Row("test", "s", "n", time_us, 1, 1), *rows(1)], start=START)
    node.mark(7)
    node.write_new(rows(1))
    assert proven(node, 7).missing == 1


# -- storage that does not count --


def test_a_directory_that_raft_does_not_know_does_not_count(node: Node) -> None:
    node.old_shard(7, points=20)
    node.migrate(7)
    for number, shard in node.new.items():
        shard.path.rename(node.shard_db_v2 / f"{number + 50_000:05d}")
    found = proven(node, 7)
    assert found.missing == found.values == 80
    assert found.new_states == {}


def test_a_shard_whose_range_does_not_cover_the_time_does_not_count(node: Node) -> None:
    node.old_shard(7, rows=rows(10), start=START)
    node.new_shard(20, rows=rows(10), start=START + WEEK)
    node.mark(7)
    assert proven(node, 7).missing == 10


@pytest.mark.parametrize(
    ("at_us", "missing"), [(-1, 1), (0, 0), (7 * 86_400_000_000 - 1, 0), (7 * 86_400_000_000, 1)]
)
def test_a_shard_covers_its_range_to_the_microsecond(at_us: int, missing: int, node: Node) -> None:
    row = rows(1)[0]._replace(time_us=T0 + at_us)
    node.old_shard(7, rows=[row], start=START)
    node.new_shard(20, rows=[row], start=START)
    node.mark(7)
    assert proven(node, 7).missing == missing


def test_a_shard_of_another_database_does_not_count(node: Node) -> None:
    node.old_shard(7, rows=rows(10), start=START)
    node.new_shard(20, databases={"other": ()}, rows=rows(10), start=START)
    node.mark(7)
    assert proven(node, 7).missing == 10


def test_what_other_servers_own_is_missing_and_said_to_be_elsewhere(tmp_path: Path) -> None:
    node = Node(tmp_path / "data", version="0.8", servers=3)
    node.old_shard(7, points=200, days=60)
    done = node.migrate(7)
    found = proven(node, 7)
    assert 0 < found.missing == done.elsewhere < found.values
    assert found.elsewhere


def test_a_directory_of_a_shard_that_belongs_to_another_server_does_not_count(
    tmp_path: Path,
) -> None:
    node = Node(tmp_path / "data", version="0.8", servers=3)
    twin = Node(tmp_path / "twin", version="0.8")
    for one in (node, twin):
        one.old_shard(7, points=200, days=60)
        one.migrate(7)
    assert node.elsewhere.keys() <= twin.new.keys()
    assert node.ids == twin.ids
    before = proven(node, 7)
    for number, shard in node.elsewhere.items():
        shutil.copytree(twin.new[number].path, shard.path)
    assert proven(node, 7) == before


@pytest.mark.parametrize("name", [None, b"ffffffffff"])
def test_where_it_is_not_known_which_server_this_is_only_what_all_have_counts(
    name: bytes | None, tmp_path: Path
) -> None:
    spaces = (Space("some", "/.*/", 7), Space("all", "/^S/", 7, replication=2))
    node = Node(tmp_path / "data", version="0.8", servers=2, spaces=spaces)
    values = [*rows(5), *rows(5, series="S")]
    node.old_shard(7, rows=values, start=START)
    node.migrate(7)
    (node.raft / "name").unlink()
    if name is not None:
        (node.raft / "name").write_bytes(name)
    found = proven(node, 7)
    assert lost_by_column(found) == {("test", "s", "n"): 5}
    assert found.elsewhere


@pytest.mark.parametrize("name", [None, b"ffffffffff"])
def test_of_a_single_server_it_need_not_be_known_which_it_is(
    name: bytes | None, node: Node
) -> None:
    node.old_shard(7, points=20)
    node.migrate(7)
    (node.raft / "name").unlink()
    if name is not None:
        (node.raft / "name").write_bytes(name)
    assert proven(node, 7).missing == 0


@pytest.mark.parametrize("missing", ["sst", "directory", "type"])
def test_a_new_shard_that_is_not_whole_proves_nothing(missing: str, node: Node) -> None:
    node.old_shard(7, rows=rows(10), start=START)
    node.migrate(7, engine="rocksdb")
    (shard,) = node.new.values()
    if missing == "directory":
        shutil.rmtree(shard.path)
        assert proven(node, 7).missing == 10
        return
    if missing == "type":
        (shard.path / "type").write_text("nonsense")
    else:
        next(shard.path.glob("*.sst")).unlink()
    with pytest.raises(EngineError, match=shard.path.name):
        proven(node, 7)


# -- causes --


def test_a_dropped_series_is_told_as_dropped(node: Node) -> None:
    node.old_shard(7, rows=[*rows(5), *rows(5, series="kept")], start=START)
    node.migrate(7)
    node.drop_series("test", "s")
    assert causes(proven(node, 7)) == {"dropped": 5}


def test_a_series_that_was_dropped_and_made_again_is_not_there(node: Node) -> None:
    """It has new ids; what its old ids held lies in the new shards still."""
    node.old_shard(7, rows=rows(5), start=START)
    node.migrate(7)
    node.drop_series("test", "s")
    node.write_new(rows(1, first=50))
    found = proven(node, 7)
    assert (found.missing, causes(found)) == (5, {"dropped": 5})


def test_a_dropped_database_is_told_as_dropped(node: Node) -> None:
    node.old_shard(7, rows=rows(5), start=START)
    node.migrate(7)
    node.drop_database("test")
    assert causes(proven(node, 7)) == {"dropped": 5}


def test_what_a_dropped_space_took_is_told_although_other_shards_cover_its_time(
    node: Node,
) -> None:
    kept, gone = rows(5, series="kept"), rows(5, series="Gone")
    node.old_shard(7, rows=[*kept, *gone], start=START)
    node.migrate(7)
    assert proven(node, 7).missing == 0
    # The guide's long_term takes capitals; without it short_term does, which has that week too.
    node.raft_command("remove_shard_space", {"Database": "test", "Name": "long_term"})
    assert causes(proven(node, 7)) == {"dropped": 5}


def test_a_dropped_space_is_told_where_nothing_covers_the_time(node: Node) -> None:
    node.old_shard(7, rows=rows(5), start=START)
    node.migrate(7)
    (number,) = node.new
    node.raft_command("remove_shard_space", {"Database": "test", "Name": "short_term"})
    assert number
    assert causes(proven(node, 7)) == {"dropped": 5}


def test_a_database_that_08_does_not_know_is_told(node: Node) -> None:
    node.old_shard(7, rows=rows(5), start=START)
    node.drop_database("test", before_upgrade=True)
    node.migrate(7, like_083=True)
    assert causes(proven(node, 7)) == {"unknown-database": 5}


def test_what_is_older_than_the_retention_is_told_as_expired(tmp_path: Path) -> None:
    spaces = (Space("all", "/.*/", 7, retention="365d"),)
    node = Node(tmp_path / "data", version="0.8", spaces=spaces)
    node.old_shard(7, rows=rows(5), start=START)
    node.mark(7)
    assert causes(proven(node, 7)) == {"expired": 5}
    assert causes(proven(node, 7, now_us=T0 + 86_400_000_000)) != {"expired": 5}


def test_a_marked_shard_of_which_nothing_came_is_told_as_not_migrated(node: Node) -> None:
    node.old_shard(7, rows=rows(5), start=START)
    node.write_new(rows(1, first=50))  # the column is known
    node.mark(7)
    assert causes(proven(node, 7)) == {"not-migrated": 5}


def test_a_shard_of_which_some_came_has_no_known_cause(node: Node) -> None:
    node.old_shard(7, rows=rows(5), start=START)
    node.migrate(7, lose=2)
    assert causes(proven(node, 7)) == {"unknown": 2}


def test_an_unmarked_shard_is_told_as_not_migrated(node: Node) -> None:
    node.old_shard(7, rows=rows(5), start=START)
    assert causes(proven(node, 7)) == {"not-migrated": 5}


# -- many shards, processes that die, files that change --


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
@pytest.mark.usefixtures("no_orphans")
def test_a_reader_that_dies_makes_one_shard_unreadable(
    number: signal.Signals, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    for shard in (1, 2, 3):
        node.old_shard(shard, rows=rows(5), start=START)
        node.migrate(shard)

    def deadly(asked: Question, *others: Any) -> Finding:
        if asked.shard.name == "00002":
            faulthandler.disable()  # pytest's would fill the screen
            os.kill(os.getpid(), number)
        return prove(asked, *others)

    monkeypatch.setattr(run, "prove", deadly)
    found = outcomes(node)
    assert {name: outcome.word for name, outcome in found.items()} == {
        "00001": "",
        "00002": "engine-unreadable",
        "00003": "",
    }
    assert number.name in found["00002"].detail
    assert str(node.shard_db / "00002") in found["00002"].detail


@pytest.mark.usefixtures("no_orphans")
def test_one_bad_shard_hides_no_other(node: Node) -> None:
    for shard in (1, 2, 3, 4):
        node.old_shard(shard, rows=rows(5), start=START)
        node.migrate(shard)
    (node.shard_db / "00002/CURRENT").write_bytes(b"garbage")
    shutil.rmtree(node.shard_db / "00003")
    jobs = [Job(Question(node.shard_db / f"{n:05d}", 1, NOW, ""), n) for n in (1, 2, 3, 4)]
    found = {outcome.shard: outcome for outcome in prove_all(jobs, setting(node), Quiet())}
    words = {name: outcome.word for name, outcome in found.items()}
    assert words == {
        "00001": "",
        "00002": "engine-unreadable",
        "00003": "engine-unreadable",
        "00004": "",
    }
    assert "No such file" in found["00003"].detail


@pytest.mark.parametrize("side", ["old", "new"])
def test_an_unreadable_shard_on_either_side_is_named(side: str, node: Node) -> None:
    node.old_shard(7, rows=rows(5), start=START)
    node.migrate(7)
    (new,) = node.new.values()
    damaged = node.old[7].path if side == "old" else new.path
    (damaged / "CURRENT").unlink()
    found = outcomes(node)["00007"]
    assert (found.finding, found.word) == (None, "engine-unreadable")
    assert str(damaged) in found.detail


def test_an_old_shard_that_changes_while_it_is_read_gives_no_finding(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.old_shard(7, rows=rows(5), start=START)
    node.migrate(7)

    def meanwhile(asked: Question, *others: Any) -> Finding:
        found = prove(asked, *others)
        with (asked.shard / "000003.log").open("ab") as file:
            file.write(b"\0")
        return found

    monkeypatch.setattr(run, "prove", meanwhile)
    found = outcomes(node)["00007"]
    assert (found.finding, found.word) == (None, "changing")


def test_an_old_shard_that_changes_once_is_read_again(
    node: Node, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    node.old_shard(7, rows=rows(5), start=START)
    node.migrate(7)
    once = tmp_path / "once"

    def meanwhile(asked: Question, *others: Any) -> Finding:
        found = prove(asked, *others)
        if not once.exists():
            once.touch()
            node.write_old(7, rows(3, first=50))
        return found

    monkeypatch.setattr(run, "prove", meanwhile)
    found = outcomes(node)["00007"].finding
    assert found is not None
    assert (found.values, found.missing) == (8, 3)


def test_a_table_that_vanishes_from_a_new_shard_is_read_again_by_its_new_name(
    node: Node, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    node.old_shard(7, rows=rows(5), start=START)
    node.migrate(7)
    (new,) = node.new.values()
    once = tmp_path / "once"

    def meanwhile(
        asked: Question,
        catalogue: Catalogue,
        new_storage: NewStorage,
        scratch: Path,
        watcher: Watcher,
        asker: Asker | None = None,
    ) -> Finding:
        if not once.exists():
            once.touch()
            new_storage.cursor(new.path.name)
            (new.path / "000003.log").rename(new.path / "x")
            (new.path / "x").rename(new.path / "000003.log")
            raise EngineError("a file that vanished")
        return prove(asked, catalogue, new_storage, scratch, watcher, asker)

    monkeypatch.setattr(run, "prove", meanwhile)
    found = outcomes(node)["00007"].finding
    assert found is not None
    assert found.missing == 0


def test_an_lmdb_that_a_server_has_open_is_in_use(node: Node) -> None:
    node.old_shard(7, rows=rows(5), start=START)
    node.migrate(7, engine="lmdb")
    of = setting(node)
    local = {
        name: LocalShard(shard.path, shard.engine, in_use=True) for name, shard in of.local.items()
    }
    (found,) = prove_all([Job(question(node, 7), 1)], Setting(of.catalogue, local), Quiet())
    assert (found.finding, found.word) == (None, "in-use")


_WRITER = """
import os, struct, sys
import plyvel
database = plyvel.DB(sys.argv[1], write_buffer_size=1 << 16)
column = int(sys.argv[2])
print("ready", flush=True)
number = 0
while True:
    with database.write_batch() as batch:
        for _ in range(200):
            number += 1
            batch.put(struct.pack(">QQQ", column, 1 << 63 | number, 1), os.urandom(40))
    if number % 2000 == 0:
        database.compact_range()
"""


@needs_plyvel
@pytest.mark.usefixtures("no_orphans")
def test_a_server_that_writes_and_compacts_never_makes_a_value_seem_found(node: Node) -> None:
    node.old_shard(7, rows=rows(4000), start=START)
    node.migrate(7, lose=5, storage="tables")
    (new,) = node.new.values()
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(new.path), "77"], stdout=subprocess.PIPE
    )
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        for _ in range(6):
            found = outcomes(node)["00007"]
            if found.finding is None:
                assert found.word in ("changing", "in-use"), found
            else:
                assert (found.finding.values, found.finding.missing) == (4000, 5)
    finally:
        writer.kill()
        writer.communicate()
    found = outcomes(node)["00007"]
    assert found.finding is not None
    assert found.finding.missing == 5


@pytest.mark.usefixtures("no_orphans")
def test_a_run_that_is_left_early_leaves_no_process(node: Node) -> None:
    for shard in (1, 2, 3):
        node.old_shard(shard, rows=rows(5), start=START)
    jobs = [Job(question(node, shard), shard) for shard in (1, 2, 3)]
    going = prove_all(jobs, setting(node), Quiet())
    next(going)
    going.close()


def test_proving_changes_nothing_of_either_side(node: Node, listing: object) -> None:
    node.old_shard(7, points=50)
    node.migrate(7)
    assert callable(listing)
    before = listing(node.path)
    outcomes(node)
    assert listing(node.path) == before


# -- random nodes --


@contextlib.contextmanager
def fresh_node(**arguments: Any) -> Iterator[Node]:
    """Make a node for one example of many."""
    with tempfile.TemporaryDirectory(prefix="prove-") as directory:
        yield Node(
            Path(directory) / "data",
            version="0.8",
            phantoms=False,
            lmdb_map_size=MIB,
            **arguments,
        )


NAMES = st.sampled_from([("s", "n"), ("s", "m"), ("S", "n"), ("s~t", "n"), ("s", "t~n")])
VALUES: st.SearchStrategy[Value] = st.sampled_from([1, 2, 1.0, True, "", "x"])


@pytest.mark.slow
@settings(max_examples=40)
@given(
    points=st.dictionaries(
        st.tuples(NAMES, st.integers(0, 30), st.integers(1, 2)), VALUES, min_size=1, max_size=40
    ),
    data=st.data(),
    engine=st.sampled_from(["leveldb", "rocksdb", "lmdb"]),
    split=st.sampled_from([1, 1, 3]),
    block=st.sampled_from([1, 2, 3, 8, 2048]),
)
def test_what_is_missing_of_a_random_node_is_exactly_what_a_model_says(
    points: dict[tuple[tuple[str, str], int, int], Value],
    data: st.DataObject,
    engine: Engine,
    split: int,
    block: int,
) -> None:
    day = 86_400_000_000
    old: dict[tuple[str, int, int], Row] = {}
    for (name, at, sequence), value in points.items():
        row = Row("test", *name, T0 + at * day, sequence, value)
        old["~".join(row[:3]), row.time_us, sequence] = row  # two names can mean one key
    fate = st.sampled_from(["arrives", "arrives", "arrives", "is lost", "changes"])
    fates = {key: data.draw(fate) for key in old}
    arriving = [row for key, row in old.items() if fates[key] == "arrives"]
    changed = [row._replace(value=99) for key, row in old.items() if fates[key] == "changes"]
    spaces = (Space("all", "/.*/", 7, split=split),)
    with fresh_node(spaces=spaces) as node, pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare, "BLOCK", block)
        node.old_shard(7, rows=old.values(), start=START)
        node.mark(7)
        node.write_new([*arriving, *changed], engine=engine)
        # Others that have nothing to do with it.
        node.write_new(rows(3, column="other"), engine=engine)
        found = proven(node, 7)
    assert found.values == len(old)
    assert found.missing == sum(fate == "is lost" for fate in fates.values())
    assert found.different == len(changed)
    assert sum(loss.missing for loss in found.losses) == found.missing
    assert all(loss.cause in CAUSES for loss in found.losses)


# -- spaces: 0.8 asks only the shards of the space that takes the series --


def add_space(node: Node, name: str, regex: str) -> None:
    """Add a space after the migration; being the newest, it is asked first."""
    space = {"name": name, "database": "test", "regex": regex, "retentionPolicy": "inf"}
    more = {"shardDuration": "7d", "replicationFactor": 1, "split": 1}
    node.raft_command("add_shard_space", {"ShardSpace": space | more})


def test_what_lies_in_a_space_that_no_longer_takes_the_series_is_not_served(node: Node) -> None:
    node.old_shard(7, rows=rows(20), start=START)
    node.migrate(7)
    assert proven(node, 7).missing == 0
    add_space(node, "hot", "/^s$/")
    found = proven(node, 7)
    assert (found.missing, found.different, found.unasked) == (20, 0, True)
    assert found.new_states == {}


def test_a_space_for_other_series_changes_nothing(node: Node) -> None:
    node.old_shard(7, rows=rows(20), start=START)
    node.migrate(7)
    add_space(node, "hot", "/^another$/")
    found = proven(node, 7)
    assert (found.missing, found.unasked) == (0, False)


def test_a_shard_of_another_space_that_cant_be_read_is_in_nobodys_way(node: Node) -> None:
    node.old_shard(7, rows=rows(20), start=START)
    node.migrate(7)
    add_space(node, "hot", "/^s$/")
    (new,) = node.new.values()
    (new.path / "CURRENT").write_text("MANIFEST-999999\n")
    found = proven(node, 7)
    assert (found.missing, found.unasked) == (20, False)


def test_an_update_with_a_regex_that_0_8_refuses_changes_nothing(node: Node) -> None:
    node.old_shard(7, rows=rows(20), start=START)
    node.migrate(7)
    space = {"name": "short_term", "database": "test", "regex": "/(/", "retentionPolicy": "inf"}
    more = {"shardDuration": "7d", "replicationFactor": 1, "split": 1}
    node.raft_command("update_shard_space", {"ShardSpace": space | more})
    assert proven(node, 7).missing == 0


def test_what_is_nowhere_is_not_said_to_lie_in_another_space(node: Node) -> None:
    node.old_shard(7, rows=rows(20), start=START)
    node.migrate(7, lose=20)
    add_space(node, "hot", "/^s$/")
    assert not proven(node, 7).unasked


# -- large values: memory is counted in bytes, not in values --


@pytest.mark.parametrize("size", [1, 5_000, 300_000])
def test_values_of_any_size_are_compared_in_pieces_of_a_few_megabytes(
    size: int, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = [row._replace(value="x" * size) for row in rows(300, first=500)]
    node.old_shard(7, rows=[*rows(500), *large], start=START)
    node.migrate(7, lose=2)
    held: list[int] = []
    whole = compare.Digest.add

    def add(digest: compare.Digest, piece: compare.Piece) -> None:
        held.append(sum(map(len, piece.values)))
        whole(digest, piece)

    monkeypatch.setattr(compare.Digest, "add", add)
    found = proven(node, 7)
    assert (found.values, found.missing) == (800, 2)
    # A block whose first values are small may run into large ones, once.
    assert sorted(held)[-2 if len(held) > 2 else -1] <= max(8 << 20, 40 * size)
