"""`shardtool rescue`: send what the migration left behind to the running 0.8, and look again."""

from __future__ import annotations

import argparse
import contextlib
import os
from typing import TYPE_CHECKING

from shardtool.cli import exits
from shardtool.cli.api import add_api, opened_api
from shardtool.cli.options import add_shards, add_yes, confirmed, pause_of
from shardtool.cli.output import Output
from shardtool.cli.rescued import show_plan, tell
from shardtool.cli.rescuing import look, prove_until_settled, send
from shardtool.datadir.layout import Layout, find_layout
from shardtool.datadir.server import raft_log_elsewhere
from shardtool.errors import ShardtoolError
from shardtool.proof.causes import NOT_WANTED
from shardtool.proof.scratch import scratch_directory
from shardtool.rescue.plan import require_nothing_new
from shardtool.snapshots.pending import refuse_half_restored
from shardtool.upgrade.pause import Pause
from shardtool.words import plural

if TYPE_CHECKING:
    from shardtool.influxdb.api import Api

DESCRIPTION = """\
Sends exactly those values that are in old shards and not in the new storage to
the running 0.8, with their times and sequence numbers, so that they are the
same values; then proves the shards again. Sending a value twice changes
nothing: a rescue that was interrupted is gone on with by the next one."""

EPILOG = """\
Without SHARD, all shards that have a marker are looked at; one that the
migration has not been to yet is rescued only where it is named. What a client
writes under the time and the sequence number of a lost value while rescue is at
work is overwritten: the server gives sequence numbers of its own to all others.
After its question rescue looks again, and sends nothing that it has not shown.

What stays behind is listed with the reason:
  sequence, time   an identity that the float64 which 0.8 reads it as changes
  number, bytes    NaN, infinities, strings and names that are no UTF-8
  ambiguous        two databases or series can be meant by the name (a ~ in one)
  unnamed          the shard's index does not say whose it is
  name             a column called time or sequence_number, names without a URL
  refused          the server refused them; of a series of which it refused very
                   many, some that stand beside such values too
  unreadable       its bytes are not what 0.8 writes for any value
  contradicted     a later shard has another value there; see verify --list
  different        0.8 has another value there, be it where it does not look
  unanswered       another server may have it, and can't be asked for it
  expired, dropped gone from 0.8 because somebody wanted it so: see --also; what
                   0.8 does not know and may have dropped long ago is one
  accepted         these losses were accepted; name the shard to send them
  no-database      see --create-databases
Values that can't be sent have one way out: shardtool export --lost. Points that
were deleted in 0.8 one by one (delete from ...) leave no trace: they are sent.

examples:
  shardtool rescue --dry-run
  shardtool rescue --yes
  shardtool rescue 5 10 --pause 1s --create-databases

Exit code 3 if values stay behind."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what only this command takes."""
    add_shards(parser)
    parser.add_argument("--dry-run", action="store_true", help="show what would be sent")
    parser.add_argument(
        "--create-databases",
        action="store_true",
        help="make databases that 0.8 does not know, for the values in them",
    )
    parser.add_argument(
        "--also",
        action="append",
        default=[],
        choices=NOT_WANTED,
        help="send values too that are gone for this cause; may be given twice",
    )
    parser.add_argument(
        "--pause",
        type=pause_of,
        default=Pause.of("100ms"),
        metavar="TIME",
        help="how long to rest after each 10,000 points (units u ms s m; default: 100ms)",
    )
    add_yes(parser)
    add_api(
        parser,
        about="a server of the running cluster (default: http://localhost and the port of the "
        "node's config.toml, else 8086)",
    )


def run(args: argparse.Namespace, out: Output) -> int:
    """Prove, plan, send and prove again; return the exit code."""
    layout = find_layout(args.data, args.influx_config, dict(os.environ))
    refuse_half_restored(layout)
    with contextlib.ExitStack() as stack:
        api = stack.enter_context(opened_api(args, layout, default=True))
        api.version()
        if _require_own_server(layout, api) > 1:
            args.api = api.url  # values may be on other servers: they are asked for
        scratch = stack.enter_context(scratch_directory())
        told, spools = look(args, layout, api, scratch, out)
        if args.dry_run or not told.plan.total:
            return tell(args, told, out)
        if not out.quiet:
            show_plan(told.plan, api.url, out)
        question = f"{plural(told.plan.total, 'value')} would be sent to {api.url}."
        if not confirmed(out, question, yes=args.yes):
            out.warn("nothing was sent")
            return exits.FAILED
        if not args.yes:
            # Nobody knows how long the question stood, and clients write meanwhile.
            shown, scratch = told.plan, stack.enter_context(scratch_directory())
            told, spools = look(args, layout, api, scratch, out)
            require_nothing_new(shown, told.plan)
            if not told.plan.total:
                return tell(args, told, out)
        send(args, layout, api, spools, told, out)
        if told.failure:
            tell(args, told, out)
            raise ShardtoolError(told.failure)
        told.after = prove_until_settled(args, layout, told, out)
    return tell(args, told, out)


def _require_own_server(layout: Layout, api: Api) -> int:
    """Insist that the server is one of this node's cluster: to another it would be new data.

    Returns:
        How many servers the cluster has.

    Raises:
        ShardtoolError: it is not.
    """
    from shardtool.influxdb.raft import own_name

    elsewhere = raft_log_elsewhere(api.url, layout)
    if elsewhere:
        raise ShardtoolError(
            f"{api.url}: expected the server that runs on {layout.name}, found one that has "
            f"{elsewhere} open; give --data of the directory that it runs on"
        )
    own = own_name(layout.raft)
    members = {server.raft_name for server in api.servers()}
    if own is not None and own not in members:
        raise ShardtoolError(
            f"{api.url}: expected a server of this node's cluster ({own}), found "
            f"{', '.join(sorted(members))}; give the --api of the server on {layout.name}"
        )
    return len(members)
