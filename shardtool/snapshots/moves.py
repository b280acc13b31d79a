"""What a restore moves where: raft, wal and config.toml, under which names beside their places."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from shardtool.datadir.layout import Layout
from shardtool.disk.durable import READ_DIRECTORY, opened_quietly
from shardtool.disk.mounts import mount_points, mounts_at_or_below
from shardtool.disk.remove import remove_tree
from shardtool.errors import ShardtoolError
from shardtool.snapshots.metadata import Metadata, new_id
from shardtool.snapshots.store import sources_of

STAGED = ".restoring-"
ASIDE = ".before-restore-"
_STAMP = r"\d{8}T\d{6}Z(-\d+)?"
_LIFTED = r"(\.below\.\d+)*"
# What may come behind a name of ours: a number where it is taken, .below.N when it is removed.
_ROOM_FOR_SUFFIX = 16


@dataclass(frozen=True)
class Move:
    """One of raft, wal and config.toml on its way to its place.

    Args:
        name: what it is called in the snapshot.
        place: where it goes, links resolved.
        staged: the complete new one, beside its place.
        aside: the name that what is at its place now gets.
    """

    name: str
    place: Path
    staged: Path
    aside: Path


def new_stamp(layout: Layout) -> str:
    """Return the time now as it goes into names, with a number where such names are taken.

    Raises:
        ShardtoolError: raft, wal and db lie in one another.
    """
    return new_id(
        time.time(),
        lambda stamp: any(
            os.path.lexists(path)
            for move in moves_for(layout, stamp)
            for path in (move.staged, move.aside)
        ),
    )


def moves_for(layout: Layout, stamp: str) -> tuple[Move, ...]:
    """Return how raft and wal of `layout` are replaced under names with the UTC time `stamp`.

    Raises:
        ShardtoolError: raft, wal and db lie in one another.
    """
    return _moves(sources_of(layout), stamp)


def moves_into(target: Path, metadata: Metadata) -> tuple[Move, ...]:
    """Return how all that a snapshot holds goes below the new directory `target`."""
    tops = (entry.path for entry in metadata.entries if "/" not in entry.path)
    return tuple(Move(name, target / name, target / name, target / name) for name in tops)


def _moves(places: Mapping[str, Path], stamp: str) -> tuple[Move, ...]:
    return tuple(
        Move(
            name,
            place,
            place.with_name(f"{place.name}{STAGED}{stamp}"),
            place.with_name(f"{place.name}{ASIDE}{stamp}"),
        )
        for name, place in places.items()
    )


def refuse_immovable(moves: tuple[Move, ...]) -> None:
    """Refuse up front what no rename can replace.

    Raises:
        ShardtoolError: a place, or something below it, is a mount point, its parent is not
            there, or its name is too long to get anything appended.
    """
    mounts = mount_points()
    for move in moves:
        for mount in mounts_at_or_below(move.place, mounts):
            raise ShardtoolError(
                f"{move.place}: expected a directory that a rename can set aside, found "
                f"{mount} mounted; restore elsewhere with --to DIR and copy it over"
            )
        if not move.place.parent.is_dir():
            raise ShardtoolError(
                f"{move.place}: expected its parent directory to be there, found none; "
                "create or mount it"
            )
        longest = max(len(os.fsencode(path.name)) for path in (move.staged, move.aside))
        most = os.pathconf(move.place.parent, "PC_NAME_MAX")
        if longest + _ROOM_FOR_SUFFIX > most:
            raise ShardtoolError(
                f"{move.place}: expected a name that {ASIDE}TIME fits behind, found it too long "
                f"(names here have {most} bytes at the most); restore elsewhere with --to DIR"
            )


def remove_leftovers(move: Move, keep: str) -> None:
    """Remove what killed restores staged for one place, and nobody else's: another node's raft
    may lie beside this one.

    Args:
        move: whose place it is.
        keep: the stamp of a pending restore, whose staged set stays; or empty.

    Raises:
        OSError: the directory can't be read.
    """
    leftover = re.compile(f"{re.escape(move.place.name)}{STAGED}({_STAMP}){_LIFTED}", re.ASCII)
    with opened_quietly(move.place.parent, READ_DIRECTORY) as directory:
        for name in sorted(os.listdir(directory)):
            match = leftover.fullmatch(name)
            if match and match[1] != keep:
                remove_tree(directory, name)
