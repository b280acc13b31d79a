"""Messages: text, JSON lines, the journal's levels; and no secret in any of them."""

from __future__ import annotations

import io
import json
import os
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardtool.cli.output import Log, Output, is_journal
from shardtool.cli.redaction import redacted

TEXTS = st.one_of(
    st.text(st.characters(codec=None, exclude_categories=())),
    st.binary().map(lambda raw: raw.decode("utf-8", "surrogateescape")),
)


@pytest.fixture(autouse=True)
def no_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run as if nobody had made stderr the journal."""
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)


def lines_of(monkeypatch: pytest.MonkeyPatch, **settings: Any) -> tuple[Log, io.StringIO]:
    """Return a log and what it writes to."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    return Log(**settings), stream


def test_text_is_a_line_that_says_who_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    log, stream = lines_of(monkeypatch)
    log.tell("no\nroom")
    log.tell("it failed", level="error", exit_code=1)
    assert stream.getvalue() == "shardtool: no\\x0aroom\nshardtool: it failed\n"


def test_a_json_line_has_time_level_command_message_and_at_the_end_the_exit_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log, stream = lines_of(monkeypatch, as_json=True, command="prune")
    log.tell("warning: 00007 stays")
    log.tell("it failed", level="error", exit_code=1)
    first, last = (json.loads(line) for line in stream.getvalue().splitlines())
    at = datetime.fromisoformat(first.pop("time"))
    assert at.utcoffset() == timedelta()
    assert first == {"level": "warning", "command": "prune", "message": "00007 stays"}
    assert (last["level"], last["message"], last["exit_code"]) == ("error", "it failed", 1)


@given(TEXTS)
def test_whatever_a_message_holds_it_is_one_line_of_json_that_every_reader_takes(
    text: str,
) -> None:
    stream, before = io.StringIO(), sys.stderr
    sys.stderr = stream
    try:
        Log(as_json=True).tell(text)
    finally:
        sys.stderr = before
    (line,) = stream.getvalue().splitlines()
    assert line.isascii()
    assert str(json.loads(line)["message"]).isprintable()


def test_a_code_that_no_message_has_told_is_told_to_machines_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log, stream = lines_of(monkeypatch, as_json=True)
    log.end(0)
    assert stream.getvalue() == ""
    log.end(3)
    assert json.loads(stream.getvalue())["exit_code"] == 3
    log, stream = lines_of(monkeypatch, as_json=True)
    log.tell("x", level="error", exit_code=1)
    log.end(1)
    assert stream.getvalue().count("\n") == 1
    log, stream = lines_of(monkeypatch)
    log.end(3)
    assert stream.getvalue() == ""


def test_a_stream_that_can_not_be_written_is_nobody_to_tell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, os.strerror(28))

    monkeypatch.setattr(sys, "stderr", Full())
    Log().tell("x")


def test_the_journal_is_known_by_device_and_inode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "journal").open("w") as stream:
        entry = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{entry.st_dev}:{entry.st_ino}")
        assert is_journal(stream)
        monkeypatch.setenv("JOURNAL_STREAM", f"{entry.st_dev}:{entry.st_ino + 1}")
        assert not is_journal(stream)
        for nonsense in ("", ":", "x", "1"):
            monkeypatch.setenv("JOURNAL_STREAM", nonsense)
            assert not is_journal(stream)
    assert not is_journal(io.StringIO())


@pytest.mark.parametrize(("level", "number"), [("error", 3), ("warning", 4), ("info", 6)])
def test_the_journal_gets_the_level_before_the_text_and_json_stays_json(
    level: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "journal"
    with path.open("w") as stream:
        entry = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{entry.st_dev}:{entry.st_ino}")
        monkeypatch.setattr(sys, "stderr", stream)
        Log().tell("x", level=level)
        Log(as_json=True).tell("y", level=level)
        monkeypatch.undo()
    text, as_json = path.read_text().splitlines()
    assert text == f"<{number}>shardtool: x"
    assert json.loads(as_json)["level"] == level


def test_nothing_is_drawn_and_nobody_asked_where_messages_are_for_machines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, Terminal())
    people = Output(as_json=False, quiet=False)
    machines = Output(as_json=False, quiet=False, log=Log(as_json=True))
    assert (people.draws, machines.draws) == (True, False)
    assert people.why_not_asked == ""
    assert "--log-format" in machines.why_not_asked
    assert "-qq" in Output(as_json=False, quiet=False, mail=True).why_not_asked


# -- secrets --


@pytest.mark.parametrize(
    ("words", "environment"),
    [
        (["verify", "--password", "h0rse"], {}),
        (["verify", "--password=h0rse"], {}),
        (["verify", "--aws-secret-access-key", "h0rse"], {}),
        (["verify", "--api", "http://root:h0rse@db1:8086"], {}),
        (["verify", "--api", "http://db1:8086/?u=root&p=h0rse"], {}),
        (["verify", "--password", "h0r'se\""], {}),
        (["verify", "-p", "h0rse"], {}),
        (["verify", "--api", "http://root:x/h0rse@db1:8086"], {}),
        (["verify", "--api", "http://root:x@h0rse/h0rse@db1:8086"], {}),
        ([], {"SHARDTOOL_PASSWORD": "h0rse-battery"}),
        ([], {"AWS_SECRET_ACCESS_KEY": "h0rse/battery+staple"}),
    ],
)
def test_what_was_given_in_a_wrong_place_is_in_no_message(
    words: list[str], environment: dict[str, str]
) -> None:
    said = f"unrecognized arguments: {' '.join([*words, *environment.values()])}"
    for text in (said, repr([*words, *environment.values()])):
        shown = redacted(text, words, environment)
        assert "h0r" not in shown
        assert "battery" not in shown


def test_only_what_is_secret_is_left_out() -> None:
    words = ["prune", "--password-file", "/etc/password", "--trust", "marker"]
    text = f"/root/data: {' '.join(words)}"
    assert redacted(text, words, {"SHARDTOOL_PASSWORD": "root"}) == text
    assert redacted("http://db1:8086/x", ["--api", "http://db1:8086"], {}) == "http://db1:8086/x"
    assert redacted("s3://b/p@q", ["--to", "s3://b:1/p"], {}) == "s3://b/p@q"
