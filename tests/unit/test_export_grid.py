"""Any grid of points and columns, read in windows of any size: the same lines, and memory of what
is there, not of points times columns."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fixtures.encode import field_value
from shardtool.export import windows as module
from shardtool.export.columns import Selection
from shardtool.export.fieldtypes import FieldTypes
from shardtool.export.json08 import Json08
from shardtool.export.left import Left
from shardtool.export.line import Line, Sequences, Style
from shardtool.export.values import Value
from shardtool.export.windows import Part, Place, Window, place_of, windows
from tests.unit.test_export_windows import Cell, Memory, columns, key_of

Grid = dict[Cell, Value]

_VALUES = st.one_of(st.sampled_from([1, 2.5, "x", True, float("nan")]), st.just(0.5))
GRIDS = st.dictionaries(
    st.tuples(st.integers(1, 4), st.integers(0, 6), st.integers(0, 3)), _VALUES, max_size=60
)
STYLES = st.builds(Style, st.sampled_from(["auto", "tag", "field", "none"]), st.booleans())


def found_in(grid: Grid, pairs: int, after: Place | None = None) -> Iterator[Window]:
    """Yield the windows of a grid, of so many pairs or a few more."""
    reader = Memory([(key_of(cell), field_value(value)) for cell, value in grid.items()])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_PAIRS", pairs)
        patch.setattr(module, "_LEAST_SHARE", 1)
        yield from windows(reader, columns(4), Selection(), after)


def written(
    found: Sequence[Window], style: Style, types: FieldTypes | None = None
) -> tuple[str, list[str], int, int]:
    """Return lines, what is left in some order, and how many points and values were told."""
    left = Left("00001")
    writer = Line(left, style, types)
    text, points, values = "", 0, 0
    for window in found:
        content, more_points, more_values = writer.written(window)
        text, points, values = text + content.decode(), points + more_points, values + more_values
    return text, sorted(left.take().decode().splitlines()), points, values


@given(grid=GRIDS, pairs=st.integers(1, 40), style=STYLES)
@example({(1, 1, 1): 1, (1, 1, 2): "x", (2, 1, 2): 1, (1, 1, 3): 2}, 8, Style("none"))
def test_windows_of_any_size_make_the_same_lines(grid: Grid, pairs: int, style: Style) -> None:
    whole = written(list(found_in(grid, 1000)), style)
    assert written(list(found_in(grid, pairs)), style) == whole
    assert whole[3] + len(whole[1]) == len(grid)


@given(grid=GRIDS, pairs=st.integers(1, 20), style=STYLES, stop=st.integers(0, 8))
def test_a_read_that_is_resumed_makes_the_same_lines(
    grid: Grid, pairs: int, style: Style, stop: int
) -> None:
    whole = written(list(found_in(grid, pairs)), style)
    first = list(found_in(grid, pairs))[:stop]
    place = place_of(first[-1]) if first else None
    assert written([*first, *found_in(grid, pairs, place)], style) == whole


@given(grid=GRIDS, style=STYLES, pairs=st.integers(1, 40))
def test_a_field_has_one_type_in_a_file_and_values_of_others_are_listed(
    grid: Grid, style: Style, pairs: int
) -> None:
    types: dict[str, set[str]] = {}
    text, left, _, _ = written(list(found_in(grid, pairs)), style)
    for line in text.splitlines():
        for field in line.split(" ")[1].split(","):
            name, value = field.split("=")
            kind = {'"': "string", "t": "bool"}.get(
                value[0], "int" if value[-1] == "i" else "float"
            )
            types.setdefault(name, set()).add(kind)
    assert all(len(kinds) == 1 for kinds in types.values())
    for one in map(json.loads, left):
        assert one["why"] in ("type", "number", "same-time")
        if one["why"] == "type":
            assert types[one["column"]] != {
                one["type"].replace("64", "").replace("double", "float")
            }


@given(grid=GRIDS, style=STYLES, where=st.integers(0, 7))
def test_types_go_from_shard_to_shard_with_what_was_written(
    grid: Grid, style: Style, where: int
) -> None:
    early = {cell: value for cell, value in grid.items() if cell[1] < where}
    late = {cell: value for cell, value in grid.items() if cell[1] >= where}
    first = FieldTypes()
    text, left, points, values = written(list(found_in(early, 20)), style, first)
    rest = written(list(found_in(late, 20)), style, FieldTypes(first.news()))
    whole = written(list(found_in(grid, 1000)), style)
    assert (text + rest[0], sorted(left + rest[1])) == whole[:2]
    assert (points + rest[2], values + rest[3]) == whole[2:]


def wide_window(count: int, each: int) -> Window:
    """Return points that have one column each, of very many."""
    parts = []
    for number, column in enumerate(columns(count), 1):
        keys = [key_of((number, number + count * n, 1)) for n in range(each)]
        parts.append(Part(column, keys, [field_value(0.5)] * each))
    return Window(tuple(parts), b"\xff" * 16)


@pytest.mark.slow
@pytest.mark.parametrize("sequence", ["auto", "tag", "none"])
def test_points_with_few_of_very_many_columns_cost_what_they_have(sequence: Sequences) -> None:
    window = wide_window(1000, 16)
    line, json08 = Line(Left("00001"), Style(sequence)), Json08(Left("00001"))
    for writer in (line, json08):
        tracemalloc.start()
        content, points, values = writer.written(window)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert points == values == 16_000
        assert content
        # Some 500 bytes a value; a place for each point in each column would be 128 MB.
        assert peak < 16 << 20
