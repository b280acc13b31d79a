"""The command on the directories that real servers left: what the first issue says is done when."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Listing, Run

Capture = Callable[[str], Path]
List = Callable[[Path], Listing]


def document(done: subprocess.CompletedProcess[str]) -> Any:
    return json.loads(done.stdout)


def blocks(path: Path) -> int:
    """What du says: the bytes allocated by a directory and all in it."""
    return 1024 * int(subprocess.check_output(["du", "-sk", path]).split()[0])


def test_status_finds_27_marked_shards_on_migrated_08(
    capture: Capture, shardtool: Run, listing: List
) -> None:
    data = capture("migrated-08")
    before = listing(data)
    done = shardtool("--data", data, "status", "--json")
    status = document(done)
    assert done.returncode == 0, done.stderr
    assert status["schema"] == "shardtool/status/1"
    assert [shard["id"] for shard in status["old_shards"]] == [f"{n:05d}" for n in range(1, 28)]
    assert {shard["verdict"] for shard in status["old_shards"]} == {"marked"}
    assert all(shard["marker"]["valid"] for shard in status["old_shards"])
    assert status["stage"] == "migrated"
    assert listing(data) == before


def test_status_figures_are_those_of_du(capture: Capture, shardtool: Run) -> None:
    data = capture("migrated-08")
    status = document(shardtool("--data", data, "status", "--json"))
    for shard in status["old_shards"]:
        assert shard["allocated_bytes"] == blocks(data / "db/shard_db" / shard["id"])
        assert shard["reclaimable_bytes"] == shard["allocated_bytes"]
    for shard in status["new_shards"]:
        assert shard["allocated_bytes"] == blocks(data / "db/shard_db_v2" / shard["id"])
        assert shard["engine"] == "leveldb"
    totals = status["totals"]
    assert totals["old_shards"] == totals["marked"] == 27
    assert totals["reclaimable_bytes"] == sum(s["reclaimable_bytes"] for s in status["old_shards"])


def test_a_prune_that_reads_nothing_keeps_all_27_as_not_proven(
    capture: Capture, shardtool: Run, listing: List
) -> None:
    data = capture("migrated-08")
    before = listing(data)
    done = shardtool("--data", data, "prune", "--no-verify", "--dry-run", "--json")
    plan = document(done)
    assert done.returncode == 3
    assert plan["delete"] == []
    assert [shard["reasons"] for shard in plan["keep"]] == [["not-proven"]] * 27
    # Nothing to delete, so a real run asks nothing and says the same.
    assert shardtool("--data", data, "prune", "--no-verify").returncode == 3
    assert listing(data) == before


def test_trusting_the_marker_would_delete_all_27(
    capture: Capture, shardtool: Run, listing: List
) -> None:
    data = capture("migrated-08")
    before = listing(data)
    done = shardtool("prune", "--trust", "marker", "--dry-run", "--json", "--data", data)
    plan = document(done)
    assert done.returncode == 0
    assert len(plan["delete"]) == 27
    assert {shard["evidence"] for shard in plan["delete"]} == {"marker"}
    assert plan["keep"] == []
    assert listing(data) == before


def test_pruning_partial_08_deletes_exactly_the_four_marked(
    capture: Capture, shardtool: Run, listing: List
) -> None:
    data = capture("partial-08")
    old = data / "db/shard_db"
    said = document(shardtool("--data", data, "status", "--json"))["totals"]["reclaimable_bytes"]
    predicted = sum(blocks(old / f"0000{number}") for number in range(6, 10))
    untouched = listing(data)
    done = shardtool("--data", data, "prune", "--trust", "marker", "--yes", "--json")
    assert done.returncode == 0, done.stderr
    pruned = document(done)
    assert sorted(pruned["deleted"]) == ["00006", "00007", "00008", "00009"]
    assert pruned["freed_bytes"] == pruned["reclaimable_bytes"] == said == predicted
    assert sorted(path.name for path in old.iterdir()) == [f"0000{n}" for n in range(1, 6)]
    after = listing(data)
    kept = {
        name: entry
        for name, entry in untouched.items()
        if not name.startswith(tuple(f"db/shard_db/0000{n}" for n in range(6, 10)))
    }
    changed = {name for name in kept if after.get(name) != kept[name]}
    # The directories that a name went out of, or into, and nothing else.
    assert changed <= {"db", "db/shard_db"}
    assert list((data / "db/.shardtool/trash").iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["original-07", "stopped-07", "compacted-07"])
def test_a_directory_of_07_is_unmigrated_throughout(
    name: str, capture: Capture, shardtool: Run, listing: List
) -> None:
    data = capture(name)
    before = listing(data)
    done = shardtool("--data", data, "status", "--json")
    status = document(done)
    assert done.returncode == 0
    assert {shard["verdict"] for shard in status["old_shards"]} == {"unmigrated"}
    assert (status["stage"], status["next"]) == ("0.7", "shardtool backup")
    assert status["new_shards"] == []
    # Nothing can go, whatever is trusted; and that is as it should be.
    done = shardtool("--data", data, "prune", "--trust", "marker", "--yes")
    assert done.returncode == 0
    assert listing(data) == before


def test_backup_damage_restore_gives_back_every_byte(
    capture: Capture, shardtool: Run, listing: List
) -> None:
    data = capture("stopped-07")
    before = {n: e for n, e in listing(data).items() if n.split("/")[0] in ("raft", "wal")}
    assert shardtool("--data", data, "backup").returncode == 0
    (data / "raft/log").write_bytes(b"damaged")
    (data / "wal/bookmark").unlink()
    (data / "wal/log.1").chmod(0o600)
    (data / "wal/log.2").write_bytes(b"new")
    done = shardtool("--data", data, "restore", "--yes")
    assert done.returncode == 0, done.stderr
    after = {n: e for n, e in listing(data).items() if n.split("/")[0] in ("raft", "wal")}
    # All but the inode: mode, size, time, content.
    strip = {name: (e[0], e[1], e[2], e[4]) for name, e in before.items()}
    assert {name: (e[0], e[1], e[2], e[4]) for name, e in after.items()} == strip
