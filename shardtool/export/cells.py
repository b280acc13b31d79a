"""A window as a table of texts: what the forms that are text have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import cast

from shardtool.export.left import Left
from shardtool.export.values import NoValueError, Texts
from shardtool.export.windows import Part, Window
from shardtool.influxdb.keys import ID_BYTES


@dataclass
class Cells:
    """Points of one series, and a text for each value of theirs.

    Args:
        window: where they come from.
        points: their keys without column ids, in order.
        parts: the columns that could be named.
        texts: for each of these, a text for each point; None where it has none.
        is_full: there is no None.
    """

    window: Window
    points: list[bytes]
    parts: list[Part]
    texts: list[Sequence[str | None]]
    is_full: bool
    _stored: list[Sequence[bytes | None]] = field(default_factory=list)

    @classmethod
    def of(cls, window: Window, texts: Texts, problem: Callable[[Part], str], left: Left) -> Cells:
        """Write the values of a window.

        Args:
            window: the window.
            texts: writes a value.
            problem: says why a column can't be named, '' where it can.
            left: takes what can't be written.
        """
        points = window.points()
        cells = cls(window, points.suffixes, [], [], points.is_full)
        for part in window.parts:
            why = problem(part)
            if why:
                left.add_part(part, why)
                continue
            found, is_whole = _written(part, texts, left)
            cells.is_full &= is_whole
            cells.parts.append(part)
            cells.texts.append(points.spread(part, found))
            cells._stored.append(points.spread(part, part.values))
        return cells

    @property
    def values(self) -> int:
        """How many there are."""
        if self.is_full:
            return len(self.points) * len(self.parts)
        return sum(len(column) - column.count(None) for column in self.texts)

    def leave(self, places: Sequence[int], why: str, left: Left) -> None:
        """Take some points out, by their places, and leave their values."""
        if not places:
            return
        for part, texts, stored in zip(self.parts, self.texts, self._stored, strict=True):
            for place in places:
                value = stored[place]
                if value is not None and texts[place] is not None:
                    left.add(part.column.name, self.points[place], value, why)
        gone = set(places)
        kept = [place not in gone for place in range(len(self.points))]
        self.points = list(compress(self.points, kept))
        self.texts = [list(compress(column, kept)) for column in self.texts]
        self._stored = [list(compress(column, kept)) for column in self._stored]


def _written(part: Part, texts: Texts, left: Left) -> tuple[list[str | None], bool]:
    """Return the texts of a part's values, None for what is left, and whether nothing is."""
    found = texts.of(part.values)
    if NoValueError not in set(map(type, found)):
        return cast(list[str | None], found), True
    written: list[str | None] = []
    for key, stored, text in zip(part.keys, part.values, found, strict=True):
        if isinstance(text, NoValueError):
            left.add(part.column.name, key[ID_BYTES:], stored, str(text))
            written.append(None)
        else:
            written.append(text)
    return written, False
