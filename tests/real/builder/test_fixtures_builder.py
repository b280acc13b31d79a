"""What the builder is told it does, and what verify needs of it."""

from __future__ import annotations

import json
import os
import shutil
import stat
import tomllib
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fixtures import (
    MARKED_AT,
    WRITTEN_AT,
    Column,
    Node,
    Row,
    bulk,
    convert,
    demo,
    raft,
    wal,
)
from fixtures.encode import (
    ID_PREFIX,
    SERIES_PREFIX,
    TIME_BIAS,
    microseconds,
    new_id,
    parse_field_value,
    read_uvarint,
    split_value_key,
)
from fixtures.engines import Engine
from fixtures.read import kind_of, pairs, shape, values
from tests.needs import needs_plyvel
from tests.real.builder.world import AWKWARD, ENGINES, new_contents, old_contents


def replayed_ids(log: Path) -> dict[Column, int]:
    """Give out column ids as FORMATS.md says that a replay of the raft log does."""
    ids: dict[Column, int] = {}
    for entry in raft.read_log(log.read_bytes()):
        if entry.name == "create_series_field_ids":
            command = json.loads(entry.command or b"")
            for series in command["Series"]:
                for name in series["fields"]:
                    ids.setdefault(Column(command["Database"], series["name"], name), len(ids) + 1)
    return ids


def replayed_shards(log: Path) -> dict[int, dict[str, Any]]:
    """Number the shards as a replay of the raft log does."""
    shards: dict[int, dict[str, Any]] = {}
    last = 0
    for entry in raft.read_log(log.read_bytes()):
        command = json.loads(entry.command) if entry.command else {}
        if entry.name == "create_shards":
            for shard in command["Shards"]:
                last += 1
                shards[last] = shard
        elif entry.name == "drop_shard":
            del shards[command["ShardId"]]
    return shards


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    trees = []
    for name in ("one", "two"):
        node = Node(tmp_path / name, version="0.8", seed=3)
        node.old_shard(7, nulls_every=5)
        node.migrate(7, lose=2)
        node.write_wal(5, unflushed=1)
        trees.append(dict(tree(node.path)))
    assert trees[0] == trees[1]
    other = Node(tmp_path / "other", version="0.8", seed=4)
    other.old_shard(7, nulls_every=5)
    assert dict(tree(other.path))["db/shard_db/00007/000003.log"] not in [
        trees[0]["db/shard_db/00007/000003.log"]
    ]


def tree(directory: Path) -> Iterator[tuple[str, tuple[int, int, bytes]]]:
    for path in directory.rglob("*"):
        if path.is_file() and path.name != "config.toml":  # it names its own path
            status = path.stat()
            content = path.read_bytes()
            yield str(path.relative_to(directory)), (status.st_mode, status.st_mtime_ns, content)


def test_a_marker_is_younger_than_every_file_of_its_shard(tmp_path: Path) -> None:
    node = Node(tmp_path / "data", version="0.8")
    late = datetime(2020, 1, 1, tzinfo=UTC)
    for shard_id, written_at in ((1, WRITTEN_AT), (2, late)):
        shard = node.old_shard(shard_id, written_at=written_at)
        marker = node.mark(shard_id)
        assert marker.read_bytes() == b"done.\n"
        assert stat.S_IMODE(marker.stat().st_mode) == 0o644
        others = [file for file in shard.iterdir() if file != marker]
        assert {file.stat().st_mtime_ns for file in others} == {microseconds(written_at) * 1000}
        assert marker.stat().st_mtime_ns > microseconds(written_at) * 1000


def test_modes_do_not_depend_on_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        node = Node(tmp_path / "data", version="0.8")
        node.old_shard(1)
        node.mark(1)
        bulk(tmp_path / "bulk", shards=1, files=10)
    finally:
        os.umask(before)
    assert stat.S_IMODE(node.shard_db.stat().st_mode) == 0o744
    for shard in (node.old[1].path, tmp_path / "bulk/db/shard_db/00001"):
        assert shape(shard).directory_mode == 0o755
        assert set(shape(shard).files.values()) == {0o644}


def test_a_migrated_shard_is_found_again_value_for_value(tmp_path: Path) -> None:
    node = Node(tmp_path / "data", version="0.8")
    node.old_shard(7, points=1000, databases={"test": ["cpu", "Mem"], "metrics": ["a~b"]})
    done = node.migrate(7)
    assert (done.moved, done.lost, done.changed) == (4000, 0, 0)
    assert old_contents(node, 7) == new_contents(node)
    assert (node.shard_db / "00007/MIGRATED").read_bytes() == b"done.\n"


