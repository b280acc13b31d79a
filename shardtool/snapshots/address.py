"""Where snapshots are kept: a directory, or a prefix in a bucket of an S3 server."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from shardtool.errors import UsageError

SCHEME = "s3://"

_ANY_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
# S3's own buckets are stricter; older ones and other servers' have capitals and underscores.
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]", re.ASCII)
_LONGEST_KEY = 1024  # in bytes, as S3 has it
_LONGEST_PREFIX = _LONGEST_KEY // 2
# What obstore refuses, and what the XML of a listing can't carry.
_NO_KEY = re.compile("[\0-\x1f\x7f\ufffe\uffff]")


@dataclass(frozen=True)
class Address:
    """A place in a bucket.

    Args:
        bucket: its name.
        prefix: what all keys there begin with, no slash at either end; empty for all of it.
    """

    bucket: str
    prefix: str

    def __str__(self) -> str:
        """Return its URL."""
        return f"{SCHEME}{self.bucket}/{self.prefix}".rstrip("/")

    def __truediv__(self, name: str) -> Address:
        """Return the place below this one."""
        return Address(self.bucket, f"{self.prefix}/{name}" if self.prefix else name)


Place = Path | Address


def problem_with_key(place: Address) -> str:
    """Given an object's place, say why it can't be there, or return ''."""
    if _NO_KEY.search(place.prefix):
        return "a control character in its name"
    if len(place.prefix.encode()) > _LONGEST_KEY:
        return f"a key of more than {_LONGEST_KEY:,} bytes"
    return ""


def place_of(named: str) -> Place:
    """Given what the operator wrote, return the directory or the place in a bucket.

    Raises:
        UsageError: it is a URL that can't mean a place for snapshots. The line does not repeat
            what may be a password.
    """
    scheme = _ANY_SCHEME.match(named)
    if scheme is None:
        return Path(named).absolute()
    if scheme[1] != "s3":
        raise UsageError(
            f"a snapshot store is a directory or s3://BUCKET/PREFIX, found {scheme[1]}://"
        )
    bucket, _, prefix = named.removeprefix(SCHEME).partition("/")
    prefix = prefix.removesuffix("/")
    if "@" in bucket or ":" in bucket:
        raise UsageError(
            "the snapshot store's URL is s3://BUCKET/PREFIX, found a user or a port in it; "
            "credentials and AWS_ENDPOINT_URL come from the environment or ~/.aws"
        )
    if not _BUCKET.fullmatch(bucket):
        raise UsageError(
            "the snapshot store's URL is s3://BUCKET/PREFIX, found no bucket's name in it "
            "(3 to 255 letters, digits, dots and dashes)"
        )
    problem = _problem_with(prefix)
    if problem:
        raise UsageError(f"s3://{bucket}/...: expected a prefix of plain names, found {problem}")
    return Address(bucket, prefix)


def _problem_with(prefix: str) -> str:
    parts = prefix.split("/") if prefix else []
    if "?" in prefix or "#" in prefix:
        return "a '?' or '#' in it; options go into the environment"
    if any(part in ("", ".", "..") for part in parts):
        return "an empty part, '.' or '..'"
    if not prefix.isprintable():
        return "a character that can't be shown"
    if len(prefix.encode("utf-8", "surrogateescape")) > _LONGEST_PREFIX:
        return f"more than {_LONGEST_PREFIX} bytes"
    return ""
