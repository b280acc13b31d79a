"""Values that can't be in one file with others: of another type, or of a point that would replace
another one."""

from __future__ import annotations

from shardtool.export.cells import Cells, Filled
from shardtool.export.fieldtypes import FieldTypes, type_of, types_of
from shardtool.export.windows import Window, repeated

_TIME_BYTES = 8


def leave_other_types(cells: Cells, types: FieldTypes) -> None:
    """Leave values whose field has another type in the file."""

    def whys(column: Filled) -> list[str]:
        own = types.settle(column.name, type_of(column.texts[0]))
        found = types_of(column.texts)
        if found == {own}:
            return []
        types.note(column.name, [own, *sorted(found)])
        return ["" if type_of(text) == own else "type" for text in column.texts]

    cells.leave(whys)


class Later:
    """Leaves points whose time an earlier point of their series has that is in the file."""

    def __init__(self, types: FieldTypes) -> None:
        """Take the types of the file's fields."""
        self._types = types
        self._series = "", ""
        self._last = b""  # time of the series' last point that is in the file

    def leave(self, cells: Cells, window: Window) -> None:
        """Leave such points, and values whose field has another type in the file.

        The two are told together: a point that has nothing but values of other types is not in
        the file, so that it is in no other point's way.
        """
        series = window.database, window.series
        if series != self._series:
            self._series, self._last = series, b""
        if repeated(cells.points, window):
            self._leave_both(cells)
        else:
            leave_other_types(cells, self._types)
            points = cells.points
            self._last = points[-1][:_TIME_BYTES] if points else self._last

    def _leave_both(self, cells: Cells) -> None:
        types = self._types
        words: list[list[str]] = [[] for _ in cells.columns]
        for point, row in cells.rows():
            time = point[:_TIME_BYTES]
            is_later = time == self._last
            for place, text in row:
                why = "same-time"
                if not is_later:
                    name, kind = cells.columns[place].name, type_of(text)
                    own = types.settle(name, kind)
                    why = "" if kind == own else "type"
                    if why:
                        types.note(name, [own, kind])
                    else:
                        self._last = time
                words[place].append(why)
        found = {id(column): whys for column, whys in zip(cells.columns, words, strict=True)}
        cells.leave(lambda column: found[id(column)])
