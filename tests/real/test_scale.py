"""A thousand shards: the right figures, memory that is bounded, and work that grows in a line.

Work is counted in system calls, and not timed: the machines are small and noisy.
"""

from __future__ import annotations

import json
import re
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from bench.sides import Measured, measured
from fixtures import Node
from fixtures.build import FIRST_START
from tests.conftest import COMMAND
from tests.needs import lacking

_VALUES = 16  # of each shard: a point of each of four series, with four columns
_ALONE = ("unshare", "--pid", "--fork", "--mount-proc")
_MOST = 100 << 20  # bytes, of each process; a few KB a shard above what ten shards need


def weeks(path: Path, shards: int) -> Node:
    """Build a node with as many old shards, each migrated into new shards of its own week."""
    node = Node(path, version="0.8", phantoms=False)
    with node.holding_back_raft():
        for number in range(1, shards + 1):
            start = FIRST_START - timedelta(weeks=number)
            node.old_shard(number, points=_VALUES // 4, start=start)
            node.migrate(number)
    return node


def told(run: Measured) -> dict[str, Any]:
    """Return the document of a run that was in bounds."""
    assert 0 < run.own < _MOST
    assert run.child < _MOST
    document: dict[str, Any] = json.loads(run.said)
    return document


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_thousand_shards_are_told_proven_and_deleted_in_bounded_memory(tmp_path: Path) -> None:
    node = weeks(tmp_path / "data", 1000)

    def run(*words: str) -> dict[str, Any]:
        return told(measured("--data", node.path, *words, "--json"))

    totals = run("status")["totals"]
    assert (totals["old_shards"], totals["marked"], totals["proven"]) == (1000, 1000, 0)
    verified = run("verify")
    assert {shard["verdict"] for shard in verified["shards"]} == {"proven"}
    assert [verified["totals"][name] for name in ("values", "missing", "different")] == [
        1000 * _VALUES,
        0,
        0,
    ]
    totals = run("status")["totals"]
    assert (totals["old_shards"], totals["marked"], totals["proven"]) == (1000, 0, 1000)
    planned = run("prune", "--no-verify", "--dry-run")
    assert (len(planned["delete"]), planned["keep"]) == (1000, [])
    # What is read here is raft's log and the new shards, over and over: nothing that may grow.
    pruned = run("prune", "--no-verify", "--yes")
    assert sorted(pruned["deleted"]) == [f"{number:05d}" for number in range(1, 1001)]
    assert (pruned["failed"], pruned["freed_bytes"]) == ([], planned["reclaimable_bytes"])
    assert list(node.shard_db.iterdir()) == []
    # A journal of 3,000 lines is in nobody's way.
    status = run("status")
    assert (status["totals"]["old_shards"], len(status["new_shards"])) == (0, len(node.new))
    assert len(run("history")["events"]) >= 3000


def calls(directory: Path, *words: str | Path) -> int:
    """Run shardtool under strace; return how many system calls all of its processes made.

    In a namespace of its own: who else runs on this machine, and is looked into for what it has
    open, must not be in the count.
    """
    counted = directory / "calls"
    command = [*_ALONE, "strace", "-f", "-c", "-o", str(counted), *COMMAND, *map(str, words)]
    subprocess.run(command, check=True, capture_output=True, timeout=900)
    total = re.search(r"(\d+)\s+(?:\d+\s+)?total$", counted.read_text(), re.MULTILINE)
    assert total is not None
    return int(total[1])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_system_calls_grow_with_the_shards_and_no_faster(tmp_path: Path, strace: None) -> None:
    if subprocess.run([*_ALONE, "true"], capture_output=True, check=False).returncode:
        lacking("a PID namespace (unshare, as root)")
    sizes = (30, 60, 200)
    made: dict[str, list[int]] = {}
    for shards in sizes:
        node = weeks(tmp_path / f"of-{shards}", shards)
        for work, words in (
            ("status", ("status",)),
            ("verify", ("verify",)),
            ("status with receipts", ("status",)),
            ("verify again", ("verify", "--again")),
            ("plan", ("prune", "--dry-run", "--until-free", "0")),
            ("prune", ("prune", "--yes")),
            ("status with a long journal", ("status",)),
        ):
            made.setdefault(work, []).append(calls(tmp_path, "--data", node.path, *words))
        assert list(node.shard_db.iterdir()) == []
    for work, counts in made.items():
        first, then = ((counts[at + 1] - counts[at]) / (sizes[at + 1] - sizes[at]) for at in (0, 1))
        # A call for each pair of shards would be 90 more a shard at first, and then 260.
        assert then < 1.5 * max(first, 20), (work, counts)
