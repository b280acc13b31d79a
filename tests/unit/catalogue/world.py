"""What the tests of the catalogue share."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fixtures import raft as encoder
from fixtures.raft import Command, Space
from fixtures.saved import state as saved_state
from shardtool.influxdb.catalogue import (
    Catalogue,
    read_catalogue,
)
from tests.needs import CAPTURES, lacking

SHORT, LONG = encoder.SPACES


MONDAY = datetime(2014, 9, 1, tzinfo=UTC)


WEEK = timedelta(days=7)


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


READY = [encoder.create_db("test"), encoder.add_shard_space("test", SHORT)]


def configuration() -> Any:
    path = CAPTURES / "http-08" / "43-cluster-configuration-after.txt"
    if not path.is_file():
        lacking(str(path))
    content = path.read_text(encoding="utf-8")
    return json.JSONDecoder().raw_decode(content[content.index('{"Databases"') :])[0]
