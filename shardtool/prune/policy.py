"""What the operator asked for, and which shards that lets go: a pure function of verdicts."""

from __future__ import annotations

from dataclasses import dataclass

from shardtool.datadir.verdict import Judged, Reason

SECOND = 1_000_000_000  # ns

# Reasons that are the operator's own wish: a shard kept for one of them is as it should be.
BY_WISH = ("too-young", "enough-free")


@dataclass(frozen=True)
class Policy:
    """What the operator asked for.

    Args:
        trust_marker: a sound marker is evidence enough (the vendor's guide's own rule).
        older_than: keep what was marked less than this many seconds ago; None for any age.
        until_free: stop when the file system has this many bytes free; None for all.
        only: names of the shards to look at; None for all.
    """

    trust_marker: bool = False
    older_than: int | None = None
    until_free: int | None = None
    only: frozenset[str] | None = None


@dataclass(frozen=True)
class Decision:
    """Whether a shard may go: the evidence if it may, the reasons if it must stay."""

    evidence: str = ""
    reasons: tuple[Reason, ...] = ()


def decide(judged: Judged, policy: Policy, now_ns: int) -> Decision:
    """Given a shard's verdict and the policy, return whether it may go and why.

    A shard goes on evidence alone, and never while a single reason speaks against it: what is
    unreadable, suspect, busy or not marked stays whatever the policy says.

    Args:
        judged: the shard and its verdict.
        policy: what was asked for.
        now_ns: the present moment in ns since the epoch.

    Example: a marked shard with trust_marker -> Decision('marker'); without -> 'not-proven'.
    """
    if judged.verdict != "marked" or judged.reasons:
        return Decision(reasons=judged.reasons)
    if not policy.trust_marker:
        words = "its values have not been looked for in the new storage"
        return Decision(reasons=(Reason("not-proven", words),))
    written = judged.shard.marker.written_at_ns or 0
    if policy.older_than is not None and now_ns - written < policy.older_than * SECOND:
        return Decision(reasons=(Reason("too-young", "marked more recently than asked for"),))
    return Decision("marker")
