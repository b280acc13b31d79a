"""What RocksDB, reading a LevelDB, passes over in silence, or reads where LevelDB would not.

To RocksDB a record with a wrong length at the end of a log is a torn tail, a type that only its
own recycled logs have is the end of an older log, zeros are room that was preallocated, and a
log that is not there holds nothing. LevelDB itself thinks no better. Here each of them would be
a shard that is proven by half of its values. So the files' structure is looked at first.

And RocksDB has learnt more since it was LevelDB: other deletions, column families, edits of its
own. To LevelDB they are corrupt; RocksDB obeys them, and a value that the server would still
return is gone. So what is in a LevelDB's records is looked at too: nothing but puts and
deletions, and nothing but LevelDB's own edits. Keys, values and checksums are RocksDB's matter.

Source: LevelDB's doc/log_format.md, write_batch.cc, version_edit.cc and filename.cc, from which
HyperLevelDB's differ in nothing that is read here.
"""

from __future__ import annotations

import errno
import os
import re
import struct
from collections.abc import Callable, Collection, Iterator
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, TypeAlias

BLOCK = 32 * 1024
_HEADER = struct.Struct("<IHB")  # masked CRC-32C of type and content, length, type
_FIRST, _MIDDLE, _LAST = 2, 3, 4  # 1 is a whole record
_TORN = 0  # no type that is in a file: here the file ends too early
_LOG = re.compile(r"\d+\.log")
_TABLE = re.compile(r"\d+\.(?:ldb|sst)")
_MASK_DELTA = 0xA282EAD8
# A server's logs are as large as its write buffer, some MB, and what was preallocated.
_LARGEST_LOG = 4 << 30
# CURRENT is a name and IDENTITY a UUID, OPTIONS some KB of text: RocksDB reads each in one piece.
_LARGEST = {"CURRENT": 256, "IDENTITY": 4096}
_LARGEST_OPTIONS = 1 << 20
_CRC_BUDGET = 1 << 20  # bytes of one file; a torn tail needs 32 KB of it, and by accident some more
_ZEROS_AT_ONCE = 1 << 20
_BATCH = struct.Struct("<QI")  # sequence number, how many entries
# VersionEdit's tags, and what follows each: n a number, s a string with its length before it.
_EDITS = {1: "s", 2: "n", 3: "n", 4: "n", 5: "ns", 6: "nn", 7: "nnnss", 9: "n"}
_LOG_NUMBER, _DELETED_FILE, _NEW_FILE, _PREVIOUS_LOG_NUMBER = 2, 6, 7, 9
_LONGEST_VARINT = 10


Torn: TypeAlias = Callable[[str, int], None]
"""Told the name of a log that ends in the midst of a record, and where that record begins."""


class LevelDBError(ValueError):
    """A file of a database is not whole, or not LevelDB's: which, where, and what was found."""


def is_nothing(log: str, offset: int) -> None:
    """Take a torn log for what an unclean stop leaves: the server drops that record too."""


def check(
    directory: Path, *, in_order: bool = True, is_at_rest: bool = False, torn: Torn = is_nothing
) -> None:
    """Insist that a LevelDB is whole as far as check_form goes, and that LevelDB itself wrote it.

    Logs that are older than the manifest needs are nothing to any reader, and may hold anything.

    Args:
        directory: the database, or links to its files. What has no CURRENT is left to the engine.
        in_order: sequence numbers rise within a log, as LevelDB's do. RocksDB takes the last
            batch's for the highest and passes over what is above it in silence.
        is_at_rest: nobody writes to it, so that a table which the manifest does not name is none
            that is just being made, or about to go. LevelDB removes such tables when it opens the
            database: of one that lost its manifest that is everything.
        torn: told of each log that counts and ends in the midst of a record.

    Raises:
        LevelDBError: something is wrong with a file, or the log that the manifest names is gone.
        OSError: one can't be read.
    """
    logs = _check_files(directory)
    number = 0
    if manifest := _manifest(directory):
        with (directory / manifest).open("rb") as file:
            number, tables = _needed(records(file, manifest, may_be_torn=False), manifest)
        if number and not {f"{number:06d}.log", f"{number}.log"} & set(logs):
            raise LevelDBError(f"{manifest}: expected the log {number:06d}.log, found none")
        if is_at_rest and (strays := _strays(directory, tables)):
            raise LevelDBError(
                f"{strays[0]}: expected a table that {manifest} names, found one that it does not: "
                "what is in it no reader sees, and LevelDB removes it when it opens the shard; "
                "a server that stops in the midst of a compaction leaves such a table, and one "
                "that opens the shard puts that right (0.8 opens none that is marked); "
                "after a loss of files restore the whole shard"
            )
    for name in logs:
        if int(name.removesuffix(".log")[:20]) >= number:
            _check_batches(directory / name, in_order, torn)


