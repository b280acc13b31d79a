"""A file of spaces: its forms, and everything that is wrong with it at once."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardtool.influxdb.model import Space
from shardtool.influxdb.spaces import problems
from shardtool.upgrade.spaces import like_07, space_document
from shardtool.upgrade.spaces_file import read_spaces

SHORT, LONG = like_07("test")
GUIDE = """\
{
  "name": "long_term",
  "retentionPolicy": "inf",
  "shardDuration": "30d",
  "regex": "/^[A-Z].*/",
  "replicationFactor": 1,
  "split": 1
}

{
  "name": "short_term",
  "retentionPolicy": "inf",
  "shardDuration": "7d",
  "regex": "/.*/",
  "replicationFactor": 1,
  "split": 1
}
"""
TOML = """\
[[spaces]]
name = "long_term"
regex = "/^[A-Z].*/"
retentionPolicy = "inf"
shardDuration = "30d"

[[spaces]]
name = "short_term"
regex = '/.*/'
retentionPolicy = "inf"
shardDuration = "7d"
"""


def one(**parts: object) -> bytes:
    """Return a file of one space that is sound but for what is given; None leaves a key out."""
    whole = {**space_document(SHORT), **parts}
    return json.dumps({key: value for key, value in whole.items() if value is not None}).encode()


def wrong(content: bytes, name: str = "f") -> list[str]:
    """Return what is wrong with a file."""
    return list(read_spaces(name, content, None).problems)


# -- forms --


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("guide.txt", GUIDE),
        ("guide.json", GUIDE),
        ("stdin", GUIDE),
        ("spaces.toml", TOML),
        ("stdin", TOML),
        ("list.json", f"[{GUIDE.replace('}', '},', 1)}]"),
        ("with-key", f'{{"spaces": [{GUIDE.replace("}", "},", 1)}]}}'),
        ("bom.json", "\ufeff" + GUIDE),
    ],
)
def test_every_form_says_the_same(name: str, content: str) -> None:
    found = read_spaces(name, content.encode(), "test")
    assert found.problems == ()
    assert found.spaces == (LONG, SHORT)


def test_what_the_server_lists_is_a_file_too() -> None:
    listed = json.dumps([space_document(SHORT), space_document(LONG)]).encode()
    assert read_spaces("listed", listed, None).spaces == (SHORT, LONG)


def test_one_object_is_one_space_and_defaults_are_the_servers() -> None:
    found = read_spaces("f", one(replicationFactor=None, split=None), None)
    assert (found.spaces, found.problems) == ((SHORT,), ())


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "expected shard spaces, found none"),
        (b"[]", "expected shard spaces, found none"),
        (b"{", "expected JSON"),
        (b'{"name": "a", "name": "b"}', "'name' twice"),
        (b'[{"name": NaN}]', "NaN"),
        (b'{"spaces": 3}', "a list"),
        (b'{"spaces": [], "continuousQueries": []}', "continuousQueries"),
        (b"spaces = 3", "a list"),
        (b"[spaces]\nname = 'a'", "a list"),
        (b"[[spaces]]\nname = 'a'\nname = 'b'", "TOML"),
        (b"[[other]]", "other"),
        (b"\xff\xfe", "UTF-8"),
        (b"[" * 100_000, ""),
        (b'{"a":' * 100_000, ""),
        (b"[3,4]", "expected TOML"),
        (b"[" + b"9" * 5000 + b"]", ""),
        (b"{}3", "expected a space"),
        (b" " * ((1 << 20) + 1), "over 1 MiB"),
        (b"[" + b",".join([b"{}"] * 201) + b"]", "at most 200"),
        (b"<html>", "expected TOML"),
    ],
)
def test_what_is_no_file_of_spaces_is_one_line(content: bytes, expected: str) -> None:
    lines = wrong(content)
    assert all(line.startswith("f: ") and len(line) < 300 for line in lines)
    assert expected in lines[-1]
    assert len(lines) == 1 or content == b"{}3"


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_content_makes_the_reader_fail(content: bytes) -> None:
    for name in ("f", "f.json", "f.toml"):
        found = read_spaces(name, content, None)
        assert found.problems or found.spaces


# -- spaces --


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({"name": None}, "name: expected text in quotes, found none"),
        ({"regex": None}, "regex: expected"),
        ({"retentionPolicy": None}, "retentionPolicy: expected"),
        ({"shardDuration": None}, "shardDuration: expected"),
        ({"database": None}, "--database"),
        ({"retention": "inf"}, "'retention' means nothing"),
        ({"Name": "x"}, "'Name' means nothing"),
        ({"split": True}, "split: expected a whole number, found true"),
        ({"split": "1"}, "split: expected a whole number"),
        ({"split": 1.0}, "split: expected a whole number"),
        ({"split": []}, "found a list"),
        ({"replicationFactor": {}}, "found an object"),
        ({"shardDuration": 7}, "shardDuration: expected text in quotes, found 7"),
        ({"name": ""}, "name: expected a name"),
        ({"name": "a/b"}, "no slash"),
        ({"name": "a\x1b[2J"}, "printable"),
        ({"name": "a\nb"}, "printable"),
        ({"name": "x" * 101}, "at most 100"),
        ({"name": "\u202ex"}, "printable"),
        ({"database": ""}, "database: expected a name"),
        ({"shardDuration": "7"}, "shardDuration"),
        ({"shardDuration": "7 parsecs"}, "shardDuration"),
        ({"shardDuration": "seven"}, "shardDuration"),
        ({"shardDuration": ""}, "shardDuration"),
        ({"shardDuration": "0d"}, "1h to 100 years"),
        ({"shardDuration": "59m"}, "1h to 100 years"),
        ({"shardDuration": "36526d"}, "1h to 100 years"),
        ({"shardDuration": "inf"}, "shardDuration"),
        ({"shardDuration": "-7d"}, "shardDuration"),
        ({"shardDuration": "7d "}, "shardDuration"),
        ({"shardDuration": "1.5d"}, "shardDuration"),
        ({"shardDuration": "3600000000u"}, "shardDuration"),
        ({"shardDuration": "\u0667d"}, "shardDuration"),
        ({"retentionPolicy": "forever"}, "retentionPolicy"),
        ({"retentionPolicy": ""}, "retentionPolicy"),
        ({"retentionPolicy": "0d"}, "retentionPolicy"),
        ({"regex": "/"}, "regex: expected /.../"),
        ({"regex": "//"}, "regex: expected /.../"),
        ({"regex": "//i"}, "regex: expected /.../"),
        ({"regex": "/i"}, "regex: expected /.../"),
        ({"regex": ""}, "regex: expected /.../"),
        ({"regex": ".*"}, "regex: expected /.../"),
        ({"regex": "/a/I"}, "regex: expected /.../"),
        ({"regex": "/(/"}, "RE2"),
        ({"regex": "/(?=a)/"}, "RE2"),
        ({"regex": "/(a)\\1/"}, "RE2"),
        ({"regex": "/a\\Cb/"}, "0.8's Go"),
        ({"regex": "/(?<name>a)/"}, ""),
        ({"regex": "/" + "a" * 1000 + "/"}, "at most 1000"),
        ({"regex": "/\ud800/"}, "UTF-8"),
        ({"replicationFactor": 0}, "replicationFactor"),
        ({"replicationFactor": -1}, "replicationFactor"),
        ({"replicationFactor": 2**32}, "replicationFactor"),
        ({"split": 0}, "split"),
        ({"split": 1001}, "split"),
        ({"name": "default", "shardDuration": "30d"}, "what 0.8 makes by itself"),
        ({"name": "default", "regex": "/^a/"}, "what 0.8 makes by itself"),
    ],
)
def test_what_no_server_must_be_sent_is_told(parts: dict[str, object], expected: str) -> None:
    lines = wrong(one(**parts))
    assert len(lines) == 1
    assert expected in lines[0]


@pytest.mark.parametrize(
    "parts",
    [
        {"regex": "/a\\\\C/"},
        {"regex": "/\\Q\\C\\E/"},
        {"regex": "/a/b/"},
        {"regex": "/^cpu/i"},
        {"regex": "/\\pL+/"},
        {"regex": "/(?P<name>a)/"},
        {"shardDuration": "1h"},
        {"shardDuration": "60m"},
        {"shardDuration": "3600s"},
        {"shardDuration": "36525d"},
        {"shardDuration": "2w"},
        {"retentionPolicy": "30d"},
        {"split": 1000},
        {"name": "..", "database": ".."},
        {"name": "default"},
        {"name": "\u00fcber 5%"},
    ],
)
def test_what_a_server_takes_is_sound(parts: dict[str, object]) -> None:
    assert wrong(one(**parts)) == []


def test_all_problems_of_all_spaces_are_told_at_once_with_file_and_space() -> None:
    content = b"[" + one(name="a", regex="/", split=0) + b"," + one(name=None, shardDuration="7")
    lines = read_spaces("my.json", content + b"]", None).problems
    assert len(lines) == 3
    assert [line.split(": ")[:2] for line in lines] == [
        ["my.json", "a"],
        ["my.json", "a"],
        ["my.json", "space 2"],
    ]


def test_a_name_twice_in_a_database_is_told() -> None:
    content = one() + one(database="other") + one(regex="/a/")
    (line,) = wrong(content)
    assert "short_term: expected once in test, found again" in line


def test_a_database_that_contradicts_the_option_is_told() -> None:
    (line,) = read_spaces("f", one(), "metrics").problems
    assert "--database says 'metrics', found 'test'" in line


def test_more_copies_than_servers_are_told_where_their_number_is_known() -> None:
    space = Space("a", "db", "/a/", "inf", "7d", 3, 1)
    assert problems(space) == ()
    assert problems(space, servers=3) == ()
    assert "expected 1 to 2" in problems(space, servers=2)[0]
