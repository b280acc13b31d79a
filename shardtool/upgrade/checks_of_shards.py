"""Findings about what is in the shards and in the WAL: pure functions of the facts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from shardtool.datadir.verdict import Judged, Reason
from shardtool.upgrade.facts import Facts
from shardtool.upgrade.findings import Finding
from shardtool.upgrade.foresight import Skipped
from shardtool.upgrade.wal_only import Gap
from shardtool.words import names, plural

_MOST_SHARDS = 6
_LOOK_CLOSER = "run this as the server's user or as root; if it can't be read then, check the disk"
# Structural reasons of a verdict (datadir.verdict), and what the migrator makes of them.
_ENTRIES = {
    "symlink": (
        "warning",
        "nothing in it comes over",
        "move the directory itself to this place before the migration",
    ),
    "foreign-files": (
        "warning",
        "the migrator opens the directory with them in it, and prune keeps it for their sake",
        "see what they are, and move them away",
    ),
    "mount-point": (
        "warning",
        "the migrator reads across it, and prune keeps the shard for its sake",
        "unmount it, or copy the shard to where it belongs",
    ),
    "unreadable": (
        "blocker",
        "what can't be read here can't be checked",
        _LOOK_CLOSER,
    ),
    "marker-unreadable": (
        "blocker",
        "the migrator passes it by, and what a marker says that can't be read nobody knows",
        _LOOK_CLOSER,
    ),
}
_MARKER_DOUBTS = (
    "marker-content",
    "marker-not-a-file",
    "marker-in-future",
    "written-after-marker",
)
_SKIPS = {
    "future": (
        "warning",
        "values are dated after this moment: the migration copies only what is older than itself",
        "they stay in their old shards: after the migration shardtool rescue sends them",
    ),
    "name": (
        "warning",
        'values are of series that the migrator skips for a name: a `~`, `"` or `\\` in it, or '
        "a `~` in a column, or another series that begins with it and a `~`",
        "they stay in their old shards: after the migration shardtool rescue sends them",
    ),
    "unknown-database": (
        "warning",
        "values are of databases that raft does not know: the migrator never visits them",
        "if they are wanted, create the database (same name) before the migration",
    ),
    "expired": (
        "blocker",
        "values are older than their shard space keeps them: 0.8 drops them again after they "
        "were copied",
        "give the space a longer retentionPolicy (inf), or let them go with --override retention",
    ),
}
_SKIP_IDS = {
    "future": "skips-future",
    "name": "skips-names",
    "unknown-database": "skips-databases",
    "expired": "retention",
}


def entries(facts: Facts) -> Iterator[Finding]:
    """Tell what in shard_db is no shard as the migrator wants it."""
    for judged in facts.old:
        for reason in judged.reasons:
            if reason.word == "not-a-shard":
                yield _no_shard(judged, reason)
            elif reason.word in _ENTRIES:
                level, consequence, advice = _ENTRIES[reason.word]
                message = f"{judged.shard.name}: {reason.detail}: {consequence}"
                yield Finding(reason.word, level, judged.shard.name, message, advice)
    for name, error in facts.new_unreadable:
        message = f"new shard {name}: {error}: what can't be read here can't be checked"
        yield Finding("new-unreadable", "blocker", name, message, _LOOK_CLOSER)
    doubted = [
        judged
        for judged in facts.old
        if any(reason.word in _MARKER_DOUBTS for reason in judged.reasons)
    ]
    if doubted:
        reasons = sorted({r.word for j in doubted for r in j.reasons if r.word in _MARKER_DOUBTS})
        yield Finding(
            "markers",
            "warning",
            _listed(doubted),
            f"markers are not as 0.8 leaves them ({names(reasons)}) in {_listed(doubted)}: the "
            "migrator skips whatever has one",
            "see shardtool status; verify looks at what they really hold",
        )
    marked = [judged for judged in facts.old if judged.shard.marker.present]
    if marked and not facts.is_08:
        yield Finding(
            "marked-before",
            "warning",
            _listed(marked),
            f"a marker, although no 0.8 has been here, is in {_listed(marked)}: the migrator will "
            "skip that",
            "move the markers away, if that is what they are",
        )


def _no_shard(judged: Judged, reason: Reason) -> Finding:
    """Tell what the migrator does to an entry that is no shard (HAZARDS.md, 10)."""
    shard, move = judged.shard, "move it out of shard_db"
    if shard.kind != "directory":
        message = f"{shard.name}: {reason.detail}: the migrator passes it by"
        return Finding("not-a-shard", "info", shard.name, message, move)
    if shard.has_database:
        message = (
            f"{shard.name}: {reason.detail}, but a LevelDB: 0.8 migrates it like any shard, and "
            "writes its points once more"
        )
        return Finding("not-a-shard", "warning", shard.name, message, move)
    marker = int(shard.marker.present)
    if marker:
        message = f"{shard.name}: {reason.detail}: it is marked, so the migrator passes it by"
        advice = "what it held is in the new storage at the best: see a copy of it"
        return Finding("not-a-shard", "warning", shard.name, message, advice)
    if shard.tree.files > len(shard.foreign):
        message = (
            f"{shard.name}: {reason.detail}: 0.8 makes a new LevelDB in it, which takes the place "
            "of what is left of this one, and marks it"
        )
        advice = "restore the shard from a copy, or move it out of shard_db before 0.8 is started"
        return Finding("ruins", "blocker", shard.name, message, advice)
    message = f"{shard.name}: {reason.detail}: 0.8 makes a LevelDB in it and marks it"
    return Finding("not-a-shard", "warning", shard.name, message, move)


def skipped(facts: Facts) -> Iterator[Finding]:
    """Tell what the migrator will not bring over, with exact counts."""
    seen = facts.foresight
    busy = [judged for judged in facts.todo if judged.in_use == "yes"]
    if busy:
        yield Finding(
            "not-read",
            "info" if facts.is_08 else "warning",
            _listed(busy),
            f"{_listed(busy)}: another process has them open, so they were not read",
            "" if facts.is_08 else "stop the server, and check again",
        )
    if not facts.is_read and facts.todo:
        yield _not_read(facts)
    if seen is None:
        return
    if seen.values and not seen.points:
        yield Finding(
            "takes-nothing",
            "blocker",
            "migration",
            f"the migration would bring over none of the {seen.values:,} values, and mark every "
            "shard all the same",
            "see whether this raft belongs to these shards",
        )
    for name, word, detail in seen.unread:
        level = "blocker" if word == "engine-unreadable" else "warning"
        advice = (
            "the migrator logs an error, and may mark it all the same: see the disk, or restore it"
            if level == "blocker"
            else "run this again when nobody writes to it: stop the server"
        )
        yield Finding(word, level, name, f"{name}: could not be read: {detail}", advice)
    for cause, (level, message, advice) in _SKIPS.items():
        several = [one for one in seen.skipped if one.cause == cause]
        if several:
            count = sum(one.values for one in several)
            yield Finding(
                _SKIP_IDS[cause],
                level,
                _series_of(several),
                f"{count:,} of {seen.values:,} {message}: {_series_of(several)}",
                advice,
            )


def _not_read(facts: Facts) -> Finding:
    finite = [
        f"{database}/{space.name} ({space.retention})"
        for database, several in sorted(facts.spaces.items())
        for space in several
        if space.retention not in ("", "inf")
    ]
    if not finite:
        message = "the shards were not read: what the migrator will skip is not known"
        return Finding("not-read", "info", "shards", message, "leave --no-read away")
    return Finding(
        "retention",
        "blocker",
        names(finite),
        f"spaces keep values for some time only, and what is older would be dropped again: "
        f"{names(finite)}; how much that is was not read",
        "leave --no-read away to know, or let it go with --override retention",
    )


def wal(facts: Facts) -> Iterator[Finding]:
    """Tell what only the WAL holds."""
    found = facts.wal
    if found is None:
        return
    if found.problem:
        advice = "take a snapshot before any server starts: it cuts the WAL off where it can't read"
        yield Finding("wal-unreadable", "blocker", "wal", found.problem, advice)
    for target, detail in found.unread:
        message = f"{target.name}: could not be compared with the WAL: {detail}"
        yield Finding("wal-not-compared", "warning", target.name, message, "stop the server first")
    for name, count in sorted(found.torn.items()):
        message = f"{name}: the last {plural(count, 'byte')} are no whole request: a torn write"
        yield Finding("wal-torn", "info", name, message)
    old = [gap for gap in found.gaps if gap.target.is_old and gap.matters]
    new = [gap for gap in found.gaps if not gap.target.is_old and gap.matters]
    if old:
        yield _only_in_old_wal(old, facts)
    if new:
        yield _only_in_new_wal(new, facts)
    yield from _not_ours(found.gaps, facts)
    doubtful = [gap for gap in found.gaps if gap.doubtful and gap.owner == "own"]
    if doubtful:
        yield Finding(
            "wal-deleted",
            "warning",
            "wal",
            f"{plural(sum(gap.doubtful for gap in doubtful), 'value')} of the WAL are in no shard, "
            "and a later delete or drop in it names their series: whether it deleted just these, "
            "or they were never written, can't be told",
            "to be sure, start 0.7 once more before the upgrade: it writes its WAL into the shards",
        )
    if not (found.problem or found.unread or doubtful or any(gap.values for gap in found.gaps)):
        message = "the WAL holds no values"
        if found.values:
            message = f"all {found.values:,} values of the WAL are in the shards"
        yield Finding("wal", "info", "wal", message)


def _not_ours(gaps: Iterable[Gap], facts: Facts) -> Iterator[Finding]:
    """Tell of writes for shards that this server is not to have."""
    for owner, word, why in (
        ("other", "wal-of-others", "raft gives these shards to other servers: check there"),
        ("dropped", "wal-of-dropped", "raft does not know these shards (any more)"),
    ):
        several = [gap for gap in gaps if gap.owner == owner and gap.values]
        if several:
            yield Finding(word, "info", "wal", f"{_counted(several, facts)} in the WAL: {why}")


def _only_in_old_wal(gaps: list[Gap], facts: Facts) -> Finding:
    """0.7's WAL: what is in no old shard is lost by the upgrade, since 0.8 can't replay it."""
    advice = (
        "start 0.7 once more: it writes its WAL into the shards; stop it properly, and check again"
    )
    level = "blocker"
    if facts.is_08:
        there = any(gap.is_there for gap in gaps)
        # Where the shards themselves are gone, that is most likely why.
        untouched = len(facts.todo) == len([j for j in facts.old if j.is_shard])
        level = "blocker" if facts.todo and (there or untouched) else "warning"
        advice = (
            "0.8 can't replay it: put raft and wal of before the upgrade back (shardtool restore), "
            "start 0.7 once more and stop it properly; keep the snapshot in any case"
        )
    return Finding("wal-only", level, "wal", f"{_counted(gaps, facts)} in 0.7's WAL alone", advice)


def _only_in_new_wal(gaps: list[Gap], facts: Facts) -> Finding:
    running = facts.search.server is not None
    return Finding(
        "wal-not-drained",
        "info" if running else "warning",
        "wal",
        f"{_counted(gaps, facts)} in 0.8's WAL and not in the new shards yet",
        "" if running else "start 0.8: it writes them into the new shards",
    )


def _counted(gaps: list[Gap], facts: Facts) -> str:
    """Return '12 values (00005: 10, 00007: 2, ...)', with what makes a count unsure."""
    count = sum(gap.values for gap in gaps)
    shards = names(
        [
            f"{gap.target.name}: {gap.values:,}" + ("" if gap.is_there else ", no such directory")
            for gap in sorted(gaps, key=lambda gap: gap.target.name)
        ],
        _MOST_SHARDS,
    )
    least = "" if facts.wal is None or facts.wal.is_all else "at least "
    verb = "is" if count == 1 else "are"
    return f"{least}{count:,} value{'' if count == 1 else 's'} ({shards}) {verb}"


def proofs(facts: Facts) -> Iterator[Finding]:
    """Tell what is known of the shards that are marked."""
    marked = [judged for judged in facts.old if judged.is_shard and judged.shard.marker.present]
    lossy = [judged for judged in marked if judged.verdict == "incomplete"]
    unproven = [judged for judged in marked if judged.is_marked]
    if lossy:
        count = sum(j.evidence.missing + j.evidence.different for j in lossy if j.evidence)
        yield Finding(
            "losses",
            "warning",
            _listed(lossy),
            f"{plural(count, 'value')} of {plural(len(lossy), 'marked shard')} are not in the new "
            "storage: "
            f"{_listed(lossy)}",
            "shardtool verify says which and why; prune keeps these shards",
        )
    if unproven:
        yield Finding(
            "not-proven",
            "info",
            _listed(unproven),
            f"{plural(len(unproven), 'marked shard')} not proven: {_listed(unproven)}",
            "a marker proves nothing: shardtool verify",
        )


def _listed(several: Iterable[Judged]) -> str:
    return names([judged.shard.name for judged in several], _MOST_SHARDS)


def _series_of(several: Iterable[Skipped]) -> str:
    found = sorted(several, key=lambda one: -one.values)
    return names([f"{one.database}/{one.series} ({one.values:,})" for one in found])
