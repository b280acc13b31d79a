"""Receipts hold while both sides, and what raft knows, are exactly as they were read."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from shardtool.datadir.layout import Layout
from shardtool.influxdb.model import Catalogue, Dropped
from shardtool.journal import History
from shardtool.proof.basis import Basis, basis_now
from shardtool.proof.columns import Name
from shardtool.proof.evidence import held
from shardtool.proof.receipts import NewSide, Receipt, Receipts
from shardtool.proof.source import RaftCatalogue
from tests.needs import needs_plyvel
from tests.real.receipts.world import RECEIPT, World, document, planted, signed

CATALOGUE = Catalogue(frozenset(), {}, {}, (), (), 1, Dropped())


def test_a_receipt_of_a_proof_holds_while_nothing_changes(world: World) -> None:
    written = world.prove()
    assert world.holds()
    assert world.receipts.read("00007") == written
    proofs = held(world.layout, ["00007"], History(()))
    assert proofs.evidence["00007"].missing == 1


def table_of(shard: Path) -> Path:
    return next(path for path in sorted(shard.iterdir()) if path.suffix in (".ldb", ".log"))


def remove_table(shard: Path) -> None:
    table_of(shard).unlink()


def rewrite_in_place(shard: Path) -> None:
    """The same size, and its mtime set back: only the ctime tells."""
    table = table_of(shard)
    before = table.stat()
    content = bytearray(table.read_bytes())
    content[len(content) // 2] ^= 1
    with table.open("r+b") as file:
        file.write(content)
    os.utime(table, ns=(before.st_atime_ns, before.st_mtime_ns))


def add_file(shard: Path) -> None:
    (shard / "000099.ldb").touch()


def append_to_log(shard: Path) -> None:
    with next(shard.glob("*.log")).open("ab") as file:
        file.write(b"\0")


def replace_by_copy(shard: Path) -> None:
    copy = shard.with_name("copy")
    shutil.copytree(shard, copy)
    shutil.rmtree(shard)
    copy.rename(shard)


def take_away(shard: Path) -> None:
    shutil.rmtree(shard)


def link_to_itself(shard: Path) -> None:
    shard.rename(shard.with_name("elsewhere"))
    shard.symlink_to("elsewhere")


def rename_table(shard: Path) -> None:
    table = table_of(shard)
    table.rename(table.with_name("000098" + table.suffix))


def touch_manifest(shard: Path) -> None:
    os.utime(next(shard.glob("MANIFEST-*")))


def change_mode(shard: Path) -> None:
    table_of(shard).chmod(0o600)


def link_table(shard: Path) -> None:
    table = table_of(shard)
    table.rename(shard.parent / "moved")
    table.symlink_to(shard.parent / "moved")


CHANGES: tuple[Callable[[Path], None], ...] = (
    remove_table,
    rewrite_in_place,
    add_file,
    append_to_log,
    replace_by_copy,
    take_away,
    link_to_itself,
    rename_table,
    touch_manifest,
    change_mode,
    link_table,
)


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("side", ["old", "new"])
def test_each_kind_of_change_on_either_side_ends_a_receipt(
    change: Callable[[Path], None], side: str, world: World
) -> None:
    world.prove()
    change(world.old if side == "old" else world.new[-1])
    assert not world.holds()
    assert held(world.layout, ["00007"], History(())).evidence == {}


def test_another_type_of_a_new_shard_ends_a_receipt(world: World) -> None:
    world.prove()
    (world.new[0] / "type").write_text("rocksdb")
    assert not world.holds()


def test_a_type_file_that_is_gone_ends_a_receipt(world: World) -> None:
    world.prove()
    (world.new[0] / "type").unlink()
    assert not world.holds()


@needs_plyvel
def test_a_value_that_is_deleted_from_a_new_shard_ends_a_receipt(world: World) -> None:
    import plyvel

    world.prove()
    with plyvel.DB(str(world.new[0])) as database:
        key = next(key for key, _ in database if key != bytes(24))
        database.delete(key)
    assert not world.holds()


@pytest.mark.parametrize("name", ["LOG", "LOCK", "LOG.old", "LOG.old.1795692566637096"])
@pytest.mark.parametrize("side", ["old", "new"])
def test_an_engines_diary_changes_nothing(name: str, side: str, world: World) -> None:
    world.prove()
    shard = world.old if side == "old" else world.new[0]
    with (shard / name).open("ab") as file:
        file.write(b"a line\n")
    assert world.holds()
    (shard / name).unlink()
    assert world.holds()


def test_a_new_shard_that_a_proof_does_not_rest_on_may_change(world: World) -> None:
    other = world.node.new_shard(90, points=4)
    world.prove()
    add_file(other)
    assert world.holds()


@pytest.mark.parametrize(
    ("age", "is_held"),
    [
        (timedelta(), True),
        (timedelta(hours=23), True),
        (timedelta(hours=25), False),
        (timedelta(hours=-1), False),
    ],
)
def test_what_other_servers_answered_holds_for_a_day(
    age: timedelta, is_held: bool, world: World
) -> None:
    finding = replace(world.prove().finding, asked=1)
    receipt = Receipt("00007", datetime.now(UTC) - age, finding)
    new_side = NewSide(world.layout, RaftCatalogue(world.layout.raft))
    assert new_side.is_same(receipt) is is_held


def test_a_receipt_rests_on_what_raft_knows_and_not_on_files_alone(world: World) -> None:
    world.prove()
    log = world.layout.raft / "log"
    kept = log.read_bytes()
    log.write_bytes(kept[: len(kept) // 3])  # as a restore of an old snapshot would leave it
    assert not world.holds()
    log.unlink()
    assert not world.holds()
    log.write_bytes(kept)
    assert world.holds()


def test_new_series_and_shards_change_nothing_about_a_receipt(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.prove()
    world.node.raft_command(
        "create_series_field_ids",
        {"Database": "test", "Series": [{"name": "another", "fields": ["n"]}]},
    )
    assert world.holds()


@pytest.mark.parametrize("command", ["drop_series", "drop_db", "remove_shard_space"])
def test_what_is_dropped_in_raft_ends_a_receipt_before_any_file_has_changed(
    command: str, tmp_path: Path
) -> None:
    world = World(tmp_path)
    world.prove()
    payload: dict[str, dict[str, str]] = {
        "drop_series": {"Database": "test", "Series": "cpu"},
        "drop_db": {"name": "test"},
        "remove_shard_space": {"Database": "test", "Name": "short_term"},
    }
    world.node.raft_command(command, payload[command])
    assert not world.holds()


def test_ids_are_told_as_ranges_whatever_their_order() -> None:
    basis = Basis(CATALOGUE)
    for number in (7, 1, 3, 2, 9, 8):
        basis.add_column(number, Name("d", "s", f"c{number}"))
    assert basis.ids() == "1-3,7-9"
    by_id = {number: Name("d", "s", f"c{number}") for number in range(20)}
    assert basis_now(CATALOGUE, by_id, basis.ids(), ()) == basis.hexdigest()
    by_id[3] = Name("d", "s", "another")
    assert basis_now(CATALOGUE, by_id, basis.ids(), ()) != basis.hexdigest()
    assert basis_now(CATALOGUE, {}, basis.ids(), ()) != basis.hexdigest()


def test_what_a_killed_run_had_begun_to_write_is_removed_by_the_next(layout: Layout) -> None:
    receipts = Receipts(layout)
    receipts.write(RECEIPT)
    ended = subprocess.run(["sh", "-c", "echo $$"], capture_output=True, text=True, check=True)
    dead = receipts.directory / f".00008.json.{ended.stdout.strip()}"
    alive = receipts.directory / f".00008.json.{os.getppid()}"
    foreign = receipts.directory / ".notes"
    for path in (dead, alive, foreign):
        path.touch()
    Receipts(layout).write(RECEIPT)
    assert [path.exists() for path in (dead, alive, foreign)] == [False, True, True]


def test_a_receipt_that_was_altered_and_agrees_with_itself_is_none(layout: Layout) -> None:
    found = document(layout)
    found |= {"missing": 0, "different": 0, "losses": []}
    assert planted(layout, signed(found)).read("00007") is not None
    assert planted(layout, json.dumps(found).encode()).read("00007") is None
