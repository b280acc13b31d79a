"""verify against the fastest readers of LevelDB that there are."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from bench.sides import NO_PLYVEL, ONE_CORE, SHARDTOOL, Side, compare
from bench.sizes import Sizes
from bench.table import ROWS, Lacking, Name, Row
from fixtures import HAVE_PLYVEL, Node

VALUES_PER_POINT = 4
_SHARDS = 8
_SCAN = Path(__file__).with_name("leveldb_scan.cc")
_PLYVEL = """
import sys, plyvel
for path in sys.argv[1:]:
    db = plyvel.DB(path)
    for key, value in db.iterator(fill_cache=False):
        pass
    db.close()
"""


def bench_verify(work: Path, sizes: Sizes) -> Iterator[tuple[Name, Row]]:
    """verify of several shards, tables on both sides, against bare iterators over copies."""
    if not HAVE_PLYVEL:
        yield from ((name, Lacking(NO_PLYVEL)) for name in ROWS["verify"])
        return
    node = migrated_node(work / "verify", _SHARDS, sizes.values)
    old, new = _copies(node, work / "copies")
    both, cores = [*old, *new], str(os.cpu_count() or 1)
    scan = _compiled(work)
    for what, against, prefix, jobs in (
        ("verify", "LevelDB in C++, both sides", (), cores),
        ("verify, one core", "LevelDB in C++, both sides", ONE_CORE, "1"),
    ):
        row: Row = Lacking("g++ and libleveldb-dev")
        if scan:
            row = compare(_verify(node, prefix), Side([[*prefix, scan, jobs, *both]]), sizes.rounds)
        yield (what, against), row
    plyvel = Side([[sys.executable, "-c", _PLYVEL, *old]])
    yield ("verify", "plyvel, the old side alone"), compare(_verify(node), plyvel, sizes.rounds)
    shutil.rmtree(node.path)
    shutil.rmtree(work / "copies")


def migrated_node(path: Path, shards: int, values: int) -> Node:
    """Build a node whose `shards` old shards are completely migrated, `values` values in all."""
    node = Node(path, version="0.8", phantoms=False)
    with node.holding_back_raft():
        for shard_id in range(1, shards + 1):
            points = values // shards // VALUES_PER_POINT
            node.old_shard(shard_id, points=points, storage="tables")
            node.migrate(shard_id, storage="tables")
    return node


def _copies(node: Node, to: Path) -> tuple[list[str], list[str]]:
    """Copy the shards of both sides, as LevelDB rewrites what it opens; return their paths."""
    for side in (node.shard_db, node.shard_db_v2):
        shutil.copytree(side, to / side.name)
    old, new = (
        sorted(str(path) for path in (to / side.name).iterdir())
        for side in (node.shard_db, node.shard_db_v2)
    )
    return old, new


def _verify(node: Node, prefix: tuple[str, ...] = ()) -> Side:
    return Side([[*prefix, SHARDTOOL, "--data", str(node.path), "verify", "--again", "--quiet"]])


def _compiled(work: Path) -> str | None:
    """Compile the raw iterator and return its path; None, and why, where that can't be."""
    if not shutil.which("g++"):
        return None
    program = work / "leveldb_scan"
    command = ["g++", "-O2", "-std=c++17", str(_SCAN), "-o", str(program), "-lleveldb"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"leveldb_scan: {done.stderr.partition(chr(10))[0]}", file=sys.stderr)
        return None
    return str(program)
