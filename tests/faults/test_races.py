"""The server's user swaps links under a shardtool of root's: nothing outside is ever touched.

The racing process owns the data directory and nothing else. Root's shardtool runs over it again
and again while names in it change places thousands of times.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from tests.conftest import Run
from tests.faults.compiled import compiled
from tests.faults.races_world import (
    PRUNE,
    SECRET,
    Outside,
    give_away,
    link_of_nobody,
    racing,
    renewed,
    whole,
)
from tests.needs import needs_root
from tests.real.snapshot_world import damage

pytestmark = [needs_root, pytest.mark.slow, pytest.mark.timeout(600)]

ROUNDS = 25


@pytest.fixture
def racer(public_path: Path) -> Path:
    return compiled("racer", public_path)


@pytest.mark.parametrize("what", ["the shard", "a file of it", "its marker", "the trash"])
def test_prune_deletes_nothing_through_a_link_that_is_swapped_in(
    what: str, original: Path, outside: Outside, racer: Path, shardtool: Run, public_path: Path
) -> None:
    data, codes, swaps = public_path / "data", set(), 0
    for _ in range(ROUNDS):
        renewed(original, data)
        (data / "db/.shardtool/trash").mkdir(parents=True)
        give_away(data / "db/.shardtool")
        shard = data / "db/shard_db/00002"
        places: dict[str, tuple[Path, Path]] = {
            "the shard": (shard, outside.path),
            "a file of it": (shard / "000003.log", outside.path / "secret"),
            "its marker": (shard / "MIGRATED", outside.path / "MIGRATED"),
            "the trash": (data / "db/.shardtool/trash", outside.path),
        }
        name, target = places[what]
        other = link_of_nobody(data / "db/other", target)
        with racing(racer, "exchange", name, other) as race:
            done = shardtool("--data", data, *PRUNE)
        swaps += race.swaps
        codes.add(done.returncode)
        assert "Traceback" not in done.stderr
        assert "mistake in shardtool" not in done.stderr, done.stderr
        assert done.returncode in (0, 1, 3), done.stderr
        assert outside.is_untouched()
        # A shard is in its place, or beside it where it was swapped to, or goes: never half.
        for place in (shard, other):
            if place.is_dir() and not place.is_symlink() and (place / "CURRENT").exists():
                assert whole(place, original / "db/shard_db/00002")
    assert swaps > 1000
    assert codes - {0} or what == "the trash"


@pytest.mark.parametrize("where", ["snapshots", "trash"])
def test_a_removal_follows_no_link_that_is_swapped_in(
    where: str, original: Path, outside: Outside, racer: Path, shardtool: Run, public_path: Path
) -> None:
    data, swaps = public_path / "data", 0
    words = PRUNE if where == "trash" else ("forget", "--keep-last", "1", "-q")
    for number in itertools.count():
        if number >= ROUNDS and (swaps > 1000 or number == 10 * ROUNDS):
            break
        renewed(original, data)
        if where == "trash":
            (data / "db/.shardtool/trash").mkdir(parents=True)
            give_away(data / "db/.shardtool")
            directory = data / "db/.shardtool/trash"
        else:
            for _ in range(2):
                assert shardtool("--data", data, "backup", "-q").returncode == 0
            directory = data / "snapshots"
        link = link_of_nobody(data / "other", outside.path)
        with racing(racer, "within", directory, link) as race:
            done = shardtool("--data", data, *words)
        swaps += race.swaps
        assert "Traceback" not in done.stderr
        assert "mistake in shardtool" not in done.stderr, done.stderr
        assert done.returncode in (0, 1, 3), done.stderr
        assert outside.is_untouched()
    assert swaps > 1000


@pytest.mark.parametrize(
    ("name", "target"), [("wal/log.1", "log.1"), ("raft/snapshot", "snapshot"), ("raft/log", "log")]
)
@pytest.mark.parametrize("live", [False, True])
def test_backup_copies_nothing_through_a_link_that_is_swapped_in(
    name: str,
    target: str,
    live: bool,
    original: Path,
    outside: Outside,
    racer: Path,
    shardtool: Run,
    public_path: Path,
) -> None:
    data, store, swaps = public_path / "data", public_path / "store", 0
    renewed(original, data)
    (data / "raft/snapshot").mkdir(exist_ok=True)
    (data / "raft/snapshot/secret").write_bytes(b"no secret\n")
    give_away(data)
    other = link_of_nobody(data / "other", outside.path / target)
    for _ in range(5 if live else ROUNDS):
        with racing(racer, "exchange", data / name, other) as race:
            words = ("--live",) if live else ()
            done = shardtool("--data", data, "backup", "-q", "--to", store, *words)
        swaps += race.swaps
        assert "Traceback" not in done.stderr
        assert done.returncode in (0, 1), done.stderr
        if done.returncode:
            lines = [x for x in done.stderr.splitlines() if "warning" not in x]
            assert len(lines) == 1
        assert outside.is_untouched()
    assert swaps > 1000
    for path in store.rglob("*"):
        assert path.is_symlink() or not path.is_file() or SECRET not in path.read_bytes()
    if any(store.iterdir()):
        assert shardtool("snapshots", "verify", "--store", store, "-q").returncode == 0


def test_restore_touches_nothing_through_a_link_that_is_swapped_in(
    original: Path, outside: Outside, racer: Path, shardtool: Run, public_path: Path
) -> None:
    data, store, swaps = public_path / "data", public_path / "store", 0
    renewed(original, data)
    assert shardtool("--data", data, "backup", "-q", "--to", store).returncode == 0
    for number in range(ROUNDS):
        renewed(original, data)
        damage(data)
        link = link_of_nobody(data / "other", outside.path)
        # Where db, raft and wal themselves lead, shardtool goes: they may be an operator's links.
        with racing(racer, "within", data / ("db", "raft", "wal")[number % 3], link) as race:
            done = shardtool("--data", data, "restore", "--yes", "-q", "--store", store)
        swaps += race.swaps
        assert "Traceback" not in done.stderr
        assert "mistake in shardtool" not in done.stderr, done.stderr
        assert outside.is_untouched(), done.stderr
    assert swaps > 1000
