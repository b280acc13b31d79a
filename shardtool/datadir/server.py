"""Is a server running on a node's directories: by open files, by locks, by its name."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from shardtool.datadir.holders import find_holders, raft_logs_of
from shardtool.datadir.layout import Layout
from shardtool.disk.durable import READ_DIRECTORY, READ_DIRECTORY_ITSELF, opened, opened_quietly
from shardtool.disk.locks import Lock, look_at_lock

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


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


@dataclass(frozen=True)
class Search:
    """What a look for a server has found.

    Args:
        server: who is at work on the node, or None where nobody was seen.
        unseen: how many processes could not be looked into: with any, 'nobody' is unknown.
    """

    server: Server | None = None
    unseen: int = 0

    @property
    def doubt(self) -> str:
        """The warning that 'nobody' may be wrong, or nothing."""
        if self.server is not None or not self.unseen:
            return ""
        processes = "1 process" if self.unseen == 1 else f"{self.unseen} processes"
        advice = "; run this as root to be sure" if os.geteuid() else ""
        return (
            f"whether a server runs here is unknown: {processes} could not be looked into{advice}"
        )


def find_server(layout: Layout) -> Search:
    """Say who is at work on `layout`'s directories, and how sure that is.

    Any process but this one that has a file of the node open counts, and any that holds the
    lock of a shard. One that is InfluxDB by name, and whose files we may not see, may be this
    node's: it counts too. Who has shardtool's own files open is another shardtool, and none.
    Nothing is locked or changed.
    """
    holders = find_holders(layout.places)
    own = os.path.realpath(layout.own)
    # A server may have a shard open that has come to the trash.
    others = [
        file
        for file in holders.files
        if not f"{file.path}/".startswith(f"{own}/") or file.path.startswith(f"{own}/trash/")
    ]
    if others:
        first = others[0]
        return Search(Server(first.pid, first.process, f"has {first.path} open"), holders.unseen)
    for shards in (layout.old_shards, layout.new_shards):
        locked = _locked_shard(shards)
        if locked is not None:
            return Search(locked, holders.unseen)
    for pid, name in holders.unseen_servers:
        evidence = "may be this directory's: its open files can't be seen from here"
        return Search(Server(pid, name, evidence), holders.unseen)
    return Search(None, holders.unseen)


def answers_at(url: str, pids: Collection[int]) -> bool | None:
    """Say whether one of these processes is the one that answers at a URL of this machine.

    Returns:
        None where that can't be seen: no process, another machine, no rights.
    """
    listeners = _listeners(url) if pids else {}
    port = urlsplit(url).port
    ports = {number for number, pid in listeners if pid in pids}
    return port in ports if ports else None


def raft_log_elsewhere(url: str, layout: Layout) -> str:
    """Return the raft log of the server that answers at a URL of this machine, where that is
    another than the node's: a directory may be a copy of the one that the server runs on.

    Returns:
        Its path; empty where it is the node's, or can't be seen.
    """
    port = urlsplit(url).port
    for number, pid in sorted(_listeners(url)):
        if number == port:
            with contextlib.suppress(OSError):
                own, logs = os.stat(layout.raft / "log"), raft_logs_of(pid)
                if logs and not any(os.path.samestat(own, os.stat(log)) for log, _ in logs):
                    return logs[0][1]
    return ""


def _listeners(url: str) -> set[tuple[int, int]]:
    """Return ports of this machine with the processes that have them; none where the URL is
    another machine's, or there are no rights to see them."""
    import psutil

    parts = urlsplit(url)
    if parts.port is None or parts.hostname not in _names_of_this_machine():
        return set()
    try:
        return {(c.laddr.port, c.pid) for c in psutil.net_connections("tcp") if c.pid and c.laddr}
    except (psutil.Error, OSError):
        return set()


def _names_of_this_machine() -> set[str]:
    import psutil

    names = {*_LOOPBACK, socket.gethostname(), socket.getfqdn()}
    with contextlib.suppress(OSError):
        names |= {one.address for several in psutil.net_if_addrs().values() for one in several}
    return names


def _locked_shard(shards: Path) -> Server | None:
    names: list[str] = []
    # Unreadable is not "free", but a server that runs here is seen by its raft and wal too.
    with contextlib.suppress(OSError), opened_quietly(shards, READ_DIRECTORY) as directory:
        names = sorted(os.listdir(directory))
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
