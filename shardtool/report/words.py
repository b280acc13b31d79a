"""What a report says in sentences: the state, and what to do next. Pure; for screen and page."""

from __future__ import annotations

from collections.abc import Iterator

from shardtool.report.model import Report
from shardtool.report.view import NodeSummary, View, unreported_words
from shardtool.words import names, plural, size

WHY_NOT = {
    "old-side-changed": "the old shard changed since",
    "new-side-changed": "the new shards, or what raft knows of them, changed since",
    "answers-too-old": "other servers answered then, and that holds a day",
    "catalogue-unreadable": "what raft knows can't be read now",
}
"""Why a proof does not hold any more."""
EVIDENCE = {
    "proof": "every value was found in the new storage",
    "accepted": "its losses were accepted",
    "marker": "the marker was trusted, nothing was proven",
}


def headline(view: View) -> str:
    """Return the state of all nodes in one sentence, ended by a full stop."""
    totals = view.totals
    if not totals.old_shards:
        known = "There are no old shards here"
        if totals.gone:
            known = f"No old shard is left: {plural(totals.gone, 'was', 'were')} deleted"
        return f"{'; '.join(filter(None, (known, unreported_words(view))))}."
    return f"{'; '.join(_clauses(view))}."


def _clauses(view: View) -> Iterator[str]:
    totals = view.totals
    everywhere = " everywhere" if totals.nodes > 1 else ""
    all_shards = plural(totals.old_shards, "old shard")
    proven = totals.proven_everywhere
    if proven == totals.old_shards:
        whole = "it is" if proven == 1 else "all are"
        yield f"{all_shards}, {whole} proven{everywhere}"
        yield f"each of {plural(totals.values, 'value')} is in the new storage"
    elif totals.verdicts.keys() == {"unmigrated"}:
        yield f"{all_shards}, {'none of them' if totals.old_shards > 1 else 'not'} migrated yet"
    elif totals.old_shards == 1:
        yield f"1 old shard, not proven{everywhere}"
    else:
        verb = "is" if proven == 1 else "are"
        yield f"{proven:,} of {all_shards} {verb} proven{everywhere}"
    certain = totals.lost - totals.elsewhere_values
    if certain:
        yield _lost(view, certain)
    if totals.elsewhere_values:
        of = plural(totals.elsewhere_shards, "shard")
        yield f"{plural(totals.elsewhere_values, 'value')} of {of} may be on other servers"
    none_migrated = totals.verdicts.keys() == {"unmigrated"}
    for verdict, words in (
        ("marked", "marked and not proven"),
        ("unmigrated", "not migrated yet"),
        ("suspect", "suspect"),
        ("unreadable", "unreadable"),
        ("busy", "busy"),
    ):
        if totals.verdicts.get(verdict) and not none_migrated:
            count = totals.verdicts[verdict]
            yield f"{count:,} {'is' if count == 1 else 'are'} {words}"
    if totals.gone:
        yield f"{totals.gone:,} {'was' if totals.gone == 1 else 'were'} deleted"
    if view.unreported:
        yield unreported_words(view)


def _lost(view: View, certain: int) -> str:
    totals = view.totals
    shards = totals.losing_shards - totals.elsewhere_shards
    verb = "exists" if certain == 1 else "exist"
    words = f"{plural(certain, 'value')} of {plural(shards, 'shard')} {verb} nowhere else"
    if totals.accepted_values == certain:
        return f"{words}, which was accepted"
    if totals.accepted_values:
        return f"{words} ({totals.accepted_values:,} of them accepted)"
    return words


def is_good(report: Report, view: View) -> bool:
    """Say whether nothing is as it should not be: exit code 0."""
    return not wrongs(report, view)


def wrongs(report: Report, view: View) -> list[str]:
    """Return what is not as it should be, a line each; of several nodes each says which it is."""
    many = len(report.nodes) > 1
    found = list(view.problems)
    for node, summary in zip(report.nodes, view.nodes, strict=True):
        found += [f"{summary.label}: {line}" if many else line for line in node.attention]
    return found


def steps(report: Report, view: View) -> list[tuple[str, str, str]]:
    """Return what to do next: nodes, command, advice; the nodes that are behind first."""
    order = sorted(
        zip(report.nodes, view.nodes, strict=True), key=lambda pair: not pair[1].is_behind
    )
    found: dict[tuple[str, str], list[str]] = {}
    for node, summary in order:
        if node.next:
            found.setdefault((node.next, node.advice), []).append(summary.label)
    many = len(report.nodes) > 1
    return [
        (names(labels) if many else "", command, advice)
        for (command, advice), labels in found.items()
    ]


def behind(view: View) -> list[NodeSummary]:
    """Return the nodes that others are ahead of."""
    return [node for node in view.nodes if node.is_behind]


def plan_words(report: Report) -> str:
    """Return what prune would do on all nodes, on receipts alone."""
    plans = [node.plan for node in report.nodes if node.plan is not None]
    going = sum(len(plan.delete) for plan in plans)
    staying = sum(len(plan.keep) for plan in plans)
    back = sum(plan.reclaimable_bytes for plan in plans)
    if not going and not staying:
        return "would delete nothing, for there is nothing"
    copies = ("copy", "copies") if len(report.nodes) > 1 else ("shard",)
    return f"would delete {plural(going, *copies)} ({size(back)} come back) and keep {staying:,}"
