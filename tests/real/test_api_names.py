"""Names in questions to a live cluster: any series, column and database is found, and no other.

The server (fixtures/server.py) parses queries as strictly as 0.8.3, and passes them on without
quotes, so a name that is written wrongly finds nothing here either.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.query import QuerySyntaxError, parse
from shardtool.influxdb.query import EARLIEST_US, LATEST_US, CannotAskError, select
from tests.real.api_world import Serve, row

ODD_NAMES = [
    "with space",
    " lead space",
    'say "hi"',
    '"quoted"',
    "back\\slash",
    '\\"',
    "ends in \\",
    "single'quote",
    "new\nline",
    "tab\t",
    "nul\0byte",
    "tilde~a~b",
    "~",
    "select",
    "Select",
    "FROM",
    "true",
    "time",
    "sequence_number",
    "and",
    "9digits",
    "9d",
    "123",
    "-",
    "a.b.c-d",
    ".dot",
    "/slash/",
    "/i",
    "semi;colon, comma",
    "*",
    ".*",
    "^a$",
    "a|b",
    "[x]",
    "{1}",
    "%41",
    "a+b&c=d",
    "#",
    "",
    "ünïcöde ☃ \U0001f600",
    "e\u0301",
    "\u2028",
    "plain_Name1",
]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_series_of_any_name_is_found(name: str, world: Serve) -> None:
    w = world(row(1, series=name), row(2, series=name + "x"), row(3, series="x" + name))
    assert [point.value for point in w.found(name, "v")] == [1]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_column_of_any_name_is_found(name: str, world: Serve) -> None:
    w = world(row(1, column=name), row(2, column=name + "x"), row(3, column="x" + name))
    assert [point.value for point in w.found("cpu", name)] == [1]


def test_a_dotted_column_is_not_taken_for_a_column_of_a_series(world: Serve) -> None:
    w = world(row(1, series="cpu", column="cpu.v"), row(2, series="cpu", column="v"))
    assert [point.value for point in w.found("cpu", "cpu.v")] == [1]


@pytest.mark.parametrize(
    "name", ["with space", "ünïcöde ☃", "..", ".", "a?b#c", "%2F", "a&b=c;d", "~", "x\\y", '"']
)
def test_a_database_of_any_name_is_found(name: str, world: Serve) -> None:
    w = world(row(database=name), database=name)
    assert len(w.found("cpu", "v", database=name)) == 1


@pytest.mark.parametrize("name", ["", "a/b", "/", "\udcff"])
def test_a_database_that_no_path_can_name_cannot_be_asked_for(name: str, world: Serve) -> None:
    with pytest.raises(CannotAskError):
        world().found("cpu", "v", database=name)


@pytest.mark.parametrize("names", [("\udcff", "v"), ("cpu", "\udcff"), ("x" * 70_000, "v")])
def test_a_name_that_is_no_text_or_too_long_cannot_be_asked_for(
    names: tuple[str, str], world: Serve
) -> None:
    with pytest.raises(CannotAskError):
        world(row()).found(*names)


@given(name=st.text(), column=st.text(), start=st.integers(EARLIEST_US, LATEST_US))
def test_a_query_means_the_same_after_it_was_parsed_and_passed_on(
    name: str, column: str, start: int
) -> None:
    asked = parse(select(name, column, start, start + 1))
    for query in (asked, parse(asked.passed_on())):
        assert query.matches(name)
        assert not query.matches(name + "x")
        assert not query.matches("x" + name)
        assert query.names_column(name) in (column, None)
        assert query.start_us < start
        assert query.end_us > start


@given(name=st.text(alphabet='ab"\\/ .~*\n\0☃'), column=st.text(alphabet='ab"\\. *\n\0'))
def test_names_of_awkward_characters_survive_too(name: str, column: str) -> None:
    asked = parse(parse(select(name, column, 0, 1)).passed_on())
    assert asked.matches(name)
    assert asked.names_column(name) in (column, None)


@pytest.mark.parametrize(
    "query",
    [
        "selectt * from a",
        "select * from a b where time > 1u and time < 2u",
        'select v from "a where time > 1u and time < 2u',
        "select v from with space where time > 1u and time < 2u",
        "select v from a-b where time > 1u and time < 2u",
        "select v from select where time > 1u and time < 2u",
        "select v from 9d where time > 1u and time < 2u",
        "select v from a\nwhere time > 1u and time < 2u",
        "select v from a where time > 1u",
        "select v from /a/i where time > 1u and time < 2u",
        "select v from /a where time > 1u and time < 2u",
    ],
)
def test_the_server_refuses_what_the_real_one_would_not_understand(query: str) -> None:
    with pytest.raises(QuerySyntaxError, match="syntax error, unexpected"):
        parse(query)


def test_the_server_words_a_syntax_error_as_the_real_one() -> None:
    with pytest.raises(QuerySyntaxError) as error:
        parse("selectt * from a")
    expected = "syntax error, unexpected SIMPLE_NAME\nselectt * from a\n^^^^^^^"
    assert str(error.value) == expected


def test_a_quoted_name_with_a_backslash_is_misread_as_the_real_server_misreads_it() -> None:
    asked = parse(r'select v from "back\slash" where time > 1u and time < 2u')
    assert asked.series == "backslash"


def test_a_series_or_column_or_database_that_is_not_there_has_no_points(world: Serve) -> None:
    w = world(row())
    assert w.found("nope", "v") == w.found("cpu", "nope") == []
    assert w.found("no pe", "v") == w.found("cpu", "no pe") == []
    assert w.found("cpu", "v", database="nope") == []


@pytest.mark.parametrize(
    "text",
    [
        "Couldn't look up columns",
        "Couldn't look up columns for series: cpu",
        "Couldn't find series: cpu",
        "Field v doesn't exist in series cpu",
        "Field a\nb doesn't exist in series cpu",
    ],
)
def test_what_any_08_says_to_an_unknown_name_means_no_points(text: str, world: Serve) -> None:
    w = world(row())
    w.faults.only, w.faults.status, w.faults.text = "/db", 400, text
    assert w.found("cpu", "v") == []
