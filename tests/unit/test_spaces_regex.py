"""Regexes of spaces: what 0.8's Go of 2014 can't compile, and names that are no UTF-8."""

from __future__ import annotations

import pytest
import re2

from shardtool.influxdb.model import Space
from shardtool.influxdb.regex import compiled, encoded
from shardtool.influxdb.spaces import problems, takes
from shardtool.influxdb.unicode_classes import KNOWN_CLASSES
from shardtool.upgrade.spaces_order import Trial, shadows


def space(regex: str) -> Space:
    """Return a sound space with a regex."""
    return Space("a", "db", regex, "inf", "7d", 1, 1)


@pytest.mark.parametrize(
    ("regex", "what"),
    [
        (r"/^\p{Vithkuqi}/", r"\p{Vithkuqi}"),
        (r"/^\P{^Adlam}/", r"\p{Adlam}"),
        (r"/[\p{Greek}\p{Bassa_Vah}]/", r"\p{Bassa_Vah}"),
        ("/(?P<\u00e9>x)/", "a group (?P<\u00e9>) with more than"),
        ("/(?P<n>x)(?P<n>y)/", "a group (?P<n>) twice"),
        ("/(?<n>x)/", "(?<name>"),
        (r"/\C/", r"\C"),
        (r"/\Qa\E\p{Vithkuqi}/", r"\p{Vithkuqi}"),
    ],
)
def test_what_go_of_2014_cannot_compile_is_not_sent(regex: str, what: str) -> None:
    assert compiled(regex) is not None  # today's RE2 can
    (line,) = problems(space(regex))
    assert line.startswith(f"regex: {what}")
    assert "is unknown to 0.8's Go" in line


@pytest.mark.parametrize(
    "regex",
    [
        *(r"/^\p{Greek}\P{Lu}\pN\p{^Han}/", r"/\Q\p{Vithkuqi}(?P<\u00e9>\E/", r"/\\p{2}/"),
        *(r"/(?P<n>x)(?P<m_2>y)/", r"/\\(?P<n>x)/", r"/[\p{L}\d]/", r"/\p{Any}/", r"/\(?P<n>/"),
    ],
)
def test_what_it_can_is_sent(regex: str) -> None:
    assert problems(space(regex)) == ()


def test_re2_knows_each_class_that_is_said_to_be_known() -> None:
    assert len(KNOWN_CLASSES) == 37 + 102
    for name in KNOWN_CLASSES:
        assert re2.compile(f"\\p{{{name}}}") is not None


def test_what_is_no_utf8_is_matched_as_the_server_sees_it() -> None:
    assert encoded("\udcff") == b"\xff"
    assert encoded("\ud800\udcff") == b"\xef\xbf\xbd\xff"
    assert takes(space("/\ud800/"), "\ufffd")
    asked = [space("/\ud800/"), space("/^a/")]
    assert Trial(asked, ["\ud800", "a\udfff"]).common(*asked) == "a\udfff"
    assert shadows(asked, ["\ud800"]) == {}
