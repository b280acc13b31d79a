"""Where the marks of a timeline go: a row for each verdict of a node, a mark for each old shard.

Pure geometry. Places from left to right are in percent of the width, so that a page may have any;
heights are in px. The row tells the verdict, so that no color has to. Each time has a place of its
own, and long times without any shard are cut out: a shard of 1970 must not press all others into a
corner.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite, sqrt
from statistics import median

from shardtool.report.model import VERDICTS, OldShard, Report
from shardtool.report.reading import instant
from shardtool.report.view import View
from shardtool.words import plural, size

ROW = 46  # px
_BAR = 30  # px, of the largest shard
_LEAST_BAR = 3
_WIDTH = 560  # px that a timeline takes at least
_LABEL = 88  # px that a date takes
_LONGEST_GAP = 6  # times the usual one; what is longer is cut


@dataclass(frozen=True)
class Mark:
    """A shard: its left edge, its height in px, and what it is in words."""

    left: float
    height: float
    words: str


@dataclass(frozen=True)
class Row:
    """The shards of one node that have one verdict."""

    node: str
    verdict: str
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class Tick:
    """A date on the axis, at the marks that stand there; `ends`: it ends at its place."""

    left: float
    text: str
    ends: bool = False


@dataclass(frozen=True)
class Timeline:
    """All of it.

    Args:
        mark_width: of each mark, in px.
        breaks: where time was cut out.
        least_width: px that it needs, so that no two marks of a row lie on each other.
        by_write: shards that stand where they were last written, for raft does not tell more.
        words: all of it in a sentence, for who can't see it.
    """

    rows: tuple[Row, ...]
    ticks: tuple[Tick, ...]
    breaks: tuple[float, ...]
    mark_width: int
    least_width: int
    by_write: int
    words: str

    @property
    def height(self) -> int:
        """Of all rows, in px."""
        return ROW * len(self.rows)


def timeline_of(report: Report, view: View) -> Timeline:
    """Given a report, return its timeline; without rows where no old shard is there."""
    shards = [shard for node in report.nodes for shard in node.shards]
    longest = max((len(node.shards) for node in report.nodes), default=0)
    mark_width = 12 if longest <= 40 else 7 if longest <= 200 else 4
    rows = _rows(report, view)
    axis = _Axis.of([found for _, _, found in rows], mark_width + 1)
    largest = max((shard.allocated_bytes for shard in shards), default=0)
    return Timeline(
        tuple(
            Row(label, verdict, tuple(_marks(found, axis, largest, mark_width + 1)))
            for label, verdict, found in rows
        ),
        tuple(_ticks(axis)),
        tuple(axis.percent(place) for place in axis.breaks),
        mark_width,
        max(_WIDTH, axis.width),
        sum(shard.range is None for shard in shards),
        _words(shards),
    )


def _rows(report: Report, view: View) -> list[tuple[str, str, list[OldShard]]]:
    found: list[tuple[str, str, list[OldShard]]] = []
    for node, summary in zip(report.nodes, view.nodes, strict=True):
        for verdict in VERDICTS:
            some = [shard for shard in node.shards if shard.verdict == verdict]
            if some:
                found.append((summary.label if len(report.nodes) > 1 else "", verdict, some))
    return found


def _date(shard: OldShard) -> str:
    """Return the day at which a shard stands; empty where there is none."""
    time = shard.range.start if shard.range else shard.last_write_at
    return time[:10] if time and isfinite(instant(time)) else ""


@dataclass(frozen=True)
class _Axis:
    """Where each day that has a shard stands, in px from the left."""

    places: Mapping[str, int]
    breaks: tuple[int, ...]
    width: int

    @classmethod
    def of(cls, rows: Sequence[Sequence[OldShard]], step: int) -> _Axis:
        """Give each day its place: as many steps as the row with the most shards of it needs, and
        the time until the next day, which is cut where it is long.

        Args:
            rows: the shards of each row.
            step: px that a mark takes.
        """
        room: dict[str, int] = defaultdict(int)
        for row in rows:
            for day, count in Counter(map(_date, row)).items():
                room[day] = max(room[day], count)
        days = sorted(room)
        known = [day for day in days if day]
        gaps = {day: instant(later) - instant(day) for day, later in pairwise(known)}
        usual = median(gaps.values()) if gaps else 1.0
        places, breaks, at = {}, [], 0
        for day in days:
            places[day] = at
            gap = gaps.get(day, usual) / usual
            at += max(round(step * min(gap, _LONGEST_GAP)), step * room[day])
            if gap > _LONGEST_GAP:
                breaks.append(at - round(step * _LONGEST_GAP / 2) + step // 2)
        return cls(places, tuple(breaks), at + step)

    def percent(self, place: int) -> float:
        """Return a place in percent of the width."""
        return round(100 * place / self.width, 3)


def _marks(shards: Sequence[OldShard], axis: _Axis, largest: int, step: int) -> Iterator[Mark]:
    """Yield marks by their days; those of one day stand side by side."""
    beside: Counter[str] = Counter()
    for shard in sorted(shards, key=lambda shard: (_date(shard), len(shard.id), shard.id)):
        day = _date(shard)
        part = sqrt(shard.allocated_bytes / largest) if largest else 0.0
        height = round(max(_LEAST_BAR, _BAR * part), 1)
        place = axis.percent(axis.places[day] + beside[day] * step)
        beside[day] += 1
        yield Mark(place, height, _mark_words(shard))


def _mark_words(shard: OldShard) -> str:
    if shard.range:
        when = f"{shard.range.start[:10]} to {shard.range.end[:10]}"
    else:
        when = f"last written {_date(shard) or 'at an unknown time'}"
    parts = [shard.id, shard.verdict, size(shard.allocated_bytes), when]
    if shard.losing:
        parts.append(f"{shard.losing.lost:,} of {shard.losing.values:,} values lost")
    return ", ".join(parts)


def _words(shards: Sequence[OldShard]) -> str:
    counts = Counter(shard.verdict for shard in shards)
    found = ", ".join(f"{counts[verdict]:,} {verdict}" for verdict in VERDICTS if counts[verdict])
    days = sorted(filter(None, map(_date, shards)))
    span = f" from {days[0]} to {days[-1]}" if days else ""
    return f"{plural(len(shards), 'old shard')}{span}: {found}"


def _ticks(axis: _Axis) -> Iterator[Tick]:
    """Yield as many dates as there is room for."""
    label = _LABEL * min(1.0, axis.width / _WIDTH)
    free = 0.0
    for day, place in axis.places.items():
        if day and free <= place <= axis.width - label:
            free = place + label
            yield Tick(axis.percent(place), day)
    last = max(axis.places, default="")
    if last and axis.places[last] - label >= free:
        yield Tick(axis.percent(axis.places[last]), last, ends=True)
