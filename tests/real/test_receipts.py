"""Receipts hold while both sides are exactly as they were read, and never make shardtool fall."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures import Node
from shardtool.datadir.inventory import take_inventory
from shardtool.datadir.layout import Layout, find_layout
from shardtool.errors import ShardtoolError
from shardtool.influxdb.model import Catalogue, Dropped
from shardtool.journal import History
from shardtool.proof.basis import Basis, basis_now
from shardtool.proof.columns import Name
from shardtool.proof.evidence import Proofs, held, local_shards, prove_shards
from shardtool.proof.prove import Finding, Loss
from shardtool.proof.receipts import NewSide, Receipt, Receipts, _checksum
from shardtool.proof.run import Setting
from shardtool.proof.source import RaftCatalogue, catalogue_of
from tests.any_json import JSON, change
from tests.conftest import Unprivileged
from tests.needs import needs_plyvel

WHEN = datetime(2026, 11, 26, 12, tzinfo=UTC)
FINDING = Finding(
    values=100,
    missing=3,
    different=1,
    asked=0,
    losses=(
        Loss(Name("db", "s~\udcff", "c"), 50, 3, 0, "future", -5, 1 << 62),
        Loss(Name("db", "s", 'c"'), 50, 0, 1, "unknown", 0, 0),
    ),
    elsewhere=False,
    unasked=False,
    digest="a" * 64,
    losses_digest="b" * 64,
    old_state="c" * 64,
    new_states={"00009": "d" * 64},
    ids="1-2,9",
    basis="e" * 64,
)
RECEIPT = Receipt("00007", WHEN, FINDING)
CATALOGUE = Catalogue(frozenset(), {}, {}, (), (), 1, Dropped())


class Quiet:
    def progress(self, *told: object) -> None:
        pass

    def listed(self, shard: str, piece: bytes) -> None:
        pass


class World:
    """A node with a proven shard 00007, of which one value is lost, and its receipt."""

    def __init__(self, path: Path) -> None:
        self.node = Node(path / "data", version="0.8", phantoms=False)
        self.node.old_shard(7, points=400, storage="tables")
        self.node.migrate(7, lose=1, storage="tables")
        self.layout = find_layout(str(self.node.path), None, {})
        self.receipts = Receipts(self.layout)
        self.old = self.node.old[7].path
        self.new = [shard.path for shard in self.node.new.values()]

    def prove(self) -> Receipt:
        """Prove the shard and write its receipt."""
        inventory = take_inventory(self.layout)
        proofs = Proofs()
        of = Setting(catalogue_of(self.layout, None), local_shards(self.layout, inventory))
        list(prove_shards(inventory.old or (), self.layout, of, proofs, Quiet()))
        self.receipts.write(proofs.receipts["00007"])
        return proofs.receipts["00007"]

    def holds(self) -> bool:
        return (
            self.receipts.holding("00007", NewSide(self.layout, RaftCatalogue(self.layout.raft)))
            is not None
        )


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    (tmp_path / "db").mkdir()
    return find_layout(str(tmp_path), None, {})


def signed(found: Any) -> bytes:
    """Return a receipt's document as a file whose checksum is right, whatever is in it."""
    if isinstance(found, dict):
        rest = {name: value for name, value in found.items() if name != "sha256"}
        found = rest | {"sha256": _checksum(rest)}
    return json.dumps(found).encode()


# -- what is written is read --


def test_a_receipt_is_read_as_it_was_written(layout: Layout) -> None:
    Receipts(layout).write(RECEIPT)
    assert Receipts(layout).read("00007") == RECEIPT
    assert Receipts(layout).names() == {"00007"}


def test_a_second_receipt_takes_the_firsts_place(layout: Layout) -> None:
    receipts = Receipts(layout)
    receipts.write(RECEIPT)
    later = replace(RECEIPT, proven_at=WHEN + timedelta(days=1))
    receipts.write(later)
    assert receipts.read("00007") == later
    assert [path.name for path in receipts.directory.iterdir()] == ["00007.json"]


def test_writing_leaves_dbs_times_as_they_were(layout: Layout) -> None:
    os.utime(layout.db, ns=(10**18, 10**18))
    Receipts(layout).write(RECEIPT)
    assert layout.db.stat().st_mtime_ns == 10**18


