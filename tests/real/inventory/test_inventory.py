"""The inventory of what real servers left, and what comes back."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from fixtures import MARKED_AT, Node
from fixtures.engines import Engine
from shardtool.datadir import inventory as inventory_module
from shardtool.datadir.inventory import take_inventory
from shardtool.datadir.layout import find_layout
from shardtool.datadir.marker import Marker, read_marker
from shardtool.datadir.verdict import Judged, reclaimable_together
from shardtool.disk.durable import READ_DIRECTORY
from tests.conftest import Listing, Unprivileged
from tests.real.inventory.world import inventory, judged, scan, verdicts


@pytest.mark.parametrize(
    ("name", "marked", "unmigrated"),
    [
        ("original-07", 0, 27),
        ("migrated-08", 27, 0),
        ("partial-08", 4, 5),
    ],
)
def test_what_real_servers_left_is_marked_or_unmigrated_and_nothing_else(
    name: str, marked: int, unmigrated: int, capture: Callable[[str], Path]
) -> None:
    found = list(verdicts(capture(name)).values())
    assert (found.count("marked"), found.count("unmigrated")) == (marked, unmigrated)
    assert len(found) == marked + unmigrated


def test_looking_at_a_real_directory_changes_nothing(
    capture: Callable[[str], Path], listing: Callable[[Path], Listing]
) -> None:
    data = capture("migrated-08")
    before = listing(data)
    inventory(data)
    assert listing(data) == before


def test_looking_leaves_even_the_access_times_as_they_were(shard: Path) -> None:
    """The first of DESIGN's laws says every time, and relatime updates one a day."""
    paths = (shard.parent, shard, shard / "MIGRATED", shard / "CURRENT")
    before = [path.stat().st_atime_ns for path in paths]
    inventory(shard.parents[2])
    assert [path.stat().st_atime_ns for path in paths] == before


@pytest.mark.parametrize("storage", ["log", "tables"])
def test_a_shard_of_the_real_engine_is_sound(storage: Any, tmp_path: Path) -> None:
    shard = Node(tmp_path / "data").old_shard(7, storage=storage, marked_at=MARKED_AT)
    assert judged(shard) == ("marked", [])


@pytest.mark.parametrize("engine", ["leveldb", "rocksdb", "hyperleveldb", "lmdb"])
def test_a_new_shards_engine_is_what_its_type_says(engine: Engine, tmp_path: Path) -> None:
    node = Node(tmp_path / "data", version="0.8")
    node.new_shard(3, engine, points=2)
    found = {shard.name: shard for shard in inventory(node.path).new or ()}
    assert found["00003"].engine == engine
    assert found["00003"].tree.files > 0


@pytest.mark.parametrize(
    ("content", "engine"),
    [
        (None, "leveldb"),
        (b"", "unknown"),
        (b"leveldb\n", "unknown"),
        (b"\xff" * 100, "unknown"),
        (b"\x1b[2J", "unknown"),
        (b"rocksdb" * 20, "unknown"),
    ],
)
def test_a_type_that_0_8_does_not_write_is_unknown(
    content: bytes | None, engine: str, tmp_path: Path
) -> None:
    node = Node(tmp_path / "data", version="0.8")
    kind = node.new_shard(3) / "type"
    kind.unlink(missing_ok=True)
    if content is not None:
        kind.write_bytes(content)
    (found,) = inventory(node.path).new or ()
    assert found.engine == engine


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("CURRENT")])
def test_a_type_that_is_no_file_is_unknown_and_nothing_waits(
    make: Callable[[Path], None], tmp_path: Path
) -> None:
    node = Node(tmp_path / "data", version="0.8")
    kind = node.new_shard(3) / "type"
    kind.unlink(missing_ok=True)
    make(kind)
    (found,) = inventory(node.path).new or ()
    assert found.engine == "unknown"


def test_a_type_that_can_not_be_read_makes_the_new_shard_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(tmp_path / "data", version="0.8")
    node.new_shard(3)
    monkeypatch.setattr(os, "read", failing(OSError(5, "Input/output error")))
    (found,) = inventory(node.path).new or ()
    assert (found.engine, found.error) == ("unknown", "type: Input/output error")


def failing(error: OSError) -> Callable[..., NoReturn]:
    """Return a call that fails."""

    def fail(*args: Any) -> NoReturn:
        raise error

    return fail


def test_where_there_are_no_shards_there_is_none_and_no_error(tmp_path: Path) -> None:
    (tmp_path / "raft").mkdir()
    found = inventory(tmp_path)
    assert (found.old, found.new) == (None, None)
    assert found.file_system.total_bytes > 0


def test_many_shards_scanned_in_children_are_the_same_as_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(tmp_path / "data")
    with node.holding_back_raft():
        for number in range(1, 21):
            node.old_shard(number, points=number)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    many = inventory(node.path).old
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    assert many == inventory(node.path).old
    assert many is not None
    assert [shard.name for shard in many] == [f"{n:05}" for n in range(1, 21)]


