"""What a test needs from its machine: missing by hand it is a skip, in CI a failure."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import pytest

CAPTURES = Path(__file__).resolve().parents[2] / "shared" / "captures"


def lacking(what: str) -> NoReturn:
    """End a test that can't run without `what`: CI has it, so that there nothing goes unseen."""
    if os.environ.get("CI"):
        pytest.fail(f"CI must have {what}")
    pytest.skip(f"no {what} here")


def archive_of(capture: str) -> Path:
    """Return the archive of a capture of a real server."""
    archive = CAPTURES / f"{capture}.tar.gz"
    if not archive.is_file():
        lacking(str(archive))
    return archive
