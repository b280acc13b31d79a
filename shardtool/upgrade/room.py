"""Is there room for both copies side by side, and for so many open files (HAZARDS.md, 17)?"""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from shardtool.datadir.config import setting
from shardtool.datadir.inventory import Inventory, OldShard, file_system_at
from shardtool.datadir.layout import Layout

# FORMATS.md: 0.8's engine up to 0.8.7, and what rocksdb preallocates beyond the end of each
# shard's log after an unclean exit.
_DEFAULT_ENGINE = "rocksdb"
_ROCKSDB_BYTES = 70 << 20
# What the server opens besides: its own log, raft, WAL, and connections.
_OTHER_FILES = 200
# LevelDB and RocksDB keep no more of one shard open ([storage.engines.*] max-open-files).
_MOST_OPEN = 1000


@dataclass(frozen=True)
class Room:
    """What the new copies need and what there is.

    Args:
        path: what lies on the file system that the new shards are written to.
        free_bytes: that are free there for everybody.
        copy_bytes: of the old shards that are to be copied: the new ones need about as much.
        preallocated_bytes: what the engine may take besides, with nothing in it.
        engine: the engine that the new shards get.
        files: that the server will have open when it is done.
        most_files: that it may have open; None where nobody limits it.
        limit_of: whose limit that is, in words.
    """

    path: Path
    free_bytes: int
    copy_bytes: int
    preallocated_bytes: int
    engine: str
    files: int
    most_files: int | None
    limit_of: str

    @property
    def needed_bytes(self) -> int:
        """What has to be free before the migration goes on."""
        return self.copy_bytes + self.preallocated_bytes


def room_for(
    layout: Layout,
    inventory: Inventory,
    todo: Iterable[OldShard],
    *,
    databases: int,
    server_pid: int | None,
) -> Room:
    """Measure the room that a migration of `todo` needs and has.

    Args:
        layout: the node.
        inventory: of it.
        todo: the old shards that are to be migrated.
        databases: how many there are: each has new shards of its own for each time range.
        server_pid: the running server's number; None where none is seen.

    Raises:
        OSError: the file system can't be looked at.
    """
    shards = list(todo)
    configured = setting(layout.config, "storage", "default-engine")
    # A config of 0.7 has no such setting: what 0.8's own default is then tells.
    engine = configured if isinstance(configured, str) else _DEFAULT_ENGINE
    new = inventory.new or ()
    path = layout.new_shards if inventory.new is not None else layout.anchor
    most, limit_of = _limit(server_pid)
    copies = len(shards) * max(databases, 1)
    return Room(
        path=path,
        free_bytes=file_system_at(path).free_bytes,
        copy_bytes=sum(shard.tree.apparent_bytes for shard in shards),
        preallocated_bytes=copies * _ROCKSDB_BYTES if engine == "rocksdb" else 0,
        engine=engine,
        files=_OTHER_FILES
        + sum(min(shard.tree.files, _MOST_OPEN) for shard in shards)
        + sum(min(shard.tree.files, _MOST_OPEN) for shard in new),
        most_files=most,
        limit_of=limit_of,
    )


def _limit(pid: int | None) -> tuple[int | None, str]:
    """Return how many files the server may have open, and whose limit that is."""
    if pid is not None:
        with contextlib.suppress(OSError, ValueError, IndexError):
            # proc(5): 'Max open files   1024   4096   files', the soft limit first.
            for line in Path(f"/proc/{pid}/limits").read_text().splitlines():
                if line.startswith("Max open files"):
                    soft = line.split()[3]
                    return (None if soft == "unlimited" else int(soft)), f"the server (pid {pid})"
    soft_here = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    words = f"a server that is started here (ulimit -n of uid {os.geteuid()})"
    return (None if soft_here == resource.RLIM_INFINITY else soft_here), words