def _check_batches(log: Path, in_order: bool, torn: Torn) -> None:
    least = 0
    with log.open("rb") as file:
        for at, batch in records(file, log.name, may_be_torn=True, torn=torn):
            if wrong := what_is_wrong(batch):
                raise LevelDBError(f"{log.name}: at offset {at}: {wrong}")
            sequence, count = _BATCH.unpack_from(batch)
            if in_order and sequence < least:
                expected = f"a sequence number from {least} on"
                raise _misplaced(log.name, at, expected, sequence)
            least = sequence + count


def check_form(directory: Path, *, torn: Torn = is_nothing) -> None:
    """Insist that the logs of a RocksDB are whole, and that no file is absurdly large.

    Its logs have LevelDB's form: what it has added since needs options that InfluxDB never sets.
    What is in their records is its own.

    Args:
        directory: the database, or links to its files.
        torn: told of each log that ends in the midst of a record.

    Raises:
        LevelDBError: something is wrong with one of them.
        OSError: one can't be read.
    """
    for name in _check_files(directory):
        with (directory / name).open("rb") as file:
            for at, kind, _ in _fragments(file, name):
                if kind == _TORN:
                    torn(name, at)
    _manifest(directory)


def _check_files(directory: Path) -> list[str]:
    """Insist that no file is so large that reading it would not end; return the logs' names."""
    logs = []
    for name in sorted(path.name for path in directory.iterdir()):
        if _LOG.fullmatch(name):
            logs.append(name)
        elif name not in _LARGEST and not name.startswith(("MANIFEST-", "OPTIONS-")):
            continue  # tables are read block by block
        largest = _LARGEST_OPTIONS if name.startswith("OPTIONS-") else _LARGEST_LOG
        largest = _LARGEST.get(name, largest)
        size = (directory / name).stat().st_size
        if size > largest:
            raise LevelDBError(f"{name}: expected {largest} bytes at most, found {size}")
    return logs


def _manifest(directory: Path) -> str | None:
    """Return the name of the manifest that counts; None where there is no CURRENT."""
    try:
        with (directory / "CURRENT").open("rb") as file:
            content = file.read(_LARGEST["CURRENT"])
    except FileNotFoundError:
        return None
    if not re.fullmatch(rb"MANIFEST-[0-9]+\n", content):
        raise LevelDBError(f"CURRENT: expected a MANIFEST's name, found {content[:40]!r}")
    manifest = content.decode().rstrip()
    if not (directory / manifest).is_file():
        raise LevelDBError(f"CURRENT: expected the file {manifest}, found none")
    return manifest


def records(
    file: BinaryIO, name: str, *, may_be_torn: bool, torn: Torn = is_nothing
) -> Iterator[tuple[int, bytes]]:
    """Yield (offset, record) from a file in LevelDB's log format; no checksum is looked at.

    Args:
        file: open at its beginning.
        name: for messages.
        may_be_torn: the writer may have died in the midst of the last record.
        torn: told where that record begins, if it has.

    Raises:
        LevelDBError: it goes on after something that a reader would take for its end, or, where
            it may not be torn, it is.
    """
    parts: list[bytes] = []
    begin = 0
    for at, kind, content in _fragments(file, name):
        begin = begin if parts else at
        parts.append(content)
        if kind not in (_FIRST, _MIDDLE, _TORN):
            yield begin, b"".join(parts)
            parts = []
    if parts and not may_be_torn:
        raise LevelDBError(f"{name}: at offset {begin}: expected a whole record, found its end")
    if parts:
        torn(name, begin)


def _fragments(file: BinaryIO, name: str) -> Iterator[tuple[int, int, bytes]]:
    """Yield (offset, type, content) of each part of a record.

    The last is of type _TORN where the file ends in the midst of one. Raises LevelDBError.
    """
    start = 0
    inside = False
    while block := file.read(BLOCK):
        at = 0
        while len(block) - at >= _HEADER.size:
            _, length, kind = _HEADER.unpack_from(block, at)
            if kind == 0 and length == 0:
                if not _is_zeros(file.fileno(), start + at):
                    raise _misplaced(name, start + at, "a record", "zeros")
                return
            end = at + _HEADER.size + length
            if not 1 <= kind <= 4:
                raise _misplaced(name, start + at, "a record of type 1 to 4", kind)
            if end > BLOCK:
                raise _misplaced(name, start + at, "a record within its block", f"{length} bytes")
            if (kind in (_MIDDLE, _LAST)) != inside:
                raise _misplaced(name, start + at, "another part of a record", f"type {kind}")
            if end > len(block):  # and so of the file: no block but its last is shorter
                if _hides_a_record(block, at):
                    raise _misplaced(name, start + at, "a record's length", length)
                break
            yield start + at, kind, block[at + _HEADER.size : end]
            inside = kind in (_FIRST, _MIDDLE)
            at = end
        if len(block) < BLOCK and at < len(block):
            yield start + at, _TORN, b""
        start += len(block)


def _misplaced(name: str, offset: int, expected: str, found: object) -> LevelDBError:
    return LevelDBError(f"{name}: at offset {offset}: expected {expected}, found {found}")


