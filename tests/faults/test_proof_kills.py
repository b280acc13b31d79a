"""Fail verify and accept at their n-th system call, and look what is left.

Never is there half a receipt that holds, never is one of before lost; a plain rerun ends in the
same state as an uninterrupted run. (Kills are in test_every_kill.)
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from fixtures import Node
from tests.conftest import Run
from tests.e2e.proof_world import (
    events,
    old_shards,
    prune,
    sound_receipts,
    verdicts,
    verify,
)
from tests.faults.injection import injected

pytestmark = [pytest.mark.usefixtures("strace"), pytest.mark.timeout(300)]

ACCEPT = ("accept", "1", "--because", "test data", "--missing", "2", "-q")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A node whose shard 1 loses two values and whose shard 2 is proven; no receipt yet."""
    node = Node(tmp_path_factory.mktemp("original") / "data", version="0.8")
    for number in (1, 2):
        node.old_shard(number, points=5, databases={"test": ("cpu",)})
    node.migrate(2)
    node.migrate(1, lose=2)
    return node.path


def struck(data: Path, call: str, number: int, action: str, *words: str) -> bool:
    """Run a command and have `action` befall the `number`-th `call` of the parent process.

    Returns whether it came so far. The children that read shards are not traced: they write
    nothing below the data directory.
    """
    own = data / "db/.shardtool"
    # Of all that is opened, what is opened in our own directory (by its descriptor).
    only: tuple[str | Path, ...] = ()
    if call == "openat":
        only = ("-P", own, "-P", own / "proofs")
    command: tuple[str | Path, ...] = ("--data", data, *words)
    return injected(command, data.parent / "trace", call, number, action, options=only)[0]


def fresh(original: Path, data: Path) -> Path:
    """Copy the node; what was at `data` goes."""
    shutil.rmtree(data, ignore_errors=True)
    shutil.copytree(original, data, symlinks=True)
    return data


def same(shards: dict[str, Any]) -> None:
    """Assert that verify says of the node what is so."""
    assert verdicts(shards) == {"00001": "incomplete", "00002": "proven"}
    assert shards["00001"]["missing"] == 2


ERRORS = ("error=ENOSPC", "error=EROFS", "error=EIO")
# What a receipt is written with, and how each of these calls fails on a bad day.
EACH = [
    *(("openat", "error=EROFS"), ("write", "error=ENOSPC"), ("fsync", "error=EIO")),
]


@pytest.mark.slow
@pytest.mark.parametrize(("call", "action"), EACH)
def test_a_first_receipt_is_whole_or_not_there(
    call: str, action: str, original: Path, shardtool: Run, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    number = 0
    while True:
        number += 1
        came = struck(fresh(original, data), call, number, action, "verify", "-q")
        if not came:
            break
        sound_receipts(data)
        assert old_shards(data) == ["00001", "00002"]
        same(verify(shardtool, data))
        assert set(sound_receipts(data)) == {"00001", "00002"}
        assert not (data / "db/.shardtool/journal").exists()
    assert number > 1, f"verify made no {call}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("call", "action"),
    [
        *(("write", "error=ENOSPC"), ("renameat", "error=EROFS")),
    ],
)
def test_a_receipt_of_before_is_never_lost(
    call: str, action: str, original: Path, shardtool: Run, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    number = 0
    while True:
        number += 1
        fresh(original, data)
        verify(shardtool, data)
        before = sound_receipts(data)
        if not struck(data, call, number, action, "verify", "--again", "-q"):
            break
        after = sound_receipts(data)
        assert set(after) == {"00001", "00002"}
        for name, content in after.items():
            # The old one or a whole new one: both hold.
            assert content["digest"] == before[name]["digest"]
            assert content["missing"] == before[name]["missing"]
        shards = verify(shardtool, data)
        assert all(shard["from_receipt"] for shard in shards.values())
        same(shards)
    assert number > 1


def accepted_or_not(data: Path) -> bool:
    """Say whether the journal has the acceptance, whole."""
    found = events(data, "accepted")
    assert len(found) <= 1
    assert all((one["shard"], one["missing"]) == ("00001", 2) for one in found)
    return bool(found)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("call", "action"),
    [("write", "error=ENOSPC"), ("fsync", "error=EIO")],
)
def test_an_acceptance_is_recorded_whole_or_not_at_all(
    call: str, action: str, original: Path, shardtool: Run, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    number = 0
    while True:
        number += 1
        fresh(original, data)
        verify(shardtool, data)
        if not struck(data, call, number, action, *ACCEPT):
            break
        was = accepted_or_not(data)
        planned = prune(shardtool, data, "--dry-run", "1")
        assert bool(planned["delete"]) == was, (call, number)
        # A plain rerun ends as an uninterrupted run does, and records nothing twice.
        assert shardtool("--data", data, *ACCEPT).returncode == 0
        assert accepted_or_not(data)
        assert sorted(prune(shardtool, data, "--yes")["deleted"]) == ["00001", "00002"]
    assert number > 1


@pytest.mark.slow
@pytest.mark.parametrize("action", ERRORS)
def test_an_acceptance_that_cant_be_written_is_one_line_and_1(
    action: str, original: Path, shardtool: Run, tmp_path: Path
) -> None:
    data = fresh(original, tmp_path / "data")
    verify(shardtool, data)
    journal = data / "db/.shardtool/journal"
    journal.touch()
    command = ("--data", data, *ACCEPT)
    came, done = injected(command, tmp_path / "trace", "write", 1, action, options=("-P", journal))
    assert came
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert str(journal) in line
    assert not accepted_or_not(data)
