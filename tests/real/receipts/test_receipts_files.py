"""Receipts' files: what stands under their names, whose they are, and what killed runs left."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from shardtool.datadir.layout import Layout
from shardtool.proof import receipts as product
from shardtool.proof.receipts import ANSWERS_HOLD, NewSide, Receipt, Receipts
from shardtool.proof.source import RaftCatalogue
from tests.needs import needs_root
from tests.real.receipts.world import RECEIPT, World, document, planted

PLACE = "00007.json"


def test_a_shard_of_more_digits_has_a_receipt_of_its_whole_name(layout: Layout) -> None:
    receipts = Receipts(layout)
    assert receipts.names() == set()
    for shard in ("00007", "1234567"):
        receipts.write(replace(RECEIPT, shard=shard))
    (receipts.directory / "00009.txt").touch()
    assert receipts.names() == {"00007", "1234567"}


def test_a_receipt_is_told_with_the_checksum_that_sha256sum_gives_its_file(layout: Layout) -> None:
    receipts = Receipts(layout)
    assert receipts.read_with_checksum("00007") is None
    receipts.write(RECEIPT)
    content = (receipts.directory / PLACE).read_bytes()
    told = receipts.read_with_checksum("00007")
    assert told == (RECEIPT, hashlib.sha256(content).hexdigest())
    assert planted(layout, content[:-9]).read_with_checksum("00007") is None


def test_the_checksum_in_a_receipt_is_of_its_fields_whatever_their_order(layout: Layout) -> None:
    found = document(layout)
    assert list(found) == sorted(found)
    assert (
        found["sha256"] == "1297cd0a412066febb9f10865b914c88f10af48c517b01651b0f78df5a0a9f8c"
    )  # as receipts have it that are there
    other_way = json.dumps(dict(reversed(found.items()))).encode()
    assert planted(layout, other_way).read("00007") == RECEIPT


@pytest.mark.timeout(20)
def test_nothing_waits_for_a_fifo_under_a_receipts_name_and_a_receipt_takes_its_place(
    layout: Layout,
) -> None:
    receipts = planted(layout, b"")
    (receipts.directory / PLACE).unlink()
    os.mkfifo(receipts.directory / PLACE)
    assert receipts.read("00007") is None
    receipts.write(RECEIPT)
    assert receipts.read("00007") == RECEIPT


def test_a_receipt_is_read_up_to_the_most_bytes_that_one_has(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    receipts = Receipts(layout)
    receipts.write(RECEIPT)
    size = (receipts.directory / PLACE).stat().st_size
    monkeypatch.setattr(product, "_MOST_BYTES", size)
    assert receipts.read("00007") == RECEIPT
    monkeypatch.setattr(product, "_MOST_BYTES", size - 1)
    assert receipts.read("00007") is None


def test_what_killed_runs_had_begun_goes_once_and_nothing_of_a_run_that_lives(
    layout: Layout,
) -> None:
    dead = [f".00008.json.{pid}" for pid in (os.getpid(), 999_999_999, 9 * 10**18)]
    others = [f".00008.json.{os.getppid()}", ".00008.json.0", ".00008.json.x", "00008.json.7", "x"]
    receipts = planted(layout, b"")
    for name in (*dead, *others):
        (receipts.directory / name).touch()
    receipts.write(RECEIPT)
    assert set(os.listdir(receipts.directory)) == {PLACE, *others}
    (receipts.directory / dead[1]).touch()
    receipts.write(RECEIPT)
    assert (receipts.directory / dead[1]).exists()
    Receipts(layout).write(RECEIPT)
    assert set(os.listdir(receipts.directory)) == {PLACE, *others}


@needs_root
def test_a_receipt_that_root_writes_is_its_db_owners(layout: Layout) -> None:
    os.chown(layout.db, 4711, 4712)
    receipts = Receipts(layout)
    receipts.write(RECEIPT)
    for path in (receipts.directory / PLACE, receipts.directory, receipts.directory.parent):
        assert (path.stat().st_uid, path.stat().st_gid) == (4711, 4712), path


def test_a_receipt_that_is_ended_is_gone_and_no_other(layout: Layout) -> None:
    receipts = Receipts(layout)
    for shard in ("00007", "00008"):
        receipts.write(replace(RECEIPT, shard=shard))
    receipts.end("00007")
    assert receipts.names() == {"00008"}
    assert receipts.read("00007") is None
    with pytest.raises(FileNotFoundError):
        receipts.end("00007")


def test_no_look_at_a_receipt_leaves_a_descriptor_open(layout: Layout) -> None:
    receipts = Receipts(layout)
    receipts.write(RECEIPT)
    assert receipts.names() == {"00007"}
    assert [receipts.read(shard) for shard in ("00007", "00008")] == [RECEIPT, None]
    receipts.write(RECEIPT)
    links = [Path("/proc/self/fd") / name for name in os.listdir("/proc/self/fd")]
    targets = [link.readlink() for link in links if link.is_symlink()]
    assert not [path for path in targets if path.is_relative_to(layout.db)]


@pytest.mark.parametrize("ids", ["x", "1-x", "-", ",", "-1"])
def test_a_receipt_of_what_are_no_ranges_of_ids_does_not_hold(ids: str, world: World) -> None:
    receipt = world.prove()
    new_side = NewSide(world.layout, RaftCatalogue(world.layout.raft))
    assert new_side.is_same(receipt)
    assert not new_side.is_same(replace(receipt, finding=replace(receipt.finding, ids=ids)))


def test_answers_hold_from_their_moment_on_and_end_a_day_later_to_the_microsecond(
    world: World,
) -> None:
    finding = replace(world.prove().finding, asked=1)
    new_side = NewSide(world.layout, RaftCatalogue(world.layout.raft))
    tick = timedelta(microseconds=1)
    ages = (-tick, timedelta(), ANSWERS_HOLD - tick, ANSWERS_HOLD)
    held = [new_side.is_same(Receipt("00007", new_side._now - age, finding)) for age in ages]
    assert held == [False, True, True, False]
