"""Plant a fault in a copy of the tree and run the test that must find it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import REPOSITORY

_COPIED = ("shardtool", "fixtures", "tests")
_SECONDS = 1500


@dataclass(frozen=True)
class Fault:
    """A mistake that somebody could make, and the test that must fail then.

    Args:
        name: what is wrong.
        file: where, relative to the repository.
        edits: the old text, which must be there exactly once, and the new one; in turn.
        test: as pytest names it.
    """

    name: str
    file: str
    edits: tuple[tuple[str, str], ...]
    test: str


def plant(fault: Fault, copy: Path) -> None:
    """Copy the tree to `copy` and make the mistake there."""
    ignored = shutil.ignore_patterns("__pycache__", ".*_cache")
    for name in _COPIED:
        shutil.copytree(REPOSITORY / name, copy / name, ignore=ignored)
    shutil.copy(REPOSITORY / "pyproject.toml", copy)
    (copy / fault.file).write_text(mistaken(fault))


def mistaken(fault: Fault) -> str:
    """Return the file as it is with the mistake in it."""
    text = (REPOSITORY / fault.file).read_text()
    for old, new in fault.edits:
        assert text.count(old) == 1, f"{fault.file}: expected this once, bring the row up: {old}"
        text = text.replace(old, new)
    compile(text, fault.file, "exec")
    return text


def insist_that_it_is_found(fault: Fault, copy: Path) -> None:
    """Run the test in `copy`; it must fail by an assertion, not because the tree is broken."""
    words = ("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider")
    temporary = copy.with_name("temporary")
    done = subprocess.run(
        [sys.executable, *words, "--basetemp", temporary, fault.test],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    told = done.stdout + done.stderr
    assert done.returncode == 1, f"{fault.test} did not find it:\n{told[-2000:]}"
    reasons = re.findall(r"^E +(\w*(?:Error|Exception|Failed)\b.*|assert .*)", told, re.MULTILINE)
    assert reasons, told[-2000:]
    assert reasons[-1].startswith(("AssertionError", "Failed", "assert ")), reasons
    broken = re.search(r"\b(NameError|ImportError|ModuleNotFoundError|SyntaxError): .*", told)
    assert broken is None, f"the mistake breaks the program itself: {broken}"
