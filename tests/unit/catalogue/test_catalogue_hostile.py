"""Hostile raft logs and snapshots."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures import raft as encoder
from fixtures.encode import microseconds
from fixtures.raft import Command
from shardtool.influxdb.catalogue import (
    CatalogueError,
    from_configuration,
)
from tests.unit.catalogue.world import READY, Raft

ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)


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
