"""The tests' own migrator does to a directory what 0.8.3 did, its losses and its log included."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fixtures import Column, Node, Row, raft, values
from fixtures.cluster import Catalogue
from fixtures.encode import new_id, parse_field_value, split_value_key
from fixtures.engines import Engine
from fixtures.influxd import Process, started
from fixtures.migrator import Pace, migrate
from fixtures.placing import part_of
from fixtures.read import shape
from shardtool.disk.durable import READ_DIRECTORY, opened
from shardtool.disk.locks import Lock, look_at_lock
from tests.conftest import Run
from tests.needs import CAPTURES, lacking
from tests.real.exchanges import exchange, send, send_again

Capture = Callable[[str], Path]

START = "/cluster/migrate_data?u=root&p=root&pause=0s"
CAPTURED_AT = "2026-11-24T16:19:56+00:00"
"""When the captured server migrated: what its data was dated after, it left behind."""
WEEK_US = 7 * 86_400_000_000
AT = 1_400_000_000_000_000


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """A node of 0.8 that has three old shards to migrate."""
    made = Node(tmp_path / "data", version="0.8")
    for number in (1, 2, 3):
        made.old_shard(number, points=40)
    return made


def row(series: str, value: int = 1, *, database: str = "test", at: int = AT) -> Row:
    """Return a row of which a test says only what it is about."""
    return Row(database, series, "v", at, 10_001, value)


def catalogue(data: Path) -> Catalogue:
    """Return what the raft log on disk leads to."""
    return Catalogue.replay((data / "raft/log").read_bytes())


def migrated(data: Path) -> Counter[tuple[Column, int, int, object]]:
    """Return all values in the new shards that raft knows, by the names that raft gives them."""
    known = catalogue(data)
    names = {
        new_id(number): Column(database, series, column)
        for database, of_database in known.ids.items()
        for series, columns in of_database.items()
        for column, number in columns.items()
    }
    found: Counter[tuple[Column, int, int, object]] = Counter()
    for shard in known.real_shards():
        path = data / f"db/shard_db_v2/{shard.id:05}"
        for key, encoded in values(path) if path.exists() else ():
            column_id, time_us, sequence = split_value_key(key)
            assert shard.range_us()[0] <= time_us < shard.range_us()[1]
            found[names[column_id], time_us, sequence, parse_field_value(encoded)] += 1
    return found


def marked(data: Path) -> list[str]:
    """Return the old shards that have a marker."""
    return sorted(path.parent.name for path in data.glob("db/shard_db/*/MIGRATED"))


def logged(data: Path) -> list[str]:
    """Return the log's lines without their times."""
    lines = (data / "influxdb.log").read_text().splitlines()
    return [line.partition("] ")[2] for line in lines]


def until(true: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)


# -- what 0.8.3 did to the same data --------------------------------------------------------------


@contextmanager
def upgraded(data: Path, *options: str) -> Iterator[Process]:
    """Start 0.8 on a 0.7 directory and make the four spaces of the capture."""
    with started(data, "--now", CAPTURED_AT, *options) as server:
        for number in range(16, 20):
            one = exchange("http-08", str(number))
            assert send_again(server.url, one) == one.answer
        yield server


@pytest.mark.slow
def test_it_loses_of_the_capture_what_0_8_3_lost(capture: Capture, shardtool: Run) -> None:
    expected_file = CAPTURES / "expected/migrated-08.json"
    if not expected_file.exists():
        lacking(str(expected_file))
    data = capture("original-07")
    with upgraded(data) as server:
        assert send(server.url, "POST", START).status == 202
        until(lambda: len(marked(data)) == 27)
    done = shardtool("--data", data, "verify", "--json")
    assert done.returncode == 3, done.stderr
    told = {shard["id"]: shard for shard in json.loads(done.stdout)["shards"]}
    for number, expected in json.loads(expected_file.read_text()).items():
        shard = told[number]
        assert (shard["values"], shard["missing"], shard["different"]) == (
            *(expected["values"], expected["missing"]),
            0,
        )
        missing = {
            "~".join((one["database"], one["series"], one["column"])): one["missing"]
            for one in shard["columns"]
        }
        assert missing == expected["missing_by_column"]
        # What verify calls future depends on today's clock: the markers are of today.
        causes = {one["cause"] for one in shard["columns"] if one["series"].lower() != "future"}
        assert causes <= {"name"}


