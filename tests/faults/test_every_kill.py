"""Kill each command that changes a disk at each call that does, and run it again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Run
from tests.faults.every_kill import every, kill_at_every_call, renames_and_what_follows
from tests.faults.every_kill_worlds import WORLDS

pytestmark = [pytest.mark.usefixtures("strace"), pytest.mark.timeout(600)]

# Those that begin with what was not synced are for power cuts: a kill loses no data.
NAMES = [name for name in WORLDS if "not_synced" not in name and "after_a_kill" not in name]
QUICK = ("marked", "left_whole", "backed_up")
_PARTS = 4  # of the calls of a command: as many tests, which several processes share


@pytest.mark.slow
@pytest.mark.parametrize("part", range(_PARTS))
@pytest.mark.parametrize("name", NAMES)
def test_a_kill_at_any_call_breaks_no_law_and_a_rerun_finishes(
    name: str, part: int, alone: Run, memory_path: Path
) -> None:
    kill_at_every_call(WORLDS[name](memory_path, alone), every(_PARTS, part))


@pytest.mark.parametrize("name", QUICK)
def test_a_kill_around_any_rename_breaks_no_law_and_a_rerun_finishes(
    name: str, alone: Run, memory_path: Path
) -> None:
    kill_at_every_call(WORLDS[name](memory_path, alone), renames_and_what_follows)
