"""Where a migration stands, and when it is over: pure functions of what successive looks found.

The migrator (0.8.3's migration package; FORMATS.md, "The migration") sorts the directories of
shard_db by name and goes from the highest to the lowest. It tells nobody when it has ended: that
is found out here, from markers, locks, the new shards' growth and its log.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from shardtool.influxdb.serverlog import Trouble
from shardtool.upgrade.findings import Finding

# A server that is busy may miss a ping, and one that is restarted is gone for a moment.
_DEAD_LOOKS = 3
_DEAD_SECONDS = 3.0
# Between two shards none is locked: that nothing is left has to be seen more than once.
_OVER_LOOKS = 2


@dataclass(frozen=True)
class Gate:
    """Whether a migration may be started, by what a check has found.

    Args:
        refused: blockers that nobody overrode.
        overridden: blockers that the operator overrode by their id.
        unknown: ids that were to be overridden, and that no finding has.
        blockers: all ids of blockers, for a message.
    """

    refused: tuple[Finding, ...]
    overridden: tuple[Finding, ...]
    unknown: tuple[str, ...]
    blockers: tuple[str, ...]


def gate(findings: Iterable[Finding], overrides: Iterable[str]) -> Gate:
    """Given findings and the ids to override, return whether the migration may begin."""
    all_of_them, wanted = tuple(findings), tuple(overrides)
    blockers = tuple(finding for finding in all_of_them if finding.blocks)
    known = {finding.id for finding in all_of_them}
    return Gate(
        tuple(finding for finding in blockers if finding.id not in wanted),
        tuple(finding for finding in blockers if finding.id in wanted),
        tuple(dict.fromkeys(word for word in wanted if word not in known)),
        tuple(dict.fromkeys(finding.id for finding in blockers)),
    )


@dataclass(frozen=True)
class Look:
    """What is there at one moment.

    Args:
        at: when, in seconds of a clock that only goes forward.
        marked: the directories of shard_db that have a marker, with their bytes.
        unmarked: the others that the migrator can see, with their bytes.
        new_bytes: what the new shards take on disk.
        new_state: lengths and newest time of their files together. It changes when little is
            written too, or into blocks that were there already (RocksDB preallocates).
        locked: the old shard that another process has open; None where none is, or it can't be
            seen.
        log_lines: how many lines of the migrator the log has brought so far.
        logged: the shard that the log named last; may be empty.
        refused: shards that could not be opened or marked, as the log says.
        troubles: the errors of the log so far.
        up: the server answers; None where it was not asked.
        restarts: how often the server was started, as the log says.
    """

    at: float
    marked: Mapping[str, int] = field(default_factory=dict)
    unmarked: Mapping[str, int] = field(default_factory=dict)
    new_bytes: int = 0
    new_state: tuple[int, int] = (0, 0)
    locked: str | None = None
    log_lines: int = 0
    logged: str = ""
    refused: frozenset[str] = frozenset()
    troubles: tuple[Trouble, ...] = ()
    up: bool | None = None
    restarts: int = 0


@dataclass(frozen=True)
class Run:
    """What all looks together say.

    Args:
        first: the first look.
        previous: the last but one.
        now: the last.
        done: shards that were seen marked, ever.
        reached: the shard that the migrator is in or has marked last, as far as was seen.
        moved_at: when something moved for the last time.
        locks_seen: old shards' locks are to be seen here (not so on some network file systems).
        down_since: when the server ceased to answer; None while it does.
        down_looks: how many looks in a row it did not.
        over_looks: how many looks in a row found nothing that the migrator could still do.
    """

    first: Look
    previous: Look
    now: Look
    done: frozenset[str]
    reached: str | None
    moved_at: float
    locks_seen: bool
    down_since: float | None
    down_looks: int
    over_looks: int

    @property
    def marked_since(self) -> tuple[str, ...]:
        """The shards that were marked since the first look, in the migrator's order."""
        return tuple(sorted(self.done.difference(self.first.marked), key=migrators_order))[::-1]

    @property
    def passed_over(self) -> tuple[str, ...]:
        """The unmarked shards that the migrator has left behind, in its order."""
        return tuple(name for name in self._unmarked if self._is_passed_over(name))

    @property
    def left(self) -> tuple[str, ...]:
        """The unmarked shards that the migrator has still to come to, in its order."""
        return tuple(name for name in self._unmarked if not self._is_passed_over(name))

    @property
    def _unmarked(self) -> list[str]:
        # The migrator lists the directories once: one that has come since it never visits.
        known = self.first.unmarked.keys() | self.first.marked.keys()
        there = self.now.unmarked.keys() & known
        return sorted(there, key=migrators_order, reverse=True)

    def _is_passed_over(self, name: str) -> bool:
        if name == self.now.locked:
            return False
        if name in self.now.refused:
            return True
        reached = self.reached
        return reached is not None and migrators_order(name) > migrators_order(reached)


def migrators_order(name: str) -> bytes:
    """Return what the migrator sorts a directory by: Go compares strings by their bytes."""
    return os.fsencode(name)


