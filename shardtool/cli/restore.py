"""`shardtool restore`: put a snapshot's raft and wal back, or everything elsewhere."""

from __future__ import annotations

import argparse
import os
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
from shardtool.errors import BusyError, ShardtoolError
from shardtool.snapshots import restore
from shardtool.snapshots.metadata import CONFIG, Metadata
from shardtool.snapshots.pending import Pending, pending_restore
from shardtool.snapshots.store import find_snapshot, list_store, opened_store
from shardtool.snapshots.verify import Verification, verify

DESCRIPTION = """\
Verifies a snapshot and puts its raft and wal in place: bytes, modes, owners
and times. The present ones are renamed to raft.before-restore-TIME and
wal.before-restore-TIME, not deleted. config.toml stays in the snapshot."""

EPILOG = """\
A restore that is killed in the middle is finished by the next one. It refuses
while a server runs on the directory (exit 4), and a damaged snapshot (exit 1).
Owners are set when it runs as root.

examples:
  shardtool restore
  shardtool restore 20261124T175153Z --yes
  shardtool restore latest --to /tmp/look    # raft, wal and config.toml"""


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
    layout = node_of(args)
    if args.to is not None:
        return _restore_elsewhere(args, layout, out)
    if layout is None:
        raise ShardtoolError("restore needs a node to restore to: --data DIR, or --to elsewhere")
    locked = layout.anchor
    with exclusive(locked, purpose="data directory"):
        pending = pending_restore(layout)
        if pending is None:
            return _restore_in_place(args, layout, locked, out)
        if args.id not in (None, "latest", pending.snapshot):
            raise ShardtoolError(
                f"{layout.name}: expected raft and wal that belong together, found the restore "
                f"of {pending.snapshot} interrupted in its swap; finish it with restore, "
                f"then restore {args.id}"
            )
        return _finish(layout, pending, args, out)


def _finish(layout: Layout, pending: Pending, args: argparse.Namespace, out: Output) -> int:
    _refuse_server(layout)
    question = (
        f"The restore of snapshot {pending.snapshot} was interrupted when raft and wal "
        "were being swapped. Finish it?"
    )
    if not confirmed(out, question, yes=args.yes):
        return _declined(out)
    aside = restore.finish(layout, pending)
    shown: dict[str, object] = {"id": pending.snapshot, "path": pending.path}
    _tell(out, shown, restore.moves_for(layout, pending.stamp), aside, finished=True)
    return exits.DONE


def _restore_in_place(args: argparse.Namespace, layout: Layout, locked: Path, out: Output) -> int:
    stamp = restore.new_stamp(layout)
    moves = restore.moves_for(layout, stamp)
    restore.refuse_immovable(moves)
    _refuse_server(layout)
    with _chosen(args, layout, out) as (directory, path, verified, metadata):
        content = amount(len(metadata.files), "file", metadata.payload_bytes)
        kind = "Live snapshot" if metadata.live else "Snapshot"
        question = (
            f"{kind} {verified.id}, {content}, replaces raft and wal of {safe(layout.name)}; "
            "the present ones are set aside, not deleted."
        )
        if not confirmed(out, question, yes=args.yes):
            return _declined(out)
        restore.prepare_node(layout, moves)
        # Where there was no db, the lock is on what is about to be renamed away.
        with nullcontext() if locked == layout.db else exclusive(layout.db, purpose="directory"):
            warnings = restore.stage(directory, verified, moves, meter(out))
            pending = Pending(verified.id, str(path), stamp)
            restore.begin(layout, pending, moves, lambda: _refuse_server(layout))
            _announce(moves, path, out)
            aside = restore.finish(layout, pending)
    _tell(out, verified_json(path, verified), moves, aside, warnings=warnings, metadata=metadata)
    return exits.DONE


def _restore_elsewhere(args: argparse.Namespace, layout: Layout | None, out: Output) -> int:
    target = Path(args.to).absolute()
    with _chosen(args, layout, out) as (directory, path, verified, metadata):
        restore.prepare_target(target)
        moves = restore.moves_into(target, metadata, verified.id)
        warnings = restore.stage(directory, verified, moves, meter(out))
        restore.swap(moves)
    _tell(out, verified_json(path, verified), moves, (), warnings=warnings)
    return exits.DONE


@contextmanager
def _chosen(
    args: argparse.Namespace, layout: Layout | None, out: Output
) -> Iterator[tuple[int, Path, Verification, Metadata]]:
    """Hold the store's lock and yield it with the snapshot that was asked for, verified."""
    store = store_of(args, layout)
    with opened_store(store) as directory, exclusive(store, purpose="snapshot directory"):
        snapshot = find_snapshot(list_store(store), store, args.id or "latest")
        verified = verify(directory, snapshot.id, meter(out))
        if not verified.good or verified.metadata is None:
            first = verified.problems[0]
            raise ShardtoolError(
                f"{snapshot.path}: expected a good snapshot, found {first.path}: {first.what}; "
                "choose another one, see shardtool snapshots verify"
            )
        yield directory, snapshot.path, verified, verified.metadata


def _refuse_server(layout: Layout) -> None:
    server = find_server(layout)
    if server is not None:
        raise BusyError(
            f"{layout.name}: expected no server on it, found {server}; "
            "stop it, or restore elsewhere with --to DIR"
        )


def _declined(out: Output) -> int:
    out.warn("nothing was changed")
    return exits.FAILED


def _announce(moves: tuple[restore.Move, ...], path: Path, out: Output) -> None:
    """Say, before the first rename, where everything is if this is the last that is heard."""
    for move in moves:
        if os.path.lexists(move.place):
            out.warn(f"the present {move.name} becomes {move.aside}")
    out.warn(f"the snapshot stays in {path}; if this is interrupted, run restore again")


def _tell(
    out: Output,
    snapshot: dict[str, object],
    moves: tuple[restore.Move, ...],
    aside: tuple[Path, ...],
    *,
    warnings: tuple[str, ...] = (),
    metadata: Metadata | None = None,
    finished: bool = False,
) -> None:
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
            "finished_earlier": finished,
            "warnings": list(warnings),
        },
    )
    names = " and ".join(move.name for move in moves)
    done = "the interrupted restore is finished" if finished else "restored and verified"
    out.line(f"snapshot {snapshot['id']}: {names} {done}")
    if out.quiet:
        return
    for move in moves:
        out.line(f"  {safe(str(move.place))}")
    for path in aside:
        out.line(f"set aside, remove it when all is well: {safe(str(path))}")
    if config:
        out.line(f"not put back, a newer package may own it: {safe(config)}")
