"""Who has files open: real children, with real descriptors and real maps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from typing import NoReturn

import pytest

from fixtures import Node
from shardtool.datadir import inventory as inventory_module
from shardtool.datadir.holders import Holders, OpenFile, find_holders
from shardtool.datadir.inventory import take_inventory
from shardtool.datadir.layout import find_layout
from shardtool.disk.locks import Lock, LockState
from tests.conftest import REPOSITORY, Hold, Mount, Unprivileged


def found(holders: Holders) -> list[tuple[int, str]]:
    """Return pid and file name of what was found."""
    return [(file.pid, Path(file.path).name) for file in holders.files]


@pytest.mark.parametrize("how", ["open", "mapped"])
def test_a_file_that_a_child_has_open_or_mapped_is_found(
    how: str, tmp_path: Path, hold: Hold
) -> None:
    (tmp_path / "000005.ldb").write_bytes(b"x" * 5000)
    pid = hold(tmp_path / "000005.ldb", how)
    assert found(find_holders([tmp_path])) == [(pid, "000005.ldb")]


def test_a_mapped_table_has_no_descriptor(tmp_path: Path, hold: Hold) -> None:
    """Else the test above would not test what it says."""
    table = tmp_path / "000005.ldb"
    table.write_bytes(b"x" * 5000)
    pid = hold(table, "mapped")
    links = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
    assert str(table) not in links


def test_a_file_beside_the_directory_is_none_of_ours(tmp_path: Path, hold: Hold) -> None:
    for name in ("data", "data2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(b"x")
    hold(tmp_path / "data2/file", "open")
    assert found(find_holders([tmp_path / "data"])) == []


def test_our_own_files_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with (tmp_path / "file").open():
        assert found(find_holders([tmp_path])) == []


def test_a_directory_that_is_a_link_is_resolved(tmp_path: Path, hold: Hold) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("real")
    pid = hold(tmp_path / "link/file", "open")
    holders = find_holders([tmp_path / "link"])
    assert found(holders) == [(pid, "file")]
    assert holders.by_entry(tmp_path / "link") == {"file": holders.files}


@pytest.mark.parametrize("how", ["open", "mapped"])
@pytest.mark.parametrize("name", ["with space", "a\nb", "a\rb", "\udcff", "\x1b[2J", "größe"])
def test_a_file_of_any_name_is_found(how: str, name: str, tmp_path: Path, hold: Hold) -> None:
    directory = tmp_path / name
    directory.mkdir()
    (directory / "000005.ldb").write_bytes(b"x" * 5000)
    pid = hold(directory / "000005.ldb", how)
    assert [file.pid for file in find_holders([directory]).files] == [pid]


def test_files_are_told_apart_by_the_entry_that_they_lie_in() -> None:
    files = tuple(OpenFile(1, "p", f"/d/{path}") for path in ("7/a", "77/a", "7/x/b"))
    beside = OpenFile(1, "p", "/dd/7/a")
    assert Holders((*files, beside)).by_entry(Path("/d")) == {
        "7": (files[0], files[2]),
        "77": (files[1],),
    }


def test_processes_that_may_not_be_looked_into_are_counted(
    tmp_path: Path, unprivileged: Unprivileged
) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs processes of two users")
    holders: Holders = unprivileged(lambda: find_holders([tmp_path]))
    assert holders.unseen > 0


def test_a_server_that_may_not_be_looked_into_is_named(
    tmp_path: Path, unprivileged: Unprivileged
) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs processes of two users")
    program = tmp_path / "influxdb"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([program, "60"]) as server:
        try:
            deadline = time.monotonic() + 10
            while Path(f"/proc/{server.pid}/comm").read_text() != "influxdb\n":
                assert time.monotonic() < deadline
            holders: Holders = unprivileged(lambda: find_holders([tmp_path]))
        finally:
            server.kill()
    assert (server.pid, "influxdb") in holders.unseen_servers


def test_a_process_that_ends_while_it_is_looked_at_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_into = []

    def gone(path: str) -> NoReturn:
        looked_into.append(path)
        raise FileNotFoundError(2, "No such file or directory", path)

    with monkeypatch.context() as only_here:
        only_here.setattr(os, "scandir", gone)
        assert find_holders([tmp_path]) == Holders()
    assert looked_into


def test_what_strangers_have_open_costs_no_memory(tmp_path: Path, hold: Hold) -> None:
    elsewhere = tmp_path / ("a" * 200) / ("b" * 200) / "strange"
    elsewhere.parent.mkdir(parents=True)
    elsewhere.write_bytes(b"x")
    (tmp_path / "ours").mkdir()
    hold(elsewhere, "mapped often")
    find_holders([])  # what it imports is not of the strangers
    tracemalloc.start()
    try:
        assert find_holders([tmp_path / "ours"]).files == ()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20


@pytest.mark.parametrize("how", ["open", "mapped"])
def test_a_file_that_is_open_behind_a_bind_mount_is_found(
    how: str, tmp_path: Path, mount: Mount, hold: Hold
) -> None:
    """As in a container: the process knows it by another path, the inode is the same."""
    shard, other = tmp_path / "db/shard_db/00007", tmp_path / "other"
    shard.mkdir(parents=True)
    (shard / "000005.ldb").write_bytes(b"x" * 5000)
    other.mkdir()
    mount(other, source=tmp_path / "db")
    pid = hold(other / "shard_db/00007/000005.ldb", how)
    holders = find_holders([tmp_path / "db", tmp_path / "db/shard_db"])
    assert [(file.pid, file.path) for file in holders.files] == [(pid, f"{shard}/000005.ldb")]


def test_a_file_of_the_same_name_elsewhere_is_none_of_ours(tmp_path: Path, hold: Hold) -> None:
    for root in ("ours", "theirs"):
        (tmp_path / root / "00007").mkdir(parents=True)
        (tmp_path / root / "00007/000005.ldb").write_bytes(b"x")
    hold(tmp_path / "theirs/00007/000005.ldb", "open")
    assert find_holders([tmp_path / "ours"]).files == ()


_IN_A_CONTAINER = """
sleep 60 < "$1/file" &  # this shell is process 1, so that is 2, as a server is in many containers
"$2" -c 'import json, sys
from pathlib import Path
from shardtool.datadir.holders import find_holders
print(json.dumps([[f.pid, f.process] for f in find_holders([Path(sys.argv[1])]).files]))' "$1"
kill $!
"""


def test_in_a_container_process_2_is_a_process_like_any_other(tmp_path: Path) -> None:
    """Only where there is no pid namespace is 2 the parent of the kernel's own threads."""
    (tmp_path / "file").write_bytes(b"x")
    unshare = ["unshare", "--pid", "--fork", "--mount-proc"]
    done = subprocess.run(
        [*unshare, "sh", "-c", _IN_A_CONTAINER, "sh", str(tmp_path), sys.executable],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    if "unshare:" in done.stderr:
        pytest.skip(f"no pid namespaces here: {done.stderr.strip()}")
    assert json.loads(done.stdout) == [[2, "sleep"]]


def test_the_scans_own_children_are_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While children scan, each has a marker or a LOCK open for a moment: that is us."""
    node = Node(tmp_path / "data")
    with node.holding_back_raft():
        for number in range(1, 17):
            node.old_shard(number, points=1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})

    def look_slowly(name: str, *, dir_fd: int) -> LockState:
        with open(os.open("CURRENT", os.O_RDONLY, dir_fd=dir_fd)):
            time.sleep(0.1)  # as long as the scan of a shard of many files
        return LockState(Lock.FREE)

    monkeypatch.setattr(inventory_module, "look_at_lock", look_slowly)
    found_there = take_inventory(find_layout(str(node.path), None, {}))
    assert found_there.holders.files == ()
