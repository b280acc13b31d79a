"""A process without rights that swaps names under shardtool, and what must not be touched by it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.conftest import Entry

NOBODY = 65534
SECRET = b"nobody but root may read this\n"
PRUNE = ("prune", "--trust", "marker", "--yes", "-q")


@dataclass
class Race:
    """What the racing processes have done: how often two names changed places."""

    swaps: int = 0


@dataclass
class Outside:
    """A directory of root's beside the node: what is in it, and that it stays as it is."""

    path: Path
    listing: Callable[[Path], dict[str, Entry]]
    before: dict[str, Entry] = field(default_factory=dict)

    def is_untouched(self) -> bool:
        """Say whether it is the same, to the byte, the mode, the time, the owner and the inode."""
        return self._now() == self.before

    def _now(self) -> dict[str, Entry]:
        found = self.listing(self.path)
        for name in list(found):
            entry = os.lstat(self.path / name)
            owners = f"{name}: {entry.st_uid}:{entry.st_gid}, {entry.st_nlink} names"
            found[owners] = (0, 0, 0, 0, "")
        return found

    def remember(self) -> None:
        """Take what is there now for what has to stay."""
        self.before = self._now()


@contextmanager
def racing(racer: Path, *words: str | Path) -> Iterator[Race]:
    """Have a process of nobody's swap names while the block runs."""
    race = Race()
    with subprocess.Popen(
        [str(racer), *map(str, words)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
    ) as process:
        try:
            yield race
        finally:
            said, _ = process.communicate()
            race.swaps = int(said)


def give_away(path: Path) -> None:
    """Give a tree to nobody, as a server's user has its data directory."""
    for place in (path, *path.rglob("*")):
        os.chown(place, NOBODY, NOBODY, follow_symlinks=False)


def renewed(original: Path, data: Path) -> Path:
    """Copy the node for the next round, and give it to nobody."""
    shutil.rmtree(data, ignore_errors=True)
    shutil.copytree(original, data, symlinks=True)
    give_away(data)
    return data


def link_of_nobody(path: Path, target: Path) -> Path:
    """Make a link that the racer may swap; return it."""
    path.symlink_to(target)
    os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    return path


def whole(shard: Path, original: Path) -> bool:
    """Say whether a shard holds what it held, but for what was swapped for a link."""
    return all(
        (shard / file.name).is_symlink() or (shard / file.name).read_bytes() == file.read_bytes()
        for file in original.iterdir()
    )
