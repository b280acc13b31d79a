"""Where the marks of a timeline go: a row for each verdict of a node, a mark for each old shard.

Pure geometry. Places from left to right are in percent of the width, so that a page may have any;
heights are in px. The row tells the verdict, so that no color has to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import isfinite, sqrt

from shardtool.report.model import VERDICTS, OldShard, Report
from shardtool.report.reading import instant
from shardtool.report.view import View
from shardtool.words import plural, size

ROW = 46  # px
_BAR = 30  # px, of the largest shard
_LEAST_BAR = 3
_WIDTH = 560  # px that a timeline takes at least
_MOST_TICKS = 8
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Mark:
    """A shard: its left edge, width in px, height in px, and what it is in words."""

    left: float
    width: float
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
    """A time on the axis."""

    left: float
    text: str


@dataclass(frozen=True)
class Timeline:
    """All of it.

    Args:
        least_width: px that it needs, so that no two marks of a row lie on each other.
        by_write: shards that stand where they were last written, for raft does not tell more.
        words: all of it in a sentence, for who can't see it.
    """

    rows: tuple[Row, ...]
    ticks: tuple[Tick, ...]
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
    times = [time for shard in shards if isfinite(time := _time(shard))]
    first, last = min(times, default=0.0), max(times, default=0.0)
    largest = max((shard.allocated_bytes for shard in shards), default=0)
    longest = max((len(node.shards) for node in report.nodes), default=0)
    width = 12.0 if longest <= 40 else 7.0 if longest <= 200 else 4.0
    least = max(_WIDTH, round(longest * width * 1.3))
    scale = _Scale(first, last, 100 * (width + 1) / least)
    rows = []
    for node, summary in zip(report.nodes, view.nodes, strict=True):
        for verdict in VERDICTS:
            some = [shard for shard in node.shards if shard.verdict == verdict]
            if some:
                label = summary.label if len(report.nodes) > 1 else ""
                marks = tuple(_marks(some, scale, largest, width))
                rows.append(Row(label, verdict, marks))
    return Timeline(
        tuple(rows),
        tuple(_ticks(scale)) if times else (),
        least,
        sum(shard.range is None for shard in shards),
        _words(shards, first, last) if times else "",
    )


@dataclass(frozen=True)
class _Scale:
    """From times to places: the first at the left, the last so that its mark has room."""

    first: float
    last: float
    step: float

    def place(self, time: float) -> float:
        if not isfinite(time) or self.last <= self.first:
            return 0.0
        return (100 - self.step) * (time - self.first) / (self.last - self.first)


def _time(shard: OldShard) -> float:
    return instant(shard.range.start if shard.range else shard.last_write_at)


def _marks(
    shards: Iterable[OldShard], scale: _Scale, largest: int, width: float
) -> Iterator[Mark]:
    """Yield marks by their times; those of one time stand side by side."""
    ordered = sorted(shards, key=lambda shard: (_time(shard), shard.id))
    places = [scale.place(_time(shard)) for shard in ordered]
    free = 0.0
    for number, place in enumerate(places):
        places[number] = max(place, free)
        free = places[number] + scale.step
    # What was pushed out at the right goes back, and pushes those before it.
    most = 100 - scale.step
    for number in range(len(places) - 1, -1, -1):
        places[number] = max(min(places[number], most), 0.0)
        most = places[number] - scale.step
    for shard, place in zip(ordered, places, strict=True):
        part = sqrt(shard.allocated_bytes / largest) if largest else 0.0
        height = round(max(_LEAST_BAR, _BAR * part), 1)
        yield Mark(round(place, 3), width, height, _mark_words(shard))


def _mark_words(shard: OldShard) -> str:
    if shard.range:
        when = f"{shard.range.start[:10]} to {shard.range.end[:10]}"
    else:
        when = f"last written {(shard.last_write_at or 'at an unknown time')[:10]}"
    parts = [shard.id, shard.verdict, size(shard.allocated_bytes), when]
    if shard.losing:
        parts.append(f"{shard.losing.lost:,} of {shard.losing.values:,} values lost")
    return ", ".join(parts)


def _words(shards: Sequence[OldShard], first: float, last: float) -> str:
    counts = (f"{sum(s.verdict == v for s in shards)} {v}" for v in VERDICTS)
    found = ", ".join(words for words in counts if not words.startswith("0 "))
    days = (_moment(time).date().isoformat() for time in (first, last))
    return f"{plural(len(shards), 'old shard')} from {' to '.join(days)}: {found}"


def _moment(time: float) -> datetime:
    return _EPOCH + timedelta(seconds=time)


def _ticks(scale: _Scale) -> Iterator[Tick]:
    """Yield the begins of days, months or years, as many as there is room for."""
    first, last = _moment(scale.first), _moment(scale.last)
    if scale.last <= scale.first:
        yield Tick(0.0, first.date().isoformat())
        return
    for months in (1, 3, 6, 12, 24, 60, 120, 600, 1200, 6000, 12000):
        if (last.year - first.year) * 12 + last.month - first.month <= months * _MOST_TICKS:
            break
    number = first.year * 12 + first.month - 1
    begins = []
    for at in range(number - number % months + months, last.year * 12 + last.month, months):
        year, month = divmod(at, 12)
        begins.append(datetime(year, month + 1, 1, tzinfo=UTC))
    if len(begins) < 2:  # within some weeks: the two ends tell
        yield Tick(0.0, first.date().isoformat())
        if (last - first).days > 1:
            yield Tick(scale.place(scale.last), last.date().isoformat())
        return
    for begin in begins:
        time = (begin - _EPOCH).total_seconds()
        text = f"{begin.year:04d}" if months >= 12 else f"{begin.year:04d}-{begin.month:02d}"
        yield Tick(round(scale.place(time), 3), text)
