"""Which shards a prune takes, and in which order: pure functions of verdicts."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardtool.datadir.inventory import OldShard
from shardtool.datadir.marker import Marker
from shardtool.datadir.verdict import Evidence, Judged, Reason, judge, reclaimable_together
from shardtool.disk.locks import Lock, LockState
from shardtool.disk.tree import LinkedFile, Tree, reclaimable_links
from shardtool.proof.prove import Finding
from shardtool.proof.receipts import Receipt
from shardtool.prune.plan import Plan, make_plan
from shardtool.prune.policy import SECOND, Policy, decide
from shardtool.prune.trash import Leftover

NOW = 1_500_000_000 * SECOND
DAY = 86_400
FINDING = Finding(10, 0, 0, 0, (), False, False, "", "", "old", {"00008": "new"}, "1", "basis")
TRUST = Policy(trust_marker=True)


def shard(number: int, *, marked: int = 10, size: int = 100, **facts: Any) -> Judged:
    """Judge a shard that was marked `marked` days ago and gives back `size` bytes."""
    found = OldShard(
        f"{number:05}",
        marker=Marker(True, NOW - marked * DAY * SECOND),
        tree=Tree(allocated_bytes=size, reclaimable_bytes=size),
        has_database=True,
    )
    return judge(replace(found, **facts))


def plan_of(
    *shards: Judged, policy: Policy = TRUST, free: int = 0, leftovers: tuple[Leftover, ...] = ()
) -> Plan:
    """Make a plan at NOW."""
    return make_plan(shards, policy, leftovers, {}, free_bytes=free, now_ns=NOW)


def deleted(plan: Plan) -> list[str]:
    """Return the names of what goes, in order."""
    return [deletion.name for deletion in plan.delete]


def kept(plan: Plan) -> dict[str, list[str]]:
    """Return the reasons' words by what stays."""
    return {k.judged.shard.name: [r.word for r in k.reasons] for k in plan.keep}


def test_a_marker_alone_is_no_evidence() -> None:
    assert kept(plan_of(shard(7), policy=Policy())) == {"00007": ["not-proven"]}


def test_trusting_the_marker_has_to_be_said_and_is_the_evidence_then() -> None:
    plan = plan_of(shard(7))
    assert [(d.name, d.evidence) for d in plan.delete] == [("00007", "marker")]


@pytest.mark.parametrize(
    "facts",
    [
        {"marker": Marker()},
        {"marker": Marker(True, 1, "marker-content", "an empty file")},
        {"foreign": ("notes",)},
        {"lock": LockState(Lock.HELD, 1)},
        {"lock": LockState(Lock.UNKNOWN)},
        {"error": "EIO"},
        {"kind": "symlink"},
        {"mounts": ("/x",)},
    ],
)
def test_trust_does_not_reach_a_shard_that_anything_speaks_against(
    facts: dict[str, Any],
) -> None:
    plan = plan_of(shard(7, **facts))
    assert deleted(plan) == []
    assert kept(plan)["00007"]


def test_a_verdict_that_policy_has_never_heard_of_is_kept() -> None:
    odd = replace(shard(7), verdict="proven?", reasons=(Reason("strange"),))
    assert decide(odd, TRUST, NOW).evidence == ""


@pytest.mark.parametrize(("days", "goes"), [(6, False), (7, True), (8, True)])
def test_older_than_counts_from_the_marker(days: int, goes: bool) -> None:
    plan = plan_of(shard(7, marked=days), policy=replace(TRUST, older_than=7 * DAY))
    assert bool(plan.delete) is goes
    assert kept(plan) == ({} if goes else {"00007": ["too-young"]})


def test_a_marker_from_the_future_is_too_young_for_any_age() -> None:
    plan = plan_of(shard(7, marked=-1), policy=replace(TRUST, older_than=0))
    assert kept(plan) == {"00007": ["too-young"]}


def test_age_does_not_make_up_for_proof() -> None:
    plan = plan_of(shard(7, marked=8), policy=Policy(older_than=7 * DAY))
    assert kept(plan) == {"00007": ["not-proven"]}