def test_lost_and_changed_values_are_the_last_ones(tmp_path: Path) -> None:
    node = Node(tmp_path / "data", version="0.8")
    node.old_shard(7, points=1000)
    done = node.migrate(7, lose=5, change=3)
    old, new = old_contents(node, 7), new_contents(node)
    missing = [key for key in old if key not in new]
    different = [key for key in new if new[key] != old[key]]
    assert list(old)[-8:] == different + missing
    assert (len(missing), len(different)) == (done.lost, done.changed) == (5, 3)
    assert Counter(column for column, _, _ in missing) == done.lost_columns
    assert node.old[7].values == done.moved + done.lost


def test_raft_gives_out_the_ids_and_numbers_that_are_on_disk(tmp_path: Path) -> None:
    node = Node(tmp_path / "data", version="0.8")
    for shard_id in (3, 4, 9):
        node.old_shard(shard_id, databases={"test": ["cpu", "Mem"], "metrics": ["requests"]})
    node.new_shard(14, points=5, databases={"test": ["Disk"]})
    node.migrate(9)
    node.migrate(4)
    node.old_shard(40)
    log = node.raft / "log"
    assert replayed_ids(log) == node.ids
    shards = replayed_shards(log)
    assert set(shards) == {3, 4, 9, 40} | set(node.new)
    for number, shard in node.new.items():
        assert (shards[number]["Database"], shards[number]["SpaceName"]) == (
            shard.database,
            shard.space,
        )
        times = [split_value_key(key)[1] for key, _ in values(shard.path)]
        assert microseconds(shard.start) <= min(times) <= max(times) < microseconds(shard.end)


def test_a_dropped_series_gets_new_ids_when_it_comes_again(tmp_path: Path) -> None:
    node = Node(tmp_path / "data", version="0.8")
    for shard_id in (1, 2):
        node.old_shard(shard_id, databases={"test": ["cpu"]})
    node.migrate(2)
    first = dict(node.ids)
    node.drop_series("test", "cpu")
    node.migrate(1)
    assert sorted(first.values()) == [1, 2, 3, 4]
    assert sorted(node.ids.values()) == [5, 6, 7, 8]
    names = [entry.name for entry in raft.read_log((node.raft / "log").read_bytes())]
    assert names[-3:] == ["create_series_field_ids", "drop_series", "create_series_field_ids"]


def test_an_upgrade_turns_a_node_of_07_into_one_of_08(tmp_path: Path) -> None:
    node = Node(tmp_path / "data")
    node.old_shard(1)
    with pytest.raises(ValueError, match=r"0\.8"):
        node.migrate(1)
    node.upgrade()
    assert shape(node.shard_db_v2 / "00001").sentinels == 2
    node.migrate(1)
    storage = tomllib.loads(node.config.read_text())["storage"]
    assert storage["dir"] == str(node.db)
    assert storage["default-engine"] == "leveldb"


def test_the_three_directories_may_lie_apart(tmp_path: Path) -> None:
    node = Node(
        tmp_path / "data",
        db=tmp_path / "a b/db",
        raft_dir=tmp_path / "c/raft",
        wal_dir=tmp_path / "d/wal",
    )
    node.old_shard(1)
    node.write_wal(2)
    config = tomllib.loads(node.config.read_text())
    for section, below in (("storage", "shard_db/00001"), ("raft", "log"), ("wal", "log.1")):
        assert (Path(config[section]["dir"]) / below).exists()
    assert [path.name for path in node.path.iterdir()] == ["config.toml"]


def test_the_wal_repeats_what_the_shards_hold_and_then_what_none_holds(tmp_path: Path) -> None:
    node = Node(tmp_path / "data")
    node.old_shard(3, nulls_every=2)
    log = node.write_wal(20, unflushed=3, first=101)
    held = old_contents(node, 3)
    requests = wal.read_log(log.read_bytes())
    assert log.name == "log.101"
    assert [request.number for request in requests] == list(range(101, 124))
    nulls = 0
    for place, request in enumerate(requests):
        for name, value in zip(request.columns, request.points[0].values, strict=True):
            point = request.points[0]
            key = Column(request.database, request.series, name), point.time_us, point.sequence
            stored = parse_field_value(held[key]) if key in held else None
            assert stored == (value if place < 20 else None)
            nulls += value is None
    assert nulls > 0


