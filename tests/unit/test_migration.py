"""How far a migration is and when it is over, from nothing but what successive looks found."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardtool.influxdb.serverlog import Trouble
from shardtool.upgrade.findings import Finding
from shardtool.upgrade.migration import Look, Run, begin, end_of, follow, gate, progress
from shardtool.upgrade.pause import Pause

SIZES = {"00001": 100, "00002": 300, "00003": 600}


def look(
    at: float = 0.0,
    marked: str = "",
    locked: str | None = None,
    *,
    new: int = 0,
    lines: int = 0,
    refused: str = "",
    up: bool | None = True,
    sizes: dict[str, int] = SIZES,
) -> Look:
    """Make a look at three shards; 'marked' and 'refused' name them by their last digits."""
    done = {f"{int(digit):05d}" for digit in marked}
    return Look(
        at,
        {name: size for name, size in sizes.items() if name in done},
        {name: size for name, size in sizes.items() if name not in done},
        new,
        (new, 0),
        f"{int(locked):05d}" if locked else None,
        lines,
        "",
        frozenset(f"{int(digit):05d}" for digit in refused),
        (),
        up,
    )


def run_of(first: Look, *others: Look) -> Run:
    run = begin(first)
    for one in others:
        run = follow(run, one)
    return run


# -- pauses --


@pytest.mark.parametrize(
    ("text", "go", "us"),
    [
        ("100u", "100us", 100),
        ("100us", "100us", 100),
        ("300ms", "300ms", 300_000),
        ("0s", "0s", 0),
        ("1.5s", "1.5s", 1_500_000),
        ("1m30s", "1m30s", 90_000_000),
        ("60m", "60m", 3_600_000_000),
        (" 2s ", "2s", 2_000_000),
    ],
)
def test_a_pause_in_the_guides_units_becomes_one_of_gos(text: str, go: str, us: int) -> None:
    assert Pause.of(text) == Pause(us, go)


@pytest.mark.parametrize(
    "text", ["", "0", "100", "61m", "1h", "-1s", "1 s", "1d", "ms", "1e3s", "1s\n2s", "٣s", "1s;"]
)
def test_what_is_no_pause_from_0s_to_1h_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a pause from 0s to 60m"):
        Pause.of(text)


# -- the gate --

BLOCKER = Finding("no-spaces", "blocker", "test", "there is none")
WARNING = Finding("open-files", "warning", "server", "few")


def test_a_blocker_refuses_and_a_warning_does_not() -> None:
    assert gate([WARNING], []).refused == ()
    assert gate([WARNING, BLOCKER], []).refused == (BLOCKER,)


def test_a_blocker_that_is_overridden_by_its_id_refuses_no_more_but_others_do() -> None:
    other = replace(BLOCKER, id="version")
    found = gate([BLOCKER, BLOCKER, other], ["no-spaces"])
    assert (found.refused, found.overridden) == ((other,), (BLOCKER, BLOCKER))


def test_an_id_that_no_finding_has_is_unknown_and_the_blockers_are_named() -> None:
    found = gate([WARNING, BLOCKER], ["open-files", "nospaces", "nospaces"])
    assert (found.unknown, found.blockers) == (("nospaces",), ("no-spaces",))


# -- progress --


def test_the_percentage_is_of_bytes_and_the_rate_of_this_run() -> None:
    first = look(0, "3", "2")
    now = progress(run_of(first, look(10, "32", "1", new=50)))
    assert (now.percent, now.marked, now.shards) == (90, 2, 3)
    assert (now.done_bytes, now.total_bytes) == (900, 1000)
    assert now.rate == 30
    assert now.seconds_left == pytest.approx(100 / 30)
    assert (now.current, now.current_bytes, now.grown_bytes) == ("00001", 100, 50)


def test_before_the_first_marker_nobody_knows_how_long_it_takes() -> None:
    now = progress(run_of(look(0), look(9, locked="3")))
    assert (now.percent, now.rate, now.seconds_left) == (0, None, None)


def test_100_percent_is_said_only_when_all_are_marked() -> None:
    sizes = {**SIZES, "00003": 9 * 10**18}  # as a float, 100 percent already
    assert progress(begin(look(0, "3", sizes=sizes))).percent < 100
    assert progress(begin(look(0, "321", sizes=sizes))).percent == 100
    assert progress(begin(Look(0.0))).percent == 100


def test_empty_directories_count_one_as_much_as_another() -> None:
    assert int(progress(begin(look(0, "3", sizes=dict.fromkeys(SIZES, 0)))).percent) == 33


def test_a_shard_that_is_pruned_meanwhile_stays_done() -> None:
    after = Look(5.0, {}, {"00001": 100, "00002": 300}, up=True)
    assert progress(run_of(look(0, "3"), after)).percent == 60


def test_without_locks_the_log_says_which_shard_it_is_in() -> None:
    told = replace(look(1), logged="00003")
    assert progress(run_of(look(0), told)).current == "00003"
    assert progress(run_of(look(0, locked="3"), told)).current is None  # it is done with it


def test_the_migrator_sorts_names_as_bytes() -> None:
    sizes = {"99999": 1, "123456": 1, "00001": 1, "é": 1, "\udcff": 1}
    run = begin(Look(0.0, {}, sizes))
    assert run.left == ("\udcff", "é", "99999", "123456", "00001")


# -- passed over, and the end --


def test_it_has_ended_when_all_are_marked() -> None:
    assert end_of(run_of(look(0), look(1, "32", "1")), 60) is None
    assert end_of(run_of(look(0), look(1, "321")), 60) == "marked"


def test_a_shard_above_one_that_was_marked_since_is_passed_over() -> None:
    run = run_of(look(0), look(1, "2"))
    assert (run.passed_over, run.left, run.marked_since) == (("00003",), ("00001",), ("00002",))
    # Marked before we looked says nothing: that may have been another run's.
    run = run_of(look(0, "2"), look(1, "2"))
    assert (run.passed_over, run.left) == ((), ("00003", "00001"))


def test_a_shard_above_one_that_is_open_is_passed_over() -> None:
    assert run_of(look(0), look(1, locked="2")).passed_over == ("00003",)
    assert begin(look(0, locked="2")).passed_over == ("00003",)


def test_of_several_that_were_marked_at_once_the_lowest_is_where_the_migrator_is() -> None:
    assert run_of(look(0), look(1, "31")).passed_over == ("00002",)


def test_a_shard_that_was_left_unmarked_in_the_middle_is_left_and_not_passed_over() -> None:
    run = run_of(look(0), look(1, "3", "2"), look(2, "3"))
    assert (run.passed_over, run.left) == ((), ("00002", "00001"))


def test_while_the_last_one_is_still_being_closed_it_is_not_over() -> None:
    run = run_of(look(0), *(look(float(at), "21", "1") for at in range(1, 5)))
    assert (run.passed_over, end_of(run, 60)) == (("00003",), None)


def test_a_shard_that_the_log_says_could_not_be_opened_is_passed_over() -> None:
    run = run_of(look(0), look(1, "32", refused="1"), look(2, "32", refused="1"))
    assert (run.passed_over, end_of(run, 60)) == (("00001",), "passed-over")


def test_a_second_run_of_the_migrator_comes_back_to_what_was_passed_over() -> None:
    run = run_of(look(0), look(1, "21"), look(2, "21", locked="3", refused="3"))
    assert (run.passed_over, run.left) == ((), ("00003",))
    assert end_of(run, 60) is None
    assert end_of(follow(run, look(3, "321")), 60) == "marked"


def test_that_only_passed_over_ones_are_left_has_to_be_seen_twice() -> None:
    run = run_of(look(0), look(1, "21"))
    assert end_of(run, 60) is None
    assert end_of(follow(run, look(2, "21")), 60) == "passed-over"


def test_a_directory_that_appears_meanwhile_is_none_that_the_migrator_comes_to() -> None:
    more = {**SIZES, "00000": 5}
    run = run_of(look(0), look(1, "321", sizes=more))
    assert (run.left, run.passed_over, end_of(run, 60)) == ((), (), "marked")


def test_a_server_that_was_started_again_ends_the_migration_though_it_answers() -> None:
    restarted = replace(look(1, "3"), restarts=1)
    assert end_of(run_of(look(0), restarted), 60) == "server-restarted"
    # One that has a shard open migrates: somebody has started it again.
    assert end_of(run_of(look(0), replace(restarted, locked="00002")), 60) is None


def test_one_ping_that_was_missed_is_no_dead_server() -> None:
    run = run_of(look(0), look(1, up=False), look(9, up=True), look(10, up=False))
    assert end_of(run, 60) is None


def test_a_server_that_does_not_answer_several_times_over_some_seconds_is_dead() -> None:
    quick = run_of(look(0), *(look(at / 10, up=False) for at in range(1, 20)))
    assert end_of(quick, 60) is None
    slow = run_of(look(0), look(1, up=False), look(3, up=False), look(5, up=False))
    assert end_of(slow, 60) == "server-died"


def test_a_migration_that_was_done_when_the_server_died_is_done() -> None:
    run = run_of(look(0), *(look(float(at), "321", up=False) for at in range(1, 9)))
    assert end_of(run, 60) == "marked"


@pytest.mark.parametrize(
    "moving",
    [look(59, "3"), look(59, locked="2"), look(59, locked="3", new=9), look(59, lines=1)],
    ids=["marker", "another shard", "growth", "line"],
)
def test_a_marker_another_shard_growth_or_a_line_is_a_movement(moving: Look) -> None:
    run = run_of(look(0, locked="3"), look(50, locked="3"))
    assert end_of(follow(run, look(61, locked="3")), 60) == "stalled"
    moved = follow(run, moving)
    assert end_of(follow(moved, replace(moving, at=100, locked=None)), 60) is None


def test_what_clients_write_while_no_shard_is_open_is_no_movement() -> None:
    run = run_of(look(0, locked="3"), look(1), *(look(float(at), new=at) for at in range(2, 70)))
    assert end_of(run, 60) == "stalled"
    # Where locks can't be seen at all, growth is all there is.
    assert end_of(run_of(look(0), *(look(float(at), new=at) for at in range(1, 70))), 60) is None


# -- whatever comes --

NAMES = st.sampled_from(["00001", "00002", "00003", "123456", "lost+found", "\udcff"])
LOOKS = st.builds(
    Look,
    at=st.floats(0, 1e9),
    marked=st.dictionaries(NAMES, st.integers(0, 1 << 60)),
    unmarked=st.dictionaries(NAMES, st.integers(0, 1 << 60)),
    new_bytes=st.integers(0, 1 << 60),
    new_state=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    locked=st.none() | NAMES,
    log_lines=st.integers(0, 99),
    logged=st.just("") | NAMES,
    refused=st.frozensets(NAMES),
    troubles=st.just(()) | st.just((Trouble("00001", "x", "y"),)),
    up=st.none() | st.booleans(),
)


@given(st.lists(LOOKS, min_size=1, max_size=12))
def test_any_looks_in_any_order_give_figures_that_can_be_shown(looks: list[Look]) -> None:
    run = begin(looks[0])
    percent = 0.0
    for one in looks[1:]:
        run = follow(run, one)
        now = progress(run)
        assert percent <= now.percent <= 100
        percent = now.percent
        assert now.seconds_left is None or now.seconds_left >= 0
        assert now.rate is None or now.rate > 0
        assert 0 <= now.marked <= now.shards
        assert not set(run.passed_over) & set(run.left)
        known = run.first.unmarked.keys() | run.first.marked.keys()
        assert {*run.passed_over, *run.left} == run.now.unmarked.keys() & known
        assert end_of(run, 60) in (
            *(None, "marked", "passed-over", "server-died", "server-restarted", "stalled"),
        )


@given(st.dictionaries(NAMES, st.integers(0, 1 << 40), min_size=1), st.data())
def test_a_migration_that_only_marks_comes_to_100_and_to_an_end(
    sizes: dict[str, int], data: st.DataObject
) -> None:
    run = begin(Look(0.0, {}, sizes))
    waiting = list(run.left)
    at = 0.0
    while waiting:
        at += data.draw(st.floats(0, 100))
        name = waiting.pop(0)
        there = {k: v for k, v in sizes.items() if k not in waiting}
        before = progress(run).percent
        run = follow(run, Look(at, there, {k: sizes[k] for k in waiting}))
        assert progress(run).percent >= before
        assert run.marked_since[-1] == name
        assert run.passed_over == ()
    assert progress(run).percent == 100
    assert end_of(run, 1) == "marked"