_CASES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a directory": (lambda path: path.mkdir(), "marker-not-a-file"),
    "a link to a right one": (
        lambda path: os.symlink(path.parents[1] / "right", path),
        "marker-not-a-file",
    ),
    "a link that leads nowhere": (lambda path: path.symlink_to("x"), "marker-not-a-file"),
    "a FIFO": (os.mkfifo, "marker-not-a-file"),
    "empty": (lambda path: path.touch(), "marker-content"),
    "too short": (lambda path: path.write_bytes(b"done."), "marker-content"),
    "too long": (lambda path: path.write_bytes(b"done.\n\n"), "marker-content"),
    "of other content": (lambda path: path.write_bytes(b"\x1b[2J\xff\n"), "marker-content"),
    "huge": (lambda path: os.truncate(_touched(path), 1 << 40), "marker-content"),
}


def _touched(path: Path) -> Path:
    path.touch()
    return path


@pytest.mark.parametrize("case", _CASES)
def test_a_marker_is_suspect_that_is(case: str, shard: Path) -> None:
    make, word = _CASES[case]
    (shard / "MIGRATED").rename(shard.parent / "right")
    make(shard / "MIGRATED")
    assert judged(shard) == ("suspect", [word])


def test_a_marker_that_is_a_socket_is_suspect(shard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (shard / "MIGRATED").unlink()
    monkeypatch.chdir(shard)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("MIGRATED")
        assert judged(shard) == ("suspect", ["marker-not-a-file"])


def test_a_marker_without_rights_is_unreadable_not_fine(
    public_path: Path, unprivileged: Unprivileged
) -> None:
    shard = Node(public_path / "data").old_shard(7, points=2, marked_at=MARKED_AT)
    for path in (public_path / "data", public_path / "data/db", shard.parent):
        path.chmod(0o755)
    (shard / "MIGRATED").chmod(0o000)
    assert unprivileged(lambda: judged(shard)) == ("unreadable", ["marker-unreadable"])


def test_a_marker_that_becomes_a_fifo_while_it_is_read_does_not_hang(
    shard: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def swap_first(path: Any, *args: Any, **settings: Any) -> int:
        if path == "MIGRATED":
            (shard / "MIGRATED").unlink()
            os.mkfifo(shard / "MIGRATED")
        return real(path, *args, **settings)

    directory = os.open(shard, READ_DIRECTORY)
    monkeypatch.setattr(os, "open", swap_first)
    assert not read_marker(directory).valid
    monkeypatch.undo()
    os.close(directory)


def test_a_sound_marker_tells_when_it_was_written(shard: Path) -> None:
    when = (shard / "MIGRATED").stat().st_mtime_ns
    assert scan(shard).marker == Marker(True, when)


@pytest.mark.parametrize("name", ["000009.ldb", "000009.sst", "000009.log"])
def test_a_shard_with_a_table_newer_than_its_marker_is_suspect(name: str, shard: Path) -> None:
    (shard / name).write_bytes(b"values")
    assert judged(shard) == ("suspect", ["written-after-marker"])


def test_what_the_migrator_touches_as_it_closes_a_shard_is_no_reason(shard: Path) -> None:
    for name in ("LOG", "LOG.old", "MANIFEST-000009", "LOCK", "CURRENT"):
        with (shard / name).open("ab") as file:
            file.write(b"x")
    (shard / "000010.log").touch()
    assert judged(shard) == ("marked", [])


def test_a_newer_table_is_suspect_among_hundreds_of_newer_manifests(
    shard: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one value that 0.7 took after a rollback must not be hidden by what hides nothing."""
    for number in range(150):
        (shard / f"MANIFEST-{number:06}").write_bytes(b"x")
    (shard / "999999.ldb").write_bytes(b"values")
    listdir = os.listdir
    # ext4 and others list in no order: this one puts the table last.
    monkeypatch.setattr(
        os, "listdir", lambda p: sorted(listdir(p), key=lambda n: n.endswith(".ldb"))
    )
    assert judged(shard) == ("suspect", ["written-after-marker"])


def test_a_marker_from_the_future_cannot_tell_what_was_written_after_it(shard: Path) -> None:
    """It would hide every later write, so it can't be sound."""
    os.utime(shard / "MIGRATED", (4_102_444_800, 4_102_444_800))
    (shard / "000009.ldb").write_bytes(b"values")
    assert judged(shard)[0] == "suspect"


def test_a_table_that_two_shards_share_comes_back_with_the_second(
    sharing: tuple[Judged, ...],
) -> None:
    alone = [judged.reclaimable_bytes for judged in sharing]
    assert [judged.verdict for judged in sharing] == ["marked", "marked"]
    assert all(size < 100_000 for size in alone)
    assert reclaimable_together(sharing) >= sum(alone) + 100_000


def test_what_a_scan_child_cannot_do_is_done_for_each_shard_alone(
    shard: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One bad shard never hides the others: a failing measure is that shard's error."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(inventory_module, "measure", fail)
    assert judged(shard) == ("unreadable", ["unreadable"])


def test_a_new_shard_that_is_a_link_says_so(node: Node) -> None:
    shard = node.shard_db_v2 / "00001"
    shard.rename(node.path / "elsewhere")
    shard.symlink_to(node.path / "elsewhere")
    found = take_inventory(find_layout(str(node.path), None, {})).new or ()
    assert [s.error for s in found if s.name == "00001"] == [
        "expected a directory, found a symlink"
    ]