def test_a_bulk_node_has_shards_of_exactly_so_many_files(tmp_path: Path) -> None:
    node = bulk(tmp_path / "data", shards=3, files=50, points=10, migrated=True)
    inodes: set[int] = set()
    for shard in node.old.values():
        files = list(shard.path.iterdir())
        assert len(files) == 50
        assert all(file.stat().st_nlink == 1 for file in files)
        inodes.update(file.stat().st_ino for file in files)
        assert shape(shard.path).value_keys == 40
        assert old_contents(node, shard.id).items() <= new_contents(node).items()
    assert len(inodes) == 150
    assert set(replayed_shards(node.raft / "log")) == {*node.old, *node.new}


def test_the_demo_holds_as_many_values_as_it_tells(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = demo.build(tmp_path / "data", points=60)
    shards = [shape(shard) for shard in (tmp_path / "data/db/shard_db").iterdir()]
    assert (len(shards), sum(shard.value_keys for shard in shards)) == (12, told)
    assert all(shard.marker is None for shard in shards)
    assert demo.main([str(tmp_path / "data")]) == 1
    assert "exists already" in capsys.readouterr().err


def test_index_keys_name_database_series_and_column(tmp_path: Path) -> None:
    shard = Node(tmp_path / "data").old_shard(7, rows=AWKWARD)
    keys = {key for key, _ in pairs(shard) if kind_of(key) in ("id", "series")}
    assert keys == {ID_PREFIX + "~".join(row[:3]).encode() for row in AWKWARD} | {
        SERIES_PREFIX + f"{row.database}~{row.series}".encode() for row in AWKWARD
    }


def test_the_newest_space_that_matches_takes_a_series(tmp_path: Path) -> None:
    node = Node(tmp_path / "data", version="0.8")
    node.old_shard(7, databases={"test": ["cpu", "Mem"]})
    node.migrate(7)
    columns = {new_id(number): column for column, number in node.ids.items()}
    taken = {
        (columns[key[:8]].series, shard.space, (shard.end - shard.start).days)
        for shard in node.new.values()
        for key, _ in values(shard.path)
    }
    assert taken == {("cpu", "short_term", 7), ("Mem", "long_term", 30)}


def test_a_new_shard_takes_the_place_of_a_phantom_but_not_of_a_shard(tmp_path: Path) -> None:
    node = Node(tmp_path / "data", version="0.8")
    node.old_shard(7)
    assert shape(node.new_shard(7, points=5)).value_keys == 20
    with pytest.raises(FileExistsError):
        node.new_shard(7)


def test_ids_beyond_one_byte_are_written_as_varints(tmp_path: Path) -> None:
    node = Node(tmp_path / "data")
    found = shape(node.old_shard(7, points=400, databases={"test": [f"s{n}" for n in range(80)]}))
    assert found.last_id == 320
    assert {read_uvarint(one)[0] for one in found.used_ids} == set(range(1, 321))
    assert all(time >= -TIME_BIAS for _, time, _ in old_contents(node, 7))


@needs_plyvel
def test_a_migration_may_write_tables(tmp_path: Path) -> None:
    node = Node(tmp_path / "data", version="0.8")
    node.old_shard(7, points=2000, storage="tables")
    node.migrate(7, storage="tables")
    assert all(any(shard.path.glob("*.ldb")) for shard in node.new.values())
    assert old_contents(node, 7) == new_contents(node)


@pytest.mark.parametrize("nulls_every", [0, 3])
def test_a_migration_from_the_plan_is_one_value_by_value(tmp_path: Path, nulls_every: int) -> None:
    trees = []
    for name, like_083 in (("plan", False), ("values", True)):
        node = Node(tmp_path / name, version="0.8")
        # 20 days across the ends of weeks and months, 501 points that don't divide evenly.
        node.old_shard(7, points=501, days=20, nulls_every=nulls_every)
        node.migrate(7, like_083=like_083)  # which leaves nothing behind here
        assert len(node.new) == 4
        trees.append(dict(tree(node.path)))
    assert trees[0] == trees[1]


def test_a_series_is_hashed_onto_one_of_the_shards_that_share_a_range(tmp_path: Path) -> None:
    spaces = [raft.Space("split", "/.*/", 7, split=3)]
    node = Node(tmp_path / "data", version="0.8", spaces=spaces)
    node.old_shard(7, points=400, databases={"test": [f"s{number}" for number in range(20)]})
    node.migrate(7)
    assert old_contents(node, 7) == new_contents(node)
    columns = {new_id(number): column for column, number in node.ids.items()}
    places: dict[tuple[datetime, str], set[int]] = {}
    for shard in node.new.values():
        for key, _ in values(shard.path):
            places.setdefault((shard.start, columns[key[:8]].series), set()).add(shard.id)
    assert all(len(numbers) == 1 for numbers in places.values())
    for start in {shard.start for shard in node.new.values()}:
        sharing = [shard.id for shard in node.new.values() if shard.start == start]
        assert len(sharing) == 3
        assert set().union(*(n for (when, _), n in places.items() if when == start)) == {*sharing}


def test_raft_knows_the_shards_of_a_split_space(tmp_path: Path) -> None:
    spaces = [raft.Space("split", "/.*/", 7, split=3)]
    node = Node(tmp_path / "data", version="0.8", spaces=spaces)
    node.old_shard(7)
    node.migrate(7)
    entries = raft.read_log((node.raft / "log").read_bytes())
    made = [json.loads(entry.command or b"") for entry in entries if entry.name == "create_shards"]
    assert [len(one["Shards"]) for one in made if "SpaceName" in one] == [3] * (len(node.new) // 3)
    assert set(replayed_shards(node.raft / "log")) == {7, *node.new}
    space = next(json.loads(one.command or b"") for one in entries if one.name == "add_shard_space")
    assert space["ShardSpace"]["split"] == 3


def test_another_servers_shards_are_in_raft_and_not_on_this_disk(tmp_path: Path) -> None:
    spaces = [raft.Space("split", "/.*/", 7, split=3, replication=2)]
    node = Node(tmp_path / "data", version="0.8", spaces=spaces, servers=4, server_id=2)
    node.old_shard(7, points=600, databases={"test": [f"s{number}" for number in range(20)]})
    done = node.migrate(7)
    assert (done.moved, done.lost) == (2400, 0)
    assert 0 < done.elsewhere == sum(shard.values for shard in node.elsewhere.values()) < 2400
    assert len(new_contents(node)) == 2400 - done.elsewhere
    known = replayed_shards(node.raft / "log")
    assert set(known) == {7, *node.new, *node.elsewhere}
    for number in {*node.new, *node.elsewhere}:
        owners = known[number]["ServerIds"]
        assert len(set(owners)) == 2
        assert (2 in owners) == (node.shard_db_v2 / f"{number:05}").exists() == (number in node.new)


def test_the_order_of_joins_says_which_server_this_is(tmp_path: Path) -> None:
    node = Node(tmp_path / "data", servers=3, server_id=2)
    node.old_shard(1)
    entries = raft.read_log((node.raft / "log").read_bytes())
    names = [json.loads(one.command or b"")["name"] for one in entries if one.name == "join"]
    assert len(set(names)) == 3
    assert names.index((node.raft / "name").read_text()) + 1 == 2
    assert replayed_shards(node.raft / "log")[1]["ServerIds"] == [2]


def test_new_writes_add_to_the_shards_of_a_migration(tmp_path: Path) -> None:
    node = Node(tmp_path / "data", version="0.8")
    node.old_shard(7, databases={"test": ["cpu"]})
    node.migrate(7)
    old, shards, ids = old_contents(node, 7), set(node.new), dict(node.ids)
    _, time_us, _ = next(iter(old))
    rows = [
        Row("test", "cpu", "value", time_us + 1, 10_001, 2.5),
        Row("test", "cpu", "value", time_us + 2, 10_002, 3.5),
    ]
    node.write_new(rows)
    assert (set(node.new), node.ids) == (shards, ids)
    added = {(Column(*row[:3]), row.time_us, row.sequence) for row in rows}
    assert set(new_contents(node)) == {*old, *added}
    node.write_new([Row("test", "disk", "free", time_us, 10_003, 1)])
    assert replayed_ids(node.raft / "log") == node.ids
    assert len(new_contents(node)) == len(old) + 3


def test_a_rollback_adds_rows_and_leaves_the_marker_as_it_was(tmp_path: Path) -> None:
    node = Node(tmp_path / "data", version="0.8")
    shard = node.old_shard(7, databases={"test": ["cpu"]})
    node.migrate(7)
    marked = (shard / "MIGRATED").stat().st_mtime_ns
    before = old_contents(node, 7)
    row = Row("test", "cpu", "value", microseconds(node.old[7].start) + 5, 20_001, 9.5)
    other = Row("metrics", "new", "n", microseconds(node.old[7].start) + 6, 20_001, 1)
    node.write_old(7, [row, other])
    added = {(Column(*one[:3]), one.time_us, one.sequence) for one in (row, other)}
    assert set(old_contents(node, 7)) == {*before, *added}
    assert set(new_contents(node)) == {*before}
    assert (shard / "MIGRATED").stat().st_mtime_ns == marked
    others = [path for path in shard.iterdir() if path.name != "MIGRATED"]
    assert all(path.stat().st_mtime_ns > marked for path in others)
    assert node.migrate(7).moved == len(before) + 2
    assert set(new_contents(node)) == {*before, *added}


SHARED_ID = [
    Row("test", "a", "b~c", 1_000, 10_001, 1),
    Row("test", "a~b", "c", 2_000, 20_001, 2),
    Row("te~st", "a", "d", 3_000, 30_001, 3),
    Row("te", "st~a", "d", 4_000, 40_001, 4),
    Row("test", "a~b", "other", 5_000, 50_001, 5),
]


def test_columns_whose_index_keys_collide_share_an_id_in_07_and_part_in_08(tmp_path: Path) -> None:
    node = Node(tmp_path / "data", version="0.8")
    shard = node.old_shard(7, rows=SHARED_ID)
    found = shape(shard)
    assert (found.id_keys, found.value_keys, found.last_id) == (3, 5, 3)
    # As in 0.7, a series whose columns all have ids already adds nothing to the index.
    series = {key[8:] for key, _ in pairs(shard) if kind_of(key) == "series"}
    assert series == {b"test~a", b"te~st~a", b"test~a~b"}
    assert node.migrate(7).lost == 0
    assert {key: parse_field_value(value) for key, value in new_contents(node).items()} == {
        (Column(*row[:3]), row.time_us, row.sequence): row.value for row in SHARED_ID
    }


def test_a_plan_whose_columns_would_share_an_id_is_refused(tmp_path: Path) -> None:
    node = Node(tmp_path / "data")
    with pytest.raises(ValueError, match="share an id"):
        node.old_shard(7, databases={"test": ["a", "a~b"]}, columns={"c": "bool", "b~c": "bool"})


def test_an_index_key_of_24_bytes_is_no_value(tmp_path: Path) -> None:
    node = Node(tmp_path / "data", version="0.8")
    rows = [
        Row("test", "cpu", "sevenbb", 1, 10_001, 1),  # the column's key is 24 bytes long
        Row("test", "elevenbytes", "n", 1, 10_001, 2),  # the series' is
    ]
    shard = node.old_shard(7, rows=rows)
    long = {key for key, _ in pairs(shard) if len(key) == 24 and kind_of(key) != "value"}
    assert long == {ID_PREFIX + b"test~cpu~sevenbb", SERIES_PREFIX + b"test~elevenbytes"}
    assert node.migrate(7).moved == 2
    assert old_contents(node, 7) == new_contents(node)


@pytest.mark.parametrize("engine", ENGINES)
def test_rewritten_new_shards_hold_the_same_pairs(tmp_path: Path, engine: Engine) -> None:
    node = Node(tmp_path / "data", version="0.8", phantoms=False)
    node.old_shard(7)
    node.migrate(7)
    before = {shard.path: list(pairs(shard.path)) for shard in node.new.values()}
    assert convert.rewrite_new_shards(node.path, engine) == sorted(before)
    for path, expected in before.items():
        assert list(pairs(path)) == expected
        assert shape(path).engine == engine
        assert path.stat().st_mtime_ns == microseconds(MARKED_AT) * 1000
    # And on from there into LevelDB again.
    convert.rewrite_new_shards(node.path, "leveldb")
    assert {path: list(pairs(path)) for path in before} == before


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["hyperleveldb", "rocksdb", "lmdb"])
def test_a_real_servers_new_shards_can_be_rewritten(
    captures: Path, tmp_path: Path, engine: Engine
) -> None:
    real = captures / "migrated-08/db/shard_db_v2"
    shutil.copytree(real, tmp_path / "db/shard_db_v2")
    for path in convert.rewrite_new_shards(tmp_path, engine):
        assert list(pairs(path)) == list(pairs(real / path.name))
        assert all(file.stat().st_size < 8 << 20 for file in path.iterdir())


@needs_plyvel
def test_hyperleveldbs_tables_have_their_own_names(tmp_path: Path) -> None:
    node = Node(tmp_path / "data", version="0.8")
    node.new_shard(1, points=100)
    expected = list(pairs(node.new[1].path))
    (shard,) = convert.rewrite_new_shards(node.path, "hyperleveldb", storage="tables")
    assert any(shard.glob("*.sst")) and not any(shard.glob("*.ldb"))
    assert list(pairs(shard)) == expected
