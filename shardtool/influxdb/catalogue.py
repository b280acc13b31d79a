"""What raft knows, from its directory or from a running 0.8 (FORMATS.md, "raft/" and "HTTP").

Snapshot and log together tell it; this module decides whether they are complete, and says so in
one line where they are not. Every value's identity hangs on the column ids, so a guess is no
answer here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from shardtool.influxdb import gob, shapes
from shardtool.influxdb.errors import CatalogueError
from shardtool.influxdb.model import Catalogue, Dropped, Server, ShardRange, Space
from shardtool.influxdb.raft import (
    Entry,
    Snapshot,
    SnapshotFile,
    entries,
    own_name,
    read_snapshot,
    snapshot_files,
)
from shardtool.influxdb.replay import Replay, State

__all__ = [
    "Catalogue",
    "CatalogueError",
    "Dropped",
    "Server",
    "ShardRange",
    "Space",
    "from_configuration",
    "read_catalogue",
]

_ATTEMPTS = 3
_LOST = "restore raft from a snapshot (shardtool restore), or ask a running 0.8 over HTTP"


def read_catalogue(raft: Path) -> Catalogue:
    """Read what a raft directory says, of 0.7 or 0.8, compacted or not.

    Args:
        raft: the directory that holds `log`, `snapshot` and `name`.

    Returns:
        What 0.8 knows once it has started on this directory.

    Raises:
        CatalogueError: something is unreadable, or an entry is missing between the snapshot and
            the log.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        files = snapshot_files(raft)
        try:
            return _read(raft, files)
        except CatalogueError:
            # A running server that takes a snapshot swaps snapshot and log one after the other.
            if attempt == _ATTEMPTS or snapshot_files(raft) == files:
                raise
    raise AssertionError("the last attempt returns or raises")


def from_configuration(document: object) -> Catalogue:
    """Read what a running 0.8 says (FORMATS.md, "HTTP", GET /cluster/configuration).

    Args:
        document: the answer's parsed JSON.

    Returns:
        The catalogue; it tells neither whose answer it is nor what was dropped.

    Raises:
        CatalogueError: it is not such an answer.
    """
    where = "/cluster/configuration"
    if not isinstance(document, dict) or "MetaStore" not in document:
        raise CatalogueError(
            f"{where}: expected the configuration of a 0.8, found something else; "
            "is that a running InfluxDB 0.8?"
        )
    try:
        state = _restored(document, shapes.SPACE_IN_JSON)
    except shapes.ShapeError as error:
        raise CatalogueError(f"{where}: {error}; is that a running InfluxDB 0.8?") from None
    found = _catalogue(state, None, Dropped())
    return replace(found, forgets=_has_gaps(state))


@dataclass(frozen=True)
class _Basis:
    """The snapshot to begin with, its state, and what was wrong with newer ones."""

    snapshot: Snapshot | None
    path: Path | None
    state: State
    of_07: bool
    invalid: tuple[tuple[SnapshotFile, str], ...]


def _read(raft: Path, files: Sequence[SnapshotFile]) -> Catalogue:
    basis = _basis(files)
    log = raft / "log"
    done = basis.snapshot.last_index if basis.snapshot else 0
    after = Replay(basis.state, known=True)
    overlap: Replay | None = None
    last, is_whole = done, False
    for entry in _without_gap(raft, basis):
        if overlap is None:
            is_whole = entry.index == 1
            overlap = Replay(State(), known=is_whole)
        last = max(last, entry.index)
        try:
            (after if entry.index > done else overlap).apply(entry)
        except shapes.ShapeError as error:
            raise CatalogueError(
                f"{log}: at offset {entry.offset}, entry {entry.index}: {error}; {_LOST}"
            ) from None
    _require_reach(log, basis, last, empty=overlap is None)
    name = own_name(raft)
    own = next((one.id for one in basis.state.servers if one.raft_name == name), None)
    earlier = overlap.dropped(all_07=basis.of_07) if overlap else Dropped()
    found = _catalogue(basis.state, own, _both(earlier, after.dropped()))
    return replace(
        found,
        heard_of=found.heard_of | (overlap.state.heard_of if overlap else set()),
        forgets=not is_whole and _has_gaps(basis.state),
    )


def _basis(files: Sequence[SnapshotFile]) -> _Basis:
    """Return the newest snapshot that can be read; the nothing before all entries if there is none.

    Only valid ones count: what is wrong with newer ones is kept for the message.
    """
    invalid = []
    for file in files:
        try:
            snapshot = read_snapshot(file)
            document = shapes.mapping(gob.decode(snapshot.state), "state")
            state = _restored(document, shapes.SPACE_IN_GOB)
        except gob.GobError as error:
            invalid.append((file, f"expected a state in gob, found: {error}"))
        except ValueError as error:  # shapes.ShapeError is one
            invalid.append((file, str(error)))
        else:
            of_07 = "MetaStore" not in document
            return _Basis(snapshot, file.path, state, of_07, tuple(invalid))
    return _Basis(None, None, State(), False, tuple(invalid))


