"""Which of two spaces is the more specific, who is never asked, and names made up from regexes."""

from __future__ import annotations

import itertools
import tracemalloc
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardtool.influxdb.model import Space
from shardtool.influxdb.regex import compiled
from shardtool.influxdb.spaces import takes
from shardtool.upgrade.samples import _all_characters, names_between, names_for
from shardtool.upgrade.spaces_order import Trial, ordered, overlaps, shadows, takes_all


def spaces(*regexes: str) -> list[Space]:
    """Return a space for each regex, called by it."""
    return [Space(regex, "db", regex, "inf", "7d", 1, 1) for regex in regexes]


def order(*regexes: str, series: tuple[str, ...] = ()) -> list[str]:
    """Return regexes as they are to be made."""
    given = spaces(*regexes)
    return [space.regex for space in ordered(given, Trial(given, series))]


PIECES = st.one_of(
    st.sampled_from(["a", "cpu", "\\.", "\\d", "[a-z]", "[^x]", ".", "\\pL", "\\x41", "\\Qa.b\\E"]),
    st.sampled_from(["(?:ab|c)", "(a|)", "(?i)", "(?P<n>q)", "[[:alpha:]]", "\\W", "[]]", "[^]]"]),
)
REGEXES = st.builds(
    lambda start, parts, end: f"/{start}{''.join(parts) or '.'}{end}",
    st.sampled_from(["", "^", "\\A"]),
    st.lists(
        st.tuples(PIECES, st.sampled_from(["", "", "*", "+", "?", "{2}", "{1,3}", "{2,}"])).map(
            lambda pair: pair[0] if pair[0] == "(?i)" else "".join(pair)
        ),
        max_size=4,
    ),
    st.sampled_from(["/", "$/", "/i", "\\z/"]),
)


# -- names --


@pytest.mark.parametrize(
    "regex",
    [
        *("/.*/", "/^[A-Z].*/", "/^cpu\\.\\d+$/", "/load$/i", "/a|b|c/", "/^(stats|sys)\\./"),
        *("/^[^a-zA-Z]/", "/x{3,5}y/", "/\\x{263a}/", "/^\\Q.*\\E$/", "/[[:digit:]]{4}/", "/\\pN/"),
        *("/^\u00fc/", "/(?i)^FOO/", "/(?P<host>web)\\d/", "/a\\tb/", "/[\u03b1-\u03c9]/", "/\\./"),
        *(
            "/^\\p{Greek}/",
            "/[\\t]/",
            "/^[\\f\\v]$/",
            "/^\\a\\x07[\\r]/",
            "/^[\\x{3040}-\\x{309F}]+$/",
        ),
        *("/^..\\b..$/", "/^.\\B.\\b.\\b.$/", "/^(abcd){501}$/", "/^a{1000}$/", "/^\\141pi\\07$/"),
        *(
            "/^\\P{L}\\p{Sc}$/",
            "/^[\\x01-\\x08]/",
            "/^\\p{Mn}\\PL/",
            "/^[[:^alpha:]]$/",
            "/\\x{1F600}/",
        ),
        *("/^[^\\W\\d_]+$/", "/foo\\b.bar/", "/^[`']/", "/^[\u03cb-\u03ce]$/", "/^[\\001]$/"),
        *("/^.{20}$/", "/[\\]\\-]/", "/((((a))))/", "cpu", "/a/b/", "/^~/", '/"/', "/\\\\/"),
    ],
)
def test_some_name_that_a_regex_matches_is_found(regex: str) -> None:
    space = spaces(regex)[0]
    assert any(takes(space, name) for name in names_for(regex))


@given(REGEXES)
def test_names_are_found_for_most_that_is_made_of_these_pieces(regex: str) -> None:
    names = names_for(regex)
    assert len(names) < 100
    assert all(name and name.encode() for name in names)
    if compiled(regex) is not None and "(?i)" not in regex:
        assert any(takes(spaces(regex)[0], name) for name in names)


@given(st.text(max_size=60))
def test_no_text_makes_the_reader_fail_or_talk_without_end(text: str) -> None:
    assert len(names_for(f"/{text}/")) < 100
    assert len(list(names_between([text, f"/{text}/i"]))) < 1000


@pytest.mark.parametrize("text", ["(" * 5000, "a{1000}{1000}{1000}", "(a{9}){9}" * 50, "[" * 999])
def test_hostile_regexes_cost_little(text: str) -> None:
    assert all(len(name) <= 20_000 for name in names_for(f"/{text}/"))


def test_all_characters_are_told_in_little_memory() -> None:
    _all_characters.cache_clear()
    tracemalloc.start()
    try:
        content = _all_characters()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    found = content.decode()
    assert len(found) == 0x110000 - 0x800  # less the surrogates
    assert all(one < other for one, other in itertools.pairwise(found))
    assert (found[0], found[-1]) == ("\0", "\U0010ffff")
    assert peak < 20 << 20


# -- the order --


@pytest.mark.parametrize(
    "regexes",
    [
        ["/.*/", "/^[A-Z].*/"],
        ["/.*/", "/^cpu/", "/^cpu\\./", "/^cpu\\.load$/"],
        ["/.*/", "/cpu/i", "/cpu/", "/^cpu/"],
        ["/a|b|c/", "/^(a|b)/", "/^a$/"],
        ["/./", "/\\d/", "/^\\d+$/", "/^1+$/"],
        ["/[[:alpha:]]/", "/[a-z]/", "/^[a-f]+$/"],
        ["/^stats/", "/^stats\\.(cpu|mem)\\./", "/^stats\\.cpu\\.\\d/"],
        ["/\\pL/", "/[\u03b1-\u03c9]/"],
    ],
)
def test_the_least_specific_comes_first_whatever_the_given_order(regexes: list[str]) -> None:
    for given_order in itertools.islice(itertools.permutations(regexes), 24):
        assert order(*given_order) == regexes


