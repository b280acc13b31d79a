"""What `shardtool spaces apply` does: show the plan, ask, have it executed, tell what came."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shardtool.cli import exits
from shardtool.cli.api import opened_api
from shardtool.cli.options import confirmed
from shardtool.cli.output import Output, safe, short
from shardtool.datadir.layout import Layout
from shardtool.errors import ShardtoolError
from shardtool.influxdb.catalogue import Catalogue
from shardtool.influxdb.model import ClusterServer
from shardtool.influxdb.raft import own_name
from shardtool.influxdb.spaces import problems
from shardtool.journal import Journal
from shardtool.upgrade.cluster import server_documents, spaces_line
from shardtool.upgrade.spaces import (
    Had,
    Plan,
    Step,
    difference,
    had_by,
    space_document,
)
from shardtool.upgrade.spaces_file import SpacesFile
from shardtool.upgrade.spaces_plan import plan_spaces
from shardtool.words import plural

if TYPE_CHECKING:
    from shardtool.influxdb.api import Api
    from shardtool.upgrade.spaces_apply import Outcome

_SIGNS = {"create": "+", "change": "~", "remove": "-", "keep": "="}
_DONE = {"create": "made", "change": "changed", "remove": "removed", "keep": "kept"}


def apply(args: argparse.Namespace, layout: Layout | None, wanted: SpacesFile, out: Output) -> int:
    """Bring a server's spaces to what is wanted; return the exit code.

    Args:
        args: the command line.
        layout: the node, whose journal is written; None where none is at hand.
        wanted: what the file says.
        out: where to tell.

    Raises:
        ShardtoolError: the server can't be asked.
        UsageError: nobody is there to be asked, or there is no password.
    """
    if wanted.problems:
        return _wrong(wanted.problems, out)
    with opened_api(args, layout, default=True) as api:
        catalogue = api.catalogue()
        had = had_by(catalogue)
        wrong = tuple(_problems_there(args, wanted, had, len(catalogue.servers)))
        if wrong:
            return _wrong(wrong, out)

        def planned(now: Mapping[str, Had]) -> Plan:
            return plan_spaces(wanted.spaces, now, take_from=args.take_from, samples=args.samples)

        servers = members_of(catalogue, api)
        making = _Making(planned(had), had, planned, api, server_documents(catalogue, servers))
        _tell(making.plan, spaces_line(catalogue, servers), out)
        if making.plan.refusals or args.dry_run or not making.plan.requests:
            return _nothing_sent(making, args.dry_run, out)
        if not confirmed(out, f"{_summary(making.plan)} on {api.url}.", yes=args.yes):
            out.warn("nothing was sent")
            return exits.FAILED
        journal = _journal_of(layout, catalogue, out)
        return _make(making, _Notes(journal, api.url, making.plan, out))


def members_of(catalogue: Catalogue, api: Api) -> tuple[ClusterServer, ...]:
    """Return the servers with their addresses; nothing for a server that is alone."""
    return api.servers() if len(catalogue.servers) > 1 else ()


@dataclass(frozen=True)
class _Making:
    """What is to be done, what that goes by, and how to see whether it still holds."""

    plan: Plan
    had: Mapping[str, Had]
    again: Callable[[Mapping[str, Had]], Plan]
    api: Api
    servers: list[dict[str, object]]


def _tell(plan: Plan, cluster: str, out: Output) -> None:
    """Show a plan, and say aloud what there is to know of it."""
    if not out.quiet:
        _show(plan, out)
    if cluster:
        out.warn(cluster)
    for warning in plan.warnings:
        out.warn(f"warning: {warning}")
    for refusal in plan.refusals:
        out.warn(refusal)


def _wrong(wrong: tuple[str, ...], out: Output) -> int:
    out.document("spaces", {"problems": list(wrong)})
    for problem in wrong:
        out.warn(problem)
    return exits.USAGE


def _problems_there(
    args: argparse.Namespace, wanted: SpacesFile, had: dict[str, Had], servers: int
) -> Iterator[str]:
    """Yield what is wrong with the spaces on this server."""
    source = "--like-0.7" if args.word is None else "stdin" if args.word == "-" else args.word
    there = ", ".join(had) or "none"
    for space in wanted.spaces:
        where = f"{source}: {space.name}"
        if space.database not in had:
            found = f"{space.database!r}; it has {there}"
            yield f"{where}: expected a database of the server, found {found}"
        yield from (f"{where}: {one}" for one in problems(space, servers=servers or None))
    databases = {space.database for space in wanted.spaces}
    named = [one.name for name in had if name in databases for one in had[name].spaces]
    for name in args.take_from:
        if name not in named:
            found = ", ".join(named) or "none"
            yield f"--take-from {name}: expected a space that is there, found {found}"


# -- the plan --


def _show(plan: Plan, out: Output) -> None:
    for database, after in plan.after.items():
        out.line(out.styled(short(database, 78), "bold"))
        steps = [step for step in plan.steps if step.space.database == database]
        width = max(len(short(step.space.name)) for step in steps)
        for step in steps:
            name = short(step.space.name).ljust(width)
            for detail in _details(step, out.width - width - 6):
                out.line(f"  {_SIGNS[step.action]} {name}  {detail}")
        if any(step.action != "keep" for step in steps):
            names = ", ".join(space.name for space in after)
            out.line(f"  asked then in this order: {short(names, out.width - 29)}")


def _details(step: Step, most: int) -> list[str]:
    if step.action == "change":
        return [short(line, most) for line in difference(step)]
    if step.action == "remove":
        away = "while it is away, its series go elsewhere"
        return [short(f"made again: {step.why}", most), short(away, most)]
    space = step.space
    more = "".join(
        f", {plural(count, noun, nouns)}"
        for count, noun, nouns in (
            (space.replication, "copy", "copies"),
            (space.split, "shard at a time", "shards at a time"),
        )
        if count != 1
    )
    kept = f"kept {space.retention or 'inf'}, {space.shard_duration or '7d'} a shard{more}"
    return [short(f"{kept}  {space.regex}", most)]


def _summary(plan: Plan) -> str:
    """Return 'This makes 2 spaces and changes 1'."""
    words = {"create": "makes", "change": "changes", "remove": "removes"}
    counts = [
        f"{word} {plural(count, 'space')}"
        for action, word in words.items()
        if (count := sum(step.action == action for step in plan.requests))
    ]
    return f"This {', '.join(counts)}"


def _nothing_sent(making: _Making, is_dry: bool, out: Output) -> int:
    plan = making.plan
    out.document("spaces", {**_document(making), "dry_run": is_dry})
    if plan.refusals:
        out.warn("nothing was sent")
        return exits.FAILED
    if not plan.requests:
        out.line("nothing to do: the server has them so")
    else:
        out.line(f"{_summary(plan)}; nothing was sent (--dry-run)")
    return exits.DONE


def _document(making: _Making) -> dict[str, Any]:
    plan = making.plan
    return {
        "api": making.api.url,
        "servers": making.servers,
        "steps": [
            {
                "action": step.action,
                "space": space_document(step.space),
                "before": None if step.before is None else space_document(step.before),
                "why": step.why,
            }
            for step in plan.steps
        ],
        "warnings": list(plan.warnings),
        "refusals": list(plan.refusals),
        "taken_from": [space_document(space) for space in plan.taken_from],
        "spaces": [space_document(space) for after in plan.after.values() for space in after],
    }


# -- the execution --


def _journal_of(layout: Layout | None, catalogue: Catalogue, out: Output) -> Journal | None:
    """Return the node's journal; None where the node is not one of this cluster."""
    if layout is None:
        return None
    try:
        name = own_name(layout.raft)
    except ShardtoolError as error:
        out.warn(f"{error}; the journal is not written")
        return None
    here = name is not None and any(server.raft_name == name for server in catalogue.servers)
    return Journal(layout) if here else None


