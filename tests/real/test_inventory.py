"""What is in a data directory, from real directories, and that looking changes nothing."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import pytest

from fixtures import MARKED_AT, Node
from fixtures.engines import Engine
from shardtool.datadir import inventory as inventory_module
from shardtool.datadir.inventory import Inventory, OldShard, scan_old_shard, take_inventory
from shardtool.datadir.layout import find_layout
from shardtool.datadir.marker import Marker, read_marker
from shardtool.datadir.verdict import Judged, judge, judge_all, reclaimable_together
from shardtool.disk.durable import READ_DIRECTORY
from tests.conftest import Hold, Listing, Mount, Unprivileged


def inventory(data: Path) -> Inventory:
    """Take the inventory of a data directory."""
    return take_inventory(find_layout(str(data), None, {}), fingerprints=True)


def verdicts(data: Path) -> dict[str, str]:
    """Return the verdict over each entry of shard_db."""
    return {j.shard.name: j.verdict for j in judge_all(inventory(data))}


def scan(shard: Path) -> OldShard:
    """Scan one shard."""
    found = scan_old_shard(shard.parent, shard.name, fingerprint=True)
    assert found is not None
    return found


def judged(shard: Path) -> tuple[str, list[str]]:
    """Judge one shard: verdict and reasons' words."""
    found = judge(scan(shard))
    return found.verdict, [reason.word for reason in found.reasons]


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    """Make a sound old shard that is marked."""
    return Node(tmp_path / "data").old_shard(7, points=2, marked_at=MARKED_AT)


# -- what real servers left --


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


# -- the marker --

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


# -- what is no shard --


def test_a_symlinked_shard_is_not_followed(shard: Path, tmp_path: Path) -> None:
    shard.rename(tmp_path / "elsewhere")
    shard.symlink_to(tmp_path / "elsewhere")
    assert judged(shard) == ("suspect", ["symlink"])
    assert scan(shard).tree.apparent_bytes == 0


@pytest.mark.parametrize(
    "make",
    [
        Path.touch,
        os.mkfifo,
        lambda path: path.symlink_to("nowhere"),
    ],
    ids=["file", "fifo", "dangling-link"],
)
def test_what_is_no_directory_is_no_shard(make: Callable[[Path], None], shard: Path) -> None:
    make(shard.parent / "00008")
    assert judged(shard.parent / "00008")[0] == "suspect"


def test_an_empty_directory_is_no_shard(shard: Path) -> None:
    (shard.parent / "00008").mkdir()
    assert judged(shard.parent / "00008") == ("suspect", ["not-a-shard", "no-marker"])


def test_the_ruins_of_a_shard_are_no_shard(shard: Path) -> None:
    (shard / "CURRENT").unlink()
    assert judged(shard) == ("suspect", ["not-a-shard"])


@pytest.mark.parametrize(
    "name",
    [
        "notes.txt",
        ".hidden",
        "000005.ldb.bak",
        "x.ldb",
        "\udcff",
        "\x1b[2J",
        "a\nb",
        "x" * 255,
    ],
)
def test_somebody_elses_file_in_a_shard_is_a_reason_to_keep_it(name: str, shard: Path) -> None:
    (shard / name).touch()
    assert judged(shard) == ("suspect", ["foreign-files"])


def test_a_directory_in_a_shard_is_a_reason_to_keep_it(shard: Path) -> None:
    (shard / "000005.ldb").mkdir()
    assert judged(shard) == ("suspect", ["foreign-files"])


def test_hostile_entries_hide_no_shard(shard: Path) -> None:
    db = shard.parent
    os.mkfifo(db / "fifo")
    for name in ("\x1b[2J", "a\nb", "\udcff", "x" * 255, "lost+found", "7"):
        (db / name).mkdir()
    (db / "loop").symlink_to("loop")
    found = verdicts(db.parents[1])
    assert found.pop("00007") == "marked"
    assert len(found) == 8
    assert set(found.values()) == {"suspect"}


@pytest.mark.parametrize("what", ["tmpfs", "bind"])
def test_a_mount_at_a_shard_is_suspect(
    what: str, shard: Path, tmp_path: Path, mount: Mount
) -> None:
    copy = shutil.copytree(shard, tmp_path / "copy")
    mount(shard, source=copy if what == "bind" else None)
    (found,) = judge_all(inventory(shard.parents[2]))
    assert (found.verdict, found.reasons[0].word) == ("suspect", "mount-point")


def test_a_file_mounted_in_a_shard_is_suspect(shard: Path, tmp_path: Path, mount: Mount) -> None:
    (tmp_path / "file").write_bytes(b"x")
    mount(shard / "CURRENT", source=tmp_path / "file")
    assert verdicts(shard.parents[2]) == {"00007": "suspect"}


