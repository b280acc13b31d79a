"""What the tests of the proof share: nodes, questions, and what a finding says."""

from __future__ import annotations

import tempfile
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

from fixtures import MARKED_AT, Column, Node, Row
from fixtures.encode import Value, microseconds
from shardtool.datadir.inventory import take_inventory
from shardtool.datadir.layout import find_layout
from shardtool.influxdb.catalogue import Catalogue
from shardtool.proof.evidence import local_shards
from shardtool.proof.prove import Finding, Question, prove
from shardtool.proof.run import Setting
from shardtool.proof.source import catalogue_of
from shardtool.proof.storage import NewStorage

NOW = microseconds(MARKED_AT + timedelta(days=30))


MIB = 1 << 20


WEEK = timedelta(days=7)


START = datetime(2012, 2, 23, tzinfo=UTC)  # a Thursday: 7-day shards begin here


T0 = microseconds(START)


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
