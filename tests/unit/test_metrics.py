"""A node as metrics: what is there, under which name; and nothing on disk breaks the format."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from shardtool.cli.output import safe
from shardtool.cli.standing import Standing
from shardtool.datadir.inventory import NewShard
from shardtool.datadir.verdict import VERDICTS, Evidence
from shardtool.disk.tree import Tree
from shardtool.monitor.metrics import Found, Look, text_of
from shardtool.proof.causes import CAUSES
from shardtool.proof.receipts import Receipt
from shardtool.prune.trash import Leftover
from shardtool.upgrade.stage import STAGES
from tests.unit.monitor_world import (
    MARKED_NS,
    found,
    losing,
    node,
    receipt,
    shard,
    unreadable,
)

Samples = dict[tuple[str, str], float]


def look(what: Found | None, data: str = "/d") -> Look:
    return Look(data, "1.2", at=1_795_000_000.5, seconds=0.25, found=what)


def samples(what: Found | None) -> Samples:
    """Return the samples by name and the value of the label that is not `data`."""
    taken: Samples = {}
    for family in text_string_to_metric_families(text_of(look(what)).decode()):
        for sample in family.samples:
            assert sample.labels["data"] == "/d"
            assert sample.timestamp is None
            (other,) = [v for k, v in sample.labels.items() if k != "data"] or [""]
            taken[sample.name.removeprefix("shardtool_"), other] = sample.value
    return taken


def of(report: Standing, *receipts: Receipt, **settings: Any) -> Samples:
    return samples(found(report, *receipts, **settings))


def test_each_verdict_stage_and_cause_is_there_even_if_nothing_has_it() -> None:
    taken = of(node())
    assert [taken["old_shards", verdict] for verdict in VERDICTS] == [0] * 7
    assert [taken["lost_values", cause] for cause in CAUSES] == [0] * 7
    assert sum(taken["stage", stage] for stage in STAGES) == 1
    assert taken["stage", "migrated"] == 1


def test_shards_are_counted_by_verdict_and_strays_by_themselves() -> None:
    stray = shard(4)
    stray = type(stray)(stray.shard.__class__("lost+found"), "suspect", ())
    taken = of(node(shard(1), shard(2, marked=False), unreadable(3), stray))
    counted = {v: taken["old_shards", v] for v in VERDICTS if taken["old_shards", v]}
    assert counted == {"marked": 1, "unmigrated": 1, "unreadable": 1}
    assert taken["old_stray_entries", ""] == 1
    assert taken["needs_attention", ""] == 1


def test_bytes_are_what_status_says() -> None:
    new = (NewShard("00009", "rocksdb", Tree(allocated_bytes=512)), NewShard("x", error="no"))
    taken = of(node(shard(1), shard(2, Evidence(values=1)), losing(3), new=new))
    assert taken["old_allocated_bytes", ""] == 3 * 4_096
    assert taken["new_allocated_bytes", ""] == 512
    assert taken["reclaimable_bytes", ""] == 2 * 4_096  # not that which loses values
    assert taken["filesystem_size_bytes", ""] == 100_000
    assert taken["filesystem_free_bytes", ""] == 50_000
    assert (taken["new_shards", "rocksdb"], taken["new_shards", "unknown"]) == (1, 1)
    assert taken["new_unreadable_shards", ""] == 1


def test_losses_are_told_by_cause_as_long_as_nobody_has_accepted_them() -> None:
    receipts = receipt(1, day=2, missing=30), receipt(2, day=3, missing=12)
    assert of(node(losing(1), losing(2)), *receipts)["lost_values", "name"] == 42
    one_accepted = of(node(losing(1, accepted=True), losing(2)), *receipts)
    assert one_accepted["lost_values", "name"] == 12
    assert one_accepted["old_accepted_shards", ""] == 1


def test_what_the_migration_has_not_come_to_is_no_loss() -> None:
    waiting = shard(1, Evidence(values=100, missing=100), marked=False)
    assert of(node(waiting), receipt(1, day=2, missing=100))["lost_values", "name"] == 0


def test_the_oldest_and_the_newest_proof_have_times_and_none_has_none() -> None:
    taken = of(node(shard(1), shard(2)), receipt(1, day=2), receipt(2, day=9))
    assert taken["proofs", ""] == 2
    assert taken["oldest_proof_timestamp_seconds", ""] == seconds(2)
    assert taken["newest_proof_timestamp_seconds", ""] == seconds(9)
    without = of(node(shard(1)))
    assert without["proofs", ""] == 0
    assert ("oldest_proof_timestamp_seconds", "") not in without


def seconds(day: int) -> float:
    return datetime(2026, 11, day, tzinfo=UTC).timestamp()


def test_runs_come_from_the_journal_the_receipts_and_the_snapshots() -> None:
    event = {"event": "deleted", "run": "a", "shard": "00001", "freed_bytes": 4_096}
    records = ({"time": "2026-11-02T00:00:00Z", **event},)
    taken = of(node(records=records), last_proof=5.0, snapshots=(7.0, 6.0))
    runs = {key[1]: at for key, at in taken.items() if key[0] == "last_run_timestamp_seconds"}
    assert runs == {"prune": seconds(2), "verify": 5, "backup": 7}
    assert taken["last_run_success", "prune"] == 1
    assert taken["snapshots", ""] == 2
    assert taken["deleted_shards_total", ""] == 1
    assert taken["freed_bytes_total", ""] == 4_096


def test_stage_next_marker_trash_and_problems_are_told() -> None:
    left = (Leftover("a", "00001", "remove", 8, 100), Leftover("b", reclaimable_bytes=20))
    taken = of(node(shard(1), left=left, problems=("a line", "another")))
    assert taken["next_info", "shardtool verify"] == 1
    assert taken["newest_marker_timestamp_seconds", ""] == MARKED_NS / 1e9
    actions = {a: taken["trash_entries", a] for a in ("remove", "put-back", "leave")}
    assert actions == {"remove": 1, "put-back": 0, "leave": 1}
    assert taken["trash_reclaimable_bytes", ""] == 120
    assert taken["own_problems", ""] == 2


def test_a_look_that_failed_says_so_with_its_time_and_nothing_of_before() -> None:
    assert samples(None) == {
        ("build_info", "1.2"): 1,
        ("status_success", ""): 0,
        ("status_last_run_timestamp_seconds", ""): 1_795_000_000.5,
        ("status_duration_seconds", ""): 0.25,
    }
    assert of(node())["status_success", ""] == 1


@given(
    st.one_of(
        st.text(st.characters(codec=None, exclude_categories=())),
        st.binary().map(lambda raw: raw.decode("utf-8", "surrogateescape")),
        st.sampled_from(['/a"b', "/a\\nb", "/a\nb", '/x"} 1\nshardtool_forged 1\n#', "/\x1b[2J"]),
    )
)
def test_a_hostile_name_stays_a_value_of_its_label(name: str) -> None:
    text = text_of(look(found(node(shard(1))), safe(name))).decode()
    plain = text_of(look(found(node(shard(1))))).decode()
    assert text.count("\n") == plain.count("\n")
    for family in text_string_to_metric_families(text):
        assert family.name.startswith("shardtool_")
        assert all(sample.labels["data"] == safe(name) for sample in family.samples)


@pytest.mark.parametrize("what", [None, found(node(shard(1)))])
def test_each_metric_has_a_help_text_and_a_type(what: Found | None) -> None:
    for family in text_string_to_metric_families(text_of(look(what)).decode()):
        assert family.documentation
        assert family.type in ("gauge", "counter")
