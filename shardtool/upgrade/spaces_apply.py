"""Execute a plan of shard spaces: each request once, each lost answer read back, no guesses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from shardtool.errors import ShardtoolError
from shardtool.influxdb.api import Api
from shardtool.influxdb.catalogue import from_configuration
from shardtool.influxdb.wire import AnswerLostError
from shardtool.upgrade.spaces import Plan, Step, deviations, had_by, same_meaning


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


def execute(plan: Plan, api: Api, tell: Callable[[Step], None]) -> Outcome:
    """Send a plan's requests, then read back what the server has.

    Args:
        plan: without refusals.
        api: the server that was asked for what it had.
        tell: called with each step that was done, at once.
    """
    if plan.refusals:
        raise AssertionError("a plan with refusals is not executed")
    steps = plan.requests
    for number, step in enumerate(steps):
        try:
            _do(step, api)
        except ShardtoolError as error:
            return Outcome(steps[:number], steps[number:], str(error))
        tell(step)
    try:
        found = api.spaces()
    except ShardtoolError as error:
        return Outcome(steps, (), f"what was made could not be read back: {error}")
    return Outcome(steps, (), "", deviations(plan, found))


def _do(step: Step, api: Api) -> None:
    """Do one step. Raises ShardtoolError where it was not done, or nobody knows."""
    try:
        if step.action == "create":
            api.create_space(step.space)
        elif step.action == "change":
            api.update_space(step.space)
        else:
            _remove(step, api)
    except AnswerLostError as error:
        lost = str(error)
        if not _is_done(step, api):
            raise ShardtoolError(f"{lost}; read back: it was not done") from None


def _remove(step: Step, api: Api) -> None:
    """Remove a space that is as it was when the plan was made, and has no shards still.

    Raises:
        ShardtoolError: it is not so any more; then nothing is removed.
    """
    space = step.space
    had = had_by(from_configuration(api.configuration())).get(space.database)
    now = next((one for one in had.spaces if one.name == space.name), None) if had else None
    if had is None or now is None or not same_meaning(now, space) or had.shards_of(space):
        raise ShardtoolError(
            f"{api.url}: expected the space {space.name!r} of {space.database!r} as it was a "
            "moment ago, without shards, found it changed; it was not removed: run this again"
        )
    api.remove_space(space.database, space.name)


def _is_done(step: Step, api: Api) -> bool:
    spaces = api.spaces().get(step.space.database, ())
    now = next((one for one in spaces if one.name == step.space.name), None)
    if step.action == "remove":
        return now is None
    return now is not None and same_meaning(now, step.space)
