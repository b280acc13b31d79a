"""Execute a plan of shard spaces: each request once, each lost answer read back, no guesses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from shardtool.errors import ShardtoolError
from shardtool.influxdb.api import Api
from shardtool.influxdb.model import Space
from shardtool.influxdb.wire import AnswerLostError
from shardtool.upgrade.spaces import (
    Had,
    Plan,
    Step,
    cut,
    deviations,
    had_by,
    same_meaning,
    shards_named,
    unlike,
)


@dataclass(frozen=True)
class Outcome:
    """What became of a plan.

    Args:
        done: steps that were done, in their order.
        left: steps that were not.
        error: why not; empty where nothing went wrong.
        deviations: what the server has otherwise than planned, though every step was done.
    """

    done: tuple[Step, ...]
    left: tuple[Step, ...]
    error: str
    deviations: tuple[str, ...] = ()


def execute(
    plan: Plan,
    had: Mapping[str, Had],
    again: Callable[[Mapping[str, Had]], Plan],
    api: Api,
    tell: Callable[[Step], None],
) -> Outcome:
    """Send a plan's requests, then read back what the server has.

    Before each request the server is asked what it has by now, for it goes on working while a
    question stands: what was safe when the plan was shown may take somebody's values meanwhile.

    Args:
        plan: without refusals.
        had: what the plan was made from.
        again: makes the plan from what there is by now.
        api: the server that was asked for what it had.
        tell: called with each step that was done, at once.
    """
    if plan.refusals:
        raise AssertionError("a plan with refusals is not executed")
    steps = plan.requests
    for number, step in enumerate(steps):
        try:
            now = had_by(api.catalogue())
            changed = _changed(plan, number, had, now, again)
            if changed:
                left = "nothing was sent" if not number else "nothing more was sent"
                raise ShardtoolError(f"{api.url}: {changed}; {left}: run this again")
            _do(step, api)
        except ShardtoolError as error:
            return Outcome(steps[:number], steps[number:], str(error))
        tell(step)
    try:
        found = api.spaces()
    except ShardtoolError as error:
        return Outcome(steps, (), f"what was made could not be read back: {error}")
    return Outcome(steps, (), "", deviations(plan, found))


def _changed(
    plan: Plan,
    number: int,
    had: Mapping[str, Had],
    now: Mapping[str, Had],
    again: Callable[[Mapping[str, Had]], Plan],
) -> str:
    """Return what is otherwise by now than a plan has it after so many steps; empty if nothing."""
    for database in plan.after:
        if database not in now:
            return f"the database {cut(database)} is gone since the plan was shown"
        done = [step for step in plan.requests[:number] if step.space.database == database]
        other = unlike(_after(done, had[database].spaces), now[database].spaces)
        if other:
            return f"{cut(database)} has changed since the plan was shown: {other}"
    new = again(now)
    left = [(one.action, one.space) for one in plan.requests[number:]]
    shown = {(one.database, one.name) for one in plan.taken_from}
    more = [one for one in new.taken_from if (one.database, one.name) not in shown]
    is_same = [(one.action, one.space) for one in new.requests] == left and not more
    if is_same and not new.refusals:
        return ""
    why = new.refusals[0] if new.refusals else "the plan is another one now"
    if more and not new.refusals:
        why = f"{cut(more[0].name)} would lose series, and did not have to when it was shown"
    return f"{_news(plan, had, now)}since the plan was shown: {why}"


def _after(steps: list[Step], spaces: tuple[Space, ...]) -> tuple[Space, ...]:
    """Return spaces, the newest first, as steps leave them."""
    for step in steps:
        name = step.space.name
        if step.action == "create":
            spaces = (step.space, *spaces)
        elif step.action == "change":
            spaces = tuple(step.space if one.name == name else one for one in spaces)
        else:
            spaces = tuple(one for one in spaces if one.name != name)
    return spaces


def _news(plan: Plan, had: Mapping[str, Had], now: Mapping[str, Had]) -> str:
    """Return which space has got shards, ready to go before 'since'."""
    for database in plan.after:
        for space in now[database].spaces:
            new = set(now[database].shards_of(space)) - set(had[database].shards_of(space))
            if new:
                return f"{cut(space.name)} of {cut(database)} has got {shards_named([*new])} "
    return "something has changed "


def _do(step: Step, api: Api) -> None:
    """Do one step. Raises ShardtoolError where it was not done, or nobody knows."""
    try:
        if step.action == "create":
            api.create_space(step.space)
        elif step.action == "change":
            api.update_space(step.space)
        else:
            api.remove_space(step.space.database, step.space.name)
    except AnswerLostError as error:
        lost = str(error)
        if not _is_done(step, api):
            raise ShardtoolError(f"{lost}; read back: it was not done") from None


def _is_done(step: Step, api: Api) -> bool:
    spaces = api.spaces().get(step.space.database, ())
    now = next((one for one in spaces if one.name == step.space.name), None)
    if step.action == "remove":
        return now is None
    return now is not None and same_meaning(now, step.space)
