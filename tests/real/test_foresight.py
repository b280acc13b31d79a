"""What the migrator will skip, told beforehand: the same that it has then skipped."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fixtures import MARKED_AT, Node
from fixtures.encode import Row, microseconds
from fixtures.migrator import Pace, migrate
from fixtures.read import shape
from shardtool.datadir.inventory import take_inventory
from shardtool.datadir.layout import find_layout
from shardtool.influxdb.catalogue import read_catalogue
from shardtool.proof.run import Outcome
from shardtool.upgrade.foresight import Foresight, foresight, read_ahead

NOW = microseconds(MARKED_AT)
BEFORE = NOW - 86_400_000_000
DAY = timedelta(days=1) // timedelta(microseconds=1)


class Nobody:
    """A run's Told that nobody listens to."""

    def progress(self, shard: str, values: int, size: int) -> None:
        """Nobody looks."""

    def listed(self, shard: str, piece: bytes) -> None:
        """Nobody reads."""


def foresee(node: Node, *, now_us: int = NOW) -> Foresight:
    """Read a node's old shards ahead."""
    layout = find_layout(str(node.path), None, {})
    shards = take_inventory(layout).old or ()
    catalogue = read_catalogue(layout.raft)
    return foresight(read_ahead(shards, layout.old_shards, catalogue, Nobody(), now_us=now_us))


def skipped(found: Foresight) -> dict[tuple[str, str], int]:
    """Return the values that will not come over, by database and series."""
    counts: Counter[tuple[str, str]] = Counter()
    for one in found.skipped:
        counts[one.database, one.series] += one.values
    return dict(counts)


def rows(database: str, series: str, column: str, times: Iterable[int]) -> list[Row]:
    """Return a value per time."""
    return [Row(database, series, column, time, 10_001, 1) for time in times]


DATABASES = ["test", "metrics", "od~d", "test~a", "gone"]
NAMES = st.text(alphabet='ab~"\\', min_size=1, max_size=5)
COLUMNS = st.text(alphabet="v~w", min_size=1, max_size=3)
SERIES = st.lists(
    st.tuples(st.sampled_from(DATABASES), NAMES, COLUMNS),
    min_size=1,
    max_size=8,
    unique=True,
)


@pytest.mark.slow
@settings(max_examples=40)
@given(names=SERIES, later=st.integers(0, 3))
def test_what_is_foretold_is_what_the_migration_then_leaves_behind(
    names: list[tuple[str, str, str]], later: int
) -> None:
    # Two columns whose index keys are the same share an id: then nobody knows whose a value is.
    unique = {"~".join(name): name for name in names}.values()
    # 0.8.3 escapes a quote in a name and reads it as it stands there: so it reads the series `\"`
    # for `"`, and brings it over although it stumbles over its own name.
    series = {name[:2] for name in names}
    assume(not any((d, s.replace('"', '\\"')) in series - {(d, s)} for d, s in series))
    values = [
        row
        for place, name in enumerate(unique)
        for row in rows(*name, [BEFORE + place, *(NOW + DAY + n for n in range(later))])
    ]
    with tempfile.TemporaryDirectory() as scratch:
        node = Node(Path(scratch) / "data", databases=DATABASES)
        node.old_shard(1, rows=values)
        node.drop_database("gone", before_upgrade=True)
        found = foresee(node)
        node.upgrade()
        migrate(node.path, pace=Pace(now=MARKED_AT))
        moved = sum(shape(shard).value_keys for shard in node.shard_db_v2.iterdir())
    assert found.values == len(values)
    assert sum(skipped(found).values()) == len(values) - moved


def test_a_value_at_the_very_moment_is_not_of_the_future(tmp_path: Path) -> None:
    node = Node(tmp_path / "data")
    node.old_shard(1, rows=rows("test", "cpu", "v", [NOW - 1, NOW, NOW + 1, NOW + DAY]))
    (one,) = foresee(node).skipped
    assert (one.cause, one.values, one.shards) == ("future", 2, ("00001",))


def test_a_database_that_raft_forgot_is_named(tmp_path: Path) -> None:
    node = Node(tmp_path / "data", databases=["test", "gone"])
    node.old_shard(1, rows=rows("gone", "cpu", "v", [BEFORE]) + rows("test", "cpu", "v", [BEFORE]))
    node.drop_database("gone", before_upgrade=True)
    (one,) = foresee(node).skipped
    assert (one.database, one.series, one.values) == ("gone", "cpu", 1)
    assert one.cause == "unknown-database"


def test_a_series_that_was_dropped_in_08_will_be_brought_over_again(tmp_path: Path) -> None:
    node = Node(tmp_path / "data", version="0.8")
    node.old_shard(1, rows=rows("test", "cpu", "v", [BEFORE]))
    node.drop_series("test", "cpu")
    assert foresee(node).skipped == ()


def test_points_are_counted_by_series_and_pauses_by_database_and_shard(tmp_path: Path) -> None:
    node = Node(tmp_path / "data")
    cpu = [*range(BEFORE - 10_500, BEFORE)]
    both = rows("test", "cpu", "a", cpu) + rows("test", "cpu", "b", cpu[::2])
    node.old_shard(1, rows=both + rows("metrics", "mem", "a", cpu[:9_999]))
    node.old_shard(2, rows=rows("test", "cpu", "a", cpu[:10]))
    found = foresee(node)
    assert (found.shards, found.values, found.points) == (2, 15_750 + 9_999 + 10, 20_509)
    assert found.pauses == 1


def test_a_shard_that_no_engine_can_read_is_told_and_the_others_are_read(tmp_path: Path) -> None:
    node = Node(tmp_path / "data")
    node.old_shard(1, points=10)
    broken = node.old_shard(2, points=10)
    (broken / "CURRENT").write_text("MANIFEST-999999\n")
    found = foresee(node)
    ((name, word, detail),) = found.unread
    assert (name, word, found.shards) == ("00002", "engine-unreadable", 1)
    assert str(broken) in detail


@pytest.mark.parametrize("outcomes", [(), (Outcome("00001", None, "changing", "it does"),)])
def test_nothing_read_is_nothing_foretold(outcomes: tuple[Outcome, ...]) -> None:
    found = foresight(outcomes)
    assert (found.shards, found.values, found.points, found.pauses) == (0, 0, 0, 0)
    assert len(found.unread) == len(outcomes)
