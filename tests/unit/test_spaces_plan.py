"""The plan of shard spaces: what is made, changed, made again or kept, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardtool.influxdb.model import Catalogue, Dropped, ShardRange, Space
from shardtool.influxdb.spaces import space_of, takes
from shardtool.upgrade.spaces import (
    Had,
    Plan,
    deviations,
    difference,
    had_by,
    like_07,
    same_meaning,
)
from shardtool.upgrade.spaces_order import Trial
from shardtool.upgrade.spaces_plan import plan_spaces

SHORT, LONG = like_07("db")
CPU = Space("cpu", "db", "/^cpu/", "inf", "30d", 1, 1)
LOAD = Space("load", "db", "/^cpu\\.load/", "inf", "30d", 1, 1)
DEFAULT = Space("default", "db", "/.*/", "inf", "7d", 1, 1)


def plan(wanted: list[Space], *there: Space, **shards: tuple[int, ...]) -> Plan:
    """Plan for a database that has spaces, the newest first, with shards by their names."""
    return plan_spaces(wanted, {"db": Had(there, shards)})


def steps(found: Plan) -> list[str]:
    """Return a plan's steps as words."""
    return [f"{step.action} {step.space.name}" for step in found.steps]


def after(found: Plan) -> list[str]:
    """Return the names of the spaces as they are asked then."""
    return [space.name for space in found.after["db"]]


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


# -- new ones --


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


# -- the wrong order --


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


# -- changes --


@pytest.mark.parametrize(
    "change",
    [
        {"retention": "30d"},
        {"regex": "/^x/"},
        {"shard_duration": "1d"},
        {"replication": 2},
        {"split": 3},
    ],
)
def test_a_space_without_shards_may_change_in_any_way(change: dict[str, Any]) -> None:
    wanted = replace(CPU, **change)
    found = plan([wanted], CPU)
    assert steps(found) == ["change cpu"]
    assert found.refusals == ()
    assert len(difference(found.steps[0])) == 1


@pytest.mark.parametrize(
    ("was", "becomes", "is_refused"),
    [
        ({}, {"regex": "/^cpu./"}, True),
        ({}, {"retention": "3000d"}, True),
        ({"retention": "30d"}, {"retention": "7d"}, True),
        ({"retention": "30d"}, {"retention": "inf"}, False),
        ({"retention": "30d"}, {"retention": "40d"}, False),
        ({"retention": "7 parsecs"}, {"retention": "40d"}, True),
        ({"retention": "7 parsecs"}, {"retention": "inf"}, False),
        ({}, {"shard_duration": "1d"}, False),
        ({}, {"split": 2, "replication": 2}, False),
    ],
)
def test_a_space_with_shards_changes_only_where_nothing_is_lost(
    was: dict[str, Any], becomes: dict[str, Any], is_refused: bool
) -> None:
    before, wanted = replace(CPU, **was), replace(CPU, **becomes)
    found = plan([wanted], before, cpu=(4,))
    assert steps(found) == ["change cpu"]
    assert bool(found.refusals) is is_refused
    assert all("shard 4" in refusal for refusal in found.refusals)


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ({}, {}, True),
        ({"shard_duration": "30d"}, {"shard_duration": "720h"}, True),
        ({"shard_duration": "7d"}, {"shard_duration": ""}, True),
        ({"retention": "inf"}, {"retention": ""}, True),
        ({"retention": "inf"}, {"retention": "0d"}, True),
        ({"retention": "inf"}, {"retention": "7 parsecs"}, False),
        ({"shard_duration": "7d"}, {"shard_duration": "7 parsecs"}, False),
        ({"shard_duration": "7d"}, {"shard_duration": "0d"}, False),
        ({"regex": "/a/"}, {"regex": "a"}, False),
        ({"split": 1}, {"split": 2}, False),
        ({"replication": 1}, {"replication": 2}, False),
    ],
)
def test_definitions_are_compared_by_what_they_mean(
    one: dict[str, Any], other: dict[str, Any], equal: bool
) -> None:
    pair = replace(CPU, **one), replace(CPU, **other)
    assert same_meaning(*pair) is same_meaning(*pair[::-1]) is equal


