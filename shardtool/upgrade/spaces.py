"""Shard spaces as they are and as they are to be, the plan between the two, and its words. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from shardtool.influxdb.model import Catalogue, Space
from shardtool.influxdb.spaces import duration_us


def like_07(database: str) -> tuple[Space, Space]:
    """Return the two spaces of the guide that are like those that 0.7 had built in."""
    return (
        Space("short_term", database, "/.*/", "inf", "7d", 1, 1),
        Space("long_term", database, "/^[A-Z].*/", "inf", "30d", 1, 1),
    )


@dataclass(frozen=True)
class Had:
    """What a database has.

    Args:
        spaces: in the order in which a series asks them, the newest first.
        shards: the ids of each space's shards, by the space's name.
        series: names that are known.
    """

    spaces: tuple[Space, ...] = ()
    shards: Mapping[str, tuple[int, ...]] | None = None
    series: Collection[str] = ()

    def shards_of(self, space: Space) -> tuple[int, ...]:
        """Return the ids of a space's shards."""
        return (self.shards or {}).get(space.name, ())


def had_by(catalogue: Catalogue) -> dict[str, Had]:
    """Return what each database has that raft knows, by its name."""
    shards: dict[str, dict[str, tuple[int, ...]]] = {}
    for shard in catalogue.shards:
        of_database = shards.setdefault(shard.database, {})
        of_database[shard.space] = (*of_database.get(shard.space, ()), shard.id)
    return {
        name: Had(
            catalogue.spaces.get(name, ()), shards.get(name, {}), catalogue.ids.get(name, {}).keys()
        )
        for name in sorted(catalogue.databases | catalogue.spaces.keys())
    }


@dataclass(frozen=True)
class Step:
    """One request to the server, or none.

    Args:
        action: 'create', 'change', 'remove' or 'keep'.
        space: as it is to be; for 'remove', as it is.
        before: as it is; None where it is not there.
        why: what the operator has to know of it; may be empty.
    """

    action: str
    space: Space
    before: Space | None = None
    why: str = ""


@dataclass(frozen=True)
class Plan:
    """What is to be done, in this order.

    Args:
        steps: of all databases; those of a space that is made again follow each other.
        after: each database's spaces when it is done, the newest first.
        warnings: what holds, but perhaps not as it was meant.
        refusals: why nothing is done at all, a line each.
        taken_from: spaces with shards, part of whose values are not found any more then, as the
            operator wants it.
    """

    steps: tuple[Step, ...]
    after: Mapping[str, tuple[Space, ...]]
    warnings: tuple[str, ...]
    refusals: tuple[str, ...]
    taken_from: tuple[Space, ...] = ()

    @property
    def requests(self) -> tuple[Step, ...]:
        """The steps that change something."""
        return tuple(step for step in self.steps if step.action != "keep")


def same_meaning(one: Space, other: Space) -> bool:
    """Return whether two spaces of a name are the same to 0.8: '' stands for 7d and inf."""
    return (
        one.regex == other.regex
        and kept_us(one) == kept_us(other)
        and width_us(one) == width_us(other)
        and (one.replication, one.split) == (other.replication, other.split)
    )


def space_document(space: Space) -> dict[str, str | int]:
    """Return a space in the server's own words, as JSON documents and the journal have it."""
    return {
        "database": space.database,
        "name": space.name,
        "regex": space.regex,
        "retentionPolicy": space.retention,
        "shardDuration": space.shard_duration,
        "replicationFactor": space.replication,
        "split": space.split,
    }


def difference(step: Step) -> tuple[str, ...]:
    """Return what a change changes: 'retentionPolicy 30d -> inf'."""
    old, new = step.before, step.space
    if old is None:
        return ()
    pairs = {
        "regex": (old.regex, new.regex),
        "retentionPolicy": (old.retention, new.retention),
        "shardDuration": (old.shard_duration, new.shard_duration),
        "replicationFactor": (str(old.replication), str(new.replication)),
        "split": (str(old.split), str(new.split)),
    }
    return tuple(
        f"{key} {cut(was)} -> {cut(now)}" for key, (was, now) in pairs.items() if was != now
    )


def deviations(plan: Plan, found: Mapping[str, tuple[Space, ...]]) -> tuple[str, ...]:
    """Return what a server has otherwise than planned, a line each.

    Args:
        plan: what was done.
        found: per database, as read back.
    """
    lines = []
    for database, expected in plan.after.items():
        line = unlike(expected, found.get(database, ()))
        if line:
            lines.append(f"{cut(database)[1:-1]}: {line}")
    return tuple(lines)


def unlike(expected: Sequence[Space], found: Sequence[Space]) -> str:
    """Return 'expected the spaces [a, b], found [b, a]'; nothing where both are the same to 0.8."""
    if len(found) == len(expected) and all(
        one.name == other.name and same_meaning(one, other)
        for one, other in zip(expected, found, strict=True)
    ):
        return ""
    names = [", ".join(space.name for space in spaces) or "none" for spaces in (expected, found)]
    what = "other definitions" if names[0] == names[1] else f"[{names[1]}]"
    return f"expected the spaces [{names[0]}], found {what}"


def kept_us(space: Space) -> int | str:
    """Return a retention in us; 'inf' for ever, and what nobody can read as it is."""
    length = duration_us(space.retention)
    if length is None:
        return space.retention or "inf"
    return length or "inf"  # ParsedRetentionPeriod: 0 is no limit


def width_us(space: Space) -> int | str:
    """Return a shard's duration in us; what nobody can read as it is."""
    length = duration_us(space.shard_duration or "7d")
    return space.shard_duration if length is None else length


def cut(text: str) -> str:
    """Return a text of a server in quotes, as a message may show it."""
    return repr(text if len(text) <= 40 else text[:37] + "...")


def called(space: Space) -> str:
    """Return 'database: space', as a message begins."""
    return f"{cut(space.database)[1:-1]}: {cut(space.name)[1:-1]}"


def shards_named(ids: Sequence[int]) -> str:
    """Return 'shards 1, 2, 3 and 4 more'."""
    listed = ", ".join(str(number) for number in sorted(ids)[:8])
    more = f" and {len(ids) - 8} more" if len(ids) > 8 else ""
    return f"shard {listed}" if len(ids) == 1 else f"shards {listed}{more}"
