"""What is no shard, and what others do while the inventory is taken."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fixtures import MARKED_AT, Node
from shardtool.datadir.inventory import scan_old_shard
from shardtool.datadir.verdict import judge_all
from tests.conftest import Hold, Mount, Unprivileged
from tests.real.inventory.world import inventory, judged, scan, verdicts


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
