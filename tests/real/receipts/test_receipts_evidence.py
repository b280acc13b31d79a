"""What receipts and proofs are evidence of, and what can be proven at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from shardtool.datadir.inventory import OldShard, take_inventory
from shardtool.datadir.layout import Layout
from shardtool.datadir.marker import Marker
from shardtool.datadir.verdict import Evidence, Reason
from shardtool.disk.locks import Lock, LockState
from shardtool.influxdb.model import Catalogue, Dropped
from shardtool.journal import History
from shardtool.proof import evidence
from shardtool.proof.causes import CAUSES
from shardtool.proof.evidence import (
    Proofs,
    accepted_in,
    held,
    is_readable,
    local_shards,
    prove_shards,
    still_proven,
)
from shardtool.proof.listing import Listing
from shardtool.proof.prove import Question
from shardtool.proof.receipts import Receipt
from shardtool.proof.run import Job, Outcome, Setting
from tests.conftest import Hold
from tests.real.receipts.world import RECEIPT, WHEN, Quiet, World


def intent_of(receipt: Receipt, by: str) -> dict[str, Any]:
    """Return what a prune's journal record says of a proof before the shard is moved."""
    return {"shard": receipt.shard, "evidence": by, "digest": receipt.finding.digest}


@pytest.mark.parametrize("by", ["proof", "accepted"])
def test_an_intents_proof_holds_while_the_receipt_is_of_its_values_and_was_asked_of_nobody(
    by: str, world: World
) -> None:
    receipt = world.prove()
    intent, says = intent_of(receipt, by), still_proven(world.layout)
    assert says(intent)
    for other in ({"digest": "f" * 64}, {"asked": 1}):
        finding = replace(receipt.finding, **other)
        world.receipts.write(Receipt(receipt.shard, datetime.now(UTC), finding))
        assert world.holds()
        assert not says(intent), other
    world.receipts.write(receipt)
    assert says(intent)


def test_an_intent_that_names_no_values_or_no_receipt_has_no_proof(world: World) -> None:
    says, receipt = still_proven(world.layout), world.prove()
    intent = intent_of(receipt, "proof")
    assert not says({name: intent[name] for name in ("shard", "evidence")})
    assert not says(intent | {"shard": "00008"})
    assert says({"shard": "00008", "evidence": "marker"})


def test_what_rests_on_others_answers_is_left_out_of_all_that_is_known_and_nothing_else() -> None:
    proofs = Proofs()
    for shard, asked in (("00001", 0), ("00002", 1), ("00003", 0)):
        proofs.add(Receipt(shard, WHEN, replace(RECEIPT.finding, asked=asked)))
        proofs.reused.add(shard)
    proofs.forget_answers()
    known = (set(proofs.receipts), set(proofs.evidence), proofs.reused)
    assert known == ({"00001", "00003"},) * 3


@pytest.mark.parametrize(
    ("other", "holds"),
    [
        ({}, True),
        ({"shard": "00008"}, False),
        ({"digest": "f" * 64}, False),
        ({"losses_digest": "f" * 64}, False),
    ],
    ids=["the same", "another shard", "other values", "other losses"],
)
def test_losses_are_accepted_of_one_shard_with_its_values_and_its_losses(
    other: dict[str, str], holds: bool
) -> None:
    finding = RECEIPT.finding
    digests = {"digest": finding.digest, "losses_digest": finding.losses_digest}
    record = {"event": "accepted", "shard": RECEIPT.shard, **digests, **other}
    proofs = Proofs(accepted_in(History((record,))))
    proofs.add(RECEIPT)
    assert proofs.evidence[RECEIPT.shard].accepted is holds


@pytest.mark.parametrize("other", [{"values": 200}, {"elsewhere": True}, {"unasked": True}, {}])
def test_evidence_is_what_the_proof_found_and_what_nobody_wanted_gone_can_be_rescued(
    other: dict[str, Any],
) -> None:
    losses = [replace(RECEIPT.finding.losses[0], cause=cause) for cause in CAUSES]
    found: dict[str, Any] = {"values": 100, "missing": 3 * len(losses), "different": 1} | other
    proofs = Proofs()
    proofs.add(replace(RECEIPT, finding=replace(RECEIPT.finding, losses=tuple(losses), **found)))
    rescuable = 3 * (len(losses) - len({"expired", "dropped"}))
    assert proofs.evidence == {RECEIPT.shard: Evidence(**found, rescuable=rescuable)}


