"""Who has a node's files open: other processes, found without a lock and without a change."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

# The server's process names (FORMATS.md, "Where things are").
SERVER_NAMES = ("influxdb", "influxdb-daemon")


@dataclass(frozen=True)
class OpenFile:
    """A file that another process has open or mapped."""

    pid: int
    process: str
    path: str


@dataclass(frozen=True)
class Holders:
    """What other processes have open below some directories.

    Args:
        files: the open and mapped files found.
        unseen: how many processes we may not look into: with any, 'nothing found' is unknown.
        unseen_servers: those of them that are InfluxDB's by name, as (pid, name).
    """

    files: tuple[OpenFile, ...] = ()
    unseen: int = 0
    unseen_servers: tuple[tuple[int, str], ...] = ()

    def by_entry(self, directory: Path) -> dict[str, tuple[OpenFile, ...]]:
        """Return the open files below `directory` by the entry of it that they lie in.

        Example: for shard_db, {'00007': (OpenFile(4711, 'tar', '/.../00007/000005.ldb'),)}.
        """
        prefix = os.path.realpath(directory) + "/"
        found: dict[str, tuple[OpenFile, ...]] = {}
        for file in self.files:
            if file.path.startswith(prefix):
                entry = file.path[len(prefix) :].partition("/")[0]
                found[entry] = (*found.get(entry, ()), file)
        return found


def find_holders(directories: Iterable[Path]) -> Holders:
    """Look through all processes but this one for files open below `directories`.

    Descriptors come from psutil. Memory maps are read from /proc/PID/maps: the tables of an
    open LevelDB are mapped without a descriptor (FORMATS.md, "Who has what open"), and
    psutil's memory_maps reads smaps, for which the kernel walks every page of a large server.

    Raises nothing: what it may not see is counted in `unseen`.
    """
    # psutil costs a tenth of a whole `status`; who does not look for holders does not pay.
    import psutil

    prefixes = tuple({os.path.realpath(directory) + "/" for directory in directories})
    files: set[OpenFile] = set()
    unseen = 0
    servers: list[tuple[int, str]] = []
    for process in psutil.process_iter(["name", "ppid"]):
        # Our own children are us: while they scan they have this and that open for a moment.
        if os.getpid() in (process.pid, process.info["ppid"]):
            continue
        name = process.info["name"] or "?"
        try:
            paths = {file.path for file in process.open_files()} | _mapped_files(process.pid)
        except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
            continue
        except (psutil.AccessDenied, OSError):
            if _has_no_files(process.pid):
                continue
            unseen += 1
            if name in SERVER_NAMES:
                servers.append((process.pid, name))
            continue
        files |= {OpenFile(process.pid, name, p) for p in paths if p.startswith(prefixes)}
    ordered = tuple(sorted(files, key=lambda file: (file.path, file.pid)))
    return Holders(ordered, unseen, tuple(servers))


def _has_no_files(pid: int) -> bool:
    """Say whether a process is a thread of the kernel's or a zombie: neither has a command line."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return not file.read(1)
    except OSError:
        return False


def _mapped_files(pid: int) -> set[str]:
    found = set()
    with open(
        f"/proc/{pid}/maps", encoding="utf-8", errors="surrogateescape", newline="\n"
    ) as lines:
        for line in lines:
            at = line.find("/")
            if at > 0:
                path = line[at:].rstrip("\n")
                # proc(5): a newline stands as \012, and a backslash as itself: it may be either.
                found |= {path, path.replace("\\012", "\n")}
    return found
