"""What stands in the way of the next step: findings, as pure functions of the facts.

Before the upgrade the next step is to stop 0.7 and start 0.8; on an 0.8 it is the migration.
What a blocker blocks can be had all the same (`migrate --override ID`), but not by oversight.
HAZARDS.md says how each of these has lost somebody's data.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from shardtool.influxdb.spaces import DEFAULT_SPACE, space_of
from shardtool.upgrade import checks_of_shards, cluster
from shardtool.upgrade.facts import Facts
from shardtool.upgrade.findings import Finding, worst_first
from shardtool.upgrade.spaces_order import shadows
from shardtool.words import duration, names, plural, size

MIGRATES = re.compile(r"0\.8\.[0-3](?:-rc\.?\d+)?", re.ASCII)
_WITH_ISSUE_868 = re.compile(r"0\.8\.0(?:-rc\.?\d+)?", re.ASCII)
# captures/partial-08/influxdb.log: 59,443 values of four shards in three seconds.
_RATE = 20_000
_BACK = "put 0.8.3 back (its package over this one), migrate, verify, and upgrade again then"


def findings(facts: Facts) -> tuple[Finding, ...]:
    """Return all that is to be known before the next step, the worst first."""
    parts: list[Iterator[Finding]] = [
        _restore(facts),
        _raft(facts),
        _version(facts),
        _other_server(facts),
        _server(facts),
        checks_of_shards.entries(facts),
        checks_of_shards.wal(facts),
        checks_of_shards.skipped(facts),
        checks_of_shards.proofs(facts),
        _cluster(facts),
    ]
    if facts.todo or not facts.is_08:
        parts += [_snapshot(facts)]
    if facts.todo:
        parts += [_spaces(facts), _room(facts), _duration(facts)]
    return worst_first(finding for part in parts for finding in part)


def _restore(facts: Facts) -> Iterator[Finding]:
    if facts.half_restored:
        yield Finding(
            "half-restored",
            "blocker",
            "raft",
            "a restore was interrupted in the middle of its swap: raft and wal may not belong "
            "together",
            "finish it with shardtool restore, and start no server before that",
        )


def _raft(facts: Facts) -> Iterator[Finding]:
    if facts.raft is None:
        advice = "put raft right first: without it nobody knows which databases there are"
        yield Finding("raft-unreadable", "blocker", "raft", facts.raft_problem, advice)
    elif not facts.raft.databases and facts.todo:
        yield Finding(
            "no-databases",
            "blocker",
            "raft",
            "raft knows no database: the migration would bring over nothing and mark every shard",
            "see whether this raft belongs to these shards; shardtool restore puts one back",
        )
    if facts.raft_snapshot:
        yield Finding(
            "raft-snapshot",
            "info",
            "raft",
            "raft holds a snapshot: 0.8.0 panics on one that 0.7 took (issue 868)",
            "upgrade to 0.8.3, not to 0.8.0",
        )


def _other_server(facts: Facts) -> Iterator[Finding]:
    """Tell where the server that was asked is not the one of this directory: whatever was checked
    here, it is another node that would migrate."""
    asked, own = facts.asked, facts.own_name
    if asked is None or own is None:
        return
    members = {server.raft_name for server in asked.servers if server.raft_name}
    advice = "give the --api of the server that runs on this data directory"
    if members and own not in members:
        yield Finding(
            "other-server",
            "blocker",
            asked.url,
            f"the servers there are {names(sorted(members))}, and this directory is {own}'s",
            advice,
        )
    elif asked.is_here is False or (len(members) > 1 and asked.is_here is None):
        yield Finding(
            "other-server",
            "blocker",
            asked.url,
            "another process answers there than those that have this directory open (a proxy?)"
            if asked.is_here is False
            else "which server of the cluster answers there can't be seen from here: the one that "
            "answers migrates its own shards, not this directory's",
            advice,
        )


def _version(facts: Facts) -> Iterator[Finding]:
    if facts.asked is None:
        if facts.todo and facts.is_08:
            yield Finding(
                "not-asked",
                "info",
                "server",
                "which 0.8 runs here was not asked: only 0.8.0 to 0.8.3 can migrate",
                "say --api http://localhost:8086 to have its version and spaces checked too",
            )
        return
    version, url = facts.asked.version, facts.asked.url
    if not version.startswith("0.8."):
        if facts.is_08:
            yield Finding(
                "version",
                "blocker",
                url,
                f"expected an InfluxDB 0.8 on a directory that 0.8 has been to, found {version}",
                "check that --api names this node's server; a 0.7 that was started again here "
                "rewrites marked shards, and the next migration skips them",
            )
        return
    if not MIGRATES.fullmatch(version):
        level = "blocker" if facts.todo else "info"
        yield Finding(
            "version",
            level,
            url,
            f"this is {version}, and only 0.8.0 to 0.8.3 can migrate",
            _BACK if facts.todo else "",
        )
    elif _WITH_ISSUE_868.fullmatch(version) and facts.todo:
        yield Finding(
            "version-0.8.0",
            "warning",
            url,
            f"this is {version}, which panics on a raft snapshot of 0.7 (issue 868)",
            "upgrade to 0.8.3 before the migration",
        )


def _server(facts: Facts) -> Iterator[Finding]:
    search = facts.search
    if search.server is not None and not facts.is_08:
        yield Finding(
            "server-running",
            "blocker",
            "server",
            f"a server is at work here: {search.server}",
            "stop it and check again: until then raft and wal are not whole, and writes may be in "
            "its memory alone",
        )
    elif search.server is not None:
        yield Finding("server-running", "info", "server", f"a server runs: {search.server}")
    elif search.doubt:
        yield Finding("server-unknown", "info", "server", search.doubt)
    else:
        message = "no server runs here"
        advice = "start 0.8 before the migration" if facts.is_08 and facts.todo else ""
        yield Finding("server-stopped", "info", "server", message, advice)


def _snapshot(facts: Facts) -> Iterator[Finding]:
    found = facts.snapshot
    stop = "stop the server and run shardtool backup"
    backup = "run shardtool backup (--live beside a running server)" if facts.is_08 else stop
    if found is None:
        yield Finding("snapshot-unreadable", "blocker", "snapshot", facts.snapshot_problem)
    elif not found.id:
        message = f"{found.store}: no snapshot of raft and wal is there"
        if facts.is_08:
            message += ": the way back to before the migration"
        yield Finding("no-snapshot", "blocker", "snapshot", message, backup)
    elif found.problem:
        message = f"{found.store / found.id}: the newest snapshot is damaged: {found.problem}"
        yield Finding("snapshot-damaged", "blocker", found.id, message, backup)
    elif found.changed and not facts.is_08:
        message = f"raft or wal changed since the snapshot {found.id}: {names(found.changed)}"
        yield Finding("snapshot-outdated", "blocker", found.id, message, backup)
    elif facts.raft_of_07_since or (facts.wal and facts.wal.after_snapshot):
        later = [plural(facts.raft_of_07_since, "command") + " of raft's"] * (
            facts.raft_of_07_since > 0
        )
        if facts.wal and facts.wal.after_snapshot:
            later.append(plural(facts.wal.after_snapshot, "request") + " of the WAL's")
        message = f"0.7 went on after the snapshot {found.id}: {' and '.join(later)} are not in it"
        advice = "take another one now; a way back to the last state of 0.7 there is not"
        yield Finding("snapshot-outdated", "blocker", found.id, message, advice)
    else:
        if found.live and not facts.is_08:
            message = f"the snapshot {found.id} was copied while a server could be running"
            yield Finding("snapshot-live", "warning", found.id, message, backup)
        message = f"{found.store / found.id}: verified to the last byte"
        if facts.is_08 and found.raft_bytes is None:
            message += "; today's raft does not go on from it, so see that it is the right one"
            yield Finding("snapshot", "warning", found.id, message)
        else:
            yield Finding("snapshot", "info", found.id, message)


def _spaces(facts: Facts) -> Iterator[Finding]:
    if not facts.is_08 or facts.raft is None:
        return
    spaces = facts.spaces
    without = sorted(name for name in facts.raft.databases if not spaces.get(name))
    if without:
        yield Finding(
            "no-spaces",
            "blocker",
            names(without),
            f"no shard spaces for {names(without)}: 0.8 puts their series into a `default` one "
            "that it makes itself (7d, inf), and what is in it stays there",
            "make them first: shardtool spaces apply FILE, or apply --like-0.7 DATABASE...",
        )
    yield from _unplaced(facts)
    for database, several in sorted(spaces.items()):
        for name, shadow in shadows(several, facts.raft.ids.get(database, ())).items():
            by = shadow.by.name
            subject, never = f"{database}/{name}", f"the space {name!r} of {database!r} is never "
            never += f"asked: {by!r} was made after it and takes every series that it would"
            never += " (as far as tried)" * (not shadow.is_certain)
            # A second space for everything does no harm; one for some series was made for a reason.
            is_wrong = shadow.is_certain and shadow.by.regex != shadow.space.regex
            level = "blocker" if is_wrong and name != DEFAULT_SPACE else "warning"
            own = sum((one.database, one.space) == (database, name) for one in facts.raft.shards)
            advice = "put them in order, least specific first: shardtool spaces apply FILE"
            if own:
                has = f"it has {plural(own, 'shard')}, whose values no query finds"
                advice = f"they are found again when {by!r} is gone; it can go while it is empty"
                yield Finding("hidden-shards", "warning", subject, f"{never}; {has}", advice)
            if not own or level == "blocker":
                yield Finding("space-order", level, subject, never, advice)


def _unplaced(facts: Facts) -> Iterator[Finding]:
    """Tell of series that no space of their database takes: the first point of one makes `default`,
    which is asked before all others from then on."""
    seen = facts.foresight.to_come if facts.foresight is not None else {}
    several = [
        f"{database}/{series}"
        for database, series in sorted(seen)
        if facts.spaces.get(database) and space_of(facts.spaces[database], series) is None
    ]
    if several:
        yield Finding(
            "no-space-for",
            "blocker",
            names(several),
            f"no space takes {names(several)}: 0.8 makes a `default` one for the first of their "
            "points, which takes every series from then on, and hides what the others hold",
            "add a space for everything (/.*/), least specific first: shardtool spaces apply FILE",
        )


def _room(facts: Facts) -> Iterator[Finding]:
    room = facts.room
    need, free = size(room.needed_bytes), size(room.free_bytes)
    besides = ""
    if room.preallocated_bytes:
        besides = f", {size(room.preallocated_bytes)} of it what {room.engine} may preallocate"
    message = f"the new copies need some {need}{besides}; {free} are free at {room.path}"
    if room.copy_bytes > room.free_bytes:
        advice = (
            f"make {size(room.copy_bytes - room.free_bytes)} more free: both copies live side by "
            "side until shardtool prune"
        )
        yield Finding("disk-space", "blocker", str(room.path), message, advice)
    elif room.needed_bytes * 11 // 10 > room.free_bytes:
        yield Finding("disk-space", "warning", str(room.path), message, "make more room first")
    else:
        yield Finding("disk-space", "info", str(room.path), message)
    if room.most_files is not None:
        files = f"{room.limit_of} may have {room.most_files:,} files open, "
        files += f"and 0.8 will have up to {room.files:,} when all is migrated"
        if room.files > room.most_files:
            advice = "raise it (ulimit -n, LimitNOFILE) before the server is started"
            yield Finding("open-files", "warning", "server", files, advice)
        else:
            yield Finding("open-files", "info", "server", files)


def _duration(facts: Facts) -> Iterator[Finding]:
    seen = facts.foresight
    if seen is None or not seen.shards:
        return
    pause_s = facts.pause_us / 1_000_000
    rest = seen.pauses * pause_s
    yield Finding(
        "duration",
        "info",
        "migration",
        f"{seen.points:,} points ({seen.values:,} values) in {plural(seen.shards, 'shard')}: "
        f"{plural(seen.pauses, 'pause')} of {duration(pause_s)} take {duration(rest)}; at the "
        f"{_RATE:,} values a second that a real 0.8.3 made of a small directory it is "
        f"{duration(rest + seen.values / _RATE)} in all",
        "shardtool migrate --wait shows the rate and the time left",
    )


def _cluster(facts: Facts) -> Iterator[Finding]:
    raft = facts.raft
    if raft is None or len(raft.servers) < 2:
        return
    message = cluster.members(raft, facts.asked.servers if facts.asked else ())
    if raft.own_server is None:
        message += "; which one this is, is unknown"
    yield Finding("cluster", "info", "cluster", message, cluster.EACH_ITS_OWN)
    for line in cluster.owned(raft):
        yield Finding("cluster-shards", "info", "cluster", line)
