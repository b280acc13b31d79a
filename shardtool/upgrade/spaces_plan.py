"""The one plan of shard spaces that is shown or executed, made from what is there and wanted. Pure.

New spaces are always asked before those that are there, so that a wrong order can only be put right
by removing a space and making it again; and removing one takes its shards along.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from shardtool.influxdb.model import Space
from shardtool.influxdb.spaces import DEFAULT_SPACE
from shardtool.upgrade.spaces import (
    Had,
    Plan,
    Step,
    called,
    cut,
    kept_us,
    same_meaning,
    shards_named,
    width_us,
)
from shardtool.upgrade.spaces_order import Shadow, Trial, ordered, overlaps, shadows, takes_all


def plan_spaces(
    wanted: Sequence[Space],
    had: Mapping[str, Had],
    *,
    take_from: Collection[str] = (),
    samples: Collection[str] = (),
) -> Plan:
    """Return how to get from what is there to what is wanted.

    Args:
        wanted: sound spaces, each name once a database, in the file's order.
        had: by database; each database that is wanted.
        take_from: names of spaces with shards from which series may be taken.
        samples: names of series that the operator gives, to tell regexes apart.
    """
    parts = [
        _Planning(
            tuple(space for space in wanted if space.database == database),
            had[database],
            take_from,
            samples,
        ).plan()
        for database in dict.fromkeys(space.database for space in wanted)
    ]
    return Plan(
        tuple(step for part in parts for step in part.steps),
        {name: spaces for part in parts for name, spaces in part.after.items()},
        tuple(warning for part in parts for warning in part.warnings),
        tuple(refusal for part in parts for refusal in part.refusals),
        tuple(space for part in parts for space in part.taken_from),
    )


class _Planning:
    """The plan of one database as it grows."""

    def __init__(
        self,
        wanted: tuple[Space, ...],
        had: Had,
        take_from: Collection[str],
        samples: Collection[str],
    ) -> None:
        self._had, self._take_from = had, take_from
        self._there = {space.name: space for space in had.spaces}
        self._trial = Trial((*wanted, *had.spaces), had.series, samples)
        self._wanted = ordered(wanted, self._trial)
        # How late it was made: what was made last is asked first.
        self._place = {space.name: -place for place, space in enumerate(had.spaces)}
        names = {space.name for space in wanted}
        self._others = [space for space in had.spaces if space.name not in names]
        self._again = self._to_be_made_again()
        self._after = self._asked_after()
        self._warnings: list[str] = []
        self._refusals: dict[str, list[str]] = {}  # by space
        self._taken_from: list[Space] = []

    def plan(self) -> Plan:
        steps = [step for space in self._wanted for step in self._steps(space)]
        if any(step.action != "keep" for step in steps):
            self._look_for_hidden_values()
            self._look_at_others()
            self._look_at_unknown()
        self._look_at_overlaps()
        self._look_at_shadows(can_refuse=any(step.action != "keep" for step in steps))
        for space in self._wanted:
            kept, width = kept_us(space), width_us(space)
            if isinstance(kept, int) and isinstance(width, int) and kept < width:
                self._warn(
                    space,
                    f"its retention of {space.retention} is shorter than a shard's "
                    f"{space.shard_duration}, and only whole shards expire",
                )
        return Plan(
            tuple(steps),
            {self._wanted[0].database: self._after},
            tuple(self._warnings),
            tuple(line for lines in self._refusals.values() for line in lines),
            tuple(self._taken_from),
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
                    found[space.name] = f"it has to be asked before {cut(before.name)}"
            for other in self._others:
                if self._is_asked_before(other, space) and self._hides(other, space):
                    found[space.name] = (
                        f"{cut(other.name)} is asked before it and takes all it takes"
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
        has = f"it has {shards_named(shards)}"
        if space.name in self._again:
            self._refuse(
                space, f"{self._again[space.name]}, but {has}, and made again it loses them"
            )
        if space.regex != before.regex:
            found = f"regex {cut(before.regex)} can't become {cut(space.regex)}"
            self._refuse(space, f"{found}: {has}, in which 0.8 would not look any more")
        kept, was = kept_us(space), kept_us(before)
        # What can't be read may be longer.
        if isinstance(kept, int) and kept != was and not (isinstance(was, int) and kept > was):
            change = (
                f"retention {cut(before.retention or 'inf')[1:-1]} can't become {space.retention}"
            )
            self._refuse(space, f"{change}: {has}, which 0.8 would drop sooner")

    def _asked_after(self) -> tuple[Space, ...]:
        wanted = {space.name: space for space in self._wanted}
        made = [s for s in self._wanted if s.name not in self._there or s.name in self._again]
        stay = [wanted.get(s.name, s) for s in self._had.spaces if s.name not in self._again]
        return (*reversed(made), *stay)

    # -- what that does to what is there --

    def _look_for_hidden_values(self) -> None:
        """Refuse to take series from a space with shards: 0.8 would not look there any more."""
        for space in self._had.spaces:
            shards = self._had.shards_of(space)
            if not shards or space.name in self._refusals:
                continue
            sample = self._trial.lost_by(space.name, self._had.spaces, self._after)
            taker = self._first_of(sample) if sample is not None else self._new_taker_of_all(space)
            if taker is None:
                continue
            such = "series" if sample is None else f"series such as {cut(sample)}"
            found = (
                f"{cut(taker.name)} would take {such} from it, and it has {shards_named(shards)}: "
                "what they hold of those is not found any more, as 0.8 looks only where a series "
                "goes now"
            )
            if space.name in self._take_from:
                self._warn(space, f"{found} (--take-from {space.name})")
                self._taken_from.append(space)
                continue
            what = f"give {cut(taker.name)} a narrower regex, or say --take-from {space.name}"
            self._refuse(space, f"{found}; {what} to do without them")

    def _first_of(self, sample: str) -> Space | None:
        return next((one for one in self._after if self._trial.takes(one, sample)), None)

    def _new_taker_of_all(self, space: Space) -> Space | None:
        """Return what takes everything and is asked before a space of which nothing is known, and
        was not so far."""
        if self._had.series or not self._trial.is_unknown(space):
            return None
        for one in self._after:
            if one.name == space.name:
                return None
            if takes_all(one.regex) and not self._was_so(one, space):
                return one
        return None

    def _look_at_others(self) -> None:
        """Tell what new spaces do to those that are not in the file."""
        for place, space in enumerate(self._after):
            if space not in self._wanted:
                continue
            for other in self._after[place + 1 :]:
                if other in self._others and not self._was_so(space, other):
                    self._look_at_other(space, other)

    def _look_at_other(self, space: Space, other: Space) -> None:
        if self._trial.is_wider(space, other):
            self._refuse(
                space,
                f"it would be asked before {cut(other.name)} ({cut(other.regex)[1:-1]}) and take "
                "all that this takes; put that one into the file too, so that the order can be "
                "made right",
            )
            return
        if self._is_told(other):
            return
        if self._trial.is_unknown(other):
            self._warn(
                space,
                f"whether it takes series from {cut(other.name)} can't be told: no name is known "
                f"that {cut(other.regex)} matches",
            )
        sample = self._trial.common(space, other)
        if sample is not None and not self._trial.is_wider(other, space):
            self._warn_of_overlap(space, other, sample, "what is new is asked first")

    def _is_told(self, other: Space) -> bool:
        return other.name in self._refusals or other in self._taken_from

    def _look_at_unknown(self) -> None:
        """Never order in silence what no name is known of.

        What takes everything is made before it in any case; its order to others is refused.
        """
        for space in self._wanted:
            if not self._trial.is_unknown(space):
                continue
            untold = next((one for one in self._after if self._is_untold(space, one)), None)
            none = f"no series is known that {cut(space.regex)} matches"
            if untold is None:
                self._warn(space, f"{none}: it may never take one")
            else:
                self._refuse(
                    space,
                    f"{none}, so whether it or {cut(untold.name)} is the more specific can't be "
                    "told; name one with --sample SERIES",
                )

    def _is_untold(self, space: Space, one: Space) -> bool:
        """Return whether which of the two is asked first is decided now, without a reason."""
        if one.regex == space.regex or takes_all(one.regex):
            return False
        return not (self._was_so(space, one) or self._was_so(one, space))

    # -- what the file's spaces do to each other --

    def _look_at_overlaps(self) -> None:
        for overlap in overlaps(self._wanted, self._trial):
            if not self._trial.is_equal(overlap.first, overlap.then):
                rule = "the later one in the file is asked first"
                self._warn_of_overlap(overlap.first, overlap.then, overlap.sample, rule)

    def _look_at_shadows(self, *, can_refuse: bool) -> None:
        """Look once more at what comes out: each of the file's spaces has to be asked some time."""
        found = shadows(self._after, trial=self._trial)
        for space in self._others:
            shadow = found.get(space.name)
            if shadow and shadow.by in self._wanted and self._was_so(shadow.by, space):
                self._tell_what_was_so(shadow)
        for space in self._wanted:
            shadow = found.get(space.name)
            if shadow is None or space.name == DEFAULT_SPACE or space.name in self._refusals:
                continue
            never = f"{cut(shadow.by.name)} takes all it takes: it would never be asked"
            if shadow.by.regex == space.regex or not can_refuse:
                self._warn(space, never)
            elif shadow.is_certain:
                self._refuse(space, never)
            else:
                hint = "name a series that it alone takes with --sample SERIES, or leave it out"
                self._refuse(space, f"{never}, by all names that were tried; {hint}")

    def _tell_what_was_so(self, shadow: Shadow) -> None:
        if shadow.space.name != DEFAULT_SPACE:
            takes = f"{cut(shadow.by.name)} takes all it takes"
            self._warn(shadow.space, f"{takes}, as before: it is not in the file and never asked")

    def _warn_of_overlap(self, first: Space, then: Space, sample: str, rule: str) -> None:
        if self._trial.is_equal(first, then):
            if then.name != DEFAULT_SPACE:
                self._warn(then, f"{cut(first.name)} takes all it takes: it would never be asked")
            return
        self._warn(
            first,
            f"it takes what {cut(then.name)} matches too, such as {cut(sample)}; neither is the "
            f"more specific, so {rule}",
        )

    # -- words --

    def _is_asked_before(self, one: Space, other: Space) -> bool:
        """Return whether that is so now; False where one of them is not there."""
        if one.name not in self._place or other.name not in self._place:
            return False
        return self._place[one.name] > self._place[other.name]

    def _was_so(self, one: Space, other: Space) -> bool:
        """Return whether both are there as they are to be, the one asked before the other."""
        are_kept = all(
            space.name in self._there
            and space.name not in self._again
            and self._there[space.name].regex == space.regex
            for space in (one, other)
        )
        return are_kept and self._is_asked_before(one, other)

    def _shares(self, one: Space, other: Space) -> bool:
        return (
            takes_all(one.regex)
            or takes_all(other.regex)
            or self._trial.common(one, other) is not None
        )

    def _hides(self, one: Space, other: Space) -> bool:
        return self._trial.is_wider(one, other) or self._trial.is_equal(one, other)

    def _warn(self, space: Space, what: str) -> None:
        self._warnings.append(f"{called(space)}: {what}")

    def _refuse(self, space: Space, what: str) -> None:
        self._refusals.setdefault(space.name, []).append(f"{called(space)}: {what}")
