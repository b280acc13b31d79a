"""What the tests of verify's trouble share."""

from __future__ import annotations

import shutil
from pathlib import Path

from fixtures import Node


def one(shard: Path, pattern: str) -> Path:
    """Return the one file of a shard that a pattern matches."""
    (file,) = shard.glob(pattern)
    return file


def empty(node: Node) -> None:
    """Make shard 1 an empty directory."""
    shutil.rmtree(node.shard_db / "00001")
    (node.shard_db / "00001").mkdir()
