"""Hostile trees under every command: no crash, no escape code, nothing outside touched.

What is wrong with one shard hides no other: shard 2 is sound in each of these directories, and
is deleted wherever shards can be deleted at all.
"""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fixtures import Node
from tests.conftest import COMMAND, REPOSITORY, Listing, Mount, Run
from tests.e2e.proof_world import document, events, in_trash, kept, old_shards
from tests.needs import lacking, needs_root

LOOKING = [
    ("status",),
    ("status", "--json"),
    ("check",),
    ("history",),
    ("snapshots",),
    ("snapshots", "verify"),
    ("prune", "--dry-run"),
    ("verify",),
]
CHANGING = [
    ("backup", "-q"),
    ("export", "--to", "OUT", "--force", "-q"),
    ("prune", "--trust", "marker", "--yes"),
    ("forget", "--keep-last", "1"),
    ("restore", "--yes"),
]
PRUNE = ("prune", "--trust", "marker", "--yes", "--json")
SHARD = "db/shard_db/00001"

List = Callable[[Path], Listing]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """A node whose two shards are marked and whole in the new storage."""
    made = Node(tmp_path / "data", version="0.8")
    for number in (1, 2):
        made.old_shard(number, points=4, databases={"test": ("cpu",)})
        made.migrate(number)
    yield made
    # Of a tree 1,000 deep Python's rmtree, and so pytest, runs out of its stack.
    subprocess.run(["rm", "-rf", "--one-file-system", made.path], check=False)


def every_command(run: Run, data: Path, out: Path, commands: list[tuple[str, ...]]) -> None:
    """Run commands, and assert of each what holds for all of them on any tree."""
    for words in commands:
        done = run("--data", data, *(str(out) if word == "OUT" else word for word in words))
        assert done.returncode in (0, 1, 3), (words, done.returncode, done.stderr)
        assert "Traceback" not in done.stderr, (words, done.stderr)
        assert "mistake in shardtool" not in done.stderr, (words, done.stderr)
        assert done.returncode != 1 or done.stderr, words
        for text in (done.stdout, done.stderr):
            assert "\x1b" not in text, words
            assert "\r" not in text, words


# -- links --

# Each level of a node at which 0.8 or shardtool has a name. db, shard_db, shard_db_v2, raft and
# wal may be links (an operator's, to another disk), and are followed: they are not here.
LEVELS = [
    SHARD,
    f"{SHARD}/CURRENT",
    f"{SHARD}/MIGRATED",
    f"{SHARD}/000003.log",
    f"{SHARD}/LOCK",
    "db/shard_db_v2/00001",
    "db/shard_db_v2/00001/type",
    "db/shard_db_v2/00001/000003.log",
    "raft/log",
    "raft/snapshot",
    "wal/log.1",
    "config.toml",
    "db/.shardtool",
    "db/.shardtool/journal",
    "db/.shardtool/proofs",
    "db/.shardtool/proofs/00001.json",
    "db/.shardtool/trash",
    "snapshots/SNAPSHOT",
    "snapshots/SNAPSHOT/data",
    "snapshots/SNAPSHOT/data/raft/log",
    "snapshots/SNAPSHOT/shardtool.json",
]


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
def test_a_link_at_any_level_leads_no_command_outside(
    level: str, node: Node, shardtool: Run, listing: List, tmp_path: Path
) -> None:
    for words in (("verify", "-q"), ("backup", "-q"), ("backup", "-q")):
        assert shardtool("--data", node.path, *words).returncode == 0
    (node.db / ".shardtool/trash").mkdir()
    (node.db / ".shardtool/journal").touch()
    snapshot = sorted(os.listdir(node.path / "snapshots"))[0]
    place, outside = node.path / level.replace("SNAPSHOT", snapshot), tmp_path / "outside"
    outside.mkdir()
    (outside / "beside").write_bytes(b"somebody's")
    place.rename(outside / "there")
    place.symlink_to(outside / "there")
    before = listing(outside)
    every_command(shardtool, node.path, tmp_path / "x.lp", LOOKING)
    assert listing(outside) == before
    every_command(shardtool, node.path, tmp_path / "x.lp", CHANGING)
    # A link that the server's own owner has in raft or wal is restored as a link.
    assert listing(outside) == before
    if ".shardtool" not in level or "proofs" in level:
        assert "00002" not in old_shards(node.path)