@pytest.mark.slow
def test_it_gives_the_ids_and_shards_that_0_8_3_gave(capture: Capture) -> None:
    data, real = capture("original-07"), capture("migrated-08")
    with upgraded(data) as server:
        send(server.url, "POST", START)
        until(lambda: len(marked(data)) == 27)
    ours, theirs = (raft.read_log((path / "raft/log").read_bytes()) for path in (data, real))
    # The order of the databases is that of a Go map: another each time.
    assert Counter((e.term, e.name, e.command) for e in ours) == Counter(
        (e.term, e.name, e.command) for e in theirs
    )
    assert migrated(data) == migrated(real)


def test_it_logs_the_lines_that_0_8_3_logged(capture: Capture) -> None:
    data, real = capture("original-07"), capture("migrated-08")
    with upgraded(data) as server:
        send(server.url, "POST", START)
        until(lambda: len(marked(data)) == 27)
    # The capture goes on to a second run, which skipped all; and the paths are others.
    ours, theirs = (
        Counter(
            line
            for line in logged(path)
            if any(part in line for part in ("/migration.", ".createShards:825", "Time:796"))
            if " Already " not in line and " from dir " not in line
        )
        for path in (data, real)
    )
    assert ours == theirs
    assert sum("Problem migrating series" in line for line in ours) == 2


@pytest.mark.slow
def test_it_goes_on_where_a_real_server_was_killed(capture: Capture, shardtool: Run) -> None:
    data = capture("partial-08")
    with started(data) as server:
        send(server.url, "POST", START)
        until(lambda: len(marked(data)) == 9)
    done = shardtool("--data", data, "verify")
    assert done.returncode == 0, done.stdout
    skipped = [line for line in logged(data) if line.endswith(". Skipping")]
    assert len(skipped) == 4


# -- which directories, and what it does to each --------------------------------------------------


def test_the_highest_name_goes_first_and_each_is_marked_in_turn(node: Node) -> None:
    node.old_shard(10, points=4)
    migrate(node.path)
    assert marked(node.path) == ["00001", "00002", "00003", "00010"]
    steps = [line.split(" ")[-1] for line in logged(node.path) if "migrateDir:83" in line]
    assert steps == ["00010", "00003", "00002", "00001"]
    marker = node.shard_db / "00001/MIGRATED"
    assert (marker.read_bytes(), marker.stat().st_mode & 0o777) == (b"done.\n", 0o644)
    assert migrated(node.path).total() == sum(shard.values for shard in node.old.values())


def test_a_marked_shard_is_skipped_and_a_link_is_not_even_that(node: Node, tmp_path: Path) -> None:
    shutil.move(node.shard_db / "00003", tmp_path / "elsewhere")
    (node.shard_db / "00003").symlink_to(tmp_path / "elsewhere")
    node.mark(2)
    migrate(node.path)
    assert not (tmp_path / "elsewhere/MIGRATED").exists()
    assert "00003" not in "".join(line for line in logged(node.path) if "migrateDir" in line)
    assert any(line.endswith("Already migrated 00002. Skipping") for line in logged(node.path))
    assert migrated(node.path).total() == node.old[1].values


@pytest.mark.parametrize("name", ["00004", "lost+found"])
def test_an_empty_or_foreign_directory_gets_a_leveldb_and_a_marker(name: str, node: Node) -> None:
    (node.shard_db / name).mkdir()
    (node.shard_db / name / "holiday.jpg").write_bytes(b"\xff\xd8")
    migrate(node.path)
    assert name in marked(node.path)
    assert shape(node.shard_db / name).value_keys == 0
    assert (node.shard_db / name / "CURRENT").exists()


def test_a_shard_that_can_not_be_read_gets_no_marker(node: Node) -> None:
    (node.shard_db / "00002/CURRENT").write_bytes(b"nonsense\n")
    migrate(node.path, pace=Pace(fail_open=frozenset(["00003"])))
    assert marked(node.path) == ["00001"]
    errors = [line for line in logged(node.path) if "Migration error getting shard: " in line]
    assert len(errors) == 2


