"""Cut the power at each call by which a command changes the disk: only what was synced is certain.

The calls of one real run are replayed up to each of them, with each way in which what was not
synced may have reached the disk or not; then the laws must hold, and a plain rerun must finish.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Run
from tests.faults.every_kill import renames_and_what_follows
from tests.faults.every_kill_worlds import WORLDS
from tests.faults.power_loss_states import (
    cut_the_power_after_each_kill,
    cut_the_power_everywhere,
)

pytestmark = [pytest.mark.usefixtures("strace"), pytest.mark.timeout(1800)]

# Without those that begin with what an earlier run left: that can't be copied. Nor the rescue: of
# the disk it needs its journal alone, and accept's is the same.
NAMES = [
    *("marked", "proven", "proven_by_what_is_not_synced", "verified", "accepted"),
    *("accepted_after_a_kill", "marked_after_a_kill"),
    *("backed_up", "restored", "restored_elsewhere", "forgotten"),
]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_power_cut_breaks_no_law_and_a_rerun_finishes(
    name: str, alone: Run, memory_path: Path
) -> None:
    cut_the_power_everywhere(WORLDS[name](memory_path, alone), most_states=300, most_reruns=30)


def test_some_power_cuts_break_no_law_and_a_rerun_finishes(alone: Run, memory_path: Path) -> None:
    cut_the_power_everywhere(WORLDS["marked"](memory_path, alone), most_states=40, most_reruns=2)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["marked", "restored", "forgotten"])
def test_a_power_cut_after_a_kill_breaks_no_law_and_a_rerun_finishes(
    name: str, alone: Run, memory_path: Path
) -> None:
    """The run after a kill finds in memory what may never have reached the disk."""
    world = WORLDS[name](memory_path, alone)
    cut_the_power_after_each_kill(world, renames_and_what_follows, most_states=25, most_reruns=2)
