"""Read a snapshot again, every byte of it, and say what is not as it was written."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from shardtool.disk.copy import Entry, Meter, Reader, opened_below, read_bounded, survey
from shardtool.disk.durable import READ_DIRECTORY_ITSELF, opened_quietly
from shardtool.snapshots import bag
from shardtool.snapshots.metadata import MOST_BYTES, DamagedError, Metadata, decoded
from shardtool.snapshots.store import describe


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: the file's path in the snapshot, and what differs."""

    path: str
    what: str


@dataclass(frozen=True)
class Verification:
    """What reading a snapshot again has shown.

    Args:
        id: its name.
        problems: all that is wrong; none for a good one.
        metadata: what it says of itself, where that can be read.
        digests: SHA-256 in hex of each payload file, by its path in the bag.
        sha256: of its tag manifest, and so of everything in it; empty where that is missing.
    """

    id: str
    problems: tuple[Problem, ...] = ()
    metadata: Metadata | None = None
    digests: Mapping[str, str] = field(default_factory=dict)
    sha256: str = ""

    @property
    def good(self) -> bool:
        """Every byte is what was written, nothing is missing, nothing was added."""
        return not self.problems


def verify(store: int, name: str, meter: Meter, *, identity: str = "") -> Verification:
    """Read snapshot `name` in the store that descriptor `store` is open on.

    The payload is read from the disk, not from memory. No link in it is followed.

    Args:
        store: the store's directory.
        name: the snapshot's directory.
        meter: makes what counts the bytes.
        identity: the id that its metadata must have, where that is not its name (yet).

    Returns:
        What is wrong, or the verified metadata and digests. It raises nothing for what is in
        the snapshot: what can't be read is among its problems.
    """
    try:
        with opened_quietly(name, READ_DIRECTORY_ITSELF, dir_fd=store) as descriptor:
            return _verify_bag(descriptor, identity or name, meter)
    except OSError as error:
        return Verification(name, (Problem(name, f"unreadable: {describe(error)}"),))


def _verify_bag(directory: int, name: str, meter: Meter) -> Verification:
    found = survey(directory)
    unread: list[Problem] = []
    tags = _read_tag_files(directory, unread)
    examined = examine(tags, found, name, unread)
    problems, digests, metadata = examined.problems, examined.digests, examined.metadata
    present = {entry.path: entry for entry in found if entry.kind == "file"}
    readable = examined.readable
    total = sum(present[path].size for path in readable)
    with Reader() as reader, meter("verifying", total) as counter:
        for path in readable:
            try:
                with opened_below(directory, path) as file:
                    # One byte more than it had: who writes to it now shall not have us read on.
                    most = present[path].size + 1
                    digest, _ = reader.digest_from_disk(file, counter, most=most)
            except OSError as error:
                problems.append(Problem(path, f"unreadable: {describe(error)}"))
                continue
            problems += differences(path, digest, digests[path])
    return Verification(name, tuple(problems), metadata, digests, examined.sha256)


def differences(path: str, found: str, expected: str) -> list[Problem]:
    """Given two SHA-256 in hex of one file, return the problem, where there is one."""
    if found == expected:
        return []
    return [Problem(path, f"its SHA-256 is {found}, expected {expected}")]


@dataclass(frozen=True)
class Examined:
    """What a bag's tag files and a list of what is in it tell, before its payload is read.

    Args:
        problems: all that is wrong so far.
        metadata: what it says of itself, where that can be read.
        digests: SHA-256 in hex of each payload file, by its path in the bag.
        readable: the paths of the payload to read: there, and of the length that they must have.
        sha256: of its tag manifest; empty where that is missing.
    """

    problems: list[Problem]
    metadata: Metadata | None
    digests: Mapping[str, str]
    readable: tuple[str, ...]
    sha256: str


def examine(
    tags: Mapping[str, bytes],
    found: list[Entry],
    name: str,
    problems: Sequence[Problem] = (),
    *,
    only_files: bool = False,
) -> Examined:
    """Given a bag's tag files and a list of all that is in it, say what is wrong. Pure.

    Args:
        tags: their content by name; a missing one is left out.
        found: every file and directory in the bag, as survey lists them.
        name: the id that its metadata must have.
        problems: what is known to be wrong already.
        only_files: the bag lies where there are no directories, and none is missed.
    """
    all_wrong = [*problems]
    digests = _manifest_in(tags, bag.MANIFEST, all_wrong)
    metadata = _metadata_in(tags, name, all_wrong)
    _check_tag_files(tags, metadata, all_wrong)
    all_wrong += _structure_problems(found, digests, metadata, only_files=only_files)
    present = {entry.path: entry.size for entry in found if entry.kind == "file"}
    # A file whose length is wrong is told already, and it may be of any length.
    sizes = _sizes(metadata)
    readable = tuple(
        path
        for path in digests
        if path in present and present[path] == sizes.get(path, present[path])
    )
    whole = hashlib.sha256(tags[bag.TAG_MANIFEST]).hexdigest() if bag.TAG_MANIFEST in tags else ""
    return Examined(all_wrong, metadata, digests, readable, whole)


