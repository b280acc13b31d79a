"""The trash: where a shard waits between the rename that takes it out and its removal."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shardtool.datadir.layout import OWN, Layout
from shardtool.disk.durable import (
    READ_DIRECTORY_ITSELF,
    made_directory,
    make_directories,
    opened,
    opened_quietly,
    sync_directory,
)
from shardtool.disk.locks import Lock, look_at_lock
from shardtool.disk.mounts import mount_points
from shardtool.disk.remove import LIFTED
from shardtool.disk.tree import measure
from shardtool.errors import ShardtoolError, reason_of
from shardtool.journal import History

_ENTRY = re.compile(r"(\d{5,})\.([0-9A-Za-z-]+)(" + re.escape(LIFTED) + r"\d+)?")


@dataclass(frozen=True)
class Leftover:
    """Something that an interrupted run left in the trash.

    Args:
        name: its name there.
        shard: the shard that it was, empty where that is not known.
        action: 'remove' to finish its removal; 'put-back' for a whole shard that is not what
            the run meant to delete; 'leave' for what the journal does not know.
        files: names in it.
        reclaimable_bytes: what the file system gives back when it goes.
        recorded: the journal has it that its rename was completed.
    """

    name: str
    shard: str = ""
    action: str = "leave"
    files: int = 0
    reclaimable_bytes: int = 0
    recorded: bool = True


def trash_of(layout: Layout) -> Path:
    """Return where `layout`'s trash is: in db/.shardtool, or beside the real shard_db.

    A shard leaves by one rename, which can't leave its file system. Where shard_db is a link to
    another disk, the trash is on that disk, beside the directory that the link leads to.

    Raises:
        ShardtoolError: shard_db is a mount point itself, so that no rename leads out of it.
    """
    usual = layout.own / "trash"
    if not layout.old_shards.is_dir():
        return usual
    real = Path(os.path.realpath(layout.old_shards))
    if str(real) in mount_points():
        raise ShardtoolError(
            f"{layout.old_shards}: expected a directory that a shard can be renamed out of, found "
            "a mount point; mount it at db instead, or make shard_db a link to a directory on it"
        )
    if layout.db.stat().st_dev == real.stat().st_dev:
        return usual
    return real.parent / OWN / "trash"


def trash_name(shard: str, run: str) -> str:
    """Return a shard's name in the trash: '00027.20261124T175153Z-4711'."""
    return f"{shard}.{run}"


@contextlib.contextmanager
def open_trash(trash: Path, layout: Layout) -> Iterator[int]:
    """Make the trash where it is missing, and yield a descriptor on it.

    Raises:
        ShardtoolError: something else stands in its place, or it can't be made.
    """
    with contextlib.ExitStack() as stack:
        try:
            make_directories(trash.parent, like=layout.db)
            # Neither of the two may be a link: what is renamed into it must stay there.
            own = stack.enter_context(opened(trash.parent, READ_DIRECTORY_ITSELF))
            made = made_directory(trash.name, dir_fd=own, like=layout.db)
            descriptor = stack.enter_context(made)
            # A run that was killed may have made it and not have come to this.
            sync_directory(trash.parents[1])
        except OSError as error:
            raise ShardtoolError(
                f"{trash}: expected a directory of shardtool's own, found: {reason_of(error)}; "
                "move away what stands in its place, or make it writable"
            ) from None
        yield descriptor


def leftovers(
    trash: Path, history: History, still_proven: Callable[[Mapping[str, Any]], bool]
) -> tuple[Leftover, ...]:
    """Return what is in the trash, and what is to be done with it as the journal tells.

    What the journal knows is a name that an intent gives, with the inode that it gives, and a
    directory lifted out of such a one by its removal. Where the journal does not say that the
    rename was completed, no file was removed yet: the shard is whole, and goes only if it is
    still what the intent's fingerprint says and nobody has it open. Where files are gone all
    the same, the journal is damaged, and what is there is left to the operator: 0.8 would take
    ruins in shard_db for a shard that was never migrated (HAZARDS.md, 12).

    A whole shard whose proof does not hold any more goes back too, however far the journal says
    the run has come.

    Args:
        trash: the directory.
        history: the journal.
        still_proven: given an intent, says whether what was found then is still there.

    Raises:
        OSError: the trash is there but can't be read.
    """
    intents: dict[str, dict[str, Any]] = {}
    begun = set()
    for record in history.records:
        name = record.get("trash")
        if isinstance(name, str) and record["event"] == "intent":
            intents[name] = record
        elif isinstance(name, str) and record["event"] == "renamed":
            begun.add(name)
    try:
        with opened_quietly(trash, READ_DIRECTORY_ITSELF) as directory:
            names = sorted(os.listdir(directory))
            return tuple(_leftover(directory, name, intents, begun, still_proven) for name in names)
    except (FileNotFoundError, NotADirectoryError):
        return ()