def test_what_is_too_young_is_not_asked_for_a_proof() -> None:
    plan = plan_of(shard(7, marked=1), policy=Policy(older_than=7 * DAY))
    assert kept(plan) == {"00007": ["too-young"]}


def test_the_shard_whose_marker_is_oldest_goes_first() -> None:
    assert deleted(plan_of(shard(1, marked=1), shard(2, marked=9), shard(3, marked=5))) == [
        "00002",
        "00003",
        "00001",
    ]


def test_of_two_that_were_marked_together_the_lower_number_goes_first() -> None:
    assert deleted(plan_of(shard(2), shard(1))) == ["00001", "00002"]


def test_until_free_stops_with_the_shard_that_reaches_it() -> None:
    plan = plan_of(shard(1), shard(2), shard(3), policy=replace(TRUST, until_free=150))
    assert deleted(plan) == ["00001", "00002"]
    assert kept(plan) == {"00003": ["enough-free"]}


def test_until_free_takes_nothing_where_enough_is_free_already() -> None:
    plan = plan_of(shard(1), policy=replace(TRUST, until_free=150), free=150)
    assert deleted(plan) == []


def test_until_free_counts_what_is_waiting_in_the_trash() -> None:
    left = Leftover("00009.run", "00009", "remove", 8, reclaimable_bytes=150)
    plan = plan_of(shard(1), policy=replace(TRUST, until_free=150), leftovers=(left,))
    assert (deleted(plan), plan.finish, plan.reclaimable_bytes) == ([], (left,), 150)


def test_until_free_does_not_count_what_goes_back_to_its_place() -> None:
    left = Leftover("00009.run", "00009", "put-back", 8, reclaimable_bytes=150)
    plan = plan_of(shard(1), policy=replace(TRUST, until_free=150), leftovers=(left,))
    assert (deleted(plan), plan.reclaimable_bytes) == (["00001"], 100)


def test_a_plan_that_cannot_reach_its_aim_says_so() -> None:
    policy = replace(TRUST, until_free=150)
    assert plan_of(shard(1), policy=policy).falls_short
    assert not plan_of(shard(1), policy=policy, free=50).falls_short
    assert not plan_of(shard(1)).falls_short


def test_what_the_journal_does_not_know_is_no_part_of_a_plan() -> None:
    assert plan_of(leftovers=(Leftover("lost+found"),)).finish == ()


def test_what_the_journal_does_not_know_is_told_apart_from_what_is_finished() -> None:
    stray, begun = Leftover("lost+found"), Leftover("00001.run", "00001", "remove")
    plan = plan_of(leftovers=(stray, begun))
    assert (plan.finish, plan.unknown) == ((begun,), (stray,))


def test_why_an_unmarked_shard_stays_is_told_before_its_age() -> None:
    plan = plan_of(shard(7, marker=Marker()), policy=replace(TRUST, older_than=DAY))
    assert kept(plan) == {"00007": ["no-marker"]}


def test_a_suspect_shard_is_no_wish_however_young() -> None:
    young = shard(7, marked=1, foreign=("notes",))
    (stays,) = plan_of(young, policy=replace(TRUST, older_than=2 * DAY)).keep
    assert ([reason.word for reason in stays.reasons], stays.needs_attention) == (
        ["foreign-files"],
        True,
    )


def test_what_speaks_against_a_marked_shard_is_told_before_that_nothing_is_proven() -> None:
    doubted = Judged(shard(7).shard, "marked", (Reason("lock-unknown", "nobody can tell"),))
    assert decide(doubted, TRUST, NOW).reasons == doubted.reasons


def test_only_what_was_named_is_looked_at() -> None:
    plan = plan_of(shard(1), shard(2), policy=replace(TRUST, only=frozenset({"00002"})))
    assert (deleted(plan), kept(plan)) == (["00002"], {})