# -- what is no file of a shard --


def _socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's path may have 108 bytes
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def _device(path: Path, kind: int) -> None:
    try:
        os.mknod(path, kind | 0o644, os.makedev(1, 3) if kind == stat.S_IFCHR else os.makedev(7, 0))
    except PermissionError:
        lacking("the right to make device files")


def _deep(path: Path, levels: int = 1000) -> None:
    path.mkdir()
    at = os.open(path, os.O_DIRECTORY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=at)
        below = os.open("d", os.O_DIRECTORY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


ODD: dict[str, Callable[[Path], Any]] = {
    "a FIFO": lambda shard: os.mkfifo(shard / "000009.ldb"),
    "a socket": lambda shard: _socket(shard / "000009.ldb"),
    "a character device": lambda shard: _device(shard / "000009.ldb", stat.S_IFCHR),
    "a block device": lambda shard: _device(shard / "000009.ldb", stat.S_IFBLK),
    "a name of 255 bytes": lambda shard: (shard / ("x" * 255)).touch(),
    "a name that is not UTF-8": lambda shard: Path(
        os.fsdecode(bytes(shard) + b"/\xff\xfe")
    ).touch(),
    "a name with newlines": lambda shard: (shard / "a\nshardtool: all is well\n").touch(),
    "a name with escape codes": lambda shard: (shard / "\x1b[2J\x1b]0;title\x07\r").touch(),
    "a name that is an option": lambda shard: (shard / "--yes").touch(),
    "a tree 1,000 deep": lambda shard: _deep(shard / "deep"),
    "a sparse table of 2^40 bytes": lambda shard: _sparse(shard / "000009.ldb"),
    "a link to itself": lambda shard: (shard / "000009.ldb").symlink_to("000009.ldb"),
    "a directory like a table": lambda shard: (shard / "000009.ldb").mkdir(),
}


@pytest.mark.slow
@pytest.mark.parametrize("where", [SHARD, "db/shard_db db/shard_db_v2/00001", "raft wal"])
@pytest.mark.parametrize("kind", ODD)
def test_no_command_stumbles_over(
    kind: str, where: str, node: Node, shardtool: Run, tmp_path: Path
) -> None:
    for place in where.split():
        ODD[kind](node.path / place)
    every_command(shardtool, node.path, tmp_path / "x.lp", LOOKING)
    if "raft" in where and kind == "a sparse table of 2^40 bytes":
        commands = [words for words in CHANGING if words[0] != "backup"]  # it has no room for it
    else:
        commands = CHANGING
    every_command(shardtool, node.path, tmp_path / "x.lp", commands)
    assert "00002" not in old_shards(node.path)


@pytest.mark.parametrize("kind", ODD)
def test_prune_leaves_a_shard_alone_that_holds(kind: str, node: Node, shardtool: Run) -> None:
    shard = node.path / SHARD
    ODD[kind](shard)
    done = shardtool("--data", node.path, *PRUNE)
    found = document(done)
    if kind == "a sparse table of 2^40 bytes":
        # Written after the marker, and as large as it likes: nobody has read it.
        assert kept(found) == {"00001": ["written-after-marker"]}
    assert found["deleted"] == ["00002"]
    assert (done.returncode, old_shards(node.path)) == (3, ["00001"])


def begun(node: Node, run: Run) -> Path:
    """Leave an empty shard in the trash whose removal was begun; return it."""
    done = run("--data", node.path, *PRUNE, "1")
    assert document(done)["deleted"] == ["00001"]
    # As a kill leaves it that came right after the rename.
    (intent,) = events(node.path, "intent")
    left = node.db / ".shardtool/trash" / str(intent["trash"])
    left.mkdir()
    journal = node.db / ".shardtool/journal"
    journal.write_text(
        "".join(
            line.replace(f'"inode": {intent["inode"]}', f'"inode": {left.stat().st_ino}') + "\n"
            for line in journal.read_text().splitlines()
            if '"deleted"' not in line
        )
    )
    return left


@pytest.mark.slow
@pytest.mark.parametrize("kind", ODD)
def test_a_removal_that_was_begun_ends_whatever_somebody_put_there(
    kind: str, node: Node, shardtool: Run, listing: List, tmp_path: Path
) -> None:
    left = begun(node, shardtool)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"somebody's")
    os.link(outside / "file", left / "hard link")
    (left / "link").symlink_to(outside)
    ODD[kind](left)
    before = listing(outside)
    done = shardtool("--data", node.path, *PRUNE)
    assert document(done)["finished"] == ["00001"], done.stderr
    assert (done.returncode, in_trash(node.path), old_shards(node.path)) == (0, [], [])
    assert listing(outside) == before


