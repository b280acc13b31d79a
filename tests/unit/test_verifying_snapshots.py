"""What is wrong with a snapshot is told, all of it, and of a sound one nothing."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shardtool.disk.copy import Meter
from shardtool.snapshots import bag
from shardtool.snapshots.metadata import MOST_BYTES
from shardtool.snapshots.verify import Problem, Verification, verify
from tests.real.snapshot_world import Uncounted, make_node
from tests.unit.staging_world import Taken, acting, taken

MISSING = "No such file or directory"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def snapshot(tmp_path: Path) -> Iterator[Taken]:
    with taken(make_node(tmp_path / "node"), tmp_path / "store") as snapshot:
        yield snapshot


class Counted(Uncounted):
    """Counts what is done, and keeps what it was told of it."""

    def __init__(self, doing: str, total: int) -> None:
        """Take what a progress bar takes."""
        self.begun = (doing, total)
        self.done = 0

    def advance(self, count: int) -> None:
        """Count it."""
        self.done += count


def verified(snapshot: Taken, meter: Meter = Uncounted) -> Verification:
    return verify(snapshot.store, snapshot.path.name, meter)


def told(snapshot: Taken, meter: Meter = Uncounted) -> list[tuple[str, str]]:
    """Return all that is wrong with it, path and words."""
    found = verified(snapshot, meter)
    assert found.good == (not found.problems)
    return [(problem.path, problem.what) for problem in found.problems]


def payload(snapshot: Taken) -> dict[str, bytes]:
    """Return the payload's bytes by their paths in the bag."""
    files = [path for path in snapshot.path.glob("data/**/*") if path.is_file()]
    return {str(path.relative_to(snapshot.path)): path.read_bytes() for path in files}


def other_bytes(path: str, found: bytes, expected: bytes) -> tuple[str, str]:
    return path, f"its SHA-256 is {sha256(found)}, expected {sha256(expected)}"


def test_a_sound_one_is_good_and_its_digests_are_those_of_its_bytes(snapshot: Taken) -> None:
    found = verified(snapshot)
    assert found.good
    assert (found.id, found.problems) == (snapshot.path.name, ())
    assert found.metadata == snapshot.metadata
    assert found.digests == {path: sha256(content) for path, content in payload(snapshot).items()}
    assert found.sha256 == sha256((snapshot.path / bag.TAG_MANIFEST).read_bytes())


def test_each_byte_of_the_payload_is_counted_once(snapshot: Taken) -> None:
    meters: list[Counted] = []

    def meter(doing: str, total: int) -> Counted:
        meters.append(Counted(doing, total))
        return meters[-1]

    assert verified(snapshot, meter).good
    size = sum(map(len, payload(snapshot).values()))
    assert [(one.begun, one.done) for one in meters] == [(("verifying", size), size)]


