"""Backup, list and verify, on real files with the real command."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import bagit
import pytest

from shardtool.datadir import server
from shardtool.datadir.holders import Holders
from shardtool.datadir.layout import find_layout
from shardtool.datadir.server import Search
from shardtool.disk.copy import Entry
from shardtool.disk.durable import READ_DIRECTORY, opened
from shardtool.disk.locks import exclusive
from shardtool.errors import ShardtoolError
from shardtool.snapshots import backup, copying
from shardtool.snapshots.bag import TAG_FILES, TAG_MANIFEST
from shardtool.snapshots.verify import verify
from tests.real.snapshot_world import (
    Uncounted,
    backed_up,
    command,
    damage,
    document,
    environment,
    holding_open,
    make_node,
    shardtool,
    state,
)

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def node(tmp_path: Path) -> Path:
    return make_node(tmp_path / "node")


@pytest.fixture
def snapshot(node: Path) -> Path:
    return backed_up(node)


def test_sha256sum_accepts_a_snapshot(snapshot: Path) -> None:
    for manifest in ("manifest-sha256.txt", "tagmanifest-sha256.txt"):
        subprocess.run(["sha256sum", "--strict", "-c", manifest], cwd=snapshot, check=True)


def test_the_library_of_congress_accepts_a_snapshot(snapshot: Path) -> None:
    found = bagit.Bag(str(snapshot))
    assert found.validate()
    assert found.info["External-Identifier"] == snapshot.name


def test_a_snapshot_is_private_to_its_owner(snapshot: Path) -> None:
    for path in (snapshot, *snapshot.rglob("*")):
        assert not path.stat().st_mode & 0o077, path


def test_backup_changes_nothing_of_the_node(node: Path) -> None:
    tops = [node / top for top in ("raft", "wal", "db")]
    paths = [*tops, *(path for top in tops for path in top.rglob("*"))]
    for path in paths:
        if not path.is_symlink():  # who reads a link leaves a time, whoever it is
            os.utime(path, ns=(1, path.stat().st_mtime_ns))

    def stats() -> dict[Path, tuple[int, ...]]:
        found = {path: path.lstat() for path in paths}
        return {
            p: (s.st_ino, s.st_mode, s.st_ctime_ns, s.st_atime_ns * (not stat.S_ISLNK(s.st_mode)))
            for p, s in found.items()
        }

    before = stats()
    backed_up(node)
    assert stats() == before
    assert [*tops, *(path for top in tops for path in top.rglob("*"))] == paths


def test_list_and_verify_leave_no_access_time_in_the_store(node: Path, snapshot: Path) -> None:
    paths = [snapshot.parent, *snapshot.parent.rglob("*")]
    for path in paths:
        os.utime(path, ns=(1, path.stat().st_mtime_ns))
    document("--data", node, "snapshots")
    document("--data", node, "snapshots", "verify")
    assert [path for path in paths if path.stat().st_atime_ns != 1] == []


def test_backup_tells_what_it_made(node: Path) -> None:
    made = document("--data", node, "backup")
    assert made["schema"] == "shardtool/backup/1"
    assert made["snapshot"]["files"] == 5
    assert made["snapshot"]["bytes"] == sum(
        p.stat().st_size for p in Path(made["snapshot"]["path"], "data").rglob("*") if p.is_file()
    )
    assert "same file system" in made["warnings"][0]


def test_a_running_server_is_refused_by_pid(node: Path) -> None:
    with holding_open(node / "wal" / "log.1") as pid:
        result = shardtool("--data", node, "backup")
    assert result.returncode == 4
    assert f"pid {pid} (" in result.stderr
    assert not (node / "snapshots").exists()


def test_a_locked_shard_is_a_running_server(node: Path) -> None:
    shard = node / "db" / "shard_db" / "00001"
    shard.mkdir()
    script = (
        "import fcntl, os, sys; d = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT);"
        "fcntl.lockf(d, fcntl.LOCK_EX); print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(shard / "LOCK")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        result = shardtool("--data", node, "backup")
        process.kill()
    assert result.returncode == 4
    assert f"pid {process.pid}" in result.stderr


def test_a_live_snapshot_of_a_writing_server_is_one_state(node: Path, tmp_path: Path) -> None:
    script = (
        "import os, sys, time\n"
        "files = [open(name, 'ab') for name in sys.argv[1:]]\n"
        "for n in range(400):\n"
        "    for f in files: f.write(b'%08d' % n); f.flush()\n"
        "    time.sleep(0.001)\n"
        "    if not n: print(flush=True)\n"
        "sys.stdin.read()\n"
    )
    raft, wal = node / "raft" / "written", node / "wal" / "written"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(raft), str(wal)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        made = document("--data", node, "backup", "--live")["snapshot"]
        process.kill()
    data = Path(made["path"]) / "data"
    assert made["live"]
    # The writer writes raft first: one moment's state has the same in both, or one entry more.
    lengths = [(data / top / "written").stat().st_size for top in ("raft", "wal")]
    assert lengths[0] - lengths[1] in (0, 8)
    assert shardtool("--data", node, "snapshots").stdout.splitlines()[1].endswith("live")


@pytest.mark.parametrize(
    ("live", "line"),
    [
        (True, r"wal/empty changed .*stop the server"),
        (False, r"wal/empty changed while it was copied; stop what writes there"),
    ],
)
def test_a_source_that_changes_under_every_pass_is_an_error(
    node: Path, monkeypatch: pytest.MonkeyPatch, live: bool, line: str
) -> None:
    store = node / "snapshots"
    store.mkdir()
    survey = copying.survey_sources

    def survey_and_write(sources: dict[str, Path]) -> list[Entry]:
        with (node / "wal" / "empty").open("ab") as file:
            file.write(b"x")
        return survey(sources)

    monkeypatch.setattr(copying, "_LIVE_PAUSES", (0.0, 0.0))
    monkeypatch.setattr(copying, "survey_sources", survey_and_write)
    layout = find_layout(str(node), None, {})
    with pytest.raises(ShardtoolError, match=line):
        backup.take_snapshot(layout, store, Uncounted, live=live, search=Search())
    assert os.listdir(store) == []


@pytest.mark.parametrize("missing", ["raft", "wal"])
def test_a_missing_directory_is_named(node: Path, missing: str) -> None:
    shutil.rmtree(node / missing)
    result = shardtool("--data", node, "backup")
    assert result.returncode == 1
    assert f"{node}/{missing}: expected the node's {missing} directory" in result.stderr


def test_empty_directories_are_fine(tmp_path: Path) -> None:
    for name in ("db", "raft", "wal"):
        (tmp_path / name).mkdir()
    assert bagit.Bag(str(backed_up(tmp_path))).validate()


def test_raft_may_be_a_link_and_links_inside_stay_links(node: Path, tmp_path: Path) -> None:
    (node / "raft").rename(tmp_path / "elsewhere")
    (node / "raft").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "passwd").symlink_to("/etc/passwd")
    snapshot = backed_up(node)
    assert (snapshot / "data" / "raft" / "log").read_bytes() == b"a raft log\n"
    assert not (snapshot / "data" / "raft" / "passwd").exists()
    assert '"target": "/etc/passwd"' in (snapshot / "shardtool.json").read_text()


def test_what_has_no_content_is_named_and_left_out(node: Path) -> None:
    os.mkfifo(node / "wal" / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(node / "wal" / "sock"))
        warnings = document("--data", node, "backup")["warnings"]
    assert any("wal/fifo is a fifo" in text for text in warnings)
    assert any("wal/sock is a socket" in text for text in warnings)


def test_a_name_with_an_escape_sequence_is_copied_and_not_obeyed(node: Path) -> None:
    (node / "raft" / "\x1b[31mred").write_bytes(b"1")
    os.mkfifo(node / "raft" / "\x1b[31mfifo")
    result = shardtool("--data", node, "backup")
    assert result.returncode == 0
    assert "\x1b" not in result.stdout + result.stderr
    (made,) = (node / "snapshots").iterdir()
    subprocess.run(["sha256sum", "--strict", "-c", "manifest-sha256.txt"], cwd=made, check=True)
    assert bagit.Bag(str(made)).validate()


@pytest.mark.parametrize("name", [b"a\nb", b"\xff", b"a ", b"%0A", "a\u2028".encode()])
def test_a_name_that_no_manifest_carries_is_refused(node: Path, name: bytes) -> None:
    (node / "raft" / os.fsdecode(name)).write_bytes(b"1")
    result = shardtool("--data", node, "backup")
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert "expected a name that a manifest can carry" in result.stderr
    assert os.listdir(node / "snapshots") == []


@pytest.mark.parametrize("place", ["raft/s", "wal", "db/shard_db/s", "db/.shardtool/s"])
def test_a_store_inside_what_it_holds_is_refused(node: Path, place: str) -> None:
    before = state(node)
    result = shardtool("--data", node, "backup", "--to", node / place)
    assert result.returncode == 1
    assert "found one inside" in result.stderr
    assert state(node) == before


def test_two_backups_at_once_are_one(node: Path) -> None:
    with exclusive(node / "db", purpose="data directory"):
        result = shardtool("--data", node, "backup")
    assert result.returncode == 4
    assert f"pid {os.getpid()}" in result.stderr


def test_two_nodes_do_not_write_to_one_store_at_once(node: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    with exclusive(store, purpose="snapshot directory"):
        assert shardtool("--data", node, "backup", "--to", store).returncode == 4


def test_what_a_killed_backup_left_is_removed_by_the_next(node: Path) -> None:
    leftover = node / "snapshots" / ".partial-20260101T000000Z"
    (leftover / "data" / "raft").mkdir(parents=True)
    listed = document("--data", node, "snapshots")
    assert listed["others"] == [{"name": leftover.name, "what": "unfinished backup"}]
    backed_up(node)
    assert not leftover.exists()


def test_a_backup_that_is_killed_leaves_nothing_that_looks_whole(node: Path) -> None:
    (node / "wal" / "large").write_bytes(bytes(64 << 20))
    with subprocess.Popen(command("--data", node, "backup"), env=environment()) as process:
        deadline = time.monotonic() + 20
        while not list((node / "snapshots").glob(".partial-*")) and time.monotonic() < deadline:
            time.sleep(0.002)
        process.kill()
    assert document("--data", node, "snapshots")["snapshots"] == []
    backed_up(node)
    assert len(os.listdir(node / "snapshots")) == 1


def test_a_changed_a_missing_and_an_extra_file_are_found(node: Path, snapshot: Path) -> None:
    with (snapshot / "data" / "wal" / "log.1").open("r+b") as file:
        file.write(b"\xff")
    (snapshot / "data" / "raft" / "name").unlink()
    (snapshot / "data" / "raft" / "more").write_bytes(b"")
    result = document("--data", node, "snapshots", "verify")["snapshots"][0]
    problems = {problem["path"]: problem["what"] for problem in result["problems"]}
    assert problems.keys() == {"data/wal/log.1", "data/raft/name", "data/raft/more"}
    assert problems["data/raft/name"] == "missing"
    assert problems["data/raft/more"].startswith("extra")
    assert problems["data/wal/log.1"].startswith("its SHA-256 is")


@pytest.mark.slow
@pytest.mark.parametrize("name", [*TAG_FILES, TAG_MANIFEST])
@pytest.mark.parametrize("harm", ["cut", "gone", "flipped"])
def test_harm_to_any_of_a_snapshots_own_files_is_found(
    snapshot: Path, name: str, harm: str
) -> None:
    path = snapshot / name
    content = path.read_bytes()
    path.unlink()
    if harm != "gone":
        flipped = content[:9] + bytes([content[9] ^ 1]) + content[10:]
        path.write_bytes(content[:-5] if harm == "cut" else flipped)
    with opened(snapshot.parent, READ_DIRECTORY) as store:
        result = verify(store, snapshot.name, Uncounted)
    assert not result.good
    assert any(name in f"{problem.path}: {problem.what}" for problem in result.problems)


def test_an_unknown_snapshot_is_an_error(node: Path, snapshot: Path) -> None:
    result = shardtool("--data", node, "snapshots", "verify", "20200101T000000Z")
    assert (result.returncode, len(result.stderr.splitlines())) == (1, 1)


def test_a_list_shows_damaged_metadata_as_damaged(node: Path, snapshot: Path) -> None:
    (snapshot / "shardtool.json").write_bytes(b"[" * 100_000)
    result = shardtool("--data", node, "snapshots")
    assert result.returncode == 3
    assert "damaged" in result.stdout


def test_a_node_without_a_backup_has_no_snapshots(node: Path) -> None:
    result = shardtool("--data", node, "snapshots")
    assert (result.returncode, result.stderr) == (0, "")
    assert not (node / "snapshots").exists()


def test_a_store_is_verified_where_there_is_no_node(node: Path, tmp_path: Path) -> None:
    backed_up(node, "--to", tmp_path / "store")
    result = shardtool("snapshots", "verify", "--store", tmp_path / "store")
    assert (result.returncode, result.stderr) == (0, "")


@ROOT_ONLY
def test_owners_are_recorded_by_number_and_by_name(node: Path) -> None:
    os.chown(node / "raft" / "log", 2, 12345)
    text = (backed_up(node) / "shardtool.json").read_text()
    assert '"uid": 2, "gid": 12345' in text
    assert '"2": "bin"' in text


def test_damage_to_the_node_does_not_reach_its_snapshot(node: Path, snapshot: Path) -> None:
    damage(node)
    assert shardtool("--data", node, "snapshots", "verify").returncode == 0


def test_an_empty_name_is_wrong_usage(node: Path) -> None:
    for words in (("backup", "--to", ""), ("backup", "--store", ""), ("snapshots", "--store", "")):
        assert shardtool("--data", node, *words).returncode == 2


def test_a_file_of_a_wrong_length_is_not_read(node: Path, snapshot: Path) -> None:
    os.truncate(snapshot / "data" / "wal" / "log.1", 3 << 40)
    problems = document("--data", node, "snapshots", "verify")["snapshots"][0]["problems"]
    assert [problem["path"] for problem in problems] == ["data/wal/log.1"]
    assert problems[0]["what"].startswith(f"has {3 << 40} bytes")


def test_what_stands_in_a_directorys_place_is_told_before_what_it_hides(
    node: Path, snapshot: Path
) -> None:
    shutil.rmtree(snapshot / "data" / "raft")
    (snapshot / "data" / "raft").symlink_to("/")
    problems = document("--data", node, "snapshots", "verify")["snapshots"][0]["problems"]
    assert problems[0] == {"path": "data/raft", "what": "is a link, expected a directory"}


def test_a_server_that_could_not_be_ruled_out_is_told(
    node: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "find_holders", lambda places: Holders(unseen=3))
    layout = find_layout(str(node), None, {})
    search = server.find_server(layout)
    assert (search.server, search.unseen) == (None, 3)
    (node / "snapshots").mkdir()
    made = backup.take_snapshot(layout, node / "snapshots", Uncounted, live=False, search=search)
    assert any("3 processes could not be looked into" in text for text in made.warnings)
    assert '"unseen_processes": 3' in (made.path / "shardtool.json").read_text()


@pytest.mark.parametrize(
    ("name", "is_server"),
    [
        ("journal", False),
        ("proofs/00001.json", False),
        ("trash/00001.20261124T175153Z-4711/000005.ldb", True),
    ],
)
def test_who_has_shardtools_own_files_open_is_no_server_but_for_a_shard_in_the_trash(
    name: str, is_server: bool, node: Path
) -> None:
    layout = find_layout(str(node), None, {})
    path = layout.own / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    with subprocess.Popen(
        [sys.executable, "-c", "import sys; f = open(sys.argv[1]); print(); input()", path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        look = "from shardtool.datadir import layout, server; import sys; "
        look += "found = server.find_server(layout.find_layout(sys.argv[1], None, {})); "
        look += "print(found.server is not None)"
        said = subprocess.check_output([sys.executable, "-c", look, node], text=True)
        holder.communicate(b"\n")
    assert said.split() == [str(is_server)]


def test_the_commands_that_are_printed_can_be_pasted(node: Path, tmp_path: Path) -> None:
    store = tmp_path / "a $HOME b"
    text = shardtool("--data", node, "backup", "--to", store).stdout
    (line,) = (line for line in text.splitlines() if line.startswith("by hand"))
    subprocess.run(["sh", "-ec", line.removeprefix("by hand")], check=True)


@ROOT_ONLY
@pytest.mark.parametrize("store_owner", [12345, 0])
def test_the_servers_user_gets_a_snapshot_of_root_in_a_store_of_its_own(
    node: Path, tmp_path: Path, store_owner: int
) -> None:
    os.chown(node / "raft", 12345, 12345)
    store = tmp_path / "store"
    store.mkdir()
    os.chown(store, store_owner, store_owner)
    snapshot = backed_up(node, "--to", store)
    owners = {path.lstat().st_uid for path in (snapshot, *snapshot.rglob("*"))}
    assert owners == {store_owner}
