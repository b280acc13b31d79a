"""An open store is a directory or a bucket, and does the same; a directory's may be locked."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest

from shardtool.disk.locks import exclusive
from shardtool.errors import AnotherShardtoolError, ShardtoolError
from shardtool.snapshots.address import Place
from shardtool.snapshots.opened import open_place
from shardtool.snapshots.remote import bucket as remote
from shardtool.snapshots.retention import Plan
from tests.real.snapshot_world import Uncounted, make_node
from tests.unit.bucket_world import ADDRESS, NearBucket, without_a_server
from tests.unit.staging_world import taken

MISSING = "20261127T080000Z"


@dataclass(frozen=True)
class Store:
    """A store with a snapshot of a small node in it.

    Args:
        place: where it is.
        name: the snapshot's id.
        path: the directory that has the snapshots, or the objects of the bucket, in it.
    """

    place: Place
    name: str
    path: Path


@pytest.fixture
def node(tmp_path: Path) -> Path:
    return make_node(tmp_path / "node")


@pytest.fixture
def directory(node: Path, tmp_path: Path) -> Store:
    with taken(node, tmp_path / "store") as snapshot:
        return Store(snapshot.path.parent, snapshot.verified.id, snapshot.path.parent)


@pytest.fixture
def bucket(directory: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Return a bucket whose requests are answered from the directory."""
    without_a_server(monkeypatch, tmp_path / "staged")
    monkeypatch.setattr(remote, "Bucket", partial(NearBucket, root=directory.path))
    return replace(directory, place=ADDRESS)


@pytest.fixture(params=["directory", "bucket"])
def store(request: pytest.FixtureRequest) -> Store:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Store)
    return found


# -- the lock --


def test_of_two_who_want_a_directory_alone_the_second_is_told(directory: Store) -> None:
    line = (
        f"{re.escape(str(directory.path))}: expected to be the only shardtool on this snapshot "
        r"directory, found (pid \d+|another process) at work on it; wait for it to end"
    )
    with (
        open_place(directory.path, alone=True),
        pytest.raises(AnotherShardtoolError, match=f"^{line}$"),
        open_place(directory.path, alone=True),
    ):
        pass


def test_a_lock_ends_with_the_block_however_it_ends(directory: Store) -> None:
    with pytest.raises(KeyboardInterrupt), open_place(directory.path, alone=True):
        raise KeyboardInterrupt
    with exclusive(directory.path, purpose="test"):
        pass


def test_who_only_reads_neither_waits_for_a_lock_nor_holds_one(directory: Store) -> None:
    with exclusive(directory.path, purpose="test"), open_place(directory.path) as found:
        assert found.verify(directory.name, Uncounted).good
    with open_place(directory.path), exclusive(directory.path, purpose="test"):
        pass


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize(
    ("name", "reason"), [("missing", "No such file or directory"), ("file", "Not a directory")]
)
def test_a_directory_that_is_none_is_told(
    name: str, reason: str, alone: bool, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    line = f"{tmp_path / name}: expected the snapshot directory, found: {reason}; name it with"
    with (
        pytest.raises(ShardtoolError, match=re.escape(line)),
        open_place(tmp_path / name, alone=alone),
    ):
        pass


def test_a_directory_may_be_opened_by_a_link(directory: Store, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(directory.path)
    with open_place(link, alone=True) as found:
        assert [one.path for one in found.listing().snapshots] == [link / directory.name]
        assert found.verify(directory.name, Uncounted).good
        with pytest.raises(AnotherShardtoolError), exclusive(directory.path, purpose="test"):
            pass


def test_a_bucket_whose_settings_can_not_be_used_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "A")
    with (
        pytest.raises(ShardtoolError, match="found no aws_secret_access_key"),
        open_place(ADDRESS, alone=True),
    ):
        pass


# -- what is done with an open one --


def test_a_snapshot_is_listed_by_its_place(store: Store) -> None:
    with open_place(store.place, alone=True) as found:
        listing = found.listing()
    (listed,) = listing.snapshots
    assert (listed.id, listed.path) == (store.name, store.place / store.name)
    assert (listed.files, listed.problem, listing.others) == (5, "", ())


def test_a_sound_snapshot_is_good_and_a_byte_more_is_not(store: Store) -> None:
    with open_place(store.place) as found:
        assert found.verify(store.name, Uncounted).good
        (store.path / store.name / "data/raft/name").write_bytes(b"01234")
        problems = found.verify(store.name, Uncounted).problems
    assert [problem.path for problem in problems] == ["data/raft/name"]


def test_what_is_fetched_lies_in_a_directory_of_its_owners_and_is_good(
    store: Store, node: Path
) -> None:
    with open_place(store.place) as found:
        there = found.verify(store.name, Uncounted)
        with found.fetched(store.name, Uncounted) as (directory, verified):
            own = Path(f"/proc/self/fd/{directory}", store.name)
            assert stat.S_IMODE(own.stat().st_mode) == 0o700
            for path in ("raft/log", "raft/name", "wal/log.1", "wal/empty", "config.toml"):
                assert (own / "data" / path).read_bytes() == (node / path).read_bytes()
    assert verified.good
    assert verified.metadata is not None
    assert verified == there


def test_what_is_fetched_is_gone_when_the_block_ends(bucket: Store, tmp_path: Path) -> None:
    with (
        open_place(bucket.place) as found,
        pytest.raises(KeyboardInterrupt),
        found.fetched(bucket.name, Uncounted),
    ):
        assert len(list((tmp_path / "staged").iterdir())) == 1
        raise KeyboardInterrupt
    assert list((tmp_path / "staged").iterdir()) == []


@pytest.mark.parametrize("damaged", ["data/raft/name", "data/raft/more", "shardtool.json"])
def test_of_what_is_not_good_fetching_tells_what_verifying_tells(
    damaged: str, store: Store
) -> None:
    (store.path / store.name / damaged).write_bytes(b"9999")
    with open_place(store.place) as found:
        there = found.verify(store.name, Uncounted)
        with found.fetched(store.name, Uncounted) as (_, verified):
            pass
    assert not verified.good
    assert verified.problems == there.problems


def test_a_snapshot_that_is_not_there_is_not_good(store: Store) -> None:
    with open_place(store.place) as found:
        there = found.verify(MISSING, Uncounted)
        with found.fetched(MISSING, Uncounted) as (_, verified):
            pass
    assert there.problems
    assert verified.problems == there.problems


def test_what_is_forgotten_is_gone(store: Store) -> None:
    with open_place(store.place, alone=True) as found:
        done = found.forget(Plan((), (store.name,)))
        assert (done.removed, done.failed) == ((store.name,), ())
        assert found.listing().snapshots == ()
    assert done.freed_bytes >= 256 * 9000


def test_leftovers_go_and_a_snapshot_stays(directory: Store) -> None:
    (directory.path / f".partial-{MISSING}").mkdir()
    with open_place(directory.path, alone=True) as found:
        assert found.remove_leftovers() == ()
        assert found.verify(directory.name, Uncounted).good
    assert os.listdir(directory.path) == [directory.name]


def test_of_a_bucket_what_somebody_may_be_at_work_on_stays(bucket: Store) -> None:
    """An id without its tag manifest, that is younger than a day."""
    (bucket.path / MISSING).mkdir()
    (bucket.path / MISSING / "bagit.txt").touch()
    with open_place(bucket.place) as found:
        assert found.remove_leftovers() == ()
        assert [name for name, _ in found.listing().others] == [MISSING]
        assert found.verify(bucket.name, Uncounted).good
