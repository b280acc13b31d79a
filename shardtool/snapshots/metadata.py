"""A snapshot's shardtool.json: what it is of, and every entry with mode, owner and times."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from shardtool.disk.copy import Entry

SCHEMA = "shardtool/snapshot/1"
# Some 150,000 entries: raft and wal are a few hundred files, and whoever lists a store must
# not be made to read more than this for one snapshot.
MOST_BYTES = 32 << 20

# What a snapshot may hold at its top.
CONFIG = "config.toml"
DIRECTORIES = ("raft", "wal")

_ID = re.compile(r"(\d{8}T\d{6}Z)(?:-([1-9]\d{0,5}))?", re.ASCII)
_KINDS = ("file", "directory", "link")
_LONGEST_PATH = 4095  # of a path and of a link's target, in bytes: PATH_MAX without its end
_STAMP = "%Y%m%dT%H%M%SZ"


def origin_of(host: str, raft: str) -> str:
    """Return what tells nodes apart that keep their snapshots in one place."""
    return f"{host}:{raft}"


class DamagedError(Exception):
    """A snapshot's own files can't be what shardtool wrote; the text says what was found."""


@dataclass(frozen=True)
class Metadata:
    """What a snapshot says of itself.

    Args:
        id: the name of its directory: the UTC time at which it was begun, and a number.
        live: it was copied while the server could be running.
        sources: where raft, wal and config.toml lay, links resolved.
        entries: every directory, file and link, parents first.
        users: names for the uids in it, where they had one.
        groups: names for the gids in it.
        left_out: sockets, FIFOs and devices, which are not copied: path and kind.
        node: facts of the node at that time, for people.
        made_by: host and version, for people.
    """

    id: str
    live: bool
    sources: Mapping[str, str]
    entries: tuple[Entry, ...]
    users: Mapping[int, str] = field(default_factory=dict)
    groups: Mapping[int, str] = field(default_factory=dict)
    left_out: tuple[tuple[str, str], ...] = ()
    node: Mapping[str, Any] = field(default_factory=dict)
    made_by: Mapping[str, str] = field(default_factory=dict)

    @property
    def origin(self) -> str:
        """The node it is of, as HOST:RAFT, by what it says itself."""
        return origin_of(self.made_by.get("host", "?"), self.sources.get("raft", "?"))

    @property
    def files(self) -> tuple[Entry, ...]:
        """The regular files, which are the bag's payload."""
        return tuple(entry for entry in self.entries if entry.kind == "file")

    @property
    def payload_bytes(self) -> int:
        """The payload's length."""
        return sum(entry.size for entry in self.files)

    def encoded(self) -> bytes:
        """Return the content of shardtool.json."""
        document = {
            "schema": SCHEMA,
            "id": self.id,
            "created_at": created_at(self.id),
            "live": self.live,
            "files": len(self.files),
            "bytes": self.payload_bytes,
            "sources": dict(self.sources),
            "node": dict(self.node),
            "made_by": dict(self.made_by),
            "users": {str(number): name for number, name in self.users.items()},
            "groups": {str(number): name for number, name in self.groups.items()},
            "left_out": [{"path": path, "kind": kind} for path, kind in self.left_out],
        }
        head = json.dumps(document, indent=1)[:-2]
        entries = ",\n  ".join(json.dumps(_fields(entry)) for entry in self.entries)
        return f'{head},\n "entries": [\n  {entries}\n ]\n}}\n'.encode("ascii")


def _fields(entry: Entry) -> dict[str, Any]:
    fields = {name: value for name, value in asdict(entry).items() if name != "identity"}
    fields["mode"] = f"{entry.mode:04o}"
    if entry.kind != "link":
        del fields["target"]
    return fields


def new_id(now_s: float, taken: Callable[[str], bool]) -> str:
    """Given a time in s since the epoch and which names are taken, return a snapshot's id.

    Example: 20261124T175153Z; 20261124T175153Z-2 where that is taken.
    """
    stamp = datetime.fromtimestamp(now_s, UTC).strftime(_STAMP)
    name, number = stamp, 1
    while taken(name):
        number += 1
        name = f"{stamp}-{number}"
    return name


def created_at(snapshot: str) -> str:
    """Given an id, return its time as ISO 8601: '2026-11-24T17:51:53Z'."""
    return _time_of(snapshot).strftime("%Y-%m-%dT%H:%M:%SZ")


