"""The layout of a snapshot as a BagIt 1.0 bag (RFC 8493), read by sha256sum and by bagit too.

Pure: names, manifests and tag files as bytes; snapshots.backup writes them, .verify reads them.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping

from shardtool import __version__
from shardtool.snapshots.metadata import DamagedError, Metadata, created_at

PAYLOAD = "data"
DECLARATION = "bagit.txt"
INFO = "bag-info.txt"
MANIFEST = "manifest-sha256.txt"
TAG_MANIFEST = "tagmanifest-sha256.txt"
METADATA = "shardtool.json"
# All that the tag manifest covers: everything but the payload and itself.
TAG_FILES = (DECLARATION, INFO, MANIFEST, METADATA)

DECLARED = b"BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"

_LINE = re.compile(r"([0-9a-f]{64})  ([^\n]+)", re.ASCII)


def problem_with_name(path: str) -> str:
    """Given a path, say why a manifest can't carry it for all its readers, or return ''.

    sha256sum takes a line as it stands, bagit strips it, splits at every line break Unicode
    knows, and decodes %0A; RFC 8493 wants % encoded, which sha256sum does not decode.

    Example: 'raft/log' -> '', 'raft/a\\nb' -> 'a line break in its name'
    """
    if any(0xDC80 <= ord(character) <= 0xDCFF for character in path):
        return "bytes that are no UTF-8 in its name"
    if len((path + ".").splitlines()) > 1:
        return "a line break in its name"
    if "%" in path:
        return "a % in its name"
    if path != path.rstrip():
        return "white space at the end of its name"
    return ""


def problem_with_names(paths: Iterable[str]) -> tuple[str, str] | None:
    """Return the first path that a manifest can't carry, and why, or None.

    Two names that differ only in Unicode normalization are one to bagit.
    """
    seen: dict[str, str] = {}
    for path in paths:
        problem = problem_with_name(path)
        if problem:
            return path, problem
        twin = seen.setdefault(unicodedata.normalize("NFC", path), path)
        if twin != path:
            return path, "a name that differs from another only in Unicode normalization"
    return None


def manifest(digests: Mapping[str, str]) -> bytes:
    """Given SHA-256 in hex by path, return a manifest's bytes, sorted by path."""
    lines = (f"{digest}  {path}\n" for path, digest in sorted(digests.items()))
    return "".join(lines).encode("utf-8")


def parsed_manifest(content: bytes) -> dict[str, str]:
    """Given a manifest's bytes, return SHA-256 in hex by path.

    Raises:
        DamagedError: a line is none, or its path leads out of the bag or stands twice.
    """
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DamagedError(f"bytes that are no UTF-8 at offset {error.start}") from None
    if text and not text.endswith("\n"):
        raise DamagedError("a last line that is cut off")
    found: dict[str, str] = {}
    for number, line in enumerate(text.split("\n")[:-1], 1):
        match = _LINE.fullmatch(line)
        if not match:
            raise DamagedError(f"line {number} is not 'SHA-256  path'")
        path = match[2]
        if any(part in ("", ".", "..") for part in path.split("/")) or "\0" in path:
            raise DamagedError(f"line {number} has a path that leads out of the bag: {path[:80]!r}")
        if path in found:
            raise DamagedError(f"line {number} names {path[:80]!r} a second time")
        found[path] = match[1]
    return found


def oxum(metadata: Metadata) -> str:
    """Return the bag's Payload-Oxum: 'BYTES.FILES'."""
    return f"{metadata.payload_bytes}.{len(metadata.files)}"


def tag_files(metadata: Metadata, digests: Mapping[str, str]) -> dict[str, bytes]:
    """Return the content of all tag files, the tag manifest among them.

    Args:
        metadata: of the snapshot.
        digests: SHA-256 in hex of each payload file, by its path in the bag.
    """
    info = (
        f"Bag-Software-Agent: shardtool {__version__}\n"
        f"Bagging-Date: {created_at(metadata.id)[:10]}\n"
        f"External-Description: {'live ' * metadata.live}snapshot of InfluxDB's raft and wal\n"
        f"External-Identifier: {metadata.id}\n"
        f"Payload-Oxum: {oxum(metadata)}\n"
    )
    files = {
        DECLARATION: DECLARED,
        INFO: info.encode("ascii"),
        MANIFEST: manifest(digests),
        METADATA: metadata.encoded(),
    }
    tags = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    return {**files, TAG_MANIFEST: manifest(tags)}
