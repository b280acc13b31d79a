"""What a proof rests on in the catalogue: the column ids and the new shards that it used.

Files alone don't tell: after a raft log was put back, or a series dropped, the same bytes in
shard_db_v2 may belong to nobody.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias

from shardtool.influxdb.model import Catalogue
from shardtool.proof.columns import Name

ById: TypeAlias = Mapping[int, Name]


class Basis:
    """A digest over what is used, in whatever order, and the list of the ids that are."""

    def __init__(self, catalogue: Catalogue) -> None:
        """Begin with nothing used but the node's own place in the cluster."""
        self._catalogue = catalogue
        self._databases: set[str] = set()  # those whose spaces are in
        self._ids = array("Q")
        # A sum, so that neither their order nor their number matters to memory.
        self._sum = _part("server", str(catalogue.own_server))

    def add_column(self, number: int, name: Name) -> None:
        """Use the id `number`, which belongs to `name`; each id once."""
        self._ids.append(number)
        self._sum += _part("column", str(number), name.database, name.series, name.column)

    def add_shard(self, name: str) -> None:
        """Use a new shard; one that the catalogue does not know counts as none."""
        shard = self._catalogue.shards_by_name.get(name)
        if shard is not None:
            times, servers = f"{shard.start_us} {shard.end_us}", str(sorted(shard.servers))
            self._sum += _part("shard", name, shard.database, shard.space, times, servers)
            # Which space takes a series depends on all of them, and on their order.
            if shard.database not in self._databases:
                self._databases.add(shard.database)
                for place, space in enumerate(self._catalogue.spaces.get(shard.database, ())):
                    self._sum += _part("space", shard.database, str(place), space.name, space.regex)

    def ids(self) -> str:
        """Return the ids as ranges: '1-55,60'."""
        return ",".join(f"{a}-{b}" if a < b else str(a) for a, b in _runs(sorted(self._ids)))

    def hexdigest(self) -> str:
        """Return the digest as 64 hex digits."""
        return f"{self._sum % (1 << 256):064x}"


def basis_now(catalogue: Catalogue, by_id: ById, ids: str, shards: Iterable[str]) -> str:
    """Return the digest that the same ids and shards have in another catalogue.

    Args:
        catalogue: as it is now.
        by_id: its columns by their ids; see columns_by_id.
        ids: ranges, as Basis.ids gives them.
        shards: names of new shards.

    Raises:
        ValueError, OverflowError: `ids` are no ranges of ids.
    """
    basis = Basis(catalogue)
    for first, last in _ranges(ids):
        if last - first >= len(by_id):
            return ""  # more than there are: some are gone
        for number in range(first, last + 1):
            name = by_id.get(number)
            if name is not None:
                basis.add_column(number, name)
    for shard in shards:
        basis.add_shard(shard)
    return basis.hexdigest()


def columns_by_id(catalogue: Catalogue) -> dict[int, Name]:
    """Return a catalogue's columns by their ids."""
    return {
        number: Name(database, series, column)
        for database, all_series in catalogue.ids.items()
        for series, columns in all_series.items()
        for column, number in columns.items()
    }


def _part(*fields: str) -> int:
    line = "\0".join(f"{len(field)} {field}" for field in fields)
    return int.from_bytes(hashlib.sha256(line.encode("utf-8", "surrogateescape")).digest(), "big")


def _runs(numbers: list[int]) -> Iterator[tuple[int, int]]:
    """Given sorted numbers, yield the first and the last of each run without a gap."""
    start = 0
    for place in range(1, len(numbers) + 1):
        if place == len(numbers) or numbers[place] > numbers[place - 1] + 1:
            yield numbers[start], numbers[place - 1]
            start = place


def _ranges(text: str) -> Iterator[tuple[int, int]]:
    for part in text.split(",") if text else ():
        first, _, last = part.partition("-")
        yield int(first), int(last or first)
