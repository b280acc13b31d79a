"""Kill the real `shardtool prune` at its n-th mutating system call, for every n of every call.

From outside, after each kill: every shard is whole in its place, or in the trash and known to the
journal; one plain rerun ends in the state of an uninterrupted run.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures import Node
from shardtool.datadir.layout import find_layout
from shardtool.journal import Journal
from tests.conftest import Listing, Run
from tests.faults.injection import injected

# What a prune changes the disk with; `write` is the journal's, and the one line on stdout.
CALLS = ("write", "fsync", "renameat", "unlinkat", "mkdir")
PRUNE = ("prune", "--trust", "marker", "--yes", "-q")

pytestmark = [
    pytest.mark.usefixtures("strace"),
    pytest.mark.timeout(300),
]


def killed(data: Path, call: str, number: int, errno: str = "") -> bool:
    """Run a prune that is killed (or, with `errno`, fails) at its `number`-th `call`.

    Returns whether it came so far; a run that ends by itself has fewer such calls.
    """
    action = f"error={errno}" if errno else "signal=KILL"
    words = ("--data", data, *PRUNE)
    return injected(words, data.parent / "trace", call, number, action, options=["-f"])[0]


@pytest.fixture
def original(tmp_path: Path) -> Node:
    """A node whose shards 2 and 3 are marked, and 1 is not."""
    node = Node(tmp_path / "original", version="0.8")
    for number in (1, 2, 3):
        node.old_shard(number, points=5)
    node.migrate(3)
    node.migrate(2)
    return node


def contents(listing: Callable[[Path], Listing], shard: Path) -> set[tuple[str, str]]:
    return {(name, entry[4]) for name, entry in listing(shard).items() if name != "."}


@pytest.mark.parametrize("call", CALLS)
def test_a_kill_at_any_call_leaves_each_shard_whole_and_a_rerun_finishes(
    call: str, original: Node, shardtool: Run, listing: Callable[[Path], Listing], tmp_path: Path
) -> None:
    whole = {s.name: contents(listing, s) for s in original.shard_db.iterdir()}
    data = tmp_path / "data"
    number = 0
    while True:
        number += 1
        shutil.rmtree(data, ignore_errors=True)
        shutil.copytree(original.path, data, symlinks=True)
        if not killed(data, call, number):
            break
        records = Journal(find_layout(str(data), None, {})).read().records
        intents = {record["trash"] for record in records if record["event"] == "intent"}
        renamed = {record["trash"] for record in records if record["event"] == "renamed"}
        in_place = {s.name for s in (data / "db/shard_db").iterdir()}
        trash = data / "db/.shardtool/trash"
        in_trash = {s.name for s in trash.iterdir()} if trash.is_dir() else set()
        deleted = {record["shard"] for record in records if record["event"] == "deleted"}
        for name in in_place:
            assert contents(listing, data / "db/shard_db" / name) == whole[name], (call, number)
        for name in in_trash:
            assert name in intents, (call, number)
            if name not in renamed:
                assert contents(listing, trash / name) == whole[name[:5]], (call, number)
        gone = set(whole) - in_place - {name[:5] for name in in_trash}
        # A shard that is nowhere was in the trash, whole, and the journal said so before.
        assert gone <= {name[:5] for name in renamed}, (call, number)
        assert deleted <= gone, (call, number)
        done = shardtool("--data", data, *PRUNE)
        assert done.returncode == 0, (call, number, done.stderr)
        assert [s.name for s in (data / "db/shard_db").iterdir()] == ["00001"], (call, number)
        assert list(trash.iterdir()) == [], (call, number)
        assert shardtool("--data", data, "status", "-q").returncode == 0
    assert number > 1, f"prune made no {call}: the test looks at the wrong calls"


@pytest.mark.parametrize("errno", ["ENOSPC", "EROFS"])
@pytest.mark.parametrize("call", ["fsync", "renameat", "unlinkat", "mkdir"])
def test_an_error_at_any_call_loses_nothing_and_a_rerun_finishes(
    call: str,
    errno: str,
    original: Node,
    shardtool: Run,
    listing: Callable[[Path], Listing],
    tmp_path: Path,
) -> None:
    whole = contents(listing, original.shard_db / "00001")
    data = tmp_path / "data"
    number = 0
    while True:
        number += 1
        shutil.rmtree(data, ignore_errors=True)
        shutil.copytree(original.path, data, symlinks=True)
        if not killed(data, call, number, errno):
            break
        assert contents(listing, data / "db/shard_db/00001") == whole
        done = shardtool("--data", data, *PRUNE)
        assert done.returncode == 0, (call, number, done.stderr)
        assert [s.name for s in (data / "db/shard_db").iterdir()] == ["00001"], (call, number)
        assert list((data / "db/.shardtool/trash").iterdir()) == [], (call, number)
    assert number > 1, f"prune made no {call}: the test looks at the wrong calls"