# -- hard links, mounts, immutable files --


def test_what_has_a_name_outside_stays_there_to_the_byte(
    node: Node, shardtool: Run, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    for file in (node.path / SHARD).iterdir():
        os.link(file, outside / file.name)
    names = sorted(os.listdir(outside))
    before = {name: (outside / name).stat() for name in names}
    content = {name: (outside / name).read_bytes() for name in names}
    planned = document(shardtool("--data", node.path, "prune", "--dry-run", "--json", "1"))
    found = document(shardtool("--data", node.path, "prune", "--yes", "--json", "1"))
    assert found["deleted"] == ["00001"]
    # Of the files nothing comes back, as it was said before.
    size = (node.path / "db/shard_db/00002").stat().st_blocks * 512
    assert planned["reclaimable_bytes"] == found["freed_bytes"] == size
    assert {name: (outside / name).read_bytes() for name in names} == content
    for name in names:
        now = (outside / name).stat()
        assert (now.st_mode, now.st_uid, now.st_mtime_ns, now.st_ino) == (
            before[name].st_mode,
            before[name].st_uid,
            before[name].st_mtime_ns,
            before[name].st_ino,
        )


@pytest.mark.slow
@pytest.mark.parametrize("what", ["a directory", "a file"])
def test_what_is_mounted_inside_a_shard_stays_with_all_that_is_in_it(
    what: str, node: Node, mount: Mount, shardtool: Run, listing: List, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"somebody's")
    shard = node.path / SHARD
    if what == "a directory":
        (shard / "in").mkdir()
        mount(shard / "in", source=outside)
    else:
        mount(shard / "LOG", source=outside / "file")
    before = listing(outside)
    done = shardtool("--data", node.path, *PRUNE)
    assert (done.returncode, old_shards(node.path)) == (3, ["00001"])
    assert "mount-point" in kept(document(done))["00001"]
    every_command(shardtool, node.path, tmp_path / "x.lp", LOOKING + CHANGING)
    assert listing(outside) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    "place",
    [
        "raft/in",
        "wal/in",
        "db/shard_db_v2/00001/in",
        "db/shard_db/in",
        "db/.shardtool/in",
        "db/.shardtool/proofs/00001.json",
        "db/.shardtool/trash/00007.20261124T175153Z-1/in",
    ],
)
def test_what_is_mounted_anywhere_else_in_the_node_is_not_changed_either(
    place: str, node: Node, mount: Mount, shardtool: Run, listing: List, tmp_path: Path
) -> None:
    assert shardtool("--data", node.path, "backup", "-q").returncode == 0
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"somebody's")
    (outside / "below").mkdir()
    (outside / "below" / "file").write_bytes(b"somebody's")
    (node.path / place).mkdir(parents=True)
    mount(node.path / place, source=outside)
    before = listing(outside)
    every_command(shardtool, node.path, tmp_path / "x.lp", LOOKING + CHANGING)
    assert listing(outside) == before


