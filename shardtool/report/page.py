"""A report as one self-contained page: HTML and CSS, no script, nothing from elsewhere.

Jinja2 escapes whatever is put into the template for HTML, and each text goes through the output's
own `safe` before that: no name from a disk is markup, turns the direction of writing or hides.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from shardtool.cli.history import rows_of
from shardtool.cli.output import safe
from shardtool.proof.causes import CAUSES, IN_WORDS
from shardtool.report.model import VERDICTS, Loss, Node, OldShard, Report
from shardtool.report.timeline import timeline_of
from shardtool.report.view import NodeSummary, View, unaccounted
from shardtool.report.words import (
    EVIDENCE,
    WHY_NOT,
    headline,
    is_good,
    plan_words,
    steps,
    wrongs,
)
from shardtool.words import names, plural, size

MOST_SHARDS = 3_000  # rows of shards, proofs and plans, a node
MOST_LOSSES = 200  # rows of lost columns
MOST_STEPS = 200  # of a journal
MOST_WRONGS = 15  # lines of what is not as it should be
_OPEN = 60  # rows of a table that is shown without being asked for


@dataclass(frozen=True)
class Shown:
    """A node and its summary: what the template goes through."""

    node: Node
    summary: NodeSummary
    steps: list[tuple[str, str, str, str]]


@dataclass(frozen=True)
class SeriesLoss:
    """Losses of one series for one cause, over all columns, shards and nodes."""

    database: str
    series: str
    cause: str
    lost: int
    shards: int
    columns: str


def page_of(report: Report, view: View) -> str:
    """Return the page; it ends in a line feed."""
    template = _environment().get_template("page.html.j2")
    nodes = [
        Shown(node, summary, rows_of(node.history.events))
        for node, summary in zip(report.nodes, view.nodes, strict=True)
    ]
    largest = [(s.summary.label, loss) for s in nodes for loss in s.node.losses.largest]
    largest.sort(key=lambda one: -one[1].missing - one[1].different)
    return template.render(
        report=report,
        view=view,
        nodes=nodes,
        many=len(nodes) > 1,
        headline=headline(view),
        good=is_good(report, view),
        wrongs=wrongs(report, view),
        steps=steps(report, view),
        alone=unaccounted(report.nodes[0]) if not report.sources else "",
        timeline=timeline_of(report, view),
        causes=_causes(report),
        by_series=_by_series(report),
        largest=largest,
        lost_columns=sum(node.losses.columns for node in report.nodes),
        plan_words=plan_words(report),
        style=Markup((files("shardtool.report") / "templates/page.css").read_text("utf-8")),
        verdicts=VERDICTS,
        why_not=WHY_NOT,
        evidence=EVIDENCE,
        most={
            "shards": MOST_SHARDS,
            "losses": MOST_LOSSES,
            "steps": MOST_STEPS,
            "wrongs": MOST_WRONGS,
            "open": _OPEN,
        },
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("shardtool.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        # Whatever a template puts out: no text gets around this.
        finalize=lambda value: safe(value) if type(value) is str else value,
    )
    # Jinja's `safe` is a way around escaping, and there is to be none.
    del environment.filters["safe"]
    filters: dict[str, Callable[..., Any]] = {
        "size": size,
        "count": lambda number: f"{number:,}",
        "when": _when,
        "names": names,
        "reasons": _reasons,
    }
    environment.filters.update(filters)
    environment.globals["plural"] = plural
    return environment


def _when(time: str | None) -> str:
    """Return a time of a document to the second: '2026-11-24 16:19:57'."""
    return "-" if not time else time[:19].replace("T", " ").removesuffix("Z")


def _reasons(shard: OldShard) -> str:
    """Return why a shard has its verdict."""
    details = shard.details if len(shard.details) == len(shard.reasons) else shard.reasons
    pairs = zip(shard.reasons, details, strict=True)
    return "; ".join(f"{word}: {detail}" if detail else word for word, detail in pairs)


def _causes(report: Report) -> list[tuple[str, int, str]]:
    """Return the causes of losses, how many values each, and what it means."""
    found: Counter[str] = Counter()
    for node in report.nodes:
        found.update(node.losses.by_cause)
    ordered = sorted(found, key=lambda cause: (-found[cause], cause))
    return [(c, found[c], IN_WORDS[c] if c in CAUSES else "") for c in ordered]


def _by_series(report: Report) -> list[SeriesLoss]:
    """Return the losses by series and cause, the largest first, of what the report has."""
    found: dict[tuple[str, str, str], list[Loss]] = {}
    for node in report.nodes:
        for loss in node.losses.largest:
            found.setdefault((loss.database, loss.series, loss.cause), []).append(loss)
    rows = [
        SeriesLoss(*key, _lost(losses), len({one.shard for one in losses}), _columns(losses))
        for key, losses in found.items()
    ]
    return sorted(rows, key=lambda row: (-row.lost, row.database, row.series))


def _lost(losses: Iterable[Loss]) -> int:
    return sum(loss.missing + loss.different for loss in losses)


def _columns(losses: Iterable[Loss]) -> str:
    return names(dict.fromkeys(loss.column for loss in losses), 6)
