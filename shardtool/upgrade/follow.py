"""The facts of one look at a running migration: markers, locks, bytes, and the server's log."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from shardtool.datadir.config import setting
from shardtool.datadir.inventory import Inventory
from shardtool.datadir.layout import Layout
from shardtool.datadir.marker import MARKER
from shardtool.disk.durable import READ_DIRECTORY, READ_DIRECTORY_ITSELF, opened_quietly
from shardtool.disk.locks import Lock, look_at_lock
from shardtool.disk.tree import Tree, measure
from shardtool.influxdb.serverlog import LogReader, MigrationLog
from shardtool.upgrade.migration import Look, migrators_order

_USUAL_LOGS = ("influxdb.log", "log.txt")
"""What the log is called where nobody gave it another name; the packages' own is log.txt."""


def find_log(layout: Layout) -> Path | None:
    """Return InfluxDB's log: [logging] file of config.toml, else one beside the data directory.

    A relative path is completed by the server's own working directory, which nobody tells, and
    a data directory that was moved or copied takes its log along: both are looked for where the
    data directory and config.toml are. None where no regular file is found.
    """
    named = setting(layout.config, "logging", "file")
    usable = isinstance(named, str) and named and "\0" not in named
    places = [layout.db.parent, layout.db.parent.parent]
    if layout.config is not None:
        places.append(layout.config.parent)
    candidates: list[Path] = []
    if usable:
        wanted = Path(str(named))
        candidates = [wanted] if wanted.is_absolute() else [place / wanted for place in places]
        candidates += [place / wanted.name for place in places]
    candidates += [place / name for place in places for name in _USUAL_LOGS]
    return next((path for path in candidates if _is_file(path)), None)


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False


@dataclass(frozen=True)
class _Seen:
    """What a look at one directory of shard_db has found."""

    name: str
    is_marked: bool
    is_locked: bool


class Watcher:
    """Looks at a node again and again while 0.8 migrates it. Changes nothing, takes no lock."""

    def __init__(
        self, layout: Layout, log: MigrationLog, is_up: Callable[[], bool] | None = None
    ) -> None:
        """Prepare to look.

        Args:
            layout: the node.
            log: of its server.
            is_up: says whether the server answers; None: nobody asks.
        """
        self._layout = layout
        self.log = log
        self._is_up = is_up
        # An old shard is measured once: only its LOG grows while it is migrated.
        self._sizes: dict[str, int] = {}

    def look(self) -> Look:
        """Look at everything once.

        Raises:
            OSError: shard_db can't be listed.
        """
        # The order counts: what the log or a lower shard says of where the migrator is must be
        # older than what the higher ones show, or one just marked would pass for left behind.
        self.log.poll()
        marked: dict[str, int] = {}
        unmarked: dict[str, int] = {}
        locked = None
        for seen in self._old_shards():
            (marked if seen.is_marked else unmarked)[seen.name] = self._sizes[seen.name]
            if seen.is_locked:
                locked = seen.name
        new = list(self._new_shards())
        up = self._is_up() if self._is_up is not None else None
        return look_of(marked, unmarked, new, locked, self.log, up)

    def _old_shards(self) -> Iterable[_Seen]:
        """Look at the directories of shard_db, the lowest name first."""
        with opened_quietly(self._layout.old_shards, READ_DIRECTORY) as shards:
            for name in sorted(os.listdir(shards), key=migrators_order):
                seen = self._old_shard(name, shards)
                if seen is not None:
                    yield seen

    def _old_shard(self, name: str, shards: int) -> _Seen | None:
        try:
            with opened_quietly(name, READ_DIRECTORY_ITSELF, dir_fd=shards) as shard:
                if name not in self._sizes:
                    self._sizes[name] = measure(shard).apparent_bytes
                # First the lock: one that is free before a look at the marker stays so.
                lock = look_at_lock("LOCK", dir_fd=shard)
                return _Seen(name, _is_marked(shard), lock.state is Lock.HELD)
        except OSError:
            # A link or a file, which the migrator skips too; or gone. What may not be looked
            # into is no less a directory that has to be migrated.
            if not _is_directory(name, shards):
                return None
            self._sizes.setdefault(name, 0)
            return _Seen(name, is_marked=False, is_locked=False)

    def _new_shards(self) -> Iterator[Tree]:
        with (
            contextlib.suppress(OSError),
            opened_quietly(self._layout.new_shards, READ_DIRECTORY) as shards,
        ):
            for name in os.listdir(shards):
                with (
                    contextlib.suppress(OSError),
                    opened_quietly(name, READ_DIRECTORY_ITSELF, dir_fd=shards) as shard,
                ):
                    yield measure(shard)


def _is_marked(shard: int) -> bool:
    # As the migrator looks (os.Stat): whatever has the name counts, a link that leads to it too.
    try:
        os.stat(MARKER, dir_fd=shard)
    except OSError:
        return False
    return True


def _is_directory(name: str, directory: int) -> bool:
    try:
        entry = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except OSError:
        return False
    return stat.S_ISDIR(entry.st_mode)


def look_of(
    marked: dict[str, int],
    unmarked: dict[str, int],
    new: Sequence[Tree],
    locked: str | None,
    log: MigrationLog,
    up: bool | None,
) -> Look:
    """Return what is there now as a look; see Look.

    Args:
        marked: bytes of marked old shards, by name.
        unmarked: of the others.
        new: what is in the new shards.
        locked: the old shard that another process has open.
        log: what the server has said so far.
        up: it answers.
    """
    newest = max((tree.last_write_ns for tree in new), default=0)
    return Look(
        at=time.monotonic(),
        marked=marked,
        unmarked=unmarked,
        new_bytes=sum(tree.allocated_bytes for tree in new),
        new_state=(sum(tree.apparent_bytes for tree in new), newest),
        locked=locked,
        log_lines=log.lines,
        logged=log.shard,
        refused=frozenset(log.refused),
        troubles=tuple(log.troubles),
        restarts=log.restarts,
        up=up,
    )


def look_in(inventory: Inventory, log: MigrationLog) -> Look:
    """Given a whole inventory, as `status` takes it, return the look that is in it."""
    old = [shard for shard in inventory.old or () if shard.kind == "directory"]
    sizes = {shard.name: shard.tree.apparent_bytes for shard in old}
    marked = {shard.name for shard in old if shard.marker.present}
    return look_of(
        {name: size for name, size in sizes.items() if name in marked},
        {name: size for name, size in sizes.items() if name not in marked},
        [shard.tree for shard in inventory.new or ()],
        next((shard.name for shard in old if shard.lock.state is Lock.HELD), None),
        log,
        None,
    )


def open_log(path: Path | None, *, of_last_migration: bool) -> MigrationLog:
    """Open a log for following; see LogReader.

    Raises:
        ShardtoolError: it is there and can't be read.
    """
    if path is None:
        return MigrationLog(None)
    return MigrationLog(LogReader(path, of_last_migration=of_last_migration))