def begin(look: Look) -> Run:
    """Given the first look, return the run that begins with it."""
    run = Run(
        first=look,
        previous=look,
        now=look,
        done=frozenset(look.marked),
        reached=look.locked,
        moved_at=look.at,
        locks_seen=look.locked is not None,
        down_since=look.at if look.up is False else None,
        down_looks=int(look.up is False),
        over_looks=0,
    )
    return replace(run, over_looks=_over_looks(run, 0))


def follow(run: Run, look: Look) -> Run:
    """Given a run and the next look, return the run with it."""
    new = (look.marked.keys() & run.first.unmarked.keys()) - run.done
    reached = look.locked or min(new, key=migrators_order, default=run.reached)
    locks_seen = run.locks_seen or look.locked is not None
    is_down = look.up is False
    down_since = look.at if run.down_since is None else run.down_since
    after = replace(
        run,
        previous=run.now,
        now=look,
        done=run.done.union(look.marked),
        reached=reached,
        moved_at=look.at if new or _has_moved(run.now, look, locks_seen) else run.moved_at,
        locks_seen=locks_seen,
        down_since=down_since if is_down else None,
        down_looks=run.down_looks + 1 if is_down else 0,
    )
    return replace(after, over_looks=_over_looks(after, run.over_looks))


def _has_moved(before: Look, look: Look, locks_seen: bool) -> bool:
    # Clients may write meanwhile: where locks are to be seen, growth is the migrator's only
    # while it has a shard open.
    is_open = look.locked is not None or not locks_seen
    grows = is_open and look.new_state != before.new_state
    opened = look.locked is not None and look.locked != before.locked
    return grows or opened or look.log_lines != before.log_lines


def _over_looks(run: Run, before: int) -> int:
    return before + 1 if not run.left and run.now.locked is None else 0


@dataclass(frozen=True)
class Progress:
    """How far a migration is.

    Args:
        percent: of all old shards' bytes, those of marked ones; 100 only when all are marked.
        marked: how many shards are marked.
        shards: of how many.
        done_bytes: what the marked ones hold.
        total_bytes: what all hold.
        rate: bytes of old shards done a second since the first look; None while that is unknown.
        seconds_left: at that rate; None while it is unknown.
        current: the old shard that is being migrated; None where that is unknown, or none is.
        current_bytes: what it holds.
        grown_bytes: what the new shards have grown by since the first look.
    """

    percent: float
    marked: int
    shards: int
    done_bytes: int
    total_bytes: int
    rate: float | None
    seconds_left: float | None
    current: str | None
    current_bytes: int
    grown_bytes: int


def progress(run: Run) -> Progress:
    """Given a run, return how far it is.

    What counts is what was there at the first look: the migrator lists the directories once, and
    one that is pruned meanwhile stays done. So the percentage never falls.
    """
    sizes = {**run.first.unmarked, **run.first.marked}
    done = run.done & sizes.keys()
    # An empty directory counts for something too: it gets a marker like the others.
    weights = {name: max(1, size) for name, size in sizes.items()}
    total = sum(weights.values())
    percent = 100 * sum(weights[name] for name in done) / total if total else 100.0
    if len(done) < len(sizes):
        percent = min(percent, 99.9)
    since = [name for name in done if name in run.first.unmarked]
    elapsed = run.now.at - run.first.at
    rate = sum(weights[name] for name in since) / elapsed if since and elapsed > 0 else None
    to_do = sum(weights.get(name, 0) for name in run.left)
    current = _current(run)
    return Progress(
        percent=percent,
        marked=len(done),
        shards=len(sizes),
        done_bytes=sum(sizes[name] for name in done),
        total_bytes=sum(sizes.values()),
        rate=rate,
        seconds_left=to_do / rate if rate else None if to_do else 0.0,
        current=current,
        current_bytes=sizes.get(current, 0) if current is not None else 0,
        grown_bytes=run.now.new_bytes - run.first.new_bytes,
    )


def _current(run: Run) -> str | None:
    if run.now.locked is not None:
        return run.now.locked
    # Without a lock to be seen, the log says where it is, as long as that is not done.
    if not run.locks_seen and run.now.logged in run.left:
        return run.now.logged
    return None


def end_of(run: Run, stall: float) -> str | None:
    """Given a run, return how it has ended, or None while it goes on.

    Args:
        run: all looks so far.
        stall: seconds without any movement after which it is taken for ended.

    Returns:
        'marked': every directory that can be migrated is. 'passed-over': the others too are
        behind the migrator. 'server-died', 'server-restarted', 'stalled'.
    """
    if not (run.left or run.passed_over):
        return "marked"
    if run.over_looks >= _OVER_LOOKS:
        return "passed-over"
    if (
        run.down_since is not None
        and run.down_looks >= _DEAD_LOOKS
        and run.now.at - run.down_since >= _DEAD_SECONDS
    ):
        return "server-died"
    # Quicker than anybody's ping: it answers, and knows of no migration.
    if run.now.restarts > run.first.restarts and run.now.locked is None:
        return "server-restarted"
    if run.now.at - run.moved_at >= stall:
        return "stalled"
    return None
