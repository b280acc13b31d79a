"""What is no receipt is none, and never makes shardtool fall."""

from __future__ import annotations

import json
import os
import random
import shutil
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardtool.datadir.layout import Layout, find_layout
from shardtool.proof.receipts import NewSide, Receipts
from shardtool.proof.source import RaftCatalogue
from tests.any_json import JSON, change
from tests.real.receipts.world import FINDING, RECEIPT, document, planted, signed


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"1",
        b'"text"',
        b"{}",
        b"\xff\xfe",
        b"\0" * 100,
        b"[" * 1_000_000,
        b'{"a":' * 200_000,
        b"9" * 10_000,
        random.Random(3).randbytes(1000),
    ],
)
def test_garbage_is_no_receipt(content: bytes, layout: Layout) -> None:
    assert planted(layout, content).read("00007") is None


def test_a_receipt_torn_anywhere_is_none(layout: Layout) -> None:
    content = json.dumps(document(layout)).encode()
    for end in range(0, len(content), 13):
        assert planted(layout, content[:end]).read("00007") is None


@pytest.mark.parametrize(
    "changes",
    [
        {"schema": "shardtool/receipt/2"},
        {"schema": None},
        {"shard": "00008"},
        {"shard": 7},
        {"proven_at": 5},
        {"proven_at": "yesterday"},
        {"proven_at": None},
        {"values": "100"},
        {"values": 1.5},
        {"values": True},
        {"values": -1},
        {"values": 3},  # fewer than are lost
        {"missing": "0"},
        {"missing": 0},  # its losses say three
        {"missing": -3},
        {"different": None},
        {"different": 0},
        {"asked": []},
        {"asked": -1},
        {"elsewhere": "no"},
        {"elsewhere": 0},
        {"digest": 5},
        {"losses_digest": None},
        {"old_state": 7},
        {"losses": None},
        {"losses": "text"},
        {"losses": {}},
        {"losses": []},
        {"losses": [5]},
        {"losses": [{}]},
        {"losses": [[]]},
        {"new_states": []},
        {"new_states": None},
        {"new_states": {}},  # 96 values were found, in nothing
        {"new_states": {"00009": 5}},
        {"new_states": {"../shard_db/00007": "c" * 64}},
        {"new_states": {"/etc": "c" * 64}},
        {"extra": 5},
    ],
)
def test_a_field_that_shardtool_does_not_write_makes_it_no_receipt(
    changes: dict[str, Any], layout: Layout
) -> None:
    assert planted(layout, signed(document(layout) | changes)).read("00007") is None


@pytest.mark.parametrize("field", [*RECEIPT.__dict__, *FINDING.__dict__, "schema"])
def test_a_field_that_lacks_makes_it_no_receipt(field: str, layout: Layout) -> None:
    found = document(layout)
    if found.pop(field, None) is not None:
        assert planted(layout, signed(found)).read("00007") is None


@pytest.mark.parametrize(
    "changes",
    [
        {"name": None},
        {"name": {}},
        {"name": {"database": [], "series": "s", "column": "c"}},
        {"name": {"database": "d", "series": 1, "column": "c"}},
        {"cause": "because"},
        {"cause": 5},
        {"missing": "3"},
        {"missing": 4},
        {"different": -1},
        {"first_us": "0"},
        {"extra": 1},
    ],
)
def test_a_loss_that_shardtool_does_not_write_makes_it_no_receipt(
    changes: dict[str, Any], layout: Layout
) -> None:
    found = document(layout)
    found["losses"][0] |= changes
    assert planted(layout, signed(found)).read("00007") is None


@pytest.mark.slow
@settings(max_examples=150)
@given(data=st.data(), value=JSON)
def test_a_mutated_receipt_is_none_or_one_that_can_be_shown(
    data: st.DataObject, value: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("node")
    (directory / "db").mkdir()
    layout = find_layout(str(directory), None, {})
    found = document(layout)
    change(data, found, value)
    receipts = planted(layout, signed(found))
    receipt = receipts.read("00007")
    NewSide(layout, RaftCatalogue(layout.raft))
    if receipt is not None:
        finding = receipt.finding
        assert f"{finding.values:,}".replace(",", "") == str(finding.values)
        assert finding.missing == 3
        assert finding.different == 1
        assert all(isinstance(state, str) for state in finding.new_states.values())
        receipts.holding("00007", NewSide(layout, RaftCatalogue(layout.raft)))
        receipts.write(receipt)
        assert receipts.read("00007") == receipt


@pytest.mark.parametrize("how", ["symlink", "fifo", "directory", "link to the receipts", "huge"])
def test_what_is_no_file_of_its_own_is_no_receipt_and_nothing_waits(
    how: str, layout: Layout
) -> None:
    receipts = Receipts(layout)
    receipts.write(RECEIPT)
    file = receipts.directory / "00007.json"
    if how == "huge":
        os.truncate(file, 1 << 40)
    elif how == "link to the receipts":
        receipts.directory.rename(layout.db / "elsewhere")
        receipts.directory.symlink_to(layout.db / "elsewhere")
    else:
        file.rename(layout.db / "kept.json")
        if how == "symlink":
            file.symlink_to(layout.db / "kept.json")
        elif how == "fifo":
            os.mkfifo(file)
        else:
            file.mkdir()
    assert receipts.read("00007") is None


@pytest.mark.parametrize("name", ["../00007", "00007.json", "", ".", "nothing", "a" * 300])
def test_a_name_without_a_receipt_gives_none(name: str, layout: Layout) -> None:
    Receipts(layout).write(RECEIPT)
    assert Receipts(layout).read(name) is None


def test_another_shards_receipt_under_this_name_is_none(layout: Layout) -> None:
    Receipts(layout).write(RECEIPT)
    directory = Receipts(layout).directory
    shutil.copy(directory / "00007.json", directory / "00008.json")
    assert Receipts(layout).read("00008") is None
