"""The columns of an old shard: which names its index can mean, and which ids they have now.

An index key is `database~series~column`, and each of the three may contain `~` itself
(FORMATS.md, "db/shard_db/NNNNN"): every split that the catalogue knows is a candidate.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from shardtool.influxdb.catalogue import Catalogue
from shardtool.influxdb.engines import EngineError, Reader
from shardtool.influxdb.keys import COLUMN_INDEX, ID_BYTES, SERIES_INDEX, new_column_id

_BATCH = 4096
# Splits of one index key that are tried. Names with more `~` than that are an attack; what they
# name counts as missing, which keeps the shard.
_MOST_SPLITS = 2000


@dataclass(frozen=True, slots=True)
class Name:
    """A column's full name; bytes that are no UTF-8 as surrogates."""

    database: str
    series: str
    column: str

    @property
    def series_text(self) -> str:
        """The series as the old index spells it."""
        return f"{self.database}~{self.series}"


@dataclass(frozen=True, slots=True)
class Known:
    """A name that the catalogue has an id for, as the 8 bytes that begin new keys."""

    name: Name
    id: bytes


@dataclass(frozen=True, slots=True)
class OldColumn:
    """A column of an old shard.

    Args:
        name: the name to call it by; of several that its index key can mean the likeliest.
        known: those of its possible names that have an id in the new storage.
        databases: those of its possible databases that the catalogue knows.
        owner: whose it is by the shard's own index; None where two databases or two series can
            claim it, or none can be told.
    """

    name: Name
    known: tuple[Known, ...]
    databases: tuple[str, ...]
    owner: Name | None = None


class Index:
    """The index of one old shard."""

    def __init__(self, columns: dict[bytes, str], series: frozenset[str], catalogue: Catalogue):
        """Take what read_index found.

        Args:
            columns: index text (`database~series~column`) by column id.
            series: index texts (`database~series`) of the series.
            catalogue: what the new storage knows.
        """
        self._columns = columns
        self._series = series
        self._catalogue = catalogue

    def column(self, column_id: bytes) -> OldColumn:
        """Return what is known of a column, by the 8 bytes that begin its keys.

        A column that the index does not have is called by its id, and has no known name.
        """
        text = self._columns.get(column_id)
        if text is None:
            return OldColumn(Name("", "", f"#{column_id.hex()}"), (), ())
        names = list(_splits(text))
        ids = self._catalogue.ids
        known = []
        for name in names:
            number = ids.get(name.database, {}).get(name.series, {}).get(name.column)
            if number is not None:
                known.append(Known(name, new_column_id(number)))
        databases = {n.database: None for n in names if n.database in self._catalogue.databases}
        name = self._likeliest(names, known)
        return OldColumn(name, tuple(known), tuple(databases), self._owner(names))

    def _owner(self, names: list[Name]) -> Name | None:
        """Return whose column it is, for whoever is to write its values somewhere.

        A series of the index that can claim it, in a database that raft has heard of. Of two the
        longer one: `a~b` stands in the index because it has a column. But `a` does so too: it
        has to have one that `a~b` can't claim.
        """
        there = [name for name in names if name.series_text in self._series]
        heard = self._catalogue.heard_of | self._catalogue.databases
        there = [name for name in there if name.database in heard] or there
        if len({name.database for name in there}) != 1:
            return None
        longest = max(there, key=lambda name: len(name.series))
        others = (name for name in there if name is not longest)
        return longest if all(self._has_more(name, longest) for name in others) else None

    def _has_more(self, name: Name, longer: Name) -> bool:
        """Say whether a series has a column that a longer one, whose name begins with its own,
        can't claim."""
        own, claimed = f"{name.series_text}~", f"{longer.series_text}~"
        texts = self._ordered
        first, begin = bisect_left(texts, own), bisect_left(texts, claimed)
        # What begins with the one or the other stands together, the claimed ones amid the others.
        end = bisect_left(texts, True, lo=begin, key=lambda text: not text.startswith(claimed))
        return first < begin or any(text.startswith(own) for text in texts[end : end + 1])

    @cached_property
    def _ordered(self) -> list[str]:
        return sorted(self._columns.values())

    def _likeliest(self, names: list[Name], known: list[Known]) -> Name:
        def weight(name: Name) -> tuple[bool, bool, bool, int, int]:
            return (
                any(name == one.name for one in known),
                name.database in self._catalogue.databases,
                name.series_text in self._series,
                # A `~` is likelier in a series' name than in a database's or a column's.
                -name.database.count("~"),
                -name.column.count("~"),
            )

        return max(names, key=weight)

    def stumbles(self, name: Name) -> bool:
        """Say whether 0.8's migrator skips a column because of a name (HAZARDS.md, 3 to 5).

        It takes what stands between the `~` of an index key for database, series and column
        (0.8.3's published source, migration/leveldb_shard.go).
        """
        awkward = "~" in name.database or not {"~", '"', "\\"}.isdisjoint(name.series)
        return awkward or "~" in name.column or name.series_text in self._spoiled

    @cached_property
    def _spoiled(self) -> frozenset[str]:
        """Series of which the migrator brings over nothing, since it finds a column that they do
        not have: the columns of `a~b` look like a column `b` of a series `a`, and so does the
        column `b~c` of `a` itself."""
        spoiled = set()
        lengths = set(map(len, self._series))
        columns = frozenset(self._columns.values())
        for text in columns:
            # All `~` but the last: up to there it may be a series, and a `~` follows later.
            at = text.find("~")
            last = text.rfind("~")
            while (at := text.find("~", at + 1)) not in (-1, last):
                seems = text[: text.find("~", at + 1)]
                if at in lengths and text[:at] in self._series and seems not in columns:
                    spoiled.add(text[:at])
        return frozenset(spoiled)


def read_index(reader: Reader, catalogue: Catalogue) -> Index:
    """Read the index of an open old shard.

    Raises:
        EngineError: it can't be read.
    """
    columns: dict[bytes, str] = {}
    series: set[str] = set()
    stream = reader.pairs(COLUMN_INDEX)
    while block := stream.take(_BATCH):
        for key, value in block:
            text = key[ID_BYTES:].decode("utf-8", errors="surrogateescape")
            if key.startswith(COLUMN_INDEX):
                if text.count("~") < 2:
                    raise EngineError(
                        f"{reader.path}: expected an index key database~series~column, "
                        f"found {key[:64]!r}"
                    )
                if len(value) != ID_BYTES or columns.get(value, text) != text:
                    raise EngineError(
                        f"{reader.path}: expected an id of its own for the column {text[:64]!r}, "
                        f"found {value[:16].hex()}"
                    )
                columns[value] = text
            elif key.startswith(SERIES_INDEX):
                series.add(text)
    return Index(columns, frozenset(series), catalogue)


def _splits(text: str) -> Iterator[Name]:
    """Yield each way to split an index text into database, series and column."""
    parts = text.split("~")
    count = 0
    for first in range(1, len(parts) - 1):
        for second in range(first + 1, len(parts)):
            yield Name(
                "~".join(parts[:first]), "~".join(parts[first:second]), "~".join(parts[second:])
            )
            count += 1
            if count == _MOST_SPLITS:
                return
