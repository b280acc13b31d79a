"""InfluxDB's own log: its entries as they come, whatever happens to the file, and what they say."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardtool.errors import ShardtoolError
from shardtool.influxdb.serverlog import Entry, LogReader, MigrationLog, Trouble, series_of

MIGRATOR = "github.com/influxdb/influxdb/migration.(*DataMigrator)"


def line(text: str, *, level: str = "INFO", source: str = f"{MIGRATOR}.migrateDir:83") -> bytes:
    return f"[2026/11/24 16:19:56 UTC] [{level}] ({source}) {text}\n".encode()


START = line(
    "Starting Migration",
    source="github.com/influxdb/influxdb/api/http.(*HttpServer).migrateData.func1.1:1276",
)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "influxdb.log"
    path.write_bytes(line("before"))
    return path


def append(path: Path, content: bytes) -> None:
    with path.open("ab") as file:
        file.write(content)


def texts(reader: LogReader) -> list[str]:
    """Return what two polls bring: the second completes what the first has found."""
    return [entry.text for _ in range(2) for entry in reader.poll()]


def said(*lines: bytes) -> MigrationLog:
    """Return what the migrator has said in these lines."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "log")
        path.touch()
        log = MigrationLog(LogReader(path))
        append(path, b"".join(lines))
        log.poll()
        log.poll()
        assert log.reader is not None
        log.reader.close()
    return log


# -- the file --


def test_what_stood_there_before_is_not_read_and_what_is_appended_is(log: Path) -> None:
    reader = LogReader(log)
    assert texts(reader) == []
    append(log, line("Migrating 00027") + line("Migrating 00026"))
    assert texts(reader) == ["Migrating 00027", "Migrating 00026"]
    assert texts(reader) == []


def test_a_line_that_is_half_written_is_read_when_it_is_whole(log: Path) -> None:
    reader = LogReader(log)
    whole = line("Migrating 00027")
    append(log, whole[:40])
    assert texts(reader) == []
    append(log, whole[40:])
    assert texts(reader) == ["Migrating 00027"]


def test_an_entry_goes_on_over_newlines_of_a_name(log: Path) -> None:
    reader = LogReader(log)
    append(log, line("Problem migrating series new\nline\n[no] header") + line("next"))
    assert texts(reader) == ["Problem migrating series new\nline\n[no] header", "next"]


def test_a_log_that_was_rotated_is_read_to_its_end_and_then_the_new_one(log: Path) -> None:
    reader = LogReader(log)
    append(log, line("last of the old"))
    log.rename(log.with_name("influxdb.log.1"))
    log.write_bytes(line("first of the new"))
    assert texts(reader) == ["last of the old", "first of the new"]


def test_a_line_that_rotation_has_cut_does_not_run_into_the_new_log(log: Path) -> None:
    reader = LogReader(log)
    append(log, line("cut")[:-1])
    assert texts(reader) == []
    log.rename(log.with_name("influxdb.log.1"))
    log.write_bytes(line("first of the new"))
    assert texts(reader) == ["first of the new"]


def test_a_log_that_is_gone_for_a_while_is_read_when_it_is_back(log: Path) -> None:
    reader = LogReader(log)
    log.unlink()
    assert texts(reader) == []
    log.write_bytes(line("back"))
    assert texts(reader) == ["back"]


def test_a_log_that_was_not_there_yet_is_read_from_its_beginning(tmp_path: Path) -> None:
    reader = LogReader(tmp_path / "log")
    assert texts(reader) == []
    (tmp_path / "log").write_bytes(line("first"))
    assert texts(reader) == ["first"]


def test_a_log_that_was_cut_short_is_read_from_its_beginning(log: Path) -> None:
    reader = LogReader(log)
    os.truncate(log, 0)
    assert texts(reader) == []
    append(log, line("anew"))
    assert texts(reader) == ["anew"]


def test_a_log_that_was_cut_short_and_has_grown_beyond_is_read_from_its_beginning(
    log: Path,
) -> None:
    reader = LogReader(log)
    log.write_bytes(line("anew") + line("and more of it") * 3)
    assert texts(reader) == ["anew", *["and more of it"] * 3]


def test_a_poll_reads_no_more_than_16_mib_and_the_next_goes_on(log: Path) -> None:
    reader = LogReader(log)
    many = line("x" * 1000) * 20_000
    append(log, many)
    first = sum(1 for _ in reader.poll())
    assert 10_000 < first < 17_000
    assert first + len(texts(reader)) == 20_000


def test_of_a_line_without_end_only_the_beginning_is_kept(log: Path) -> None:
    reader = LogReader(log)
    append(log, line("x" * 3_000_000)[:-1])
    assert texts(reader) == []
    append(log, b"\n" + line("next"))
    found = texts(reader)
    assert len(found[0]) < 70_000
    assert found[1:] == ["next"]


def test_it_can_begin_where_the_last_migration_began(log: Path) -> None:
    first, second = START + line("Migrating 00003"), START + line("Migrating 00002")
    append(log, first + line("a client's own: ) Starting Migration") + second + line("end"))
    found = texts(LogReader(log, of_last_migration=True))
    assert found == ["Starting Migration", "Migrating 00002", "end"]


def test_the_beginning_is_found_far_back(log: Path) -> None:
    append(log, START + line("x" * 999) * 2000)
    assert texts(LogReader(log, of_last_migration=True))[0] == "Starting Migration"


