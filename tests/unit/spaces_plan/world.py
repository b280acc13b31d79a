"""What the tests of the plan of spaces share."""

from __future__ import annotations

from shardtool.influxdb.model import Space
from shardtool.upgrade.spaces import (
    Had,
    Plan,
    like_07,
)
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