def test_the_payload_is_read_from_the_disk(
    snapshot: Taken, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What memory still has of it is what was written, and says nothing of the disk."""
    forgotten: list[str] = []
    advise = os.posix_fadvise

    def noted(descriptor: int, begin: int, length: int, advice: int) -> None:
        advise(descriptor, begin, length, advice)
        assert (begin, length, advice) == (0, 0, os.POSIX_FADV_DONTNEED)
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        forgotten.append(str(path.relative_to(snapshot.path)))

    monkeypatch.setattr(os, "posix_fadvise", noted)
    assert verified(snapshot).good
    assert sorted(forgotten) == sorted(payload(snapshot))


@pytest.mark.parametrize("seed", range(6))
def test_one_bit_anywhere_in_the_payload_is_told_with_both_digests(
    seed: int, snapshot: Taken
) -> None:
    chance = random.Random(seed)
    path, content = chance.choice([item for item in payload(snapshot).items() if item[1]])
    at = chance.randrange(len(content))
    flipped = content[:at] + bytes([content[at] ^ 1 << chance.randrange(8)]) + content[at + 1 :]
    (snapshot.path / path).write_bytes(flipped)
    assert told(snapshot) == [other_bytes(path, flipped, content)]


def test_all_that_is_wrong_is_told(snapshot: Taken) -> None:
    """A file that can't be read, and two of other bytes before and after it."""
    bytes_of = payload(snapshot)
    (snapshot.path / "data/config.toml").write_bytes(b"# made up?")
    (snapshot.path / "data/raft/log").write_bytes(b"a raft log?")
    (snapshot.path / "data/wal/log.1").write_bytes(bytes(len(bytes_of["data/wal/log.1"])))
    gone = acting("verifying", (snapshot.path / "data/raft/log").unlink)
    assert told(snapshot, gone) == [
        other_bytes("data/config.toml", b"# made up?", bytes_of["data/config.toml"]),
        ("data/raft/log", f"unreadable: {MISSING}"),
        other_bytes("data/wal/log.1", bytes(256 * 9000), bytes_of["data/wal/log.1"]),
    ]


def test_a_link_that_takes_a_files_place_meanwhile_is_not_followed(
    snapshot: Taken, tmp_path: Path
) -> None:
    """Not where it leads to the very same bytes either: they are not the snapshot's."""
    path = snapshot.path / "data/raft/log"

    def swap() -> None:
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")

    words = "unreadable: Too many levels of symbolic links"
    assert told(snapshot, acting("verifying", swap)) == [("data/raft/log", words)]


def test_a_file_that_grows_meanwhile_is_told_and_not_read_to_an_end_it_may_not_have(
    snapshot: Taken,
) -> None:
    counters: list[Counted] = []

    def meter(doing: str, total: int) -> Counted:
        with (snapshot.path / "data/raft/name").open("ab") as file:
            file.write(b"4567")
        counters.append(Counted(doing, total))
        return counters[-1]

    assert told(snapshot, meter) == [other_bytes("data/raft/name", b"01234", b"0123")]
    assert counters[0].done == counters[0].begun[1] + 1


@pytest.mark.parametrize("name", [*bag.TAG_FILES, bag.TAG_MANIFEST])
def test_a_tag_file_that_is_none_is_told_and_not_waited_for(name: str, snapshot: Taken) -> None:
    (snapshot.path / name).unlink()
    os.mkfifo(snapshot.path / name)
    found = told(snapshot)
    assert found[0] == (name, "unreadable: no regular file")
    assert (name, "is a fifo, expected a file") in found


@pytest.mark.parametrize("name", [*bag.TAG_FILES, bag.TAG_MANIFEST])
def test_a_tag_file_without_end_is_told_and_not_read_to_it(name: str, snapshot: Taken) -> None:
    os.truncate(snapshot.path / name, MOST_BYTES + 1)
    assert told(snapshot)[0] == (name, "unreadable: more than 32 MiB")


def test_a_tag_file_that_is_missing_is_told_once(snapshot: Taken) -> None:
    (snapshot.path / bag.INFO).unlink()
    assert told(snapshot) == [(bag.INFO, "missing")]


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda path: path.rename(path.with_name("other")), MISSING),
        (lambda path: path.symlink_to(path.rename(path.with_name("other"))), "Not a directory"),
    ],
    ids=["missing", "link"],
)
def test_what_is_no_directory_is_told_and_no_link_followed(
    act: Callable[[Path], object], words: str, snapshot: Taken
) -> None:
    act(snapshot.path)
    found = verified(snapshot)
    assert found == Verification(
        snapshot.path.name, (Problem(snapshot.path.name, f"unreadable: {words}"),)
    )
    assert not found.good


def test_before_it_has_its_name_its_id_is_what_it_is_to_be(snapshot: Taken) -> None:
    name = snapshot.path.name
    snapshot.path.rename(snapshot.path.with_name(".partial"))
    found = verify(snapshot.store, ".partial", Uncounted, identity=name)
    assert (found.id, found.problems) == (name, ())
    under_its_own = verify(snapshot.store, ".partial", Uncounted)
    assert under_its_own.problems == (Problem(bag.METADATA, f"is of another snapshot: {name!r}"),)
