"""Is the newest snapshot good, and is it of what raft and wal are now?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from shardtool.datadir.layout import Layout
from shardtool.disk.copy import Entry, Meter, Reader, survey
from shardtool.disk.durable import READ_DIRECTORY_ITSELF, opened_quietly
from shardtool.disk.files import opened_file
from shardtool.snapshots import bag
from shardtool.snapshots.address import Place
from shardtool.snapshots.metadata import DIRECTORIES
from shardtool.snapshots.opened import open_place
from shardtool.snapshots.store import AS_WHOM, sources_of, told

_RAFT_LOG = "raft/log"
_MOST_LOG = 1 << 30


@dataclass(frozen=True)
class Newest:
    """The newest snapshot of a node, read again to its last byte.

    Args:
        store: where it was looked for.
        id: its name; empty where there is none of this node.
        live: it was copied while a server could be running.
        problem: the first thing that is wrong with it; empty for a sound one.
        changed: files of raft and wal that are not as they are in it, sorted.
        logs: the length of each file of the WAL in it, by its name.
        raft_bytes: the length of raft's log in it, where today's begins with just that; None
            where it does not.
    """

    store: Place
    id: str = ""
    live: bool = False
    problem: str = ""
    changed: tuple[str, ...] = ()
    logs: Mapping[str, int] = field(default_factory=dict)
    raft_bytes: int | None = None


def newest_snapshot(layout: Layout, store: Place, meter: Meter) -> Newest:
    """Verify the newest snapshot of `layout` in `store`, and compare it with the node.

    Args:
        layout: the node.
        store: the snapshot directory, which need not be there, or a place in a bucket, from
            which every byte comes over the network.
        meter: makes what counts the bytes.

    Raises:
        ShardtoolError: the store, raft or wal can't be read.
    """
    with told(store, "to look for snapshots", AS_WHOM):
        if isinstance(store, Path) and not store.is_dir():
            return Newest(store)
    sources = sources_of(layout)
    with open_place(store) as opened:
        for snapshot in reversed(opened.listing().snapshots):
            found = opened.verify(snapshot.id, meter)
            metadata = found.metadata
            if metadata is not None and metadata.sources.get("raft") != str(sources["raft"]):
                continue  # of another node, that keeps its snapshots here too
            problem = "".join(f"{one.path}: {one.what}" for one in found.problems[:1])
            entries = metadata.entries if metadata is not None else ()
            live = metadata is not None and metadata.live
            if problem:
                return Newest(store, snapshot.id, live, problem)
            logs = {e.path[4:]: e.size for e in entries if e.path.startswith("wal/")}
            sizes = {e.path: e.size for e in entries if e.kind == "file"}
            begins = _beginning(
                sources["raft"] / "log",
                sizes.get(_RAFT_LOG),
                found.digests.get(f"{bag.PAYLOAD}/{_RAFT_LOG}", ""),
            )
            return Newest(store, snapshot.id, live, "", _changed(entries, sources), logs, begins)
    return Newest(store)


def _beginning(now: Path, size: int | None, sha256: str) -> int | None:
    """Return `size` if the first so many bytes of a file have that SHA-256; None if not.

    Args:
        now: the file.
        size: of what was there then, in bytes; None where nothing was.
        sha256: of the same, in hex, verified.
    """
    if size is None or size > _MOST_LOG:
        return None
    try:
        with opened_file(now, _MOST_LOG) as (new, _), Reader() as reader:
            found = reader.digest(new.fileno(), _Uncounted(), most=size)
            return size if found == (sha256, size) else None
    except OSError:
        return None


class _Uncounted:
    """Counts nothing: this is a moment's work."""

    def advance(self, count: int) -> None:
        """Let it be."""


def _changed(entries: Iterable[Entry], sources: dict[str, Path]) -> tuple[str, ...]:
    then = {
        entry.path: _state(entry) for entry in entries if entry.path.split("/")[0] in DIRECTORIES
    }
    now: dict[str, tuple[object, ...]] = {}
    for name in DIRECTORIES:
        with (
            told(sources[name], "to read it", AS_WHOM),
            opened_quietly(sources[name], READ_DIRECTORY_ITSELF) as directory,
        ):
            now |= {entry.path: _state(entry) for entry in survey(directory, name)}
    # Directories are told by what is in them: their own times are no content.
    paths = {path for path in then.keys() | now.keys() if then.get(path) != now.get(path)}
    return tuple(sorted(paths))


def _state(entry: Entry) -> tuple[object, ...]:
    """Return what of an entry tells its content: a directory's has none of its own."""
    if entry.kind == "directory":
        return (entry.kind,)
    return entry.kind, entry.size, entry.mtime_ns, entry.target
