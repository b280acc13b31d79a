"""A node as a plugin sees it: what wakes somebody, what waits, and the line that says so."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardtool.cli.plugin import line_of
from shardtool.cli.standing import Standing
from shardtool.datadir.inventory import NewShard
from shardtool.datadir.verdict import Evidence, judge
from shardtool.disk.locks import Lock, LockState
from shardtool.errors import UsageError
from shardtool.monitor.nagios import CRITICAL, OK, WARNING, Free, Status, status_of
from shardtool.prune.trash import Leftover
from shardtool.upgrade.stage import Stage
from tests.unit.monitor_world import losing, node, shard, unreadable

MARKED = shard(1).shard
SUSPECT = judge(replace(MARKED, mounts=("/d",)))
BUSY = judge(replace(MARKED, lock=LockState(Lock.HELD, 7)))
UNLOOKED = judge(replace(MARKED, lock=LockState(Lock.UNKNOWN)))
HALF_RESTORED = Stage("0.7", "words", "shardtool restore")
# A figure of a plugin: 'label=value[unit];warn;crit;min;max', as the guidelines have it.
FIGURE = re.compile(r"[a-z]+=\d+B?(;(\d+:)?(;(\d+:)?(;\d*(;\d*)?)?)?)?")


@pytest.mark.parametrize(
    ("report", "state", "words"),
    [
        (node(), OK, ""),
        (node(shard(1), shard(2, marked=False), shard(3, Evidence(values=1))), OK, ""),
        (node(BUSY), OK, ""),
        (node(losing(1, accepted=True)), OK, ""),
        (node(shard(1, Evidence(values=9, missing=9), marked=False)), OK, ""),
        (node(losing(1), losing(2)), WARNING, "6 values of 2 shards (00001, 00002)"),
        (node(SUSPECT), WARNING, "1 old shard suspect: 00001"),
        (node(UNLOOKED), WARNING, "shardtool status"),
        (node(left=(Leftover("a"),)), WARNING, "1 entry left in the trash"),
        (
            node(left=(Leftover("a", action="leave"), Leftover("b", action="remove"))),
            WARNING,
            "1 entry left in the trash: shardtool prune; 1 entry left in the trash and not known "
            "to the journal: shardtool status",
        ),
        (node(problems=("journal: no",)), WARNING, "journal: no"),
        (node(unreadable(1), losing(2)), CRITICAL, "1 old shard unreadable: 00001"),
        (node(new=(NewShard("9", error="no"),)), CRITICAL, "1 new shard unreadable: 9"),
        (node(shard(1), stage=HALF_RESTORED), CRITICAL, "a restore is half done"),
    ],
)
def test_critical_is_what_gets_worse_until_the_morning(
    report: Standing, state: int, words: str
) -> None:
    status = status_of(report)
    assert status.state == state
    assert words in status.text
    assert bool(status.text) is (state != OK)


def test_what_is_critical_comes_first_and_all_is_said() -> None:
    status = status_of(node(losing(1), unreadable(2)))
    assert status.text.index("unreadable") < status.text.index("3 values of 1 shard")


def test_of_many_shards_a_few_are_named() -> None:
    assert "(00001, 00002, 00003 and 37 more)" in status_of(node(*map(losing, range(1, 41)))).text


@pytest.mark.parametrize(
    ("warn", "critical", "state"),
    [
        (None, None, OK),
        (Free(60, is_percent=True), None, WARNING),
        (Free(50, is_percent=True), None, OK),
        (Free(60_000, is_percent=False), Free(10, is_percent=True), WARNING),
        (Free(70, is_percent=True), Free(60, is_percent=True), CRITICAL),
        (None, Free(50_001, is_percent=False), CRITICAL),
        (None, Free(50_000, is_percent=False), OK),
    ],
)
def test_free_space_matters_where_somebody_said_how_much(
    warn: Free | None, critical: Free | None, state: int
) -> None:
    assert status_of(node(free=50_000), warn, critical).state == state


def test_a_critical_threshold_above_the_other_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match="--critical-free"):
        status_of(node(), Free(10, is_percent=True), Free(20_000, is_percent=False))


def test_figures_are_as_the_guidelines_have_them() -> None:
    left = (Leftover("a"),)
    report = node(losing(1), shard(2), left=left, free=40_000)
    status = status_of(report, Free(50, is_percent=True), Free(9_000, is_percent=False))
    assert all(FIGURE.fullmatch(figure) for figure in status.figures), status.figures
    figures = dict(figure.split("=") for figure in status.figures)
    assert figures["old"] == "2;;;0"
    assert (figures["incomplete"], figures["marked"]) == ("1;;;0", "1;;;0")
    assert (figures["lost"], figures["trash"]) == ("3;;;0", "1;;;0")
    assert figures["reclaimable"] == "4096B;;;0"
    assert figures["free"] == "40000B;50000:;9000:;0;100000"


@given(st.text(st.characters(codec=None, exclude_categories=())))
def test_whatever_a_name_holds_it_is_one_line_with_one_bar(text: str) -> None:
    line = line_of(Status(WARNING, text, ("old=1;;;0",)), text)
    assert line.isprintable()
    assert line.count("|") == 1
    assert line.startswith("SHARDTOOL WARNING - ")
    assert line.endswith(" | old=1;;;0")
    assert len(line) < 1_100
