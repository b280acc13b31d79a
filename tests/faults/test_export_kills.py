"""Kill export at its n-th system call, or fail it: a file has its name only if it is whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fixtures import Node, Row
from shardtool.errors import ShardtoolError
from shardtool.export.columns import NOTHING_KNOWN, Selection
from shardtool.export.line import Style
from shardtool.export.run import export
from shardtool.export.target import Target
from shardtool.export.work import Job, Wanted
from tests.conftest import Mount, Run
from tests.faults.injection import injected

EACH = [
    *((call, "signal=KILL") for call in ("openat", "write", "fsync", "fchmod", "link", "unlink")),
    ("rename", "signal=KILL"),
    *(
        pytest.param(call, f"error={errno}", marks=pytest.mark.slow)
        for call, errno in (
            *(("write", "ENOSPC"), ("fsync", "EIO"), ("link", "EPERM")),
            *(("rename", "EROFS"), ("fchmod", "EPERM"), ("openat", "EROFS")),
        )
    ),
]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """A node with values that go out, and one that is listed."""
    made = Node(tmp_path / "data")
    rows = [Row("test", "cpu", "v", n, 1, float(n)) for n in range(20)]
    made.old_shard(1, rows=[*rows, Row("test", "cpu", "v", 99, 1, float("nan"))])
    return made


def struck(node: Node, out: Path, call: str, number: int, action: str, *words: str) -> bool:
    """Export to `out` and have `action` befall the `number`-th `call` that has to do with it.

    Returns whether it came so far. The child that reads is not traced: it writes no file.
    """
    places = [out, Path(f"{out}.left"), out.with_name(f".{out.name}.shardtool-part")]
    places += [out.with_name(f".{out.name}.left.shardtool-part"), out.parent]
    came, done = injected(
        ("--data", node.path, "export", "--to", out, "-q", *words),
        out.parent / "trace",
        call,
        number,
        action,
        options=[word for place in places for word in ("-P", place)],
    )
    if came and "error" in action:
        # One line that says why, or a way around it.
        assert done.returncode in (1, 3), done.stderr
        assert len(done.stderr.splitlines()) == (done.returncode == 1)
    return came


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir() if path.name != "trace"}


def is_whole(out: Path) -> bool:
    lines = out.read_text().splitlines()
    left = [json.loads(line) for line in Path(f"{out}.left").read_text().splitlines()]
    return len(lines) == 22 and len(left) == 1


@pytest.mark.slow
@pytest.mark.usefixtures("strace")
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("call", "action"), EACH)
def test_a_file_is_whole_or_not_there(
    call: str, action: str, node: Node, shardtool: Run, tmp_path: Path
) -> None:
    number = 0
    while True:
        number += 1
        directory = tmp_path / f"out{number}"
        directory.mkdir()
        out = directory / "x.lp"
        # Where there are no hard links it is renamed.
        words = ("--force",) if call == "rename" else ()
        came = struck(node, out, call, number, action, *words)
        if "x.lp" in names(directory):
            assert is_whole(out)
        if "signal" not in action:
            # Of what failed nothing is left but, where it was just done, the list.
            assert names(directory) <= {"x.lp", "x.lp.left"}
        done = shardtool("--data", node.path, "export", "--to", out, "--force")
        assert done.returncode == 3
        assert is_whole(out)
        assert names(directory) == {"x.lp", "x.lp.left"}
        if not came:
            break
    assert number > 1, f"export made no {call}"


@pytest.mark.slow
@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize("call", ["write", "fsync", "rename"])
def test_a_file_that_is_replaced_is_never_half_there(call: str, node: Node, tmp_path: Path) -> None:
    number = 0
    while True:
        number += 1
        out = tmp_path / "x.lp"
        out.write_text("mine")
        if not struck(node, out, call, number, "signal=KILL", "--force"):
            break
        assert out.read_text() == "mine" or is_whole(out)
    assert number > 1


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_leaves_nothing(
    mount: Mount, shardtool: Run, tmp_path: Path
) -> None:
    node = Node(tmp_path / "data")
    node.old_shard(1, points=30_000)
    small = tmp_path / "small"
    small.mkdir()
    mount(small, size="1m")
    for name in ("x.lp", "x.json"):
        done = shardtool("--data", node.path, "export", "--to", small / name)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert str(small / name) in line
        assert "No space left" in line
        assert list(small.iterdir()) == []
    pytest.importorskip("pyarrow")
    done = shardtool("--data", node.path, "export", "--to", small / "x.parquet", "--quiet")
    assert done.returncode in (0, 1)
    if done.returncode:
        assert list(small.iterdir()) == []


def test_a_name_that_is_taken_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "x.lp"
    with Target(str(out), force=False) as target:
        target.write(b"ours")
        out.write_text("theirs")
        with pytest.raises(ShardtoolError, match="--force"):
            target.complete()
    assert out.read_text() == "theirs"
    assert [path.name for path in tmp_path.iterdir()] == ["x.lp"]


def test_a_file_on_its_way_is_its_owners_alone(tmp_path: Path) -> None:
    with Target(str(tmp_path / "x.lp"), force=False) as target:
        target.write(b"ours")
        (part,) = tmp_path.iterdir()
        assert part.name == ".x.lp.shardtool-part"
        assert part.stat().st_mode & 0o777 == 0o600
        written = target.complete()
    assert written.bytes == 4
    assert [path.name for path in tmp_path.iterdir()] == ["x.lp"]


@pytest.mark.slow
@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize("call", ["write", "fsync", "fchmod", "rename"])
def test_a_replacement_that_fails_leaves_the_old_file_its_list(call: str, tmp_path: Path) -> None:
    """The new file needs no list, so that the old one's would go."""
    node = Node(tmp_path / "data")
    node.old_shard(1, rows=[Row("test", "cpu", "v", n, 1, float(n)) for n in range(20)])
    out, left = tmp_path / "x.lp", tmp_path / "x.lp.left"
    number = 0
    while True:
        number += 1
        out.write_text("old")
        left.write_text("of the old one")
        if not struck(node, out, call, number, "error=EIO", "--force"):
            break
        assert out.read_text() != "old" or left.exists()
        assert left.exists() or len(out.read_text().splitlines()) == 22
    assert number > 1
    assert not left.exists()


def test_a_new_list_goes_where_its_file_can_not_be_named(node: Node, tmp_path: Path) -> None:
    directory = tmp_path / "out"
    directory.mkdir()
    out = directory / "x.lp"
    job = Job(node.shard_db / "00001", "leveldb", is_new=False, size=1000)
    wanted = Wanted(Selection(), "line", Style(), NOTHING_KNOWN)

    def meanwhile(*told: object) -> None:
        out.write_text("theirs")

    with pytest.raises(ShardtoolError, match="--force"):
        export([job], wanted, str(out), force=False, progress=meanwhile)
    assert out.read_text() == "theirs"
    assert names(directory) == {"x.lp"}
