"""Receipts are read as they were written, or an error says that they could not be."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardtool.datadir.layout import Layout, find_layout
from shardtool.errors import ShardtoolError
from shardtool.proof.columns import Name
from shardtool.proof.prove import Loss
from shardtool.proof.receipts import Receipt, Receipts
from tests.conftest import Unprivileged
from tests.real.receipts.world import FINDING, RECEIPT, WHEN


def test_a_receipt_is_read_as_it_was_written(layout: Layout) -> None:
    Receipts(layout).write(RECEIPT)
    assert Receipts(layout).read("00007") == RECEIPT
    assert Receipts(layout).names() == {"00007"}


def test_a_second_receipt_takes_the_firsts_place(layout: Layout) -> None:
    receipts = Receipts(layout)
    receipts.write(RECEIPT)
    later = replace(RECEIPT, proven_at=WHEN + timedelta(days=1))
    receipts.write(later)
    assert receipts.read("00007") == later
    assert [path.name for path in receipts.directory.iterdir()] == ["00007.json"]


def test_writing_leaves_dbs_times_as_they_were(layout: Layout) -> None:
    os.utime(layout.db, ns=(10**18, 10**18))
    Receipts(layout).write(RECEIPT)
    assert layout.db.stat().st_mtime_ns == 10**18


NAMES = st.text(max_size=8) | st.sampled_from(["\udcff", "a~b", "\0", "\x1b[2J"])


COUNT = st.integers(0, 1 << 40)


LOSSES = st.builds(
    Loss,
    name=st.builds(Name, NAMES, NAMES, NAMES),
    values=COUNT,
    missing=COUNT,
    different=COUNT,
    cause=st.sampled_from(["future", "name", "unknown"]),
    first_us=st.integers(-(1 << 63), 1 << 63),
    last_us=st.integers(-(1 << 63), 1 << 63),
)


@settings(max_examples=50)
@given(losses=st.lists(LOSSES, max_size=4), found=st.integers(0, 10), asked=st.integers(0, 10))
def test_any_receipt_of_any_names_is_read_as_it_was_written(
    losses: list[Loss], found: int, asked: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("node")
    (directory / "db").mkdir()
    missing, different = sum(one.missing for one in losses), sum(one.different for one in losses)
    finding = replace(
        FINDING,
        values=missing + different + found + asked,
        missing=missing,
        different=different,
        asked=asked,
        losses=tuple(losses),
    )
    receipts = Receipts(find_layout(str(directory), None, {}))
    receipts.write(Receipt("00007", WHEN, finding))
    assert receipts.read("00007") == Receipt("00007", WHEN, finding)


@pytest.mark.parametrize("place", [".shardtool", ".shardtool/proofs"])
@pytest.mark.parametrize("how", ["file", "link"])
def test_something_in_the_receipts_place_is_an_error(place: str, how: str, layout: Layout) -> None:
    outside = layout.db.parent / "outside"
    outside.mkdir()
    (layout.db / place).parent.mkdir(exist_ok=True)
    if how == "file":
        (layout.db / place).touch()
    else:
        (layout.db / place).symlink_to(outside)
    with pytest.raises(ShardtoolError, match=r"00007\.json"):
        Receipts(layout).write(RECEIPT)
    assert list(outside.iterdir()) == []


def test_without_rights_it_is_an_error_that_says_what_follows(
    public_path: Path, unprivileged: Unprivileged
) -> None:
    (public_path / "db").mkdir(mode=0o755)
    layout = find_layout(str(public_path), None, {})

    def write() -> str:
        try:
            Receipts(layout).write(RECEIPT)
        except ShardtoolError as error:
            return str(error)
        return ""

    assert "Permission denied" in unprivileged(write)


def test_a_write_that_fails_leaves_the_last_receipt(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    receipts = Receipts(layout)
    receipts.write(RECEIPT)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ShardtoolError, match="No space left"):
        receipts.write(replace(RECEIPT, proven_at=WHEN + timedelta(days=1)))
    monkeypatch.undo()
    assert receipts.read("00007") == RECEIPT
    assert [path.name for path in receipts.directory.iterdir()] == ["00007.json"]
