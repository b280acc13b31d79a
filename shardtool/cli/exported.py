"""What `shardtool export` tells of the file that it wrote: to people and as JSON."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from shardtool.cli.output import Output, safe, short
from shardtool.export.left import WHY
from shardtool.export.run import Report
from shardtool.export.target import STDOUT, is_stream, left_of
from shardtool.export.work import NOT_COMPARED, TORN
from shardtool.proof.columns import Name
from shardtool.proof.prove import Finding
from shardtool.rescue.points import WHY as NOT_SENT
from shardtool.words import plural, size

_MOST_TOLD = 8


def show(report: Report, args: argparse.Namespace, out: Output) -> None:
    """Tell people, on stderr where stdout has the values."""
    tell = out.note if args.to == STDOUT else _printer(out)
    if not out.quiet:
        for outcome in report.outcomes:
            if outcome.word and outcome.word != TORN:  # that is told in any case
                tell(f"{short(outcome.job.name)}: {outcome.word}: {safe(outcome.detail)}")
        for why, count in report.left.most_common():
            tell(f"{plural(count, 'value')} left out: {WHY[why]}")
        if report.twice:
            tell(f"{plural(report.twice, 'value')} in two shards or more: each went out once")
        _show_mixed(report, tell)
    tell(_summary(report, args))


def warn_of(report: Report, out: Output) -> None:
    """Warn, however little is to be shown, of what nobody can see in the file."""
    for outcome in report.outcomes:
        if outcome.word == TORN:
            out.warn(outcome.detail)
    guessed = report.guessed
    for name in guessed[:_MOST_TOLD]:
        out.warn(
            f"{short(name.series_text)} {short(name.column)}: is in the file under the likeliest "
            f"name: {NOT_SENT['ambiguous']}"
        )
    if len(guessed) > _MOST_TOLD:
        out.warn(f"... and {len(guessed) - _MOST_TOLD:,} columns more under the likeliest name")


def _printer(out: Output) -> Callable[[str], None]:
    return lambda text: out.line(safe(text))


def _show_mixed(report: Report, tell: Callable[[str], None]) -> None:
    mixed = report.mixed
    for column, kinds in itertools.islice(mixed.items(), _MOST_TOLD):
        tell(f"{short(column.series_text)} {short(column.column)}: {_ONE_TYPE}")
        if kinds == "fi":
            tell("  --floats makes one type of integers and floats")
    if len(mixed) > _MOST_TOLD:
        tell(f"... and {len(mixed) - _MOST_TOLD:,} columns more of several types")


_ONE_TYPE = "values of several types: the file has those of the first one"


def _summary(report: Report, args: argparse.Namespace) -> str:
    file = report.files[0]
    name, noun = args.to, "lost value" if args.lost else "value"
    what = f"{plural(report.values, noun)} of {plural(report.points, 'point')}"
    shards = plural(len(report.outcomes), "shard")
    parts = [f"{name}: {what}, from {shards}, {size(file.bytes)}"]
    left = sum(report.left.values())
    if left:
        beside = None if is_stream(name) else left_of(name)
        listed = beside if args.left is None else args.left
        parts.append(f"{plural(left, 'value')} left out{f' (see {listed})' if listed else ''}")
    broken = sum(not outcome.is_read for outcome in report.outcomes)
    if broken:
        parts.append(f"{plural(broken, 'shard')} not read to the end")
    alone = sum(outcome.word == NOT_COMPARED for outcome in report.outcomes)
    if alone:
        parts.append(f"{plural(alone, 'shard')} not compared with others of their times")
    torn = sum(outcome.word == TORN for outcome in report.outcomes)
    if torn:
        parts.append(f"{plural(torn, 'shard')} with a log that is cut")
    return "; ".join(parts)


def _lost(finding: Finding | None) -> dict[str, Any] | None:
    """Return what the new storage lacks of a shard; None where that is not known."""
    if finding is None:
        return None
    return {
        "missing": finding.missing,
        "different": finding.different,
        "on_other_servers": finding.elsewhere,
    }


def document_of(report: Report, findings: Mapping[str, Finding] | None) -> dict[str, Any]:
    """Return the document; `findings` are of --lost, by shard."""
    return {
        "database": report.database or None,
        "values": report.values,
        "points": report.points,
        "twice": report.twice,
        "shards": [
            {
                "id": outcome.job.name,
                "side": "new" if outcome.job.is_new else "old",
                "values": outcome.values,
                "points": outcome.points,
                **({} if findings is None else {"lost": _lost(findings.get(outcome.job.name))}),
                "left": [
                    {"why": why, "values": count} for why, count in sorted(outcome.left.items())
                ],
                "reasons": [outcome.word] if outcome.word else [],
                "details": [outcome.detail] if outcome.word else [],
            }
            for outcome in report.outcomes
        ],
        "files": [
            {"path": file.path, "bytes": file.bytes, "sha256": file.sha256} for file in report.files
        ],
        "left": [{"why": why, "values": count} for why, count in sorted(report.left.items())],
        "mixed": _listed(report.mixed),
        "ambiguous": _listed(report.guessed),
    }


def _listed(columns: Iterable[Name]) -> list[dict[str, str]]:
    return [
        {"database": name.database, "series": name.series, "column": name.column}
        for name in columns
    ]
