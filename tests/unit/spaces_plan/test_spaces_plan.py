"""Which requests make the spaces that are wanted, in which order."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardtool.influxdb.model import Space
from shardtool.influxdb.spaces import space_of, takes
from shardtool.upgrade.spaces import (
    Had,
    Plan,
)
from shardtool.upgrade.spaces_order import Trial
from shardtool.upgrade.spaces_plan import plan_spaces
from tests.unit.spaces_plan.world import CPU, DEFAULT, LOAD, LONG, SHORT, after, plan, steps


def carried_out(found: Plan, there: tuple[Space, ...]) -> tuple[Space, ...]:
    """Do what the server would do at each request."""
    spaces = list(there)
    for step in found.requests:
        if step.action == "create":
            assert all(space.name != step.space.name for space in spaces)
            spaces.insert(0, step.space)
        elif step.action == "change":
            (place,) = (i for i, one in enumerate(spaces) if one.name == step.space.name)
            spaces[place] = step.space
        else:
            spaces.remove(step.space)
    return tuple(spaces)


@pytest.mark.parametrize("wanted", [[SHORT, LONG], [LONG, SHORT]])
def test_the_least_specific_is_made_first_and_asked_last(wanted: list[Space]) -> None:
    found = plan(wanted)
    assert steps(found) == ["create short_term", "create long_term"]
    assert after(found) == ["long_term", "short_term"]
    assert (found.warnings, found.refusals) == ((), ())


def test_what_is_there_is_kept_and_nothing_is_sent() -> None:
    found = plan([SHORT, LONG], LONG, SHORT, long_term=(1,), short_term=(2,))
    assert steps(found) == ["keep short_term", "keep long_term"]
    assert found.requests == ()
    assert after(found) == ["long_term", "short_term"]


def test_the_more_specific_one_that_is_missing_is_made_on_top() -> None:
    found = plan([SHORT, LONG], SHORT, short_term=(1, 2))
    assert steps(found) == ["keep short_term", "create long_term"]


def test_each_database_has_a_plan_of_its_own() -> None:
    other = [replace(space, database="two") for space in (SHORT, LONG)]
    found = plan_spaces([SHORT, LONG, *other], {"db": Had((LONG, SHORT)), "two": Had()})
    assert [(s.space.database, s.action) for s in found.steps] == [
        ("db", "keep"),
        ("db", "keep"),
        ("two", "create"),
        ("two", "create"),
    ]
    assert found.after.keys() == {"db", "two"}


def test_a_wrong_order_without_shards_is_put_right_by_making_the_specific_one_again() -> None:
    found = plan([SHORT, LONG], SHORT, LONG)
    assert steps(found) == ["keep short_term", "remove long_term", "create long_term"]
    assert after(found) == ["long_term", "short_term"]
    assert found.refusals == ()


def test_a_new_wide_space_makes_the_specific_one_without_shards_again() -> None:
    found = plan([SHORT, LONG], LONG)
    assert steps(found) == ["create short_term", "remove long_term", "create long_term"]
    assert after(found) == ["long_term", "short_term"]


def test_what_has_shards_is_never_removed() -> None:
    for there in ((SHORT, LONG), (LONG,)):
        found = plan([SHORT, LONG], *there, long_term=(7, 9))
        (refusal,) = found.refusals
        assert refusal.startswith("db: long_term: it has to be asked before 'short_term'")
        assert "shards 7, 9" in refusal


def test_those_on_top_of_one_that_is_made_again_are_made_again_too() -> None:
    found = plan([SHORT, CPU, LOAD], LOAD, SHORT, CPU)
    assert after(found) == ["load", "cpu", "short_term"]
    assert steps(found) == [
        "keep short_term",
        "remove cpu",
        "create cpu",
        "remove load",
        "create load",
    ]


def test_those_that_share_no_name_may_stand_in_any_order() -> None:
    assert plan([CPU, LONG], CPU, LONG).requests == ()
    assert plan([CPU, LONG], LONG, CPU).requests == ()


def test_a_space_behind_an_automatic_default_is_made_again_before_it() -> None:
    found = plan([CPU], DEFAULT, CPU)
    assert steps(found) == ["remove cpu", "create cpu"]
    assert after(found) == ["cpu", "default"]
    (refusal,) = plan([CPU], DEFAULT, CPU, cpu=(3,)).refusals
    assert "'default' is asked before it and takes all it takes" in refusal


REGEXES = [
    *(
        "/.*/",
        "/^\\p{Greek}/",
        "/[\\t]/",
        "/^..\\b..$/",
        "/a^b/",
        "/^cpu/",
        "/^cpu\\.\\d/",
        "/cpu/i",
    ),
    *(
        "/load$/",
        "/^[A-Z]/",
        "/^.*$/",
        "/\\pL/",
        "/^(cpu|mem)\\./",
        "/^mem\\.used$/",
        "/[^a]/",
        "/^$/",
    ),
]


@given(
    st.lists(st.sampled_from(REGEXES), min_size=1, max_size=5, unique=True),
    st.lists(st.sampled_from(REGEXES), max_size=3, unique=True),
    st.lists(
        st.sampled_from(["cpu", "cpu.1", "Mem", "\u03b1", "mem.used", "a-b", "\t"]), max_size=3
    ),
    st.sets(st.sampled_from(REGEXES), max_size=2),
)
def test_where_nothing_is_told_each_name_goes_to_a_most_specific_space(
    wanted: list[str], there: list[str], series: list[str], with_shards: set[str]
) -> None:
    def space(regex: str) -> Space:
        return Space(regex, "db", regex, "inf", "7d", 1, 1)

    has = Had(tuple(map(space, there)), dict.fromkeys(with_shards, (1,)), series)
    found = plan_spaces([*map(space, wanted)], {"db": has})
    if found.refusals or found.warnings:
        return
    asked = carried_out(found, has.spaces)
    trial = Trial(asked, series)
    for name in (*trial.names, "cpu.5", "\u03b2x", "x\ty", "mem.used", "Z", ""):
        matching = [one for one in asked if takes(one, name)]
        for one in matching[1:]:
            # Unless neither of them is in the file.
            if one.name in wanted or matching[0].name in wanted:
                assert not trial.is_wider(matching[0], one), name
    for one in has.spaces:
        if one.name in with_shards:
            for name in series:
                if space_of(has.spaces, name) == one:
                    assert space_of(asked, name) == one


@given(
    st.lists(st.sampled_from(REGEXES), min_size=1, max_size=5, unique=True),
    st.lists(st.sampled_from(REGEXES), max_size=4, unique=True),
)
def test_a_plan_that_is_made_again_in_its_midst_is_what_is_left_of_it(
    wanted: list[str], there: list[str]
) -> None:
    spaces = [Space(regex, "db", regex, "inf", "7d", 1, 1) for regex in wanted]
    left = tuple(Space(regex, "db", regex, "inf", "30d", 1, 1) for regex in there)
    whole = plan(spaces, *left)
    if whole.refusals:
        return
    for number in range(len(whole.requests)):
        now = carried_out(replace(whole, steps=whole.requests[:number]), left)
        again = plan(spaces, *now)
        assert again.refusals == ()
        assert [(one.action, one.space) for one in again.requests] == [
            (one.action, one.space) for one in whole.requests[number:]
        ]


POOL = [SHORT, LONG, CPU, LOAD, replace(CPU, name="b", regex="/b$/"), DEFAULT]


@given(
    st.lists(st.sampled_from(POOL), min_size=1, unique=True),
    st.lists(st.sampled_from(POOL), unique=True),
    st.sets(st.sampled_from([space.name for space in POOL])),
)
def test_a_plan_leads_where_it_says_and_removes_nothing_that_has_shards(
    wanted: list[Space], there: list[Space], with_shards: set[str]
) -> None:
    shards = dict.fromkeys(with_shards, (1,))
    found = plan(wanted, *there, **shards)
    if found.refusals:
        return
    removed = {step.space.name for step in found.requests if step.action == "remove"}
    assert not removed & with_shards
    left = carried_out(found, tuple(there))
    assert left == found.after["db"]
    assert {space.name for space in left} == {space.name for space in (*wanted, *there)}
    # None of the wanted ones is behind another that takes all it takes, and more.
    trial, names = Trial(left), [space.name for space in left]
    for space in wanted:
        before = left[: names.index(space.name)]
        assert not any(trial.is_wider(one, space) for one in before)
    # A second run has nothing to do.
    assert plan(wanted, *left, **shards).requests == ()


@pytest.mark.slow
@given(st.lists(st.sampled_from(POOL), min_size=1, unique=True), st.data())
def test_a_plan_that_was_cut_off_anywhere_is_finished_by_the_next(
    wanted: list[Space], data: st.DataObject
) -> None:
    there = tuple(data.draw(st.lists(st.sampled_from(wanted), unique=True)))
    whole = plan(wanted, *there)
    done = data.draw(st.integers(0, len(whole.requests)))
    half = replace(whole, steps=whole.requests[:done])
    left = carried_out(half, there)
    again = plan(wanted, *left)
    assert again.refusals == ()
    assert carried_out(again, left) == again.after["db"]
    assert plan(wanted, *again.after["db"]).requests == ()
