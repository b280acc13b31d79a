"""Where file systems meet: mount points that st_dev alone does not show (bind mounts)."""

from __future__ import annotations

import re
from pathlib import Path

_OCTAL = re.compile(r"\\([0-7]{3})")


def mount_points() -> frozenset[str]:
    """Return every path at which something is mounted in this process's view.

    Bind mounts of files and directories are among them, which os.path.ismount misses.

    Raises:
        OSError: /proc/self/mountinfo can't be read.
    """
    found = set()
    # A path may hold a carriage return: only a newline ends a line here.
    with open(
        "/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape", newline="\n"
    ) as lines:
        for line in lines:
            # proc(5): space, tab, newline and backslash stand as octal escapes.
            found.add(_OCTAL.sub(lambda match: chr(int(match[1], 8)), line.split(" ")[4]))
    return frozenset(found)


def mounts_at_or_below(path: Path, mounts: frozenset[str]) -> tuple[str, ...]:
    """Given a path without links and all mount points, return those at it or below it."""
    exact = str(path)
    return tuple(sorted(m for m in mounts if m == exact or m.startswith(exact + "/")))


def mount_id(descriptor: int) -> int:
    """Return the id of the mount that `descriptor` was opened through.

    Two directories on one file system but on either side of a bind mount have different ids:
    only this tells that a walk has left the tree.

    Raises:
        OSError: /proc is not mounted or does not tell.
    """
    with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as lines:
        for line in lines:
            if line.startswith("mnt_id:"):
                return int(line.split()[1])
    raise OSError(0, "no mnt_id in fdinfo", f"/proc/self/fdinfo/{descriptor}")
