"""What receipts are evidence of: of the values that an intent names, and of no one's answers."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from shardtool.journal import History
from shardtool.proof.evidence import Proofs, accepted_in, still_proven
from shardtool.proof.receipts import Receipt
from tests.real.receipts.world import RECEIPT, WHEN, World


def intent_of(receipt: Receipt, evidence: str) -> dict[str, Any]:
    """Return what a prune's journal record says of a proof before the shard is moved."""
    return {"shard": receipt.shard, "evidence": evidence, "digest": receipt.finding.digest}


@pytest.mark.parametrize("evidence", ["proof", "accepted"])
def test_an_intents_proof_holds_while_the_receipt_is_of_its_values_and_was_asked_of_nobody(
    evidence: str, world: World
) -> None:
    receipt = world.prove()
    intent, says = intent_of(receipt, evidence), still_proven(world.layout)
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
