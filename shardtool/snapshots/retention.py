"""Which snapshots go and which stay: a pure function of ids, rules and the time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from shardtool.snapshots.metadata import age_order

LAST, WITHIN, LAST_GOOD = "keep-last", "keep-within", "last-good"
# Kept by no rule, but because nothing goes where nothing is good.
NONE_GOOD = "none-good"


@dataclass(frozen=True)
class Rules:
    """What the operator asked to keep; what no rule keeps goes.

    Args:
        last: the newest so many, or None.
        within_s: those not older than so many seconds, or None.
    """

    last: int | None = None
    within_s: int | None = None


@dataclass(frozen=True)
class Plan:
    """What --dry-run prints and what is executed.

    Args:
        keep: id, and the rules that keep it, oldest first.
        remove: ids, oldest first.
        good: a snapshot that was read and found good, and stays, of several nodes' the newest;
            None where there is none, and where nothing is removed.
        damaged: ids that were read while looking for it and are not good.
    """

    keep: tuple[tuple[str, tuple[str, ...]], ...]
    remove: tuple[str, ...]
    good: str | None = None
    damaged: tuple[str, ...] = ()


def plan_for_each(
    origins: Mapping[str, str], rules: Rules, now_s: float, is_good: Callable[[str], bool]
) -> Plan:
    """Plan for each node alone: one that keeps its snapshots here too makes no other's go.

    Args:
        origins: the ids, and the node that each is of.
        rules, now_s, is_good: see plan_forget.
    """
    plans = [
        plan_forget([name for name, of in origins.items() if of == origin], rules, now_s, is_good)
        for origin in sorted(set(origins.values()))
    ]
    return Plan(
        tuple(sorted((k for p in plans for k in p.keep), key=lambda kept: age_order(kept[0]))),
        tuple(sorted((name for p in plans for name in p.remove), key=age_order)),
        max((p.good for p in plans if p.good is not None), key=age_order, default=None),
        tuple(name for p in plans for name in p.damaged),
    )


def plan_forget(
    snapshots: Sequence[str], rules: Rules, now_s: float, is_good: Callable[[str], bool]
) -> Plan:
    """Given the ids of all snapshots, say which stay by which rule and which go.

    Before anything may go, the newest keepers are asked after until one is good. Where none
    is, the newest good one of the others stays as well; where none at all is, all stay.

    Args:
        snapshots: ids whose metadata can be read, in any order.
        rules: at least one of them set.
        now_s: the time, in s since the epoch.
        is_good: reads a snapshot and says whether every byte is right; asked at most once each,
            and not at all where nothing would go.

    Example: three snapshots, keep-last 1: the newest stays by 'keep-last', the others go.
    """
    oldest_first = sorted(set(snapshots), key=age_order)
    keep = {name: _rules_for(name, oldest_first, rules, now_s) for name in oldest_first}
    keep = {name: kept_by for name, kept_by in keep.items() if kept_by}
    remove = [name for name in oldest_first if name not in keep]
    if not remove:
        return _plan(oldest_first, keep, None, ())
    damaged: list[str] = []
    for name in [*reversed(keep), *reversed(remove)]:
        if is_good(name):
            keep.setdefault(name, (LAST_GOOD,))
            return _plan(oldest_first, keep, name, tuple(damaged))
        damaged.append(name)
    keep = {name: keep.get(name, (NONE_GOOD,)) for name in oldest_first}
    return _plan(oldest_first, keep, None, tuple(damaged))


def _rules_for(
    name: str, oldest_first: Sequence[str], rules: Rules, now_s: float
) -> tuple[str, ...]:
    by_last = rules.last is not None and name in oldest_first[-rules.last :]
    by_age = rules.within_s is not None and age_order(name)[0] >= now_s - rules.within_s
    return (LAST,) * by_last + (WITHIN,) * by_age


def _plan(
    oldest_first: Sequence[str],
    keep: dict[str, tuple[str, ...]],
    good: str | None,
    damaged: tuple[str, ...],
) -> Plan:
    return Plan(
        tuple((name, keep[name]) for name in oldest_first if name in keep),
        tuple(name for name in oldest_first if name not in keep),
        good,
        damaged,
    )
