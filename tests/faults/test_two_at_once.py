"""Two shardtools, or a shardtool and somebody else, at the same moment on one node.

Real processes that are started together, again and again, judged from outside: exit codes, what
is on disk, and what the journal says.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fixtures import Node
from tests.conftest import COMMAND, REPOSITORY, Hold, Run
from tests.e2e.proof_world import document, events, in_trash, old_shards, one_line
from tests.needs import needs_plyvel

PRUNE = ("prune", "--trust", "marker", "--yes", "-q")
BUSY = re.compile(
    r"expected to be the only shardtool on this (data|snapshot) directory, "
    r"found (pid \d+|another process) at work on it; wait for it to end"
)
ROUNDS = 12
SHARDS = [f"{number:05d}" for number in range(1, 6)]

Started = subprocess.Popen[str]


@pytest.fixture
def original(tmp_path: Path) -> Path:
    """A node with five marked shards."""
    node = Node(tmp_path / "original", version="0.8")
    for name in SHARDS:
        node.old_shard(int(name), points=4)
        node.mark(int(name))
    return node.path


def start(data: Path, *words: str | Path) -> Started:
    """Start a shardtool and return at once."""
    return subprocess.Popen(
        [*COMMAND, "--data", str(data), *map(str, words)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: Started) -> subprocess.CompletedProcess[str]:
    """Wait for a shardtool; it must not end in a traceback, and says so in a line if busy."""
    stdout, stderr = process.communicate(timeout=60)
    done = subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)
    assert "Traceback" not in stderr
    assert "mistake in shardtool" not in stderr, stderr
    if done.returncode == 4:
        assert BUSY.search(one_line(done, 4))
    return done


def copied(original: Path, data: Path) -> Path:
    shutil.rmtree(data, ignore_errors=True)
    shutil.copytree(original, data, symlinks=True)
    return data


def is_consistent(data: Path) -> None:
    """Assert that each shard is in its place or was deleted once, as the journal has it."""
    deleted = Counter(record["shard"] for record in events(data, "deleted"))
    assert set(deleted.values()) <= {1}, deleted
    assert sorted([*deleted, *old_shards(data)]) == SHARDS
    assert in_trash(data) == []
    # Of each run the journal has a shard's events in their order, and no line is torn.
    lines = (data / "db/.shardtool/journal").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert all(record["event"] for record in records)
    for name in deleted:
        of_shard = [record["event"] for record in records if record.get("shard") == name]
        assert of_shard[-3:] == ["intent", "renamed", "deleted"]


@pytest.mark.slow
def test_of_two_prunes_one_deletes_each_shard_and_the_other_says_it_is_busy(
    original: Path, tmp_path: Path
) -> None:
    codes: Counter[int] = Counter()
    for _ in range(ROUNDS):
        data = copied(original, tmp_path / "data")
        both = [start(data, *PRUNE) for _ in range(3)]
        codes.update(ended(process).returncode for process in both)
        assert old_shards(data) == []
        is_consistent(data)
    assert set(codes) == {0, 4}


@pytest.mark.slow
def test_a_prune_and_a_backup_at_once_do_each_its_work_or_are_busy(
    original: Path, tmp_path: Path, shardtool: Run
) -> None:
    for number in range(ROUNDS):
        data = copied(original, tmp_path / "data")
        words = (PRUNE, ("backup", "-q"))
        pruned, backed_up = (start(data, *w) for w in (words if number % 2 else words[::-1]))
        if number % 2 == 0:
            pruned, backed_up = backed_up, pruned
        codes = ended(pruned).returncode, ended(backed_up).returncode
        assert codes in ((0, 0), (0, 4), (4, 0)), codes
        assert (old_shards(data) == []) == (codes[0] == 0)
        if codes[0] == 0:
            is_consistent(data)
        store = data / "snapshots"
        names = os.listdir(store) if store.is_dir() else []
        assert len(names) == (codes[1] == 0)
        if names:
            done = shardtool("snapshots", "verify", "--store", store, "-q")
            assert done.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [("restore", "--yes", "-q"), ("forget", "--keep-last", "1", "-q")]
)
def test_a_restore_or_forget_beside_a_backup_or_another_is_whole_or_busy(
    words: tuple[str, ...], original: Path, tmp_path: Path, shardtool: Run
) -> None:
    for _ in range(2):
        assert shardtool("--data", original, "backup", "-q").returncode == 0
    for number in range(ROUNDS):
        data = copied(original, tmp_path / "data")
        other = words if number % 2 else ("backup", "-q")
        all_of_them = [ended(process) for process in (start(data, *words), start(data, *other))]
        codes = {done.returncode for done in all_of_them}
        assert codes <= {0, 4} and 0 in codes, [done.stderr for done in all_of_them]
        assert all(name[0].isdigit() for name in os.listdir(data / "snapshots"))
        assert shardtool("--data", data, "snapshots", "verify", "-q").returncode == 0
        for name in ("log", "conf"):
            assert (data / "raft" / name).read_bytes() == (original / "raft" / name).read_bytes()
        assert not list(data.glob("*.restoring-*"))


@pytest.mark.slow
def test_status_during_a_prune_counts_no_shard_twice_and_never_fails(
    original: Path, tmp_path: Path
) -> None:
    for _ in range(ROUNDS):
        data = copied(original, tmp_path / "data")
        pruning = start(data, *PRUNE)
        while pruning.poll() is None:
            looked = ended(start(data, "status", "--json"))
            assert looked.returncode in (0, 3), looked.stderr
            seen = [shard["id"] for shard in document(looked)["old_shards"]]
            assert len(set(seen)) == len(seen)
            assert set(seen) <= set(SHARDS)
        # A shard that status has open in that moment is in use: it stays, and the next takes it.
        pruned = ended(pruning)
        assert pruned.returncode in (0, 3), pruned.stderr
        assert (old_shards(data) == []) == (pruned.returncode == 0)
        is_consistent(data)
        assert ended(start(data, *PRUNE)).returncode == 0
        assert old_shards(data) == []


_OPENER = """
import fcntl, os, sys, time
shard, end = sys.argv[1:]
opened = taken = 0
while not os.path.exists(end):
    try:
        lock = os.open(shard + "/LOCK", os.O_RDWR)
    except OSError:
        time.sleep(0.0005)
        continue
    fcntl.lockf(lock, fcntl.LOCK_EX)
    opened += 1
    # The shard may have gone by now; if it has not, it is ours while we have the lock.
    try:
        is_ours = os.path.samestat(os.fstat(lock), os.stat(shard + "/LOCK"))
    except OSError:
        is_ours = False
    # As a LevelDB does that is opened: what it writes then must not be lost.
    with open(shard + "/LOG", "ab") if os.path.exists(shard) else open(os.devnull, "wb") as log:
        log.write(b"opened\\n")
    time.sleep(0.02)
    taken += is_ours and not os.fstat(lock).st_nlink
    os.close(lock)
    time.sleep(0.002)