def test_writes_that_fail_are_logged_and_the_shard_is_marked_all_the_same(node: Node) -> None:
    text = "Server is not up"
    migrate(node.path, pace=Pace(fail_writes={("00002", "Mem"): text}))
    assert marked(node.path) == ["00001", "00002", "00003"]
    assert [line for line in logged(node.path) if "EROR" in line] == [
        "[EROR] (github.com/influxdb/influxdb/migration.(*DataMigrator).migrateDatabaseInShard:136)"
        f" Writing Series data: {text}"
    ]
    lost = sum(shard.values for shard in node.old.values()) - migrated(node.path).total()
    assert lost == node.old[2].values // 2


def test_what_is_dated_later_than_now_stays_behind(tmp_path: Path) -> None:
    node = Node(tmp_path / "data", version="0.8")
    node.old_shard(1, rows=[row("cpu", 1), row("cpu", 2, at=AT + 1)])
    now = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=AT)
    migrate(node.path, pace=Pace(now=now))
    assert [found[3] for found in migrated(node.path)] == [1]


# -- where values go ------------------------------------------------------------------------------


def test_a_series_that_no_space_takes_has_the_default_space_made(tmp_path: Path) -> None:
    cpu = raft.Space("cpu", "/^CPU/i", 30)
    node = Node(tmp_path / "data", version="0.8", spaces=[cpu])
    node.old_shard(1, rows=[row("cpu"), row("Mem"), row("x", database="other")])
    migrate(node.path)
    known = catalogue(node.path)
    assert [space["name"] for space in known.spaces["other"]] == ["default", "cpu"]
    default = known.space("other", "default")
    assert default is not None
    assert [default[part] for part in ("regex", "shardDuration", "retentionPolicy", "split")] == [
        *("/.*/", "7d", "inf", 1)
    ]
    assert migrated(node.path).total() == 3
    # It is the newest one then and takes all: cpu comes after Mem.
    shards = [(one.database, one.space) for one in known.real_shards()]
    assert shards == [("test", "default"), ("other", "default")]


def test_a_duration_of_7_parsecs_makes_a_shard_each_7_seconds(tmp_path: Path) -> None:
    node = Node(tmp_path / "data", version="0.8", databases=["test"], spaces=())
    node.old_shard(1, rows=[row("cpu", at=AT + n * 1_000_000) for n in range(14)])
    space = {"name": "x", "database": "test", "regex": "/.*/", "shardDuration": "7 parsecs"}
    whole = space | {"retentionPolicy": "", "replicationFactor": 1, "split": 1}
    node.raft_command("add_shard_space", {"ShardSpace": whole})
    migrate(node.path)
    assert migrated(node.path).total() == 14
    assert len(catalogue(node.path).real_shards()) == 2


def test_of_the_shards_of_a_split_space_the_hash_picks_one(tmp_path: Path) -> None:
    node = Node(tmp_path / "data", version="0.8", spaces=[raft.Space("all", "/.*/", 7, split=3)])
    names = [f"s{number}" for number in range(12)]
    node.old_shard(1, rows=[row(name) for name in names])
    migrate(node.path)
    assert len(catalogue(node.path).real_shards()) == 3
    assert migrated(node.path).total() == 12
    each = [shape(path).value_keys for path in sorted(node.shard_db_v2.iterdir())[1:]]
    assert each == [Counter(part_of("test", name, 3) for name in names)[part] for part in range(3)]


def test_in_a_cluster_a_shard_is_made_at_its_owner(tmp_path: Path) -> None:
    nodes = [
        Node(tmp_path / str(number), version="0.8", servers=2, server_id=number)
        for number in (1, 2)
    ]
    for node in nodes:
        node.old_shard(1, rows=[row("cpu", at=AT + week * WEEK_US) for week in range(4)])
    migrate(*(node.path for node in nodes))
    assert [marked(node.path) for node in nodes] == [["00001"], []]
    here, there = (migrated(node.path) for node in nodes)
    assert (here.total(), there.total()) == (2, 2)
    assert not here & there


