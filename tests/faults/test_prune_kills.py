"""Fail the real `shardtool prune` at its n-th mutating system call, for every n of every call.

Nothing is lost, and one plain rerun ends in the state of an uninterrupted run. (Kills are in
test_every_kill.)
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures import Node
from tests.conftest import Listing, Run
from tests.faults.injection import injected

PRUNE = ("prune", "--trust", "marker", "--yes", "-q")

pytestmark = [
    pytest.mark.usefixtures("strace"),
    pytest.mark.timeout(300),
]


def failed(data: Path, call: str, number: int, errno: str) -> bool:
    """Run a prune that fails at its `number`-th `call`.

    Returns whether it came so far; a run that ends by itself has fewer such calls.
    """
    words, trace = ("--data", data, *PRUNE), data.parent / "trace"
    return injected(words, trace, call, number, f"error={errno}", options=["-f", "--seccomp-bpf"])[
        0
    ]


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


@pytest.mark.parametrize(
    ("call", "errno"),
    [
        *(("renameat", "ENOSPC"), ("mkdirat", "EROFS")),
        *(
            pytest.param(call, errno, marks=pytest.mark.slow)
            for call in ("fsync", "unlinkat")
            for errno in ("ENOSPC", "EROFS")
        ),
    ],
)
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
        if not failed(data, call, number, errno):
            break
        assert contents(listing, data / "db/shard_db/00001") == whole
        done = shardtool("--data", data, *PRUNE)
        assert done.returncode == 0, (call, number, done.stderr)
        assert [s.name for s in (data / "db/shard_db").iterdir()] == ["00001"], (call, number)
        assert list((data / "db/.shardtool/trash").iterdir()) == [], (call, number)
    assert number > 1, f"prune made no {call}: the test looks at the wrong calls"
