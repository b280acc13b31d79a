"""`shardtool restore`: put a snapshot's raft and wal back, or everything elsewhere."""

from __future__ import annotations

import argparse
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from shardtool.cli import exits
from shardtool.cli.options import add_yes, amount, confirmed
from shardtool.cli.output import Output, safe
from shardtool.cli.snapshots import add_store, meter, node_of, store_of, verified_json
from shardtool.datadir.layout import Layout
from shardtool.datadir.server import find_server
from shardtool.disk.locks import exclusive
from shardtool.errors import BusyError, ShardtoolError, UsageError
from shardtool.snapshots import moves as moving
from shardtool.snapshots import restore, swap
from shardtool.snapshots.address import Place
from shardtool.snapshots.metadata import CONFIG, Metadata, created_at, origin_of
from shardtool.snapshots.opened import open_place
from shardtool.snapshots.pending import Pending, pending_restore
from shardtool.snapshots.staging import stage
from shardtool.snapshots.store import (
    choose_another,
    find_snapshot,
    refuse_another_nodes,
    refuse_inside,
)
from shardtool.snapshots.verify import Verification

DESCRIPTION = """\
Verifies a snapshot and puts its raft and wal in place: bytes, modes, owners
and times. The present ones are renamed to raft.before-restore-TIME and
wal.before-restore-TIME, not deleted. config.toml stays in the snapshot."""

EPILOG = """\
A restore that is killed in the middle is finished by the next one; where what
it had staged is gone, `restore ID` restores anew. With --to, DIR appears with
its whole content or not at all. It refuses while a server runs on the
directory (exit 4), and a damaged snapshot (exit 1). Owners are set when it
runs as root. Where the latest in the store is another node's and this node has
some there too, it wants the ID (exit 1). From s3://BUCKET/PREFIX a snapshot is
fetched into a private directory below $TMPDIR, else /var/tmp, and verified
there; see backup --help.

examples:
  shardtool restore
  shardtool restore 20261124T175153Z --yes
  shardtool restore latest --to /tmp/look    # raft, wal and config.toml
  shardtool restore --store s3://backups/influxdb/node1"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's own arguments to `parser`."""
    parser.add_argument(
        "id", nargs="?", metavar="ID", help="which snapshot (default: latest, the newest one)"
    )
    parser.add_argument(
        "--to",
        metavar="DIR",
        help="restore raft, wal and config.toml below DIR, new or empty, and touch no node",
    )
    add_store(parser)
    add_yes(parser)


def run(args: argparse.Namespace, out: Output) -> int:
    """Restore, or finish what an earlier restore began; return the exit code."""
    if args.to == "":
        # An unset variable in a script; the working directory is not what was meant.
        raise UsageError("--to needs a name, found an empty one")
    layout = node_of(args)
    if args.to is not None:
        return _restore_elsewhere(args, layout, out)
    if layout is None:
        raise ShardtoolError("restore needs a node to restore to: --data DIR, or --to elsewhere")
    locked = layout.anchor
    with exclusive(locked, purpose="data directory"):
        pending = pending_restore(layout)
        if pending is None:
            return _restore_in_place(args, layout, locked, out, unfinished=None)
        problem = swap.why_unfinishable(layout, pending)
        if problem and args.id is not None:
            out.warn(f"warning: {problem}")
            return _restore_in_place(args, layout, locked, out, unfinished=pending)
        if problem:
            raise ShardtoolError(problem)
        if args.id not in (None, "latest", pending.snapshot):
            raise ShardtoolError(
                f"{layout.name}: expected raft and wal that belong together, found the restore "
                f"of {pending.snapshot} interrupted in its swap; finish it with restore, "
                f"then restore {args.id}"
            )
        return _finish(layout, pending, args, out)


