"""Full disks, kills at every rename, hostile stores: what is left is whole, and is finished."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shardtool.snapshots.store import list_store
from tests.faults.compiled import injector
from tests.faults.injection import befalling
from tests.needs import lacking
from tests.real.snapshot_world import backed_up, damage, document, make_node, shardtool, state

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
NEEDS_STRACE = pytest.mark.usefixtures("strace")

# A restore's renames: its pending file, raft and wal aside, raft and wal into place.
RENAMES = 5


@pytest.fixture
def node(tmp_path: Path) -> Path:
    return make_node(tmp_path / "node")


@contextmanager
def mounted(place: Path, *options: str) -> Iterator[Path]:
    """Mount a small file system of its own at `place`."""
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", *options, "none", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


@contextmanager
def as_user(uid: int, place: Path) -> Iterator[None]:
    """Be another user in the working directory `place`, whatever is above it."""
    was = Path.cwd()
    os.chdir(place)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.chdir(was)


def killed_at(calls: str, number: int, seen: Path, *places: Path) -> list[str]:
    """Return the words in front of a command that kill it at the n-th of its system calls, of
    those that have to do with a place if one is given."""
    return [str(injector()), *map(str, befalling(calls, number, "KILL", seen, places))]


def traced(call: str, log: Path) -> list[str]:
    """Return the words in front of a command that let strace see a system call of it."""
    return ["strace", "-f", "-qq", "-o", str(log), "-e", f"trace={call}"]


@ROOT_ONLY
def test_a_store_without_room_is_refused_before_the_copy(node: Path, tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "-o", "size=1m") as small:
        result = shardtool("--data", node, "backup", "--to", small)
        assert result.returncode == 1
        assert "expected room for" in result.stderr
        assert "found 1,048,576 free" in result.stderr
        assert os.listdir(small) == []


def test_a_disk_that_fills_up_in_the_middle_leaves_nothing(node: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    # A limit on a file's size is the nearest to a full disk that needs no root: EFBIG.
    limited = ["prlimit", f"--fsize={1 << 20}"]
    if shutil.which("prlimit") is None:
        lacking("prlimit")
    result = shardtool("--data", node, "backup", "--to", store, prefix=limited)
    assert result.returncode == 1
    assert "wal/log.1: expected to copy it to" in result.stderr
    assert os.listdir(store) == []


@NEEDS_STRACE
def test_no_space_left_in_the_middle_leaves_nothing(node: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    full = [*traced("fsync", tmp_path / "log"), "-e", "inject=fsync:error=ENOSPC:when=6"]
    result = shardtool("--data", node, "backup", "--to", store, prefix=full)
    assert result.returncode == 1
    assert "No space left on device" in result.stderr
    assert os.listdir(store) == []


@ROOT_ONLY
def test_a_read_only_store_is_one_clear_line(node: Path, tmp_path: Path) -> None:
    with mounted(tmp_path / "store", "-o", "ro") as store:
        result = shardtool("--data", node, "backup", "--to", store)
        assert result.returncode == 1
        assert result.stderr.count("\n") == 1
        assert "Read-only file system" in result.stderr


@ROOT_ONLY
def test_a_read_only_store_can_be_verified_and_restored_from(node: Path, tmp_path: Path) -> None:
    with mounted(tmp_path / "store") as store:
        backed_up(node, "--to", store)
        before = state(node)
        damage(node)
        subprocess.run(["mount", "-o", "remount,ro", store], check=True)
        assert shardtool("snapshots", "verify", "--store", store).returncode == 0
        result = shardtool("--data", node, "restore", "--yes", "--store", store)
        assert result.returncode == 0
        assert state(node) == before


@pytest.mark.slow
@NEEDS_STRACE
@pytest.mark.parametrize("number", range(1, RENAMES + 1))
def test_a_kill_at_any_rename_of_a_restore_is_finished_by_the_next(
    node: Path, tmp_path: Path, number: int
) -> None:
    before = state(node)
    snapshot = backed_up(node)
    damage(node)
    damaged = state(node)
    renames = "rename,renameat,renameat2"
    prefix = killed_at(renames, number, tmp_path / "log")
    result = shardtool("--data", node, "restore", "--yes", prefix=prefix)
    assert result.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL)
    assert snapshot.exists()
    if number > 1:
        assert f"{node}/raft.before-restore-" in result.stderr
        refused = shardtool("--data", node, "backup")
        assert (refused.returncode, "restore finishes it" in refused.stderr) == (1, True)

    done = document("--data", node, "restore", "--yes")

    assert done["finished_earlier"] == (number > 1)
    assert state(node) == before
    assert not (node / "db" / ".shardtool" / "restore.json").exists()
    assert not list(node.glob("*.restoring-*"))
    for path in map(Path, done["set_aside"]):
        shutil.rmtree(node / path.name.partition(".")[0])
        path.rename(node / path.name.partition(".")[0])
    assert state(node) == damaged


@NEEDS_STRACE
def test_a_kill_after_the_swap_is_finished_by_the_next(node: Path, tmp_path: Path) -> None:
    before = state(node)
    backed_up(node)
    damage(node)
    # The first unlink is of an old temporary pending file, the second of the pending file.
    prefix = killed_at("unlinkat", 2, tmp_path / "log", node / "db/.shardtool")
    shardtool("--data", node, "restore", "--yes", prefix=prefix)
    assert (node / "db" / ".shardtool" / "restore.json").exists()
    result = shardtool("--data", node, "restore", "--yes")
    assert result.returncode == 0
    assert "were in place already; run restore again to put the snapshot there anew" in (
        result.stdout
    )
    assert state(node) == before


@NEEDS_STRACE
def test_what_a_server_made_in_a_half_restored_directory_is_set_aside(
    node: Path, tmp_path: Path
) -> None:
    before = state(node)
    backed_up(node)
    killed_restore(node, tmp_path, 5)  # raft is in place, wal is not
    (node / "wal").mkdir()
    (node / "wal" / "new").write_bytes(b"points")
    assert shardtool("--data", node, "restore", "--yes").returncode == 0
    assert state(node) == before
    (aside,) = node.glob("wal.before-restore-*-2")
    assert (aside / "new").read_bytes() == b"points"


def killed_restore(node: Path, tmp_path: Path, number: int) -> None:
    """Restore, and be killed at the n-th rename: pending file, raft, wal aside, raft, wal."""
    renames = "rename,renameat,renameat2"
    prefix = killed_at(renames, number, tmp_path / "log")
    shardtool("--data", node, "restore", "--yes", prefix=prefix)


@pytest.mark.slow
@NEEDS_STRACE
@pytest.mark.parametrize("number", range(2, RENAMES + 1))
@pytest.mark.parametrize("remade", [False, True])
def test_a_restore_whose_staged_set_is_lost_does_not_claim_success(
    node: Path, tmp_path: Path, number: int, remade: bool
) -> None:
    before = state(node)
    snapshot = backed_up(node)
    damage(node)
    damaged = state(node)
    killed_restore(node, tmp_path, number)
    for staged in node.glob("*.restoring-*"):
        shutil.rmtree(staged)
    if remade:  # as a server does that is started there; it may get the inode of what is gone
        for name in ("raft", "wal"):
            (node / name).mkdir(exist_ok=True)

    result = shardtool("--data", node, "restore", "--yes")

    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert "gone or changed" in result.stderr
    assert (node / "db" / ".shardtool" / "restore.json").exists()

    by_hand = result.stderr.strip().partition("go back by hand: ")[2]
    shutil.copytree(node, tmp_path / "copy", symlinks=True)
    subprocess.run(["sh", "-ec", by_hand], check=True)
    assert state(node) == damaged
    assert not (node / "db" / ".shardtool" / "restore.json").exists()

    shutil.rmtree(node)
    shutil.copytree(tmp_path / "copy", node, symlinks=True)
    done = document("--data", node, "restore", snapshot.name, "--yes")
    assert not done["finished_earlier"]
    assert state(node) == before
    assert all(Path(path).is_dir() for path in done["set_aside"])
    assert {Path(path).name.partition(".")[0] for path in done["set_aside"]} == {"raft", "wal"}
    assert shardtool("--data", node, "backup").returncode == 0


@NEEDS_STRACE
def test_the_way_back_takes_away_what_was_put_where_nothing_was(node: Path, tmp_path: Path) -> None:
    backed_up(node)
    for name in ("raft", "wal"):
        shutil.rmtree(node / name)
    killed_restore(node, tmp_path, 3)  # raft is in place, nothing was set aside
    assert (node / "raft").exists()
    (staged,) = node.glob("wal.restoring-*")
    shutil.rmtree(staged)
    result = shardtool("--data", node, "restore", "--yes")
    assert "wal is missing" in result.stderr
    by_hand = result.stderr.strip().partition("go back by hand: ")[2]
    subprocess.run(["sh", "-ec", by_hand], check=True)
    assert not (node / "raft").exists()
    assert (node / "raft.half-restored" / "log").exists()


@NEEDS_STRACE
def test_a_node_that_was_moved_is_finished_where_it_is_now(node: Path, tmp_path: Path) -> None:
    before = state(node)
    backed_up(node)
    damage(node)
    killed_restore(node, tmp_path, 4)
    moved = node.rename(tmp_path / "moved")
    assert document("--data", moved, "restore", "--yes")["finished_earlier"]
    assert state(moved) == before


@NEEDS_STRACE
def test_while_a_lost_restore_is_not_replaced_it_stays_pending(node: Path, tmp_path: Path) -> None:
    snapshot = backed_up(node)
    killed_restore(node, tmp_path, 5)
    for staged in node.glob("*.restoring-*"):
        shutil.rmtree(staged)
    (snapshot / "data" / "raft" / "log").write_bytes(b"A raft log\n")
    assert shardtool("--data", node, "restore", snapshot.name, "--yes").returncode == 1
    assert "shardtool restore finishes it" in shardtool("--data", node, "backup").stderr


@pytest.mark.slow
@NEEDS_STRACE
@pytest.mark.parametrize(("already", "fails"), [(4, 1), (2, 1), (2, 2), (2, 3), (2, 4)])
def test_a_restore_that_no_rename_can_finish_says_how_to_go_back(
    node: Path, tmp_path: Path, already: int, fails: int
) -> None:
    backed_up(node)
    damage(node)
    damaged = state(node)
    killed_restore(node, tmp_path, already)
    inject = f"inject=renameat:error=EBUSY:when={fails}"
    busy = [*traced("renameat", tmp_path / "log"), "-e", inject]
    result = shardtool("--data", node, "restore", "--yes", prefix=busy)
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert "Device or resource busy" in result.stderr
    by_hand = result.stderr.strip().partition("go back by hand: ")[2]
    subprocess.run(["sh", "-ec", by_hand], check=True)
    assert state(node) == damaged


@NEEDS_STRACE
def test_another_nodes_pending_restore_beside_this_one_is_left_alone(tmp_path: Path) -> None:
    nodes = []
    for name in ("a", "b"):
        node = make_node(tmp_path / name)
        for top in ("raft", "wal"):
            (node / top).rename(tmp_path / f"{top}-{name}")
            (node / top).symlink_to(tmp_path / f"{top}-{name}")
        backed_up(node, "--to", tmp_path / f"store-{name}")
        nodes.append(node)
    prefix = killed_at("rename,renameat,renameat2", 2, tmp_path / "log")
    one, other = nodes
    shardtool("--data", one, "restore", "--yes", "--store", tmp_path / "store-a", prefix=prefix)
    staged = sorted(tmp_path.glob("*.restoring-*"))
    assert len(staged) == 2
    words = ("restore", "--yes", "--store", tmp_path / "store-b")
    assert shardtool("--data", other, *words).returncode == 0
    assert sorted(tmp_path.glob("*.restoring-*")) == staged
    assert document("--data", one, "restore", "--yes")["finished_earlier"]


@pytest.mark.slow
@NEEDS_STRACE
@pytest.mark.parametrize("call", ["mkdirat", "symlinkat", "renameat", "fsync"])
def test_a_killed_restore_elsewhere_is_redone_by_the_same_command(
    node: Path, tmp_path: Path, call: str
) -> None:
    before = state(node)
    snapshot = backed_up(node)
    target = tmp_path / "target"
    words = ("--data", node, "restore", snapshot.name, "--to", target)
    first = shardtool(*words, prefix=killed_at(call, 1, tmp_path / "log"))
    assert first.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL)
    assert not target.exists()
    assert shardtool(*words).returncode == 0
    assert state(target) == before
    assert not list(tmp_path.glob("*.restoring-*"))


def test_a_pending_file_that_nobody_wrote_is_one_clear_line(node: Path) -> None:
    backed_up(node)
    (node / "db" / ".shardtool").mkdir()
    (node / "db" / ".shardtool" / "restore.json").write_text('{"stamp": "../../etc"}')
    for words in (("backup",), ("restore", "--yes")):
        result = shardtool("--data", node, *words)
        assert (result.returncode, result.stderr.count("\n")) == (1, 1)


@NEEDS_STRACE
def test_a_killed_forget_leaves_whole_snapshots_and_is_finished(node: Path, tmp_path: Path) -> None:
    old, new = backed_up(node), backed_up(node)
    prefix = killed_at("unlinkat", 2, tmp_path / "log")
    shardtool("--data", node, "forget", "--keep-last", "1", prefix=prefix)
    assert not old.exists()
    assert os.listdir(node / "snapshots") != [new.name]
    assert shardtool("--data", node, "forget", "--keep-last", "1").returncode == 0
    assert os.listdir(node / "snapshots") == [new.name]


def test_a_hostile_store_is_told_as_what_it_is(node: Path, tmp_path: Path) -> None:
    snapshot = backed_up(node)
    store = snapshot.parent
    (store / "20200101T000000Z").symlink_to("/")
    (store / "\x1b[31mname\n").mkdir()
    (store / "20200102T000000Z").mkdir()
    with (store / "20200102T000000Z" / "shardtool.json").open("wb") as huge:
        huge.truncate(1 << 40)
    (store / "20200103T000000Z").mkdir()
    os.mkfifo(store / "20200103T000000Z" / "shardtool.json")
    result = shardtool("--data", node, "snapshots")
    assert result.returncode == 3
    assert "\x1b" not in result.stdout
    assert "20200101T000000Z: a link or a file" in result.stdout
    assert "more than 32 MiB" in result.stdout
    assert "no regular file" in result.stdout


def test_a_link_in_a_snapshot_is_not_followed(node: Path, tmp_path: Path) -> None:
    snapshot = backed_up(node)
    shutil.move(snapshot / "data" / "raft", tmp_path / "elsewhere")
    (snapshot / "data" / "raft").symlink_to(tmp_path / "elsewhere")
    result = shardtool("--data", node, "snapshots", "verify")
    assert result.returncode == 3
    assert "data/raft: is a link, expected a directory" in result.stdout


@ROOT_ONLY
def test_a_snapshot_that_may_not_be_opened_is_never_fine(node: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    good, closed = backed_up(node, "--to", store), backed_up(node, "--to", store)
    for path in (good, *good.rglob("*"), store):
        os.chown(path, 12345, 12345)
    tmp_path.chmod(0o711)
    with as_user(12345, tmp_path):
        listing = list_store(Path("store"))
    assert [bool(snapshot.problem) for snapshot in listing.snapshots] == [False, True]
    assert listing.snapshots[1].id == closed.name
    assert listing.snapshots[1].problem == "unreadable: Permission denied"
    result = document("--data", node, "snapshots", "verify", "--store", store)
    assert [found["good"] for found in result["snapshots"]] == [True, True]


@NEEDS_STRACE
def test_a_snapshot_whose_name_could_not_be_synced_is_said_to_stand(
    node: Path, tmp_path: Path
) -> None:
    backed_up(node)
    log = tmp_path / "log"
    shardtool("--data", node, "backup", prefix=traced("fsync,rename,renameat,renameat2", log))
    calls = [line for line in log.read_text().splitlines() if "fsync(" in line or "rename" in line]
    naming = max(number for number, line in enumerate(calls) if "rename" in line)
    syncs = sum("fsync(" in line for line in calls[:naming])
    before = set(os.listdir(node / "snapshots"))
    bad = [*traced("fsync", log), "-e", f"inject=fsync:error=EIO:when={syncs + 1}"]
    result = shardtool("--data", node, "backup", prefix=bad)
    (made,) = set(os.listdir(node / "snapshots")) - before
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert f"to make the name {made} durable" in result.stderr
    assert "the snapshot stands there" in result.stderr


@NEEDS_STRACE
def test_what_of_a_failed_backup_could_not_be_removed_is_told(node: Path, tmp_path: Path) -> None:
    bad = [*traced("fsync,unlinkat", tmp_path / "log"), "-e", "inject=fsync:error=EIO:when=6"]
    bad += ["-e", "inject=unlinkat:error=EIO"]
    result = shardtool("--data", node, "backup", prefix=bad)
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert "what was written of the snapshot could not be removed: .partial-" in result.stderr
