"""`shardtool spaces`: the shard spaces of 0.8, who takes a series, and making them in order."""

from __future__ import annotations

import argparse
import os
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from shardtool.cli import exits
from shardtool.cli.api import add_api, opened_api
from shardtool.cli.making_spaces import apply, members_of
from shardtool.cli.options import add_yes
from shardtool.cli.output import Output, short
from shardtool.datadir.layout import Layout, find_layout
from shardtool.errors import ShardtoolError, UsageError, reason_of
from shardtool.influxdb.catalogue import Catalogue, read_catalogue
from shardtool.influxdb.model import ClusterServer, Space
from shardtool.influxdb.spaces import space_of, takes
from shardtool.upgrade.cluster import server_documents, spaces_line
from shardtool.upgrade.spaces import Had, had_by, like_07, space_document
from shardtool.upgrade.spaces_file import MOST_BYTES, SpacesFile, read_spaces
from shardtool.upgrade.spaces_order import Shadow, shadows
from shardtool.words import plural

DESCRIPTION = """\
Shard spaces say which series go into shards of which length, and how long they
are kept. Each database has its own; the newest space whose regex finds itself
in a series' name takes the series, and where none does, 0.8 makes one by itself
(default: /.*/, 7d, inf). They have to be made before the migration, from the
least to the most specific.

  list            the spaces in the order in which a series asks them
  explain SERIES  which space takes a series, and why
  apply FILE      make the spaces of a file, in the right order
  apply --like-0.7 DATABASE...
                  make the two that 0.7 had built in: short_term, long_term"""

EPILOG = """\
FILE is TOML or JSON ('-': stdin) with the server's own keys, a [[spaces]] table
or an object each; replicationFactor and split may be left out:

  [[spaces]]
  database = "test"
  name = "long_term"
  regex = "/^[A-Z].*/"
  retentionPolicy = "inf"
  shardDuration = "30d"

Whatever the file's order, spaces are made from the least to the most specific,
by what their regexes match: names are made up from them, and --sample SERIES
gives one where none is found. What would be done is shown first: + is made,
~ changed, - removed (only without shards; until it is made again its series go
elsewhere), = is there. Spaces that are not in the file stay. What the server
would take and then trip over (a duration 7, a regex /) is never sent. Before
each request the plan is made again, and nothing more is sent if it has changed;
afterwards the spaces are read back and compared.

0.8 looks for a series only in the shards of the space that takes it now. So a
space with shards keeps the series that it has; --take-from NAME lets them go to
another, and what NAME's shards hold of them is not found any more.

list and explain read the raft directory, or ask the server of --api. apply
asks --api, or else localhost at the port of config.toml.

examples:
  shardtool spaces list
  shardtool spaces explain cpu.load --database test
  shardtool spaces apply --like-0.7 test metrics --dry-run
  shardtool spaces apply spaces.toml --api http://db1:8086 --yes

exit codes: 0 done or nothing to do, 1 it failed or can't be done so, 2 wrong
usage or a wrong file, 3 done, but the journal could not be written"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's own arguments to `parser`."""
    parser.add_argument("action", choices=("list", "explain", "apply"), help="see above")
    parser.add_argument(
        "word", nargs="?", metavar="SERIES|FILE", help="what to explain, or to apply"
    )
    parser.add_argument(
        "--database",
        metavar="DB",
        help="this one only; for apply, whose spaces they are that don't say so themselves",
    )
    parser.add_argument(
        "--like-0.7",
        dest="like_07",
        nargs="+",
        metavar="DATABASE",
        help="apply the guide's spaces that are like 0.7's, to each of these databases",
    )
    parser.add_argument(
        "--dry-run", "-n", action="store_true", help="apply: show what would be done, no more"
    )
    parser.add_argument(
        "--take-from",
        action="append",
        default=[],
        metavar="NAME",
        help="apply: let series be taken from this space though it has shards, whose values of "
        "them are not found any more then; may be given several times",
    )
    parser.add_argument(
        "--sample",
        dest="samples",
        action="append",
        default=[],
        metavar="SERIES",
        help="apply: a name to tell regexes apart by; may be given several times",
    )
    add_yes(parser)
    add_api(
        parser,
        about="a server of the running cluster, such as http://localhost:8086; list and explain "
        "read the raft directory without it",
    )


