"""The same work at three sizes: what a unit of it costs, and whether the memory grows."""

from __future__ import annotations

import json
import shutil
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.sides import NO_PLYVEL, Measured, measured
from bench.sizes import Sizes
from bench.table import Grown, Lacking, Name, Row
from bench.verify import VALUES_PER_POINT, migrated_node
from fixtures import HAVE_PLYVEL, Node, bulk


def bench_scale(work: Path, sizes: Sizes) -> Iterator[tuple[Name, Row]]:
    """status, verify and prune over more and more shards; verify and export of larger ones."""
    yield from _shards(work, sizes)
    yield from _values(work, sizes)


def _shards(work: Path, sizes: Sizes) -> Iterator[tuple[Name, Row]]:
    counts = sizes.grown_shards
    nodes = [
        bulk(work / f"shards-{count}", shards=count, files=sizes.grown_files, migrated=True)
        for count in counts
    ]
    proofs = _by_turns(nodes, sizes, "verify", "--again", "--quiet")
    yield ("verify", "shards"), _grown(proofs, counts)
    # With receipts, which a status has to check, and prune to go by.
    looks = _by_turns(nodes, sizes, "status", "--quiet")
    yield ("status", "shards"), _grown(looks, counts)
    prunes = [[_run(node, "prune", "--no-verify", "--yes", "--json")] for node in nodes]
    for (prune,), count in zip(prunes, counts, strict=True):
        if len(json.loads(prune.said)["deleted"]) != count:
            sys.exit(f"prune: expected {count} shards to go, found: {prune.said[:400]}")
    yield ("prune", "shards"), _grown(prunes, counts)
    for node in nodes:
        shutil.rmtree(node.path)


def _values(work: Path, sizes: Sizes) -> Iterator[tuple[Name, Row]]:
    names = [("verify", "values in a shard"), ("export .lp", "values in a shard")]
    if not HAVE_PLYVEL:
        yield from ((name, Lacking(NO_PLYVEL)) for name in names)
        return
    counts = [values // VALUES_PER_POINT * VALUES_PER_POINT for values in sizes.grown_values]
    nodes = [migrated_node(work / f"values-{count}", 1, count) for count in counts]
    proofs = _by_turns(nodes, sizes, "verify", "--again", "--json")
    for runs, count in zip(proofs, counts, strict=True):
        for run in runs:
            totals = json.loads(run.said)["totals"]
            if (totals["values"], totals["missing"]) != (count, 0):
                sys.exit(f"verify: expected {count} values, none missing, found: {totals}")
    yield names[0], _grown(proofs, counts)
    to = work / "x.lp"
    exports = _by_turns(nodes, sizes, "export", "--to", str(to), "--force", "--quiet")
    yield names[1], _grown(exports, counts)
    to.unlink()
    for node in nodes:
        shutil.rmtree(node.path)


def _by_turns(nodes: Sequence[Node], sizes: Sizes, *words: str) -> list[list[Measured]]:
    """Run a command on each node, over and over; return its runs by node."""
    rounds = [[_run(node, *words) for node in nodes] for _ in range(sizes.grown_rounds)]
    return [list(runs) for runs in zip(*rounds, strict=True)]


def _run(node: Node, *words: str) -> Measured:
    return measured("--data", node.path, *words)


def _grown(runs: Sequence[Sequence[Measured]], counts: Sequence[int]) -> Grown:
    """Given the runs at each size, return the ratios to the smallest, of medians."""

    def ratios(figures: Sequence[float]) -> tuple[float, ...]:
        # Where no size has a child there is nothing that could grow.
        return tuple(figure / figures[0] if figures[0] else 1.0 for figure in figures[1:])

    def medians(figure: str) -> list[float]:
        return [statistics.median(getattr(run, figure) for run in of) for of in runs]

    costs = [taken / count for taken, count in zip(medians("seconds"), counts, strict=True)]
    return Grown(ratios(costs), ratios(medians("own")), ratios(medians("child")))