def test_a_failure_is_all_that_is_known_of_its_shard_and_nobodys_work_unless_it_is_said() -> None:
    proofs, failure = Proofs(), Reason("engine-unreadable", "why")
    proofs.fail("00001", failure)
    proofs.fail("00002", failure, busy=True)
    assert (proofs.receipts, proofs.evidence["00001"]) == ({}, Evidence(failure=failure))
    assert proofs.evidence["00002"] == Evidence(failure=failure, busy=True)


def test_only_what_was_found_as_a_receipt_that_holds_is_told_to_be_reused(world: World) -> None:
    assert held(world.layout, ["00007"], History(())).reused == set()
    receipt = world.prove()
    proofs = held(world.layout, ["00007", "00008"], History(()))
    assert (proofs.reused, proofs.receipts) == ({"00007"}, {"00007": receipt})
    assert held(world.layout, ["00008"], History(())).receipts == {}


# -- what is asked of a proof, and how it ends --


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Question]:
    """Return the questions of a run, which ends each shard in another way; no child is started."""
    found: list[Question] = []

    def ends(jobs: Sequence[Job], *rest: object) -> Iterator[Outcome]:
        found.extend(job.question for job in jobs)
        yield Outcome(RECEIPT.shard, RECEIPT.finding)
        for word in ("engine-unreadable", "changing", "in-use"):
            yield Outcome(word, None, word, f"detail of {word}")

    monkeypatch.setattr(evidence, "prove_all", ends)
    return found


SETTING = Setting(Catalogue(frozenset(), {}, {}, (), (), 1, Dropped()), {})
MARKED_NS = 1_795_000_000_123_456_789


@pytest.mark.parametrize("lister", [None, Listing])
def test_a_proof_is_asked_with_the_markers_moment_and_now_in_whole_microseconds(
    lister: type[Listing] | None, layout: Layout, asked: list[Question]
) -> None:
    shards = [OldShard("00007", marker=Marker(True, MARKED_NS)), OldShard("00008")]
    before = int(datetime.now(UTC).timestamp() * 1_000_000)
    list(prove_shards(shards, layout, SETTING, Proofs(), Quiet(), lister=lister))
    after = int(datetime.now(UTC).timestamp() * 1_000_000)
    assert [question.shard.name for question in asked] == ["00007", "00008"]
    assert [question.marked_us for question in asked] == [MARKED_NS // 1000, None]
    assert all(before <= question.now_us <= after for question in asked)
    assert {question.listing for question in asked} == {lister is not None}


def test_a_shard_that_can_not_be_proven_is_busy_unless_its_files_are_what_is_wrong(
    layout: Layout, asked: list[Question]
) -> None:
    proofs = Proofs()
    ended = list(prove_shards([], layout, SETTING, proofs, Quiet()))
    assert ended == [RECEIPT.shard, "engine-unreadable", "changing", "in-use"]
    assert proofs.receipts.keys() == {RECEIPT.shard}
    for word in ended[1:]:
        failure = Reason(word, f"detail of {word}")
        assert proofs.evidence[word] == Evidence(failure=failure, busy=word != "engine-unreadable")


# -- what can be read --


def test_an_lmdb_is_in_use_while_another_process_holds_its_lock_and_no_other_engine_is(
    layout: Layout, hold: Hold
) -> None:
    for name, engine in (("00001", "lmdb"), ("00002", "lmdb"), ("00003", "leveldb")):
        shard = layout.new_shards / name
        shard.mkdir(parents=True)
        (shard / "type").write_text(engine)
        (shard / "lock.mdb").touch()
    inventory = take_inventory(layout)
    for name in ("00001", "00003"):
        hold(layout.new_shards / name / "lock.mdb", "lock")
    in_use = {name: local.in_use for name, local in local_shards(layout, inventory).items()}
    assert in_use == {"00001": True, "00002": False, "00003": False}
    shutil.rmtree(layout.new_shards / "00002")  # since the inventory
    assert not local_shards(layout, inventory)["00002"].in_use


@pytest.mark.parametrize(
    ("other", "readable"),
    [
        ({}, True),
        ({"foreign": ("lost+found",), "lock": LockState(Lock.UNKNOWN)}, True),
        ({"has_database": False}, False),
        ({"kind": "symlink"}, False),
        ({"kind": "symlink", "has_database": False}, False),
        ({"error": "Permission denied"}, False),
        ({"mounts": ("/data/db/shard_db/00007/below",)}, False),
        ({"lock": LockState(Lock.HELD, 17)}, False),
    ],
)
def test_a_directory_with_a_database_is_read_unless_it_is_mounted_on_or_held(
    other: dict[str, Any], readable: bool
) -> None:
    assert is_readable(replace(OldShard("00007", has_database=True), **other)) is readable
