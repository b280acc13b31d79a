"""The plan: one object that --dry-run prints and a real run executes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from shardtool.datadir.verdict import Gain, Judged, Reason
from shardtool.proof.receipts import Receipt
from shardtool.prune.policy import BY_WISH, Policy, decide
from shardtool.prune.trash import Leftover


@dataclass(frozen=True)
class Kept:
    """A shard that stays, and why."""

    judged: Judged
    reasons: tuple[Reason, ...]

    @property
    def needs_attention(self) -> bool:
        """It is not as it should be: marked, suspect or unreadable, and kept for more than a wish.

        An unmigrated shard that stays is the normal course of things, and what is no shard
        at all is no business of a prune.
        """
        wrong = self.judged.shard.marker.present
        wrong = wrong or self.judged.verdict in ("suspect", "unreadable")
        wished = any(reason.word in BY_WISH for reason in self.reasons)
        return self.judged.is_shard and wrong and not wished


@dataclass(frozen=True)
class Deletion:
    """A shard that goes, and the evidence on which it does.

    Args:
        judged: the shard.
        evidence: 'proof', 'accepted' or 'marker'.
        receipt: what the proof found, where there was one.
    """

    judged: Judged
    evidence: str
    receipt: Receipt | None = None

    @property
    def name(self) -> str:
        """The shard's name in shard_db."""
        return self.judged.shard.name


@dataclass(frozen=True)
class Plan:
    """What a prune does.

    Args:
        policy: what was asked for.
        finish: what an interrupted run left in the trash; done first.
        unknown: what is in the trash and not known to the journal; left to the operator.
        delete: the shards that go, in this order.
        keep: the shards that stay.
        reclaimable_bytes: what the file system gives back by all of it together.
        free_bytes: what it has free before.
    """

    policy: Policy
    finish: tuple[Leftover, ...]
    unknown: tuple[Leftover, ...]
    delete: tuple[Deletion, ...]
    keep: tuple[Kept, ...]
    reclaimable_bytes: int
    free_bytes: int

    @property
    def falls_short(self) -> bool:
        """--until-free was asked for and can't be reached by what may go."""
        wanted = self.policy.until_free
        return wanted is not None and self.free_bytes + self.reclaimable_bytes < wanted


def make_plan(
    shards: tuple[Judged, ...],
    policy: Policy,
    leftovers: tuple[Leftover, ...],
    receipts: Mapping[str, Receipt],
    *,
    free_bytes: int,
    now_ns: int,
) -> Plan:
    """Given all verdicts and the policy, return the plan.

    The shard whose marker is oldest goes first; with until_free the plan ends with the shard
    that reaches it, and the others are kept as 'enough-free'.

    Args:
        shards: every entry of shard_db with its verdict.
        policy: what was asked for.
        leftovers: what is in the trash.
        receipts: by shard, those that hold now.
        free_bytes: what the file system has free now.
        now_ns: the present moment in ns since the epoch.
    """
    finish = tuple(left for left in leftovers if left.action != "leave")
    waiting = sum(left.reclaimable_bytes for left in finish if left.action == "remove")
    delete: list[Deletion] = []
    keep: list[Kept] = []
    gain = Gain()
    for judged in sorted(shards, key=_by_marker):
        if policy.only is not None and judged.shard.name not in policy.only:
            continue
        decision = decide(judged, policy, now_ns)
        if not decision.evidence:
            keep.append(Kept(judged, decision.reasons))
        elif policy.until_free is not None and (
            free_bytes + waiting + gain.reclaimable_bytes >= policy.until_free
        ):
            words = "enough is free without it"
            keep.append(Kept(judged, (Reason("enough-free", words),)))
        else:
            receipt = receipts.get(judged.shard.name) if decision.evidence != "marker" else None
            delete.append(Deletion(judged, decision.evidence, receipt))
            gain.add(judged)
    return Plan(
        policy,
        finish,
        tuple(left for left in leftovers if left.action == "leave"),
        tuple(delete),
        tuple(sorted(keep, key=lambda kept: kept.judged.shard.name)),
        waiting + gain.reclaimable_bytes,
        free_bytes,
    )


def _by_marker(judged: Judged) -> tuple[int, str]:
    return judged.shard.marker.written_at_ns or 0, judged.shard.name
