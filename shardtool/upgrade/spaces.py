"""Shard spaces as they are and as they are to be: the one plan that is shown or executed. Pure.

New spaces are always asked before those that are there, so that a wrong order can only be put right
by removing a space and making it again; and removing one takes its shards along.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from shardtool.influxdb.model import Catalogue, Space
from shardtool.influxdb.spaces import DEFAULT_SPACE, duration_us
from shardtool.upgrade.spaces_order import Trial, ordered, overlaps


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
    """

    steps: tuple[Step, ...]
    after: Mapping[str, tuple[Space, ...]]
    warnings: tuple[str, ...]
    refusals: tuple[str, ...]

    @property
    def requests(self) -> tuple[Step, ...]:
        """The steps that change something."""
        return tuple(step for step in self.steps if step.action != "keep")


def same_meaning(one: Space, other: Space) -> bool:
    """Return whether two spaces of a name are the same to 0.8: '' stands for 7d and inf."""
    return (
        one.regex == other.regex
        and _kept(one) == _kept(other)
        and _width(one) == _width(other)
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


def plan_spaces(wanted: Sequence[Space], had: Mapping[str, Had]) -> Plan:
    """Return how to get from what is there to what is wanted.

    Args:
        wanted: sound spaces, each name once a database, in the file's order.
        had: by database; each database that is wanted.
    """
    parts = [
        _Planning(
            tuple(space for space in wanted if space.database == database), had[database]
        ).plan()
        for database in dict.fromkeys(space.database for space in wanted)
    ]
    return Plan(
        tuple(step for part in parts for step in part.steps),
        {name: spaces for part in parts for name, spaces in part.after.items()},
        tuple(warning for part in parts for warning in part.warnings),
        tuple(refusal for part in parts for refusal in part.refusals),
    )


class _Planning:
    """The plan of one database as it grows."""

    def __init__(self, wanted: tuple[Space, ...], had: Had) -> None:
        self._had = had
        self._there = {space.name: space for space in had.spaces}
        self._trial = Trial((*wanted, *had.spaces), had.series)
        self._wanted = ordered(wanted, self._trial)
        # How late it was made: what was made last is asked first.
        self._place = {space.name: -place for place, space in enumerate(had.spaces)}
        names = {space.name for space in wanted}
        self._others = [space for space in had.spaces if space.name not in names]
        self._again = self._to_be_made_again()
        self._warnings: list[str] = []
        self._refusals: list[str] = []

    def plan(self) -> Plan:
        steps = [step for space in self._wanted for step in self._steps(space)]
        self._look_at_others()
        for overlap in overlaps(self._wanted, self._trial):
            rule = "the later one in the file is asked first"
            self._warn_of_overlap(overlap.first, overlap.then, overlap.sample, rule)
        for space in self._wanted:
            kept, width = _kept(space), _width(space)
            if isinstance(kept, int) and isinstance(width, int) and kept < width:
                self._warn(
                    space,
                    f"its retention of {space.retention} is shorter than a shard's "
                    f"{space.shard_duration}, and only whole shards expire",
                )
        return Plan(
            tuple(steps),
            {self._wanted[0].database: self._after()},
            tuple(self._warnings),
            tuple(self._refusals),
        )

    # -- what is to be done --

    def _to_be_made_again(self) -> dict[str, str]:
        """Return which of those that are there have to be made again, and why.

        One that shares names with another that is to be made before it, and is asked after that
        now or would be.
        """
        found: dict[str, str] = {}
        for number, space in enumerate(self._wanted):
            if space.name not in self._there:
                continue
            for before in self._wanted[:number]:
                is_new = before.name not in self._there or before.name in found
                if (is_new or self._is_asked_before(before, space)) and self._shares(before, space):
                    found[space.name] = f"it has to be asked before {_cut(before.name)}"
            for other in self._others:
                if self._is_asked_before(other, space) and self._hides(other, space):
                    found[space.name] = (
                        f"{_cut(other.name)} is asked before it and takes all it takes"
                    )
        return found

    def _steps(self, space: Space) -> list[Step]:
        before = self._there.get(space.name)
        if before is None:
            return [Step("create", space)]
        shards = self._had.shards_of(space)
        if shards:
            self._refuse_what_loses(space, before, shards)
        if space.name in self._again:
            why = self._again[space.name]
            return [Step("remove", before, before, why), Step("create", space, None, "made again")]
        if same_meaning(space, before):
            return [Step("keep", space, before)]
        return [Step("change", space, before)]

    def _refuse_what_loses(self, space: Space, before: Space, shards: tuple[int, ...]) -> None:
        has = f"it has {_shards(shards)}"
        if space.name in self._again:
            self._refuse(
                space, f"{self._again[space.name]}, but {has}, and made again it loses them"
            )
        if space.regex != before.regex:
            found = f"regex {_cut(before.regex)} can't become {_cut(space.regex)}"
            self._refuse(space, f"{found}: {has}, in which 0.8 would not look any more")
        kept, was = _kept(space), _kept(before)
        # What can't be read may be longer.
        if isinstance(kept, int) and kept != was and not (isinstance(was, int) and kept > was):
            change = (
                f"retention {_cut(before.retention or 'inf')[1:-1]} can't become {space.retention}"
            )
            self._refuse(space, f"{change}: {has}, which 0.8 would drop sooner")

    def _after(self) -> tuple[Space, ...]:
        wanted = {space.name: space for space in self._wanted}
        made = [s for s in self._wanted if s.name not in self._there or s.name in self._again]
        stay = [wanted.get(s.name, s) for s in self._had.spaces if s.name not in self._again]
        return (*reversed(made), *stay)

    # -- what that does to those that are not in the file --

    def _look_at_others(self) -> None:
        for space in self._wanted:
            if space.name in self._there and space.name not in self._again:
                continue
            for other in self._others:
                if self._is_asked_before(space, other):
                    continue  # it was so before
                self._look_at_other(space, other)

    def _look_at_other(self, space: Space, other: Space) -> None:
        shards = self._had.shards_of(other)
        if self._trial.is_wider(space, other):
            self._refuse(
                space,
                f"it would be asked before {_cut(other.name)} ({_cut(other.regex)[1:-1]}) and take "
                "all that this takes; put that one into the file too, so that the order can be "
                "made right",
            )
            return
        sample = self._trial.common(space, other)
        if sample is not None and shards:
            self._warn(
                space,
                f"it takes series such as {_cut(sample)} from {_cut(other.name)}, which has "
                f"{_shards(shards)}: what they hold of those is not found any more",
            )
        elif sample is not None and not self._trial.is_wider(other, space):
            self._warn_of_overlap(space, other, sample, "what is new is asked first")

    def _warn_of_overlap(self, first: Space, then: Space, sample: str, rule: str) -> None:
        if self._trial.is_equal(first, then):
            if then.name != DEFAULT_SPACE:
                self._warn(then, f"{_cut(first.name)} takes all it takes: it would never be asked")
            return
        self._warn(
            first,
            f"it takes what {_cut(then.name)} matches too, such as {_cut(sample)}; neither is the "
            f"more specific, so {rule}",
        )

    # -- words --

    def _is_asked_before(self, one: Space, other: Space) -> bool:
        """Return whether that is so now; False where one of them is not there."""
        if one.name not in self._place or other.name not in self._place:
            return False
        return self._place[one.name] > self._place[other.name]

    def _shares(self, one: Space, other: Space) -> bool:
        return self._trial.common(one, other) is not None

    def _hides(self, one: Space, other: Space) -> bool:
        return self._trial.is_wider(one, other) or self._trial.is_equal(one, other)

    def _warn(self, space: Space, what: str) -> None:
        self._warnings.append(f"{_called(space)}: {what}")

    def _refuse(self, space: Space, what: str) -> None:
        self._refusals.append(f"{_called(space)}: {what}")


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
        f"{key} {_cut(was)} -> {_cut(now)}" for key, (was, now) in pairs.items() if was != now
    )