@pytest.mark.parametrize("cut", range(0, len(START) + 1, 7))
def test_the_beginning_is_found_across_the_border_of_two_pieces(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "log"
    rest = line("x" * 200_000) + line("y" * 100_000)
    path.write_bytes(line("before") + START + rest[: (1 << 18) - cut])
    reader = LogReader(path, of_last_migration=True)
    assert next(reader.poll()).text == "Starting Migration"


def test_where_no_migration_began_all_of_it_is_read(log: Path) -> None:
    assert texts(LogReader(log, of_last_migration=True)) == ["before"]


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir])
def test_what_is_no_file_is_refused_without_waiting(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "log")
    with pytest.raises(ShardtoolError, match="expected InfluxDB's log"):
        LogReader(tmp_path / "log")


@given(st.lists(st.binary(max_size=200) | st.just(START) | st.just(line("x\x1b[2J")), max_size=12))
def test_any_bytes_in_any_pieces_are_read_without_an_error(pieces: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "log")
        path.touch()
        log = MigrationLog(LogReader(path))
        entries = 0
        for piece in pieces:
            append(path, piece)
            log.poll()
            assert log.lines >= entries
            entries = log.lines
        log.poll()
        whole = MigrationLog(LogReader(path, of_last_migration=True))
        whole.poll()
        for each in (log, whole):
            assert each.reader is not None
            each.reader.close()


# -- what it says --


def test_the_shard_is_the_last_that_was_named() -> None:
    log = said(
        START,
        line("Migrating from dir /data/db/shard_db"),
        line("Already migrated 00009. Skipping"),
        line("Migrating 00008"),
        line("Migrating database test for shard"),
        line("Migrating 2 series"),
    )
    assert (log.shard, log.lines, log.troubles) == ("00008", 6, [])


def test_an_error_is_named_with_shard_and_series_and_once() -> None:
    text = "Error looking up fields for cpu: Field load doesn't exist in series cpu"
    log = said(
        line("Migrating 00008"),
        line(text, level="EROR", source="influxdb/migration.(*LevelDbShard).executeQuery:239"),
        line(f"Error migrating {text}", level="EROR"),
        line("Problem migrating series \x1b[31m", level="EROR"),
        line("Writing Series data: timeout", level="EROR"),
        line("no error", level="WARN"),
        line(
            "somebody's", level="EROR", source="influxdb/coordinator.(*CoordinatorImpl).RunQuery:1"
        ),
    )
    assert log.troubles == [
        Trouble("00008", "cpu", text),
        Trouble("00008", "\x1b[31m", "Problem migrating series \x1b[31m"),
        Trouble("00008", "", "Writing Series data: timeout"),
    ]


def test_a_shard_that_could_not_be_opened_or_marked_is_known() -> None:
    log = said(
        line("Migrating 00008"),
        line("Migration error getting shard: IO error", level="EROR"),
        line("Migrating 00007"),
        line("Problem writing migration marker for shard 00007: no space", level="EROR"),
    )
    assert log.refused == {"00007", "00008"}


def test_a_migration_that_is_started_again_may_get_where_the_last_one_did_not() -> None:
    log = said(
        line("Migrating 00008"),
        line("Migration error getting shard: IO error", level="EROR"),
        START,
    )
    assert (log.refused, log.shard, len(log.troubles)) == (set(), "", 1)


def test_a_flood_of_errors_is_counted_and_not_kept() -> None:
    log = MigrationLog(None)
    for number in range(10_050):
        log.take(Entry("EROR", f"{MIGRATOR}.x:1", f"Writing Series data: {number}"))
    assert (len(log.troubles), log.more_troubles) == (10_000, 50)


@pytest.mark.parametrize(
    ("text", "series"),
    [
        ('Problem migrating series say "hi"', 'say "hi"'),
        ("Error looking up fields for a: b: Field c: d doesn't exist in series a: b", "a: b"),
        ("Error looking up fields for x: Coulnd't look up columns for series: x", "x"),
        ("Error looking up fields for : Field lead doesn't exist in series ", ""),
        ("Error looking up fields for x: something else", "x"),
        ("Writing Series data: no shard", ""),
    ],
)
def test_the_series_is_found_in_the_text(text: str, series: str) -> None:
    assert series_of(text) == series


def test_the_real_log_of_a_whole_migration(capture: Callable[[str], Path]) -> None:
    path = capture("migrated-08") / "influxdb.log"
    log = said(path.read_bytes())
    # Counted by grep over the capture: 66 + 66 errors of a lookup, each logged twice, in 27 shards
    # once for each of their series, and 12 of a parse.
    series = Counter(trouble.series for trouble in log.troubles)
    assert series['say "hi"'] + series['"quoted"'] == 12
    assert series["cpu"] == series["tilde"] == series["backslash"] == 9
    assert {trouble.shard for trouble in log.troubles} <= {f"{n:05d}" for n in range(1, 28)}
    assert log.refused == set()


def test_the_real_log_of_a_migration_that_was_killed(capture: Callable[[str], Path]) -> None:
    reader = LogReader(capture("partial-08") / "influxdb.log", of_last_migration=True)
    log = MigrationLog(reader)
    log.poll()
    log.poll()
    assert (log.shard, log.troubles) == ("00005", [])


def test_a_server_that_starts_is_counted_and_nobody_else_who_says_so() -> None:
    starts = "Starting Influx Server 0.8.3 bound to 127.0.0.1..."
    assert said(line(starts, source="main.main:128")).restarts == 1
    assert said(line(starts, source=f"{MIGRATOR}.migrateDir:83")).restarts == 0
