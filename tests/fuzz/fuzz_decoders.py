"""Fuzz one decoder with atheris, from a corpus of valid input; test_fuzz.py runs each so.

    python -m tests.fuzz.fuzz_decoders gob -max_total_time=60 -timeout=10 -rss_limit_mb=1024

The first word names the target (targets.py, targets_on_disk.py), the rest is libFuzzer's. A
crash, a hang or too much memory is a bug; the documented error is none. libFuzzer writes the
input into a file, crash-DIGEST; with that file's name in place of the times it is tried again.
"""

from __future__ import annotations

import resource
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["shardtool"]):
    from tests.fuzz import corpus, targets, targets_on_disk

from tests.needs import CAPTURES

_MEMORY = 4 << 30  # bytes of address space: one absurd allocation ends in a MemoryError

TARGETS = {**targets.TARGETS, **targets_on_disk.TARGETS}


def main() -> None:
    """Fuzz the target that the first argument names."""
    name = sys.argv.pop(1)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    # What a target makes goes into a directory of its own: libFuzzer ends this process as it is.
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
        tempfile.tempdir = scratch
        seeds = Path(scratch) / "seeds"
        seeds.mkdir()
        has_input = any(not word.startswith("-") for word in sys.argv[1:])
        if not has_input:
            corpus.write(name, seeds, CAPTURES if CAPTURES.is_dir() else None)
        # What is read in a child tells libFuzzer of no new ground, so all seeds have to stay.
        given = [*sys.argv] if has_input else [*sys.argv, "-keep_seed=1", str(seeds)]
        atheris.Setup(given, TARGETS[name])
        atheris.Fuzz()


if __name__ == "__main__":
    main()
