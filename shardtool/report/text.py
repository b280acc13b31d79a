"""A report for people at a terminal: one screen."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence

from shardtool.cli.history import rows_of
from shardtool.cli.output import Output, safe, short, table_lines
from shardtool.report.model import VERDICTS, Node, Report
from shardtool.report.reading import instant
from shardtool.report.view import WORST_FIRST, ClusterShard, View, unaccounted
from shardtool.report.words import headline, plan_words, steps, wrongs
from shardtool.words import duration, names, plural, size

_WIDTH = 80
_MOST_ROWS = 8
_MOST_LINES = 6  # of what is not as it should be
_STYLES = {"proven": "good", "marked": "wait", "busy": "wait", "unmigrated": "", "gone": ""}


def lines_of(report: Report, view: View, out: Output) -> Iterator[str]:
    """Yield the lines of a report, safe to show."""
    first = report.nodes[0]
    if len(report.nodes) == 1:
        yield out.styled(safe(f"{first.made.host}:{first.data}"), "bold")
    else:
        yield out.styled(f"{len(report.nodes)} nodes", "bold")
    yield from _wrapped(headline(view))
    for who, command, advice in steps(report, view):
        # Not wrapped: it is to be copied.
        yield f"next: {safe(command)}" + (f"  (on {safe(who)})" if who else "")
        yield from _wrapped(safe(advice), indent="      ")
    yield ""
    yield from _nodes(view, out) if len(report.nodes) > 1 else _verdicts(first, out)
    yield from _open_shards(report, view, out)
    yield from _losses(report)
    yield f"prune by these proofs: {plan_words(report)}"
    yield from _rest(report, view)
    yield from _attention(report, view, out)


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _verdicts(node: Node, out: Output) -> Iterator[str]:
    rows = []
    for verdict in VERDICTS:
        shards = [shard for shard in node.shards if shard.verdict == verdict]
        if shards:
            values = sum(s.proof.values for s in shards if s.proof and s.proof.holds)
            lost = sum(s.losing.lost for s in shards if s.losing)
            on_disk = size(sum(shard.allocated_bytes for shard in shards))
            rows.append((verdict, f"{len(shards):,}", on_disk, f"{values:,}", f"{lost:,}"))
    if not rows:
        return
    table = table_lines(("OLD SHARDS", "COUNT", "ON DISK", "VALUES", "LOST"), rows, right="lrrrr")
    yield out.styled(table[0], "bold")
    for (verdict, *_), line in zip(rows, table[1:], strict=True):
        yield out.with_verdict(line, "", verdict, _STYLES.get(verdict, "bad"))
    yield ""


def _nodes(view: View, out: Output) -> Iterator[str]:
    rows = [
        (
            short(node.label, 26),
            short(node.stage, 10) + (" <" if node.is_behind else ""),
            f"{node.old_shards:,}",
            f"{node.verdicts.get('proven', 0):,}",
            f"{node.gone:,}",
            size(node.allocated_bytes),
            size(node.reclaimable_bytes),
            size(node.free_bytes),
        )
        for node in view.nodes
    ]
    header = ("NODE", "STAGE", "OLD", "PROVEN", "GONE", "ON DISK", "RECLAIM", "FREE")
    table = table_lines(header, rows, right="llrrrrrr")
    yield out.styled(table[0], "bold")
    yield from table[1:]
    if any(node.is_behind for node in view.nodes):
        yield "< behind the others"
    yield ""


def _open_shards(report: Report, view: View, out: Output) -> Iterator[str]:
    """Yield the old shards of a cluster that are not proven everywhere."""
    found = [shard for shard in view.shards if shard.is_there and not shard.proven_everywhere]
    if len(report.nodes) == 1 or not found:
        return
    rows = []
    for shard in found[:_MOST_ROWS]:
        lost = f"{shard.lost:,}" if shard.lost else "-"
        rows.append((short(shard.id), lost, short(_where(shard, view), 48)))
    table = table_lines(("NOT PROVEN EVERYWHERE", "LOST", "WHERE"), rows, right="lrl")
    yield out.styled(table[0], "bold")
    yield from table[1:]
    if len(found) > len(rows):
        yield f"... and {plural(len(found) - len(rows), 'shard')} more; --json and --html have all"
    yield ""


def _where(shard: ClusterShard, view: View) -> str:
    """Say where a shard is what: 'incomplete on db2; proven on db1, db3'."""
    parts = []
    for verdict in WORST_FIRST:
        on = [view.nodes[copy.node].label for copy in shard.copies if copy.verdict == verdict]
        if on:
            parts.append(f"{verdict} on {names(on, 3)}")
    parts += [f"no report of server {number}" for number in shard.unreported]
    return "; ".join(parts)


def _losses(report: Report) -> Iterator[str]:
    found: Counter[tuple[str, str, str]] = Counter()
    total = 0
    for node in report.nodes:
        total += node.losses.columns
        for loss in node.losses.largest:
            found[loss.database, loss.series, loss.cause] += loss.missing + loss.different
    if not found:
        return
    rows = [
        (short(database, 16), short(series, 30), short(cause, 16), f"{lost:,}")
        for (database, series, cause), lost in found.most_common(_MOST_ROWS)
    ]
    yield from table_lines(("DATABASE", "SERIES", "CAUSE", "LOST"), rows, right="lllr")
    if len(found) > len(rows) or total > sum(len(n.losses.largest) for n in report.nodes):
        columns = plural(total, "column")
        yield f"... these are the largest; {columns} in all: shardtool verify --list"
    yield ""


def _rest(report: Report, view: View) -> Iterator[str]:
    for node, summary in zip(report.nodes, view.nodes, strict=True):
        who = f"{safe(summary.label)}: " if len(report.nodes) > 1 else ""
        snapshots, listed = node.snapshots.snapshots, node.snapshots.is_listed
        if not who:
            newest = snapshots[-1] if snapshots else None
            age = instant(node.made.at) - instant(newest.created_at) if newest else 0
            told = f", the newest {duration(max(age, 0))} old" if newest else ""
            where = f"in {safe(node.snapshots.store)}, which was not asked"
            yield f"snapshots: {len(snapshots)}{told}" if listed else f"snapshots: {where}"
            accepted = [one.shard for one in node.accepted if one.holds]
            if accepted:
                yield f"losses accepted: {safe(names(accepted, 8))}"
        rows = rows_of(node.history.events)
        if rows:
            when, event, shard, detail = rows[-1]
            last = " ".join(part for part in (when, event, shard, detail) if part not in ("", "-"))
            yield short(f"{who}journal: {plural(len(rows), 'step')}, last: {last}", _WIDTH)
        if not report.sources and (others := unaccounted(node)):
            yield others


def _attention(report: Report, view: View, out: Output) -> Iterator[str]:
    found = wrongs(report, view)
    if not found or out.mail:  # a mail begins with it
        return
    yield ""
    yield out.styled("not as it should be:", "bad")
    for line in _cut(found):
        yield from _wrapped(f"- {safe(line)}")


def _cut(found: Sequence[str]) -> list[str]:
    if len(found) <= _MOST_LINES:
        return list(found)
    return [*found[:_MOST_LINES], f"... and {len(found) - _MOST_LINES:,} more: --json has all"]
