"""What a check tells: findings, each with a level and what to do about it. Pure values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

LEVELS = ("info", "warning", "blocker")
"""From least to worst."""


@dataclass(frozen=True)
class Finding:
    """One thing to know before the next step.

    Args:
        id: a short fixed word that scripts match and `migrate --override` takes.
        level: one of LEVELS.
        subject: what it is about: a shard, a space, a directory, 'raft', 'wal', 'server'.
        message: what was expected and found, in a line.
        advice: what to do; empty where there is nothing to do.
    """

    id: str
    level: str
    subject: str
    message: str
    advice: str = ""

    @property
    def blocks(self) -> bool:
        """The next step must not be taken before this is put right, or overridden by its id."""
        return self.level == "blocker"


def worst_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return findings with blockers before warnings before the rest, otherwise as they came."""
    return tuple(sorted(findings, key=lambda one: -LEVELS.index(one.level)))
