"""The raft directory: the log of commands, the snapshots, the server's name (FORMATS.md, "raft/").

Knows how they are written and what is complete, not what a command means: replay.py does.
Everything is read through descriptors that follow no link and leave no access time.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from shardtool.disk.durable import READ_DIRECTORY_ITSELF, opened_quietly
from shardtool.disk.files import is_zero, opened_file, zeros_until_end
from shardtool.errors import reason_of
from shardtool.influxdb import messages
from shardtool.influxdb.errors import CatalogueError, LogError

MAX_LOG = 1 << 30
MAX_SNAPSHOT = 256 << 20
MAX_NAME = 4096
_MAX_ENTRY = 64 << 20
_HEAD_SIZE = 9
_HEAD = re.compile(rb" {0,7}[0-9a-f]{1,8}\n")
# How an entry begins. A command's JSON has no newline but its last byte, so inside of one entry
# this can't occur.
_NEXT = re.compile(rb"[ 0-9a-f]{7}[0-9a-f]\n\x08")
_CHUNK = 1 << 20
_SNAPSHOT_NAME = re.compile(r"(\d{1,20})_(\d{1,20})\.ss")
_REPAIR = "restore raft from a snapshot (shardtool restore), or ask a running 0.8 over HTTP"


@dataclass(frozen=True)
class Entry:
    """One entry of the log. `offset` is where its head begins."""

    index: int
    term: int
    name: str
    command: bytes | None
    offset: int


@dataclass(frozen=True)
class Snapshot:
    """What raft knew after the entry `last_index`. `state` is a gob, see gob.py."""

    last_index: int
    last_term: int
    state: bytes


@dataclass(frozen=True)
class SnapshotFile:
    """A snapshot's file, as its name says. It may hold anything."""

    path: Path
    term: int
    index: int


def entries(raft: Path) -> Iterator[Entry]:
    """Read the log of the raft directory `raft`, entry by entry (FORMATS.md, "raft/", `log`).

    The server cuts a torn tail off, and so does this: an entry that ends after the file, a part
    of a head, or nothing but zero bytes.

    Yields:
        The entries in order.

    Raises:
        CatalogueError: there is no log, it can't be read, or there is garbage in its middle.
    """
    path = raft / "log"
    try:
        with opened_file(path, MAX_LOG) as (file, size):
            yield from parse_log(file, size)
    except LogError as error:
        raise CatalogueError(f"{path}: {error}; {_REPAIR}") from None
    except OSError as error:
        raise CatalogueError(
            f"{path}: expected the raft log, found: {reason_of(error)}; {_advice(error)}"
        ) from None


def parse_log(file: BinaryIO, size: int) -> Iterator[Entry]:
    """Read the entries of a log of `size` bytes from a seekable file at its beginning.

    Raises:
        LogError: at garbage that no torn write explains.
    """
    offset = 0
    previous: int | None = None
    while (head := file.read(_HEAD_SIZE)) and len(head) == _HEAD_SIZE:
        if not _HEAD.fullmatch(head):
            if is_zero(head) and zeros_until_end(file):
                return
            raise LogError(offset, f"expected 8 hex digits and a newline, found {head!r}")
        length = int(head[:8], 16)
        if offset + _HEAD_SIZE + length > size:
            _require_torn(file, offset, length)
            return
        if length > _MAX_ENTRY:
            raise LogError(offset, f"expected up to {_MAX_ENTRY} bytes, found {length}")
        body = file.read(length)
        if len(body) < length:
            return  # cut while it is being read
        try:
            entry = _entry(body, offset)
        except LogError:
            # A file that grew before its content was on disk ends in zeros.
            if is_zero(body) and zeros_until_end(file):
                return
            raise
        if previous is not None and entry.index != previous + 1:
            raise LogError(offset, f"expected the entry {previous + 1}, found {entry.index}")
        yield entry
        previous = entry.index
        offset += _HEAD_SIZE + length


