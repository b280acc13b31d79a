"""Of a snapshot in a bucket every byte is read; what is not as it was written is told."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from shardtool.disk.copy import Entry
from shardtool.disk.durable import READ_DIRECTORY, opened
from shardtool.errors import ShardtoolError
from shardtool.snapshots.metadata import MOST_BYTES
from shardtool.snapshots.remote import reading
from shardtool.snapshots.remote.bucket import RequestError
from shardtool.snapshots.remote.reading import fetch, verify_there
from shardtool.snapshots.verify import Problem, Verification
from tests.real.snapshot_world import Uncounted, make_node
from tests.unit.bucket_objects import DOWN, MISSING, Counts, ObjectBucket, objects_in
from tests.unit.staging_world import take

PAYLOAD_BYTES = 11 + 4 + 256 * 9000 + len("# made up\n")


@dataclass
class Remote:
    """A snapshot in a bucket, and a directory to fetch it into.

    Args:
        bucket: the store.
        name: the id.
        local: what verifying it found where it was taken.
        target: the directory.
        descriptor: the same, open.
    """

    bucket: ObjectBucket
    name: str
    local: Verification
    target: Path
    descriptor: int

    def verified(self) -> Verification:
        return self.bucket.run(verify_there(self.bucket, self.name, Uncounted))

    def fetched(self) -> list[Problem]:
        return self.bucket.run(
            fetch(self.bucket, self.name, self.descriptor, self.target, Uncounted)
        )


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> tuple[Verification, dict[str, bytes]]:
    top = tmp_path_factory.mktemp("local")
    (top / "store").mkdir()
    made = take(make_node(top / "node"), top / "store")
    return made.verified, objects_in(Path(made.path))


@pytest.fixture
def remote(local: tuple[Verification, dict[str, bytes]], tmp_path: Path) -> Iterator[Remote]:
    verified, objects = local
    target = tmp_path / "target"
    target.mkdir()
    with opened(target, READ_DIRECTORY) as descriptor:
        yield Remote(ObjectBucket(objects), verified.id, verified, target, descriptor)


# -- verifying --


def test_a_sound_snapshot_is_found_what_it_was_where_it_was_taken(remote: Remote) -> None:
    found = remote.verified()
    assert found.good
    assert found == remote.local


def test_all_of_its_payload_is_counted(remote: Remote) -> None:
    counts = Counts()
    remote.bucket.run(verify_there(remote.bucket, remote.name, counts.meter))
    assert counts.begun == [("verifying", PAYLOAD_BYTES)]
    assert counts.done == PAYLOAD_BYTES


@pytest.mark.parametrize("path", ["data/raft/log", "data/wal/log.1", "data/config.toml"])
def test_a_byte_that_is_another_is_told_by_its_files_digest(remote: Remote, path: str) -> None:
    key = f"{remote.name}/{path}"
    content = remote.bucket.contents[key]
    remote.bucket.contents[key] = bytes([content[0] ^ 1]) + content[1:]
    (problem,) = remote.verified().problems
    assert problem.path == path
    assert problem.what.startswith("its SHA-256 is ")
    assert problem.what.endswith(f", expected {remote.local.digests[path]}")


def test_every_file_that_is_wrong_is_told(remote: Remote) -> None:
    for path in ("raft/log", "raft/name", "wal/log.1"):
        key = f"{remote.name}/data/{path}"
        remote.bucket.contents[key] = bytes(len(remote.bucket.contents[key]))
    remote.bucket.contents[f"{remote.name}/data/raft/more"] = b""
    assert {problem.path for problem in remote.verified().problems} == {
        "data/raft/log",
        "data/raft/name",
        "data/wal/log.1",
        "data/raft/more",
    }


@pytest.mark.parametrize(
    ("change", "what"),
    [("gone", "missing"), ("longer", "has 5 bytes, expected 4")],
)
def test_what_changes_after_it_was_listed_is_told(remote: Remote, change: str, what: str) -> None:
    key = f"{remote.name}/data/raft/name"
    if change == "gone":
        remote.bucket.failing = {key: MISSING}
    else:
        remote.bucket.listed_size = {key: 4}
        remote.bucket.contents[key] = b"01234"
    assert remote.verified().problems == (Problem("data/raft/name", what),)


@pytest.mark.parametrize(
    ("path", "content", "what"),
    [
        ("data/raft/name", None, "missing"),
        ("data/raft/name", b"01234", "has 5 bytes, expected 4"),
        ("data/raft/more", b"", "extra: a file that no manifest names"),
        ("tagmanifest-sha256.txt", None, "missing"),
        ("bag-info.txt", None, "missing"),
    ],
)
def test_what_a_list_shows_to_be_wrong_is_told_and_nothing_of_it_fetched(
    remote: Remote, path: str, content: bytes | None, what: str
) -> None:
    if content is None:
        del remote.bucket.contents[f"{remote.name}/{path}"]
    else:
        remote.bucket.contents[f"{remote.name}/{path}"] = content
    problems = remote.verified().problems
    assert Problem(path, what) in problems
    assert tuple(remote.fetched()) == problems
    assert os.listdir(remote.target) == []


@pytest.mark.parametrize(
    "tag",
    [
        "bagit.txt",
        "bag-info.txt",
        "manifest-sha256.txt",
        "shardtool.json",
        "tagmanifest-sha256.txt",
    ],
)
def test_a_tag_file_of_over_32_mib_is_told_and_not_read(remote: Remote, tag: str) -> None:
    remote.bucket.contents[f"{remote.name}/{tag}"] = bytes((32 << 20) + 1)
    what = "more than 33554432 bytes where no more were announced"
    assert Problem(tag, what) in remote.verified().problems


def test_what_a_snapshot_of_another_name_holds_is_not_its_own(remote: Remote) -> None:
    remote.bucket.contents |= {
        key.replace(remote.name, f"{remote.name}-2", 1): b"x"
        for key in list(remote.bucket.contents)
    }
    assert remote.verified().good


def test_of_far_too_many_objects_no_more_are_listed(
    remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = len(remote.bucket.contents)
    monkeypatch.setattr(reading, "_MOST_OBJECTS", count)
    assert remote.verified().good
    monkeypatch.setattr(reading, "_MOST_OBJECTS", count - 2)
    problems = remote.verified().problems
    assert problems[0] == Problem(remote.name, f"has over {count - 2:,} objects")
    assert problems.count(problems[0]) == 1


def test_no_snapshot_that_a_backup_takes_has_far_too_many_objects(remote: Remote) -> None:
    """Metadata has an end, and so has the number of files that it can name, however short."""
    assert remote.local.metadata is not None
    shortest = Entry("raft/x", "file", 0o600, 0, 0, 0, 0)
    one, two = (
        len(replace(remote.local.metadata, entries=(shortest,) * count).encoded())
        for count in (1, 2)
    )
    assert MOST_BYTES // (two - one) + 5 < reading._MOST_OBJECTS


@pytest.mark.parametrize("broken", ["", "/shardtool.json", "/data/raft/log"])
def test_a_store_that_can_not_be_asked_is_no_verdict(remote: Remote, broken: str) -> None:
    remote.bucket.failing = {f"{remote.name}{broken}": DOWN}
    with pytest.raises(RequestError, match="nobody listens there"):
        remote.verified()
    with pytest.raises(RequestError, match="nobody listens there"):
        remote.fetched()


# -- fetching --


def test_what_is_fetched_is_the_snapshot_with_its_empty_directories_for_its_owner_alone(
    remote: Remote,
) -> None:
    assert remote.fetched() == []
    assert {
        f"{remote.name}/{path.relative_to(remote.target)}": path.read_bytes()
        for path in remote.target.rglob("*")
        if path.is_file()
    } == remote.bucket.contents
    directories = [path for path in remote.target.rglob("*") if path.is_dir()]
    assert {str(path.relative_to(remote.target)) for path in directories} == {
        "data",
        "data/raft",
        "data/raft/snapshot",
        "data/wal",
    }
    assert {stat.S_IMODE(path.stat().st_mode) for path in directories} == {0o700}
    files = [path for path in remote.target.rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in files} == {0}


def test_all_that_is_fetched_is_counted(remote: Remote) -> None:
    counts = Counts()
    remote.bucket.run(
        fetch(remote.bucket, remote.name, remote.descriptor, remote.target, counts.meter)
    )
    assert counts.begun == [("fetching", PAYLOAD_BYTES)]
    assert counts.done == PAYLOAD_BYTES


def test_what_changes_while_it_is_fetched_is_a_problem(remote: Remote) -> None:
    key = f"{remote.name}/data/raft/name"
    remote.bucket.listed_size = {key: 4}
    remote.bucket.contents[key] = b"01234"
    assert remote.fetched() == [Problem("data", "has 5 bytes, expected 4")]


def test_where_it_can_not_be_written_that_is_told(remote: Remote) -> None:
    (remote.target / "data").touch()
    with pytest.raises(ShardtoolError) as caught:
        remote.fetched()
    assert str(caught.value).startswith(
        f"{remote.target}: expected to fetch the snapshot, found: File exists"
    )
    assert str(caught.value).endswith("; set TMPDIR to another directory")


def test_what_will_not_fit_is_not_begun(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = list(os.statvfs(remote.target))
    fields[4] = 2  # f_bavail
    monkeypatch.setattr(os, "fstatvfs", lambda descriptor: os.statvfs_result(fields))
    with pytest.raises(ShardtoolError) as caught:
        remote.fetched()
    assert str(caught.value).startswith(f"{remote.target}: expected room for ")
    assert str(caught.value).endswith("free; free some, or set TMPDIR to another directory")
    assert os.listdir(remote.target) == []
