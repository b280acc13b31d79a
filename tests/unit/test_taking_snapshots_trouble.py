"""What goes wrong while a snapshot is taken: nothing of it stays, and its one line says why."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from shardtool.datadir.layout import find_layout
from shardtool.disk.copy import Meter, room_for
from shardtool.errors import BusyError, ShardtoolError
from shardtool.snapshots import backup
from shardtool.snapshots.backup import Onward, find_sources
from shardtool.snapshots.bag import METADATA
from shardtool.snapshots.copying import survey_sources
from tests.conftest import Mount
from tests.needs import needs_root
from tests.real.snapshot_world import Uncounted, make_node
from tests.unit.staging_world import STAMP, acting, rights_of, stopped_clock, take

NOBODY = 65534
AS_WHOM = "run this as the server's user or as root"
ELSEWHERE = Onward(lambda name: False, "go elsewhere")
REMOVED = "; what was written of the snapshot was removed"


@pytest.fixture
def node(tmp_path: Path) -> Path:
    return make_node(tmp_path / "node")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> str:
    return stopped_clock(monkeypatch)


@pytest.fixture
def partial(now: str, store: Path) -> Path:
    """Where the snapshot is until it has its name."""
    return store / f".partial-{now}"


def refusal(
    node: Path, store: Path, meter: Meter = Uncounted, *, onward: Onward | None = None
) -> str:
    """Return the line that tells why no snapshot was taken."""
    with pytest.raises(ShardtoolError) as told:
        take(node, store, meter, onward=onward)
    return str(told.value)


# -- what is there to be copied --


@pytest.mark.parametrize("name", ["raft", "wal"])
@pytest.mark.parametrize("is_file", [False, True])
def test_without_raft_or_wal_there_is_none(
    is_file: bool, name: str, node: Path, store: Path, tmp_path: Path
) -> None:
    (node / name).rename(tmp_path / "gone")
    if is_file:
        (node / name).touch()
    assert refusal(node, store) == (
        f"{node / name}: expected the node's {name} directory, found none; "
        "a snapshot needs raft and wal: check --data, or use --influx-config"
    )
    assert os.listdir(store) == []


def test_raft_in_wal_is_refused(node: Path, store: Path) -> None:
    (node / "raft").rename(node / "wal/raft")
    (node / "raft").symlink_to("wal/raft")
    assert "expected raft and wal to lie apart" in refusal(node, store)
    assert os.listdir(store) == []


@needs_root
def test_what_can_not_be_read_leaves_nothing(public_path: Path) -> None:
    node, store = make_node(public_path / "node"), public_path / "store"
    store.mkdir()
    store.chmod(0o777)
    for directory in ("wal", "raft/snapshot"):
        (node / directory).chmod(0o755)
    with rights_of(NOBODY, NOBODY):
        line = refusal(node, store)
    assert line.startswith(f"{node}/raft/log: expected to read it, found: Permission denied; ")
    assert line.endswith(REMOVED)
    assert os.listdir(store) == []


def test_without_a_store_there_is_none(node: Path, tmp_path: Path) -> None:
    line = refusal(node, tmp_path / "missing")
    assert line.startswith(f"{tmp_path}/missing: expected the snapshot directory, found: No such")


@needs_root
@pytest.mark.parametrize(
    ("mode", "expected"),
    [(0o600, "to look through the snapshot directory"), (0o500, "to write the snapshot")],
)
def test_a_store_without_rights_in_it_is_told_by_its_path(
    mode: int, expected: str, public_path: Path
) -> None:
    node, store = make_node(public_path / "node"), public_path / "store"
    store.mkdir(mode)
    for path in (store, node, *node.rglob("*")):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    with rights_of(NOBODY, NOBODY):
        line = refusal(node, store)
    assert line == (
        f"{store}: expected {expected}, found: Permission denied; {AS_WHOM}"
    )  # and no word of what was removed: there was nothing
    assert os.listdir(store) == []


def test_a_store_that_is_out_of_reach_is_no_matter_of_room(
    node: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(directory: int) -> os.statvfs_result:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr(os, "fstatvfs", gone)
    assert refusal(node, store) == (
        f"{store}: expected to look through the snapshot directory, found: Stale file handle; "
        "check the disk, or name another place with --to DIR"
    )


# -- room --


@needs_root
def test_what_a_kill_left_takes_no_room_from_the_next_one(
    node: Path, tmp_path: Path, mount: Mount
) -> None:
    (tmp_path / "disk").mkdir()
    store = mount(tmp_path / "disk", size="3m")
    (store / f".partial-{STAMP}" / "data").mkdir(parents=True)
    (store / f".partial-{STAMP}" / "data/wal").write_bytes(bytes(2 << 20))
    made = take(node, store)
    assert os.listdir(store) == [made.verified.id]


@pytest.mark.parametrize("onward", [None, ELSEWHERE], ids=["here", "onward"])
@pytest.mark.parametrize("lacking", [None, "bytes", "inodes", "no inodes to count"])
def test_it_begins_only_where_there_is_room_for_all(
    lacking: str | None,
    onward: Onward | None,
    node: Path,
    store: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For each file, and for its tag files 64 KiB and half a KiB a name; eight names for them."""
    entries = survey_sources(find_sources(find_layout(str(node), None, {})))
    blocks = room_for(entries, 512) // 512 + 128 + len(entries) - (lacking == "bytes")
    names = len(entries) + 8 - (lacking == "inodes")
    counted = (0, 0) if lacking == "no inodes to count" else (1 << 20, names)
    # What only root may use does not count: bfree and ffree are more.
    found = (4096, 512, 1 << 30, 1 << 30, blocks, counted[0], 1 << 20, counted[1], 0, 255)
    monkeypatch.setattr(os, "fstatvfs", lambda descriptor: os.statvfs_result(found))
    begun: list[str] = []
    meter = acting("copying", lambda: begun.append("copying"))
    if lacking not in ("bytes", "inodes"):
        take(node, store, meter, onward=onward)
        return
    needed, free = f"{(blocks + 1) * 512:,} bytes", f"{blocks * 512:,} free"
    if lacking == "inodes":
        needed, free = f"{names + 1} names", f"{names} inodes free"
    elsewhere = "go elsewhere" if onward else "name another place with --to DIR"
    assert refusal(node, store, meter, onward=onward) == (
        f"{store}: expected room for {needed}, found {free}; free some, or {elsewhere}"
    )
    assert (begun, os.listdir(store)) == ([], [])