def _is_zeros(descriptor: int, at: int) -> bool:
    """Say whether there is nothing but zeros from `at` on; holes, which may be huge, aren't read.

    The descriptor's own place is lost.
    """
    while True:
        try:
            at = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return True  # a hole up to the end
            # A file system that knows no holes: all of it is data.
        data = os.pread(descriptor, _ZEROS_AT_ONCE, at)
        if not data:
            return True
        if data != bytes(len(data)):
            return False
        at += len(data)


def _hides_a_record(block: bytes, at: int) -> bool:
    """Given a record that seems to go on after the end of the file, say whether it is no torn one.

    It is none if its own content is whole, and only its length wrong, or if a whole record stands
    at the end, with nothing but zeros behind it. Where that would take too long to tell, for
    nearly every place looks like a record that reaches to the end, it is none either.
    """
    crc, _, kind = _HEADER.unpack_from(block, at)
    if _is_crc_of(crc, kind, block[at + _HEADER.size :]):
        return True
    budget = _CRC_BUDGET
    last = len(block.rstrip(b"\0"))
    for place in range(len(block) - _HEADER.size, at, -1):
        if not 1 <= block[place + 6] <= 4:
            continue
        crc, length, kind = _HEADER.unpack_from(block, place)
        end = place + _HEADER.size + length
        if last <= end <= len(block):
            budget -= length
            content = block[place + _HEADER.size : end]
            if budget < 0 or _is_crc_of(crc, kind, content):
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
        crc = number
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return table


def what_is_wrong(batch: bytes) -> str | None:
    """Given a log's record, say what makes it none of LevelDB's WriteBatches; None for nothing.

    A batch is its head and then entries: a deletion, 0 and a key, or a put, 1, a key and a value.
    This runs once per value of a log, so it calls nothing where lengths have one byte.
    """
    if len(batch) < _BATCH.size:
        return f"expected a batch of {_BATCH.size} bytes or more, found {len(batch)}"
    count = _BATCH.unpack_from(batch)[1]
    at, end, found = _BATCH.size, len(batch), 0
    entry = at
    try:
        while at < end:
            entry = at
            tag = batch[at]
            if tag > 1:
                return f"expected a put or a deletion at byte {at} of the batch, found tag {tag}"
            size = batch[at + 1]
            at += 2
            if size > 0x7F:
                size, at = _uvarint(batch, at - 1)
            at += size
            if tag:
                size = batch[at]
                at += 1
                if size > 0x7F:
                    size, at = _uvarint(batch, at - 1)
                at += size
            found += 1
    except IndexError:
        at = end + 1
    if at != end:
        return f"expected a whole entry at byte {entry} of the batch, found its end"
    if found != count:
        return f"expected a batch of {count} entries, found {found}"
    return None


def _strays(directory: Path, tables: Collection[int]) -> list[str]:
    """Return the names of tables in a directory that are none of `tables`."""
    names = sorted(path.name for path in directory.iterdir() if _TABLE.fullmatch(path.name))
    return [name for name in names if int(name[:20].partition(".")[0]) not in tables]


def _needed(edits: Iterator[tuple[int, bytes]], name: str) -> tuple[int, set[int]]:
    """Return the number of the oldest log that a manifest still needs (0: it names none), and the
    numbers of the tables that it has ever named.

    Raises:
        LevelDBError: an edit is none that LevelDB writes.
    """
    log, tables = 0, set()
    for offset, edit in edits:
        try:
            for tag, numbers in _numbers(edit):
                if tag == _LOG_NUMBER:
                    log = numbers[0]
                elif tag == _PREVIOUS_LOG_NUMBER and numbers[0]:
                    # LevelDB would read that log too, as RocksDB would not; it always writes 0.
                    raise _misplaced(name, offset, "no previous log", numbers[0])
                elif tag == _DELETED_FILE:
                    # A kill may come before the file goes: it stays known as one to go.
                    continue
                elif tag == _NEW_FILE:
                    tables.add(numbers[1])
        except KeyError as error:
            raise _misplaced(name, offset, "an edit of LevelDB's", f"tag {error}") from None
        except IndexError:
            raise _misplaced(name, offset, "a whole edit", "its end") from None
    return log, tables


def _numbers(edit: bytes) -> Iterator[tuple[int, list[int]]]:
    """Yield (tag, its numbers) of each field of a manifest's edit; a string is its length.

    Raises KeyError(tag) where LevelDB knows no such tag, and IndexError where the edit is cut.
    """
    at = 0
    while at < len(edit):
        tag, at = _uvarint(edit, at)
        numbers = []
        for kind in _EDITS[tag]:
            number, at = _uvarint(edit, at)
            numbers.append(number)
            if kind == "s":
                at += number
        if at > len(edit):
            raise IndexError(at)
        yield tag, numbers


def _uvarint(data: bytes, at: int) -> tuple[int, int]:
    """Return (number, offset behind it). Raises IndexError where it goes on beyond its end."""
    number = shift = 0
    for place in range(at, at + _LONGEST_VARINT):
        byte = data[place]
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, place + 1
        shift += 7
    raise IndexError(at)