def test_those_that_cannot_be_compared_stay_as_they_were_given() -> None:
    assert order("/^a/", "/^b/", "/^c/") == ["/^a/", "/^b/", "/^c/"]
    assert order("/^c/", "/^a/", "/^b/") == ["/^c/", "/^a/", "/^b/"]
    assert order("/b$/", "/^a/") == ["/b$/", "/^a/"]
    assert order("/^a/", "/^b/", "/.*/") == ["/.*/", "/^a/", "/^b/"]


def test_known_series_decide_where_made_up_names_do_not_differ() -> None:
    one, other = "/^[a-z]+[0-9]{7}$/", "/^[a-z]+[0-9]{6}[0-8]$/"
    assert order(other, one, series=("cpu1234569", "mem1234568")) == [one, other]


@given(st.lists(REGEXES, min_size=1, max_size=5, unique=True))
def test_nothing_is_made_after_what_it_includes(regexes: list[str]) -> None:
    given_spaces = spaces(*regexes)
    trial = Trial(given_spaces)
    made = ordered(given_spaces, trial)
    assert sorted(space.name for space in made) == sorted(regexes)
    for place, later in enumerate(made):
        assert not any(trial.is_wider(later, earlier) for earlier in made[:place])


@given(st.lists(REGEXES, min_size=2, max_size=4, unique=True), st.randoms())
def test_a_wider_space_comes_first_whatever_the_given_order(
    regexes: list[str], random: Random
) -> None:
    shuffled = regexes[:]
    random.shuffle(shuffled)
    trial = Trial(spaces(*regexes))
    places = [ordered(spaces(*several), trial) for several in (regexes, shuffled)]
    for one, other in itertools.permutations(spaces(*regexes), 2):
        if trial.is_wider(one, other):
            assert all(made.index(one) < made.index(other) for made in places)


@given(st.lists(REGEXES, min_size=2, max_size=4, unique=True))
def test_an_overlap_names_a_series_that_both_take(regexes: list[str]) -> None:
    given_spaces = spaces(*regexes)
    trial = Trial(given_spaces)
    for overlap in overlaps(ordered(given_spaces, trial), trial):
        assert takes(overlap.first, overlap.sample)
        assert takes(overlap.then, overlap.sample)


def test_two_that_overlap_are_told_with_a_name_that_both_take() -> None:
    made = spaces("/^a/", "/b$/")
    (overlap,) = overlaps(made, Trial(made))
    assert (overlap.first.name, overlap.then.name) == ("/b$/", "/^a/")
    assert overlap.sample == "ab"


def test_two_that_share_nothing_or_include_each_other_are_no_overlap() -> None:
    for pair in (["/^a/", "/^b/"], ["/.*/", "/^b/"]):
        made = spaces(*pair)
        assert overlaps(made, Trial(made)) == ()


def test_what_takes_all_is_wider_than_what_no_name_is_known_of() -> None:
    for regexes in itertools.permutations(["/.*/", "/a^b/", "/^cpu/"]):
        assert order(*regexes)[0] == "/.*/"
    every, none, broken = spaces("/.*/", "/a^b/", "/(/")
    trial = Trial([every, none, broken])
    assert trial.is_wider(every, none)
    assert not trial.is_wider(none, every)
    assert not trial.is_wider(every, broken)
    assert [trial.is_unknown(space) for space in (every, none, broken)] == [False, True, False]


def test_a_name_that_is_given_makes_a_regex_known() -> None:
    never = spaces("/^.{9}\\B.{3}x\\By7$/")[0]
    assert Trial([never], ["Z" * 12 + "xy7"]).is_unknown(never) is False


# -- who is never asked --


@pytest.mark.parametrize(
    ("regex", "all_of_it"),
    [
        *(("/.*/", True), ("/.*/i", True), (".*", True), ("", True), ("/^.*/", True)),
        *(("/.*$/", True), ("/a*|b/", True), ("/(x?)/", True), ("/^a|b*/", True)),
        *(("/^.*$/", False), ("/^$/", False), ("/./", False), ("/a/", False), ("/\\b|a*/", False)),
        *(("/(/", False), ("/", False), ("/^a*b*$/", False), ("/(^)*/", False)),
    ],
)
def test_a_regex_takes_all_only_where_that_is_sure(regex: str, all_of_it: bool) -> None:
    assert takes_all(regex) is all_of_it


@given(REGEXES, st.text(alphabet="ab.\n~xA1\u00fc", max_size=12))
def test_what_takes_all_takes_any_name(regex: str, name: str) -> None:
    if takes_all(regex):
        assert takes(spaces(regex)[0], name)


def test_a_space_behind_one_that_takes_all_is_never_asked() -> None:
    asked = spaces("/^a/", "/.*/", "/^b/")
    found = shadows(asked)
    assert {name: (one.by.name, one.is_certain) for name, one in found.items()} == {
        "/^b/": ("/.*/", True)
    }


def test_what_only_samples_say_is_not_called_certain() -> None:
    found = shadows(spaces("/^cpu/", "/^cpu\\.[0-9]/"))
    assert not found["/^cpu\\.[0-9]/"].is_certain
    assert shadows(spaces("/^cpu\\.[0-9]/", "/^cpu/")) == {}


def test_a_regex_that_no_server_can_use_hides_nothing_and_is_not_hidden() -> None:
    assert shadows(spaces("/(/", "/a/")) == {}
    assert "/(/" not in shadows(spaces("/^a/", "/(/"))