class AtTheEnd(Uncounted):
    """What counts bytes, and does something with the last of them."""

    def __init__(self, total: int, act: Callable[[], object]) -> None:
        """Take how many there are, and what to do."""
        super().__init__("", total)
        self._left = total
        self._act = act

    def advance(self, count: int) -> None:
        """Count, and do it."""
        self._left -= count
        if not self._left:
            self._act()


@needs_root
@pytest.mark.parametrize("onward", [None, ELSEWHERE], ids=["here", "onward"])
@pytest.mark.parametrize("is_copied", [False, True], ids=["copy", "tag files"])
def test_a_disk_that_gets_full_leaves_nothing(
    is_copied: bool, onward: Onward | None, node: Path, store: Path, mount: Mount
) -> None:
    mount(store, size="8m")

    def fill() -> None:
        with (
            pytest.raises(OSError, match="No space"),
            (store / "full").open("wb", buffering=0) as file,
        ):
            while True:
                file.write(bytes(1 << 20))

    def meter(doing: str, total: int) -> Uncounted:
        if is_copied:
            return AtTheEnd(total, fill)
        fill()
        return Uncounted(doing, total)

    place, expected = node / "raft/log", f"to copy it to {store}"
    if is_copied:
        place, expected = store, "to write the snapshot"
    elsewhere = "go elsewhere" if onward else "name another place with --to DIR"
    assert refusal(node, store, meter, onward=onward) == (
        f"{place}: expected {expected}, found: No space left on device; "
        f"free room there, or {elsewhere}{REMOVED}"
    )
    assert os.listdir(store) == ["full"]


# -- what is written --


