"""Spaces that are there already: what changes, what is told, what is read back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from shardtool.influxdb.model import Catalogue, Dropped, ShardRange
from shardtool.upgrade.spaces import (
    Had,
    deviations,
    difference,
    had_by,
    same_meaning,
)
from shardtool.upgrade.spaces_plan import plan_spaces
from tests.unit.spaces_plan.world import CPU, DEFAULT, LOAD, LONG, SHORT, after, plan, steps


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
