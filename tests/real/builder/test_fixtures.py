"""The builder's directories are like those that real servers left."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fixtures import (
    MARKED_AT,
    Column,
    Node,
    raft,
    wal,
)
from fixtures.encode import (
    ID_PREFIX,
    SERIES_PREFIX,
    parse_field_value,
)
from fixtures.engines import Engine, Storage
from fixtures.migration import left_behind_by_083
from fixtures.read import Shape, kind_of, layout, pairs, shape
from tests.needs import CAPTURES, needs_plyvel
from tests.real.builder.world import AWKWARD, ENGINES, contents, new_contents, old_contents


def only_kind(found: Shape) -> Shape:
    """Blank what differs between two shards of one kind."""
    none: frozenset[Any] = frozenset()
    return replace(
        found, series_keys=0, id_keys=0, value_keys=0, last_id=None, ids=none, used_ids=none
    )


def test_an_old_shard_has_the_shape_of_a_real_one(captures: Path, tmp_path: Path) -> None:
    real = shape(captures / "original-07/db/shard_db/00005")
    ours = shape(Node(tmp_path / "data").old_shard(5))
    assert only_kind(ours) == only_kind(real)
    for one in (ours, real):
        assert one.other_keys == 0
        assert one.id_keys == one.last_id == len(one.ids)
        assert one.used_ids == one.ids


@needs_plyvel
def test_a_marked_shard_of_tables_has_the_shape_of_a_real_one(
    captures: Path, tmp_path: Path
) -> None:
    real = shape(captures / "migrated-08/db/shard_db/00005")
    ours = shape(Node(tmp_path / "data").old_shard(5, storage="tables", marked_at=MARKED_AT))
    assert only_kind(ours) == only_kind(real)


def test_a_new_shard_has_the_shape_of_a_real_one(captures: Path, tmp_path: Path) -> None:
    node = Node(tmp_path / "data", version="0.8")
    node.old_shard(1)
    node.new_shard(2, points=10)
    real_shards = captures / "migrated-08/db/shard_db_v2"
    filled = [shape(path) for path in sorted(real_shards.iterdir())]
    types = frozenset({"string", "double", "bool", "int64"})
    real = next(one for one in filled if one.value_types == types)
    assert only_kind(shape(node.new[2].path)) == only_kind(real)
    assert shape(node.shard_db_v2 / "00001") == shape(real_shards / "00001")


@pytest.mark.parametrize(("capture", "version"), [("original-07", "0.7"), ("migrated-08", "0.8")])
def test_a_node_is_laid_out_as_a_real_one(
    captures: Path, tmp_path: Path, capture: str, version: Any
) -> None:
    node = Node(tmp_path / "data", version=version)
    node.old_shard(1)
    node.write_wal(3)
    real = layout(captures / capture)
    ours = layout(node.path)
    logs = {name for name in real if name.endswith(".log") or name == "config-N.N.toml"}
    assert ours == {name: mode for name, mode in real.items() if name not in logs}


def test_the_direct_writer_makes_the_manifest_that_leveldb_makes(
    captures: Path, tmp_path: Path
) -> None:
    ours = Node(tmp_path / "data").old_shard(5)
    real = captures / "original-07/db/shard_db/00005"
    for name in ("MANIFEST-000002", "CURRENT", "LOCK"):
        assert (ours / name).read_bytes() == (real / name).read_bytes()


def test_raft_entries_decode_like_real_ones(captures: Path, tmp_path: Path) -> None:
    node = Node(tmp_path / "data", version="0.8")
    node.old_shard(1)
    node.migrate(1)
    forms: list[dict[str, set[str]]] = []
    for log in (captures / "migrated-08/raft/log", node.raft / "log"):
        entries = raft.read_log(log.read_bytes())
        assert [entry.index for entry in entries] == list(range(1, len(entries) + 1))
        form: dict[str, set[str]] = {}
        for entry in entries:
            command = json.loads(entry.command) if entry.command else None
            form.setdefault(f"{entry.term} {entry.name}", set()).add(skeleton(command))
        forms.append(form)
    real, ours = forms
    del real["0 save_db_user"]
    assert ours == real


def skeleton(value: Any) -> str:
    """Describe the keys and types of JSON, lists by their first item."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{skeleton(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return f"[{skeleton(value[0]) if value else ''}]"
    return type(value).__name__


def test_real_raft_entries_are_encoded_to_the_same_bytes(captures: Path) -> None:
    data = (captures / "migrated-08/raft/log").read_bytes()
    again = b"".join(
        raft.encode_entry(
            entry.index,
            entry.term,
            raft.Command(entry.name, json.loads(entry.command) if entry.command else None),
        )
        for entry in raft.read_log(data)
    )
    assert again == data


def test_real_wal_requests_are_encoded_to_the_same_bytes(captures: Path) -> None:
    directory = captures / "original-07/wal"
    data = (directory / "log.1").read_bytes()
    requests = wal.read_log(data)
    assert len(requests) == 259
    assert wal.encode(requests) == (data, (directory / "index.1").read_bytes())