def age_order(snapshot: str) -> tuple[float, int]:
    """Given an id, return what sorts it by age: seconds since the epoch, and its number."""
    match = _ID.fullmatch(snapshot)
    number = int(match[2]) if match and match[2] else 1
    return _time_of(snapshot).timestamp(), number


def is_id(name: str) -> bool:
    """Say whether `name` could be a snapshot's: a real UTC time, with or without a number."""
    try:
        return bool(_time_of(name))
    except ValueError:
        return False


def _time_of(snapshot: str) -> datetime:
    match = _ID.fullmatch(snapshot)
    if match is None:
        raise ValueError("no id")
    date, time = match[1][:8], match[1][9:15]
    day = (int(date[:4]), int(date[4:6]), int(date[6:]))
    return datetime(*day, int(time[:2]), int(time[2:4]), int(time[4:]), tzinfo=UTC)


def decoded(content: bytes) -> Metadata:
    """Read a shardtool.json. It may come from anyone: nothing in it is taken on trust.

    Raises:
        DamagedError: it is not one that encoded() could have written.
    """
    try:
        document = json.loads(content)
        if document["schema"] != SCHEMA:
            raise DamagedError(f"schema {str(document['schema'])[:40]!r}, expected {SCHEMA!r}")
        entries = tuple(_entry(fields) for fields in document["entries"])
        found = Metadata(
            _typed(document["id"], str),
            _typed(document["live"], bool),
            {str(name): _typed(path, str) for name, path in document["sources"].items()},
            entries,
            {int(number): _typed(name, str) for number, name in document["users"].items()},
            {int(number): _typed(name, str) for number, name in document["groups"].items()},
            tuple((_typed(x["path"], str), _typed(x["kind"], str)) for x in document["left_out"]),
            dict(document["node"]),
            dict(document["made_by"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise DamagedError(f"no metadata of a snapshot ({type(error).__name__}: {error})") from None
    _check_tree(found.entries)
    if not is_id(found.id):
        raise DamagedError(f"id {found.id[:40]!r}")
    return found


def _typed(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{str(value)[:40]!r} is no {kind.__name__}")
    return value


def _entry(fields: dict[str, Any]) -> Entry:
    kind = _typed(fields["kind"], str)
    mode = int(_typed(fields["mode"], str), 8)
    size, mtime = _typed(fields["size"], int), _typed(fields["mtime_ns"], int)
    owner = _typed(fields["uid"], int), _typed(fields["gid"], int)
    if kind not in _KINDS or not 0 <= mode <= 0o7777 or not 0 <= size < 1 << 63:
        raise ValueError(f"kind {kind[:20]!r}, mode {mode}, size {size}")
    if not all(0 <= number < (1 << 32) - 1 for number in owner) or abs(mtime) >= 1 << 63:
        raise ValueError(f"owner {owner}, time {mtime}")
    target = _typed(fields["target"], str) if kind == "link" else ""
    if kind == "link" and not target:
        raise ValueError("a link that points nowhere")
    path = _typed(fields["path"], str)
    for text in (path, target):
        # os.fsencode raises a ValueError for what no file system could have named.
        if "\0" in text or len(os.fsencode(text)) > _LONGEST_PATH:
            raise ValueError(f"a name or target that no file system has: {text[:80]!r}")
    return Entry(path, kind, mode, *owner, size, mtime, target)


def _check_tree(entries: tuple[Entry, ...]) -> None:
    """Refuse paths that lead out of the tree, stand twice, or lie below what is no directory.

    Raises:
        DamagedError: the first such path.
    """
    kinds: dict[str, str] = {}
    for entry in entries:
        above, _, name = entry.path.rpartition("/")
        top = ("file",) if entry.path == CONFIG else ("directory",)
        sound = kinds.get(above) == "directory" if above else entry.kind in top
        known = above or name in (*DIRECTORIES, CONFIG)
        if name in ("", ".", "..") or entry.path in kinds or not (sound and known):
            raise DamagedError(f"an entry {entry.path[:80]!r} that can't be in a snapshot")
        kinds[entry.path] = entry.kind
    missing = [name for name in DIRECTORIES if name not in kinds]
    if missing:
        raise DamagedError(f"no {' and no '.join(missing)} in it")