print(opened, taken)
"""


@contextmanager
def opening(shard: Path, end: Path) -> Iterator[Started]:
    """Have a process open and close a shard again and again while the block runs."""
    with subprocess.Popen(
        [sys.executable, "-c", _OPENER, str(shard), str(end)], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            end.touch()


@pytest.mark.slow
def test_a_shard_that_is_opened_between_plan_and_deletion_stays_or_goes_whole(
    original: Path, tmp_path: Path
) -> None:
    kept = 0
    for _ in range(ROUNDS * 2):
        data = copied(original, tmp_path / "data")
        end = tmp_path / "end"
        end.unlink(missing_ok=True)
        with opening(data / "db/shard_db/00003", end) as opener:
            done = ended(start(data, *PRUNE))
            end.touch()
            opened, taken = map(int, opener.communicate(timeout=60)[0].split())
        assert opened
        assert not taken, "files went of a shard that somebody had locked"
        assert done.returncode in (0, 3), done.stderr
        is_consistent(data)
        left = old_shards(data)
        assert left in ([], ["00003"])
        if left:
            kept += 1
            now = {p.name for p in (data / "db/shard_db/00003").iterdir()}
            assert now == {p.name for p in (original / "db/shard_db/00003").iterdir()}
    assert kept


@pytest.mark.slow
@needs_plyvel
@pytest.mark.parametrize("how", ["database", "lock", "open", "mapped"])
def test_a_shard_that_a_real_process_holds_stays_and_the_others_go(
    how: str, original: Path, hold: Hold, shardtool: Run
) -> None:
    shard = original / "db/shard_db/00003"
    place = {"database": shard, "lock": shard / "LOCK"}.get(how, shard / "LOG")
    pid = hold(place, how)
    time.sleep(0.1)
    done = shardtool("--data", original, "prune", "--trust", "marker", "--yes", "--json")
    assert done.returncode == 3, done.stderr
    found = document(done)
    assert sorted(found["deleted"]) == [name for name in SHARDS if name != "00003"]
    (kept,) = found["keep"]
    assert (kept["id"], kept["verdict"]) == ("00003", "busy")
    assert old_shards(original) == ["00003"]
    looked = document(shardtool("--data", original, "status", "--json"))
    (held,) = looked["old_shards"]
    assert str(pid) in " ".join(held["details"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        PRUNE,
        ("backup", "-q"),
        ("restore", "--yes", "-q"),
        ("forget", "--keep-last", "1", "-q"),
        ("accept", "1", "--because", "x", "--missing", "1", "-q"),
    ],
)
def test_while_one_is_at_work_another_that_changes_something_is_busy_in_one_line(
    words: tuple[str, ...], original: Path, hold: Hold, shardtool: Run, tmp_path: Path
) -> None:
    assert shardtool("--data", original, "backup", "-q").returncode == 0
    # What forget changes is the store alone.
    place = original / ("snapshots" if words[0] == "forget" else "db")
    pid = hold(place, "flock")
    line = one_line(shardtool("--data", original, *words), 4)
    assert line.startswith(f"shardtool: {place}: ")
    assert BUSY.search(line)
    assert f"found pid {pid} at work" in line
    assert old_shards(original) == SHARDS


@pytest.mark.parametrize("words", [("status", "-q"), ("history", "-q"), ("snapshots", "-q")])
def test_who_only_looks_waits_for_nobody(
    words: tuple[str, ...], original: Path, hold: Callable[[Path, str], int], shardtool: Run
) -> None:
    hold(original / "db", "flock")
    assert shardtool("--data", original, *words).returncode == 0
