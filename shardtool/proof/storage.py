"""The new storage as a proof sees it: which new shards can hold a value, opened as needed."""

from __future__ import annotations

import contextlib
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from shardtool.influxdb.catalogue import Catalogue, ShardRange
from shardtool.influxdb.engines import EngineBusyError, EngineError, open_shard
from shardtool.influxdb.keys import ID_BYTES
from shardtool.influxdb.spaces import space_of
from shardtool.proof.columns import Name
from shardtool.proof.compare import Cursor, Piece
from shardtool.proof.state import state_of

_TIME = slice(ID_BYTES, 2 * ID_BYTES)  # of a key
# New shards open at a time. A year's worth for one old shard with very old or future values.
_MOST_OPEN = 48


@dataclass(frozen=True)
class LocalShard:
    """A new shard on this node's disk.

    Args:
        path: its directory.
        engine: what its type file names.
        error: why it can't be read at all; empty where it can.
        in_use: another process has it open and its engine can't be read beside one (lmdb).
    """

    path: Path
    engine: str
    error: str = ""
    in_use: bool = False


@dataclass(frozen=True)
class Cover:
    """The new shards that can hold one piece: each covers all of its times.

    Args:
        shards: names of those on this node's disk.
        elsewhere: some are on other servers only.
        unasked: names of shards on this disk that 0.8 does not ask for the series: they are of
            another space than the one that takes it now (HAZARDS.md, 15).
    """

    shards: tuple[str, ...] = ()
    elsewhere: bool = False
    unasked: tuple[str, ...] = ()

    @property
    def is_any(self) -> bool:
        return bool(self.shards) or self.elsewhere


class Place(NamedTuple):
    """Where 0.8 looks for a series: its database, and the space that takes it (None: none)."""

    database: str
    space: str | None


class NewStorage:
    """Every new shard that the catalogue knows; a context manager, which closes what it opened.

    A directory in shard_db_v2 that the catalogue does not know is no storage: 0.8 answers no
    query from it (FORMATS.md, "Phantom shards"), and what a drop left of one is rubbish. Nor does
    it ask the shards of a space that does not take the series.
    """

    def __init__(self, catalogue: Catalogue, local: Mapping[str, LocalShard], scratch: Path):
        """Prepare to read; nothing is opened yet.

        Args:
            catalogue: says which shards there are.
            local: those on this node's disk, by name.
            scratch: a directory for links.
        """
        self._catalogue = catalogue
        self._local = local
        self._scratch = scratch
        self._open: OrderedDict[str, tuple[contextlib.ExitStack, Cursor]] = OrderedDict()
        self._covers: dict[tuple[Place, int], Cover] = {}
        self.states: dict[str, str] = {}
        """The state that each shard had before its first pair was read, by name."""

    def __enter__(self) -> NewStorage:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        every = contextlib.ExitStack()
        for stack, _ in self._open.values():
            every.push(stack)
        self._open.clear()
        # An error may be of links that have gone: then a shard's own end says so.
        every.__exit__(kind, error, trace)

    def place_of(self, name: Name) -> Place:
        """Return where 0.8 looks for a column."""
        space = space_of(self._catalogue.spaces.get(name.database, ()), name.series)
        return Place(name.database, None if space is None else space.name)

    def parts(self, place: Place, piece: Piece) -> Iterator[tuple[Piece, Cover]]:
        """Cut a piece where new shards of its database begin and end; yield each part's cover."""
        timeline = self._catalogue.timelines.get(place.database)
        bounds = timeline.bounds if timeline is not None else ()
        start, end = 0, len(piece.keys)
        while start < end:
            at = bisect_right(bounds, piece.keys[start][_TIME])
            if at == len(bounds) or piece.keys[-1][_TIME] < bounds[at]:
                stop = end
            else:
                stop = bisect_left(piece.keys, bounds[at], start, key=lambda key: key[_TIME])
            cover = self._covers.get((place, at))
            if cover is None:
                ranges = timeline.cover(at) if timeline is not None else []
                cover = self._covers[place, at] = self._cover(ranges, place.space)
            yield piece.part(start, stop), cover
            start = stop

    def _cover(self, ranges: list[ShardRange], space: str | None) -> Cover:
        # A directory of a shard that raft has given to other servers is not asked by anybody.
        # Which server this is may not be known: then a shard is here if it is everywhere.
        own = self._catalogue.own_server
        owners = {s.id for s in self._catalogue.servers} if own is None else {own}
        asked = [shard for shard in ranges if shard.space == space]
        ours = [shard for shard in asked if owners.issubset(shard.servers)]
        others = [shard for shard in ranges if shard.space != space]
        return Cover(self._here(ours), len(ours) < len(asked), self._here(others))

    def _here(self, shards: list[ShardRange]) -> tuple[str, ...]:
        names = (f"{shard.id:05d}" for shard in shards)
        return tuple(name for name in names if name in self._local)

    def cursor(self, name: str) -> Cursor:
        """Return the cursor of a local new shard, opening it where it is not.

        Raises:
            EngineError: it can't be read.
        """
        found = self._open.get(name)
        if found is not None:
            self._open.move_to_end(name)
            return found[1]
        if len(self._open) >= _MOST_OPEN:
            self._open.popitem(last=False)[1][0].close()
        shard = self._local[name]
        if shard.error:
            raise EngineError(f"{shard.path}: can't be read: {shard.error}")
        if shard.in_use:
            raise EngineBusyError(
                f"{shard.path}: an lmdb can't be read while a server has it open; stop it first"
            )
        if name not in self.states:
            self.states[name] = state_of(shard.path)
        with contextlib.ExitStack() as stack:
            reader = stack.enter_context(open_shard(shard.path, shard.engine, self._scratch))
            cursor = Cursor(reader)
            self._open[name] = stack.pop_all(), cursor
        return cursor
