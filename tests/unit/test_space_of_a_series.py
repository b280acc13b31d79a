"""Which space takes a series, and how long a duration is: as 0.8 reads them."""

from __future__ import annotations

import pytest

from shardtool.influxdb.model import Space
from shardtool.influxdb.spaces import duration_us, space_of

DAY = 86_400_000_000


def spaces(*regexes: str) -> tuple[Space, ...]:
    return tuple(Space(regex, "db", regex, "inf", "7d", 1, 1) for regex in regexes)


@pytest.mark.parametrize(
    ("regexes", "series", "taken_by"),
    [
        (["/.*/"], "cpu", "/.*/"),
        (["/^[A-Z].*/", "/.*/"], "Mem", "/^[A-Z].*/"),
        (["/^[A-Z].*/", "/.*/"], "mem", "/.*/"),
        (["/.*/", "/^mem$/"], "mem", "/.*/"),
        (["/pu/"], "cpu", "/pu/"),  # it need not begin there
        (["/^pu/"], "cpu", None),
        (["/^CPU$/i"], "cpu", "/^CPU$/i"),
        (["/^CPU$/"], "cpu", None),
        (["/a/b/"], "xa/bx", "/a/b/"),
        (["/(/", "/.*/"], "cpu", "/.*/"),  # 0.8.3 takes it and can't use it
        (["/(?=c)/", "/.*/"], "cpu", "/.*/"),  # Python's, not Go's
        (["/\\pL/"], "ü", "/\\pL/"),  # Go's, not Python's
        (["/(a*)*b/"], "a" * 5000, None),  # and no blow-up
        (["/.*/"], "\udcff", "/.*/"),
        ([], "cpu", None),
    ],
)
def test_the_first_space_whose_regex_is_found_takes_the_series(
    regexes: list[str], series: str, taken_by: str | None
) -> None:
    found = space_of(spaces(*regexes), series)
    assert (found.name if found else None) == taken_by


@pytest.mark.parametrize(
    ("regex", "series", "takes"),
    [
        ("/^cpu/", "cpu.load", True),
        ("/^cpu/", "CPU", False),
        ("/^cpu/i", "CPU", True),
        ("/^a/b/", "a/b", True),
        ("^stats\\.", "stats.a", True),
        ("^stats\\.", "cpu", False),
        ("(?i)^STATS", "stats.a", True),
        (".*", "anything", True),
        ("/^cpu/I", "cpu", False),
        ("/^cpu/I", "cpu/", True),
        ("/x", "anything", True),
        ("/", "anything", False),
        ("/i", "anything", False),
        ("", "anything", True),
        ("/(/", "anything", False),
        ("/.*/", "a\udcff", True),
        ("/^\u00fc/", "\u00fcber", True),
    ],
)
def test_a_spaces_regex_is_taken_as_0_8_takes_it(regex: str, series: str, takes: bool) -> None:
    space = Space("one", "db", regex, "inf", "7d", 1, 1)
    assert (space_of((space,), series) is space) is takes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1u", 1),
        ("2s", 2_000_000),
        ("3m", 180_000_000),
        ("4h", 14_400_000_000),
        ("7d", 7 * DAY),
        ("2w", 14 * DAY),
        ("inf", None),
        ("", None),
        ("7", None),
        ("7 parsecs", None),
        ("-7d", None),
        ("7d ", None),
        ("7d\n", None),
        ("\u0667d", None),
        ("9" * 16 + "d", None),
        ("1.5d", None),
    ],
)
def test_a_duration_is_read_or_it_is_none(text: str, expected: int | None) -> None:
    assert duration_us(text) == expected
