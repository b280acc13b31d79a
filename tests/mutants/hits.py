"""The functions that a test's children have called: they tell them in files, a file each."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from mutmut.state import state

FOLDER = "MUTANT_HITS"
# A descriptor on it: a test may act as somebody who can't get there by its path.
_OPENED: list[int] = []
# As they are before a test puts others in their place: it is asked while it still stands.
_LISTDIR, _OPEN, _UNLINK = os.listdir, os.open, os.unlink


def tell() -> None:
    """Write down the functions that this process has called, where somebody asks for them."""
    if os.environ.get("MUTANT_UNDER_TEST") == "stats" and _OPENED:
        called = "\n".join(set.__iter__(state()._stats))
        with contextlib.suppress(OSError):
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            file = _OPEN(str(os.getpid()), flags, 0o644, dir_fd=_OPENED[0])
            with open(file, "w") as told:
                told.write(called)


def tell_where_it_ends() -> None:
    """Have this process, and those that it forks, tell it where they leave by os._exit."""
    if FOLDER in os.environ:
        _OPENED.append(os.open(os.environ[FOLDER], os.O_RDONLY | os.O_DIRECTORY))
    leave = os._exit

    def told(status: int) -> NoReturn:
        tell()
        leave(status)

    os._exit = told


class Hits(set[str]):
    """What a test has called, its children's calls among them."""

    def __iter__(self) -> Iterator[str]:
        """Take in what the children have told, and begin."""
        for name in _LISTDIR(os.environ[FOLDER]):
            path = Path(os.environ[FOLDER], name)
            self.update(filter(None, path.read_text().split("\n")))
            _UNLINK(path)
        return super().__iter__()