def run(args: argparse.Namespace, out: Output) -> int:
    """Do what the action says; return the exit code."""
    _check_words(args)
    if args.action == "apply":
        return apply(args, _node(args, needed=False), _wanted(args), out)
    catalogue, servers = _catalogue(args)
    databases = _asked_for(args, had_by(catalogue))
    members = server_documents(catalogue, servers)
    if args.action == "list":
        _list(databases, members, out)
    else:
        _explain(args.word, databases, members, out)
    cluster = spaces_line(catalogue, servers)
    if cluster and not out.quiet:
        out.line()
        _note(cluster, out)
    return exits.DONE


def _check_words(args: argparse.Namespace) -> None:
    """Raise UsageError where the words of the command line don't go together."""
    if args.action == "explain" and args.word is None:
        raise UsageError("spaces explain needs the name of a SERIES")
    if args.action == "list" and args.word is not None:
        raise UsageError("spaces list takes no name; say --database DB for one database")
    if args.action != "apply" and (args.like_07 or args.dry_run or args.take_from or args.samples):
        raise UsageError("--like-0.7, --dry-run, --take-from and --sample are for spaces apply")
    if args.action == "apply" and (args.word is None) == (args.like_07 is None):
        raise UsageError("spaces apply needs either a FILE ('-': stdin) or --like-0.7 DATABASE...")
    if args.like_07 is not None and args.database is not None:
        raise UsageError("--like-0.7 names the databases itself; leave out --database")


def _node(args: argparse.Namespace, *, needed: bool) -> Layout | None:
    """Find the node; None where it is not needed, was not named and none is found.

    Raises:
        ShardtoolError: see find_layout.
    """
    named = (args.data, args.influx_config, os.environ.get("SHARDTOOL_DATA") or None)
    try:
        return find_layout(args.data, args.influx_config, dict(os.environ))
    except ShardtoolError:
        if needed or any(name is not None for name in named):
            raise
        return None


def _catalogue(args: argparse.Namespace) -> tuple[Catalogue, tuple[ClusterServer, ...]]:
    """Return what raft knows, from --api's server or the raft directory; and the servers of a
    cluster with their addresses, as far as a server was asked.

    Raises:
        ShardtoolError: it can't be told.
    """
    if args.api is None:
        layout = _node(args, needed=True)
        assert layout is not None
        return read_catalogue(layout.raft), ()
    with opened_api(args, None, default=False) as api:
        catalogue = api.catalogue()
        return catalogue, members_of(catalogue, api)


def _asked_for(args: argparse.Namespace, had: dict[str, Had]) -> dict[str, Had]:
    if args.database is None:
        return had
    if args.database not in had:
        there = ", ".join(had) or "no database at all"
        raise ShardtoolError(
            f"expected a database {args.database!r}, found {there}; check --database"
        )
    return {args.database: had[args.database]}


def _wanted(args: argparse.Namespace) -> SpacesFile:
    """Return the spaces to be made, by --like-0.7 or from a file. Raises UsageError."""
    if args.like_07 is not None:
        names = dict.fromkeys(args.like_07)
        return SpacesFile.checked([space for name in names for space in like_07(name)])
    if args.word == "-":
        return read_spaces("stdin", sys.stdin.buffer.read(MOST_BYTES + 1), args.database)
    try:
        with Path(args.word).open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = reason_of(error) if isinstance(error, OSError) else "no file's name"
        raise UsageError(f"{args.word}: expected a file of spaces, found: {reason}") from None
    return read_spaces(args.word, content, args.database)


# -- list --


def _list(databases: Mapping[str, Had], members: list[dict[str, object]], out: Output) -> None:
    never = {name: shadows(had.spaces, had.series) for name, had in databases.items()}
    out.document(
        "spaces",
        {
            "databases": list(databases),
            "servers": members,
            "spaces": [
                {
                    **space_document(space),
                    "place": place,
                    "shards": sorted(had.shards_of(space)),
                    "never_asked_because_of": _hider(never[name], space),
                }
                for name, had in databases.items()
                for place, space in enumerate(had.spaces, 1)
            ],
        },
    )
    if out.quiet:
        count = sum(len(had.spaces) for had in databases.values())
        out.line(f"{plural(count, 'space')} in {plural(len(databases), 'database')}")
        return
    if not databases:
        out.line("there are no databases")
    for number, (name, had) in enumerate(databases.items()):
        if number:
            out.line()
        _show(name, had, never[name], out)