def _finish(layout: Layout, pending: Pending, args: argparse.Namespace, out: Output) -> int:
    doubt = _refuse_server(layout)
    question = (
        f"The restore of snapshot {pending.snapshot} was interrupted when raft and wal "
        "were being swapped. Finish it?"
    )
    if not confirmed(out, _with_doubt(question, doubt), yes=args.yes):
        return _declined(out)
    done = "the restore that was interrupted is finished, raft and wal are in place"
    if swap.is_swapped(layout, pending):
        done = (
            "the restore that was interrupted is finished: it was begun at "
            f"{created_at(pending.stamp)} and raft and wal were in place already; run restore "
            "again to put the snapshot there anew"
        )
    aside = swap.finish(layout, pending)
    shown: dict[str, object] = {"id": pending.snapshot, "path": pending.path}
    moves = moving.moves_for(layout, pending.stamp)
    _tell(out, shown, moves, aside, warnings=doubt, finished=done)
    return exits.DONE


def _restore_in_place(
    args: argparse.Namespace,
    layout: Layout,
    locked: Path,
    out: Output,
    *,
    unfinished: Pending | None,
) -> int:
    stamp = moving.new_stamp(layout)
    moves = moving.moves_for(layout, stamp)
    moving.refuse_immovable(moves)
    doubt = _refuse_server(layout)
    own = origin_of(socket.gethostname(), str(moves[0].place))
    with _chosen(args, layout, out, own=own) as (directory, path, verified, metadata):
        content = amount(len(metadata.files), "file", metadata.payload_bytes)
        kind = "Live snapshot" if metadata.live else "Snapshot"
        origin, foreign = _origin(metadata, moves)
        for warning in foreign:
            out.warn(f"warning: {warning}")
        question = (
            f"{kind} {verified.id} {safe(origin)}, {content}, replaces raft and wal of "
            f"{safe(layout.name)}; the present ones are set aside, not deleted."
        )
        if not confirmed(out, _with_doubt(question, doubt), yes=args.yes):
            return _declined(out)
        restore.prepare_node(layout, moves, unfinished)
        # Where there was no db, the lock is on what is about to be renamed away.
        with nullcontext() if locked == layout.db else exclusive(layout.db, purpose="directory"):
            warnings = stage(directory, verified, moves, meter(out))
            pending = swap.pending_of(verified.id, path, stamp, moves)
            swap.begin(layout, pending, moves, lambda: _refuse_server(layout))
            _announce(moves, path, out)
            aside = swap.finish(layout, pending)
    if unfinished is not None:
        aside += swap.set_aside(moving.moves_for(layout, unfinished.stamp))
    _tell(
        out,
        verified_json(path, verified),
        moves,
        aside,
        warnings=(*doubt, *warnings),
        told=foreign,
        metadata=metadata,
    )
    return exits.DONE


def _origin(metadata: Metadata, moves: tuple[moving.Move, ...]) -> tuple[str, tuple[str, ...]]:
    """Say where a snapshot was taken, and warn of the places that are not the node's."""
    raft, host = metadata.sources.get("raft", "unknown"), metadata.made_by.get("host", "unknown")
    origin = f"(taken {created_at(metadata.id)} on host {host} from {raft})"
    return origin, tuple(
        f"the snapshot's {move.name} was taken from {source}, and goes to {move.place}: see that "
        "it is this node's"
        for move in moves
        if (source := metadata.sources.get(move.name)) != str(move.place)
    )


def _with_doubt(question: str, doubt: tuple[str, ...]) -> str:
    return " ".join([question, *(f"Mind: {text}." for text in doubt)])


def _restore_elsewhere(args: argparse.Namespace, layout: Layout | None, out: Output) -> int:
    target = Path(os.path.realpath(args.to))
    node = (*layout.places, layout.own) if layout is not None else ()
    store = store_of(args, layout)
    refuse_inside(target, (*node, *([store] if isinstance(store, Path) else [])), "directory")
    with _chosen(args, layout, out) as (directory, path, verified, metadata):
        warnings = restore.restore_to(directory, verified, target, meter(out))
    moves = moving.moves_into(target, metadata)
    _tell(out, verified_json(path, verified), moves, (), warnings=warnings)
    return exits.DONE


