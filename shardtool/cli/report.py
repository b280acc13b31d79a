"""`shardtool report`: a node, or several merged, on a screen, as a document, as a page."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import sys
from dataclasses import asdict
from typing import BinaryIO

from shardtool.cli import exits
from shardtool.cli.output import Output, safe
from shardtool.cli.snapshots import add_store, store_of
from shardtool.datadir.layout import Layout, find_layout
from shardtool.errors import ShardtoolError, UsageError, reason_of
from shardtool.export.target import STDOUT, Target, is_stdout, is_stream, place_of
from shardtool.report.look import look, made_now
from shardtool.report.model import Report
from shardtool.report.reading import merged, read_nodes
from shardtool.report.text import lines_of
from shardtool.report.view import View, view_of
from shardtool.report.words import headline, is_good, wrongs
from shardtool.words import size

DESCRIPTION = """\
Shows what is known of a node: what is on disk, what was proven and when, what
would be lost and why, what prune would do, snapshots and journal. With FILEs it
merges what report --json printed on several nodes into one view: which old
shards are proven wherever they lie, and what can be reclaimed where. With
--html it makes one self-contained page of that, to attach to a change ticket.
All of it is from what is on disk: nothing is proven, changed or locked, and a
server may run meanwhile."""

EPILOG = """\
examples:
  shardtool report                         this node, on a screen
  shardtool report --html report.html      and as a page
  for host in db1 db2 db3; do ssh $host shardtool report --json; done |
      shardtool report - --html cluster.html
  shardtool report db1.json db2.json db3.json

A FILE may hold several documents, one after the other, and several nodes. Two
reports of one node (same host, db and server): the newer one counts, and that
is told. Only shardtool/report/1 is taken: what status, verify and prune print
does not say of which node it is.

The page needs no network, no script and no other file; it may be printed. What
is left out of a long list is counted, and the command that shows it named. An
older report page of that name is replaced, any other file only with --force.

--json, shardtool/report/1 (sizes in bytes, times ISO 8601 UTC):
  made      {version, host, at, command}
  nodes     [{data, db, made, stage, stage_words, next, advice, attention,
            filesystem, raft, old_shards, new_shards, gone, trash,
            unseen_processes, losses, accepted, plan, snapshots, history}]
            old_shards: as status has them, and range (of raft), servers, proof
            {proven_at, holds, why_not, values, missing, different, rests_on,
            accepted, digest, losses_digest, receipt_sha256, ...}
            losses: {values, columns, by_cause, largest: [...]}
            plan: as prune --dry-run --no-verify has it
  cluster   {totals, nodes, shards: [{id, verdict, proven_everywhere, copies,
            unreported, values, lost, elsewhere, accepted}],
            unreported: servers without a report, problems}
  sources   [{name, sha256, nodes}] of the FILEs; replaced: older reports

Exit code 3 if something is not as it should be on a node (values lost that
nobody accepted, a shard suspect or unreadable, a damaged snapshot, journal or
trash), or if the view of a cluster is not whole (no report of a server that
raft knows, reports that are days apart or old)."""

_MOST_BYTES = 1 << 30  # of a FILE
_PAGE_BEGINS = b"<!DOCTYPE html>\n<!-- shardtool report"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what only this command takes."""
    parser.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help="what report --json printed on the nodes, - for stdin (default: look at this node)",
    )
    parser.add_argument("--html", metavar="FILE", help="write a page too; - for stdout")
    parser.add_argument(
        "--force", action="store_true", help="with --html: replace FILE, whatever it is"
    )
    add_store(parser)


def run(args: argparse.Namespace, out: Output) -> int:
    """Look or merge, show it, write the page."""
    _check_options(args, out)
    layout = _layout(args)
    if args.html is not None and layout is not None:
        _check_place(args.html, layout)
    made = made_now(_command())
    if args.files:
        report = merged(made, [read_nodes(_content(name), name) for name in args.files])
    else:
        assert layout is not None  # only with FILEs there may be none
        report = Report(made, (look(layout, str(store_of(args, layout)), made),))
    view = view_of(report)
    if args.html is not None:
        _write_page(args, report, view, out)
    if args.html != STDOUT:
        _show(report, view, out)
    return exits.DONE if is_good(report, view) else exits.ATTENTION


def _command() -> str:
    """Return the command as it was given; no option of report takes a secret."""
    return shlex.join(["shardtool", *sys.argv[1:]])


def _check_options(args: argparse.Namespace, out: Output) -> None:
    if args.files and args.store is not None:
        raise UsageError("--store is of the node that is looked at; leave it out with FILEs")
    if args.files.count(STDOUT) > 1:
        raise UsageError("stdin can be read only once; give - once")
    if args.html is None:
        if args.force:
            raise UsageError("--force is for the page of --html alone; leave it out")
        return
    if not args.html:
        raise UsageError("--html needs a name, found an empty one")
    args.html = STDOUT if is_stdout(args.html) else args.html
    if args.html == STDOUT and out.as_json:
        raise UsageError("--html - and --json both want stdout; give one of them")


def _layout(args: argparse.Namespace) -> Layout | None:
    """Return the node; where FILEs are merged there need be none."""
    if args.files:
        with contextlib.suppress(ShardtoolError):
            return find_layout(args.data, args.influx_config, dict(os.environ))
        return None
    return find_layout(args.data, args.influx_config, dict(os.environ))


def _check_place(name: str, layout: Layout) -> None:
    if not is_stream(name):
        layout.refuse_inside(name, place_of(name))


def _content(name: str) -> bytes:
    try:
        if name == STDOUT:
            return _read(sys.stdin.buffer, name)
        with open(name, "rb") as file:
            return _read(file, name)
    except OSError as error:
        raise ShardtoolError(
            f"{name}: expected what shardtool report --json prints, found: {reason_of(error)}"
        ) from None
    except ValueError as error:  # a NUL in the name
        raise ShardtoolError(f"{name}: {error}") from None


def _read(file: BinaryIO, name: str) -> bytes:
    content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise ShardtoolError(f"{name}: expected a report, found more than {size(_MOST_BYTES)}")
    return content


def _write_page(args: argparse.Namespace, report: Report, view: View, out: Output) -> None:
    from shardtool.report.page import page_of  # most runs make none, and its import takes long

    content = page_of(report, view).encode()
    replaces = args.force or _is_a_page(args.html)
    with Target(args.html, force=replaces) as target:
        target.write(content)
        written = target.complete()
    if args.html != STDOUT and not out.quiet:
        out.note(f"page: {written.path}, {size(written.bytes)}, sha256 {written.sha256}")


def _is_a_page(name: str) -> bool:
    """Say whether a file is a page of an earlier report, which a new one replaces."""
    if is_stream(name):
        return False
    with contextlib.suppress(OSError), open(name, "rb") as file:
        return file.read(len(_PAGE_BEGINS)) == _PAGE_BEGINS
    return False


def _show(report: Report, view: View, out: Output) -> None:
    for line in report.replaced:
        out.note(line)
    for line in wrongs(report, view):
        out.wrong(line)
    out.document("report", {**asdict(report), "cluster": asdict(view)})
    if out.quiet:
        out.line(safe(headline(view)))
        return
    if not out.as_json:
        for line in lines_of(report, view, out):
            out.line(line)
