"""Put a snapshot back: staging.py makes it whole beside its place; swap.py renames it in."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from shardtool.datadir.layout import Layout
from shardtool.disk.copy import Meter
from shardtool.disk.durable import (
    READ_DIRECTORY,
    give_to_owner_of,
    insist_on_same,
    make_directories,
    new_directory,
    opened,
    opened_quietly,
)
from shardtool.disk.mounts import mount_points
from shardtool.disk.remove import remove_tree
from shardtool.errors import ShardtoolError
from shardtool.snapshots.moves import STAGED, Move, moves_into, remove_leftovers
from shardtool.snapshots.pending import Pending
from shardtool.snapshots.staging import stage
from shardtool.snapshots.store import AS_WHOM, describe, told
from shardtool.snapshots.verify import Verification


def restore_to(store: int, verified: Verification, target: Path, meter: Meter) -> tuple[str, ...]:
    """Put all that a snapshot holds into `target`, a directory that is new or empty.

    It is staged whole beside `target` and gets its name by one rename: whatever goes wrong,
    `target` is as it was. What a kill leaves has the name of the target and of the snapshot,
    and the same command removes it.

    Args:
        store: the store's directory.
        verified: the snapshot, read again and found good.
        target: links resolved.
        meter: makes what counts the bytes.

    Returns:
        What could not be made as it was, for people.

    Raises:
        ShardtoolError: something is in the target, or it could not be written.
    """
    assert verified.metadata is not None
    with told(target, "a directory that does not exist or is empty", "name another one"):
        mode = _mode_of_empty(target)
    staging = target.with_name(f"{target.name}{STAGED}{verified.id}")
    moves = moves_into(staging, verified.metadata)
    with told(target, "to put the snapshot there", "name another place with --to DIR"):
        like = next(path for path in (target, *target.parents) if path.is_dir())
        make_directories(target.parent, like=like)
        with opened(target.parent, READ_DIRECTORY) as parent:
            remove_tree(parent, staging.name)
            try:
                with new_directory(staging.name, dir_fd=parent) as made:
                    warnings = stage(store, verified, moves, meter, into=made)
                    give_to_owner_of(like, made)
                    os.fchmod(made, mode)
                    os.fsync(made)
                    facts = os.fstat(made)
                # rename(2) replaces an empty directory, and no other.
                os.rename(staging.name, target.name, src_dir_fd=parent, dst_dir_fd=parent)
            except BaseException:
                remove_tree(parent, staging.name)
                raise
            try:
                insist_on_same(target.name, facts, dir_fd=parent)
                os.fsync(parent)
            except OSError as error:
                raise ShardtoolError(
                    f"{target}: expected to make its name durable, found: {describe(error)}; "
                    "unless another process has moved it the snapshot stands there, verified, but "
                    "may not outlive a power cut: check the disk, and restore to another place"
                ) from None
    return warnings


def _mode_of_empty(target: Path) -> int:
    """Return the mode of the empty directory `target`, or what a new one gets.

    Raises:
        OSError: it is something else, or a mount point, which no rename replaces.
    """
    try:
        with opened_quietly(target, READ_DIRECTORY) as directory:
            if os.listdir(directory):
                raise OSError(0, "one with something in it", str(target))
            mode = stat.S_IMODE(os.fstat(directory).st_mode)
            if str(target) in mount_points():
                raise OSError(0, "a mount point: name a directory in it", str(target))
    except FileNotFoundError:
        return 0o755
    return mode


def prepare_node(layout: Layout, moves: tuple[Move, ...], unfinished: Pending | None) -> None:
    """Make the directory of the pending file, and remove what killed restores staged.

    Args:
        layout: the node.
        moves: of the restore that is to begin.
        unfinished: the pending restore that it replaces; what that staged stays.

    Raises:
        ShardtoolError: either could not be done.
    """
    above = next(path for path in layout.own.parents if path.is_dir())
    with told(layout.own, "to write there", AS_WHOM):
        make_directories(layout.own, like=above)
    for move in moves:
        with told(move.place.parent, "to write there", AS_WHOM):
            remove_leftovers(move, unfinished.stamp if unfinished else "")
