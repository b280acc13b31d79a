"""How a migration that runs is shown: in 80 columns, without a byte that a terminal obeys."""

from __future__ import annotations

import pytest

from shardtool.cli.following import Screen, lines_of, state_of, trouble_line
from shardtool.cli.output import Output
from shardtool.influxdb.serverlog import Trouble
from shardtool.upgrade.migration import Look, Run, begin, follow

TERA = 10**12


def large(count: int = 999) -> Run:
    """A run of many large shards, with a third of them done in a day."""
    names = [f"{number:05d}" for number in range(1, count + 1)]
    done = count // 3
    first = Look(0.0, {}, dict.fromkeys(names, TERA), TERA, locked=names[-1])
    marked = dict.fromkeys(names[-done:], TERA)
    rest = dict.fromkeys(names[:-done], TERA)
    troubles = (Trouble(names[-1], "x", "y" * 500), Trouble("", "", "Writing\x1b[2J"))
    return follow(
        begin(first),
        Look(86_400.0, marked, rest, 9 * TERA, locked=names[-done - 1], troubles=troubles),
    )


def test_a_large_migration_fits_80_columns() -> None:
    assert state_of(large()) == (
        "migrating 00666: 33% (302.9T of 908.6T), 333/999 marked, 3.6G/s, 2d left"
    )
    lines = lines_of(large())
    assert lines[1] == "00666 holds 931.3G; the new shards have grown by 7.3T"
    assert max(map(len, lines)) <= 80


def test_what_would_take_a_century_is_not_told() -> None:
    sizes = {"00001": 10**15, "00002": 1}
    run = follow(begin(Look(0.0, {}, sizes)), Look(9.0, {"00002": 1}, {"00001": 10**15}))
    assert "left" not in state_of(run)


def test_nothing_hostile_reaches_the_terminal() -> None:
    sizes = {"\x1b[31m": 1, "\udcff": 1}
    trouble = Trouble("\x1b[31m", "\x07", "Problem migrating series \x07\n")
    run = begin(Look(0.0, {}, sizes, locked="\x1b[31m", troubles=(trouble,)))
    assert all(line.isprintable() for line in lines_of(run))
    assert trouble_line(trouble) == r"\x1b[31m: Problem migrating series \x07\x0a"


def test_a_message_without_end_is_cut() -> None:
    assert len(trouble_line(Trouble("00001", "", "y" * 10_000))) < 400


def test_each_error_is_told_once_and_before_the_marker_of_its_shard(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sizes = {"00001": 1, "00002": 1}
    trouble = Trouble("00002", "x", "Problem migrating series x")
    run = begin(Look(0.0, {}, sizes))
    with Screen(Output(as_json=False, quiet=False)) as screen:
        screen.show(run)
        run = follow(run, Look(1.0, {"00002": 1}, {"00001": 1}, troubles=(trouble,)))
        screen.show(run)
        screen.show(follow(run, Look(2.0, sizes, {}, troubles=(trouble,))))
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "error in InfluxDB's log: 00002: Problem migrating series x",
        "marked 00002: 50% (1B of 2B), 1/2 marked",
        "marked 00001: 100% (2B of 2B), 2/2 marked",
    ]
    assert err == ""


@pytest.mark.parametrize(("as_json", "quiet"), [(True, False), (False, True)])
def test_with_json_or_quiet_nothing_is_printed_on_the_way(
    capsys: pytest.CaptureFixture[str], as_json: bool, quiet: bool
) -> None:
    with Screen(Output(as_json=as_json, quiet=quiet)) as screen:
        screen.show(large(9))
    assert capsys.readouterr() == ("", "")
