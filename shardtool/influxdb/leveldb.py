"""What RocksDB, reading a LevelDB, passes over in silence: logs and manifests that are cut short.

To RocksDB a record with a wrong length at the end of a log is a torn tail, a type that only its
own recycled logs have is the end of an older log, zeros are room that was preallocated, and a
log that is not there holds nothing. LevelDB itself thinks no better. Here each of them would be
a shard that is proven by half of its values. So the files' structure is looked at first; what is
in the records, and their checksums, are RocksDB's matter.

Source: LevelDB's doc/log_format.md, version_edit.cc and filename.cc.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

BLOCK = 32 * 1024
_HEADER = struct.Struct("<IHB")  # masked CRC-32C of type and content, length, type
_FIRST, _MIDDLE, _LAST = 2, 3, 4  # 1 is a whole record
_LOG = re.compile(r"\d+\.log")
_MASK_DELTA = 0xA282EAD8
# VersionEdit's tags, and what follows each: n a number, s a string with its length before it.
_EDITS = {1: "s", 2: "n", 3: "n", 4: "n", 5: "ns", 6: "nn", 7: "nnnss", 9: "n"}
_LOG_NUMBER = 2


class LogError(ValueError):
    """A log or a manifest is not whole: which file, where, and what was found."""


def check_logs(directory: Path) -> frozenset[str]:
    """Insist that the logs of a LevelDB or a RocksDB are whole, and return their names.

    RocksDB's have the same form: what it has added since needs options that InfluxDB never sets.

    Args:
        directory: the database, or links to its files.

    Raises:
        LogError: something is wrong with one of them.
        OSError: one can't be read.
    """
    logs = frozenset(path.name for path in directory.iterdir() if _LOG.fullmatch(path.name))
    for name in sorted(logs):
        with (directory / name).open("rb") as file:
            for _ in records(file, name, may_be_torn=True):
                pass
    return logs


def check(directory: Path) -> None:
    """Insist that a LevelDB's logs and its manifest are whole, and the log that it names is there.

    Args:
        directory: the database, or links to its files. What has no CURRENT is left to the engine.

    Raises:
        LogError: something is wrong with one of them.
        OSError: one can't be read.
    """
    logs = check_logs(directory)
    try:
        manifest = (directory / "CURRENT").read_bytes().decode("ascii").strip()
    except (FileNotFoundError, UnicodeDecodeError):
        return
    if not re.fullmatch(r"MANIFEST-\d+", manifest) or not (directory / manifest).is_file():
        return
    with (directory / manifest).open("rb") as file:
        number = log_number(records(file, manifest, may_be_torn=False))
    if number and logs.isdisjoint({f"{number:06d}.log", f"{number}.log"}):
        raise LogError(f"{manifest}: expected the log {number:06d}.log, found none")


def records(file: BinaryIO, name: str, *, may_be_torn: bool) -> Iterator[bytes]:
    """Yield the records of a file in LevelDB's log format; their checksums are not looked at.

    Args:
        file: open at its beginning.
        name: for messages.
        may_be_torn: the writer may have died in the midst of the last record.

    Raises:
        LogError: it goes on after something that a reader would take for its end, or, where it
            may not be torn, it is.
    """
    parts: list[bytes] = []
    start = 0
    torn = False
    zeros_from: int | None = None
    while block := file.read(BLOCK):
        at = 0
        while not torn and zeros_from is None and len(block) - at >= _HEADER.size:
            _, length, kind = _HEADER.unpack_from(block, at)
            where = f"{name}: at offset {start + at}"
            if kind == 0 and length == 0:
                zeros_from = start + at
                break
            if not 1 <= kind <= 4:
                raise LogError(f"{where}: expected a record of type 1 to 4, found {kind}")
            end = at + _HEADER.size + length
            if end > BLOCK:
                raise LogError(f"{where}: expected a record within its block, found {length} bytes")
            if (kind in (_MIDDLE, _LAST)) != bool(parts):
                raise LogError(f"{where}: expected another part of a record, found type {kind}")
            if end > len(block):
                if _hides_a_record(block, at):
                    raise LogError(f"{where}: expected a record's length, found {length}")
                torn = True
                break
            parts.append(block[at + _HEADER.size : end])
            at = end
            if kind not in (_FIRST, _MIDDLE):
                yield b"".join(parts)
                parts = []
        if zeros_from is not None and any(block[max(zeros_from - start, 0) :]):
            raise LogError(f"{name}: at offset {zeros_from}: expected a record, found zeros")
        torn = torn or (len(block) < BLOCK and at < len(block) and zeros_from is None)
        start += len(block)
    if (torn or parts) and not may_be_torn:
        raise LogError(f"{name}: expected a whole record at its end, at offset {start}")


def _hides_a_record(block: bytes, at: int) -> bool:
    """Given a record that seems to go on after the end of the file, say whether it is no torn one.

    It is none if its own content is whole, and only its length wrong, or if whole records follow
    it up to the end.
    """
    crc, _, kind = _HEADER.unpack_from(block, at)
    if _is_crc_of(crc, kind, block[at + _HEADER.size :]):
        return True
    leads_to_end = {len(block)}
    for place in range(len(block) - _HEADER.size, at, -1):
        if not 1 <= block[place + 6] <= 4:
            continue
        crc, length, kind = _HEADER.unpack_from(block, place)
        end = place + _HEADER.size + length
        if end in leads_to_end and _is_crc_of(crc, kind, block[place + _HEADER.size : end]):
            return True
    return False


def _is_crc_of(masked: int, kind: int, content: bytes) -> bool:
    crc = _crc32c(bytes([kind]) + content)
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF == masked


def _crc32c(data: bytes) -> int:
    table = _crc_table()
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


@lru_cache(maxsize=1)
def _crc_table() -> list[int]:
    table = []
    for number in range(256):
        for _ in range(8):
            number = number >> 1 ^ (0x82F63B78 if number & 1 else 0)  # noqa: PLW2901
        table.append(number)
    return table


def log_number(edits: Iterator[bytes]) -> int:
    """Return the number of the oldest log that a manifest still needs; 0 where it names none.

    An edit of a kind that LevelDB does not write ends the search: then it is not known.
    """
    found = 0
    for edit in edits:
        at = 0
        try:
            while at < len(edit):
                tag, at = _uvarint(edit, at)
                for kind in _EDITS[tag]:
                    number, at = _uvarint(edit, at)
                    if kind == "s":
                        at += number
                if tag == _LOG_NUMBER:
                    found = number
        except (KeyError, IndexError):
            return 0
    return found


def _uvarint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