def test_like_083_leaves_behind_exactly_what_083_left_behind(captures: Path) -> None:
    expected = json.loads((CAPTURES / "expected/migrated-08.json").read_text())
    at = datetime(2026, 11, 24, 16, 19, 56, tzinfo=UTC)
    for path in sorted((captures / "original-07/db/shard_db").iterdir()):
        columns = named_columns(path)
        skips = left_behind_by_083(columns.values(), (), at)
        lost = Counter(
            "~".join(column)
            for column, time_us, _ in contents(path, columns)
            if skips(column, time_us)
        )
        assert lost == expected[path.name]["missing_by_column"], path.name


def named_columns(shard: Path) -> dict[bytes, Column]:
    """Read a real shard's index; its longest series name settles where the column's begins."""
    index = [(key, value) for key, value in pairs(shard) if kind_of(key) in ("id", "series")]
    series = [key[8:].decode() for key, _ in index if key.startswith(SERIES_PREFIX)]
    columns = {}
    for key, value in index:
        if key.startswith(ID_PREFIX):
            name = key[8:].decode()
            longest = max((one for one in series if name.startswith(f"{one}~")), key=len)
            database, _, own = longest.partition("~")
            columns[value] = Column(database, own, name[len(longest) + 1 :])
    return columns


def test_exact_rows_come_back_from_an_old_shard(tmp_path: Path) -> None:
    node = Node(tmp_path / "data")
    node.old_shard(7, rows=iter(AWKWARD))
    found = {key: parse_field_value(value) for key, value in old_contents(node, 7).items()}
    assert found == {(Column(*row[:3]), row.time_us, row.sequence): row.value for row in AWKWARD}
    assert node.old[7].values == len(AWKWARD)


@needs_plyvel
@pytest.mark.parametrize("points", [0, 1, 3, 20_000])
def test_plyvel_and_rocksdict_read_the_same_pairs_from_the_log_form(
    tmp_path: Path, points: int
) -> None:
    node = Node(tmp_path / "data")
    shard = node.old_shard(7, points=points)
    written = sorted(pairs(shard))
    assert len(written) == 4 * points + (0 if points == 0 else (1 + 5 * min(points, 2)))
    assert read_with_plyvel(shard, tmp_path / "copy") == written


@needs_plyvel
def test_plyvel_reads_awkward_rows_from_the_log_form(tmp_path: Path) -> None:
    shard = Node(tmp_path / "data").old_shard(7, rows=AWKWARD)
    assert read_with_plyvel(shard, tmp_path / "copy") == list(pairs(shard))


def read_with_plyvel(shard: Path, copy: Path) -> list[tuple[bytes, bytes]]:
    import plyvel

    shutil.copytree(shard, copy)
    db = plyvel.DB(str(copy), paranoid_checks=True)
    try:
        return list(db)
    finally:
        db.close()


@needs_plyvel
def test_tables_hold_the_same_pairs_as_a_log(tmp_path: Path) -> None:
    found = []
    storages: list[Storage] = ["log", "tables"]
    for storage in storages:
        node = Node(tmp_path / storage)
        shard = node.old_shard(7, points=2000, nulls_every=7, storage=storage)
        assert node.old[7].storage == storage
        assert any(shard.glob("*.ldb")) == (storage == "tables")
        found.append(list(pairs(shard)))
    assert found[0] == found[1]


def test_without_plyvel_tables_become_a_log_and_the_node_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("fixtures.engines.HAVE_PLYVEL", False)
    node = Node(tmp_path / "data")
    node.old_shard(7, storage="tables")
    assert node.old[7].storage == "log"
    assert "no plyvel" in caplog.text
    assert len(old_contents(node, 7)) == 400


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_holds_the_values_and_the_sentinels(tmp_path: Path, engine: Engine) -> None:
    node = Node(tmp_path / "data", version="0.8", lmdb_map_size=1 << 20)
    found = shape(node.new_shard(3, engine, points=50))
    assert (found.engine, found.value_keys, found.sentinels, found.other_keys) == (
        engine, 200, 2, 0
    )  # fmt: skip
    node.old_shard(1, points=50)
    node.migrate(1, engine=engine)
    assert old_contents(node, 1).items() <= new_contents(node).items()


def test_reading_changes_nothing(tmp_path: Path) -> None:
    shard = Node(tmp_path / "data").old_shard(7)
    before = snapshot(shard)
    list(pairs(shard))
    assert snapshot(shard) == before


def snapshot(directory: Path) -> dict[str, tuple[bytes, os.stat_result]]:
    return {
        path.name: (path.read_bytes() if path.is_file() else b"", unread(path.stat()))
        for path in (directory, *directory.iterdir())
    }


def unread(status: os.stat_result) -> Any:
    return status.st_ino, status.st_nlink, status.st_mtime_ns, status.st_ctime_ns, status.st_size