# -- those that the file does not name --


def test_a_new_space_that_hides_a_more_specific_one_is_refused() -> None:
    found = plan([SHORT], CPU)
    (refusal,) = found.refusals
    assert refusal.startswith("db: short_term: it would be asked before 'cpu' (/^cpu/)")
    assert plan([SHORT, CPU], CPU).refusals == ()


def test_a_new_space_that_takes_series_from_one_with_shards_is_refused() -> None:
    found = plan([SHORT, LONG], DEFAULT, default=(5,))
    (refusal,) = found.refusals
    assert refusal.startswith("db: default: 'short_term' would take series such as 'cpu' from it")
    assert "it has shard 5: what they hold of those is not found any more" in refusal
    assert "say --take-from default" in refusal
    assert plan([SHORT, LONG], DEFAULT).refusals == ()


def test_a_space_of_the_file_is_not_taken_from_either() -> None:
    (refusal,) = plan([SHORT, LONG], SHORT, short_term=(1, 2)).refusals
    assert refusal.startswith("db: short_term: 'long_term' would take series such as 'Mem'")


def test_only_series_that_are_known_have_values_to_lose() -> None:
    for series, count in ((["cpu"], 0), (["cpu", "Mem"], 1)):
        found = plan_spaces([SHORT, LONG], {"db": Had((SHORT,), {"short_term": (1,)}, series)})
        assert len(found.refusals) == count


def test_what_the_operator_lets_be_taken_is_told_and_planned() -> None:
    had = {"db": Had((DEFAULT,), {"default": (5,)}, ["cpu"])}
    found = plan_spaces([SHORT], had, take_from=["default", "other"])
    assert (found.refusals, found.taken_from) == ((), (DEFAULT,))
    (warning,) = found.warnings
    assert "it has shard 5" in warning
    assert warning.endswith("(--take-from default)")
    again = plan_spaces([SHORT], {"db": Had((SHORT, DEFAULT), {"default": (5,)}, ["cpu"])})
    assert (again.requests, again.refusals, again.warnings) == ((), (), ())


def test_a_regex_that_changes_takes_from_nothing_with_shards() -> None:
    wide = replace(CPU, name="a", regex="/^a/")
    found = plan([replace(wide, regex="/^(a|cpu.load)/")], wide, LOAD, load=(3,))
    (refusal,) = [line for line in found.refusals if line.startswith("db: load")]
    assert "'a' would take series such as" in refusal


def test_one_that_takes_all_takes_from_one_of_which_nothing_is_known() -> None:
    never = replace(CPU, regex="/a^b/")
    assert plan([never, SHORT], never, cpu=(3,)).refusals
    (refusal,) = plan([replace(SHORT, name="cpu2")], never, cpu=(3,)).refusals[:1]
    assert "'cpu2' would take series from it, and it has shard 3" in refusal


def test_what_was_so_before_is_told_and_not_refused() -> None:
    found = plan([SHORT], SHORT, CPU, cpu=(1,))
    assert (found.requests, found.refusals) == ((), ())
    told = "'short_term' takes all it takes, as before: it is not in the file and never asked"
    assert found.warnings == (f"db: cpu: {told}",)
    assert plan([SHORT], SHORT, DEFAULT, default=(1,)).warnings == ()


def test_spaces_that_are_not_named_stay_where_they_are() -> None:
    found = plan([CPU], SHORT, short_term=(1,))
    assert after(found) == ["cpu", "short_term"]


def test_a_space_with_a_regex_that_nobody_can_use_is_in_nobodys_way() -> None:
    broken = replace(CPU, name="broken", regex="/(/")
    assert plan([SHORT, LONG], broken).refusals == ()


# -- warnings --


def test_two_that_overlap_are_named_with_a_sample() -> None:
    a, b = replace(CPU, name="a", regex="/^a/"), replace(CPU, name="b", regex="/b$/")
    found = plan([a, b])
    assert after(found) == ["b", "a"]
    (warning,) = found.warnings
    assert warning.startswith("db: b: it takes what 'a' matches too, such as 'ab'")


