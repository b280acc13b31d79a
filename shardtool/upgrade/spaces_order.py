"""Which of two shard spaces is the more specific, by what they match; and who is never asked. Pure.

Two regexes can't be compared by their text, so names are tried: some made up from the regexes, and
all series that are known. RE2 decides what matches.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain

from shardtool.influxdb.model import Space
from shardtool.influxdb.regex import compiled, encoded
from shardtool.upgrade.samples import names_between, names_for

_MOST_PAIRED = 20  # regexes: pairs grow with the square
# An assertion anywhere, or a class that may hold one of these as a character.
_ASSERTION = re.compile(r"[\^$]|\\[AzbB]")


@dataclass(frozen=True)
class Overlap:
    """Two spaces that take the same name, neither of them more specific than the other.

    Args:
        first: which is asked first.
        then: the other one.
        sample: a name that both match.
    """

    first: Space
    then: Space
    sample: str


class Trial:
    """What the regexes of some spaces match among the same names."""

    def __init__(
        self, spaces: Iterable[Space], series: Iterable[str] = (), samples: Iterable[str] = ()
    ) -> None:
        """Try all names on all spaces.

        Args:
            spaces: of one database.
            series: names that are known there.
            samples: other names to try.
        """
        regexes = list(dict.fromkeys(space.regex for space in spaces))
        made_up = chain.from_iterable(names_for(regex) for regex in regexes)
        paired = names_between(regexes[:_MOST_PAIRED])
        known = dict.fromkeys(series)
        tried = chain(("cpu", "Mem"), samples, made_up, paired, known)
        self._names = tuple(dict.fromkeys(tried))
        as_bytes = tuple(encoded(name) for name in self._names)
        self._matched = dict(zip(regexes, _all_matched(tuple(regexes), as_bytes), strict=True))
        self._known = int("".join("1" if name in known else "0" for name in self._names), 2)

    @property
    def names(self) -> tuple[str, ...]:
        """The names that were tried."""
        return self._names

    def takes(self, space: Space, name: str) -> bool:
        """Return whether a space takes a name that was tried."""
        return bool(
            self._matched[space.regex] >> (len(self._names) - 1 - self._names.index(name)) & 1
        )

    def lost_by(self, name: str, before: Sequence[Space], after: Sequence[Space]) -> str | None:
        """Return a series that a space takes in one order of all spaces and not in another.

        Where series are known, only these count: there are no values of others.

        Args:
            name: of the space.
            before: all spaces as they are asked.
            after: all spaces as they would be.
        """
        lost = self._taken(name, before) & ~self._taken(name, after)
        return self._first(lost & self._known if self._known else lost)

    def _taken(self, name: str, asked: Sequence[Space]) -> int:
        """Return what gets to a space when all are asked in an order."""
        left = (1 << len(self._names)) - 1
        for space in asked:
            if space.name == name:
                return self._matched[space.regex] & left
            left &= ~self._matched[space.regex]
        return 0

    def is_unknown(self, space: Space) -> bool:
        """Return whether a regex that a server can use matches no name that was tried."""
        return self._matched[space.regex] == 0 and compiled(space.regex) is not None

    def is_wider(self, one: Space, other: Space) -> bool:
        """Return whether `one` takes each name that `other` takes, and more; it takes some.

        What takes everything needs no name for that.
        """
        if takes_all(one.regex):
            return not takes_all(other.regex) and compiled(other.regex) is not None
        a, b = self._matched[one.regex], self._matched[other.regex]
        return b != 0 and a != b and a | b == a

    def is_equal(self, one: Space, other: Space) -> bool:
        """Return whether both take the same names, and some."""
        a, b = self._matched[one.regex], self._matched[other.regex]
        return a == b != 0

    def common(self, one: Space, other: Space) -> str | None:
        """Return a name that both take, None where no name that was tried is one."""
        return self._first(self._matched[one.regex] & self._matched[other.regex])

    def _first(self, names: int) -> str | None:
        # The names' bits begin at the highest; see _matched.
        return self._names[len(self._names) - names.bit_length()] if names else None


@lru_cache(maxsize=16)  # a plan is made again before each request, mostly for the same names
def _all_matched(regexes: tuple[str, ...], names: tuple[bytes, ...]) -> tuple[int, ...]:
    return tuple(_matched(regex, names) for regex in regexes)


def _matched(regex: str, names: Sequence[bytes]) -> int:
    """Return which names a regex matches as an integer, a bit a name, the first one highest."""
    pattern = compiled(regex)
    if pattern is None or not names:
        return 0
    search = pattern.search
    return int("".join("1" if search(name) else "0" for name in names), 2)


def ordered(spaces: Sequence[Space], trial: Trial) -> tuple[Space, ...]:
    """Return spaces in the order in which they are to be made: from least to most specific.

    Those that can't be compared stay as they were given; what is made last is asked first.
    """
    left, found = list(spaces), []
    while left:
        # Inclusion has no circles, so there always is one that none of the others includes.
        first = next(one for one in left if not any(trial.is_wider(other, one) for other in left))
        left.remove(first)
        found.append(first)
    return tuple(found)


def overlaps(made: Sequence[Space], trial: Trial) -> tuple[Overlap, ...]:
    """Return pairs that take a name both while neither includes the other: order alone decides.

    Args:
        made: in the order in which they are made.
        trial: of them.
    """
    found = []
    for place, later in enumerate(made):
        for earlier in made[:place]:
            sample = trial.common(earlier, later)
            if sample is None or trial.is_wider(earlier, later) or trial.is_wider(later, earlier):
                continue
            found.append(Overlap(later, earlier, sample))
    return tuple(found)


@dataclass(frozen=True)
class Shadow:
    """A space that is never asked.

    Args:
        space: which.
        by: the one before it that takes everything.
        is_certain: it follows from the regexes; otherwise all names that were tried say so.
    """

    space: Space
    by: Space
    is_certain: bool


def shadows(
    asked: Sequence[Space], series: Iterable[str] = (), trial: Trial | None = None
) -> Mapping[str, Shadow]:
    """Return by name the spaces that are never asked, or that no name which was tried gets to.

    Args:
        asked: a database's spaces in the order in which they are asked.
        series: names that are known.
        trial: of these spaces and series, where there is one already.
    """
    trial, found = trial or Trial(asked, series), dict[str, Shadow]()
    for place, space in enumerate(asked):
        for before in asked[:place]:
            certain = takes_all(before.regex) or before.regex == space.regex
            if certain or trial.is_wider(before, space) or trial.is_equal(before, space):
                found[space.name] = Shadow(space, before, certain)
                break
    return found


@lru_cache(maxsize=512)
def takes_all(regex: str) -> bool:
    """Return whether a regex surely matches every name; False also where that is not sure.

    It does if it needs nothing (it matches the empty name) and insists on no place: then it
    matches anywhere. A single ^ before or $ behind is a place that every name has.

    Example: '/.*/', '/^.*/', '/a*|b/i'; not '/^.*$/', which a name with a newline escapes.
    """
    pattern = compiled(regex)
    if pattern is None or not pattern.search(b""):
        return False
    body = regex
    if regex.startswith("/"):
        body = regex[1:-2] if regex.endswith("/i") else regex[1:-1]
    for rest in (body, body.removeprefix("^"), body.removesuffix("$")):
        if not _ASSERTION.search(rest):
            inner = compiled(f"/{rest}/")
            return inner is not None and bool(inner.search(b""))
    return False
