"""Parquet's rows: windows are collected, so that a series costs what it has."""

from __future__ import annotations

import io
from typing import Any

import pytest

from shardtool.export.left import Left
from shardtool.export.parquet import Parquet, Sink
from tests.unit.test_export_line import Points, window_of

parquet: Any = pytest.importorskip(
    "pyarrow.parquet", reason="an extra, which not every Python here has"
)


def test_small_windows_are_collected_and_told_with_the_batch_that_has_them() -> None:
    left = Left("00001")
    writer = Parquet(left)
    file = io.BytesIO()
    sink = Sink(file)
    series = [f"s{number:05}" for number in range(9000)]
    batches = told_points = told_values = 0
    for name in series:
        points: Points = {(1, 1): {"v": name, "w": 1}, (2, 1): {"w": 2.5}}
        content, more_points, more_values = writer.written(window_of(name, points))
        assert bool(content) == bool(more_values)
        if content:
            batches += 1
            sink.write(content)
        told_points, told_values = told_points + more_points, told_values + more_values
    content, more_points, more_values = writer.rest()
    sink.write(content)
    sink.close()
    assert batches == 1
    assert (told_points + more_points, told_values + more_values) == (18_000, 27_000)
    assert writer.rest() == (b"", 0, 0)
    rows = parquet.read_table(io.BytesIO(file.getvalue())).to_pylist()
    assert [row["series"] for row in rows] == [name for name in series for _ in range(3)]
    assert {row["database"] for row in rows} == {"db"}
    assert [
        (row["column"], row["value_string"], row["value_int"], row["value_float"])
        for row in rows[:3]
    ] == [("v", "s00000", None, None), ("w", None, 1, None), ("w", None, None, 2.5)]


def test_large_values_are_not_collected_for_long() -> None:
    writer = Parquet(Left("00001"))
    held = most = 0
    for number in range(100):
        held += 1
        _, _, values = writer.written(window_of("s", {(number, 1): {"v": "x" * 200_000}}))
        held -= values
        most = max(most, held)
    assert most <= 25
