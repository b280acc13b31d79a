"""`make bench`: whole processes, taken in turns, medians and spreads of their ratios."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.export import bench_export, bench_export_memory
from bench.sides import SHARDTOOL, Side, compare, peak_memory
from bench.verify import bench_verify, bench_verify_memory
from fixtures import Node, bulk


def bench_start(rounds: int) -> None:
    """How long an answer takes that needs nothing: --help, against an empty Python."""
    ours = Side("shardtool --help", [[SHARDTOOL, "--help"]])
    compare(ours, Side("python -c pass", [[sys.executable, "-c", "pass"]]), 10.0, rounds)


def bench_status(work: Path, rounds: int) -> None:
    """status over 200 shards x 1,000 files, whole processes, start-up included."""
    node = bulk(work / "status", shards=200, files=1000)
    ours = Side("status, 200 x 1,000 files", [[SHARDTOOL, "--data", str(node.path), "status"]])
    compare(ours, Side("du -s", [["du", "-s", str(node.shard_db)]]), 1.0, rounds)
    if shutil.which("gdu"):
        command = ["gdu", "--non-interactive", "--summarize", "--no-progress", str(node.shard_db)]
        compare(ours, Side("gdu -n -s", [command]), None, rounds)
    else:
        print("gdu: not installed, left out (Debian's package gdu)")
    shutil.rmtree(node.path)


def bench_memory(work: Path) -> None:
    """Peak memory of status at two sizes: it must not grow with the number of files."""
    peaks = []
    for files in (1_000, 50_000):
        node = bulk(work / "memory", shards=4, files=files)
        peaks.append(peak_memory([SHARDTOOL, "--data", str(node.path), "status"]))
        shutil.rmtree(node.path)
    print(
        f"{'status, peak memory':<26} {'4 x 50,000 against 4 x 1,000 files':<34} "
        f"{peaks[1] / peaks[0]:5.2f}",
        flush=True,
    )


def bench_backup(work: Path, rounds: int, size: int) -> None:
    """backup of `size` bytes against the same by hand, and against a bare copy."""
    node = Node(work / "backup", version="0.7")
    node.old_shard(1, points=10)
    block = os.urandom(1 << 20)
    for number in range(20):
        with (node.wal / f"log.{number * 1000 + 2}").open("wb") as file:
            for _ in range(size // 20 // len(block)):
                file.write(block)
    to, copy = work / "to", work / "copy"

    def clear() -> None:
        for path in (to, copy):
            shutil.rmtree(path, ignore_errors=True)
        copy.mkdir()
        os.sync()

    sums = "find {} -type f -print0 | xargs -0 sha256sum >/dev/null"
    source = f"{node.raft} {node.wal}"
    by_hand = [
        ["cp", "-a", str(node.raft), str(node.wal), str(copy)],
        ["sync"],
        ["sh", "-c", sums.format(source)],
        ["sh", "-c", sums.format(copy)],
    ]
    ours = Side(
        f"backup, {size / 1e9:.0f} GB",
        [[SHARDTOOL, "--data", str(node.path), "backup", "--to", str(to)]],
        clear,
    )
    compare(ours, Side("cp -a, sync, sha256sum of both", by_hand, clear), 0.8, rounds)
    compare(ours, Side("cp -a", by_hand[:1], clear), None, rounds)
    shutil.rmtree(node.path)
    shutil.rmtree(to, ignore_errors=True)
    shutil.rmtree(copy, ignore_errors=True)


def bench_prune(work: Path, rounds: int, shards: int) -> None:
    """prune of `shards` shards of 1,000 files each against rm -rf of the same."""
    original = bulk(work / "original", shards=shards, files=1000)
    victim = work / "victim"

    def copy() -> None:
        # The empty directory of the run before goes too, and the disk is quiet again.
        shutil.rmtree(victim, ignore_errors=True)
        subprocess.run(["cp", "-a", str(original.path), str(victim)], check=True)
        os.sync()

    ours = Side(
        f"prune, {shards:,} x 1,000 files",
        [[SHARDTOOL, "--data", str(victim), "prune", "--trust", "marker", "--yes"]],
        copy,
    )
    compare(ours, Side("rm -rf", [["rm", "-rf", str(victim / "db/shard_db")]], copy), 1.2, rounds)
    shutil.rmtree(original.path)
    shutil.rmtree(victim, ignore_errors=True)


def main() -> None:
    """Run all of it, or what is named, in a temporary directory on the disk of `--in`."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    names = ("start", "status", "memory", "backup", "prune", "verify", "export")
    parser.add_argument("what", nargs="*", default=names, help=f"any of {', '.join(names)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--bytes", type=int, default=2_000_000_000, help="of the backup")
    parser.add_argument("--shards", type=int, default=200, help="of the prune")
    parser.add_argument("--values", type=int, default=5_000_000, help="of verify and of export")
    parser.add_argument(
        "--big-values",
        type=int,
        default=10_000_000,
        help="of the larger of two shards for the memory of each; the other has a tenth",
    )
    parser.add_argument("--in", dest="place", default=None, help="a directory with some GB free")
    args = parser.parse_args()
    # A polite kill must not leave gigabytes behind.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit("interrupted"))
    print(f"{'shardtool':<26} {'against':<34} ratio  (least-most of {args.rounds} rounds)")
    with tempfile.TemporaryDirectory(prefix="shardtool-bench-", dir=args.place) as directory:
        work = Path(directory)
        if "start" in args.what:
            bench_start(args.rounds)
        if "status" in args.what:
            bench_status(work, args.rounds)
        if "memory" in args.what:
            bench_memory(work)
        if "backup" in args.what:
            bench_backup(work, args.rounds, args.bytes)
        if "prune" in args.what:
            bench_prune(work, args.rounds, args.shards)
        if "verify" in args.what:
            bench_verify(work, args.rounds, args.values)
            bench_verify_memory(work, args.big_values)
        if "export" in args.what:
            bench_export(work, args.rounds, args.values)
            bench_export_memory(work, args.big_values)


main()