NAMES = st.text(max_size=8) | st.sampled_from(["\udcff", "a~b", "\0", "\x1b[2J"])
COUNT = st.integers(0, 1 << 40)
LOSSES = st.builds(
    Loss,
    name=st.builds(Name, NAMES, NAMES, NAMES),
    values=COUNT,
    missing=COUNT,
    different=COUNT,
    cause=st.sampled_from(["future", "name", "unknown"]),
    first_us=st.integers(-(1 << 63), 1 << 63),
    last_us=st.integers(-(1 << 63), 1 << 63),
)


@settings(max_examples=50)
@given(losses=st.lists(LOSSES, max_size=4), found=st.integers(0, 10), asked=st.integers(0, 10))
def test_any_receipt_of_any_names_is_read_as_it_was_written(
    losses: list[Loss], found: int, asked: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("node")
    (directory / "db").mkdir()
    missing, different = sum(one.missing for one in losses), sum(one.different for one in losses)
    finding = replace(
        FINDING,
        values=missing + different + found + asked,
        missing=missing,
        different=different,
        asked=asked,
        losses=tuple(losses),
    )
    receipts = Receipts(find_layout(str(directory), None, {}))
    receipts.write(Receipt("00007", WHEN, finding))
    assert receipts.read("00007") == Receipt("00007", WHEN, finding)


# -- while both sides are the same --


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


# -- receipts that are none --


def planted(layout: Layout, content: bytes) -> Receipts:
    """Put content where a receipt of 00007 would be."""
    receipts = Receipts(layout)
    receipts.directory.mkdir(parents=True, exist_ok=True)
    (receipts.directory / "00007.json").write_bytes(content)
    return receipts


def document(layout: Layout) -> dict[str, Any]:
    """Return a sound receipt's JSON."""
    Receipts(layout).write(RECEIPT)
    found: dict[str, Any] = json.loads((Receipts(layout).directory / "00007.json").read_bytes())
    return found


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"1",
        b'"text"',
        b"{}",
        b"\xff\xfe",
        b"\0" * 100,
        b"[" * 1_000_000,
        b'{"a":' * 200_000,
        b"9" * 10_000,
        random.Random(3).randbytes(1000),
    ],
)
def test_garbage_is_no_receipt(content: bytes, layout: Layout) -> None:
    assert planted(layout, content).read("00007") is None


def test_a_receipt_torn_anywhere_is_none(layout: Layout) -> None:
    content = json.dumps(document(layout)).encode()
    for end in range(0, len(content), 13):
        assert planted(layout, content[:end]).read("00007") is None


@pytest.mark.parametrize(
    "changes",
    [
        {"schema": "shardtool/receipt/2"},
        {"schema": None},
        {"shard": "00008"},
        {"shard": 7},
        {"proven_at": 5},
        {"proven_at": "yesterday"},
        {"proven_at": None},
        {"values": "100"},
        {"values": 1.5},
        {"values": True},
        {"values": -1},
        {"values": 3},  # fewer than are lost
        {"missing": "0"},
        {"missing": 0},  # its losses say three
        {"missing": -3},
        {"different": None},
        {"different": 0},
        {"asked": []},
        {"asked": -1},
        {"elsewhere": "no"},
        {"elsewhere": 0},
        {"digest": 5},
        {"losses_digest": None},
        {"old_state": 7},
        {"losses": None},
        {"losses": "text"},
        {"losses": {}},
        {"losses": []},
        {"losses": [5]},
        {"losses": [{}]},
        {"losses": [[]]},
        {"new_states": []},
        {"new_states": None},
        {"new_states": {}},  # 96 values were found, in nothing
        {"new_states": {"00009": 5}},
        {"new_states": {"../shard_db/00007": "c" * 64}},
        {"new_states": {"/etc": "c" * 64}},
        {"extra": 5},
    ],
)
def test_a_field_that_shardtool_does_not_write_makes_it_no_receipt(
    changes: dict[str, Any], layout: Layout
) -> None:
    content = json.dumps(document(layout) | changes).encode()
    assert planted(layout, content).read("00007") is None


@pytest.mark.parametrize("field", [*RECEIPT.__dict__, *FINDING.__dict__, "schema"])
def test_a_field_that_lacks_makes_it_no_receipt(field: str, layout: Layout) -> None:
    found = document(layout)
    if found.pop(field, None) is not None:
        assert planted(layout, signed(found)).read("00007") is None


