"""`shardtool snapshots`: list the snapshots, or read them again. Also the option --store."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from shardtool.cli import exits
from shardtool.cli.options import amount
from shardtool.cli.output import Output, safe
from shardtool.cli.progress import Progress
from shardtool.datadir.layout import PACKAGED_DATA, Layout, find_layout
from shardtool.disk.copy import Meter
from shardtool.errors import UsageError
from shardtool.snapshots.address import Place, place_of
from shardtool.snapshots.metadata import created_at
from shardtool.snapshots.opened import OpenStore, open_place
from shardtool.snapshots.store import Listing, Snapshot, find_snapshot
from shardtool.snapshots.verify import Verification
from shardtool.words import plural, size

STORE_VARIABLE = "SHARDTOOL_SNAPSHOTS"

DESCRIPTION = """\
Lists the snapshots of raft and wal, oldest first, or reads them again and
verifies every byte: `snapshots list` (also plain `snapshots`) and
`snapshots verify`. Changes nothing."""

EPILOG = """\
A list reads names and metadata only; what is damaged inside, verify finds.
Without shardtool, in a snapshot's directory: sha256sum -c manifest-sha256.txt
s3://BUCKET/PREFIX needs 'shardtool[s3]'; shardtool backup --help has the AWS_*
settings. There an id without a tag manifest is no snapshot, but unfinished.

examples:
  shardtool snapshots
  shardtool snapshots verify
  shardtool snapshots verify latest --store /backup/influxdb
  shardtool snapshots verify 20261124T175153Z --json
  shardtool snapshots --store s3://backups/influxdb/node1

exit codes: 0 all good, 1 no such snapshot, 3 one is damaged"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's own arguments to `parser`."""
    parser.add_argument(
        "action", nargs="?", choices=("list", "verify"), default="list", help="default: list"
    )
    parser.add_argument(
        "ids", nargs="*", metavar="ID", help="what to verify; 'latest' is one too (default: all)"
    )
    add_store(parser)


def add_store(parser: argparse.ArgumentParser, *names: str) -> None:
    """Add --store, the same on all commands that work with snapshots.

    Args:
        parser: the command's.
        names: other names of the option.
    """
    parser.add_argument(
        *names,
        "--store",
        dest="store",
        metavar="DIR",
        help=f"the snapshot directory, or s3://BUCKET/PREFIX (default: ${STORE_VARIABLE}, "
        "else snapshots/ in the data directory)",
    )


def node_of(args: argparse.Namespace) -> Layout | None:
    """Find the node; None where snapshots were named and no node was, nor is one installed.

    Raises:
        ShardtoolError: see find_layout.
    """
    named = args.data or args.influx_config or os.environ.get("SHARDTOOL_DATA")
    if _named_store(args) and not named and not PACKAGED_DATA.is_dir():
        return None
    return find_layout(args.data, args.influx_config, dict(os.environ))


def store_of(args: argparse.Namespace, layout: Layout | None) -> Place:
    """Return the store of snapshots: --store, $SHARDTOOL_SNAPSHOTS, or the node's own directory.

    Raises:
        UsageError: --store is empty, or a URL that names no place for snapshots.
        ShardtoolError: see find_layout.
    """
    named = _named_store(args)
    if named:
        return place_of(named)
    return (layout or find_layout(args.data, args.influx_config, dict(os.environ))).snapshots


def _named_store(args: argparse.Namespace) -> str | None:
    if args.store == "":
        # An unset variable in a script; the default would be another place than the one meant.
        raise UsageError("the snapshot directory (--store, --to) needs a name, found an empty one")
    named: str | None = args.store or os.environ.get(STORE_VARIABLE)
    return named


def meter(out: Output) -> Meter:
    """Return what makes the progress bars of a command's work."""
    return lambda doing, total: Progress(doing, total, unit="bytes", out=out)


def run(args: argparse.Namespace, out: Output) -> int:
    """List or verify; return the exit code."""
    if args.ids and args.action == "list":
        raise UsageError("snapshots list takes no ID; snapshots verify does")
    store = store_of(args, None)
    # A node's own place comes into being with its first backup; a named one must be there.
    if not _named_store(args) and isinstance(store, Path) and not store.is_dir():
        return (
            _verify(args.ids, store, None, out)
            if args.action == "verify"
            else _list(store, Listing(()), out)
        )
    with open_place(store) as found:
        if args.action == "verify":
            return _verify(args.ids, store, found, out)
        return _list(store, found.listing(), out)


