"""export against iterating the same shard in Python."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from bench.sides import NO_PLYVEL, ONE_CORE, SHARDTOOL, Side, compare
from bench.sizes import Sizes
from bench.table import ROWS, Lacking, Name, Row
from bench.verify import VALUES_PER_POINT
from fixtures import HAVE_PLYVEL, Node

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


def bench_export(work: Path, sizes: Sizes) -> Iterator[tuple[Name, Row]]:
    """export of one shard on one core, each form, against bare iterators."""
    if not HAVE_PLYVEL:
        yield from ((name, Lacking(NO_PLYVEL)) for name in ROWS["export"])
        return
    node = Node(work / "export")
    points = sizes.values // VALUES_PER_POINT
    node.old_shard(1, points=points, storage="tables")
    copies = [str(work / "export-copies" / name) for name in ("plyvel", "rocksdict")]
    for copy in copies:  # the engines rewrite what they open
        shutil.copytree(node.shard_db / "00001", copy)
    plyvel, rocksdict = (
        Side([[*ONE_CORE, sys.executable, "-c", script, copy]])
        for script, copy in zip((_PLYVEL, _ROCKSDICT), copies, strict=True)
    )
    for form, name, scan in (
        ("lp", "plyvel", plyvel),
        ("lp", "rocksdict", rocksdict),
        ("lp.gz", "rocksdict", rocksdict),
        ("json", "rocksdict", rocksdict),
        ("parquet", "rocksdict", rocksdict),
    ):
        ours = Side([_export(node, work / f"x.{form}")])
        yield (f"export .{form}, one core", name), compare(ours, scan, sizes.rounds)
        (work / f"x.{form}").unlink()
    shutil.rmtree(node.path)
    shutil.rmtree(work / "export-copies")


def _export(node: Node, to: Path) -> list[str]:
    words = ["export", "--to", str(to), "--force", "--quiet"]
    return [*ONE_CORE, SHARDTOOL, "--data", str(node.path), *words]
