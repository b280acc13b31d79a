"""The journal tells which shards are gone, on what evidence, and what was accepted."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from shardtool.report.past import accepted_losses, deleted_shards
from tests.any_json import JSON

PROOF = {"evidence": "proof", "values": 100, "missing": 0, "different": 0, "digest": "d"}
INTENT = {"event": "intent", "shard": "00001", "trash": "00001.run", **PROOF}


def test_a_deleted_shard_is_gone_with_its_proof() -> None:
    (one,) = deleted_shards(
        [INTENT, {"event": "deleted", "shard": "00001", "time": "T", "freed_bytes": 5, **PROOF}], ()
    )
    assert (one.id, one.at, one.evidence, one.values, one.freed_bytes) == (
        "00001", "T", "proof", 100, 5,
    )  # fmt: skip


def test_what_a_later_run_finished_has_the_evidence_of_its_intent() -> None:
    finished = {"event": "finished", "shard": "00001", "trash": "00001.run.below.3"}
    (one,) = deleted_shards([INTENT, finished], ())
    assert (one.evidence, one.values, one.digest) == ("proof", 100, "d")


def test_a_shard_that_is_there_again_is_not_gone() -> None:
    deleted = {"event": "deleted", "shard": "00001"}
    put_back = {"event": "put-back", "shard": "00001"}
    assert deleted_shards([deleted], {"00001"}) == ()
    assert deleted_shards([deleted, put_back], ()) == ()
    assert deleted_shards([INTENT, {"event": "renamed", "shard": "00001"}], ()) == ()


def test_the_last_word_on_a_shards_losses_counts() -> None:
    records = [
        {"event": "accepted", "shard": "00001", "because": why, "missing": 3} for why in "ab"
    ]
    (one,) = accepted_losses(records, {"00001"})
    assert (one.because, one.missing, one.holds) == ("b", 3, True)
    assert not accepted_losses(records, ())[0].holds


EVENTS = st.sampled_from(["intent", "renamed", "deleted", "finished", "put-back", "accepted", "x"])
RECORDS = st.dictionaries(
    st.sampled_from(["shard", "trash", "time", "evidence", "values", "missing", "because"]),
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | JSON,
    max_size=4,
)


@given(st.lists(st.tuples(EVENTS, RECORDS), max_size=5))
def test_whatever_is_in_a_journal_it_is_read(found: list[tuple[str, dict[str, Any]]]) -> None:
    records = [{**record, "event": event} for event, record in found]
    for gone in deleted_shards(records, ()):
        assert isinstance(gone.id, str)
        assert gone.values is None or 0 <= gone.values < 1 << 63
    for one in accepted_losses(records, ()):
        assert isinstance(one.because, str)
        assert one.values >= 0
