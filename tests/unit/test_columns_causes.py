"""What an old index key can mean, and why a value is missing."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.encode import Column, id_entry, last_id_entry, old_id, series_entry
from shardtool.influxdb.engines import EngineError, Pair
from shardtool.influxdb.keys import COLUMN_INDEX, SERIES_INDEX
from shardtool.influxdb.model import Catalogue, Dropped, ShardRange, Space
from shardtool.proof import columns as module
from shardtool.proof.causes import CAUSES, NOT_WANTED, ColumnCauses, causes_of
from shardtool.proof.columns import Index, Known, Name, read_index

DAY = 86_400_000_000
NOTHING = Catalogue(frozenset(), {}, {}, (), (), 1, Dropped())


class Stream:
    def __init__(self, pairs: list[Pair]) -> None:
        self._pairs = pairs

    def take(self, count: int) -> list[Pair]:
        found, self._pairs = self._pairs[:count], self._pairs[count:]
        return found


class Reader:
    """An old shard that is nothing but pairs."""

    def __init__(self, pairs: Iterable[Pair]) -> None:
        self.path = Path("/db/shard_db/00007")
        self._pairs = sorted(pairs)

    def pairs(self, start: bytes) -> Stream:
        return Stream([pair for pair in self._pairs if pair[0] >= start])

    def value(self, key: bytes) -> bytes | None:
        return dict(self._pairs).get(key)

    def tables(self) -> list[tuple[bytes, int]]:
        return []


def catalogue(*columns: tuple[str, str, str], databases: Iterable[str] = ()) -> Catalogue:
    """Return a catalogue of these columns, with ids from 1 in their order."""
    ids: dict[str, dict[str, dict[str, int]]] = {}
    for number, (database, series, column) in enumerate(columns, 1):
        ids.setdefault(database, {}).setdefault(series, {})[column] = number
    return replace(NOTHING, databases=frozenset({*ids, *databases}), ids=ids)


def index_of(columns: Iterable[tuple[str, str, str]], known: Catalogue = NOTHING) -> Index:
    """Read the index of an old shard with these columns, with ids from 1."""
    pairs: dict[bytes, bytes] = {}
    texts: dict[str, int] = {}
    for one in columns:
        number = texts.setdefault("~".join(one), len(texts) + 1)
        pairs |= dict([series_entry(*one[:2]), id_entry(Column(*one), number)])
    pairs |= dict([last_id_entry(len(texts))])
    return read_index(Reader(pairs.items()), known)


# -- names --


def test_a_plain_column_has_its_name_and_its_new_id() -> None:
    found = index_of([("db", "s", "c")], catalogue(("db", "x", "c"), ("db", "s", "c")))
    column = found.column(old_id(1))
    assert column.name == Name("db", "s", "c")
    assert column.known == (Known(Name("db", "s", "c"), b"\0" * 7 + b"\x02"),)
    assert column.databases == ("db",)


@pytest.mark.slow
@settings(max_examples=200)
@given(
    parts=st.lists(st.sampled_from(["", "a", "b", "ab"]), min_size=3, max_size=7),
    data=st.data(),
)
def test_every_split_that_the_catalogue_knows_is_a_candidate(
    parts: list[str], data: st.DataObject
) -> None:
    splits = [
        ("~".join(parts[:i]), "~".join(parts[i:j]), "~".join(parts[j:]))
        for i, j in itertools.combinations(range(1, len(parts)), 2)
    ]
    known = data.draw(st.lists(st.sampled_from(splits), unique=True))
    others = [(a, b, c + "!") for a, b, c in known]
    ids = catalogue(*known, *others)
    column = index_of([data.draw(st.sampled_from(splits))], ids).column(old_id(1))
    assert {k.name for k in column.known} == {Name(*split) for split in known}
    for one in column.known:
        name = one.name
        assert int.from_bytes(one.id) == ids.ids[name.database][name.series][name.column]
    assert set(column.databases) == {split[0] for split in splits} & ids.databases
    assert not known or column.name in {k.name for k in column.known}
    assert (column.name.database, column.name.series, column.name.column) in splits


def test_of_several_names_a_known_database_and_an_indexed_series_decide() -> None:
    found = index_of([("db", "a~b", "c~d")], catalogue(databases=["db"]))
    assert found.column(old_id(1)).name == Name("db", "a~b", "c~d")


def bare_index(text: bytes, known: Catalogue = NOTHING) -> Index:
    """Return an index of one column, and of no series."""
    return read_index(Reader([(COLUMN_INDEX + text, old_id(1))]), known)


def test_of_names_that_nothing_speaks_for_the_series_has_the_tildes() -> None:
    assert bare_index(b"a~b~c~d").column(old_id(1)).name == Name("a", "b~c", "d")


def test_of_two_known_names_the_one_of_the_plainer_database_is_likelier() -> None:
    known = catalogue(("a~b", "c", "d"), ("a", "b", "c~d"))
    column = bare_index(b"a~b~c~d", known).column(old_id(1))
    assert column.name == Name("a", "b", "c~d")
    assert {one.name for one in column.known} == {Name("a~b", "c", "d"), column.name}


def test_a_name_that_would_read_otherwise_in_the_index_is_no_candidate() -> None:
    """Not even where a part of it would have to be empty, or be there twice."""
    known = catalogue(("a", "", "b~c"), ("a", "", "a~b~c"), ("a~b~c", "", ""), ("", "a", "b~c"))
    assert bare_index(b"a~b~c", known).column(old_id(1)).known == ()


def test_of_a_key_of_too_many_tildes_the_first_splits_are_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_MOST_SPLITS", 2)
    splits = [("a", "b", "c~d"), ("a", "b~c", "d"), ("a~b", "c", "d")]
    column = bare_index(b"a~b~c~d", catalogue(*splits)).column(old_id(1))
    assert [one.name for one in column.known] == [Name(*split) for split in splits[:2]]


def owners(columns: Iterable[tuple[str, str, str]], **known: Any) -> dict[str, Name | None]:
    """Return whose the columns of an index are, by their texts."""
    index = index_of(columns, replace(catalogue(databases=["test"]), **known))
    ids = {"~".join(column): old_id(number) for number, column in enumerate(columns, 1)}
    return {text: index.column(number).owner for text, number in ids.items()}


def test_a_series_whose_name_begins_with_anothers_owns_what_it_can_claim() -> None:
    mine = ("test", "a~b", "v"), ("test", "a~b", "w")
    assert owners([("test", "a", "v"), *mine]) == {
        "test~a~v": Name("test", "a", "v"),
        "test~a~b~v": Name("test", "a~b", "v"),
        "test~a~b~w": Name("test", "a~b", "w"),
    }


def test_it_does_so_whatever_else_comes_before_it_in_the_index() -> None:
    before = [("test", "a", f"c{number}") for number in range(9)]
    found = owners([*before, ("test", "b~c", "v"), ("test", "b", "d")])
    assert found["test~b~c~v"] == Name("test", "b~c", "v")


def test_where_both_series_need_a_column_nobody_owns_it() -> None:
    columns = [("test", "a", "b~c"), ("test", "a~b", "d")]
    assert owners(columns) == {"test~a~b~c": None, "test~a~b~d": None}


def test_a_database_that_is_gone_can_claim_its_columns_still() -> None:
    columns, there = [("od~d", "cpu", "v")], frozenset({"od"})
    assert owners(columns, databases=there) == {"od~d~cpu~v": Name("od", "d~cpu", "v")}
    assert owners(columns, databases=there, heard_of=frozenset({"od~d"})) == {"od~d~cpu~v": None}


def test_a_column_that_the_index_lacks_has_no_known_name() -> None:
    column = index_of([("db", "s", "c")], catalogue(("db", "s", "c"))).column(old_id(2))
    assert (column.known, column.databases) == ((), ())
    assert column.name == Name("", "", "#0200000000000000")


def test_names_that_are_no_utf_8_are_kept_to_the_byte() -> None:
    key = COLUMN_INDEX + b"db~\xff\xfe~c\x80"
    index = read_index(Reader([(key, old_id(1))]), catalogue(("db", "\ufffd\ufffd", "c\ufffd")))
    column = index.column(old_id(1))
    assert column.name.series.encode("utf-8", "surrogateescape") == b"\xff\xfe"
    assert column.known == ()  # not what a replacement character stands for


@pytest.mark.slow
@pytest.mark.parametrize("where", ["database", "series", "column"])
def test_a_name_of_100_000_tildes_does_not_take_long(where: str) -> None:
    parts = {"database": "d", "series": "s", "column": "c"} | {where: "~" * 100_000}
    column = (parts["database"], parts["series"], parts["column"])
    found = index_of([column, ("d", "s", "c")], catalogue(("d", "s", "c")))
    for number in (1, 2):
        name = found.column(old_id(number)).name
        found.stumbles(name)
    # With a look at each of its splits it would be hours: then the suite's time limit strikes.


@pytest.mark.parametrize(
    "value",
    [b"", b"\x01", old_id(1)[:7], old_id(1) + b"\0", old_id(1) * 2],
)
def test_an_index_id_that_is_not_8_bytes_is_an_error(value: bytes) -> None:
    with pytest.raises(EngineError, match=r"/db/shard_db/00007.*id of its own"):
        read_index(Reader([(COLUMN_INDEX + b"db~s~c", value)]), NOTHING)


def test_an_id_that_two_columns_share_is_an_error() -> None:
    pairs = [(COLUMN_INDEX + b"db~s~c", old_id(1)), (COLUMN_INDEX + b"db~s~d", old_id(1))]
    with pytest.raises(EngineError, match="id of its own"):
        read_index(Reader(pairs), NOTHING)


@pytest.mark.parametrize("text", [b"", b"db", b"db~s", b"~"])
def test_an_index_key_without_three_names_is_an_error(text: bytes) -> None:
    with pytest.raises(EngineError, match="database~series~column"):
        read_index(Reader([(COLUMN_INDEX + text, old_id(1))]), NOTHING)


def test_an_index_of_many_blocks_is_read_to_its_end() -> None:
    columns = [("db", "s", f"c{number}") for number in range(9000)]
    found = index_of(columns, catalogue(*columns))
    assert found.column(old_id(9000)).name == Name("db", "s", "c8999")


def test_values_and_other_keys_are_no_index() -> None:
    values = [(old_id(1) + bytes(16), b"x"), (b"\xff" * 7 + b"\xfd~~", b"")]
    index = read_index(Reader([*values, (SERIES_INDEX + b"db~s", b"")]), NOTHING)
    assert index.column(old_id(1)).known == ()


# -- what the migrator stumbles over --


@pytest.mark.parametrize(
    ("name", "others", "stumbles"),
    [
        (("db", "s", "c"), [], False),
        (("d~b", "s", "c"), [], True),
        (("db", "s~t", "c"), [], True),
        (("db", "s", "c~d"), [], True),
        (("db", 's"t', "c"), [], True),
        (("db", "s\\t", "c"), [], True),
        (("db", "s", 'c"\\'), [], False),
        (("db", "tilde", "c"), [("db", "tilde~a~b", "c")], True),
        (("db", "tilde", "c"), [("db", "tilde2~a", "c")], False),
        (("db", "tilde", "c"), [("db2", "tilde~a", "c")], False),
        (("db", "s", "c"), [("db", "s", "other~c")], True),
        (("db", "s", "c"), [("db", "t", "other~c")], False),
        # What it takes for a column is one: it brings over that twice, and `c~d` not at all.
        (("db", "s", "c"), [("db", "s~c", "v")], False),
        (("db", "s", "c"), [("db", "s", "c~d")], False),
        (("db", "s", "c~d"), [("db", "s", "c")], True),
        (("db", "s", "c"), [("db~s", "x", "v")], True),
        # An empty name is one too.
        (("db", "", "c"), [("db", "", "x~c")], True),
        (("", "", "c"), [("", "", "x~c")], True),
        (("db", "s", ""), [("db", "s", "~c")], False),
    ],
)
def test_the_migrator_stumbles_over_these_names(
    name: tuple[str, str, str], others: list[tuple[str, str, str]], stumbles: bool
) -> None:
    assert index_of([name, *others]).stumbles(Name(*name)) is stumbles


# -- causes --

CALM = ColumnCauses(
    marked_us=1000,
    stumbles=False,
    unknown_database=False,
    expired_before_us=None,
    dropped=False,
    space_dropped=False,
    has_id=True,
)


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({}, ""),
        ({"marked_us": None}, "not-migrated"),
        ({"marked_us": 499}, "future"),
        ({"marked_us": 500}, ""),
        ({"stumbles": True}, "name"),
        ({"unknown_database": True}, "unknown-database"),
        ({"expired_before_us": 501}, "expired"),
        ({"expired_before_us": 500}, ""),
        ({"dropped": True}, "dropped"),
        ({"has_id": False}, "not-migrated"),
        # The first of several is told.
        ({"marked_us": 499, "stumbles": True}, "future"),
        ({"stumbles": True, "unknown_database": True}, "name"),
        ({"unknown_database": True, "expired_before_us": 501}, "unknown-database"),
        ({"expired_before_us": 501, "dropped": True}, "expired"),
        ({"dropped": True, "has_id": False}, "dropped"),
        ({"marked_us": None, "stumbles": True, "dropped": True}, "not-migrated"),
    ],
)
def test_the_first_cause_that_applies_is_told(changes: dict[str, Any], cause: str) -> None:
    column = replace(CALM, **changes)
    assert column.cause(500, covered=True) == cause
    assert cause in (*CAUSES, "")


@pytest.mark.parametrize(("covered", "cause"), [(True, ""), (False, "dropped")])
def test_a_dropped_space_explains_only_what_no_new_shard_covers(covered: bool, cause: str) -> None:
    assert replace(CALM, space_dropped=True).cause(500, covered=covered) == cause


FORGOTTEN: dict[str, Any] = {"has_id": False, "forgets": True}


@pytest.mark.parametrize(
    ("changes", "unwanted"),
    [
        ({}, ""),
        ({"dropped": True}, "dropped"),
        ({"expired_before_us": 501}, "expired"),
        ({"expired_before_us": 500}, ""),
        # Whatever else is told first.
        ({"marked_us": None, "dropped": True}, "dropped"),
        ({"marked_us": 499, "expired_before_us": 501}, "expired"),
        ({"stumbles": True, "dropped": True, "expired_before_us": 501}, "dropped"),
        # What raft has forgotten: only a column that was brought over, and that is not known.
        (FORGOTTEN, "dropped"),
        (FORGOTTEN | {"space_dropped": True}, "dropped"),
        ({"has_id": False}, ""),
        ({"forgets": True}, ""),
        (FORGOTTEN | {"marked_us": None}, ""),
        (FORGOTTEN | {"marked_us": 499}, ""),
        (FORGOTTEN | {"stumbles": True}, ""),
        (FORGOTTEN | {"unknown_database": True}, ""),
    ],
)
def test_what_would_go_again_is_not_wanted(changes: dict[str, Any], unwanted: str) -> None:
    assert replace(CALM, **changes).unwanted(500) == unwanted
    assert unwanted in (*NOT_WANTED, "")


@pytest.mark.parametrize(("forgets", "unwanted"), [(True, "dropped"), (False, "")])
def test_a_column_that_raft_may_have_forgotten_is_not_wanted(forgets: bool, unwanted: str) -> None:
    known = replace(catalogue(databases=["db"]), forgets=forgets)
    index = index_of([("db", "s", "c")], known)
    causes = causes_of(index.column(old_id(1)), index, known, marked_us=DAY, now_us=100 * DAY)
    assert causes.unwanted(0) == unwanted


@given(
    causes=st.builds(
        ColumnCauses,
        marked_us=st.none() | st.integers(-20, 20),
        stumbles=st.booleans(),
        unknown_database=st.booleans(),
        expired_before_us=st.none() | st.integers(-20, 20),
        dropped=st.booleans(),
        space_dropped=st.booleans(),
        has_id=st.booleans(),
    ),
    covered=st.booleans(),
    times=st.lists(st.integers(-25, 25), min_size=3, max_size=3),
)
def test_what_lies_between_two_values_of_one_cause_has_that_cause(
    causes: ColumnCauses, covered: bool, times: list[int]
) -> None:
    """Counting relies on it: it looks at the first and the last value only."""
    first, between, last = (causes.cause(time, covered=covered) for time in sorted(times))
    assert first != last or between == first


def told(
    name: tuple[str, str, str], known: Catalogue, *, time_us: int = 0, covered: bool = True
) -> str:
    """Return the cause of a missing value of a marked shard that has one column."""
    index = index_of([name], known)
    causes = causes_of(index.column(old_id(1)), index, known, marked_us=DAY, now_us=100 * DAY)
    return causes.cause(time_us, covered=covered)


def kept_for(retention: str) -> Catalogue:
    space = Space("one", "db", "/.*/", retention, "7d", 1, 1)
    return replace(catalogue(("db", "s", "c")), spaces={"db": (space,)})


@pytest.mark.parametrize(
    ("known", "cause"),
    [
        (catalogue(("db", "s", "c")), ""),
        (catalogue(("db", "s", "x")), "not-migrated"),
        (catalogue(("other", "s", "c")), "unknown-database"),
        (kept_for("99d"), "expired"),
        (kept_for("101d"), ""),
        (kept_for("inf"), ""),
        (replace(NOTHING, dropped=Dropped(databases=frozenset({"db"}))), "dropped"),
        (
            replace(catalogue(databases=["db"]), dropped=Dropped(series=frozenset({("db", "s")}))),
            "dropped",
        ),
        (
            replace(catalogue(databases=["db"]), dropped=Dropped(series=frozenset({("db", "t")}))),
            "not-migrated",
        ),
    ],
)
def test_the_catalogue_tells_the_cause(known: Catalogue, cause: str) -> None:
    assert told(("db", "s", "c"), known) == cause


def test_another_databases_dropped_space_explains_nothing() -> None:
    known = replace(
        catalogue(("db", "s", "c")), dropped=Dropped(spaces=frozenset({("other", "one")}))
    )
    assert told(("db", "s", "c"), known, covered=False) == ""


def test_a_range_of_another_kind_changes_no_cause() -> None:
    ranges = (ShardRange(7, "db", "one", 0, DAY, (1,)),)
    assert told(("db", "s", "c"), replace(catalogue(("db", "s", "c")), shards=ranges)) == ""


@pytest.mark.parametrize(
    ("nothing_came", "space_dropped", "cause"),
    [
        (False, False, "unknown"),
        (False, True, "unknown"),
        (True, False, "not-migrated"),
        (True, True, "dropped"),
    ],
)
def test_what_is_left_is_told_by_what_else_of_the_column_came(
    nothing_came: bool, space_dropped: bool, cause: str
) -> None:
    assert replace(CALM, space_dropped=space_dropped).rest(nothing_came=nothing_came) == cause
