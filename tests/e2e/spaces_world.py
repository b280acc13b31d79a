"""A data directory that is served, and `shardtool spaces` that asks the server."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fixtures import Row
from fixtures.answers import Faults
from fixtures.cluster import Cluster
from fixtures.raft import Command, Space
from shardtool.influxdb.catalogue import read_catalogue
from tests.conftest import Run

PASSWORD = "s3cret-p4ss"
CPU = """\
[[spaces]]
name = "cpu"
regex = "/^cpu/"
retentionPolicy = "inf"
shardDuration = "30d"
"""
WIDE = CPU.replace("cpu", "all").replace("^all", ".*")


@dataclass
class World:
    """A data directory that is served, and the command that asks the server."""

    path: Path
    run: Run
    url: str
    faults: Faults = field(default_factory=Faults)

    def spaces(self, *words: str | Path, **settings: Any) -> subprocess.CompletedProcess[str]:
        """Run `shardtool spaces` with --api and the password."""
        env = {"SHARDTOOL_PASSWORD": PASSWORD}
        command = ("--data", self.path, "spaces", *words, "--api", self.url)
        return self.run(*command, env=env, **settings)

    def apply(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """Run `shardtool spaces apply --yes`."""
        return self.spaces("apply", *words, "--yes")

    def file(self, content: str, name: str = "spaces.toml") -> Path:
        """Write a file of spaces."""
        path = self.path.parent / name
        path.write_text(content)
        return path

    def asked(self, database: str = "test") -> list[str]:
        """Return the names of the spaces as raft's log on disk has them, the newest first."""
        return [one.name for one in read_catalogue(self.path / "raft").spaces.get(database, ())]

    def changes(self) -> list[str]:
        """Return the requests that were to change something."""
        return [f"{one.method} {one.target}" for one in self.faults.seen if one.method != "GET"]

    def gets_shard(self, space: str, *series: str) -> None:
        """Have a space of test get a shard for these series, as a write makes one."""
        shard = {"SpaceName": space, "Database": "test", "ServerIds": [1]}
        times = {"StartTime": "2014-01-02T00:00:00Z", "EndTime": "2014-01-09T00:00:00Z"}
        new = [{"name": name, "fields": ["v"]} for name in series]
        cluster = Cluster([self.path])
        cluster.propose(Command("create_series_field_ids", {"Database": "test", "Series": new}))
        cluster.propose(Command("create_shards", {"Shards": [shard | times], "SpaceName": space}))

    def events(self) -> list[dict[str, Any]]:
        """Return what the journal tells of spaces."""
        journal = self.path / "db" / ".shardtool" / "journal"
        records = [json.loads(line) for line in journal.read_text().splitlines()]
        return [record for record in records if record["event"].startswith("space-")]


Make = Callable[..., World]
SHORT, LONG = Space("short_term", "/.*/", 7), Space("long_term", "/^[A-Z].*/", 30)


def row(series: str) -> Row:
    """Return a point of a series."""
    return Row("test", series, "v", 1_400_000_000_000_000, 10001, 1)


def one_line(done: subprocess.CompletedProcess[str], code: int) -> str:
    """Return the only line that a run has told on stderr, and insist on its exit code."""
    assert done.returncode == code, done
    (line,) = done.stderr.splitlines()
    assert line.startswith("shardtool: ")
    return line
