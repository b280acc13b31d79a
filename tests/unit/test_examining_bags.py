"""What a bag's own files and a list of what is in it tell, before its payload is read."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest

from shardtool.disk.copy import Entry
from shardtool.snapshots import bag
from shardtool.snapshots.metadata import Metadata
from shardtool.snapshots.verify import Examined, Problem, examine

ID, OTHER_ID = "20261124T175153Z", "20261124T175153Z-2"
ENTRIES = (
    Entry("raft", "directory", 0o700, 0, 0, 0, 1),
    Entry("raft/log", "file", 0o600, 0, 0, 4, 2),
    Entry("wal", "directory", 0o755, 0, 0, 0, 3),
    Entry("wal/current", "link", 0o777, 0, 0, 0, 4, "log.1"),
    Entry("wal/empty", "file", 0o644, 0, 0, 0, 5),
    Entry("wal/log.1", "file", 0o644, 0, 0, 7, 6),
)
FILES = ("data/raft/log", "data/wal/empty", "data/wal/log.1")
DIRECTORIES = ("data", "data/raft", "data/wal")
MANIFESTS = (bag.MANIFEST, bag.TAG_MANIFEST)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


DIGESTS = {path: sha256(path.encode()) for path in FILES}


def file(path: str, size: int = 0) -> Entry:
    return Entry(path, "file", 0o600, 0, 0, size, 0)


def directory(path: str) -> Entry:
    return Entry(path, "directory", 0o700, 0, 0, 0, 0)


@dataclass
class Bag:
    """A sound bag as it is found, which a test then harms: tag files, and what a survey lists."""

    tags: dict[str, bytes]
    found: dict[str, Entry] = field(default_factory=dict)

    def put(self, *entries: Entry) -> Bag:
        """Have a survey find these."""
        self.found |= {entry.path: entry for entry in entries}
        return self

    def without(self, path: str) -> Bag:
        """Leave out a file or directory."""
        self.tags.pop(path, None)
        del self.found[path]
        return self

    def signed(self) -> Bag:
        """Write a tag manifest that covers what the tag files are now."""
        digests = {name: sha256(self.tags[name]) for name in bag.TAG_FILES}
        self.tags[bag.TAG_MANIFEST] = bag.manifest(digests)
        return self

    def examined(self, *problems: Problem, only_files: bool = False) -> Examined:
        """Return what is made of it."""
        found = sorted(self.found.values(), key=lambda entry: entry.path)
        return examine(self.tags, found, ID, problems, only_files=only_files)

    def told(self) -> list[tuple[str, str]]:
        """Return all that is wrong, path and words."""
        return [(problem.path, problem.what) for problem in self.examined().problems]


def made(digests: Mapping[str, str] = DIGESTS, *more: Entry) -> Bag:
    """Make a bag of the entries above, of which the manifest has `digests`."""
    metadata = Metadata(ID, False, {"raft": "/r"}, (*ENTRIES, *more))
    tags = bag.tag_files(metadata, digests)
    sound = Bag(tags).put(*(directory(path) for path in DIRECTORIES), *(file(tag) for tag in tags))
    return sound.put(*(file(f"data/{entry.path}", entry.size) for entry in metadata.files))


def test_of_a_sound_one_nothing_is_told_and_all_of_it_is_to_be_read() -> None:
    sound = made()
    examined = sound.examined()
    assert examined.problems == []
    assert examined.metadata is not None
    assert (examined.metadata.id, examined.metadata.entries) == (ID, ENTRIES)
    assert (examined.digests, examined.readable) == (DIGESTS, FILES)
    assert examined.sha256 == sha256(sound.tags[bag.TAG_MANIFEST])


@pytest.mark.parametrize("name", [*bag.TAG_FILES, bag.TAG_MANIFEST])
def test_no_byte_of_its_own_files_can_be_another_or_lacking(name: str) -> None:
    sound = made()
    content = sound.tags[name]
    for at in range(len(content)):
        sound.tags[name] = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        assert sound.told(), f"byte {at}"
        sound.tags[name] = content[:at]
        assert sound.told(), f"cut at {at}"


@pytest.mark.parametrize("path", [bag.DECLARATION, bag.INFO, *FILES, *DIRECTORIES])
def test_what_is_missing_is_told_once(path: str) -> None:
    assert made().without(path).told() == [(path, "missing")]


def test_what_is_missing_hides_no_harm_to_another() -> None:
    harmed = made().without(bag.DECLARATION)
    written = sha256(harmed.tags[bag.METADATA])
    harmed.tags[bag.METADATA] += b"\n"
    found = sha256(harmed.tags[bag.METADATA])
    assert harmed.told() == [
        (bag.METADATA, f"its SHA-256 is {found}, {bag.TAG_MANIFEST} has {written}"),
        (bag.DECLARATION, "missing"),
    ]


def test_without_a_tag_manifest_nothing_vouches_for_the_tag_files() -> None:
    harmed = made().without(bag.TAG_MANIFEST)
    assert harmed.told() == [
        *(
            (name, f"its SHA-256 is {sha256(harmed.tags[name])}, {bag.TAG_MANIFEST} has no line")
            for name in bag.TAG_FILES
        ),
        (bag.TAG_MANIFEST, "missing"),
    ]
    assert harmed.examined().sha256 == ""


def test_without_a_manifest_nothing_is_read() -> None:
    harmed = made().without(bag.MANIFEST)
    assert harmed.told() == [
        (bag.MANIFEST, "missing"),
        *((path, f"not in {bag.MANIFEST}") for path in FILES),
    ]
    assert harmed.examined().readable == ()


def test_without_metadata_the_payload_is_held_against_the_manifest() -> None:
    harmed = made().put(file("data/more")).without(bag.METADATA).without("data/wal/log.1")
    assert harmed.told() == [
        ("data/wal/log.1", "missing"),
        (bag.METADATA, "missing"),
        ("data/more", "extra: a file that no manifest names"),
    ]
    examined = harmed.examined()
    assert (examined.metadata, examined.readable) == (None, FILES[:2])


def test_metadata_that_can_not_be_read_is_told_and_hides_nothing_else() -> None:
    harmed = made().without("data/wal/log.1")
    harmed.tags[bag.METADATA] = b"{}"
    assert harmed.signed().told() == [
        (bag.METADATA, "no metadata of a snapshot (KeyError: 'schema')"),
        ("data/wal/log.1", "missing"),
    ]
    assert harmed.examined().metadata is None


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_that_can_not_be_read_is_told_with_its_line(name: str) -> None:
    harmed = made()
    harmed.tags[name] += b"no line\n"
    number = harmed.tags[name].count(b"\n")
    assert (name, f"line {number} is not 'SHA-256  path'") in harmed.told()


@pytest.mark.parametrize("name", bag.TAG_FILES)
def test_of_a_tag_file_of_other_bytes_both_digests_are_told(name: str) -> None:
    harmed = made()
    written = sha256(harmed.tags[name])
    harmed.tags[name] = harmed.tags[name].replace(b"\n", b"\n ", 1)
    found = sha256(harmed.tags[name])
    assert (
        name,
        f"its SHA-256 is {found}, {bag.TAG_MANIFEST} has {written}",
    ) in harmed.told()


def test_another_snapshot_under_this_name_is_told_by_its_id() -> None:
    harmed = made()
    harmed.tags |= bag.tag_files(Metadata(OTHER_ID, False, {"raft": "/r"}, ENTRIES), DIGESTS)
    assert harmed.told() == [(bag.METADATA, f"is of another snapshot: {OTHER_ID!r}")]


def test_another_declaration_is_told() -> None:
    harmed = made()
    harmed.tags[bag.DECLARATION] = bag.DECLARED.replace(b"1.0", b"0.9")
    words = "is not that of a BagIt 1.0 bag in UTF-8"
    assert harmed.signed().told() == [(bag.DECLARATION, words)]


@pytest.mark.parametrize("oxum", [b"11.2", b"12.3", b"111.3", b"11.33"])
def test_another_oxum_than_the_metadatas_is_told(oxum: bytes) -> None:
    harmed = made()
    line = b"Payload-Oxum: 11.3\n"
    assert line in harmed.tags[bag.INFO]
    harmed.tags[bag.INFO] = harmed.tags[bag.INFO].replace(line, b"Payload-Oxum: %s\n" % oxum)
    words = "its Payload-Oxum is not the metadata's"
    assert harmed.signed().told() == [(bag.INFO, words)]


@pytest.mark.parametrize(
    ("path", "size", "expected"), [("data/wal/log.1", 8, 7), ("data/wal/log.1", 0, 7)]
)
def test_a_file_of_another_length_is_told_and_not_read(path: str, size: int, expected: int) -> None:
    harmed = made().put(file(path, size))
    assert harmed.told() == [(path, f"has {size} bytes, expected {expected}")]
    assert harmed.examined().readable == FILES[:2]


@pytest.mark.parametrize("kind", ["link", "fifo", "socket", "device", "directory"])
@pytest.mark.parametrize("path", ["data/wal/log.1", bag.INFO])
def test_what_is_no_file_where_one_should_be_is_told_and_not_read(path: str, kind: str) -> None:
    harmed = made().put(replace(file(path), kind=kind))
    assert harmed.told() == [(path, f"is a {kind}, expected a file")]
    assert path not in harmed.examined().readable


def test_what_stands_in_a_directorys_place_is_told_before_what_it_hides() -> None:
    harmed = made().without("data/wal/empty").without("data/wal/log.1")
    harmed.put(replace(file("data/wal"), kind="link"))
    assert harmed.told() == [
        ("data/wal", "is a link, expected a directory"),
        ("data/wal/empty", "missing"),
        ("data/wal/log.1", "missing"),
    ]


def test_a_directory_that_can_not_be_listed_is_told_with_the_systems_reason() -> None:
    harmed = made().without("data/raft/log")
    harmed.put(Entry("data/raft", "unreadable", 0, 0, 0, 0, 0, "Permission denied"))
    assert harmed.told() == [
        ("data/raft/log", "missing"),
        ("data/raft", "unreadable: Permission denied"),
    ]


@pytest.mark.parametrize("kind", ["file", "directory", "link", "fifo"])
@pytest.mark.parametrize("path", ["more", "data/more", "data/wal/more"])
def test_what_was_added_is_told(path: str, kind: str) -> None:
    harmed = made().put(replace(file(path), kind=kind))
    assert harmed.told() == [(path, f"extra: a {kind} that no manifest names")]


def test_a_link_is_in_the_metadata_alone() -> None:
    """In the bag it would lead sha256sum and bagit elsewhere."""
    harmed = made().put(replace(file("data/wal/current"), kind="link"))
    words = "extra: a link that no manifest names"
    assert harmed.told() == [("data/wal/current", words)]


def test_a_file_that_the_manifest_alone_names_is_told_and_read_all_the_same() -> None:
    digests = {**DIGESTS, "data/wal/more": sha256(b"more")}
    harmed = made(digests).put(file("data/wal/more", 4))
    assert harmed.told() == [("data/wal/more", f"not in {bag.METADATA}")]
    assert harmed.examined().readable == tuple(digests)


def test_a_file_that_the_metadata_alone_names_is_told() -> None:
    harmed = made(DIGESTS, file("wal/more", 4))
    assert harmed.told() == [("data/wal/more", f"not in {bag.MANIFEST}")]
    assert harmed.examined().readable == FILES


def test_where_there_are_no_directories_none_is_missed() -> None:
    objects = made()
    for path in DIRECTORIES:
        objects.without(path)
    assert objects.examined(only_files=True).problems == []
    objects.put(file("data/raft"))
    assert objects.examined(only_files=True).problems == [
        Problem("data/raft", "extra: a file that no manifest names")
    ]


def test_what_was_known_before_is_told_first() -> None:
    known = Problem(bag.INFO, "unreadable: Permission denied")
    harmed = made().without("data/wal/log.1")
    problems = harmed.examined(known).problems
    assert problems == [known, Problem("data/wal/log.1", "missing")]
