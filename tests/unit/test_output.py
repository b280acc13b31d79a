"""Nothing from the disk reaches a terminal as anything but printable text."""

from __future__ import annotations

import io
import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardtool.cli.output import Output, iso, moment, safe, table_lines, unseen
from shardtool.words import plural, size

NAMES = st.one_of(
    st.text(st.characters(codec=None, exclude_categories=())),
    st.binary(max_size=255).map(lambda raw: raw.decode("utf-8", "surrogateescape")),
)


@given(NAMES)
def test_whatever_a_name_is_what_is_shown_is_printable(name: str) -> None:
    assert safe(name).isprintable()


@given(NAMES)
def test_what_is_shown_can_be_encoded(name: str) -> None:
    safe(name).encode("utf-8")


@given(NAMES)
def test_a_printable_name_is_shown_as_it_is(name: str) -> None:
    if name.isprintable():
        assert safe(name) == name


@given(NAMES, NAMES)
def test_two_names_without_backslashes_never_look_the_same(one: str, other: str) -> None:
    if "\\" not in one + other and one != other:
        assert safe(one) != safe(other)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("\x1b[2J", "\\x1b[2J"),
        ("a\nb", "a\\x0ab"),
        ("a\rb", "a\\x0db"),
        ("\x9b31m", "\\x9b31m"),  # CSI in one byte, for terminals that take C1
        ("\x07", "\\x07"),
        ("\x7f", "\\x7f"),
        ("\u202egnp.exe", "\\u202egnp.exe"),  # turns the direction of writing around
        ("\u2028", "\\u2028"),
        ("\udcff", "\\xff"),  # a byte that is no UTF-8
        ("\ud800", "\\ud800"),
        ("\U000e0001", "\\U000e0001"),
        ("größe 00007", "größe 00007"),
    ],
)
def test_what_a_terminal_would_obey_is_spelled_out(name: str, shown: str) -> None:
    assert safe(name) == shown


def test_a_warning_never_carries_an_escape_sequence(capsys: pytest.CaptureFixture[str]) -> None:
    Output(as_json=False, quiet=False).warn("00007: \x1b[31mred\nshardtool: done")
    assert capsys.readouterr().err == "shardtool: 00007: \\x1b[31mred\\x0ashardtool: done\n"


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0B"), (1023, "1023B"), (1024, "1.0K"), (46000, "44.9K"), (1 << 40, "1.0T")],
)
def test_sizes_are_written_as_du_writes_them(count: int, shown: str) -> None:
    assert size(count) == shown


def test_a_moment_is_utc_to_the_second() -> None:
    assert moment(1_412_266_800_999_999_999) == "2014-10-02 16:20:00"


def test_where_there_is_no_moment_a_dash_stands() -> None:
    assert (moment(None), iso(None)) == ("-", None)


@given(st.integers(-(1 << 70), 1 << 70))
def test_a_time_that_no_calendar_has_is_no_crash(ns: int) -> None:
    assert moment(ns)
    assert iso(ns) is None or str(iso(ns)).endswith("Z")


@given(st.integers(-62_135_596_800_000_000_000, 253_402_300_799_000_000_000))
def test_json_times_are_to_the_microsecond_whatever_they_are(ns: int) -> None:
    """A reader with one fixed pattern reads them all: the docstring promises microseconds."""
    text = iso(ns)
    if ns:
        assert text is not None
        assert len(text) == len("2014-10-02T16:20:00.000000Z")


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0 shards"), (1, "1 shard"), (1000, "1,000 shards")]
)
def test_a_count_agrees_with_its_noun(count: int, words: str) -> None:
    assert plural(count, "shard") == words


def test_an_irregular_plural_can_be_given() -> None:
    assert plural(2, "entry", "entries") == "2 entries"


def test_unseen_processes_are_said_to_be_unknown_not_free() -> None:
    assert "unknown for 3 processes" in unseen(3)


def test_columns_line_up_and_lines_have_no_trailing_spaces() -> None:
    lines = table_lines(("shard", "files"), [("00001", "8"), ("123456", "1,000")], right="lr")
    assert lines == ["shard   files", "00001       8", "123456  1,000"]
    assert all(line == line.rstrip() for line in table_lines(("a", "b"), [("x", "")]))


def test_a_table_without_rows_is_its_header() -> None:
    assert table_lines(("shard", "files"), []) == ["shard  files"]


def test_json_is_one_document_of_plain_ascii_and_nothing_else(
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = Output(as_json=True, quiet=False)
    out.line("for people")
    out.document("status", {"id": "\x1b[2J\udcff"})
    text = capsys.readouterr().out
    assert json.loads(text) == {"schema": "shardtool/status/1", "id": "\x1b[2J\udcff"}
    assert text.isascii()
    assert "\x1b" not in text


def test_people_get_no_json(capsys: pytest.CaptureFixture[str]) -> None:
    Output(as_json=False, quiet=False).document("status", {})
    assert capsys.readouterr().out == ""


class Terminal(io.StringIO):
    """A stdout that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environment", "colored"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
)
def test_colors_are_for_terminals_that_want_them(
    environment: dict[str, str], colored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdout", Terminal())
    styled = Output(as_json=False, quiet=False).styled("busy", "bad")
    assert styled == ("\x1b[31mbusy\x1b[0m" if colored else "busy")


def test_where_there_is_no_terminal_there_are_no_colors_and_80_columns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    out = Output(as_json=False, quiet=False)
    assert (out.styled("busy", "bad"), out.width) == ("busy", 80)