def _hider(never: Mapping[str, Shadow], space: Space) -> str | None:
    return never[space.name].by.name if space.name in never else None


def _show(name: str, had: Had, never: Mapping[str, Shadow], out: Output) -> None:
    """Show a database's spaces as a table, and what is odd about them."""
    if not had.spaces:
        out.line(f"{short(name, 60)}: no space")
        _note("the first write or migrated point makes 'default': /.*/, 7d, inf", out)
        return
    out.line(out.styled(short(name, 78), "bold"))
    rows = [
        (
            str(place),
            short(space.name, 14),
            short(space.retention or "inf", 9),
            short(space.shard_duration or "7d", 8),
            f"{space.replication:,}",
            f"{space.split:,}",
            f"{len(had.shards_of(space)):,}",
            short(space.regex, max(out.width - 64, 16)),
        )
        for place, space in enumerate(had.spaces, 1)
    ]
    header = ("", "SPACE", "RETENTION", "DURATION", "COPIES", "SPLIT", "SHARDS", "REGEX")
    out.table(header, rows, right="rlllrrrl")
    for shadow in never.values():
        _note(_never_asked(shadow, len(had.shards_of(shadow.space))), out)


def _never_asked(shadow: Shadow, shards: int) -> str:
    first, space = short(shadow.by.name), short(shadow.space.name)
    hidden = f"; values in its {plural(shards, 'shard')} are not found by queries" if shards else ""
    if shadow.is_certain:
        return f"{space} is never asked: {first} before it takes all that it takes{hidden}"
    return f"{space} may never be asked: {first} takes each name that was tried on both{hidden}"


def _note(text: str, out: Output) -> None:
    for line in textwrap.wrap(text, 76, initial_indent="  ", subsequent_indent="  "):
        out.line(line)


# -- explain --


def _explain(
    series: str, databases: Mapping[str, Had], members: list[dict[str, object]], out: Output
) -> None:
    takers = {name: space_of(had.spaces, series) for name, had in databases.items()}
    out.document(
        "spaces",
        {
            "series": series,
            "databases": list(databases),
            "servers": members,
            "known_in": [name for name, had in databases.items() if series in had.series],
            "spaces": [
                {
                    **space_document(space),
                    "place": place,
                    "shards": sorted(had.shards_of(space)),
                    "matches": takes(space, series),
                    "takes": space is takers[name],
                }
                for name, had in databases.items()
                for place, space in enumerate(had.spaces, 1)
            ],
        },
    )
    if out.quiet:
        found = (f"{short(n)}: {short(t.name) if t else 'no space'}" for n, t in takers.items())
        out.line("; ".join(found))
        return
    if not databases:
        out.line("there are no databases")
    for name, had in databases.items():
        taker = takers[name]
        who = "no space" if taker is None else short(taker.name, 16)
        known = "" if series in had.series else " (no such series yet)"
        out.line(f"{short(name, 16)}: {who} takes {short(series, 18)}{known}")
        if had.spaces:
            out.table(("", "SPACE", "ANSWER", "REGEX"), list(_reasons(series, had.spaces, out)))
        if taker is None:
            _note("0.8 would make 'default' for it: /.*/, 7d, inf", out)


def _reasons(
    series: str, spaces: Sequence[Space], out: Output
) -> Iterator[tuple[str, str, str, str]]:
    """Yield a row a space: what it says to the series, in the order in which they are asked."""
    is_taken = False
    for place, space in enumerate(spaces, 1):
        matches = takes(space, series)
        if is_taken:
            says = "would match" if matches else "not asked"
        else:
            says = "matches" if matches else "does not match"
        is_taken = is_taken or matches
        yield str(place), short(space.name), says, short(space.regex, out.width - 48)