def _read_tag_files(directory: int, problems: list[Problem]) -> dict[str, bytes]:
    tags = {}
    for name in (*bag.TAG_FILES, bag.TAG_MANIFEST):
        try:
            tags[name] = read_bounded(name, MOST_BYTES, dir_fd=directory)
        except FileNotFoundError:
            pass  # told as missing with the rest of the structure
        except OSError as error:
            problems.append(Problem(name, f"unreadable: {describe(error)}"))
    return tags


def _manifest_in(tags: Mapping[str, bytes], name: str, problems: list[Problem]) -> dict[str, str]:
    try:
        return bag.parsed_manifest(tags.get(name, b""))
    except DamagedError as error:
        problems.append(Problem(name, str(error)))
        return {}


def _metadata_in(tags: Mapping[str, bytes], name: str, problems: list[Problem]) -> Metadata | None:
    if bag.METADATA not in tags:
        return None
    try:
        found = decoded(tags[bag.METADATA])
    except DamagedError as error:
        problems.append(Problem(bag.METADATA, str(error)))
        return None
    if found.id != name:
        problems.append(Problem(bag.METADATA, f"is of another snapshot: {found.id!r}"))
    return found


def _check_tag_files(
    tags: Mapping[str, bytes], metadata: Metadata | None, problems: list[Problem]
) -> None:
    expected = _manifest_in(tags, bag.TAG_MANIFEST, problems)
    for name in bag.TAG_FILES:
        if name not in tags:
            continue
        digest = hashlib.sha256(tags[name]).hexdigest()
        if digest != expected.get(name):
            listed = expected.get(name, "no line")
            problems.append(
                Problem(name, f"its SHA-256 is {digest}, {bag.TAG_MANIFEST} has {listed}")
            )
    if tags.get(bag.DECLARATION, bag.DECLARED) != bag.DECLARED:
        problems.append(Problem(bag.DECLARATION, "is not that of a BagIt 1.0 bag in UTF-8"))
    line = f"\nPayload-Oxum: {bag.oxum(metadata)}\n".encode() if metadata else b""
    if bag.INFO in tags and line not in tags[bag.INFO]:
        problems.append(Problem(bag.INFO, "its Payload-Oxum is not the metadata's"))


def _sizes(metadata: Metadata | None) -> dict[str, int]:
    """Return the length of each payload file, by its path in the bag, where that is known."""
    entries = metadata.files if metadata is not None else ()
    return {f"{bag.PAYLOAD}/{entry.path}": entry.size for entry in entries}


def _directories(metadata: Metadata | None) -> set[str]:
    """Return the directories of a bag, by their paths in it, as far as they are known."""
    entries = metadata.entries if metadata is not None else ()
    named = {f"{bag.PAYLOAD}/{entry.path}" for entry in entries if entry.kind == "directory"}
    return {bag.PAYLOAD} | named


def _structure_problems(
    found: list[Entry],
    digests: Mapping[str, str],
    metadata: Metadata | None,
    *,
    only_files: bool,
) -> list[Problem]:
    """Given what is in a bag and what its manifest and metadata tell, return what is wrong."""
    files = {*bag.TAG_FILES, bag.TAG_MANIFEST, *digests}
    sizes = _sizes(metadata)
    files |= set(sizes)
    directories = set() if only_files else _directories(metadata)
    wanted = dict.fromkeys(files, "file") | dict.fromkeys(directories, "directory")
    kinds = {entry.path: entry.kind for entry in found}
    # What is something else comes first: it is why all below it is missing.
    problems = [
        Problem(entry.path, f"is a {entry.kind}, expected a {wanted[entry.path]}")
        for entry in found
        if entry.kind not in ("unreadable", wanted.get(entry.path, entry.kind))
    ]
    problems += [Problem(path, "missing") for path in sorted(wanted.keys() - kinds.keys())]
    for entry in found:
        expected = wanted.get(entry.path)
        if entry.kind == "unreadable":
            problems.append(Problem(entry.path, f"unreadable: {entry.target}"))
        elif expected is None and (metadata is not None or entry.kind != "directory"):
            problems.append(Problem(entry.path, f"extra: a {entry.kind} that no manifest names"))
        elif entry.kind == "file" and entry.size != sizes.get(entry.path, entry.size):
            problems.append(
                Problem(entry.path, f"has {entry.size} bytes, expected {sizes[entry.path]}")
            )
    unlisted = sorted(sizes.keys() - digests.keys())
    unknown = sorted(digests.keys() - sizes.keys()) if metadata is not None else []
    problems += [Problem(path, f"not in {bag.MANIFEST}") for path in unlisted]
    problems += [Problem(path, f"not in {bag.METADATA}") for path in unknown]
    return problems