@contextmanager
def _chosen(
    args: argparse.Namespace, layout: Layout | None, out: Output, *, own: str = ""
) -> Iterator[tuple[int, Place, Verification, Metadata]]:
    """Yield an open directory with the snapshot that was asked for, its place, and what
    verifying it found; a store in a directory is locked meanwhile. With `own`, the origin of a
    node, another node's newest is not taken for its."""
    store = store_of(args, layout)
    with open_place(store, alone=True) as found:
        listing = found.listing()
        snapshot = find_snapshot(listing, store, args.id or "latest")
        if own and args.id in (None, "latest"):
            refuse_another_nodes(listing, snapshot, own, store)
        with found.fetched(snapshot.id, meter(out)) as (directory, verified):
            if not verified.good or verified.metadata is None:
                first = verified.problems[0]
                raise ShardtoolError(
                    f"{snapshot.path}: expected a good snapshot, found {first.path}: "
                    f"{first.what}; {choose_another(listing, snapshot.id)}, "
                    "see shardtool snapshots verify"
                )
            yield directory, snapshot.path, verified, verified.metadata


def _refuse_server(layout: Layout) -> tuple[str, ...]:
    """Refuse a node with a server; return the warning where it is not sure that there is none."""
    search = find_server(layout)
    if search.server is not None:
        raise BusyError(
            f"{layout.name}: expected no server on it, found {search.server}; "
            "stop it, or restore elsewhere with --to DIR"
        )
    return (search.doubt,) if search.doubt else ()


def _declined(out: Output) -> int:
    out.warn("nothing was changed")
    return exits.FAILED


def _announce(moves: tuple[moving.Move, ...], path: Place, out: Output) -> None:
    """Say, before the first rename, where everything is if this is the last that is heard."""
    for move in moves:
        if os.path.lexists(move.place):
            out.warn(f"the present {move.name} becomes {move.aside}")
    out.warn(f"the snapshot stays in {path}; if this is interrupted, run restore again")


def _tell(
    out: Output,
    snapshot: dict[str, object],
    moves: tuple[moving.Move, ...],
    aside: tuple[Path, ...],
    *,
    warnings: tuple[str, ...] = (),
    told: tuple[str, ...] = (),
    metadata: Metadata | None = None,
    finished: str = "",
) -> None:
    """Tell what was done.

    Args:
        out: shows it.
        snapshot: which one, as it stands in documents.
        moves: what was put where.
        aside: the names of what was there before.
        warnings: to be shown.
        told: warnings that were shown before.
        metadata: of the snapshot, where its config.toml is to be mentioned.
        finished: what became of a restore that an earlier run began; empty for a new one.
    """
    for warning in warnings:
        out.warn(f"warning: {warning}")
    has_config = metadata is not None and any(e.path == CONFIG for e in metadata.entries)
    config = f"{snapshot['path']}/data/{CONFIG}" if has_config else None
    out.document(
        "restore",
        {
            "snapshot": snapshot,
            "restored": {move.name: str(move.place) for move in moves},
            "set_aside": [str(path) for path in aside],
            "config": config,
            "finished_earlier": bool(finished),
            "warnings": [*told, *warnings],
        },
    )
    *names, last = (move.name for move in moves)
    done = finished or f"{', '.join(names)} and {last} restored and verified"
    out.line(f"snapshot {snapshot['id']}: {done}")
    if out.quiet:
        return
    for move in moves:
        out.line(f"  {safe(str(move.place))}")
    for path in aside:
        out.line(f"set aside, remove it when all is well: {safe(str(path))}")
    if config:
        out.line(f"not put back, a newer package may own it: {safe(config)}")
