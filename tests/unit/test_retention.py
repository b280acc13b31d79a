"""Which snapshots go: the plan alone, no disk."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardtool.snapshots.metadata import age_order, new_id
from shardtool.snapshots.retention import Plan, Rules, plan_for_each, plan_forget

NOW = 1_800_000_000
DAY = 86_400


def ids(*ages_in_days: int) -> list[str]:
    """Return the ids of snapshots that are so many days old."""
    found: list[str] = []
    for age in ages_in_days:
        found.append(new_id(NOW - age * DAY, found.__contains__))
    return found


def test_the_newest_stay_by_number() -> None:
    old, middle, new = ids(9, 5, 1)
    plan = plan_forget([new, old, middle], Rules(last=2), NOW, lambda name: True)
    assert plan.remove == (old,)
    assert plan.keep == ((middle, ("keep-last",)), (new, ("keep-last",)))


def test_what_is_young_enough_stays() -> None:
    old, edge, new = ids(31, 30, 1)
    plan = plan_forget([old, edge, new], Rules(within_s=30 * DAY), NOW, lambda name: True)
    assert plan.remove == (old,)


def test_either_rule_keeps() -> None:
    old, middle, new = ids(60, 20, 1)
    plan = plan_forget([old, middle, new], Rules(1, 30 * DAY), NOW, lambda name: True)
    assert plan.keep == ((middle, ("keep-within",)), (new, ("keep-last", "keep-within")))


def test_two_of_one_second_are_told_apart_by_their_number() -> None:
    first, second = ids(1, 1)
    plan = plan_forget([second, first], Rules(last=1), NOW, lambda name: True)
    assert plan.remove == (first,)


def test_the_tenth_of_a_second_is_newer_than_the_second() -> None:
    found = ids(*[1] * 11)
    plan = plan_forget(found, Rules(last=2), NOW, lambda name: True)
    assert [name for name, _ in plan.keep] == found[-2:]


@pytest.mark.parametrize("zone", ["UTC", "Etc/GMT-14"])
def test_an_age_does_not_depend_on_the_machines_zone(
    zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", zone)
        time.tzset()
        found = age_order(new_id(NOW, lambda name: False))
    time.tzset()
    assert found == (NOW, 1)


def test_the_newest_good_one_stays_when_no_keeper_is_good() -> None:
    oldest, good, bad = ids(9, 5, 1)
    plan = plan_forget([oldest, good, bad], Rules(last=1), NOW, lambda name: name != bad)
    assert plan.keep == ((good, ("last-good",)), (bad, ("keep-last",)))
    assert (plan.remove, plan.damaged) == ((oldest,), (bad,))


def test_nothing_goes_when_nothing_is_good() -> None:
    plan = plan_forget(ids(9, 5, 1), Rules(last=1), NOW, lambda name: False)
    assert (plan.remove, plan.good) == ((), None)
    assert [rules for _, rules in plan.keep] == [("none-good",), ("none-good",), ("keep-last",)]


def test_nothing_is_read_when_nothing_would_go() -> None:
    def refuse(name: str) -> bool:
        raise AssertionError(f"{name} was read")

    plan_forget(ids(9, 5), Rules(last=2), NOW, refuse)


@given(
    snapshots=st.lists(st.tuples(st.integers(0, 60), st.booleans()), max_size=12),
    last=st.none() | st.integers(1, 14),
    within=st.none() | st.integers(0, 70),
)
def test_a_good_snapshot_is_left_whenever_there_was_one(
    snapshots: list[tuple[int, bool]], last: int | None, within: int | None
) -> None:
    names = ids(*(age for age, _ in snapshots))
    good = {name for name, (_, is_good) in zip(names, snapshots, strict=True) if is_good}
    rules = Rules(last, None if within is None else within * DAY)
    plan = plan_forget(names, rules, NOW, good.__contains__)
    kept = [name for name, _ in plan.keep]
    assert sorted([*kept, *plan.remove]) == sorted(names)
    assert not plan.remove or good & set(kept)
    if last is not None:
        assert set(sorted(names, key=age_order)[-last:]) <= set(kept)


def test_each_nodes_snapshots_are_counted_alone() -> None:
    old, mine, oldest, other = ids(9, 1, 30, 20)
    older, alone = ids(40, 2)
    origins = {
        old: "a:/raft",
        other: "b:/raft",
        mine: "a:/raft",
        oldest: "b:/raft",
        older: "b:/raft",
        alone: "c:/raft",
    }
    plan = plan_for_each(origins, Rules(last=1), NOW, lambda name: True)
    assert plan.remove == (older, oldest, old)
    assert [name for name, _ in plan.keep] == [other, alone, mine]
    assert plan.good == mine


def test_of_several_nodes_too_the_tenth_of_a_second_is_newer_than_the_second() -> None:
    found = ids(*[1] * 22)
    origins = {name: "a" if name in found[::2] else "b" for name in reversed(found)}
    assert found != sorted(found)
    plan = plan_for_each(origins, Rules(last=1), NOW, lambda name: True)
    assert plan.remove == tuple(found[:-2])
    assert [name for name, _ in plan.keep] == found[-2:]
    origins = {found[7]: "a", found[8]: "a", found[6]: "b", found[9]: "b"}
    plan = plan_for_each(origins, Rules(last=1), NOW, lambda name: True)
    assert [name for name, _ in plan.keep] == [found[8], found[9]]
    assert plan.good == found[9] != max(found[8:10])


def test_a_node_without_a_good_snapshot_keeps_all_and_the_others_do_not_mind() -> None:
    bad, worse, old, new = ids(9, 8, 7, 6)
    origins = {bad: "a", worse: "a", old: "b", new: "b"}
    plan = plan_for_each(origins, Rules(last=1), NOW, lambda name: origins[name] == "b")
    assert (plan.remove, plan.good) == ((old,), new)
    assert set(plan.damaged) == {bad, worse}


def test_where_no_node_has_a_snapshot_there_is_nothing_to_plan() -> None:
    assert plan_for_each({}, Rules(last=1), NOW, lambda name: True) == Plan((), ())