def all_leftovers(
    layout: Layout, history: History, still_proven: Callable[[Mapping[str, Any]], bool]
) -> tuple[Leftover, ...]:
    """Return what is in a node's trash, and what should be and is gone; see leftovers.

    Raises:
        ShardtoolError: there can be no trash here; see trash_of.
        OSError: the trash is there but can't be read.
    """
    trash = trash_of(layout)
    found = leftovers(trash, history, still_proven)
    return found + gone_unrecorded(trash, history, layout.old_shards)


def gone_unrecorded(trash: Path, history: History, old_shards: Path) -> tuple[Leftover, ...]:
    """Return the shards that a run had removed when it was killed before it wrote that down.

    They are nowhere any more. To finish them is to write it: history tells of each shard that
    went, and a script may name one again.

    Args:
        trash: the directory that they were in.
        history: the journal.
        old_shards: shard_db; what an operator has moved back there is not gone.
    """
    waiting: dict[str, str] = {}
    begun: set[str] = set()
    for record in history.records:
        event, name, shard = (record.get(key) for key in ("event", "trash", "shard"))
        if not isinstance(name, str) or not isinstance(shard, str):
            continue
        name = name.partition(LIFTED)[0]
        if event == "intent" and record.get("trash_in") == str(trash):
            waiting[name] = shard
        elif event == "renamed":
            begun.add(name)
        elif event in ("deleted", "finished", "put-back"):
            waiting.pop(name, None)
    try:
        there = {name.partition(LIFTED)[0] for name in os.listdir(trash)}
    except OSError:
        return ()
    return tuple(
        Leftover(name, shard, "remove")
        for name, shard in waiting.items()
        if name in begun and name not in there and not os.path.lexists(old_shards / shard)
    )


def _number(value: object) -> int:
    """Return a number that a journal gives; of one that was tampered with, nothing."""
    return value if isinstance(value, int) else 0


def _leftover(
    directory: int,
    name: str,
    intents: dict[str, dict[str, Any]],
    begun: set[str],
    still_proven: Callable[[Mapping[str, Any]], bool],
) -> Leftover:
    match = _ENTRY.fullmatch(name)
    base = f"{match[1]}.{match[2]}" if match else ""
    intent, is_lifted = intents.get(base), match is not None and match[3] is not None
    try:
        with opened_quietly(name, READ_DIRECTORY_ITSELF, dir_fd=directory) as descriptor:
            tree = measure(descriptor, fingerprint=True)
            lock = look_at_lock("LOCK", dir_fd=descriptor)
    except OSError:
        return Leftover(name)  # no directory, or not ours to read
    action, shard = "leave", match[1] if match else ""
    if intent is None or (not is_lifted and tree.inode != intent.get("inode")):
        shard = ""
    else:
        # Of a shard that was moved here for good, a change of owner or a link to a file of it is no
        # reason to ask no more: while nothing of it is gone, it goes only if its proof holds.
        is_whole = not is_lifted and tree.fingerprint == intent.get("fingerprint")
        is_same = is_whole and tree.changes == intent.get("changes")
        has_all = not is_lifted and tree.files >= _number(intent.get("files"))
        if is_whole and not still_proven(intent):
            action = "put-back"
        elif base in begun and not is_whole and has_all and not still_proven(intent):
            action = "leave"  # whole and changed, or ruins and something else: not ours to say
        elif base in begun or (is_same and lock.state is Lock.FREE):
            action = "remove"
        elif has_all:
            action = "put-back"
    return Leftover(name, shard, action, tree.files, tree.reclaimable_bytes, recorded=base in begun)
