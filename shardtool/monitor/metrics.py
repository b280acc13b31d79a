"""A node as Prometheus metrics: what status found, what the journal and the receipts tell.

Names and units as that field has them: base units, the unit in the name, times as seconds since
the epoch in a gauge. Each metric has the label `data`, so that two nodes on one host differ.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from shardtool.datadir.inventory import ENGINES
from shardtool.datadir.verdict import VERDICTS
from shardtool.monitor.runs import LastRun, deleted, last_runs
from shardtool.proof.causes import CAUSES
from shardtool.upgrade.stage import STAGES

if TYPE_CHECKING:
    from shardtool.cli.standing import Standing
    from shardtool.proof.receipts import Receipt

_ACTIONS = ("remove", "put-back", "leave")


@dataclass(frozen=True)
class Look:
    """One run of status, as it is told to Prometheus.

    Args:
        data: what the node is called, in characters that may be shown.
        version: shardtool's.
        at: when it ended, seconds since the epoch.
        seconds: how long it took.
        found: what it found; None where it failed.
    """

    data: str
    version: str
    at: float
    seconds: float
    found: Found | None = None


@dataclass(frozen=True)
class Found:
    """What a run of status found.

    Args:
        report: the node.
        receipts: those that hold, by shard.
        last_proof: when a receipt was written last, holding or not; None where there is none.
        snapshots: when each was made; all times in seconds since the epoch. None where that was
            not looked for.
    """

    report: Standing
    receipts: Mapping[str, Receipt]
    last_proof: float | None = None
    snapshots: Sequence[float] | None = ()


def text_of(look: Look) -> bytes:
    """Given a look, return it as Prometheus' text format, without timestamps."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once(tuple(families(look))))
    return generate_latest(registry)


class _Once(Collector):
    """A collector of what was collected already."""

    def __init__(self, found: Iterable[Metric]) -> None:
        self._found = found

    def collect(self) -> Iterable[Metric]:
        return self._found


def families(look: Look) -> Iterator[Metric]:
    """Given a look, yield the metrics; of one that failed, only that it has."""
    new = _Maker(look.data)
    yield new.gauges("build_info", "The shardtool that wrote this", "version", {look.version: 1})
    yield new.gauge(
        "status_success",
        "Whether the last shardtool status could look at the node",
        look.found is not None,
    )
    yield new.gauge("status_last_run_timestamp_seconds", "When shardtool status ran last", look.at)
    yield new.gauge("status_duration_seconds", "How long shardtool status took", look.seconds)
    if look.found is not None:
        report = look.found.report
        yield from _shards(report, new)
        yield from _room(report, new)
        yield from _state(report, new)
        yield from _proofs(look.found, new)
        yield from _runs(look.found, new)


class _Maker:
    """Makes metrics of one node."""

    def __init__(self, data: str) -> None:
        self._data = data

    def gauge(self, name: str, words: str, value: float) -> Metric:
        """Return a gauge; a yes is 1."""
        family = GaugeMetricFamily(f"shardtool_{name}", words, labels=("data",))
        family.add_metric((self._data,), float(value))
        return family

    def gauges(self, name: str, words: str, label: str, values: Mapping[str, float]) -> Metric:
        """Return a gauge for each value of a label."""
        family = GaugeMetricFamily(f"shardtool_{name}", words, labels=("data", label))
        for value, number in values.items():
            family.add_metric((self._data, value), float(number))
        return family

    def counter(self, name: str, words: str, value: int) -> Metric:
        """Return a counter."""
        family = CounterMetricFamily(f"shardtool_{name}", words, labels=("data",))
        family.add_metric((self._data,), float(value))
        return family


def _shards(report: Standing, new: _Maker) -> Iterator[Metric]:
    verdicts = Counter(judged.verdict for judged in report.shards)
    yield new.gauges(
        "old_shards",
        "Shards of 0.7 by verdict, see shardtool status --help",
        "verdict",
        {verdict: verdicts[verdict] for verdict in VERDICTS},
    )
    yield new.gauge(
        "old_accepted_shards",
        "Incomplete shards of 0.7 whose losses the operator has accepted",
        sum(judged.is_accepted for judged in report.shards),
    )
    yield new.gauge(
        "old_stray_entries",
        "Entries of shard_db that have no shard's name",
        len(report.old) - len(report.shards),
    )
    shards = report.inventory.new or ()
    engines = Counter(shard.engine for shard in shards)
    yield new.gauges(
        "new_shards",
        "Shards of 0.8 by storage engine",
        "engine",
        {engine: engines[engine] for engine in (*ENGINES, "unknown")},
    )
    yield new.gauge(
        "new_unreadable_shards",
        "Shards of 0.8 that could not be looked at",
        sum(bool(shard.error) for shard in shards),
    )


