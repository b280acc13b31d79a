"""Where user, password and URL come from, and what they must not be."""

from __future__ import annotations

import io
import sys
import traceback
from pathlib import Path

import pytest

from shardtool.errors import UsageError
from shardtool.influxdb.api import Api
from shardtool.influxdb.credentials import base_url, credentials
from tests.real.api_world import PASSWORD, Leaks

# -- where the password comes from --


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no terminal on stdin."""
    monkeypatch.setattr(sys, "stdin", io.StringIO())


def test_the_password_is_taken_from_the_environment(no_terminal: None) -> None:
    assert credentials(None, {"SHARDTOOL_PASSWORD": "a b"}) == ("root", "a b")
    user, password = credentials("paul", {"SHARDTOOL_PASSWORD": "x"})
    assert (user, password) == ("paul", "x")


def test_the_password_is_taken_from_a_file_without_its_newline(
    tmp_path: Path, no_terminal: None
) -> None:
    file = tmp_path / "password"
    for content in (b" s\xc3\xa9cret ", b" s\xc3\xa9cret \n", b" s\xc3\xa9cret \r\n"):
        file.write_bytes(content)
        assert credentials(None, {"SHARDTOOL_PASSWORD_FILE": str(file)}).password == " sécret "


@pytest.mark.parametrize("content", [b"", b"\n", b"h0rse\nh0rse", b"h0rse\xff", b"h0rse" * 4096])
def test_a_file_that_holds_no_password_is_refused_and_not_shown(
    content: bytes, tmp_path: Path, no_terminal: None
) -> None:
    file = tmp_path / "password"
    file.write_bytes(content)
    with pytest.raises(UsageError, match=str(file)) as error:
        credentials(None, {"SHARDTOOL_PASSWORD_FILE": str(file)})
    assert "h0rse" not in "".join(traceback.format_exception(error.value))


def test_a_file_that_cannot_be_read_is_named_with_the_reason(
    tmp_path: Path, no_terminal: None
) -> None:
    for path, reason in ((tmp_path / "none", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(UsageError, match=f"{path}: .*{reason}"):
            credentials(None, {"SHARDTOOL_PASSWORD_FILE": str(path)})


def test_without_a_password_and_a_terminal_the_error_says_how_to_give_one(
    no_terminal: None,
) -> None:
    with pytest.raises(UsageError, match="SHARDTOOL_PASSWORD, or SHARDTOOL_PASSWORD_FILE"):
        credentials(None, {"SHARDTOOL_PASSWORD": ""})


def test_on_a_terminal_the_password_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    prompts: list[str] = []
    monkeypatch.setattr(sys, "stdin", _Terminal())

    def typed(prompt: str) -> str:
        prompts.append(prompt)
        return "typed"

    monkeypatch.setattr("getpass.getpass", typed)
    assert credentials("paul", {}) == ("paul", "typed")
    assert prompts == ["Password of the InfluxDB user paul: "]


def test_a_terminal_that_ends_is_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    def ends(prompt: str) -> str:
        raise EOFError

    monkeypatch.setattr(sys, "stdin", _Terminal())
    monkeypatch.setattr("getpass.getpass", ends)
    with pytest.raises(UsageError, match="no password"):
        credentials(None, {})


@pytest.mark.parametrize(("user", "password"), [("root", "a:h0rse"), ("a:b", "x")])
def test_a_colon_is_refused_because_the_server_could_not_read_it(user: str, password: str) -> None:
    with pytest.raises(UsageError, match="colon") as error:
        credentials(user, {"SHARDTOOL_PASSWORD": password})
    assert "h0rse" not in str(error.value)


@pytest.mark.parametrize(("user", "password"), [("root", "a\udcffh0rse"), ("r\udcff", "h0rse")])
def test_what_is_no_utf8_is_refused_and_the_password_not_shown(user: str, password: str) -> None:
    with pytest.raises(UsageError, match=r"no UTF-8") as error:
        credentials(user, {"SHARDTOOL_PASSWORD": password})
    assert "h0rse" not in "".join(traceback.format_exception(error.value))


def test_a_terminal_that_sends_no_utf8_shows_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    def typed(prompt: str) -> str:
        return b"h0rse\xff".decode()

    monkeypatch.setattr(sys, "stdin", _Terminal())
    monkeypatch.setattr("getpass.getpass", typed)
    with pytest.raises(UsageError, match=r"no UTF-8") as error:
        credentials(None, {})
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__


def test_credentials_print_without_the_password() -> None:
    found = credentials("paul", {"SHARDTOOL_PASSWORD": PASSWORD})
    Leaks().check(f"{found!r} {found}")
    assert "paul" in repr(found)


# -- the URL --


@pytest.mark.parametrize(
    ("text", "base"),
    [
        ("http://db1:8086", "http://db1:8086"),
        ("http://db1:8086/", "http://db1:8086"),
        ("https://db1", "https://db1"),
        ("http://[::1]:8086", "http://[::1]:8086"),
        ("https://proxy/influx/", "https://proxy/influx"),
    ],
)
def test_a_base_url_is_taken_without_its_last_slash(text: str, base: str) -> None:
    assert base_url(text) == base


@pytest.mark.parametrize(
    "text",
    [
        *("", "db1:8086", "db1", "ftp://db1", "http://", "http:///x", "http://db1:port"),
        *("http://db1:99999", "http://db1:0", "http://[::1", "http://db 1", "http://db1\n"),
        *("http://root:h0rse@db1:8086", "root:h0rse@db1:8086", "http://root@db1"),
        *("http://db1/?u=root&p=h0rse", "http://db1/#h0rse", "http://db1\\x", "file:///etc"),
        *("http://a..b:8086", "http://.:1", "http://..", f"http://{'a' * 64}:1", "http://xn--a:1"),
        *("http://\udcff:1", "http://db1/\udcff", "http://\u2603\ufe0f..x", "http://[::1%]:1"),
        *("http://[v1.x]:1", "http://\u00ad"),
    ],
)
def test_what_is_no_base_url_is_refused_and_a_password_in_it_not_shown(text: str) -> None:
    with pytest.raises(UsageError, match="http://HOST:PORT") as error:
        Api(text, "root", "x")
    assert "h0rse" not in "".join(str(one) for one in (error.value, error.value.__context__))
