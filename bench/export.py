"""export to line protocol against iterating the same shard in Python, and its memory."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.sides import ONE_CORE, SHARDTOOL, Side, compare, peak_memory
from fixtures import HAVE_PLYVEL, Node
from fixtures.points import COLUMNS, Kind

_AIM_PER_SECOND = 300_000
_PLYVEL = """
import sys, plyvel
for key, value in plyvel.DB(sys.argv[1]).iterator(fill_cache=False):
    pass
"""
_ROCKSDICT = """
import sys
from rocksdict import AccessType, Options, Rdict
shard = Rdict(sys.argv[1], Options(raw_mode=True), access_type=AccessType.read_only())
for key, value in shard.items():
    pass
"""


def bench_export(work: Path, rounds: int, values: int) -> None:
    """export of one shard of `values` values on one core, each form, against bare iterators."""
    if not HAVE_PLYVEL:
        print("export: left out, no plyvel here to write tables with")
        return
    node = _node(work / "export", values)
    copies = [str(work / "export-copies" / name) for name in ("plyvel", "rocksdict")]
    for copy in copies:  # the engines rewrite what they open
        shutil.copytree(node.shard_db / "00001", copy)
    scans = [
        Side(f"{name}, one core", [[*ONE_CORE, sys.executable, "-c", script, copy]])
        for name, script, copy in zip(
            ("plyvel", "rocksdict"), (_PLYVEL, _ROCKSDICT), copies, strict=True
        )
    ]
    name = f"export, {values / 1e6:g} M values"
    line = Side(name, [_export(node, work / "x.lp")])
    for scan in scans:
        taken = compare(line, scan, None, rounds)
        _rate(values, "line", taken[0], _AIM_PER_SECOND)
    for form in ("lp.gz", "json", "parquet"):
        ours = Side(f"export to .{form}", [_export(node, work / f"x.{form}")])
        taken = compare(ours, scans[1], None, rounds)
        _rate(values, f".{form}", taken[0])
    shutil.rmtree(node.path)
    shutil.rmtree(work / "export-copies")


def bench_export_memory(work: Path, big: int) -> None:
    """Peak memory of export: `big` values against a tenth, and of a series with 5,000 columns."""
    if not HAVE_PLYVEL:
        return
    wide: dict[str, Kind] = {f"column{n:04}": "double" for n in range(5000)}
    peaks = []
    for values, columns in ((big // 10, None), (big, None), (big // 10, wide)):
        node = _node(work / "memory", values, columns)
        peaks.append(peak_memory(_export(node, work / "x.lp", prefix=())) / 1e6)
        shutil.rmtree(node.path)
    small_mb, big_mb, wide_mb = peaks
    for mb, what in ((big_mb, f"{big / 1e6:g} M"), (wide_mb, "5,000 columns,")):
        print(
            f"{'export, peak memory':<26} {f'{what} against {big / 1e7:g} M values':<34} "
            f"{mb / small_mb:5.2f}  ({mb:.0f} MB against {small_mb:.0f} MB)",
            flush=True,
        )


def _node(path: Path, values: int, columns: dict[str, Kind] | None = None) -> Node:
    """Build a node with one old shard of `values` values."""
    node = Node(path)
    columns = columns or dict(COLUMNS)
    node.old_shard(1, points=values // len(columns), columns=columns, storage="tables")
    return node


def _export(node: Node, to: Path, prefix: Sequence[str] = ONE_CORE) -> list[str]:
    words = ["export", "--to", str(to), "--force", "--quiet"]
    return [*prefix, SHARDTOOL, "--data", str(node.path), *words]


def _rate(values: int, form: str, seconds: float, aim: int | None = None) -> None:
    rate = values / seconds / 1e6
    wanted = f"aim {aim / 1e6:.2f}" if aim else "for information"
    print(f"{f'  M values/s, {form}, one core':<61} {rate:5.2f}  ({wanted})", flush=True)
