"""start, status, backup and prune: what works on files, against the tools that only do that."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from bench.sides import SHARDTOOL, Side, compare, drop_caches, measured, why_never_cold
from bench.sizes import Sizes
from bench.table import Lacking, Name, Row
from fixtures import Node, bulk


def bench_start(work: Path, sizes: Sizes) -> Iterator[tuple[Name, Row]]:
    """How long an answer takes that needs nothing: --help, against an empty Python."""
    ours = Side([[SHARDTOOL, "--help"]])
    theirs = Side([[sys.executable, "-c", "pass"]])
    yield ("--help", "python -c pass"), compare(ours, theirs, sizes.rounds)


def bench_status(work: Path, sizes: Sizes) -> Iterator[tuple[Name, Row]]:
    """status, start-up included, against what only adds up sizes."""
    node = bulk(work / "status", shards=sizes.status, files=1000)
    ours = Side([[SHARDTOOL, "--data", str(node.path), "status"]])
    theirs = Side([["du", "-s", str(node.shard_db)]])
    yield ("status, warm", "du -s"), compare(ours, theirs, sizes.rounds)
    name = "status, warm", "gdu -n -s"
    if shutil.which("gdu"):
        command = ["gdu", "--non-interactive", "--summarize", "--no-progress", str(node.shard_db)]
        yield name, compare(ours, Side([command]), sizes.rounds)
    else:
        yield name, Lacking("gdu (apt install gdu)")
    name = "status, cold", "du -s"
    if why := why_never_cold():
        yield name, Lacking(why)
    else:
        ours, theirs = (replace(side, prepare=drop_caches) for side in (ours, theirs))
        yield name, compare(ours, theirs, sizes.rounds)
    shutil.rmtree(node.path)


def bench_backup(work: Path, sizes: Sizes) -> Iterator[tuple[Name, Row]]:
    """backup against a bare copy, the same by hand, and restic into a new repository."""
    node = Node(work / "backup", version="0.7")
    node.old_shard(1, points=10)
    block = os.urandom(1 << 20)
    for number in range(20):
        with (node.wal / f"log.{number * 1000 + 2}").open("wb") as file:
            for _ in range(sizes.backup // 20 // len(block)):
                file.write(block)
    to, copy, repository = work / "to", work / "copy", work / "repository"
    restic = ["restic", "--no-cache", "--quiet", "--repo", str(repository)]
    environment = ["env", "RESTIC_PASSWORD=bench"]

    def clear(then: Callable[[], object] = copy.mkdir) -> None:
        for path in (to, copy, repository):
            shutil.rmtree(path, ignore_errors=True)
        then()
        os.sync()

    def new_repository() -> None:
        clear(lambda: subprocess.run([*environment, *restic, "init"], check=True))

    sums = "find {} -type f -print0 | xargs -0 sha256sum >/dev/null"
    sources = [str(node.raft), str(node.wal)]
    by_hand = [
        ["cp", "-a", *sources, str(copy)],
        ["sync"],
        ["sh", "-c", sums.format(" ".join(sources))],
        ["sh", "-c", sums.format(copy)],
    ]
    ours = Side([[SHARDTOOL, "--data", str(node.path), "backup", "--to", str(to)]], clear)
    yield ("backup", "cp -a"), compare(ours, Side(by_hand[:1], clear), sizes.rounds)
    name = "backup", "cp -a, sync, sha256sum twice"
    yield name, compare(ours, Side(by_hand, clear), sizes.rounds)
    name = "backup", "restic backup"
    if shutil.which("restic"):
        theirs = Side([[*environment, *restic, "backup", *sources]], new_repository)
        yield name, compare(ours, theirs, sizes.rounds)
    else:
        yield name, Lacking("restic (apt install restic)")
    clear()
    shutil.rmtree(node.path)


def bench_prune(work: Path, sizes: Sizes) -> Iterator[tuple[Name, Row]]:
    """prune, of shards whose receipts hold, against rm -rf of the same."""
    original = bulk(work / "original", shards=sizes.prune, files=1000, migrated=True)
    victim = work / "victim"

    def copy() -> None:
        # The empty directory of the run before goes too, and the disk is quiet again.
        shutil.rmtree(victim, ignore_errors=True)
        subprocess.run(["cp", "-a", str(original.path), str(victim)], check=True)
        os.sync()

    def prove() -> None:
        copy()
        measured("--data", victim, "verify", "--quiet")
        os.sync()

    command = [SHARDTOOL, "--data", str(victim), "prune", "--no-verify", "--yes"]
    theirs = Side([["rm", "-rf", str(victim / "db/shard_db")]], copy)
    yield ("prune, by receipts", "rm -rf"), compare(Side([command], prove), theirs, sizes.rounds)
    shutil.rmtree(original.path)
    shutil.rmtree(victim, ignore_errors=True)
