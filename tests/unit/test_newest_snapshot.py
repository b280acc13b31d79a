"""The newest snapshot of this node, and what is not any more as it is in it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from shardtool.datadir.layout import find_layout
from shardtool.errors import ShardtoolError
from shardtool.snapshots import freshness
from shardtool.snapshots.freshness import Newest, newest_snapshot
from shardtool.snapshots.metadata import CONFIG
from tests.needs import needs_root
from tests.real.snapshot_world import Uncounted, make_node
from tests.unit.staging_world import rights_of, take

NOBODY = 65534
AS_WHOM = "found: Permission denied; run this as the server's user or as root"
LOG = b"a raft log\n"


@pytest.fixture
def node(tmp_path: Path) -> Path:
    return make_node(tmp_path / "node")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


def newest(node: Path, store: Path) -> Newest:
    return newest_snapshot(find_layout(str(node), None, {}), store, Uncounted)


# -- which one it is --


def test_where_there_is_no_store_or_nothing_in_it_there_is_none(
    node: Path, store: Path, tmp_path: Path
) -> None:
    assert newest(node, store) == Newest(store)
    assert newest(node, tmp_path / "missing") == Newest(tmp_path / "missing")


@pytest.mark.parametrize("live", [False, True])
def test_one_of_what_is_there_now_has_no_changes(live: bool, node: Path, store: Path) -> None:
    made = take(node, store, live=live)
    logs = {"log.1": 256 * 9000, "empty": 0, "current": 0}
    expected = Newest(store, made.verified.id, live, logs=logs, raft_bytes=len(LOG))
    assert newest(node, store) == expected


def test_of_several_it_is_the_last_be_it_good_or_not(node: Path, store: Path) -> None:
    take(node, store)
    last = take(node, store).path
    (last / "data/raft/name").unlink()
    assert newest(node, store).id == last.name


def test_another_nodes_that_was_taken_after_it_is_passed_over(
    node: Path, store: Path, tmp_path: Path
) -> None:
    other = make_node(tmp_path / "other")
    take(other, store)
    own = take(node, store)
    take(other, store)
    take(other, store)
    assert newest(node, store).id == own.verified.id
    assert newest(make_node(tmp_path / "third"), store) == Newest(store)


def test_of_one_that_is_damaged_the_first_problem_is_told(node: Path, store: Path) -> None:
    made = take(node, store, live=True)
    for name in ("raft/name", "wal/empty"):
        (made.path / "data" / name).unlink()
    expected = Newest(store, made.verified.id, True, "data/raft/name: missing")
    assert newest(node, store) == expected


def test_one_that_does_not_say_whose_it_is_is_damaged_and_not_passed_over(
    node: Path, store: Path
) -> None:
    made = take(node, store, live=True)
    (made.path / "shardtool.json").write_bytes(b"{}")
    found = newest(node, store)
    assert (found.id, found.live) == (made.verified.id, False)
    assert found.problem.startswith("shardtool.json: ")


# -- what is not as it is in it --


def relink(path: Path) -> None:
    path.unlink()
    path.symlink_to("elsewhere")


def become_a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def begin_two(node: Path) -> None:
    for top in ("wal", "raft"):
        (node / top / "new").touch()


CHANGES: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "more bytes": (lambda node: (node / "wal/empty").write_bytes(b"1"), ("wal/empty",)),
    "its time": (lambda node: os.utime(node / "wal/log.1", ns=(1, 1)), ("wal/log.1",)),
    "gone": (lambda node: (node / "raft/name").unlink(), ("raft/name",)),
    "new": (lambda node: (node / "raft/snapshot/1").touch(), ("raft/snapshot/1",)),
    "new in both": (begin_two, ("raft/new", "wal/new")),
    "where a link leads": (lambda node: relink(node / "wal/current"), ("wal/current",)),
    "its kind": (lambda node: become_a_directory(node / "wal/empty"), ("wal/empty",)),
    "a directory is gone": (lambda node: (node / "raft/snapshot").rmdir(), ("raft/snapshot",)),
    "a directory's mode and time": (lambda node: (node / "raft/snapshot").chmod(0o700), ()),
    "config": (lambda node: (node / CONFIG).write_bytes(b"other"), ()),
}


@pytest.mark.parametrize(("change", "paths"), CHANGES.values(), ids=CHANGES)
def test_what_has_changed_since_is_told_by_its_path(
    change: Callable[[Path], object], paths: tuple[str, ...], node: Path, store: Path
) -> None:
    take(node, store)
    change(node)
    os.utime(node / "raft", ns=(1, 1))
    found = newest(node, store)
    assert (found.problem, found.changed) == ("", paths)


# -- how much of raft's log is in it --


@pytest.mark.parametrize(
    ("now", "begins"),
    [
        (LOG, len(LOG)),
        (LOG + b"and more", len(LOG)),
        (b"A" + LOG[1:] + b"and more", None),
        (LOG[:-1], None),
        (None, None),
    ],
)
def test_a_log_that_only_grew_begins_with_the_one_in_it(
    now: bytes | None, begins: int | None, node: Path, store: Path
) -> None:
    take(node, store)
    (node / "raft/log").unlink()
    if now is not None:
        (node / "raft/log").write_bytes(now)
    assert newest(node, store).raft_bytes == begins


@pytest.mark.parametrize("is_link", [False, True])
def test_a_log_that_is_not_in_it_as_a_file_begins_none(
    is_link: bool, node: Path, store: Path
) -> None:
    (node / "raft/log").rename(node / "raft/there")
    if is_link:
        (node / "raft/log").symlink_to("there")
    take(node, store)
    (node / "raft/log").unlink(missing_ok=True)
    (node / "raft/log").write_bytes(b"")
    assert newest(node, store).raft_bytes is None


@pytest.mark.parametrize(("most", "begins"), [(len(LOG), len(LOG)), (len(LOG) - 1, None)])
def test_a_log_of_too_many_bytes_is_not_read(
    most: int, begins: int | None, node: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(node, store)
    monkeypatch.setattr(freshness, "_MOST_LOG", most)
    assert newest(node, store).raft_bytes == begins


# -- what can't be seen --


@pytest.fixture
def nobodys(public_path: Path) -> Path:
    """A node of nobody's with a snapshot in `store` beside it."""
    node = make_node(public_path / "node")
    (public_path / "store").mkdir()
    take(node, public_path / "store")
    for path in (public_path, *public_path.rglob("*")):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    return node


