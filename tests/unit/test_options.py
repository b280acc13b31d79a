"""Sizes, durations and counts as people type them; and the question before a deletion."""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shardtool.cli.options import amount, bytes_of, confirmed, count_of, seconds_of
from shardtool.cli.output import Output
from shardtool.errors import UsageError

READERS = pytest.mark.parametrize("read", [bytes_of, seconds_of, count_of])
WORDS = st.one_of(
    st.text(max_size=20),
    st.text("0123456789.,-+eE KMGTPBib wdhms", max_size=20),
    st.text("0123456789", min_size=300, max_size=5000),
)


@READERS
@given(text=WORDS)
def test_any_text_is_a_number_or_a_usage_error(read: Callable[[str], int], text: str) -> None:
    try:
        assert read(text) >= 0
    except argparse.ArgumentTypeError as error:
        assert "expected" in str(error)


@pytest.mark.parametrize("digits", [309, 400, 5000])
@READERS
def test_a_number_of_hundreds_of_digits_is_a_usage_error_or_exact(
    read: Callable[[str], int], digits: int
) -> None:
    with contextlib.suppress(argparse.ArgumentTypeError):
        assert read("9" * digits) == 10**digits - 1


def test_a_duration_of_thousands_of_digits_is_a_usage_error() -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        seconds_of("9" * 5000 + "d")


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("4096", 4096),
        ("0", 0),
        ("1K", 1024),
        ("1.5T", 3 << 39),
        ("100G", 100 << 30),
        ("100g", 100 << 30),
        ("100 GiB", 100 << 30),
        ("100GB", 100 << 30),
        (" 2M ", 2 << 20),
        ("1P", 1 << 50),
    ],
)
def test_a_size_is_read_as_df_writes_it(text: str, count: int) -> None:
    assert bytes_of(text) == count


@pytest.mark.parametrize("text", ["", "G", "-1G", "1X", "1e9", "1.G", ".5G", "1GG", "inf", "nan"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected a size"):
        bytes_of(text)


@given(st.integers(0, 10**18 - 1))
@example((1 << 53) + 1)
def test_a_plain_number_of_bytes_is_exact(count: int) -> None:
    assert bytes_of(str(count)) == count


@given(st.integers(0, 1 << 20), st.sampled_from("KMGTP"))
def test_a_whole_number_of_units_is_exact(count: int, unit: str) -> None:
    assert bytes_of(f"{count}{unit}") == count << 10 * ("KMGTP".index(unit) + 1)


@given(st.lists(st.tuples(st.integers(0, 10**9 - 1), st.sampled_from("wdhms")), min_size=1))
def test_a_duration_is_the_sum_of_its_parts(parts: list[tuple[int, str]]) -> None:
    seconds = {"w": 604800, "d": 86400, "h": 3600, "m": 60, "s": 1}
    text = "".join(f"{number}{unit}" for number, unit in parts)
    assert seconds_of(text) == sum(number * seconds[unit] for number, unit in parts)


@pytest.mark.parametrize("text", ["", "7", "d", "-7d", "7 d", "7d,", "1.5d", "7D", "7y", "7d 1h"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected a duration"):
        seconds_of(text)


@given(st.integers(1, 999_999_999))
def test_a_count_is_read(count: int) -> None:
    assert count_of(str(count)) == count


@pytest.mark.parametrize("text", ["0", "00", "-1", "", "1.0", "1000000000", "٣", "²"])
def test_what_is_no_count_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected a whole number"):
        count_of(text)


class Terminal(io.StringIO):
    """A stdin that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("answer", "goes_on"),
    [
        ("yes\n", True),
        ("  yes \n", True),
        ("y\n", False),
        ("YES\n", False),
        ("", False),
        ("no\n", False),
        ("yes yes\n", False),
    ],
)
def test_only_the_whole_word_yes_is_a_yes(
    answer: str, goes_on: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    assert confirmed(Output(as_json=False, quiet=False), "Delete?", yes=False) is goes_on


def test_the_question_goes_to_stderr_so_that_stdout_can_be_piped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal("no\n"))
    confirmed(Output(as_json=False, quiet=False), "Delete 4 old shards (1.2M)?", yes=False)
    asked = capsys.readouterr()
    assert (asked.out, asked.err) == ("", "Delete 4 old shards (1.2M)? Type yes to go on: ")


def test_without_a_terminal_nothing_is_taken_for_a_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("yes\n"))
    with pytest.raises(UsageError, match="--yes"):
        confirmed(Output(as_json=False, quiet=False), "Delete?", yes=False)


def test_with_yes_nothing_is_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert confirmed(Output(as_json=False, quiet=False), "Delete?", yes=True)
    assert capsys.readouterr().err == ""


def test_counts_and_bytes_stand_together() -> None:
    assert amount(4, "shard", 1_258_291) == "4 shards (1.2M)"
