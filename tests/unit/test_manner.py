"""How a run tells things is known before its command line is parsed, and as the parser reads it."""

from __future__ import annotations

import argparse
import contextlib
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardtool.cli.options import add_common, last_value, manner_of, node_named

WORDS = st.lists(
    st.sampled_from(
        # No "--": Python 3.11 takes what follows it for options all the same (intermixed).
        [
            *("-q", "-qq", "-nq", "--quiet", "-n", "--data", "d", "--log-format", "json", "text"),
            *("--log-format=json", "--log-format=text", "--because", "--because=-qq", "7"),
        ]
    ),
    max_size=7,
)


@pytest.mark.parametrize(
    ("words", "is_mail"),
    [
        ([], False),
        (["prune", "-q"], False),
        (["prune", "-qq"], True),
        (["-q", "prune", "--quiet"], True),
        (["prune", "-nqq"], True),
        (["prune", "-qqq"], True),
        (["prune", "--because=-qq"], False),
        (["spaces", "explain", "--", "-qq"], False),
        (["prune", "-qq", "--help"], False),
        (["-qq", "--version"], False),
    ],
)
def test_quiet_twice_is_a_mail_wherever_it_stands(words: list[str], is_mail: bool) -> None:
    assert manner_of(words, {}).mail is is_mail


@pytest.mark.parametrize(
    ("words", "environment", "is_json"),
    [
        ([], {}, False),
        ([], {"SHARDTOOL_LOG_FORMAT": "json"}, True),
        (["--log-format", "json"], {}, True),
        (["--log-format=json", "status"], {}, True),
        (["--log-format=json", "status", "--log-format", "text"], {}, False),
        (["--log-format", "text"], {"SHARDTOOL_LOG_FORMAT": "json"}, False),
        (["--log-format"], {}, False),
        (["--log-format", "xml"], {}, False),
        ([], {"SHARDTOOL_LOG_FORMAT": "xml"}, False),
    ],
)
def test_the_last_word_on_the_log_format_counts_and_then_the_environment(
    words: list[str], environment: dict[str, str], is_json: bool
) -> None:
    assert manner_of(words, environment).log_as_json is is_json


def test_nagios_is_seen_wherever_it_stands_before_the_end_of_options() -> None:
    assert manner_of(["status", "--bogus", "--nagios"], {}).nagios
    assert not manner_of(["status", "--", "--nagios"], {}).nagios
    assert manner_of([], {}).is_plain


@given(WORDS)
def test_what_is_seen_before_parsing_is_what_the_parser_finds(words: list[str]) -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("-n", action="store_true")
    parser.add_argument("--because")
    parser.add_argument("rest", nargs="*")
    add_common(parser, default=None)
    with contextlib.suppress(SystemExit), contextlib.redirect_stderr(io.StringIO()):
        args = parser.parse_intermixed_args(words)
        manner = manner_of(words, {})
        assert manner.mail == ((args.quiet or 0) >= 2)
        assert manner.log_as_json == (args.log_format == "json")


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (["--data", "a", "--data", "b"], "b"),
        (["--data=a=b"], "a=b"),
        (["--data"], None),
        (["--database", "x"], None),
        ([], None),
    ],
)
def test_the_last_value_of_an_option_counts(words: list[str], value: str | None) -> None:
    assert last_value(words, "--data") == value


def test_which_node_is_meant_is_known_though_it_is_not_there() -> None:
    assert node_named("/d", None, {"SHARDTOOL_DATA": "/e"}) == ("data", "/d")
    assert node_named(None, None, {"SHARDTOOL_DATA": "/e/"}) == ("data", "/e")
    assert node_named(None, None, {}) == ("data", "/opt/influxdb/shared/data")
    assert node_named(None, "/c.toml", {"SHARDTOOL_DATA": "/e"}) == ("config", "/c.toml")