def test_two_that_match_the_same_are_told_and_the_first_is_never_asked() -> None:
    found = plan([CPU, replace(CPU, name="again")])
    assert after(found) == ["again", "cpu"]
    assert found.warnings == ("db: cpu: 'again' takes all it takes: it would never be asked",)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_catch_all_never_comes_out_on_top_of_what_has_no_sample(place: int) -> None:
    never, tabbed = replace(CPU, regex="/a^b/"), replace(CPU, name="tabbed", regex="/[\\t]/")
    wanted = [never, tabbed]
    wanted.insert(place, SHORT)
    found = plan(wanted)
    assert after(found)[-1] == "short_term"
    (refusal,) = found.refusals
    assert refusal.startswith("db: cpu: no series is known that '/a^b/' matches")
    assert "--sample SERIES" in refusal


def test_what_has_no_sample_is_warned_of_beside_a_catch_all_alone() -> None:
    found = plan([replace(CPU, regex="/a^b/"), SHORT])
    assert after(found) == ["cpu", "short_term"]
    assert found.refusals == ()
    assert "no series is known that '/a^b/' matches: it may never take one" in found.warnings[0]


def test_one_that_is_there_and_has_no_sample_is_not_hidden_in_silence() -> None:
    never = replace(CPU, name="never", regex="/a^b/")
    assert "never" in plan([SHORT], never).refusals[0]
    (warning,) = plan([CPU], never).warnings
    assert "whether it takes series from 'never' can't be told" in warning
    assert steps(plan([SHORT, never], never)) == [
        "create short_term",
        "remove never",
        "create never",
    ]


def test_a_plan_after_which_a_space_of_the_file_is_never_asked_is_refused() -> None:
    wide = replace(CPU, name="wide", regex="/^cpu.*/")
    (refusal,) = plan([CPU, wide]).refusals
    assert refusal.startswith("db: cpu: 'wide' takes all it takes: it would never be asked, by all")
    # Names that tell them apart have to be given.
    pair = [replace(CPU, regex="/^a.{9}[^!]$/"), replace(wide, regex="/^a.{9}$|^a.{9}[^?]$/")]
    assert plan_spaces(pair, {"db": Had()}, samples=["a123456789"]).refusals == ()


def test_what_is_so_already_is_only_warned_of() -> None:
    wide = replace(CPU, name="wide", regex="/^cpu.*/")
    found = plan([CPU, wide], wide, CPU)
    assert (found.requests, found.refusals) == ((), ())
    assert "it would never be asked" in found.warnings[0]


def test_a_retention_shorter_than_a_shard_warns() -> None:
    (warning,) = plan([replace(CPU, retention="7d")]).warnings
    assert "retention of 7d is shorter than a shard's 30d" in warning


# -- read back --


def test_what_was_read_back_is_compared_with_order_and_definition() -> None:
    found = plan([SHORT, LONG])
    assert deviations(found, {"db": (LONG, SHORT)}) == ()
    assert deviations(found, {"db": (replace(LONG, shard_duration="720h"), SHORT)}) == ()
    (order,) = deviations(found, {"db": (SHORT, LONG)})
    assert order == "db: expected the spaces [long_term, short_term], found [short_term, long_term]"
    assert "found [none]" in deviations(found, {})[0]
    changed = replace(LONG, regex="/x/")
    assert "other definitions" in deviations(found, {"db": (changed, SHORT)})[0]
    assert "default" in deviations(found, {"db": (DEFAULT, LONG, SHORT)})[0]


def test_what_raft_knows_is_sorted_by_database_and_space() -> None:
    catalogue = Catalogue(
        databases=frozenset({"db", "empty"}),
        ids={"db": {"cpu": {"v": 1}}},
        spaces={"db": (CPU,)},
        shards=(ShardRange(3, "db", "cpu", 0, 1, (1,)), ShardRange(4, "db", "cpu", 1, 2, (1,))),
        servers=(),
        own_server=None,
        dropped=Dropped(),
    )
    found = had_by(catalogue)
    assert list(found) == ["db", "empty"]
    assert found["db"].shards_of(CPU) == (3, 4)
    assert list(found["db"].series) == ["cpu"]
    assert found["empty"].spaces == ()


# -- always --

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
