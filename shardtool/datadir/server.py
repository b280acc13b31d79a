"""Is a server running on a node's directories: by open files, by locks, by its name."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from shardtool.datadir.holders import find_holders
from shardtool.datadir.layout import Layout
from shardtool.disk.durable import READ_DIRECTORY_ITSELF, opened
from shardtool.disk.locks import Lock, look_at_lock


@dataclass(frozen=True)
class Server:
    """A process that is at work on the node.

    Args:
        pid: its number; None where the kernel does not tell.
        process: its name; empty where it is not known.
        evidence: what shows it, in words that follow the process: 'has /x/wal/log.1 open'.
    """

    pid: int | None
    process: str
    evidence: str

    def __str__(self) -> str:
        who = f"pid {self.pid}" if self.pid else "a process of unknown pid"
        return f"{who}{f' ({self.process})' if self.process else ''}, which {self.evidence}"


def find_server(layout: Layout) -> Server | None:
    """Say who is at work on `layout`'s directories, or None where nobody is seen.

    Any process but this one that has a file of the node open counts, and any that holds the
    lock of a shard. One that is InfluxDB by name, and whose files we may not see, may be this
    node's: it counts too. Nothing is locked or changed.
    """
    holders = find_holders(layout.places)
    if holders.files:
        first = holders.files[0]
        return Server(first.pid, first.process, f"has {first.path} open")
    for shards in (layout.old_shards, layout.new_shards):
        locked = _locked_shard(shards)
        if locked is not None:
            return locked
    for pid, name in holders.unseen_servers:
        return Server(pid, name, "may be this directory's: its open files can't be seen from here")
    return None


def _locked_shard(shards: Path) -> Server | None:
    names: list[str] = []
    # Unreadable is not "free", but a server that runs here is seen by its raft and wal too.
    with contextlib.suppress(OSError):
        names = sorted(os.listdir(shards))
    for name in names:
        with (
            contextlib.suppress(OSError),
            opened(shards / name, READ_DIRECTORY_ITSELF) as directory,
        ):
            lock = look_at_lock("LOCK", dir_fd=directory)
            if lock.state is Lock.HELD:
                return Server(lock.pid, _name_of(lock.pid), f"holds the lock of {shards / name}")
    return None


def _name_of(pid: int | None) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(errors="replace").strip() if pid else ""
    except OSError:
        return ""
