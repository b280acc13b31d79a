"""Which new shards count for a value: those of this server that 0.8 asks for it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fixtures import Node
from fixtures.raft import Space
from shardtool.influxdb.engines import EngineError
from tests.real.prove.world import START, T0, WEEK, lost_by_column, proven, rows


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
