"""How sentences write amounts: names, sizes, durations; and what is text at all."""

from __future__ import annotations

from collections.abc import Iterable


def names(several: Iterable[str], most: int = 4) -> str:
    """Return names as a sentence lists them: 'a, b, c and 7 more'; 'none' for none."""
    found = list(several)
    if not found:
        return "none"
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(found[:most]) + more


def plural(count: int, noun: str, nouns: str = "") -> str:
    """Return '1 shard', '3 shards', '1,200 shards'; `nouns` where the plural is not noun + s."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {nouns or noun + 's'}"


def size(count: int) -> str:
    """Return a number of bytes as du -h writes it: '44.9K', '1.2G' (powers of 1024)."""
    # Imported on first use: its import takes as long as a status of a small directory.
    from humanize import naturalsize

    return naturalsize(count, gnu=True)


def duration(seconds: float) -> str:
    """Return a time span as people say it, its two largest units: '300ms', '4s', '12m 3s', '1d 2h'.

    What takes over a year is 'over a year'.
    """
    if seconds < 1:
        return f"{round(seconds * 1000)}ms" if seconds > 0 else "0s"
    if seconds >= 365 * 86400:
        return "over a year"
    whole = int(seconds)
    parts: list[str] = []
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, whole = divmod(whole, length)
        if count or parts:
            parts.append(f"{count}{unit}")
    return " ".join(part for part in parts[:2] if not part.startswith("0"))


def is_utf8(text: str) -> bool:
    """Say whether text can be written as UTF-8: what came from a disk or from the environment may
    hold any bytes, as surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
