"""Why a value is in no new shard: pure functions of the catalogue, the index and the marker."""

from __future__ import annotations

from dataclasses import dataclass

from shardtool.influxdb.catalogue import Catalogue
from shardtool.influxdb.spaces import duration_us, space_of
from shardtool.proof.columns import Index, OldColumn

# In this order: the first one that applies is told.
# What is gone from 0.8 because somebody wanted it so; it would go again, or should not be there.
NOT_WANTED = ("expired", "dropped")
CAUSES = ("future", "name", "unknown-database", "expired", "dropped", "not-migrated", "unknown")
IN_WORDS = {
    "future": "dated after the migration, which copied only what was older than itself",
    "name": "a name with ~, \" or \\, or that begins another's with ~: 0.8 skips those",
    "unknown-database": "0.8 does not know the database, so it never looked at it",
    "expired": "older than its shard space keeps values: 0.8 has let go of them",
    "dropped": "the series, the database or the space was dropped in 0.8",
    "not-migrated": "nothing of the column was brought over from this shard",
    "unknown": "other values of the column are there; look for errors in 0.8's log",
}


@dataclass(frozen=True)
class ColumnCauses:
    """What can be said of all values of one column.

    Args:
        marked_us: when the shard was marked, us since the epoch; None if it was not.
        stumbles: the migrator skips its series for a name.
        unknown_database: no database that it could belong to is known or was dropped.
        expired_before_us: values older than this (us since the epoch) are beyond the retention
            of the space that takes the series; None where everything is kept.
        dropped: its series or database was dropped.
        space_dropped: a space of its database was dropped, and its shards with it.
        has_id: the new storage knows the column.
        forgets: raft has forgotten some of what was dropped.
    """

    marked_us: int | None
    stumbles: bool
    unknown_database: bool
    expired_before_us: int | None
    dropped: bool
    space_dropped: bool
    has_id: bool
    forgets: bool = False

    def cause(self, time_us: int, *, covered: bool) -> str:
        """Return why a missing value is not there.

        Args:
            time_us: its time, us since the epoch.
            covered: its database has a new shard for that time.

        Returns:
            One of CAUSES; empty where it depends on whether anything of its column has arrived.
        """
        if self.marked_us is None:
            return "not-migrated"
        if time_us > self.marked_us:
            return "future"
        if self.stumbles:
            return "name"
        if self.unknown_database:
            return "unknown-database"
        if self.expired_before_us is not None and time_us < self.expired_before_us:
            return "expired"
        if self.dropped or (self.space_dropped and not covered):
            return "dropped"
        return "" if self.has_id else "not-migrated"

    def unwanted(self, time_us: int) -> str:
        """Return which of NOT_WANTED applies to a value of that time, though another cause is told
        first; empty for none."""
        if self.dropped:
            return "dropped"
        before = self.expired_before_us
        if before is not None and time_us < before:
            return "expired"
        # The migrator brought it over, as far as one can tell, and now nobody knows its column.
        is_gone = self.cause(time_us, covered=True) == "not-migrated" and not self.has_id
        return "dropped" if self.forgets and self.marked_us is not None and is_gone else ""

    def rest(self, *, nothing_came: bool) -> str:
        """Return why those values are missing for which `cause` had no answer.

        Args:
            nothing_came: no value of the column in this shard is in the new storage. Where a
                space of its database was dropped, they were most likely in that: the new shards
                of their time that are left are other series'.
        """
        if not nothing_came:
            return "unknown"
        return "dropped" if self.space_dropped else "not-migrated"


def causes_of(
    column: OldColumn, index: Index, catalogue: Catalogue, *, marked_us: int | None, now_us: int
) -> ColumnCauses:
    """Given a column, return what can be said of its missing values.

    Args:
        column: the column.
        index: of its old shard.
        catalogue: what the new storage knows.
        marked_us: when the shard was marked, us since the epoch; None if it was not.
        now_us: the present moment, us since the epoch.
    """
    name, dropped = column.name, catalogue.dropped
    database_dropped = name.database in dropped.databases
    return ColumnCauses(
        marked_us=marked_us,
        stumbles=index.stumbles(name),
        unknown_database=not column.databases and not database_dropped,
        expired_before_us=_expired_before(catalogue, name.database, name.series, now_us),
        dropped=database_dropped or (name.database, name.series) in dropped.series,
        space_dropped=any(database == name.database for database, _ in dropped.spaces),
        has_id=bool(column.known),
        forgets=catalogue.forgets,
    )


def _expired_before(catalogue: Catalogue, database: str, series: str, now_us: int) -> int | None:
    space = space_of(catalogue.spaces.get(database, ()), series)
    kept = None if space is None else duration_us(space.retention)
    return None if kept is None else now_us - kept
