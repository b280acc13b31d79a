"""The verdict over an old shard: a pure function of its facts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from shardtool.datadir.inventory import Inventory, OldShard, is_shard_name
from shardtool.datadir.marker import MARKER
from shardtool.disk.locks import Lock
from shardtool.disk.tree import Links, reclaimable_links

VERDICTS = ("unmigrated", "marked", "proven", "incomplete", "suspect", "busy", "unreadable")


@dataclass(frozen=True)
class Reason:
    """A short fixed word that scripts match, and what was found, in words for people."""

    word: str
    detail: str = ""

    def __str__(self) -> str:
        """Return both, as a line tells them; not yet safe to be shown."""
        return f"{self.word}: {self.detail}" if self.detail else self.word


# Doubts about what came after the marker. A proof, which looks at each value as it is now, ends
# them; it does not end a doubt about who wrote the marker.
_ENDED_BY_PROOF = ("written-after-marker", "marker-in-future")


@dataclass(frozen=True)
class Evidence:
    """What a proof that holds found, or why there could be none.

    Args:
        values: how many values the shard has.
        missing: how many of them are nowhere in the new storage.
        different: how many are there with another content.
        elsewhere: some of the missing ones may be on other servers.
        unasked: some of them are in shards of a space that does not take their series.
        rescuable: how many of the missing ones nobody wanted gone from 0.8 (`shardtool rescue`).
        accepted: the operator has accepted exactly these losses (`shardtool accept`).
        failure: why the shard could not be proven at all.
        busy: the failure is another process at work.
    """

    values: int = 0
    missing: int = 0
    different: int = 0
    elsewhere: bool = False
    unasked: bool = False
    rescuable: int = 0
    accepted: bool = False
    failure: Reason | None = None
    busy: bool = False


@dataclass(frozen=True)
class Judged:
    """An old shard with its verdict.

    Args:
        shard: the facts.
        verdict: one of VERDICTS.
        reasons: why; empty for a shard that is marked or proven and nothing else.
        evidence: of a proof that holds, None where there is none.
    """

    shard: OldShard
    verdict: str
    reasons: tuple[Reason, ...]
    evidence: Evidence | None = None

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
        may_go = self.verdict in ("marked", "proven") or self.is_accepted
        return self.shard.tree.reclaimable_bytes if may_go else 0

    @property
    def is_accepted(self) -> bool:
        """It loses values, and the operator has accepted that."""
        accepted = self.evidence is not None and self.evidence.accepted
        return self.verdict == "incomplete" and accepted

    @property
    def is_marked(self) -> bool:
        """Marked and nothing else known, or in doubt only for what a proof would answer."""
        words = {reason.word for reason in self.reasons}
        doubted = self.verdict == "suspect" and words <= set(_ENDED_BY_PROOF)
        return self.evidence is None and (self.verdict == "marked" or doubted)


def judge(shard: OldShard, evidence: Evidence | None = None) -> Judged:
    """Given an old shard's facts, return its verdict with all of its reasons.

    What is worse wins: unreadable, then a wrong structure, then in use, then a wrong marker,
    then what a proof found.

    Args:
        shard: the facts.
        evidence: of a proof that holds now; None where nothing is proven.

    Example: a directory 00007 with a sound marker and nothing else to say -> ('marked', ());
    with a table newer than the marker -> ('suspect', (written-after-marker,)); with evidence of
    one missing value -> ('incomplete', (values-missing,)).
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
    judged = Judged(shard, verdict, reasons)
    return judged if evidence is None else _with(evidence, judged)


def _with(evidence: Evidence, judged: Judged) -> Judged:
    """Given a verdict on the facts alone, return the one that takes a proof into account."""
    doubts = tuple(reason for reason in judged.reasons if reason.word not in _ENDED_BY_PROOF)
    losses = _losses(evidence)
    if judged.verdict in ("unreadable", "busy"):
        return judged
    verdict, reasons = judged.verdict, doubts
    is_sound = verdict == "marked" or (verdict == "suspect" and not doubts)
    if evidence.failure is not None:
        verdict = "busy" if evidence.busy else "unreadable"
        reasons = (evidence.failure, *judged.reasons)
    elif verdict == "unmigrated":
        losses = ()  # the normal course of things, as long as the migration has not been here
    elif is_sound:
        verdict = "incomplete" if losses else "proven"
    return Judged(judged.shard, verdict, reasons + losses, evidence)


def as_found(judged: Judged) -> Judged:
    """Given a verdict, return the one that counts the values of an unmigrated shard too.

    Example: ('unmigrated', (no-marker,)) with evidence of missing values -> ('incomplete',
    (no-marker, values-missing)); with evidence of none -> ('proven', (no-marker,)).
    """
    evidence = judged.evidence
    if judged.verdict != "unmigrated" or evidence is None:
        return judged
    losses = _losses(evidence)
    verdict = "incomplete" if losses else "proven"
    return Judged(judged.shard, verdict, judged.reasons + losses, evidence)


def _losses(evidence: Evidence) -> tuple[Reason, ...]:
    found = []
    for word, count, end in (
        ("values-missing", evidence.missing, "nowhere in the new storage"),
        ("values-different", evidence.different, "there with another content"),
    ):
        if count:
            of = f"{count:,} of {evidence.values:,}"
            found.append(Reason(word, f"{of} are {end}" if count > 1 else f"{of} is {end}"))
    if evidence.elsewhere:
        words = "other servers hold shards of their time; ask them with --api URL"
        found.append(Reason("on-other-servers", words))
    if evidence.unasked:
        words = "some are in shards of a space that does not take their series: 0.8 looks elsewhere"
        found.append(Reason("in-other-space", words))
    return tuple(found)


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
    gain = Gain()
    for one in judged:
        gain.add(one)
    return gain.reclaimable_bytes


@dataclass
class Gain:
    """What the file system gives back when shards go, shard after shard."""

    _alone: int = 0
    _links: Links = field(default_factory=Links)

    def add(self, judged: Judged) -> None:
        """Have one more shard go."""
        tree = judged.shard.tree
        self._alone += tree.reclaimable_bytes - reclaimable_links(tree.linked)
        self._links.add(tree.linked)

    @property
    def reclaimable_bytes(self) -> int:
        """So much, for those that were added."""
        return self._alone + self._links.reclaimable_bytes


def judge_all(
    inventory: Inventory, evidence: Mapping[str, Evidence] | None = None
) -> tuple[Judged, ...]:
    """Given an inventory and the evidence by shard, return the verdict over each entry of
    shard_db, by name."""
    known = evidence or {}
    return tuple(judge(shard, known.get(shard.name)) for shard in inventory.old or ())