def test_a_file_that_two_shards_share_is_counted_when_both_go() -> None:
    half = LinkedFile(1, 7, links=2, seen=1, allocated_bytes=4096)
    pair = [shard(n, tree=Tree(linked=(half,))) for n in (1, 2)]
    assert plan_of(pair[0]).reclaimable_bytes == 0
    assert plan_of(*pair).reclaimable_bytes == 4096


@pytest.mark.parametrize(
    ("facts", "policy", "attention"),
    [
        ({}, Policy(), True),
        ({"marker": Marker()}, TRUST, False),
        ({"error": "EIO", "marker": Marker()}, TRUST, True),
        ({"foreign": ("notes",)}, TRUST, True),
        ({"foreign": ("notes",), "marker": Marker()}, TRUST, True),
        ({}, replace(TRUST, older_than=999 * DAY), False),
        ({}, replace(TRUST, until_free=0), False),
        ({"name": "lost+found"}, TRUST, False),
    ],
)
def test_a_kept_shard_needs_attention_unless_that_was_wished_for(
    facts: dict[str, Any], policy: Policy, attention: bool
) -> None:
    (stays,) = plan_of(shard(7, **facts), policy=policy).keep
    assert stays.needs_attention is attention


# -- any shards, any policy --

FACTS: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [
        {},
        {},
        {},
        {},
        {"marker": Marker()},
        {"foreign": ("x",)},
        {"error": "EIO"},
        {"lock": LockState(Lock.UNKNOWN)},
        {"lock": LockState(Lock.HELD)},
        {"has_database": False},
    ]
)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Judged, ...]:
    """Draw shards of different ages and sizes, some sharing files."""
    numbers = draw(st.lists(st.integers(1, 99_999), unique=True, max_size=12))
    found = []
    for number in numbers:
        linked = tuple(
            LinkedFile(1, inode, 2, 1, 1000 * inode)
            for inode in draw(st.sets(st.integers(1, 3), max_size=2))
        )
        single = draw(st.integers(0, 500))
        tree = Tree(reclaimable_bytes=single + reclaimable_links(linked), linked=linked)
        age = draw(st.integers(-2, 30))
        found.append(shard(number, marked=age, tree=tree, **draw(FACTS)))
    return tuple(found)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """Draw what an operator may ask for."""
    return Policy(
        draw(st.booleans()),
        draw(st.none() | st.integers(0, 20 * DAY)),
        draw(st.none() | st.integers(0, 5000)),
        draw(st.none() | st.frozensets(st.integers(1, 99_999).map("{:05}".format))),
    )


@given(worlds(), policies(), st.integers(0, 3000))
def test_each_shard_goes_or_stays_and_never_both(
    shards: tuple[Judged, ...], policy: Policy, free: int
) -> None:
    plan = plan_of(*shards, policy=policy, free=free)
    looked_at = [s.shard.name for s in shards if policy.only is None or s.shard.name in policy.only]
    assert sorted([*deleted(plan), *kept(plan)]) == sorted(looked_at)


@given(worlds(), policies(), st.integers(0, 3000))
def test_nothing_goes_that_anything_speaks_against(
    shards: tuple[Judged, ...], policy: Policy, free: int
) -> None:
    for deletion in plan_of(*shards, policy=policy, free=free).delete:
        assert policy.trust_marker
        assert deletion.judged.verdict == "marked"
        assert not deletion.judged.reasons
        assert deletion.evidence


@given(worlds(), policies(), st.integers(0, 3000))
def test_every_shard_that_stays_has_a_reason(
    shards: tuple[Judged, ...], policy: Policy, free: int
) -> None:
    assert all(k.reasons for k in plan_of(*shards, policy=policy, free=free).keep)


@given(worlds(), st.integers(0, 6000), st.integers(0, 3000))
def test_until_free_never_takes_a_shard_more_than_it_needs(
    shards: tuple[Judged, ...], wanted: int, free: int
) -> None:
    plan = plan_of(*shards, policy=replace(TRUST, until_free=wanted), free=free)
    for count in range(len(plan.delete)):
        so_far = reclaimable_together(tuple(d.judged for d in plan.delete[:count]))
        assert free + so_far < wanted
    if any("enough-free" in reasons for reasons in kept(plan).values()):
        assert free + plan.reclaimable_bytes >= wanted


