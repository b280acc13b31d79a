"""What tells the end of a step apart: a test that compares with it must be able to fail."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import Run
from tests.faults.steps_world import CHANGING, prepared


def test_a_snapshot_that_is_not_whole_is_not_what_a_backup_leaves(
    shardtool: Run, tmp_path: Path
) -> None:
    step = CHANGING["backup"]
    world = prepared(step, tmp_path / "world", shardtool)

    def ended() -> object:
        return step.ended(world, shardtool)

    without = ended()
    assert shardtool("--data", world / "data", "backup", "-q").returncode == 0
    good = ended()
    (snapshot,) = (world / "data/snapshots").iterdir()
    partial = world / "data/snapshots/.partial-x"
    partial.mkdir()
    beside = ended()
    partial.rmdir()
    (snapshot / "data/raft/log").write_bytes(b"cut")
    cut = ended()

    assert isinstance(good, tuple) and good[:2] == (True, True)
    assert good not in (without, beside, cut)
