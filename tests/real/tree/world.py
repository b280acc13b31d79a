"""What the tests of trees share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from shardtool.disk.durable import READ_DIRECTORY
from shardtool.disk.tree import Tree, measure


def measured(path: Path, **settings: Any) -> Tree:
    """Measure a directory by its path."""
    descriptor = os.open(path, READ_DIRECTORY)
    try:
        return measure(descriptor, **settings)
    finally:
        os.close(descriptor)


def fill(directory: Path, **sizes: int) -> Path:
    """Make a directory with files of so many bytes."""
    directory.mkdir(exist_ok=True)
    for name, size in sizes.items():
        (directory / name).write_bytes(b"x" * size)
    return directory


def fingerprint(path: Path) -> str:
    """Return a tree's fingerprint."""
    return measured(path, fingerprint=True).fingerprint


def kinds(tree: Tree) -> dict[str, str]:
    """Return the oddities' kinds by path."""
    return {oddity.path: oddity.kind for oddity in tree.oddities}
