"""`shardtool spaces apply` beside a server that goes on: what changes while a question stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from fixtures.raft import Space
from shardtool.influxdb.api import Api
from shardtool.influxdb.catalogue import from_configuration
from shardtool.influxdb.model import Space as Made
from shardtool.upgrade.spaces import Had, Plan, Step, had_by, like_07
from shardtool.upgrade.spaces_apply import Outcome, execute
from shardtool.upgrade.spaces_plan import plan_spaces
from tests.e2e.spaces_world import CPU, LONG, PASSWORD, SHORT, Make, World, row
from tests.e2e.terminal_world import Terminal


def asked(w: World, *words: str) -> Terminal:
    """Return a terminal in which `spaces apply` has shown its plan, and asks."""
    command = ["--data", str(w.path), "spaces", "apply", *words, "--api", w.url]
    terminal = Terminal(*command, SHARDTOOL_PASSWORD=PASSWORD)
    terminal.wait_for("Type yes to go on")
    return terminal


def answered(terminal: Terminal) -> tuple[int, str]:
    """Say yes; return the exit code and what was told after that."""
    before = len(terminal.shown)
    terminal.type("yes\n")
    code = terminal.end()
    return code, terminal.shown[before:]


def executed(w: World, wanted: tuple[Made, ...], tell: Callable[[Step], None]) -> Outcome:
    """Plan and execute at once; each step that was done is told."""
    with Api(w.url, "root", PASSWORD) as api:

        def again(had: Mapping[str, Had]) -> Plan:
            return plan_spaces(wanted, had)

        had = had_by(from_configuration(api.configuration()))
        return execute(again(had), had, again, api, tell)


@pytest.mark.parametrize("change", ['regex = "/^b/"', 'retentionPolicy = "30d"'])
def test_a_space_that_got_shards_while_the_question_stood_is_not_changed(
    change: str, spaces_world: Make
) -> None:
    w = spaces_world(Space("cpu", "/^cpu/", 30))
    key = change.partition(" ")[0]
    lines = [change if line.startswith(key) else line for line in CPU.splitlines()]
    terminal = asked(w, str(w.file("\n".join(lines))), "--database", "test")
    w.gets_shard("cpu", "cpu.load")
    code, told = answered(terminal)
    assert code == 1
    assert "'cpu' of 'test' has got shard 1 since the plan was shown: test: cpu: " in told
    assert "nothing was sent: run this again" in told
    assert told.count("shardtool: ") == 1
    assert w.changes() == []


def test_a_space_that_got_shards_while_the_question_stood_is_not_taken_from(
    spaces_world: Make,
) -> None:
    w = spaces_world(SHORT)
    terminal = asked(w, "--like-0.7", "test")
    w.gets_shard("short_term", "cpu", "Mem")
    code, told = answered(terminal)
    assert code == 1
    assert "has got shard 1 since the plan was shown" in told
    assert "'long_term' would take series such as 'Mem' from it" in told
    assert w.changes() == []


def test_what_may_be_taken_from_is_shown_before_it_is(spaces_world: Make) -> None:
    w = spaces_world(SHORT)
    terminal = asked(w, "--like-0.7", "test", "--take-from", "short_term")
    w.gets_shard("short_term", "Mem")
    code, told = answered(terminal)
    assert code == 1
    assert "'short_term' would lose series" in told
    assert w.changes() == []


def test_a_space_that_is_changed_and_taken_from_in_one_plan_stops_nothing(
    spaces_world: Make,
) -> None:
    w = spaces_world(SHORT._replace(days=1), rows=(row("Mem"),))
    assert w.apply("--like-0.7", "test", "--take-from", "short_term").returncode == 0
    assert w.asked() == ["long_term", "short_term"]


def test_shards_of_series_that_stay_where_they_are_stop_nothing(spaces_world: Make) -> None:
    w = spaces_world(SHORT)
    terminal = asked(w, "--like-0.7", "test")
    w.gets_shard("short_term", "cpu")
    assert answered(terminal)[0] == 0
    assert w.asked() == ["long_term", "short_term"]


def test_a_space_that_somebody_else_made_while_the_question_stood_stops_it(
    spaces_world: Make,
) -> None:
    w = spaces_world()
    terminal = asked(w, "--like-0.7", "test")
    with Api(w.url, "root", PASSWORD) as api:
        api.create_space(replace(like_07("test")[0], name="default"))
    code, told = answered(terminal)
    assert code == 1
    assert "expected the spaces [none], found [default]; nothing was sent" in told
    assert w.asked() == ["default"]


def test_between_two_removals_shards_are_looked_at_again(spaces_world: Make) -> None:
    w = spaces_world(Space("load", "/^cpu.load/", 30), LONG, SHORT)
    short, long = like_07("test")
    load = Made("load", "test", "/^cpu.load/", "inf", "30d", 1, 1)

    def tell(step: Step) -> None:
        if step.action == "remove":
            w.gets_shard("long_term" if step.space.name == "load" else "load", "Mem", "cpu.load")

    outcome = executed(w, (short, long, load), tell)
    (removed, *_), left = outcome.done, outcome.left
    assert "has got shard 1 since the plan was shown" in outcome.error
    assert "nothing more was sent: run this again" in outcome.error
    assert "remove" in [step.action for step in left]
    assert removed.action == "remove"
    assert [line.split()[0] for line in w.changes()].count("DELETE") == 1


def test_what_goes_elsewhere_while_a_space_is_away_is_not_hidden(spaces_world: Make) -> None:
    w = spaces_world(LONG, SHORT)

    def tell(step: Step) -> None:
        w.gets_shard("short_term", "Mem")

    outcome = executed(w, like_07("test"), tell)
    assert [step.action for step in outcome.done] == ["remove"]
    assert "'long_term' would take series such as 'Mem' from it" in outcome.error
    assert w.asked() == ["short_term"]


def test_what_somebody_else_does_last_is_seen_when_it_is_read_back(spaces_world: Make) -> None:
    w = spaces_world()
    with Api(w.url, "root", PASSWORD) as api:

        def meddle(step: Step) -> None:
            if step.space.name == "long_term":
                api.create_space(replace(step.space, name="other", regex="/x/"))

        outcome = executed(w, like_07("test"), meddle)
    assert outcome.error == ""
    (line,) = outcome.deviations
    assert "found [other, long_term, short_term]" in line


def test_a_database_that_is_gone_stops_it(spaces_world: Make) -> None:
    w = spaces_world()
    other = tuple(replace(space, database="gone") for space in like_07("test"))
    with Api(w.url, "root", PASSWORD) as api:
        had = {"gone": Had()}
        plan = plan_spaces(other, had)
        outcome = execute(plan, had, lambda now: plan, api, lambda step: None)
    assert "the database 'gone' is gone since the plan was shown" in outcome.error
    assert w.changes() == []