def test_a_removal_that_was_begun_stops_at_what_somebody_mounted_there(
    node: Node, mount: Mount, shardtool: Run, listing: List, tmp_path: Path
) -> None:
    left = begun(node, shardtool)
    (left / "below").mkdir()
    (left / "below/in").mkdir()
    (left / "file").touch()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"somebody's")
    mount(left / "below/in", source=outside)
    before = listing(outside)
    done = shardtool("--data", node.path, *PRUNE)
    assert (done.returncode, document(done)["finished"]) == (1, [])
    assert "Device or resource busy" in done.stderr
    assert listing(outside) == before
    (lifted,) = left.parent.iterdir()  # out of the shard, of which nothing else is left
    assert os.listdir(lifted) == ["in"]
    left.mkdir()
    lifted.rename(left / "below")  # where it can be unmounted


@pytest.fixture
def immutable() -> Iterator[Callable[[Path], None]]:
    """Make files immutable until the test ends, as `chattr +i` does."""
    made: list[Path] = []

    def make(path: Path) -> None:
        if shutil.which("chattr") is None:
            lacking("chattr")
        done = subprocess.run(["chattr", "+i", str(path)], capture_output=True, check=False)
        if done.returncode:
            lacking("a file system with immutable files")
        made.append(path)

    yield make
    for path in made:
        release(path)


def release(path: Path) -> None:
    """Make a file changeable again, wherever in the node's trash it is now."""
    if path.exists():
        subprocess.run(["chattr", "-i", str(path)], check=True)


@needs_root
def test_an_immutable_file_keeps_its_shard_in_the_trash_and_the_next_prune_ends_it(
    node: Node, immutable: Callable[[Path], None], shardtool: Run
) -> None:
    immutable(node.path / SHARD / "000003.log")
    done = shardtool("--data", node.path, *PRUNE)
    found = document(done)
    assert (done.returncode, found["deleted"]) == (1, ["00002"])
    (failed,) = found["failed"]
    assert failed["id"] == "00001"
    assert "000003.log: Operation not permitted" in failed["error"]
    assert old_shards(node.path) == []
    (name,) = in_trash(node.path)
    assert shardtool("--data", node.path, *PRUNE).returncode == 1
    release(node.db / ".shardtool/trash" / name / "000003.log")
    done = shardtool("--data", node.path, *PRUNE)
    assert (done.returncode, in_trash(node.path)) == (0, [])


@needs_root
def test_an_immutable_shard_stays_in_its_place(
    node: Node, immutable: Callable[[Path], None], shardtool: Run
) -> None:
    immutable(node.path / SHARD)
    done = shardtool("--data", node.path, *PRUNE)
    (failed,) = document(done)["failed"]
    assert (done.returncode, failed["id"]) == (1, "00001")
    assert "can't be renamed into the trash: Operation not permitted" in failed["error"]
    assert (old_shards(node.path), in_trash(node.path)) == (["00001"], [])


# -- very many --

MANY = 1_000_000
MOST_MEMORY = 160 << 20


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_million_files_are_counted_and_deleted_in_bounded_memory(
    node: Node, mount: Mount, tmp_path: Path
) -> None:
    target = tmp_path / "many"
    target.mkdir()
    mount(target, size="6g")
    data = target / "data"
    shutil.copytree(node.path, data, symlinks=True)
    shard = data / SHARD
    marked = (shard / "MIGRATED").stat().st_mtime_ns
    directory = os.open(shard, os.O_DIRECTORY)
    for number in range(MANY):
        os.mknod(f"{number + 100_000:06d}.ldb", 0o100644, dir_fd=directory)
    os.close(directory)
    os.utime(shard / "MIGRATED", ns=(marked, max(marked, 1_412_266_800_000_000_000)))
    for words in (("status", "--json"), PRUNE):
        said, memory = measured(data, *words)
        assert memory < MOST_MEMORY, (words, memory)
        if words[0] == "status":
            first = document(subprocess.CompletedProcess([], 0, said, ""))["old_shards"][0]
            assert first["files"] == MANY + 6
    assert old_shards(data) == []
    assert in_trash(data) == []


# A process of its own between: ru_maxrss begins with what the one has that starts a process.
_MEASURED = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
sys.exit(done.returncode)
"""


def measured(data: Path, *words: str) -> tuple[str, int]:
    """Run a command; return what it said, and the most memory that one of its processes had."""
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, *COMMAND, "--data", str(data), *words],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, int(done.stderr.splitlines()[-1]) << 10
