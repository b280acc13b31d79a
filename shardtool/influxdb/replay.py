"""What the commands of the raft log do to what 0.8 knows (FORMATS.md, "raft/", commands).

Does as 0.8.3 does, its refusals included: a command that the server answered with an error stands
in the log all the same. 0.7's commands are replayed as 0.8 replays them, for that decides the
numbers of 0.8's shards. Pure: no files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from shardtool.influxdb import shapes
from shardtool.influxdb.model import Dropped, Server, ShardRange, Space
from shardtool.influxdb.raft import Entry
from shardtool.influxdb.regex import compiled

_DEFAULT_SPACE = "default"
_ONLY_08 = frozenset(
    (
        "add_shard_space",
        "remove_shard_space",
        "update_shard_space",
        "drop_series",
        "create_series_field_ids",
    )
)


@dataclass
class State:
    """What 0.8 knows at some entry of the log."""

    databases: set[str] = field(default_factory=set)
    heard_of: set[str] = field(default_factory=set)
    ids: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    last_column_id: int = 0
    last_shard_id: int = 0
    spaces: dict[str, list[Space]] = field(default_factory=dict)
    shards: dict[int, ShardRange] = field(default_factory=dict)
    old_shards: dict[int, tuple[int, ...]] = field(default_factory=dict)
    old_ranges: dict[int, tuple[int, int]] = field(default_factory=dict)
    last_old_id: int = 0
    servers: list[Server] = field(default_factory=list)

    def space(self, database: str, name: str) -> Space | None:
        """Return the space of that name; None where there is none."""
        return next((one for one in self.spaces.get(database, ()) if one.name == name), None)


@dataclass(frozen=True)
class _UnknownDrop:
    """A database that was dropped, and nobody knows whether it had values in 0.8."""

    database: str
    index: int
    term: int


class Replay:
    """Applies entries to a state and keeps account of what is dropped.

    `known`: the state is all that there was before the first entry. Where the log's beginning was
    compacted away it is not, and what is dropped may have been there or not.
    """

    def __init__(self, state: State, *, known: bool) -> None:
        """Begin with `state`, which is changed by each entry."""
        self.state = state
        self._known = known
        # The shards again, by space and time range: a log may hold very many create_shards.
        self._ranges: dict[tuple[str, str], dict[tuple[int, int], set[int]]] = {}
        for shard in state.shards.values():
            self._keep(shard)
        self._old_ranges: set[tuple[int, int, int]] = set()
        self._databases: set[str] = set()
        self._series: set[tuple[str, str]] = set()
        self._spaces: set[tuple[str, str]] = set()
        self._unknown: list[_UnknownDrop] = []
        self._first_08: int | None = None
        self._last_07 = 0
        self._terms_of_07: set[int] = set()
        self._terms_of_08: set[int] = set()
        self._commands: dict[str, Callable[[dict[str, object], Entry], None]] = {
            "join": self._join,
            "force_leave": self._leave,
            "create_db": self._create_database,
            "drop_db": self._drop_database,
            "create_shards": self._create_shards,
            "drop_shard": self._drop_shard,
            "add_shard_space": self._add_space,
            "update_shard_space": self._update_space,
            "remove_shard_space": self._remove_space,
            "create_series_field_ids": self._create_ids,
            "drop_series": self._drop_series,
        }

    def apply(self, entry: Entry) -> None:
        """Do what the entry's command does; commands about other things do nothing.

        Raises:
            shapes.ShapeError: it is not the command that its name says.
        """
        command = self._commands.get(entry.name)
        if command is None:
            return
        try:
            document = json.loads(entry.command or b"")
        except (ValueError, RecursionError) as error:
            raise shapes.ShapeError(f"{entry.name}: expected JSON, found: {error}") from None
        if entry.name in _ONLY_08:
            self._note_08(entry)
        command(shapes.mapping(document, entry.name), entry)

    def dropped(self, *, all_07: bool = False) -> Dropped:
        """Return what was dropped while 0.8 had it, or may have had it.

        Args:
            all_07: all of these entries are of 0.7's time, so 0.8 had nothing then.
        """
        unknown = () if all_07 else self._unknown
        databases = {drop.database for drop in unknown if not self._is_of_07(drop)}
        return Dropped(
            frozenset(self._databases | databases), frozenset(self._series), frozenset(self._spaces)
        )

    def _is_of_07(self, drop: _UnknownDrop) -> bool:
        """A term is one run of a server: 0.7 created shards in this one, or in a later one."""
        before_08 = self._first_08 is None or drop.index < self._first_08
        return drop.term in self._terms_of_07 - self._terms_of_08 or (
            before_08 and drop.index < self._last_07
        )

    def _note_08(self, entry: Entry) -> None:
        self._terms_of_08.add(entry.term)
        if self._first_08 is None:
            self._first_08 = entry.index

    # -- servers --

    def _join(self, command: dict[str, object], _: Entry) -> None:
        name = shapes.text(command.get("name"), "join.name")
        servers = self.state.servers
        if all(server.raft_name != name for server in servers):
            servers.append(Server(len(servers) + 1, name))

    def _leave(self, command: dict[str, object], _: Entry) -> None:
        number = shapes.number(command.get("id"), "force_leave.id")
        servers = self.state.servers
        for place, server in enumerate(servers):
            if server.id == number:
                # The last one takes the place; the next to join gets the count as its number.
                servers[place] = servers[-1]
                servers.pop()
                return

    # -- databases --

    def _create_database(self, command: dict[str, object], _: Entry) -> None:
        name = shapes.text(command.get("name"), "create_db.name")
        self.state.databases.add(name)
        self.state.heard_of.add(name)

    def _drop_database(self, command: dict[str, object], entry: Entry) -> None:
        name = shapes.text(command.get("name"), "drop_db.name")
        state = self.state
        state.heard_of.add(name)
        if self._known and name not in state.databases:
            return  # refused, before it looks at anything else
        if name in state.ids:
            self._databases.add(name)
        elif not self._known:
            self._unknown.append(_UnknownDrop(name, entry.index, entry.term))
        state.databases.discard(name)
        state.ids.pop(name, None)
        for space in state.spaces.pop(name, ()):
            self._drop_shards_of(space.database, space.name)

    # -- shards --

    def _create_shards(self, command: dict[str, object], entry: Entry) -> None:
        """Number new shards, unless their space has one of the first one's range already.

        A command of 0.7 names no space: the numbers are used up (0.8 has even made the
        directories, the phantoms) before the server finds that the space is unknown. None of
        them is kept, so a range that 0.7 was asked for twice uses up two numbers.
        """
        asked = [
            shapes.shard(one, "create_shards")
            for one in shapes.listing(command.get("Shards"), "create_shards.Shards")
        ]
        if not asked:
            return
        first = asked[0]
        if not (first.database or first.space):
            self._last_07 = entry.index
            self._terms_of_07.add(entry.term)
            self._create_old(command, asked)
        else:
            self._note_08(entry)
        state = self.state
        if _range(first) in self._ranges.get((first.database, first.space), ()):
            return
        exists = state.space(first.database, first.space) is not None
        for shard in asked:
            state.last_shard_id += 1
            if exists:
                # The first one's database and space count for all.
                number, database, space = state.last_shard_id, first.database, first.space
                self._keep(replace(shard, id=number, database=database, space=space))

    def _create_old(self, command: dict[str, object], asked: Sequence[ShardRange]) -> None:
        """Number 0.7's own shards as 0.7 did, which makes none of a range and kind twice."""
        kinds = [
            shapes.number(shapes.mapping(one, "create_shards").get("Type"), "create_shards.Type")
            for one in shapes.listing(command.get("Shards"), "create_shards.Shards")
        ]
        key = (kinds[0], *_range(asked[0]))
        if key in self._old_ranges:
            return
        self._old_ranges.add(key)
        for shard in asked:
            self.state.last_old_id += 1
            self.state.old_shards[self.state.last_old_id] = shard.servers
            self.state.old_ranges[self.state.last_old_id] = shard.start_us, shard.end_us

    def _drop_shard(self, command: dict[str, object], _: Entry) -> None:
        number = shapes.number(command.get("ShardId"), "drop_shard.ShardId")
        servers = shapes.listing(command.get("ServerIds"), "drop_shard.ServerIds")
        if self._first_08 is None and number in self.state.old_shards:
            left = tuple(s for s in self.state.old_shards.pop(number) if s not in servers)
            if left:
                self.state.old_shards[number] = left
        shard = self.state.shards.get(number)
        if shard is None:
            return
        # As many servers as the shard has are all of them, whichever they are.
        if len(servers) == len(shard.servers):
            self._forget(shard)
            return
        left = tuple(server for server in shard.servers if server not in servers)
        self.state.shards[number] = replace(shard, servers=left)

    def _drop_shards_of(self, database: str, space: str) -> None:
        for numbers in self._ranges.pop((database, space), {}).values():
            for number in numbers:
                del self.state.shards[number]

    def _keep(self, shard: ShardRange) -> None:
        self.state.shards[shard.id] = shard
        of_space = self._ranges.setdefault((shard.database, shard.space), {})
        of_space.setdefault(_range(shard), set()).add(shard.id)

    def _forget(self, shard: ShardRange) -> None:
        del self.state.shards[shard.id]
        of_space = self._ranges[shard.database, shard.space]
        of_space[_range(shard)].remove(shard.id)
        if not of_space[_range(shard)]:
            del of_space[_range(shard)]

    # -- spaces --

    def _add_space(self, command: dict[str, object], _: Entry) -> None:
        space = shapes.space(command.get("ShardSpace"), "add_shard_space")
        state = self.state
        if state.space(space.database, space.name):
            return
        if space.name != _DEFAULT_SPACE:
            if self._known and space.database not in state.databases:
                return
            if not (space.name and space.regex):
                return
            space = replace(space, split=space.split or 1, replication=space.replication or 1)
        state.spaces.setdefault(space.database, []).insert(0, space)

    def _update_space(self, command: dict[str, object], _: Entry) -> None:
        space = shapes.space(command.get("ShardSpace"), "update_shard_space")
        spaces = self.state.spaces.get(space.database, [])
        for place, old in enumerate(spaces):
            if old.name == space.name:
                # 0.8 compiles the regex first, and changes nothing where that fails.
                if compiled(space.regex) is not None:
                    spaces[place] = space
                return

    def _remove_space(self, command: dict[str, object], _: Entry) -> None:
        database = shapes.text(command.get("Database"), "remove_shard_space.Database")
        name = shapes.text(command.get("Name"), "remove_shard_space.Name")
        state = self.state
        if state.space(database, name):
            left = [one for one in state.spaces[database] if one.name != name]
            if left:
                state.spaces[database] = left
            else:
                del state.spaces[database]
            self._drop_shards_of(database, name)
        elif self._known:
            return  # the server crashes at this one
        self._spaces.add((database, name))

    # -- columns --

    def _create_ids(self, command: dict[str, object], _: Entry) -> None:
        what = "create_series_field_ids"
        database = shapes.text(command.get("Database"), f"{what}.Database")
        # Even one that was just dropped: whoever writes to it meanwhile gets ids.
        of_database = self.state.ids.setdefault(database, {})
        for one in shapes.listing(command.get("Series"), f"{what}.Series"):
            series = shapes.mapping(one, f"{what}.Series")
            name = shapes.text(series.get("name"), f"{what}.name")
            columns = of_database.setdefault(name, {})
            for column in shapes.listing(series.get("fields"), f"{what}.fields"):
                column_name = shapes.text(column, f"{what}.fields")
                if column_name not in columns:
                    self.state.last_column_id += 1
                    columns[column_name] = self.state.last_column_id

    def _drop_series(self, command: dict[str, object], _: Entry) -> None:
        database = shapes.text(command.get("Database"), "drop_series.Database")
        series = shapes.text(command.get("Series"), "drop_series.Series")
        had = self.state.ids.get(database, {}).pop(series, None)
        if had is not None or not self._known:
            self._series.add((database, series))


def _range(shard: ShardRange) -> tuple[int, int]:
    """Return the time range as the server compares it: in whole seconds."""
    return shard.start_us // 1_000_000, shard.end_us // 1_000_000