def test_a_shard_without_rights_is_unreadable_and_hides_no_other(
    public_path: Path, unprivileged: Unprivileged
) -> None:
    node = Node(public_path / "data")
    for number in (7, 8):
        node.old_shard(number, points=2)
    for path in (node.path, node.db, node.shard_db):
        path.chmod(0o755)
    (node.shard_db / "00007").chmod(0o000)
    found = unprivileged(lambda: verdicts(node.path))
    assert found == {"00007": "unreadable", "00008": "unmigrated"}


def test_a_shard_of_which_one_file_cannot_be_looked_at_is_unreadable(
    shard: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.stat

    def fail(path: Any, **settings: Any) -> os.stat_result:
        if path == "CURRENT":
            raise OSError(5, "Input/output error")
        return real(path, **settings)

    monkeypatch.setattr(os, "stat", fail)
    assert judged(shard)[0] == "unreadable"


# -- while others are at work --


def test_a_shard_that_vanished_is_none(shard: Path) -> None:
    assert scan_old_shard(shard.parent, "00099", fingerprint=False) is None


def test_a_shard_that_vanishes_during_the_scan_is_no_error(
    shard: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: [*listdir(path), "00099"])
    assert verdicts(shard.parents[2]) == {"00007": "marked"}


def test_a_shard_that_becomes_a_link_during_the_scan_is_not_followed(
    shard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def swap_first(path: Any, *args: Any, **settings: Any) -> int:
        if path == shard and not shard.is_symlink():
            shard.symlink_to(shard.rename(tmp_path / "elsewhere"))
        return real(path, *args, **settings)

    monkeypatch.setattr(os, "open", swap_first)
    assert judged(shard)[0] == "unreadable"
    assert scan(shard).tree.apparent_bytes == 0


def test_a_scan_during_a_storm_of_changes_never_fails(tmp_path: Path) -> None:
    shard = Node(tmp_path / "data").old_shard(7, points=2)
    pid = os.fork()
    if not pid:
        try:
            while os.getppid() != 1:
                for number in range(50):
                    (shard / f"{number:06}.ldb").touch()
                for number in range(50):
                    (shard / f"{number:06}.ldb").unlink()
        finally:
            os._exit(0)
    try:
        found = [scan(shard) for _ in range(200)]
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    assert {(one.error, one.tree.oddities) for one in found} == {("", ())}


@pytest.mark.parametrize(
    ("how", "word"),
    [
        ("database", "locked"),
        ("lock", "locked"),
        ("open", "open-files"),
        ("mapped", "open-files"),
    ],
)
def test_a_shard_that_another_process_uses_is_busy(
    how: str, word: str, shard: Path, hold: Hold
) -> None:
    path = {"database": shard, "lock": shard / "LOCK"}.get(how, shard / "CURRENT")
    pid = hold(path, how)
    (found,) = judge_all(inventory(shard.parents[2]))
    assert (found.verdict, found.in_use) == ("busy", "yes")
    assert word in [reason.word for reason in found.reasons]
    assert str(pid) in found.reasons[0].detail


def test_the_neighbour_of_a_busy_shard_is_free(tmp_path: Path, hold: Hold) -> None:
    node = Node(tmp_path / "data")
    paths = [node.old_shard(number, points=2, marked_at=MARKED_AT) for number in (7, 8)]
    hold(paths[0], "database")
    assert verdicts(node.path)["00008"] == "marked"


@pytest.mark.parametrize("how", ["open", "mapped"])
def test_open_files_are_found_where_shard_db_is_a_link_to_another_place(
    how: str, shard: Path, tmp_path: Path, hold: Hold
) -> None:
    """Operators move shard_db to a larger disk and leave a link."""
    shard.parent.rename(tmp_path / "disk2")
    shard.parent.symlink_to(tmp_path / "disk2")
    hold(shard / "CURRENT", how)
    assert verdicts(shard.parents[2]) == {"00007": "busy"}


def test_locks_are_found_where_shard_db_is_a_link(shard: Path, tmp_path: Path, hold: Hold) -> None:
    shard.parent.rename(tmp_path / "disk2")
    shard.parent.symlink_to(tmp_path / "disk2")
    hold(shard / "LOCK", "lock")
    assert verdicts(shard.parents[2]) == {"00007": "busy"}


# -- what comes back --


@pytest.fixture
def sharing(tmp_path: Path) -> Iterator[tuple[Judged, ...]]:
    """Judge two marked shards that share a table by hard links."""
    node = Node(tmp_path / "data")
    paths = [node.old_shard(number, points=2) for number in (7, 8)]
    (paths[0] / "000099.ldb").write_bytes(b"x" * 100_000)
    os.utime(paths[0] / "000099.ldb", (0, 0))
    os.link(paths[0] / "000099.ldb", paths[1] / "000099.ldb")
    for number in (7, 8):
        node.mark(number, at=MARKED_AT + timedelta(days=1))
    yield judge_all(inventory(node.path))


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
