"""A name changes places with a link just before each call that has to do with it.

What a race does thousands of times by chance (test_races), here with no chance: the swap comes
between any two looks that shardtool takes at a name, and stays; at every fifth it is tried too
whether something goes wrong if it is undone by the next look.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.conftest import Run
from tests.faults.every_kill import about, contents, records
from tests.faults.every_kill_snapshots import complete, leftovers, payload
from tests.faults.every_kill_worlds import lossy_and_whole
from tests.faults.injection import befalling, struck
from tests.faults.races_world import (
    PRUNE,
    SECRET,
    Outside,
    give_away,
    link_of_nobody,
    renewed,
    whole,
)
from tests.needs import needs_root

pytestmark = [needs_root, pytest.mark.slow, pytest.mark.timeout(600)]

MOST = 400  # calls of a command that have to do with one name
# Every call that finds something by a path, or looks at or into what a descriptor names.
LOOKS = (
    "openat,newfstatat,readlinkat,readlink,faccessat,access,stat,lstat,getdents64,statfs,fstatfs,"
    "mkdirat,mkdir,renameat,renameat2,rename,linkat,link,symlinkat,symlink,unlinkat,unlink,rmdir,"
    "fchmod,fchmodat,chmod,fchown,fchownat,chown,lchown,utimensat,flock,listxattr,llistxattr,"
    "flistxattr,getxattr,lgetxattr,fgetxattr,lsetxattr,fsetxattr"
)


@pytest.fixture
def public_path(memory_path: Path) -> Path:
    """Have all of it in memory."""
    return memory_path


@dataclass
class Swapping:
    """Runs of a command, each with its swap one call later, until one ends before it.

    Args:
        fresh: makes what it works on; called before each run.
        words: of the command line.
        name: what changes places with `link`.
        link: made by `fresh`.
        outside: where the link leads.
        codes: with how many runs in which there was a swap each exit code was seen.
    """

    fresh: Callable[[], None]
    words: tuple[str | Path, ...]
    name: Path
    link: Path
    outside: Outside
    codes: Counter[int] = field(default_factory=Counter)

    def at_every_call(self, holds: Callable[[int], None], *, step: int = 1) -> int:
        """Run them all; return how many of them had a swap.

        Args:
            holds: is called with each exit code, and asserts what must be so.
            step: every how many calls.
        """
        number, came = 1, True
        while came:
            assert number < MOST, "it does something without end"
            came = self._once("SWAP", number, holds)
            if number % 5 == 0:
                self._once("FLASH", number, holds)
            number += step
        return self.codes.total()

    def _once(self, action: str, number: int, holds: Callable[[int], None]) -> bool:
        seen = self.outside.path.parents[3] / "seen"
        self.fresh()
        injection = befalling(LOOKS, number, action, seen, [self.name, self.link])
        came, done = struck(self.words, injection, seen)
        swapped = came and bool(seen.read_text())
        with about(f"{action} at {number}: {done.returncode} {done.stderr}"):
            assert done.returncode in (0, 1, 3)
            assert self.outside.is_untouched(), "outside was touched"
            self._undo()
            holds(done.returncode)
            assert came or done.returncode == 0, "it does not succeed undisturbed either"
        self.codes[done.returncode] += swapped
        return came

    def _undo(self) -> None:
        """Give the name back to what had it: what a swap has taken away is to be looked at."""
        if self.name.is_symlink() and not self.link.is_symlink() and self.link.exists():
            self.name.unlink()
            self.link.rename(self.name)


@pytest.mark.parametrize(
    "what", ["the shard", "a file of it", "its marker", "the trash", "shardtool's own"]
)
def test_prune_deletes_nothing_through_a_link_swapped_in_at_any_look(
    what: str, original: Path, outside: Outside, public_path: Path
) -> None:
    data = public_path / "data"
    shard, trash = data / "db/shard_db/00002", data / "db/.shardtool/trash"
    places: dict[str, tuple[Path, Path]] = {
        "the shard": (shard, outside.path),
        "a file of it": (shard / "000003.log", outside.path / "secret"),
        "its marker": (shard / "MIGRATED", outside.path / "MIGRATED"),
        "the trash": (trash, outside.path),
        "shardtool's own": (trash.parent, outside.path),
    }
    name, target = places[what]
    link = data / "db/other"
    for other in ("00001", "00003"):  # the calls for one shard are those for any
        (original / "db/shard_db" / other / "MIGRATED").unlink()

    def fresh() -> None:
        renewed(original, data)
        if trash in (name, name / "trash"):
            trash.mkdir(parents=True)
        link_of_nobody(link, target)

    def holds(code: int) -> None:
        # A shard is in its place, or beside it where it was swapped to, or goes: never half.
        there = [
            place
            for place in (shard, link, *trash.glob("00002.*"))
            if place.is_dir() and not place.is_symlink() and (place / "CURRENT").exists()
        ]
        for place in there:
            assert whole(place, original / "db/shard_db/00002")
        gone = [one["shard"] for one in records(data) if one["event"] in ("renamed", "deleted")]
        assert there or "00002" in gone, "a shard is gone, and the journal does not know it"
        assert code or not (there and shard in there), "all is well, it says, and the shard stays"

    swapping = Swapping(fresh, ("--data", data, *PRUNE), name, link, outside)
    count = swapping.at_every_call(holds)

    assert count >= {"the shard": 30, "a file of it": 2, "its marker": 5}.get(what, 20)
    assert swapping.codes[3] + swapping.codes[1], swapping.codes


@pytest.mark.parametrize(
    ("name", "target"),
    [("wal/log.1", "log.1"), ("raft/snapshot", "snapshot"), ("raft/log", "log"), ("", "")],
)
def test_backup_copies_nothing_through_a_link_swapped_in_at_any_look(
    name: str, target: str, original: Path, outside: Outside, public_path: Path
) -> None:
    data, store, link = public_path / "data", public_path / "store", public_path / "data/other"

    def fresh() -> None:
        renewed(original, data)
        (data / "raft/snapshot").mkdir(exist_ok=True)
        (data / "raft/snapshot/mine").write_bytes(b"no secret\n")
        link_of_nobody(link, outside.path / target)
        shutil.rmtree(store, ignore_errors=True)

    def holds(code: int) -> None:
        assert all(
            SECRET not in path.read_bytes()
            for path in store.rglob("*")
            if path.is_file() and not path.is_symlink()
        )
        # A name that leads elsewhere was given by another process, which is told.
        taken = [path for path in store.iterdir() if path.is_symlink()] if store.is_dir() else []
        assert not (taken and code == 0)
        for path in taken:
            path.unlink()
        assert (code == 0) == bool(complete(store))
        assert not leftovers(store)

    words = ("--data", data, "backup", "-q", "--to", store)
    place = data / name if name else store / ".partial-*"
    swapping = Swapping(fresh, words, place, link, outside)
    count = swapping.at_every_call(holds, step=1 if name else 3)

    assert count >= 5
    assert swapping.codes[1], swapping.codes


@pytest.mark.parametrize("name", ["raft.restoring-*", "wal.restoring-*", "db/.shardtool"])
def test_restore_touches_nothing_through_a_link_swapped_in_at_any_look(
    name: str, original: Path, outside: Outside, alone: Run, public_path: Path
) -> None:
    start, data, store = (public_path / name for name in ("start", "data", "store"))
    renewed(original, start)
    assert alone("--data", start, "backup", "-q", "--to", store).returncode == 0
    before = {top: contents(start / top) for top in ("raft", "wal")}
    link = data / "other"

    def fresh() -> None:
        renewed(start, data)
        (data / "raft/name").write_bytes(b"another\n")
        (data / "db/.shardtool").mkdir(exist_ok=True)
        link_of_nobody(link, outside.path)

    def holds(code: int) -> None:
        now = {top: contents(data / top) for top in before}
        # What was staged is the server's user's in the end, who may put another in its place.
        assert code or name != "db/.shardtool" or now == before

    words = ("--data", data, "restore", "--yes", "-q", "--store", store)
    swapping = Swapping(fresh, words, data / name, link, outside)
    count = swapping.at_every_call(holds)

    assert count >= 2
    assert swapping.codes[1], swapping.codes


@pytest.mark.parametrize("name", ["a snapshot", "it as it goes", "a directory of it"])
def test_forget_removes_nothing_through_a_link_swapped_in_at_any_look(
    name: str, original: Path, outside: Outside, alone: Run, public_path: Path
) -> None:
    start, data = public_path / "start", public_path / "data"
    renewed(original, start)
    for _ in range(2):
        assert alone("--data", start, "backup", "-q").returncode == 0
    old, new = sorted(path.name for path in (start / "snapshots").iterdir())
    # It goes under another name, and so does what is lifted out of it.
    going = data / "snapshots" / f".forgotten-{old}"
    places = {
        "a snapshot": (data / "snapshots" / old, outside.path),
        "it as it goes": (going, outside.path),
        "a directory of it": (going.with_name(f"{going.name}.below.*"), outside.path / "snapshot"),
    }
    place, target = places[name]
    link = data / "other"

    def fresh() -> None:
        renewed(start, data)
        link_of_nobody(link, target)

    def holds(code: int) -> None:
        assert (data / "snapshots" / new).is_dir()
        assert payload(data / "snapshots" / new) == payload(start / "snapshots" / new)

    words = ("--data", data, "forget", "--keep-last", "1", "-q")
    swapping = Swapping(fresh, words, place, link, outside)
    count = swapping.at_every_call(holds)

    assert count >= 3
    assert swapping.codes[3], swapping.codes


def test_restore_elsewhere_follows_no_link_swapped_in_at_any_look(
    original: Path, outside: Outside, alone: Run, public_path: Path
) -> None:
    data, store = public_path / "data", public_path / "store"
    renewed(original, data)
    assert alone("--data", data, "backup", "-q", "--to", store).returncode == 0
    (snapshot,) = (path.name for path in store.iterdir())
    above = public_path / "theirs"
    target = above / "target"

    def fresh() -> None:
        shutil.rmtree(above, ignore_errors=True)
        above.mkdir()
        link_of_nobody(above / "other", outside.path)
        give_away(above)

    def holds(code: int) -> None:
        if code == 0:
            assert {top: contents(target / top) for top in ("raft", "wal")} == {
                top: contents(data / top) for top in ("raft", "wal")
            }

    words = ("--data", data, "restore", "--to", target, "-q", "--store", store)
    staging = above / f"target.restoring-{snapshot}"
    swapping = Swapping(fresh, words, staging, above / "other", outside)
    count = swapping.at_every_call(holds)

    assert count >= 20
    assert swapping.codes[1], swapping.codes


@pytest.mark.parametrize("name", ["db/.shardtool", "db/.shardtool/proofs"])
@pytest.mark.parametrize("command", ["verify", "accept"])
def test_evidence_is_written_through_no_link_swapped_in_at_any_look(
    command: str, name: str, outside: Outside, public_path: Path
) -> None:
    start, data = lossy_and_whole(public_path / "lossy"), public_path / "data"
    for file in ("journal", "00001.json", "00002.json"):
        (outside.path / file).write_bytes(SECRET)
    (outside.path / "proofs").mkdir()
    outside.remember()

    def fresh() -> None:
        renewed(start, data)
        (data / name).mkdir(parents=True)
        give_away(data / "db/.shardtool")
        link_of_nobody(data / "other", outside.path)

    def holds(code: int) -> None:
        del code  # a receipt that can't be written is a warning: the proof is the result

    words: tuple[str | Path, ...] = ("--data", data, "verify", "-q", "2")
    if command == "accept":
        words = ("--data", data, "accept", "1", "--because", "a test", "--missing", "2", "-q")
    swapping = Swapping(fresh, words, data / name, data / "other", outside)
    count = swapping.at_every_call(holds)

    assert count >= 8
    # A receipt that can't be written is no failure of verify's, and accept writes the journal.
    is_refused = command == "accept" and name == "db/.shardtool"
    assert bool(swapping.codes[1]) == is_refused, swapping.codes
