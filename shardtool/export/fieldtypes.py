"""Which type a file holds of each field: a database of today takes one, and refuses whole requests
for the sake of a single value of another.

The type of a field is that of the first value of it that is in the file. It has to be known over
all shards of a run, each of which a process of its own reads: so what is new goes from process to
process, and 16 bytes stand for a name, which may be long.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from types import MappingProxyType

from shardtool.proof.columns import Name

NOTHING_WRITTEN: Mapping[bytes, str] = MappingProxyType({})
"""The types of a file's fields before anything is in it."""

_DIGEST = 16  # bytes
_SEPARATOR = b"\xff"  # in no name that a line can have: those are UTF-8
_ENDS = itemgetter(0, -1)


def type_of(text: str) -> str:
    """Return the type that a field's value in line protocol is of: f, i, b, s for float, integer,
    boolean, string."""
    return _type_by(text[0], text[-1])


def types_of(texts: Iterable[str]) -> set[str]:
    """Return the types among values in line protocol; see type_of."""
    return {_type_by(first, last) for first, last in set(map(_ENDS, texts))}


def _type_by(first: str, last: str) -> str:
    if first == '"':
        return "s"
    if last == "i":
        return "i"
    return "b" if first in "tf" else "f"


class FieldTypes:
    """The types of a file's fields, as a shard's values go into it."""

    def __init__(self, known: Mapping[bytes, str] = NOTHING_WRITTEN) -> None:
        """Begin with the types of what is in the file already, as `news` told them."""
        self.several: dict[Name, str] = {}
        """Of fields with values of other types in the shard: the file's own type, and those."""
        self._known = known
        self._found: dict[bytes, str] = {}
        self._news: dict[bytes, str] = {}

    def settle(self, name: Name, kind: str) -> str:
        """Return the type that a field has; it is `kind` if nothing of it is in the file yet."""
        digest = digest_of(name.database, name.series, name.column)
        known = self._known.get(digest) or self._found.get(digest)
        if known is not None:
            return known
        self._found[digest] = self._news[digest] = kind
        return kind

    def note(self, name: Name, kinds: Sequence[str]) -> None:
        """Note of a field what types there are, its own first."""
        known = self.several.get(name, "")
        self.several[name] = "".join(dict.fromkeys(known + "".join(kinds)))

    def news(self) -> dict[bytes, str]:
        """Return what was settled since the last call."""
        news, self._news = self._news, {}
        return news


def digest_of(*parts: str) -> bytes:
    """Return 16 bytes that stand for a name of several parts."""
    content = _SEPARATOR.join(part.encode("utf-8", "surrogateescape") for part in parts)
    return hashlib.blake2b(content, digest_size=_DIGEST).digest()