def deviations(plan: Plan, found: Mapping[str, tuple[Space, ...]]) -> tuple[str, ...]:
    """Return what a server has otherwise than planned, a line each.

    Args:
        plan: what was done.
        found: per database, as read back.
    """
    lines = []
    for database, expected in plan.after.items():
        there = found.get(database, ())
        if len(there) == len(expected) and all(
            one.name == other.name and same_meaning(one, other)
            for one, other in zip(expected, there, strict=True)
        ):
            continue
        names = [
            ", ".join(space.name for space in spaces) or "none" for spaces in (expected, there)
        ]
        what = "other definitions" if names[0] == names[1] else f"[{names[1]}]"
        lines.append(f"{database}: expected the spaces [{names[0]}], found {what}")
    return tuple(lines)


def _kept(space: Space) -> int | str:
    """Return a retention in us; 'inf' for ever, and what nobody can read as it is."""
    length = duration_us(space.retention)
    if length is None:
        return space.retention or "inf"
    return length or "inf"  # ParsedRetentionPeriod: 0 is no limit


def _width(space: Space) -> int | str:
    """Return a shard's duration in us; what nobody can read as it is."""
    length = duration_us(space.shard_duration or "7d")
    return space.shard_duration if length is None else length


def _cut(text: str) -> str:
    """Return a text of a server in quotes, as a message may show it."""
    return repr(text if len(text) <= 40 else text[:37] + "...")


def _called(space: Space) -> str:
    return f"{_cut(space.database)[1:-1]}: {_cut(space.name)[1:-1]}"


def _shards(ids: Sequence[int]) -> str:
    listed = ", ".join(str(number) for number in sorted(ids)[:8])
    more = f" and {len(ids) - 8} more" if len(ids) > 8 else ""
    return f"shard {listed}" if len(ids) == 1 else f"shards {listed}{more}"
