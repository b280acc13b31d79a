"""A node as a monitoring plugin sees it: one state, one line, and figures to draw.

The states are chosen by what an operator wants to be woken for: CRITICAL is what gets worse until
the morning, WARNING what waits for it. Values that the migration lost are safe in their old shard,
which prune keeps, so they wait.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shardtool.datadir.verdict import VERDICTS, Judged
from shardtool.errors import UsageError
from shardtool.words import names, plural, size

if TYPE_CHECKING:
    from shardtool.cli.standing import Standing

OK, WARNING, CRITICAL, UNKNOWN = range(4)
STATES = ("OK", "WARNING", "CRITICAL", "UNKNOWN")
_MOST_NAMED = 3


@dataclass(frozen=True)
class Free:
    """How little free space there may be, in bytes or as a part of the file system.

    Args:
        number: bytes or per cent.
        is_percent: which of both.
    """

    number: float
    is_percent: bool

    def bytes_of(self, total: int) -> int:
        """Return it in bytes, of a file system of `total` bytes."""
        return int(total * self.number / 100) if self.is_percent else int(self.number)


@dataclass(frozen=True)
class Status:
    """What a plugin says.

    Args:
        state: OK, WARNING, CRITICAL or UNKNOWN.
        text: what is wrong, in words that are not yet safe to be shown; empty if nothing is.
        figures: performance data, each 'label=value[unit];warn;crit;min;max'.
    """

    state: int
    text: str
    figures: tuple[str, ...] = ()


def status_of(report: Standing, warn: Free | None = None, critical: Free | None = None) -> Status:
    """Given a node, return its status.

    Args:
        report: the node.
        warn: less free space than that is a WARNING; None: free space is no matter.
        critical: less than that is CRITICAL.

    Raises:
        UsageError: the critical threshold is above the other.
    """
    total = report.inventory.file_system.total_bytes
    least = {
        state: free.bytes_of(total)
        for state, free in ((WARNING, warn), (CRITICAL, critical))
        if free is not None
    }
    if least.get(CRITICAL, 0) > least.get(WARNING, total):
        raise UsageError("--critical-free: expected less than --warn-free, found more")
    troubles = sorted(_troubles(report, least), key=lambda trouble: -trouble[0])
    state = max((state for state, _ in troubles), default=OK)
    text = "; ".join(words for _, words in troubles)
    return Status(state, text, _figures(report, least))


def _troubles(report: Standing, least: dict[int, int]) -> Iterator[tuple[int, str]]:
    """Yield what is wrong: how much that matters, and in words with what to run."""
    unreadable = [j.shard.name for j in report.shards if j.verdict == "unreadable"]
    if unreadable:
        yield CRITICAL, f"{plural(len(unreadable), 'old shard')} unreadable: {_named(unreadable)}"
    broken = [shard.name for shard in report.inventory.new or () if shard.error]
    if broken:
        yield CRITICAL, f"{plural(len(broken), 'new shard')} unreadable: {_named(broken)}"
    free = report.inventory.file_system.free_bytes
    if free < least.get(CRITICAL, 0):
        yield CRITICAL, f"{size(free)} free, less than {size(least[CRITICAL])}"
    elif free < least.get(WARNING, 0):
        yield WARNING, f"{size(free)} free, less than {size(least[WARNING])}"
    if report.stage.next == "shardtool restore":
        yield CRITICAL, "a restore is half done, no server must start: shardtool restore"
    suspect = [j.shard.name for j in report.shards if j.verdict == "suspect"]
    if suspect:
        words = plural(len(suspect), "old shard")
        yield WARNING, f"{words} suspect: {_named(suspect)}: shardtool status"
    losing = [j for j in report.shards if lost_of(j)]
    if losing:
        lost = plural(sum(map(lost_of, losing)), "value")
        shards = f"{plural(len(losing), 'shard')} ({_named([j.shard.name for j in losing])})"
        yield WARNING, f"{lost} of {shards} not in the new storage: shardtool verify"
    unknown = sum(item.action == "leave" for item in report.left)
    if ended := len(report.left) - unknown:
        entries = plural(ended, "entry", "entries")
        yield WARNING, f"{entries} left in the trash: shardtool prune"
    if unknown:  # prune leaves it to people
        entries = plural(unknown, "entry", "entries")
        words = "left in the trash and not known to the journal: shardtool status"
        yield WARNING, f"{entries} {words}"
    if report.problems:
        yield WARNING, report.problems[0]
    if report.needs_attention and not (report.wrong or broken or report.left or report.problems):
        yield WARNING, "something is not as it should be: shardtool status"


def lost_of(judged: Judged) -> int:
    """Return how many values of a marked shard are not in the new storage as they were; 0 where
    the operator has accepted that."""
    evidence = judged.evidence
    if evidence is None or evidence.accepted or not judged.shard.marker.present:
        return 0
    return evidence.missing + evidence.different


def _named(shards: list[str]) -> str:
    return names(shards, _MOST_NAMED)


def _figures(report: Standing, least: dict[int, int]) -> tuple[str, ...]:
    room = report.inventory.file_system
    verdicts = Counter(judged.verdict for judged in report.shards)
    limits = ";".join(f"{least[s]}:" if s in least else "" for s in (WARNING, CRITICAL))
    return (
        f"old={len(report.shards)};;;0",
        *(f"{verdict}={verdicts[verdict]};;;0" for verdict in VERDICTS),
        f"lost={sum(map(lost_of, report.shards))};;;0",
        f"trash={len(report.left)};;;0",
        f"reclaimable={report.reclaimable_bytes}B;;;0",
        f"free={room.free_bytes}B;{limits};0;{room.total_bytes}",
    )