def _list(store: Place, listing: Listing, out: Output) -> int:
    damaged = [snapshot for snapshot in listing.snapshots if snapshot.problem]
    total = sum(snapshot.bytes for snapshot in listing.snapshots)
    out.document(
        "snapshots",
        {
            "store": str(store),
            "snapshots": [as_json(snapshot) for snapshot in listing.snapshots],
            "others": [{"name": name, "what": what} for name, what in listing.others],
        },
    )
    if not out.quiet:
        _show(listing, out)
    bad = f", {len(damaged)} damaged" if damaged else ""
    out.line(f"{amount(len(listing.snapshots), 'snapshot', total)}{bad} in {safe(str(store))}")
    if not listing.snapshots and not out.quiet:
        out.line("Make one with: shardtool backup")
    return exits.ATTENTION if damaged else exits.DONE


def _show(listing: Listing, out: Output) -> None:
    rows = [_row(snapshot, out) for snapshot in listing.snapshots]
    if rows:
        header = ("snapshot", "taken (UTC)", "files", "bytes", "server")
        out.table(header, rows, right="llrrl")
    for name, what in listing.others:
        out.line(f"{safe(name)}: {safe(what)}")
    if rows or listing.others:
        out.line()


def _row(snapshot: Snapshot, out: Output) -> Sequence[str]:
    when = created_at(snapshot.id)[:-1].replace("T", " ")
    if snapshot.problem:
        return snapshot.id, when, "?", "?", out.styled(f"damaged: {safe(snapshot.problem)}", "bad")
    state = "live" if snapshot.live else "stopped"
    return snapshot.id, when, str(snapshot.files), size(snapshot.bytes), state


def as_json(snapshot: Snapshot) -> dict[str, object]:
    """Return a listed snapshot as it stands in documents."""
    return {
        "id": snapshot.id,
        "path": str(snapshot.path),
        "created_at": created_at(snapshot.id),
        "state": "damaged" if snapshot.problem else "complete",
        "live": snapshot.live,
        "files": snapshot.files,
        "bytes": snapshot.bytes,
        "problem": snapshot.problem,
    }


def verified_json(path: Place, verified: Verification) -> dict[str, object]:
    """Return a verified snapshot as it stands in documents; `sha256` is its tag manifest's."""
    metadata = verified.metadata
    return {
        "id": verified.id,
        "path": str(path),
        "created_at": created_at(verified.id),
        "live": metadata.live if metadata else None,
        "files": len(metadata.files) if metadata else None,
        "bytes": metadata.payload_bytes if metadata else None,
        "sha256": verified.sha256,
    }


def _verify(ids: Sequence[str], store: Place, found: OpenStore | None, out: Output) -> int:
    listing = found.listing() if found else Listing(())
    wanted = [find_snapshot(listing, store, name) for name in ids] or list(listing.snapshots)
    results = []
    for snapshot in wanted:
        assert found is not None  # without a store there was nothing to find
        results.append(found.verify(snapshot.id, meter(out)))
        _tell(results[-1], out)
    out.document(
        "snapshots-verify",
        {"store": str(store), "snapshots": [_result_json(store, result) for result in results]},
    )
    damaged = sum(not result.good for result in results)
    how = f", {damaged} damaged" if damaged else ", all good" if results else ""
    out.line(f"{plural(len(results), 'snapshot')} verified in {safe(str(store))}{how}")
    return exits.ATTENTION if damaged else exits.DONE


def _tell(result: Verification, out: Output) -> None:
    if out.quiet:
        return
    if result.metadata and result.good:
        content = amount(len(result.metadata.files), "file", result.metadata.payload_bytes)
        out.line(f"{result.id}  {out.styled('good', 'good')}  {content}")
        return
    out.line(f"{result.id}  {out.styled('damaged', 'bad')}")
    for problem in result.problems:
        out.line(f"  {safe(problem.path)}: {safe(problem.what)}")


def _result_json(store: Place, result: Verification) -> dict[str, object]:
    problems = [{"path": problem.path, "what": problem.what} for problem in result.problems]
    return {**verified_json(store / result.id, result), "good": result.good, "problems": problems}