@pytest.mark.parametrize("engine", ["leveldb", "rocksdb", "lmdb", "hyperleveldb"])
def test_new_shards_are_of_the_engine_that_is_asked_for(engine: Engine, node: Node) -> None:
    migrate(node.path, engine=engine)
    assert migrated(node.path).total() == sum(shard.values for shard in node.old.values())
    number = catalogue(node.path).real_shards()[0].id
    made = shape(node.shard_db_v2 / f"{number:05}")
    assert (made.engine, made.sentinels, made.other_keys) == (engine, 2, 0)


# -- a server of its own --------------------------------------------------------------------------


def locked(directory: Path) -> list[str]:
    """Return the shards of a directory that another process has locked."""
    with opened(directory, READ_DIRECTORY) as descriptor:
        return sorted(
            path.name
            for path in directory.iterdir()
            if look_at_lock(f"{path.name}/LOCK", dir_fd=descriptor).state is Lock.HELD
        )


def test_a_started_server_is_one_by_its_files_and_locks(capture: Capture, shardtool: Run) -> None:
    data = capture("stopped-07")
    with started(data) as server:
        assert len(locked(data / "db/shard_db_v2")) == 27
        assert locked(data / "db/shard_db") == []
        assert Path(f"/proc/{server.pid}/comm").read_text() == "influxdb\n"
        done = shardtool("--data", data, "backup")
        assert (done.returncode, f"pid {server.pid} (influxdb)" in done.stderr) == (4, True)
        assert server.terminate() == 0
    *_, before, last = raft.read_log((data / "raft/log").read_bytes())
    assert (last.name, last.term) == ("raft:nop", before.term + 1)
    assert any("Starting Influx Server 0.8.3 bound to" in line for line in logged(data))
    assert catalogue(data).real_shards() == []


def test_only_the_shard_in_work_is_locked_and_all_new_ones_are(node: Node) -> None:
    with started(node.path, "--stop-after", "1") as server:
        send(server.url, "POST", START)
        until(lambda: locked(node.shard_db) == ["00002"])
        assert marked(node.path) == ["00003"]
        assert locked(node.shard_db_v2) == sorted(path.name for path in node.shard_db_v2.iterdir())
        time.sleep(0.1)
        assert marked(node.path) == ["00003"]
        assert send(server.url, "POST", START).status == 403


def test_new_shards_stay_locked_after_the_engine_itself_has_written(node: Node) -> None:
    with started(node.path, "--engine", "rocksdb") as server:
        send(server.url, "POST", START)
        until(lambda: len(marked(node.path)) == 3)
        assert locked(node.shard_db_v2) == sorted(path.name for path in node.shard_db_v2.iterdir())


def test_a_server_that_dies_in_mid_migration_goes_on_after_a_restart(node: Node) -> None:
    with started(node.path, "--die-after", "1", "--points-per-pause", "5") as server:
        send(server.url, "POST", START)
        assert server.wait() == 2
    assert marked(node.path) == ["00003"]
    half = migrated(node.path).total()
    assert half > node.old[3].values
    with started(node.path) as server:
        send(server.url, "POST", START)
        until(lambda: len(marked(node.path)) == 3)
    found = migrated(node.path)
    assert found.total() == len(found) == sum(shard.values for shard in node.old.values())


def test_what_a_kill_left_half_written_is_cut_off_at_the_next_start(node: Node) -> None:
    with started(node.path, "--stop-after", "2") as server:
        send(server.url, "POST", START)
        until(lambda: locked(node.shard_db) == ["00001"])
        server.kill()
    for log in node.shard_db_v2.glob("*/000003.log"):
        with log.open("ab") as file:
            file.write(log.read_bytes()[:50])
    before = migrated(node.path)
    with started(node.path) as server:
        send(server.url, "POST", START)
        until(lambda: len(marked(node.path)) == 3)
    assert migrated(node.path).total() == sum(shard.values for shard in node.old.values())
    assert before <= migrated(node.path)


def test_two_servers_on_one_directory_are_one_too_many(node: Node) -> None:
    second = started(node.path)
    with started(node.path), pytest.raises(RuntimeError, match="before it answered"), second:
        pass


def test_the_pause_comes_after_so_many_points(node: Node) -> None:
    with started(node.path, "--points-per-pause", "10") as server:
        send(server.url, "POST", START.replace("0s", "1h"))
        until(lambda: locked(node.shard_db) == ["00003"])
        time.sleep(0.2)
        assert migrated(node.path).total() == 40  # ten points of four columns
