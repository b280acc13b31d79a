"""Why a value is missing, as far as it can be known."""

from __future__ import annotations

from pathlib import Path

from fixtures import Node
from fixtures.raft import Space
from tests.real.prove.world import START, T0, causes, proven, rows


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
