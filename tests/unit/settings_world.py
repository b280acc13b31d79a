"""The AWS files of a home directory, and what is found in them."""

from __future__ import annotations

from pathlib import Path

from shardtool.snapshots.remote.settings import Settings, find_settings


def settings(home: Path, **environment: str) -> Settings:
    """Find the settings of who has that home and environment, and nothing else."""
    return find_settings({"HOME": str(home), **environment})


def write(home: Path, name: str, content: str) -> None:
    """Write one of the files in ~/.aws."""
    (home / ".aws" / name).write_text(content)
