"""What is in a bucket is a snapshot, unfinished or nobody's of ours; only the first two ever go."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from shardtool.errors import ShardtoolError
from shardtool.snapshots.remote import contents
from shardtool.snapshots.remote.bucket import RequestError
from shardtool.snapshots.remote.contents import Id, list_bucket, look
from shardtool.snapshots.remote.forget import forget_there, remove_left, remove_objects
from shardtool.snapshots.retention import Plan
from tests.real.snapshot_world import make_node
from tests.unit.bucket_objects import DOWN, NOW, ObjectBucket, objects_in
from tests.unit.bucket_world import ADDRESS
from tests.unit.staging_world import take

NAME = "20261127T080000Z"
OTHER = "20261127T080000Z-2"
LAST = "20261127T080000Z-10"
DAY = timedelta(days=1)
BEGUN = {"bagit.txt": b"1", "data/raft/log": b"22", "manifest-sha256.txt": b"333"}
WHOLE = {**BEGUN, "tagmanifest-sha256.txt": b"4444"}


def below(name: str, files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{name}/{path}": content for path, content in files.items()}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, bytes]]:
    """Return the id and the objects of a snapshot that was taken."""
    top = tmp_path_factory.mktemp("sound")
    (top / "store").mkdir()
    made = take(make_node(top / "node"), top / "store")
    return made.verified.id, objects_in(Path(made.path))


def found_in(files: dict[str, bytes]) -> Id:
    """Look at a bucket that has nothing but an id with these files."""
    bucket = ObjectBucket(below(NAME, files))
    seen = bucket.run(look(bucket))
    assert (list(seen.ids), seen.others) == ([NAME], ())
    return seen.ids[NAME]


# -- what an id is --


@pytest.mark.parametrize(
    "path",
    [
        "",
        "bagit.txt",
        "bag-info.txt",
        "manifest-sha256.txt",
        "tagmanifest-sha256.txt",
        "shardtool.json",
        "data",
        "data/config.toml",
        "data/raft",
        "data/raft/",
        "data/raft/a/b",
        "data/wal",
        "data/wal/two\nlines",
    ],
)
def test_what_a_backup_writes_makes_no_id_foreign(path: str) -> None:
    assert not found_in({path: b""}).foreign


@pytest.mark.parametrize(
    "path",
    [
        "x",
        "bagit.txt2",
        "bagitXtxt",
        "bagit.txt/x",
        "xbagit.txt",
        "manifest-sha512.txt",
        "data2",
        "data/x",
        "data/rafter",
        "data/config.toml/x",
        "data/configXtoml",
        "raft/log",
        "/data/raft/log",
    ],
)
def test_whatever_else_is_in_an_id_makes_it_foreign_wherever_it_is_listed(path: str) -> None:
    found = found_in({**BEGUN, path: b""})
    assert found.foreign
    assert not found.is_unfinished
    assert not found.is_left(NOW + 2 * DAY)


@pytest.mark.parametrize(
    ("files", "whole", "begun", "unfinished"),
    [
        (WHOLE, True, True, False),
        (BEGUN, False, True, True),
        ({"bagit.txt": b""}, False, True, True),
        ({"data/raft/log": b""}, False, False, False),
        ({"tagmanifest-sha256.txt": b"", "data/raft/log": b""}, True, False, False),
        ({**WHOLE, "what sorts last": b""}, True, True, False),
    ],
)
def test_an_id_is_whole_by_its_tag_manifest_and_unfinished_only_by_its_declaration(
    files: dict[str, bytes], whole: bool, begun: bool, unfinished: bool
) -> None:
    found = found_in(files)
    assert (found.whole, found.begun, found.is_unfinished) == (whole, begun, unfinished)
    assert found.is_left(NOW + 2 * DAY) == unfinished


@pytest.mark.parametrize("newest", sorted(WHOLE))
def test_an_id_has_the_bytes_of_all_its_objects_and_the_time_of_the_newest(newest: str) -> None:
    bucket = ObjectBucket(below(NAME, WHOLE))
    bucket.changed_at = {f"{NAME}/{newest}": NOW + DAY}
    found = bucket.run(look(bucket)).ids[NAME]
    assert (found.size, found.changed_at) == (10, NOW + DAY)


@pytest.mark.parametrize(
    ("age", "left"), [(-DAY, False), (DAY, False), (DAY + timedelta(microseconds=1), True)]
)
def test_what_is_unfinished_is_left_when_it_is_older_than_a_day(age: timedelta, left: bool) -> None:
    assert found_in(BEGUN).is_left(NOW + age) == left


def test_an_id_of_which_nothing_is_known_is_neither_whole_nor_left() -> None:
    unknown = Id()
    assert (unknown.whole, unknown.begun, unknown.foreign, unknown.size) == (False,) * 3 + (0,)
    assert unknown.changed_at < datetime(1970, 1, 1, tzinfo=UTC)


# -- what is no id --


def test_names_that_are_no_ids_are_told_once_and_an_empty_one_is_not() -> None:
    bucket = ObjectBucket(
        {
            "": b"",
            "/x": b"",
            NAME: b"an object, not what is below one",
            "notes": b"",
            "photos/a": b"",
            "photos/b": b"",
            "20261399T080000Z/bagit.txt": b"",
            **below(OTHER, BEGUN),
        }
    )
    seen = bucket.run(look(bucket))
    assert list(seen.ids) == [OTHER]
    assert seen.others == (NAME, "20261399T080000Z", "notes", "photos")


def test_a_store_with_far_too_much_of_others_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "_MOST_OTHERS", 3)
    bucket = ObjectBucket({"a": b"", "b": b"", "c/1": b"", "c/2": b""})
    assert bucket.run(look(bucket)).others == ("a", "b", "c")
    bucket.contents["d"] = b""
    with pytest.raises(ShardtoolError) as caught:
        bucket.run(look(bucket))
    assert str(caught.value) == (
        f"{ADDRESS}: expected snapshots, found over 3 other names; use a prefix of its own"
    )


def test_of_how_much_is_too_much_what_snapshots_have_is_no_part(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(contents, "_MOST_OTHERS", 1)
    files = {f"data/raft/{number}": b"" for number in range(9)}
    bucket = ObjectBucket(below(NAME, files) | below(OTHER, files) | {"notes": b""})
    assert bucket.run(look(bucket)).others == ("notes",)


# -- the list --


def test_a_list_has_snapshots_by_age_and_what_each_other_name_is(
    sound: tuple[str, dict[str, bytes]],
) -> None:
    name, objects = sound
    bucket = ObjectBucket(objects)
    for other in (LAST, OTHER):
        bucket.contents |= below(other, WHOLE)
    bucket.contents |= {"z": b"", "a/x": b""}
    bucket.contents |= below("20261127T070000Z", BEGUN)
    bucket.contents |= below("20261127T060000Z", {**BEGUN, "x": b""})
    bucket.contents |= below("20261127T050000Z", {"data/raft/log": b""})
    listing = bucket.run(list_bucket(bucket))
    by_age = [one.id for one in listing.snapshots]
    assert [one for one in by_age if one != name] == [OTHER, LAST]
    assert listing.others == (
        ("20261127T050000Z", "not a snapshot, and not shardtool's: left alone"),
        ("20261127T060000Z", "not a snapshot, and not shardtool's: left alone"),
        ("20261127T070000Z", "unfinished backup, or being removed"),
        ("a", "no snapshot's name"),
        ("z", "no snapshot's name"),
    )


def test_a_snapshot_is_listed_by_what_its_metadata_says(
    sound: tuple[str, dict[str, bytes]],
) -> None:
    name, objects = sound
    bucket = ObjectBucket(objects)
    (listed,) = bucket.run(list_bucket(bucket)).snapshots
    metadata = json.loads(objects[f"{name}/shardtool.json"])
    assert (listed.id, listed.path, listed.problem) == (name, ADDRESS / name, "")
    assert (listed.files, listed.bytes) == (metadata["files"], metadata["bytes"])
    assert listed.origin.endswith(metadata["sources"]["raft"])


@pytest.mark.parametrize(
    ("metadata", "problem"),
    [
        (None, "no shardtool.json in it"),
        (b"{}", "no metadata of a snapshot (KeyError: 'schema')"),
        (b" " * ((32 << 20) + 1), "more than 33554432 bytes where no more were announced"),
    ],
    ids=["missing", "none", "too long"],
)
def test_a_snapshot_whose_metadata_is_no_good_is_listed_with_why(
    metadata: bytes | None, problem: str
) -> None:
    bucket = ObjectBucket(below(NAME, WHOLE))
    if metadata is not None:
        bucket.contents[f"{NAME}/shardtool.json"] = metadata
    (listed,) = bucket.run(list_bucket(bucket)).snapshots
    assert (listed.id, listed.path, listed.problem) == (NAME, ADDRESS / NAME, problem)


def test_a_snapshot_with_the_metadata_of_another_is_listed_with_that(
    sound: tuple[str, dict[str, bytes]],
) -> None:
    name, objects = sound
    bucket = ObjectBucket(below(LAST, WHOLE))
    bucket.contents[f"{LAST}/shardtool.json"] = objects[f"{name}/shardtool.json"]
    (listed,) = bucket.run(list_bucket(bucket)).snapshots
    assert (listed.id, listed.path) == (LAST, ADDRESS / LAST)
    assert listed.problem == f"the metadata of another snapshot, {name!r}"


@pytest.mark.parametrize("broken", ["", f"{NAME}/shardtool.json"])
def test_a_store_that_can_not_be_asked_is_no_list(broken: str) -> None:
    bucket = ObjectBucket(below(NAME, WHOLE))
    bucket.failing = {broken: DOWN}
    with pytest.raises(RequestError, match="nobody listens there"):
        bucket.run(list_bucket(bucket))


# -- what goes --


def test_a_tag_manifest_goes_first_and_last_what_takes_the_id() -> None:
    bucket = ObjectBucket(below(NAME, WHOLE) | below(OTHER, WHOLE))
    assert bucket.run(remove_objects(bucket, NAME)) == 10
    assert bucket.deletes == [
        [f"{NAME}/tagmanifest-sha256.txt"],
        [f"{NAME}/data/raft/log", f"{NAME}/manifest-sha256.txt"],
        [f"{NAME}/bagit.txt"],
    ]
    assert bucket.contents == below(OTHER, WHOLE)


def test_an_id_with_nothing_in_it_but_what_takes_it_is_removed() -> None:
    bucket = ObjectBucket(below(NAME, {"bagit.txt": b"1"}))
    assert bucket.run(remove_objects(bucket, NAME)) == 1
    assert bucket.contents == {}


@pytest.mark.parametrize("count", [499, 500, 501, 1000, 2300])
def test_however_many_objects_a_snapshot_has_all_go_and_its_declaration_last(count: int) -> None:
    many = {f"data/raft/{number}": b"12" for number in range(count)}
    bucket = ObjectBucket(below(NAME, {**many, "bagit.txt": b""}))
    assert bucket.run(remove_objects(bucket, NAME)) == 2 * count
    assert bucket.contents == {}
    assert bucket.deletes[-1] == [f"{NAME}/bagit.txt"]
    assert max(map(len, bucket.deletes)) == min(count, 500)


@pytest.mark.parametrize(
    ("broken", "whole"),
    [
        ("", True),
        ("tagmanifest-sha256.txt", True),
        ("data/raft/log", False),
        ("bagit.txt", False),
    ],
)
def test_a_snapshot_that_can_not_be_removed_stays_whole_or_is_known_as_a_part(
    broken: str, whole: bool
) -> None:
    """The others go all the same."""
    bucket = ObjectBucket(below(NAME, WHOLE) | below(OTHER, WHOLE) | below(LAST, WHOLE))
    bucket.failing = {f"{OTHER}/{broken}" if broken else OTHER: DOWN}
    done = bucket.run(forget_there(bucket, Plan((), (NAME, OTHER, LAST))))
    assert done.removed == (NAME, LAST)
    assert done.freed_bytes == 20
    assert done.failed == ((OTHER, "nobody listens there; run it again later"),)
    bucket.failing = {}
    (left,) = bucket.run(look(bucket)).ids.items()
    assert (left[0], left[1].whole, left[1].is_unfinished) == (OTHER, whole, not whole)


def test_what_is_not_planned_to_go_stays() -> None:
    bucket = ObjectBucket(below(NAME, WHOLE) | below(OTHER, WHOLE) | {"notes": b""})
    done = bucket.run(forget_there(bucket, Plan(((NAME, ("last",)),), ())))
    assert (done.removed, done.freed_bytes, done.failed) == ((), 0, ())
    assert bucket.deletes == []


def test_of_what_is_old_only_what_killed_runs_left_is_removed() -> None:
    kept = {
        **below("20261101T080000Z", WHOLE),
        **below("20261102T080000Z", {**BEGUN, "x": b""}),
        **below("20261103T080000Z", {"data/raft/log": b""}),
        "notes": b"",
    }
    young = below("20261104T080000Z", BEGUN)
    bucket = ObjectBucket(kept | young | below(NAME, BEGUN) | below(OTHER, BEGUN))
    bucket.changed_at = {f"20261104T080000Z/{path}": NOW + DAY for path in BEGUN}
    assert bucket.run(remove_left(bucket, NOW + DAY + timedelta(seconds=1))) == ()
    assert bucket.contents == kept | young


@pytest.mark.parametrize("broken", ["", NAME, f"{NAME}/bagit.txt"])
def test_what_is_left_and_can_not_be_removed_is_told_and_is_no_failure(broken: str) -> None:
    bucket = ObjectBucket(below(NAME, BEGUN))
    bucket.failing = {broken: DOWN}
    assert bucket.run(remove_left(bucket, NOW + 2 * DAY)) == (
        "what killed runs left could not be removed: "
        f"{ADDRESS}: found: nobody listens there; run it again later",
    )
