"""`make demo`, less the installation: the main job on a directory that the fixtures build."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import REPOSITORY

BIN = Path(sys.executable).parent


def test_the_demo_takes_a_directory_through_the_main_job(tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", str(REPOSITORY / "fixtures/demo.sh"), str(tmp_path / "data")],
        env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    steps = [line for line in done.stdout.splitlines() if line.startswith("$ shardtool")]
    assert [step.split()[4] for step in steps] == [
        *("status", "backup", "verify", "accept", "prune", "status", "history")
    ]
    assert "5 incomplete, 7 proven" in done.stdout
    assert "deleted 8 shards" in done.stdout
    assert sorted(path.name for path in (tmp_path / "data/db/shard_db").iterdir()) == [
        *("00001", "00002", "00005", "00010")
    ]