def _entry(body: bytes, offset: int) -> Entry:
    try:
        found = messages.parse("LogEntry", body)
    except messages.MessageError as error:
        raise LogError(offset, str(error)) from None
    if not (found.HasField("index") and found.HasField("command_name")):
        raise LogError(offset, f"expected an index and a command's name, found {body[:40]!r}")
    return Entry(
        index=found.index,
        term=found.term,
        name=messages.text(found.command_name),
        command=found.command if found.HasField("command") else None,
        offset=offset,
    )


def _require_torn(file: BinaryIO, offset: int, length: int) -> None:
    """Raise LogError where whole entries follow one that claims to end after the file."""
    kept = b""
    while chunk := file.read(_CHUNK):
        if _NEXT.search(kept + chunk):
            raise LogError(
                offset, f"expected an entry, found one of {length} bytes with others in it"
            )
        kept = chunk[-_HEAD_SIZE:]


# -- snapshots --


def snapshot_files(raft: Path) -> list[SnapshotFile]:
    """Return the snapshots of the raft directory `raft` by their names, the newest first.

    The server takes the last in the order of their names as text, which for 1_9 beside 1_35 is
    the older one; it removes the older one right after writing the newer, so that rarely matters.

    Raises:
        CatalogueError: the directory is there and can't be read.
    """
    directory = raft / "snapshot"
    try:
        with opened_quietly(directory, READ_DIRECTORY_ITSELF) as descriptor:
            names = os.listdir(descriptor)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CatalogueError(
            f"{directory}: expected a directory of snapshots, found: {reason_of(error)}; "
            f"{_advice(error)}"
        ) from None
    found = [
        SnapshotFile(directory / name, int(match[1]), int(match[2]))
        for name in names
        if (match := _SNAPSHOT_NAME.fullmatch(name))
    ]
    return sorted(found, key=lambda file: (file.index, file.term), reverse=True)


def read_snapshot(file: SnapshotFile) -> Snapshot:
    """Read one snapshot (FORMATS.md, "raft/", `snapshot/TERM_INDEX.ss`).

    Raises:
        ValueError: it is not valid: the message says what was expected and found, without path.
    """
    try:
        with opened_file(file.path, MAX_SNAPSHOT) as (content, size):
            snapshot = parse_snapshot(content.read(size))
    except OSError as error:
        raise ValueError(f"expected a snapshot, found: {reason_of(error)}") from None
    if (snapshot.last_term, snapshot.last_index) != (file.term, file.index):
        raise ValueError(
            f"expected a snapshot of term {file.term} and index {file.index}, as its name says, "
            f"found {snapshot.last_term} and {snapshot.last_index}"
        )
    return snapshot


def parse_snapshot(data: bytes) -> Snapshot:
    """Check and take apart the content of a snapshot's file.

    Raises:
        ValueError: its checksum is wrong, or it is none.
    """
    head, body = data[:_HEAD_SIZE], data[_HEAD_SIZE:]
    checksum = b"%08x\n" % zlib.crc32(body)
    if head != checksum:
        raise ValueError(f"expected the checksum {checksum!r}, found {head!r}")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"expected JSON, found: {error}") from None
    if not isinstance(document, dict):
        raise ValueError(f"expected an object, found {type(document).__name__}")
    last_index, last_term = document.get("lastIndex"), document.get("lastTerm")
    state = document.get("state")
    if type(last_index) is not int or type(last_term) is not int or not isinstance(state, str):
        raise ValueError("expected lastIndex, lastTerm and state, found others")
    try:
        decoded = base64.b64decode(state, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"expected a state in base64, found: {error}") from None
    return Snapshot(last_index, last_term, decoded)


# -- the server's own name --


def own_name(raft: Path) -> str | None:
    """Return the name of the server whose raft directory this is; None where none is written.

    Raises:
        CatalogueError: the file is there and can't be read.
    """
    path = raft / "name"
    try:
        with opened_file(path, MAX_NAME) as (file, size):
            return file.read(size).decode("utf-8", "surrogateescape").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CatalogueError(
            f"{path}: expected the server's name, found: {reason_of(error)}; {_advice(error)}"
        ) from None


def _advice(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "run this as the server's user or as root"
    return _REPAIR
