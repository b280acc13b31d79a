"""What the operator asked for, and which shards that lets go: a pure function of verdicts."""

from __future__ import annotations

from dataclasses import dataclass

from shardtool.datadir.verdict import Judged, Reason

SECOND = 1_000_000_000  # ns

# Reasons that an accepted loss has; any other keeps the shard all the same.
_OF_LOSSES = {"values-missing", "values-different", "on-other-servers", "in-other-space"}

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

    A shard goes on evidence alone: a proof, losses that the operator has accepted, or, where
    that was said out loud and no proof says otherwise, the marker. Never while a single reason
    speaks against it: what is unreadable, suspect, busy or not marked stays in any case.

    Args:
        judged: the shard and its verdict.
        policy: what was asked for.
        now_ns: the present moment in ns since the epoch.

    Example: a proven shard -> Decision('proof'); a marked one -> 'not-proven', and with
    trust_marker -> Decision('marker').
    """
    evidence = _evidence(judged, policy)
    if not evidence and judged.verdict != "marked":
        return Decision(reasons=judged.reasons)
    written = judged.shard.marker.written_at_ns or 0
    if policy.older_than is not None and now_ns - written < policy.older_than * SECOND:
        return Decision(reasons=(Reason("too-young", "marked more recently than asked for"),))
    if evidence:
        return Decision(evidence)
    if judged.reasons:
        return Decision(reasons=judged.reasons)
    words = "its values have not been looked for in the new storage"
    return Decision(reasons=(Reason("not-proven", words),))


def _evidence(judged: Judged, policy: Policy) -> str:
    words = {reason.word for reason in judged.reasons}
    if judged.verdict == "proven" and not words:
        return "proof"
    if judged.is_accepted and words <= _OF_LOSSES:
        return "accepted"
    trusted = policy.trust_marker and judged.verdict == "marked" and not words
    return "marker" if trusted else ""