@given(worlds(), policies(), st.integers(0, 3000), st.randoms())
def test_the_order_of_the_scan_does_not_matter(
    shards: tuple[Judged, ...], policy: Policy, free: int, random: Random
) -> None:
    shuffled = list(shards)
    random.shuffle(shuffled)
    there = plan_of(*shards, policy=policy, free=free)
    assert plan_of(*shuffled, policy=policy, free=free) == there
    markers = [d.judged.shard.marker.written_at_ns or 0 for d in there.delete]
    assert markers == sorted(markers)


# -- on evidence of a proof --


def proven(number: int, **found: Any) -> Judged:
    """Judge a marked shard of ten values with what a proof of it found."""
    return judge(shard(number).shard, Evidence(values=10, **found))


@pytest.mark.parametrize("trust", [False, True])
def test_a_proven_shard_goes_on_its_proof(trust: bool) -> None:
    plan = plan_of(proven(7), policy=Policy(trust_marker=trust))
    assert [deletion.evidence for deletion in plan.delete] == ["proof"]


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize("found", [{"missing": 1}, {"different": 1}])
def test_a_shard_that_is_known_to_lose_values_stays_whatever_is_trusted(
    trust: bool, found: dict[str, int]
) -> None:
    plan = plan_of(proven(7, **found), policy=Policy(trust_marker=trust))
    assert kept(plan) == {"00007": [f"values-{next(iter(found))}"]}


def test_accepted_losses_let_a_shard_go() -> None:
    plan = plan_of(proven(7, missing=1, accepted=True), policy=Policy())
    assert [deletion.evidence for deletion in plan.delete] == ["accepted"]


def test_acceptance_covers_every_loss_at_once() -> None:
    words = ("values-missing", "values-different", "on-other-servers", "in-other-space")
    reasons = tuple(Reason(word, word) for word in words)
    accepted = Evidence(values=10, missing=1, different=1, accepted=True)
    judged = Judged(shard(7).shard, "incomplete", reasons, accepted)
    assert decide(judged, Policy(), NOW).evidence == "accepted"


@pytest.mark.parametrize(
    ("judged", "is_carried"),
    [(proven(7), True), (proven(7, missing=1, accepted=True), True), (shard(7), False)],
)
def test_a_deletion_carries_the_receipt_that_it_rests_on(judged: Judged, is_carried: bool) -> None:
    receipt = Receipt("00007", datetime(2026, 11, 24, tzinfo=UTC), FINDING)
    plan = make_plan((judged,), TRUST, (), {"00007": receipt}, free_bytes=0, now_ns=NOW)
    assert [deletion.receipt for deletion in plan.delete] == [receipt if is_carried else None]


@pytest.mark.parametrize(
    "facts",
    [
        {"foreign": ("notes",)},
        {"marker": Marker()},
        {"lock": LockState(Lock.HELD)},
        {"lock": LockState(Lock.UNKNOWN)},
        {"error": "Input/output error"},
    ],
)
@pytest.mark.parametrize("found", [{}, {"missing": 1, "accepted": True}])
def test_neither_proof_nor_acceptance_outweighs_what_else_speaks_against_it(
    facts: dict[str, Any], found: dict[str, Any]
) -> None:
    judged = judge(shard(7, **facts).shard, Evidence(values=10, **found))
    assert plan_of(judged, policy=Policy()).delete == ()


def test_age_holds_for_proven_shards_too() -> None:
    plan = plan_of(proven(7), policy=Policy(older_than=11 * DAY))
    assert kept(plan) == {"00007": ["too-young"]}


def test_an_unproven_shard_with_a_doubt_about_its_marker_is_not_trusted() -> None:
    doubted = shard(7, tree=Tree(newer=("000005.ldb",)))
    assert kept(plan_of(doubted)) == {"00007": ["written-after-marker"]}
    assert doubted.is_marked and not shard(7, foreign=("notes",)).is_marked
