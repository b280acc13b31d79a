"""-qq: what is kept of a run's output, and the mail that is made of it. No process here."""

from __future__ import annotations

import io
import sys
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardtool.cli.mail import (
    WIDTH,
    Cut,
    Held,
    HeldLog,
    HeldStream,
    compose,
    heading_of,
    shown_by_of,
)
from shardtool.cli.output import Message

MOST = 60
HEADING = ["host     db1", "data     /d"]
LINES = st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"])), max_size=200)


def message(text: str, level: str = "warning") -> Message:
    return Message(datetime(2026, 11, 26, tzinfo=UTC), level, text)


def kept(*lines: str) -> Cut:
    cut = Cut()
    for line in lines:
        cut.add(line)
    return cut


def test_what_is_wrong_comes_first_and_errors_before_warnings() -> None:
    messages = [message("00007 stays"), message("it failed", "error")]
    lines = compose(HEADING, messages, 0, kept("7 shards"), "x")
    assert lines == [*HEADING, "", "it failed", "00007 stays", "", "7 shards"]


def test_a_mail_without_messages_or_without_text_has_no_empty_parts() -> None:
    assert compose(HEADING, [], 0, kept("7 shards"), "x") == [*HEADING, "", "7 shards"]
    assert compose(HEADING, [message("no")], 0, kept(), "x") == [*HEADING, "", "no"]
    assert compose(HEADING, [], 0, kept(), "x") == HEADING


def test_a_long_report_keeps_its_beginning_and_its_end_and_says_what_shows_the_rest() -> None:
    lines = compose(HEADING, [], 0, kept(*(f"line {n}" for n in range(1000))), "shardtool status")
    assert len(lines) <= MOST
    assert "line 0" in lines
    assert lines[-1] == "line 999"
    (between,) = [line for line in lines if line.startswith("...")]
    shown = sum(line.startswith("line") for line in lines)
    assert between == f"... {1000 - shown} lines more: shardtool status"


def test_many_messages_leave_room_for_the_report() -> None:
    messages = [message(f"{n:05}: suspect: {'x' * 100}") for n in range(150)]
    lines = compose(HEADING, messages, 50, kept("7 shards"), "shardtool status")
    assert len(lines) <= MOST
    assert lines[-1] == "7 shards"
    shown = sum(": suspect" in line for line in lines)
    assert f"... {200 - shown} messages more: shardtool status" in lines


@given(LINES, st.lists(st.text(max_size=3000), max_size=20), st.integers(0, 10_000))
def test_whatever_was_printed_a_mail_is_60_lines_of_80_columns(
    lines: list[str], texts: list[str], more: int
) -> None:
    found = compose(HEADING, [message(text) for text in texts], more, kept(*lines), "y" * 300)
    assert len(found) <= MOST
    assert all(len(line) <= WIDTH for line in found)
    assert all(line.isprintable() for line in found)


@given(LINES)
def test_a_report_that_fits_is_whole(lines: list[str]) -> None:
    fits = [line[:70] for line in lines[:50]]
    found = compose([], [], 0, kept(*fits), "z")
    assert found[1:] == fits


def test_a_stream_keeps_lines_however_they_are_written() -> None:
    cut = Cut()
    stream = HeldStream(io.StringIO(), cut)
    for piece in ("a", "b\nc", "\n\n", "d"):
        assert stream.write(piece) == len(piece)
    stream.end()
    assert [*cut.first, *cut.last] == ["ab", "c", "", "d"]
    assert not stream.isatty()


def test_the_memory_of_what_is_held_is_bounded() -> None:
    cut, log = Cut(), HeldLog(as_json=False)
    stream = HeldStream(io.StringIO(), cut)
    for number in range(5_000):
        stream.write(f"{number}" + "x" * 10_000)
        stream.write("\n")
        log.take(message("y" * 10_000))
    log.take(Message(datetime.now(UTC), "error", "the end", 1))
    assert cut.count == 5_000
    assert sum(map(len, [*cut.first, *cut.last])) < 300_000
    assert sum(len(one.text) for one in log.messages) < 500_000
    assert log.messages[-1].text == "the end"
    assert log.more == 4_800


def test_the_heading_names_host_node_command_and_result() -> None:
    words = ["verify", "--api", "http://root:h0rse@db1", "--data", "/d", "-qq"]
    lines = heading_of(words, {"SHARDTOOL_DATA": "/e"}, 3)
    assert [line.split()[0] for line in lines] == ["host", "data", "command", "result"]
    assert lines[1] == "data     /d"
    assert lines[2] == "command  shardtool verify --api http://...@db1 --data /d -qq"
    assert "exit code 3: done, but" in lines[3]
    config = heading_of(["status", "--influx-config", "/c.toml"], {"SHARDTOOL_DATA": "/e"}, 1)
    assert config[1] == "config   /c.toml"


def test_a_hostile_name_in_a_heading_is_harmless_and_short() -> None:
    lines = heading_of(["status", "--data", "/\x1b[31m\n" + "x" * 4_000], {}, 1)
    assert all(line.isprintable() and len(line) <= WIDTH for line in lines)
    assert len(lines) < 15


def test_the_command_that_shows_all_does_nothing() -> None:
    assert shown_by_of("prune", ["prune", "-qq", "--yes", "--data", "/d d"]) == (
        "shardtool --data '/d d' prune --dry-run"
    )
    assert shown_by_of("status", ["-q", "status", "--quiet", "-nq"]) == "shardtool status -n"
    assert shown_by_of("rescue", ["rescue", "--influx-config=/c"]) == (
        "shardtool --influx-config /c verify"
    )


@pytest.mark.parametrize(("code", "is_told"), [(4, False), (1, True)])
def test_only_another_shardtool_at_work_is_passed_over(
    code: int,
    is_told: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["shardtool", "export", "-qq"])
    with Held(log_as_json=True) as held:
        held.log.tell("whoever read the output has gone", level="info", exit_code=code)
        held.code = code
    assert (f"exit code {code}: " in capsys.readouterr().out) is is_told