class _Notes:
    """Tells each step when it is done, on the screen and in the journal."""

    def __init__(self, journal: Journal | None, url: str, plan: Plan, out: Output) -> None:
        self._journal, self._url, self.out = journal, url, out
        self._taken_from = plan.taken_from
        self.failed = False

    def __call__(self, step: Step) -> None:
        what = _DONE[step.action]
        if not self.out.quiet:
            self.out.line(f"{what} {safe(step.space.database)}: {safe(step.space.name)}")
        if self._journal is None:
            return
        event = {"create": "space-created", "change": "space-changed", "remove": "space-removed"}
        database = step.space.database
        taken_from = [one.name for one in self._taken_from if one.database == database]
        more = {"taken_from": taken_from} if taken_from else {}
        try:
            self._journal.append(
                event[step.action], api=self._url, space=space_document(step.space), **more
            )
        except ShardtoolError as error:
            self.failed = True
            self.out.warn(f"{step.space.name!r} was {what}, but {error}")


def _make(making: _Making, notes: _Notes) -> int:
    from shardtool.upgrade.spaces_apply import execute

    api, out = making.api, notes.out
    outcome = execute(making.plan, making.had, making.again, api, notes)
    out.document(
        "spaces",
        {
            **_document(making),
            "dry_run": False,
            "done": len(outcome.done),
            "error": outcome.error or None,
            "deviations": list(outcome.deviations),
        },
    )
    if outcome.error:
        _tell_failure(outcome, out)
        return exits.FAILED
    for deviation in outcome.deviations:
        out.warn(f"{api.url}: {deviation}; something else changes them: run this again")
    if outcome.deviations:
        return exits.FAILED
    out.line("done: read back, and all is as planned")
    return exits.ATTENTION if notes.failed else exits.DONE


def _tell_failure(outcome: Outcome, out: Output) -> None:
    out.warn(outcome.error)
    if outcome.done and outcome.left:
        done, left = (
            ", ".join(f"{step.action} {step.space.name}" for step in steps) or "nothing"
            for steps in (outcome.done, outcome.left)
        )
        out.warn(f"done: {done}; not done: {left}; run it again to go on from there")
