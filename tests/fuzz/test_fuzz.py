"""Every decoder is fuzzed for some seconds, from a corpus of valid input: `make test-all`.

SHARDTOOL_FUZZ_SECONDS says how long each, for long runs by hand.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.fuzz import corpus, targets, targets_on_disk
from tests.needs import archive_of, lacking

TARGETS = sorted({**targets.TARGETS, **targets_on_disk.TARGETS})
SECONDS = int(os.environ.get("SHARDTOOL_FUZZ_SECONDS", "3"))
LONGEST_INPUT = 15
"""Seconds that one input of some KB may take, on a machine that has other things to do."""
FEWEST = 20
"""Inputs that a target is tried with beside the valid ones, on a machine that has other things to
do: most come to thousands in that time, one that reads in a child to some dozens."""
MOST_MB = 1024
"""Of which Python, protobuf and what libFuzzer keeps take 80."""


@pytest.mark.parametrize("target", TARGETS)
def test_valid_input_of_every_target_is_read(target: str, tmp_path: Path) -> None:
    """Without atheris, and in no time: the corpus is sound, and so are the targets."""
    corpus.write(target, tmp_path, archive_of("original-07").parent)
    read = {**targets.TARGETS, **targets_on_disk.TARGETS}[target]
    seeds = sorted(tmp_path.iterdir())
    assert seeds
    for seed in seeds:
        read(seed.read_bytes())


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 120)
@pytest.mark.parametrize("target", TARGETS)
def test_nothing_but_the_documented_error_comes_of_any_input(target: str, tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        lacking("atheris")
    (tmp_path / "scratch").mkdir()
    words = [
        f"-max_total_time={SECONDS}",
        f"-timeout={LONGEST_INPUT}",
        f"-rss_limit_mb={MOST_MB}",
        f"-artifact_prefix={tmp_path}/",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.fuzz_decoders", target, *words],
        cwd=REPOSITORY,
        env={**os.environ, "TMPDIR": str(tmp_path / "scratch")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    found = [path for path in tmp_path.iterdir() if path.is_file()]
    told = "\n".join(f"{path.name}: {path.read_bytes().hex()}" for path in found)
    log = done.stdout.decode(errors="replace")
    assert done.returncode == 0, f"{log[-6000:]}\n{told}"
    begun, ended = re.search(r"\n#(\d+)\s+INITED", log), re.search(r"\nDone (\d+) runs in ", log)
    assert begun is not None, log[-2000:]
    assert ended is not None, log[-2000:]
    assert int(ended[1]) - int(begun[1]) >= FEWEST, log[-2000:]
