"""A prune by proof that is interrupted, or that is not alone."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from contextlib import suppress

import pytest

from fixtures import Node
from tests.conftest import COMMAND, REPOSITORY, Run
from tests.e2e.proof_world import (
    PROVEN_NAMES,
    Capture,
    List,
    document,
    events,
    in_trash,
    kept,
    old_shards,
    prune,
    receipts,
    verify,
)
from tests.e2e.prune_proof.world import NOT_FOUND, directory_lost, file_lost, value_lost


def killed_with_1_in_the_trash(node: Node, call: str) -> None:
    """Prune shard 1 and kill it at the first `call` after its rename: it is whole in the trash."""
    number = 0
    while not in_trash(node.path):
        number += 1
        done = subprocess.run(
            [
                *("strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}"),
                *("-e", f"inject={call}:signal=KILL:when={number}"),
                *(*COMMAND, "--data", node.path, "prune", "--no-verify", "--yes", "-q", "1"),
            ],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        assert done.returncode, "it was not killed"
    assert old_shards(node.path) == ["00050"]


@pytest.mark.slow
@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize("known", [False, True], ids=["rename not known", "rename known"])
@pytest.mark.parametrize("lose", [value_lost, file_lost, directory_lost])
def test_a_whole_shard_in_the_trash_whose_new_side_changed_is_put_back(
    lose: Callable[[Node], None], known: bool, node: Node, shardtool: Run, listing: List
) -> None:
    verify(shardtool, node.path)
    content = {n: e[4] for n, e in listing(node.shard_db / "00001").items()}
    # The trash is synced before the record 'renamed', and files are removed after it.
    killed_with_1_in_the_trash(node, "unlinkat" if known else "fsync")
    assert bool(events(node.path, "renamed")) == known
    lose(node)
    pruned = prune(shardtool, node.path, "--yes", "1")
    assert pruned["put_back"] == ["00001"]
    assert old_shards(node.path) == ["00001", "00050"]
    assert {n: e[4] for n, e in listing(node.shard_db / "00001").items()} == content
    # It is proven anew by the next one, and stays.
    again = prune(shardtool, node.path, "--yes", "1")
    assert set(kept(again)["00001"]) <= NOT_FOUND


@pytest.mark.slow
@pytest.mark.usefixtures("strace")
def test_a_whole_shard_in_the_trash_whose_proof_holds_is_finished(
    node: Node, shardtool: Run
) -> None:
    verify(shardtool, node.path)
    killed_with_1_in_the_trash(node, "unlinkat")
    pruned = prune(shardtool, node.path, "--yes", "1")
    assert (pruned["finished"], pruned["put_back"]) == (["00001"], [])
    assert in_trash(node.path) == []


@pytest.mark.slow
def test_two_prunes_at_once_delete_each_shard_once(capture: Capture) -> None:
    data = capture("migrated-08")
    command = [*COMMAND, "--data", str(data), "prune", "--yes", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    both = [
        subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    said = [process.communicate() for process in both]
    codes = sorted(process.returncode for process in both)
    # The second is told that the first is at work, or comes when it has ended.
    assert codes in ([3, 4], [3, 3]), said
    assert all("Traceback" not in stderr for _, stderr in said)
    assert sorted(record["shard"] for record in events(data, "deleted")) == PROVEN_NAMES
    assert len(old_shards(data)) == 14


@pytest.mark.slow
def test_verify_beside_a_prune_harms_neither(capture: Capture, shardtool: Run) -> None:
    data = capture("migrated-08")
    verifying = subprocess.Popen(
        [*COMMAND, "--data", str(data), "verify", "--again", "--json"],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    # While a verify reads a shard, it is open, and prune keeps it: the next prune takes it.
    first = prune(shardtool, data, "--yes")
    stdout, stderr = verifying.communicate()
    assert "Traceback" not in stderr
    assert verifying.returncode in (0, 1, 3), stderr
    with suppress(ValueError):
        document(subprocess.CompletedProcess([], 0, stdout, stderr))
    second = prune(shardtool, data, "--yes")
    assert sorted({*first["deleted"], *second["deleted"]}) == PROVEN_NAMES
    assert len(old_shards(data)) == 14


@pytest.mark.slow
def test_two_verifies_at_once_both_find_everything(capture: Capture) -> None:
    data = capture("migrated-08")
    both = [
        subprocess.Popen(
            [*COMMAND, "--data", str(data), "verify", "--again", "--json"],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in both:
        stdout, stderr = process.communicate()
        assert stderr == ""
        found = document(subprocess.CompletedProcess([], 0, stdout, stderr))
        assert found["totals"]["missing"] == 440
        assert found["totals"]["values"] == 20536
    assert len(receipts(data)) == 27


def test_what_can_hold_nothing_and_lies_in_raft_keeps_no_shard(node: Node, shardtool: Run) -> None:
    os.mkfifo(node.raft / "a FIFO")
    (node.raft / "a link").symlink_to("nowhere")
    verify(shardtool, node.path)
    assert "00001" not in kept(prune(shardtool, node.path, "--yes"))
    assert "00001" not in old_shards(node.path)
