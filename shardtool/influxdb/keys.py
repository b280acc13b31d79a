"""Keys of old and new shards: which row of FORMATS.md a key is, and what is in it.

Knows bytes only. Source of every fact here: FORMATS.md, "db/shard_db/NNNNN" and
"db/shard_db_v2/NNNNN".
"""

from __future__ import annotations

import struct

VALUE_KEY = 24  # bytes: column id, time, sequence number, 8 each
ID_BYTES = 8
# No column has an id from here on: index keys begin with it, and can be 24 bytes long too.
FIRST_INDEX_KEY = b"\xff" * 7 + b"\xfd"
COLUMN_INDEX = b"\xff" * 7 + b"\xfe"
SERIES_INDEX = b"\xff" * 8
LAST_ID_KEY = bytes(8)

_TIME_BIAS = 1 << 63
_U64 = struct.Struct(">Q")
_TIME_AND_SEQUENCE = struct.Struct(">QQ")


def new_column_id(number: int) -> bytes:
    """Return the 8 bytes with which a new shard's keys for column `number` begin.

    Raises:
        struct.error: the number does not fit 64 bits.
    """
    return _U64.pack(number)


def time_bytes(time_us: int) -> bytes:
    """Return a time in us since the epoch as keys hold it: 8 bytes that sort as times do.

    A time outside of what a key can hold becomes the nearest one that it can.
    """
    return _U64.pack(min(max(time_us + _TIME_BIAS, 0), (1 << 64) - 1))


def time_of(suffix: bytes) -> int:
    """Given a key without its column id (16 bytes), return its time in us since the epoch."""
    biased: int = _U64.unpack_from(suffix)[0]
    return biased - _TIME_BIAS


def time_and_sequence(suffix: bytes) -> tuple[int, int]:
    """Given a key without its column id (16 bytes), return time (us) and sequence number."""
    biased, sequence = _TIME_AND_SEQUENCE.unpack(suffix)
    return biased - _TIME_BIAS, sequence
