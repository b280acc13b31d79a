"""verify against the fastest readers of LevelDB that there are, and its memory at two sizes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from bench.sides import ONE_CORE, SHARDTOOL, Side, compare, peak_memory
from fixtures import HAVE_PLYVEL, Node

_SHARDS = 8
_VALUES_PER_POINT = 4
_GOOD = (0, 3)  # 3: something is missing, found as it should be
_AIM_PER_SECOND = 1_200_000
_SCAN = Path(__file__).with_name("leveldb_scan.cc")
_PLYVEL = """
import sys, plyvel
for path in sys.argv[1:]:
    db = plyvel.DB(path)
    for key, value in db.iterator(fill_cache=False):
        pass
    db.close()
"""


def bench_verify(work: Path, rounds: int, values: int) -> None:
    """verify of several shards, tables on both sides, against bare iterators over copies."""
    if not HAVE_PLYVEL:
        print("verify: left out, no plyvel here to write tables with")
        return
    node = _node(work / "verify", _SHARDS, values)
    old, new = _copies(node, work / "copies")
    ours = _verify(node, f"verify, {values / 1e6:g} M values")
    ours_alone = _verify(node, "verify on one core", ONE_CORE)
    cores = os.cpu_count() or 1
    scan = _compiled(work)
    if scan:
        both = [*old, *new]
        theirs = Side("LevelDB in C++, both sides", [[scan, str(cores), *both]])
        taken = compare(ours, theirs, 2.0, rounds)
        alone = Side("LevelDB in C++, both, one core", [[*ONE_CORE, scan, "1", *both]])
        taken_alone = compare(ours_alone, alone, None, rounds)
        _rates(values, f"{cores} cores", taken)
        _rates(values, "one core", taken_alone, aim=_AIM_PER_SECOND)
    plyvel = Side("plyvel in Python, old side", [[sys.executable, "-c", _PLYVEL, *old]])
    taken = compare(ours, plyvel, None, rounds)
    if not scan:
        _rates(values, f"{cores} cores", taken)
    shutil.rmtree(node.path)
    shutil.rmtree(work / "copies")


def bench_verify_memory(work: Path, big: int) -> None:
    """Peak memory of verify for one shard of `big` values and of a tenth: it must not grow."""
    if not HAVE_PLYVEL:
        return
    peaks = []
    for values in (big // 10, big):
        node = _node(work / "memory", 1, values)
        peaks.append(peak_memory(_verify(node, "").commands[0], _GOOD))
        shutil.rmtree(node.path)
    small_mb, big_mb = (peak / 1e6 for peak in peaks)
    print(
        f"{'verify, peak memory':<26} {f'{big / 1e6:g} M against {big / 1e7:g} M values':<34} "
        f"{big_mb / small_mb:5.2f}  ({big_mb:.0f} MB against {small_mb:.0f} MB)",
        flush=True,
    )


def _node(path: Path, shards: int, values: int) -> Node:
    """Build a node whose `shards` old shards are completely migrated, `values` values in all."""
    node = Node(path, version="0.8", phantoms=False)
    with node.holding_back_raft():
        for shard_id in range(1, shards + 1):
            points = values // shards // _VALUES_PER_POINT
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


def _verify(node: Node, name: str, prefix: tuple[str, ...] = ()) -> Side:
    command = [*prefix, SHARDTOOL, "--data", str(node.path), "verify", "--again", "--quiet"]
    return Side(name, [command], good=_GOOD)


def _compiled(work: Path) -> str | None:
    """Compile the raw iterator and return its path; None, and a line, where that can't be."""
    if not shutil.which("g++"):
        print("leveldb_scan: left out, no g++ here (Debian's packages g++ and libleveldb-dev)")
        return None
    program = work / "leveldb_scan"
    command = ["g++", "-O2", "-std=c++17", str(_SCAN), "-o", str(program), "-lleveldb"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        first = done.stderr.partition("\n")[0]
        print(f"leveldb_scan: left out, it does not compile (needs libleveldb-dev): {first}")
        return None
    return str(program)


def _rates(values: int, cores: str, taken: tuple[float, float], aim: int | None = None) -> None:
    """Print values of the old side per second, proved by verify and read twice by LevelDB."""
    ours, theirs = (values / seconds / 1e6 for seconds in taken)
    wanted = f"aim {aim / 1e6:.1f}" if aim else "for information"
    print(
        f"{f'  M values/s, {cores}':<26} {f'{ours:.2f} against {theirs:.2f}':<34} "
        f"{ours / theirs:5.2f}  ({wanted})",
        flush=True,
    )
