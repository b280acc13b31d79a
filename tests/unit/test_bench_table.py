"""The table that `make bench` prints is the one in README: the same rows, none left out."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.sizes import SIZES
from bench.table import BEGIN, END, ROWS, SCALE, Grown, Lacking, Ratio, names_in, put_into, table

README = Path(__file__).parents[2] / "README.md"
EVERY = [name for names in ROWS.values() for name in names] + list(SCALE)
RATIO = Ratio(1.234, 0.5, 12.345, 1.1)
GROWN = Grown((0.5, 0.4), (1.0, 1.01), (1.0, 1.2))


def test_readme_has_every_row_that_the_bench_prints() -> None:
    shown = README.read_text().partition(BEGIN)[2].partition(END)[0]
    assert names_in(shown) == EVERY
    assert "make bench" in shown or "python -m bench" in shown


@pytest.mark.parametrize("size", SIZES)
def test_it_fits_80_columns(size: str) -> None:
    every = {name: RATIO for names in ROWS.values() for name in names}
    text = table(every | dict.fromkeys(SCALE, GROWN), SIZES[size].notes())
    assert max(map(len, text.splitlines())) <= 80
    assert names_in(text) == EVERY


def test_a_missing_tool_has_its_line_and_the_others_theirs() -> None:
    first, second, *_ = ROWS["status"]
    lines = table({second: Lacking("gdu (apt install gdu)"), first: RATIO}, []).splitlines()
    assert "1.23" in lines[1]
    assert "0.50-12.35" in lines[1]
    assert lines[2].endswith("needs gdu (apt install gdu)")
    assert names_in("\n".join(lines)) == [first, second]


def test_a_row_that_nobody_has_declared_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        table({("status", "tree"): RATIO}, [])


def test_the_table_goes_between_the_markers_and_leaves_the_rest(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    put_into(readme, "new\n")
    assert readme.read_text() == f"before\n{BEGIN}\n```\nnew\n```\n{END}\nafter\n"
    readme.write_text("no markers\n")
    with pytest.raises(ValueError, match="expected the lines"):
        put_into(readme, "new\n")