def test_more_names_than_shardtool_reads_are_refused(
    node: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = (take(node, store).path / METADATA).stat().st_size
    monkeypatch.setattr(backup, "MOST_BYTES", most)
    (tmp_path / "other").mkdir()
    take(node, tmp_path / "other")
    (tmp_path / "last").mkdir()
    monkeypatch.setattr(backup, "MOST_BYTES", most - 1)
    line = refusal(node, tmp_path / "last")
    assert line == (
        f"{tmp_path}/last: expected raft and wal of some hundred files, found so many that "
        f"{METADATA} would have {most:,} bytes, more than shardtool reads; "
        f"move away what the server did not write{REMOVED}"
    )
    assert os.listdir(tmp_path / "last") == []


@pytest.mark.parametrize("name", ["data/raft/log", "data/wal/log.1", "data/config.toml"])
def test_another_byte_on_the_disk_than_was_copied_leaves_nothing(
    name: str, node: Path, store: Path, partial: Path
) -> None:
    def flip() -> None:
        content = (partial / name).read_bytes()
        (partial / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))

    line = refusal(node, store, acting("verifying", flip))
    assert line.startswith(
        f"{store}: expected to read back what was written, found {name}: its SHA-256 is "
    )
    assert line.endswith(f"; check the disk and the memory{REMOVED}")
    assert os.listdir(store) == []


def test_what_somebody_else_puts_into_it_leaves_nothing(
    node: Path, store: Path, partial: Path
) -> None:
    line = refusal(node, store, acting("copying", (partial / "more").touch))
    assert "found more: extra: a file that no manifest names; " in line
    assert os.listdir(store) == []


@needs_root
def test_what_a_link_in_it_leads_to_is_given_to_nobody(
    node: Path, store: Path, partial: Path, tmp_path: Path
) -> None:
    (tmp_path / "precious").touch()
    os.chown(node / "raft", 12345, 12345)
    os.chown(store, 12345, 12345)

    def plant() -> None:
        (partial / "link").symlink_to(tmp_path / "precious")

    assert "found link: extra: a link" in refusal(node, store, acting("copying", plant))
    assert (tmp_path / "precious").stat().st_uid == 0


@pytest.mark.parametrize("error", [KeyboardInterrupt, BusyError])
@pytest.mark.parametrize("doing", ["copying", "verifying"])
def test_of_an_interrupted_one_nothing_stays(
    doing: str, error: type[BaseException], node: Path, store: Path
) -> None:
    """Nor is anything added to what stopped it: its kind is its exit code."""

    def interrupted() -> None:
        raise error("stop")

    with pytest.raises(error) as told:
        take(node, store, acting(doing, interrupted))
    assert (type(told.value), str(told.value)) == (error, "stop")
    assert os.listdir(store) == []


@needs_root
def test_what_can_not_be_removed_of_it_is_told(
    node: Path, store: Path, partial: Path, now: str, mount: Mount
) -> None:
    try:
        line = refusal(node, store, acting("verifying", lambda: mount(partial / "data")))
    finally:
        if (store / now).exists():  # which is wrong; it is unmounted where it was mounted
            (store / now).rename(partial)
    left = f"; what was written of the snapshot could not be removed: {partial.name}/data: "
    assert "expected to read back what was written, found data/" in line
    assert left in line
    assert os.listdir(store) == [partial.name]


# -- its name --


def test_a_rename_that_fails_leaves_nothing(
    node: Path, store: Path, now: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.rename

    def failing(old: str, new: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        if new == now:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rename(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "rename", failing)
    assert refusal(node, store) == (
        f"{store}: expected to write the snapshot, found: Input/output error; "
        f"check the disk{REMOVED}"
    )
    assert os.listdir(store) == []


def test_a_directory_that_has_taken_the_place_of_ours_is_no_snapshot(
    node: Path, store: Path, partial: Path, now: str
) -> None:
    """It is another one's, and stays as it is."""

    def change_places() -> None:
        partial.rename(store / "mine")
        partial.mkdir()
        (partial / "precious").touch()

    line = refusal(node, store, acting("verifying", change_places))
    assert line == (
        f"{store / now}: expected the snapshot that was written, found: something that another "
        "process put there; see who else writes in that directory, and take another one"
    )
    assert os.listdir(store / now) == ["precious"]


def test_a_name_that_may_not_be_on_disk_is_told(
    node: Path, store: Path, now: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def failing(descriptor: int) -> None:
        if (store / now).exists():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    assert refusal(node, store) == (
        f"{store}: expected to make the name {now} durable, found: Input/output error; "
        "the snapshot stands there, verified, but may not outlive a power cut: check the disk "
        "and take another one"
    )
    assert os.listdir(store) == [now]
