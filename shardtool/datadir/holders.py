"""Who has a node's files open: other processes, found without a lock and without a change."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

# The server's process names (FORMATS.md, "Where things are").
SERVER_NAMES = ("influxdb", "influxdb-daemon")
# What a server's files are called (FORMATS.md): a shard's, and those of raft and wal.
_NAMES = re.compile(
    r"\d+\.(ldb|sst|log|dbtmp)|CURRENT|LOCK|LOG|LOG\.old|MANIFEST-\d+|MIGRATED|type"
    r"|data\.mdb|lock\.mdb|(log|index)(\.\d+)?|bookmark|conf|name|[0-9a-f]+_[0-9a-f]+\.ss"
)


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

    Descriptors and memory maps both: the tables of an open LevelDB are mapped without a
    descriptor (FORMATS.md, "Who has what open"). They are read from /proc itself: psutil's
    open_files leaves out what has no such path here (a process in a container), and its
    memory_maps reads smaps, for which the kernel walks every page of a large server.

    Raises nothing: what it may not see is counted in `unseen`.
    """
    # psutil costs a tenth of a whole `status`; who does not look for holders does not pay.
    import psutil

    places = sorted({os.path.realpath(directory) for directory in directories})
    files: set[OpenFile] = set()
    unseen = 0
    servers: list[tuple[int, str]] = []
    for process in psutil.process_iter(["name", "ppid"]):
        # Our own children are us: while they scan they have this and that open for a moment.
        if os.getpid() in (process.pid, process.info["ppid"]):
            continue
        name = process.info["name"] or "?"
        try:
            # One after the other: a stranger may have a million files, and only ours are kept.
            seen = itertools.chain(_open_files(process.pid), _mapped_files(process.pid))
            ours = {path for proc, shown in seen if (path := _path_here(proc, shown, places))}
        except (FileNotFoundError, ProcessLookupError):
            continue
        except OSError:
            if _has_no_files(process.pid):
                continue
            unseen += 1
            if name in SERVER_NAMES:
                servers.append((process.pid, name))
            continue
        files |= {OpenFile(process.pid, name, path) for path in ours}
    ordered = tuple(sorted(files, key=lambda file: (file.path, file.pid)))
    return Holders(ordered, unseen, tuple(servers))


def raft_logs_of(pid: int) -> list[tuple[str, str]]:
    """Return the raft logs that a process has open, each as its name in /proc and its path: a
    running server has its own, always.

    Raises:
        OSError: it is gone, or can't be looked into.
    """
    return sorted(found for found in _open_files(pid) if found[1].endswith("/raft/log"))


def _open_files(pid: int) -> Iterator[tuple[str, str]]:
    """Yield each open descriptor as its name in /proc and the path that the process knows."""
    with os.scandir(f"/proc/{pid}/fd") as descriptors:
        for descriptor in descriptors:
            try:
                shown = os.readlink(descriptor)
            except FileNotFoundError:
                continue
            if shown.startswith("/"):
                yield descriptor.path, shown


def _mapped_files(pid: int) -> Iterator[tuple[str, str]]:
    """Yield each mapped file as its name in /proc and the path that the process knows."""
    with open(
        f"/proc/{pid}/maps", encoding="utf-8", errors="surrogateescape", newline="\n"
    ) as lines:
        before = ""
        for line in lines:
            where, _, _, file = line.split(maxsplit=3)
            if file == before and not _NAMES.fullmatch(file.rstrip("\n").rpartition("/")[2]):
                continue  # the next piece of the same: a library has five
            before = file
            at = file.find("/")
            if at > 0:
                shown, proc = file[at:].rstrip("\n"), f"/proc/{pid}/map_files/{where}"
                # proc(5): a newline stands as \012, and a backslash as itself: it may be either.
                yield proc, shown
                if "\\012" in shown:
                    yield proc, shown.replace("\\012", "\n")


def _path_here(proc: str, shown: str, places: list[str]) -> str:
    """Return where below `places` an open file lies, or nothing where it lies elsewhere.

    A process in a container, or behind a bind mount, knows it by another path, which ends the
    same: the file is the one here if it is the same inode.

    Args:
        proc: the file's name in /proc, which leads to the file itself.
        shown: its path as the process knows it.
        places: directories, links resolved.
    """
    if shown.startswith(tuple(f"{place}/" for place in places)):
        return shown
    parts = shown.rsplit("/", 2)
    if not _NAMES.fullmatch(parts[-1]):
        return ""
    for place in places:
        for tail in ("/".join(parts[-2:]), parts[-1]):
            try:
                here = os.stat(f"{place}/{tail}", follow_symlinks=False)
                there = os.stat(proc)
            except OSError:
                continue
            if (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino):
                return f"{place}/{tail}"
    return ""


def _has_no_files(pid: int) -> bool:
    """Say whether a process is a thread of the kernel's or a zombie: neither has a command line."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return not file.read(1)
    except OSError:
        return False