@needs_root
@pytest.mark.parametrize("name", ["raft", "wal"])
def test_what_can_not_be_compared_is_told_by_its_path(name: str, nobodys: Path) -> None:
    line = f"{nobodys}/{name}: expected to read it, {AS_WHOM}"
    (nobodys / name).chmod(0)
    with rights_of(NOBODY, NOBODY), pytest.raises(ShardtoolError, match=f"^{re.escape(line)}$"):
        newest(nobodys, nobodys.with_name("store"))


@needs_root
def test_a_store_that_can_not_be_looked_for_is_not_taken_for_none(nobodys: Path) -> None:
    shut = nobodys.with_name("shut")
    shut.mkdir(mode=0)
    line = f"{shut}/store: expected to look for snapshots, {AS_WHOM}"
    with rights_of(NOBODY, NOBODY), pytest.raises(ShardtoolError, match=f"^{re.escape(line)}$"):
        newest(nobodys, shut / "store")


def test_a_link_in_the_place_of_raft_or_wal_is_compared_with_what_it_leads_to(
    node: Path, store: Path, tmp_path: Path
) -> None:
    shutil.move(node / "wal", tmp_path / "elsewhere")
    (node / "wal").symlink_to(tmp_path / "elsewhere")
    take(node, store)
    (tmp_path / "elsewhere/empty").write_bytes(b"1")
    assert newest(node, store).changed == ("wal/empty",)
