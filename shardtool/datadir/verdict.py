"""The verdict over an old shard: a pure function of its facts."""

from __future__ import annotations

from dataclasses import dataclass

from shardtool.datadir.inventory import Inventory, OldShard, is_shard_name
from shardtool.datadir.marker import MARKER
from shardtool.disk.locks import Lock
from shardtool.disk.tree import reclaimable_links


@dataclass(frozen=True)
class Reason:
    """A short fixed word that scripts match, and what was found, in words for people."""

    word: str
    detail: str = ""


@dataclass(frozen=True)
class Judged:
    """An old shard with its verdict.

    Args:
        shard: the facts.
        verdict: 'unmigrated', 'marked', 'suspect', 'busy' or 'unreadable'.
        reasons: why; empty for a shard that is marked and nothing else.
    """

    shard: OldShard
    verdict: str
    reasons: tuple[Reason, ...]

    @property
    def is_shard(self) -> bool:
        """It has a shard's name; what has not is listed but never counted as one."""
        return is_shard_name(self.shard.name)

    @property
    def in_use(self) -> str:
        """'yes', 'no', or 'unknown' where the rights to look were missing."""
        if self.shard.lock.state is Lock.HELD or self.shard.open_files:
            return "yes"
        known = self.shard.lock.state is Lock.FREE and self.shard.open_files_known
        return "no" if known else "unknown"

    @property
    def reclaimable_bytes(self) -> int:
        """What the file system gives back when this shard alone goes; 0 where it must stay."""
        return self.shard.tree.reclaimable_bytes if self.verdict == "marked" else 0


def judge(shard: OldShard) -> Judged:
    """Given an old shard's facts, return its verdict with all of its reasons.

    What is worse wins: unreadable, then a wrong structure, then in use, then a wrong marker.

    Example: a directory 00007 with a sound marker and nothing else to say -> ('marked', ());
    the same with a table newer than the marker -> ('suspect', (written-after-marker,)).
    """
    unreadable = _unreadable(shard)
    structure = _structure(shard)
    busy = _busy(shard)
    marker = _marker(shard)
    reasons = unreadable + structure + busy + marker
    if shard.lock.state is Lock.UNKNOWN:
        reasons += (Reason("lock-unknown", "its LOCK can't be looked at"),)
    if unreadable:
        verdict = "unreadable"
    elif structure:
        verdict = "suspect"
    elif busy:
        verdict = "busy"
    elif not shard.marker.present:
        verdict = "unmigrated"
    else:
        verdict = "suspect" if marker else "marked"
    return Judged(shard, verdict, reasons)


def _unreadable(shard: OldShard) -> tuple[Reason, ...]:
    if shard.error:
        return (Reason("unreadable", shard.error),)
    if shard.marker.problem == "marker-unreadable":
        return (Reason("marker-unreadable", shard.marker.detail),)
    return tuple(
        Reason("unreadable", f"{oddity.path}: {oddity.detail}")
        for oddity in shard.tree.oddities
        if oddity.kind == "unreadable"
    )[:1]


def _structure(shard: OldShard) -> tuple[Reason, ...]:
    found = []
    if not is_shard_name(shard.name):
        found.append(Reason("not-a-shard", f"a {shard.kind} that no server names so"))
    if shard.kind == "symlink":
        found.append(Reason("symlink", "a link; the migrator skips it"))
    elif shard.kind != "directory" and not found:
        found.append(Reason("not-a-shard", f"a {shard.kind}, no directory"))
    if shard.mounts or any(o.kind == "mount-point" for o in shard.tree.oddities):
        found.append(Reason("mount-point", "a file system is mounted at it or in it"))
    if found or shard.error or shard.kind != "directory":
        return tuple(found)
    if not shard.has_database:
        found.append(Reason("not-a-shard", "no CURRENT in it: no LevelDB, or its ruins"))
    foreign = _foreign(shard)
    if foreign:
        found.append(Reason("foreign-files", f"{foreign}: no LevelDB writes that; move it away"))
    return tuple(found)


def _foreign(shard: OldShard) -> str:
    """Return what in a shard no LevelDB writes, in words: the first one and how many more.

    The marker is judged by itself, so whatever stands under its name is none of these.
    """
    other = ("unreadable", "mount-point")
    odd = {o.path: o.kind for o in shard.tree.oddities if o.kind not in other}
    odd.pop(MARKER, None)
    strange = sorted({*shard.foreign, *odd})
    if not strange:
        return ""
    first = strange[0]
    kind = f" ({odd[first]})" if first in odd else ""
    return f"{first}{kind}" + (f" and {len(strange) - 1} more" if len(strange) > 1 else "")


def _busy(shard: OldShard) -> tuple[Reason, ...]:
    found = []
    if shard.lock.state is Lock.HELD:
        pid = f"pid {shard.lock.pid}" if shard.lock.pid else "a process that can't be seen"
        found.append(Reason("locked", f"{pid} has the shard open"))
    if shard.open_files:
        file = shard.open_files[0]
        words = f"pid {file.pid} ({file.process}) has {file.path} open"
        found.append(Reason("open-files", words))
    return tuple(found)


def _marker(shard: OldShard) -> tuple[Reason, ...]:
    marker = shard.marker
    if not marker.present:
        return (Reason("no-marker"),) if shard.kind == "directory" and not shard.error else ()
    if marker.problem:
        word = (Reason(marker.problem, marker.detail),)
        return word if marker.problem != "marker-unreadable" else ()
    written = written_after_marker(shard)
    if written:
        return (Reason("written-after-marker", f"{written[0]} is newer than the marker"),)
    return ()


def written_after_marker(shard: OldShard) -> tuple[str, ...]:
    """Given a shard's facts, return its files that may hold values newer than the marker.

    The migrator closes the shard after it has written the marker, which touches LOG and the
    empty write-ahead log; and 0.7, should it ever run again, writes a new MANIFEST into each
    shard that it opens (FORMATS.md, "Who has what open"). None of these holds a value. A table
    or a log with something in it does: points that a 0.7 after a rollback took, which no
    migration will visit again (HAZARDS.md, 9).
    """
    return tuple(sorted(shard.tree.newer))


def reclaimable_together(judged: tuple[Judged, ...]) -> int:
    """Given shards, return what the file system gives back when all of them go, in bytes.

    More than the sum of each one's where two of them share a file by hard links.
    """
    alone = sum(
        j.shard.tree.reclaimable_bytes - reclaimable_links(j.shard.tree.linked) for j in judged
    )
    return alone + reclaimable_links(tuple(f for j in judged for f in j.shard.tree.linked))


def judge_all(inventory: Inventory) -> tuple[Judged, ...]:
    """Given an inventory, return the verdict over each entry of shard_db, by name."""
    return tuple(judge(shard) for shard in inventory.old or ())
