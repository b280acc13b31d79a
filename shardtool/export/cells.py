"""A window as texts, column by column: what the forms that are text have in common.

A column holds what it has and no more, however many points there are that it has nothing for: of
a series with thousands of columns a point may have only a few.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from itertools import compress, repeat
from typing import cast

from shardtool.export.left import Left
from shardtool.export.values import NoValueError, Texts
from shardtool.export.windows import Part, Window
from shardtool.proof.columns import Name


@dataclass(slots=True)
class Filled:
    """A column's values that are to be written.

    Args:
        name: of the column.
        points: keys without the column id, in order.
        texts: what is written of each.
        stored: what each was.
    """

    name: Name
    points: list[bytes]
    texts: list[str]
    stored: list[bytes]

    def leave(self, whys: Sequence[str], left: Left) -> None:
        """Leave values: for each a word of left.WHY, or '' for one that stays."""
        for point, stored, why in zip(self.points, self.stored, whys, strict=True):
            if why:
                left.add(self.name, point, stored, why)
        stays = [not why for why in whys]
        self.points = list(compress(self.points, stays))
        self.texts = list(compress(self.texts, stays))
        self.stored = list(compress(self.stored, stays))


class Cells:
    """The values of a window that are to be written.

    Args:
        window: the window.
        texts: writes a value.
        problem: says why a column can't be named, '' where it can.
        left: takes what can't be written.

    Attributes:
        columns: those that have values to write.
        every: all points of the window, in order, with nothing to write or with something.
        is_full: each column has a value of each point that is to be written.
    """

    def __init__(
        self, window: Window, texts: Texts, problem: Callable[[Part], str], left: Left
    ) -> None:
        """Write the values of a window, each by itself."""
        points = window.points()
        self.every = points.suffixes
        self.is_full = points.is_full
        self.columns: list[Filled] = []
        self._left = left
        for part, suffixes in zip(window.parts, points.columns, strict=True):
            why = problem(part)
            if why:
                left.add_part(part, why)
                continue
            found = texts.of(part.values)
            # The types are right where nothing is a NoValueError.
            column = Filled(part.column.name, suffixes, cast(list[str], found), part.values)
            if NoValueError in set(map(type, found)):
                whys = [str(text) if isinstance(text, NoValueError) else "" for text in found]
                self._leave(column, whys)
            if column.texts:
                self.columns.append(column)

    @property
    def points(self) -> list[bytes]:
        """The points that have anything to write, in order."""
        if self.is_full:
            return self.columns[0].points if self.columns else []
        return sorted(set().union(*(column.points for column in self.columns)))

    @property
    def texts(self) -> list[list[str]]:
        """The texts of each column."""
        return [column.texts for column in self.columns]

    @property
    def values(self) -> int:
        """How many there are."""
        return sum(len(column.texts) for column in self.columns)

    def leave_points(self, gone: Container[bytes], why: str) -> None:
        """Leave all values of some points."""
        was_full = self.is_full
        self.leave(lambda column: [why if point in gone else "" for point in column.points])
        self.is_full = was_full  # of what stays nothing is missing

    def leave(self, whys: Callable[[Filled], Sequence[str]]) -> None:
        """Leave values of each column; see Filled.leave."""
        for column in self.columns:
            words = whys(column)
            if any(words):
                self._leave(column, words)
        self.columns = [column for column in self.columns if column.texts]

    def _leave(self, column: Filled, whys: Sequence[str]) -> None:
        column.leave(whys, self._left)
        # One that has nothing any more is in nobody's way.
        self.is_full &= not column.texts

    def rows(self) -> Iterator[tuple[bytes, list[tuple[int, str]]]]:
        """Yield the points, in order, with what is written of each: places of columns, and texts.

        It takes the memory and the time of what there is, and not of points times columns.
        """
        if self.is_full:
            for point, texts in zip(self.points, zip(*self.texts, strict=True), strict=True):
                yield point, list(enumerate(texts))
            return
        rows: dict[bytes, list[tuple[int, str]]] = defaultdict(list)
        for place, column in enumerate(self.columns):
            cells = zip(repeat(place), column.texts, strict=False)
            for point, cell in zip(column.points, cells, strict=True):
                rows[point].append(cell)
        for point in sorted(rows):
            yield point, rows.pop(point)
