"""Found, missing, different: each value of an old shard is counted as what it is."""

from __future__ import annotations

import contextlib
import tempfile
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures import MARKED_AT, Node, Row, read
from fixtures.encode import Value, microseconds, old_id, value_key
from fixtures.engines import Engine, Storage
from fixtures.raft import Space
from shardtool.proof import compare, storage
from shardtool.proof.causes import CAUSES
from tests.real.prove.world import MIB, START, T0, WEEK, causes, lost_by_column, proven, rows

KINDS: tuple[tuple[Engine, Storage], ...] = (
    ("leveldb", "log"),
    ("leveldb", "tables"),
    ("rocksdb", "log"),
    ("lmdb", "log"),
)


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