def _without_gap(raft: Path, basis: _Basis) -> Iterator[Entry]:
    """Yield the log's entries, once it is sure that the first one follows on the snapshot."""
    done = basis.snapshot.last_index if basis.snapshot else 0
    found = entries(raft)
    first = next(found, None)
    if first is None:
        return
    if first.index > done + 1 or (not basis.snapshot and first.index != 1):
        since = f"the snapshot {basis.path} ends at entry {done}" if basis.path else "no snapshot"
        raise CatalogueError(
            f"{raft / 'log'}: expected entry {done + 1} or an earlier one first "
            f"({since}{_unusable(basis)}), found entry {first.index}; {_LOST}"
        )
    yield first
    yield from found


def _require_reach(log: Path, basis: _Basis, last: int, *, empty: bool) -> None:
    """Raise where entries are missing at the end, or there is nothing at all.

    What only a newer snapshot held, which can't be read, must be in the log.
    """
    if not basis.snapshot and empty:
        raise CatalogueError(
            f"{log}: expected entries from 1 on (no snapshot{_unusable(basis)}), "
            f"found none; {_LOST}"
        )
    if basis.invalid and last < basis.invalid[0][0].index:
        why = _unusable(basis).removeprefix(", ")
        raise CatalogueError(
            f"{log}: expected entries up to {basis.invalid[0][0].index}, the end of a snapshot "
            f"that can't be used ({why}), found them up to {last}; {_LOST}"
        )


def _unusable(basis: _Basis) -> str:
    """Given what was wrong with newer snapshots, return ', /x/1_9.ss: expected ...' or ''."""
    return "".join(f", {file.path}: {problem}" for file, problem in basis.invalid[:1])


def _restored(document: dict[str, object], space_parts: tuple[str, ...]) -> State:
    """Return the state that a SavedConfiguration stands for, of 0.7's shape or 0.8's.

    0.7's has neither MetaStore nor spaces, and the shards in it are not 0.8's.

    Raises:
        shapes.ShapeError: it is none.
    """

    def spaces(found: object, what: str) -> list[Space]:
        return [shapes.space(one, what, space_parts) for one in shapes.listing(found, what)]

    store = shapes.mapping(document.get("MetaStore"), "MetaStore")
    shards = [
        shapes.shard(one, "Shards") for one in shapes.listing(document.get("Shards"), "Shards")
    ]
    # As the server does: a number that was never given is told by the shards.
    last_shard = shapes.number(document.get("LastShardIdUsed"), "LastShardIdUsed")
    databases = shapes.mapping(document.get("Databases"), "Databases")
    old = [
        shapes.shard(one, kind)
        for kind in ("ShortTermShards", "LongTermShards")
        for one in shapes.listing(document.get(kind), kind)
    ]
    servers = shapes.listing(document.get("Servers"), "Servers")
    return State(
        databases=set(databases),
        ids=shapes.ids(store.get("StringsToIds"), "StringsToIds"),
        last_column_id=shapes.number(store.get("LastIdUsed"), "LastIdUsed"),
        last_shard_id=last_shard or max((shard.id for shard in shards), default=0),
        spaces=shapes.each(document.get("DatabaseShardSpaces"), "DatabaseShardSpaces", spaces),
        shards={shard.id: shard for shard in shards},
        old_shards={shard.id: shard.servers for shard in old},
        old_ranges={shard.id: (shard.start_us, shard.end_us) for shard in old},
        last_old_id=max((shard.id for shard in old), default=0),
        servers=[shapes.server(one, "Servers") for one in servers],
    )


def _has_gaps(state: State) -> bool:
    """Say whether columns are gone: their ids are never given to others."""
    known = sum(len(columns) for series in state.ids.values() for columns in series.values())
    return known < state.last_column_id


def _both(one: Dropped, other: Dropped) -> Dropped:
    return Dropped(
        one.databases | other.databases, one.series | other.series, one.spaces | other.spaces
    )


def _catalogue(state: State, own_server: int | None, dropped: Dropped) -> Catalogue:
    # A shard of no database is none of 0.8's, whoever wrote it into the snapshot.
    shards = (shard for shard in state.shards.values() if shard.database)
    return Catalogue(
        databases=frozenset(state.databases),
        ids=state.ids,
        spaces={name: tuple(found) for name, found in state.spaces.items()},
        shards=tuple(sorted(shards, key=lambda shard: shard.id)),
        servers=tuple(sorted(state.servers, key=lambda server: server.id)),
        own_server=own_server,
        dropped=dropped,
        old_shards=state.old_shards,
        old_ranges={number: state.old_ranges[number] for number in state.old_shards},
        heard_of=frozenset(state.databases | state.heard_of),
    )
