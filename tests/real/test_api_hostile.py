"""The command against servers that mean harm, and words that can't be sent: one line."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from shardtool.errors import ShardtoolError
from shardtool.influxdb.api import Api
from tests.conftest import REPOSITORY, Run
from tests.real.api_world import listening, sound

SECRET = "h0rse"


def the_line(done: subprocess.CompletedProcess[str], code: int) -> str:
    """Return the only line of stderr, which shows no password and no mistake of ours."""
    assert done.returncode == code, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("shardtool: ")
    assert line.isprintable()
    assert "mistake in shardtool" not in line
    assert SECRET not in line + done.stdout
    return line


# -- what can't be sent --


@pytest.mark.parametrize(
    ("user", "password"), [("root", b"a\xffh0rse"), (b"r\xff", "h0rse"), ("root", b"\xed\xa0\x80")]
)
def test_a_password_that_is_no_utf8_is_wrong_usage_and_never_shown(
    user: str | bytes, password: str | bytes, shardtool: Run
) -> None:
    done = shardtool(
        *("spaces", "list", "--api", "http://127.0.0.1:1", "--user", os.fsdecode(user)),
        env={"SHARDTOOL_PASSWORD": os.fsdecode(password)},
    )
    assert "no UTF-8" in the_line(done, 2)


@pytest.mark.parametrize(
    "url", ["http://a..b:8086", "http://.:1", f"http://{'a' * 64}:1", "http://xn--a:1"]
)
def test_a_host_that_is_none_is_wrong_usage(url: str, shardtool: Run) -> None:
    done = shardtool("spaces", "list", "--api", url, env={"SHARDTOOL_PASSWORD": SECRET})
    assert "is no URL of an API" in the_line(done, 2)


def test_a_file_for_keys_that_can_not_be_made_is_called_what_it_is(shardtool: Run) -> None:
    done = shardtool(
        *("spaces", "list", "--api", "https://127.0.0.1:1"),
        env={"SHARDTOOL_PASSWORD": SECRET, "SSLKEYLOGFILE": "/nonexist/x"},
    )
    assert "/nonexist/x: expected a file for the keys of TLS (SSLKEYLOGFILE)" in the_line(done, 2)


def test_a_mistake_of_ours_shows_its_kind_and_place_and_nothing_that_it_holds() -> None:
    script = (
        "import sys; from shardtool.cli import app\n"
        "def broken(*given): '\\udcffh0rse \\x1b[2J'.encode()\n"
        "app._run = broken; sys.exit(app.main())"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    environment.pop("SHARDTOOL_DEBUG", None)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "a mistake in shardtool itself" in line
    assert "UnicodeEncodeError in broken (" in line
    assert "SHARDTOOL_DEBUG=1" in line
    assert SECRET not in line


@pytest.mark.parametrize(
    ("password", "body"),
    [
        ("h0rse-battery", b" " * 494 + b"h0rse-battery"),  # what is shown is cut at 500
        ("h0rse'battery", b" " * 492 + b"h0rse'battery"),
    ],
)
def test_a_part_of_the_password_at_the_end_of_a_piece_is_not_shown(
    password: str, body: bytes
) -> None:
    with (
        listening(lambda connection, asked: sound(connection, body)) as url,
        Api(url, "root", password) as api,
        pytest.raises(ShardtoolError, match="expected the JSON") as error,
    ):
        api.configuration()
    assert "h0r" not in str(error.value)
    assert "batt" not in str(error.value)