@pytest.mark.parametrize(
    "changes",
    [
        {"name": None},
        {"name": {}},
        {"name": {"database": [], "series": "s", "column": "c"}},
        {"name": {"database": "d", "series": 1, "column": "c"}},
        {"cause": "because"},
        {"cause": 5},
        {"missing": "3"},
        {"missing": 4},
        {"different": -1},
        {"first_us": "0"},
        {"extra": 1},
    ],
)
def test_a_loss_that_shardtool_does_not_write_makes_it_no_receipt(
    changes: dict[str, Any], layout: Layout
) -> None:
    found = document(layout)
    found["losses"][0] |= changes
    assert planted(layout, signed(found)).read("00007") is None


@pytest.mark.slow
@settings(max_examples=150)
@given(data=st.data(), value=JSON)
def test_a_mutated_receipt_is_none_or_one_that_can_be_shown(
    data: st.DataObject, value: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("node")
    (directory / "db").mkdir()
    layout = find_layout(str(directory), None, {})
    found = document(layout)
    change(data, found, value)
    receipts = planted(layout, signed(found))
    receipt = receipts.read("00007")
    NewSide(layout, RaftCatalogue(layout.raft))
    if receipt is not None:
        finding = receipt.finding
        assert f"{finding.values:,}".replace(",", "") == str(finding.values)
        assert finding.missing == 3
        assert finding.different == 1
        assert all(isinstance(state, str) for state in finding.new_states.values())
        receipts.holding("00007", NewSide(layout, RaftCatalogue(layout.raft)))
        receipts.write(receipt)
        assert receipts.read("00007") == receipt


@pytest.mark.parametrize("how", ["symlink", "fifo", "directory", "link to the receipts", "huge"])
def test_what_is_no_file_of_its_own_is_no_receipt_and_nothing_waits(
    how: str, layout: Layout
) -> None:
    receipts = Receipts(layout)
    receipts.write(RECEIPT)
    file = receipts.directory / "00007.json"
    if how == "huge":
        os.truncate(file, 1 << 40)
    elif how == "link to the receipts":
        receipts.directory.rename(layout.db / "elsewhere")
        receipts.directory.symlink_to(layout.db / "elsewhere")
    else:
        file.rename(layout.db / "kept.json")
        if how == "symlink":
            file.symlink_to(layout.db / "kept.json")
        elif how == "fifo":
            os.mkfifo(file)
        else:
            file.mkdir()
    assert receipts.read("00007") is None


@pytest.mark.parametrize("name", ["../00007", "00007.json", "", ".", "nothing", "a" * 300])
def test_a_name_without_a_receipt_gives_none(name: str, layout: Layout) -> None:
    Receipts(layout).write(RECEIPT)
    assert Receipts(layout).read(name) is None


def test_another_shards_receipt_under_this_name_is_none(layout: Layout) -> None:
    Receipts(layout).write(RECEIPT)
    directory = Receipts(layout).directory
    shutil.copy(directory / "00007.json", directory / "00008.json")
    assert Receipts(layout).read("00008") is None


# -- where it can't be written --


@pytest.mark.parametrize("place", [".shardtool", ".shardtool/proofs"])
@pytest.mark.parametrize("how", ["file", "link"])
def test_something_in_the_receipts_place_is_an_error(place: str, how: str, layout: Layout) -> None:
    outside = layout.db.parent / "outside"
    outside.mkdir()
    (layout.db / place).parent.mkdir(exist_ok=True)
    if how == "file":
        (layout.db / place).touch()
    else:
        (layout.db / place).symlink_to(outside)
    with pytest.raises(ShardtoolError, match=r"00007\.json"):
        Receipts(layout).write(RECEIPT)
    assert list(outside.iterdir()) == []


def test_without_rights_it_is_an_error_that_says_what_follows(
    public_path: Path, unprivileged: Unprivileged
) -> None:
    (public_path / "db").mkdir(mode=0o755)
    layout = find_layout(str(public_path), None, {})

    def write() -> str:
        try:
            Receipts(layout).write(RECEIPT)
        except ShardtoolError as error:
            return str(error)
        return ""

    assert "Permission denied" in unprivileged(write)


def test_a_write_that_fails_leaves_the_last_receipt(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    receipts = Receipts(layout)
    receipts.write(RECEIPT)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ShardtoolError, match="No space left"):
        receipts.write(replace(RECEIPT, proven_at=WHEN + timedelta(days=1)))
    monkeypatch.undo()
    assert receipts.read("00007") == RECEIPT
    assert [path.name for path in receipts.directory.iterdir()] == ["00007.json"]


# -- what raft knows --


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
