"""Who has a node's files open: other processes, found without a lock and without a change."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

# The server's process names (FORMATS.md, "Where things are").
SERVER_NAMES = ("influxdb", "influxdb-daemon")
_KERNEL = 2  # kthreadd, the parent of the kernel's threads


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
        # The kernel's own threads (children of 2) have no files.
        if process.pid in (os.getpid(), _KERNEL) or process.info["ppid"] == _KERNEL:
            continue
        name = process.info["name"] or "?"
        try:
            paths = {file.path for file in process.open_files()} | _mapped_files(process.pid)
        except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
            continue
        except (psutil.AccessDenied, OSError):
            unseen += 1
            if name in SERVER_NAMES:
                servers.append((process.pid, name))
            continue
        files |= {OpenFile(process.pid, name, p) for p in paths if p.startswith(prefixes)}
    ordered = tuple(sorted(files, key=lambda file: (file.path, file.pid)))
    return Holders(ordered, unseen, tuple(servers))


def _mapped_files(pid: int) -> set[str]:
    with open(f"/proc/{pid}/maps", encoding="utf-8", errors="surrogateescape") as lines:
        fields = (line.rstrip("\n").split(None, 5) for line in lines)
        return {field[5] for field in fields if len(field) == 6 and field[5].startswith("/")}
