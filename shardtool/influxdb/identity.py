"""Which points 0.8 takes over HTTP as what they are.

Times and sequence numbers pass through a float64 (FORMATS.md, HTTP, "Writing"), and what comes out
of it may be another point.
"""

from __future__ import annotations

# RFC 3339 has no others, and raft's command that makes a shard holds its times as text.
_FIRST_US, _LAST_US = -62_135_596_800_000_000, 253_402_300_800_000_000


def trouble_with_identity(time_us: int, sequence: int) -> str:
    """Return why a point would be refused or arrive as another, 'time' or 'sequence'; '' for
    others."""
    if not _FIRST_US <= time_us < _LAST_US or int(float(time_us)) != time_us:
        return "time"
    # 2^63 is one that arrives: a capture has it, sent over HTTP. Of 2^64 - 1 a float64 makes 2^64.
    return "" if int(float(sequence)) == sequence else "sequence"