def _room(report: Standing, new: _Maker) -> Iterator[Metric]:
    yield new.gauge(
        "old_allocated_bytes",
        "Disk blocks that the shards of 0.7 take, as du counts them",
        sum(judged.shard.tree.allocated_bytes for judged in report.shards),
    )
    yield new.gauge(
        "new_allocated_bytes",
        "Disk blocks that the shards of 0.8 take, as du counts them",
        sum(shard.tree.allocated_bytes for shard in report.inventory.new or ()),
    )
    yield new.gauge(
        "reclaimable_bytes",
        "What the file system gives back when all goes that may go, or is only to be proven",
        report.reclaimable_bytes,
    )
    room = report.inventory.file_system
    yield new.gauge(
        "filesystem_size_bytes", "Size of the file system of the old shards", room.total_bytes
    )
    yield new.gauge(
        "filesystem_free_bytes",
        "What others than root may use of the file system of the old shards",
        room.free_bytes,
    )


def _state(report: Standing, new: _Maker) -> Iterator[Metric]:
    yield new.gauges(
        "stage",
        "Where the node stands between 0.7 and 0.8: 1 for that stage, 0 for the others",
        "stage",
        {stage: stage == report.stage.name for stage in STAGES},
    )
    yield new.gauges(
        "next_info",
        "The next command, as shardtool status names it",
        "command",
        {report.stage.next or "nothing": 1},
    )
    yield new.gauge(
        "needs_attention",
        "Whether shardtool status would end with exit code 3",
        report.needs_attention,
    )
    yield new.gauge(
        "own_problems",
        "What is wrong with shardtool's own journal and trash, see shardtool status",
        len(report.problems),
    )
    marked = [j.shard.marker.written_at_ns for j in report.shards if j.shard.marker.present]
    if times := [at for at in marked if at is not None]:
        yield new.gauge(
            "newest_marker_timestamp_seconds",
            "When the migration has marked a shard last",
            max(times) / 1e9,
        )
    actions = Counter(item.action for item in report.left)
    yield new.gauges(
        "trash_entries",
        "What interrupted prunes left in the trash, by what the next one does with it",
        "action",
        {action: actions[action] for action in _ACTIONS},
    )
    yield new.gauge(
        "trash_reclaimable_bytes",
        "What the file system gives back when the trash is empty",
        sum(item.reclaimable_bytes for item in report.left),
    )


def _proofs(found: Found, new: _Maker) -> Iterator[Metric]:
    receipts = found.receipts
    lost: Counter[str] = Counter()
    for judged in found.report.shards:
        if judged.shard.marker.present and not judged.is_accepted:
            receipt = receipts.get(judged.shard.name)
            for loss in receipt.finding.losses if receipt is not None else ():
                lost[loss.cause] += loss.missing + loss.different
    yield new.gauges(
        "lost_values",
        "Values of marked shards that are not in the new storage as they were, by cause, "
        "but for those that the operator has accepted to lose",
        "cause",
        {cause: lost[cause] for cause in CAUSES},
    )
    yield new.gauge("proofs", "Shards of 0.7 with a proof that holds", len(receipts))
    times = [receipt.proven_at.timestamp() for receipt in receipts.values()]
    if times:
        words = "When the {} of the proofs that hold was made"
        yield new.gauge("oldest_proof_timestamp_seconds", words.format("oldest"), min(times))
        yield new.gauge("newest_proof_timestamp_seconds", words.format("newest"), max(times))


def _runs(found: Found, new: _Maker) -> Iterator[Metric]:
    runs = last_runs(found.report.history)
    if found.last_proof is not None:
        runs["verify"] = LastRun(found.last_proof, succeeded=True)
    if found.snapshots:
        runs["backup"] = LastRun(max(found.snapshots), succeeded=True)
    yield new.gauges(
        "last_run_timestamp_seconds",
        "When a command last changed something: by the journal; verify: wrote a receipt; backup: "
        "made a snapshot",
        "command",
        {command: run.at for command, run in sorted(runs.items())},
    )
    yield new.gauges(
        "last_run_success",
        "Whether that run came to a good end; 0 while it is under way",
        "command",
        {command: run.succeeded for command, run in sorted(runs.items())},
    )
    if found.snapshots is not None:
        yield new.gauge("snapshots", "Complete snapshots of raft and wal", len(found.snapshots))
    gone = deleted(found.report.history)
    yield new.counter("deleted_shards", "Shards of 0.7 that prunes have deleted", gone.shards)
    yield new.counter(
        "freed_bytes", "What the file system gave back for deleted shards", gone.freed_bytes
    )
