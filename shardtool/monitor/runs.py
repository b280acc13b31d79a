"""When each command ran last, and how that ended: what the journal tells, which notes only what
changes something."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from shardtool.journal import History

# What each event says of the run that wrote it: whose it is, and whether it is fine by then. An
# intent is not, until its end is there: a run that was killed leaves it so.
_EVENTS = {
    "intent": ("prune", False),
    "renamed": ("prune", False),
    "deleted": ("prune", True),
    "kept": ("prune", True),
    "finished": ("prune", True),
    "put-back": ("prune", True),
    "failed": ("prune", False),
    "accepted": ("accept", True),
    "migration-started": ("migrate", True),  # without --wait nothing follows
    "migration-joined": ("migrate", True),
    "migration-failed": ("migrate", False),
    "migration-unknown": ("migrate", False),
    "rescue-started": ("rescue", False),
    "forget-intent": ("forget", False),
    "restore-intent": ("restore", False),
    "restored": ("restore", True),
    "space-created": ("spaces", True),
    "space-changed": ("spaces", True),
    "space-removed": ("spaces", True),
}
_GOOD_ENDS = ("marked", "passed-over", "sent")
_MOST = 1 << 63  # bytes that anybody has freed


@dataclass(frozen=True)
class LastRun:
    """The last run of a command.

    Args:
        at: when it wrote its last record, seconds since the epoch.
        succeeded: it has come to its end, and to a good one.
    """

    at: float
    succeeded: bool


@dataclass(frozen=True)
class Deleted:
    """What prunes have deleted so far.

    Args:
        shards: how many.
        freed_bytes: what the file system gave back for them.
    """

    shards: int
    freed_bytes: int


def last_runs(history: History) -> dict[str, LastRun]:
    """Given the journal, return the last run of each command that is in it, by the command's name.

    A record that was tampered with may have anything in it: what says nothing is passed over.

    Example: an 'intent' of 00007 and nothing after it -> {'prune': LastRun(..., succeeded=False)}.
    """
    found: dict[str, LastRun] = {}
    prune: str | None = None
    shards: dict[str, bool] = {}
    for record in history.records:
        said = _said(record)
        at = _seconds(record.get("time"))
        if said is None or at is None:
            continue
        command, is_fine = said
        if command == "prune":
            # A run is as good as each of its shards.
            run = str(record.get("run"))
            shards = shards if run == prune else {}
            prune = run
            shards[str(record.get("shard"))] = is_fine
            is_fine = all(shards.values())
        found[command] = LastRun(at, is_fine)
    return found


def deleted(history: History) -> Deleted:
    """Given the journal, return what prunes have deleted so far."""
    ends = [r for r in history.records if r["event"] in ("deleted", "finished")]
    return Deleted(len(ends), sum(_bytes(ends)))


def _bytes(records: Iterable[Mapping[str, Any]]) -> Iterable[int]:
    for record in records:
        freed = record.get("freed_bytes")
        if type(freed) is int and 0 <= freed < _MOST:
            yield freed


def _said(record: Mapping[str, Any]) -> tuple[str, bool] | None:
    event = record["event"]
    if event in ("migration-ended", "rescue-ended"):
        command = "migrate" if event == "migration-ended" else "rescue"
        return command, record.get("how") in _GOOD_ENDS
    if event == "forgotten":
        return "forget", not record.get("failed")
    return _EVENTS.get(event)


def _seconds(time: object) -> float | None:
    try:
        return datetime.fromisoformat(str(time)).astimezone(UTC).timestamp()
    except (ValueError, OverflowError):
        return None
