"""The table that `make bench` ends in, which is README's too.

It has ratios only: seconds are those of one machine on one day.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

Name: TypeAlias = tuple[str, str]
"""A row's first two columns: our work, and what it is measured against."""

ROWS: Mapping[str, tuple[Name, ...]] = {
    "start": (("--help", "python -c pass"),),
    "status": (
        ("status, warm", "du -s"),
        ("status, warm", "gdu -n -s"),
        ("status, cold", "du -s"),
    ),
    "backup": (
        ("backup", "cp -a"),
        ("backup", "cp -a, sync, sha256sum twice"),
        ("backup", "restic backup"),
    ),
    "prune": (("prune, by receipts", "rm -rf"),),
    "verify": (
        ("verify", "LevelDB in C++, both sides"),
        ("verify, one core", "LevelDB in C++, both sides"),
        ("verify", "plyvel, the old side alone"),
    ),
    "export": (
        ("export .lp, one core", "plyvel"),
        ("export .lp, one core", "rocksdict"),
        ("export .lp.gz, one core", "rocksdict"),
        ("export .json, one core", "rocksdict"),
        ("export .parquet, one core", "rocksdict"),
    ),
}
"""What each part of the bench compares."""

SCALE: tuple[Name, ...] = (
    ("status", "shards"),
    ("verify", "shards"),
    ("prune", "shards"),
    ("verify", "values in a shard"),
    ("export .lp", "values in a shard"),
)
"""What is measured at three sizes: the work, and what there is more of."""

_WORK, _AGAINST = 26, 28  # columns of the table
BEGIN, END = "<!-- make bench -->", "<!-- end of make bench -->"


@dataclass(frozen=True)
class Ratio:
    """Our time by theirs: median, least and most; `noise` is theirs by itself, most by least."""

    median: float
    least: float
    most: float
    noise: float


@dataclass(frozen=True)
class Grown:
    """What a step of ten and of a hundred does: each a ratio to the smallest size.

    `cost` is seconds per unit of the work; `own` and `child` are peaks of memory, of the command's
    process and of the largest of its children.
    """

    cost: tuple[float, ...]
    own: tuple[float, ...]
    child: tuple[float, ...]


@dataclass(frozen=True)
class Lacking:
    """Why a row could not be measured: what would have to be there."""

    what: str


Row: TypeAlias = Ratio | Grown | Lacking
Results: TypeAlias = Mapping[Name, Row]


def names_in(table: str) -> list[Name]:
    """Given a table, return the first two columns of its rows, those of its headings left out."""
    middle = _WORK + 1 + _AGAINST
    rows = [(line[:_WORK].strip(), line[_WORK:middle].strip()) for line in table.splitlines()]
    known = {name for names in ROWS.values() for name in names} | set(SCALE)
    return [row for row in rows if row in known]


def table(results: Results, notes: list[str]) -> str:
    """Given what was measured, return the table: 80 columns, in the order of ROWS and SCALE.

    Args:
        results: by name; a name that is neither in ROWS nor in SCALE is a mistake.
        notes: said below it.

    Raises:
        KeyError: there is a result that has no row.
    """
    ordered = [name for names in ROWS.values() for name in names]
    strangers = results.keys() - {*ordered, *SCALE}
    if strangers:
        raise KeyError(f"not in ROWS or SCALE: {strangers}")
    lines = []
    if any(name in results for name in ordered):
        lines += [_line("SHARDTOOL", "AGAINST", f"{'RATIO':>5} {'SPREAD':>11} NOISE")]
        lines += [_line(*name, _words(results[name])) for name in ordered if name in results]
        lines.append("")
    if any(name in results for name in SCALE):
        lines += [_line("x10, x100", "TIMES MORE", "  COST MEMORY CHILD")]
        for name in SCALE:
            if name in results:
                lines += _grown(name, results[name])
        lines.append("")
    return "\n".join([*lines, *notes]) + "\n"


def _line(work: str, against: str, rest: str) -> str:
    return f"{work:<{_WORK}} {against:<{_AGAINST}} {rest}".rstrip()


def _words(row: Row) -> str:
    if isinstance(row, Ratio):
        spread = f"{row.least:.2f}-{row.most:.2f}"
        return f"{row.median:5.2f} {spread:>11} {row.noise:5.2f}"
    assert isinstance(row, Lacking)
    return f"needs {row.what}"


def _grown(name: Name, row: Row) -> list[str]:
    if isinstance(row, Lacking):
        return [_line(*name, f"needs {row.what}")]
    assert isinstance(row, Grown)
    steps = zip(row.cost, row.own, row.child, strict=True)
    figures = [f"{cost:6.2f} {own:6.2f} {child:5.2f}" for cost, own, child in steps]
    return [
        _line(*(name if not place else ("", "")), figure) for place, figure in enumerate(figures)
    ]


def put_into(readme: Path, text: str) -> None:
    """Put a table, in a fenced block, between the markers of a Markdown file.

    Raises:
        ValueError: it lacks them.
    """
    before, begin, rest = readme.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{readme}: expected the lines {BEGIN} and {END}")
    readme.write_text(f"{before}{BEGIN}\n```\n{text}```\n{END}{after}")
