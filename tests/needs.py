"""What a test needs from its machine: missing by hand it is a skip, in CI a failure."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from fixtures import HAVE_PLYVEL

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


needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root may become another user and make files for others"
)
"""A test that acts as somebody else; CI runs as root, so there nothing goes unseen."""

needs_plyvel = pytest.mark.skipif(
    not HAVE_PLYVEL and sys.version_info >= (3, 13),
    reason="LevelDB itself writes here, and plyvel has no wheels from Python 3.13 on",
)
"""A test that needs LevelDB's own tables. Where plyvel has a wheel it fails without."""
