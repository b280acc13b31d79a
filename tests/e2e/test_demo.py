"""`make demo`, less the installation: the journey of the README on a directory of fixtures."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

pytestmark = pytest.mark.slow

BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Run the demo; return its data directory and what it printed."""
    data = tmp_path_factory.mktemp("demo") / "data"
    done = subprocess.run(
        ["sh", str(REPOSITORY / "fixtures/demo.sh"), str(data)],
        env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return data, done.stdout


def commands(text: str, prompt: str) -> list[str]:
    """Return the commands that lines after `prompt` run, with the word that says which of them."""
    lines = re.findall(rf"^{re.escape(prompt)}shardtool (.*)$", text, re.MULTILINE)
    found = []
    for line in lines:
        words = shlex.split(line.partition("#")[0])
        found.append(" ".join(words[: 2 if words[0] == "spaces" else 1]))
    return found


def test_the_demo_takes_a_node_from_a_stopped_07_to_a_pruned_08(demo: tuple[Path, str]) -> None:
    data, printed = demo
    assert "12 of 12 old shards are marked" in printed
    assert "3 incomplete, 9 proven" in printed
    assert "8,754 values sent" in printed
    assert "deleted 12 shards" in printed
    assert list((data / "db/shard_db").iterdir()) == []


def test_what_check_foretold_of_names_is_what_verify_then_misses(demo: tuple[Path, str]) -> None:
    foretold = re.findall(r"([\d,]+) of [\d,]+ values are of series", demo[1])
    (missing,) = re.findall(r"incomplete +[\d,]+ +([\d,]+) +0  name", demo[1])
    assert foretold == [missing, missing]  # before the upgrade, and before the migration


def test_the_readmes_journey_is_that_script(demo: tuple[Path, str]) -> None:
    readme = (REPOSITORY / "README.md").read_text()
    journey = readme.split("## The journey", 1)[1].split("```")[1]
    assert commands(journey, "") == commands(demo[1], "$ ")
