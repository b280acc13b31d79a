"""The forms that values are written in."""

from __future__ import annotations

from typing import Literal, Protocol, TypeAlias

from shardtool.export.fieldtypes import FieldTypes
from shardtool.export.json08 import Json08
from shardtool.export.left import Left
from shardtool.export.line import Line, Style
from shardtool.export.parquet import Parquet
from shardtool.export.windows import Window

Form: TypeAlias = Literal["line", "json", "parquet"]


class Writer(Protocol):
    """A form that values are written in."""

    def written(self, window: Window) -> tuple[bytes, int, int]:
        """Return a window as bytes, and how many points and values are in them.

        What it keeps for later comes with a later one, or at the end.
        """

    def rest(self) -> tuple[bytes, int, int]:
        """Return what `written` kept for later, as it does."""


def writer_of(form: Form, style: Style, left: Left, types: FieldTypes) -> Writer:
    """Return what writes a form."""
    if form == "line":
        return Line(left, style, types)
    return Json08(left) if form == "json" else Parquet(left)
