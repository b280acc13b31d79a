"""What a proof rests on in the catalogue: its digest is kept in receipts, over versions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from shardtool.influxdb.model import Catalogue, Dropped, ShardRange, Space
from shardtool.proof.basis import Basis, basis_now, columns_by_id
from shardtool.proof.columns import Name

WEEK = 7 * 86_400_000_000
SPACES = (
    Space("short", "db", "/^cpu/", "30d", "7d", 1, 1),
    Space("default", "db", "/.*/", "", "", 1, 1),
)
SHARDS = (
    ShardRange(8, "db", "short", 0, WEEK, (2, 1)),
    ShardRange(9, "db", "default", WEEK, 2 * WEEK, (1,)),
)
IDS = {"db": {"cpu": {"host": 1, "n": 2, "v": 3}, "s\udcff": {"c": 7}}}
OTHER = Space("new", "db", "/^mem/", "", "", 1, 1)
CATALOGUE = Catalogue(frozenset({"db"}), IDS, {"db": SPACES}, SHARDS, (), 1, Dropped())


def basis_of(numbers: Iterable[int], shards: Iterable[str], of: Catalogue = CATALOGUE) -> Basis:
    basis, names = Basis(of), columns_by_id(of)
    for number in numbers:
        basis.add_column(number, names[number])
    for shard in shards:
        basis.add_shard(shard)
    return basis


@pytest.mark.parametrize(
    ("numbers", "shards", "digest"),
    [
        ((), (), "beddaf93f796c6f415882df8042d75a2f51825352eff2ae2922b07118cd54de7"),
        ((1,), (), "77354706256936bdc8911bfade60a05d6b40c8c98bda5679d3a0016660622733"),
        ((7,), (), "32edbf64634acbc4670e8491e91ad69252721b11ecb8eeb63d47890a892b0651"),
        ((), ("00008",), "d7869546b95d4acd1068f8c803d4d1cfda1a9cab1c6867b896d36c5252ecc2a3"),
        (
            (1, 2, 3, 7),
            ("00008", "00009"),
            "f02e4b572dc6453a6ff9265b7bb1a43f9a267f6b4a6878edde4a1aadb46459a3",
        ),
    ],
    ids=["nothing", "a column", "a name in no UTF-8", "a shard", "all"],
)
def test_the_same_columns_and_shards_have_the_digest_that_older_receipts_keep(
    numbers: tuple[int, ...], shards: tuple[str, ...], digest: str
) -> None:
    basis = basis_of(numbers, shards)
    assert basis.hexdigest() == digest
    assert basis_of(reversed(numbers), reversed(shards)).hexdigest() == digest
    assert basis_now(CATALOGUE, columns_by_id(CATALOGUE), basis.ids(), shards) == digest


@pytest.mark.parametrize(
    "other",
    [
        {"own_server": 2},
        {"ids": {"db": {"cpu": {"host": 2, "n": 1, "v": 3}, "s\udcff": {"c": 7}}}},
        {"ids": {"db": {"cpu": {"host": 1, "n": 2, "v": 3}}}},
        {"shards": SHARDS[:1]},
        {"shards": (SHARDS[0], replace(SHARDS[1], end_us=3 * WEEK))},
        {"shards": (SHARDS[0], replace(SHARDS[1], space="short"))},
        {"shards": (SHARDS[0], replace(SHARDS[1], servers=(2,)))},
        {"spaces": {"db": SPACES[::-1]}},
        {"spaces": {"db": SPACES[:1]}},
        {"spaces": {"db": (OTHER, *SPACES)}},
        {"spaces": {"db": (replace(SPACES[0], regex="/^c/"), SPACES[1])}},
    ],
)
def test_with_whatever_of_it_is_another_in_the_catalogue_the_digest_is_another(
    other: dict[str, Any],
) -> None:
    basis = basis_of((1, 2, 3, 7), ("00008", "00009"))
    now = replace(CATALOGUE, **other)
    assert basis_now(now, columns_by_id(now), basis.ids(), ("00008", "00009")) not in (
        basis.hexdigest(),
        "",
    )


@pytest.mark.parametrize(
    ("numbers", "ids"),
    [
        ((), ""),
        ((7,), "7"),
        ((1, 3), "1,3"),
        ((3, 1, 2), "1-3"),
        ((1, 2), "1-2"),
        ((7, 2, 1), "1-2,7"),
        ((0, (1 << 64) - 1), "0,18446744073709551615"),
    ],
)
def test_ids_are_told_as_the_shortest_ranges_that_hold_no_other(
    numbers: tuple[int, ...], ids: str
) -> None:
    basis = Basis(CATALOGUE)
    for number in numbers:
        basis.add_column(number, Name("db", "s", f"c{number}"))
    assert basis.ids() == ids


def test_a_range_of_more_ids_than_there_are_has_no_digest() -> None:
    by_id = {number: Name("db", "s", f"c{number}") for number in (1, 2)}
    assert basis_now(CATALOGUE, by_id, "1-2", ()) not in ("", Basis(CATALOGUE).hexdigest())
    assert basis_now(CATALOGUE, by_id, "1-3", ()) == ""
    assert basis_now(CATALOGUE, {}, "1", ()) == ""


@pytest.mark.parametrize("ids", ["x", ",", "1,", "-", "-1", "1-2-3", "1-x"])
def test_what_is_no_range_is_an_error(ids: str) -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        basis_now(CATALOGUE, columns_by_id(CATALOGUE), ids, ())
