"""Captures are archives, whose modes are a part of what they show."""

from __future__ import annotations

import tarfile
from pathlib import Path


def unpack(archive: Path, target: Path) -> None:
    """Unpack an archive of ours into `target` as it is."""
    with tarfile.open(archive) as tar:
        # Later Pythons change modes where nothing is said; Debian 12's 3.11.2 knows no filters.
        tar.extraction_filter = getattr(tarfile, "fully_trusted_filter", None)
        tar.extractall(target)
