"""`make bench`: whole processes, taken in turns, medians and spreads of their ratios."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

from bench.export import bench_export
from bench.files import bench_backup, bench_prune, bench_start, bench_status
from bench.scale import bench_scale
from bench.sizes import SIZES, Sizes
from bench.table import Name, Row, put_into, table
from bench.verify import bench_verify

Part: TypeAlias = Callable[[Path, Sizes], Iterator[tuple[Name, Row]]]

PARTS: dict[str, Part] = {
    "start": bench_start,
    "status": bench_status,
    "backup": bench_backup,
    "prune": bench_prune,
    "verify": bench_verify,
    "export": bench_export,
    "scale": bench_scale,
}
_GIGABYTES = {"full": 16, "medium": 6, "small": 2}  # that all of it needs at most, at a time


def main() -> None:
    """Run all of it, or what is named, in a temporary directory on the disk of `--in`."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("what", nargs="*", default=[], help=f"any of {', '.join(PARTS)}")
    parser.add_argument("--size", choices=[*SIZES], default="full")
    parser.add_argument("--in", dest="place", help="a directory on the disk to measure on")
    parser.add_argument("--readme", type=Path, help="put the table between its markers")
    args = parser.parse_args()
    unknown = set(args.what) - set(PARTS)
    if unknown:
        parser.error(f"expected any of {', '.join(PARTS)}, found {', '.join(sorted(unknown))}")
    # A polite kill must not leave gigabytes behind.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit("interrupted"))
    sizes, begin, results = SIZES[args.size], time.monotonic(), dict[Name, Row]()
    with tempfile.TemporaryDirectory(prefix="shardtool-bench-", dir=args.place) as directory:
        free = shutil.disk_usage(directory).free / 1e9
        if free < _GIGABYTES[args.size]:
            sys.exit(
                f"{directory}: expected {_GIGABYTES[args.size]} GB free, found {free:.1f} GB; "
                "--in says where else, --size medium or small needs less"
            )
        for name in args.what or PARTS:
            print(f"{time.monotonic() - begin:5.0f} s  {name} ...", file=sys.stderr, flush=True)
            for row, figures in PARTS[name](Path(directory), sizes):
                results[row] = figures
                # Also as it comes: what ends in its last hour has not measured nothing.
                print(*table({row: figures}, []).splitlines()[1:-1], sep="\n", file=sys.stderr)
    # As it can be typed again; where the disk was is nobody else's matter.
    words = [*args.what, *(["--size", args.size] if args.size != "full" else [])]
    command = " ".join(["python -m bench", *words]) if words else "make bench"
    cores = len(os.sched_getaffinity(0))
    made = f"{command}, {time.strftime('%Y-%m-%d', time.gmtime())}, {cores} cores"
    text = table(results, [f"{made}.", *sizes.notes()])
    print(text, end="")
    if args.readme:
        put_into(args.readme, text)
    print(f"took {time.monotonic() - begin:.0f} s", file=sys.stderr)


main()
