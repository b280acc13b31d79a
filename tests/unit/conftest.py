"""What several unit tests look through."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardtool.disk.durable import READ_DIRECTORY, opened


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What was synced, in its order."""
    seen: list[Path] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        fsync(descriptor)
        seen.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")))

    monkeypatch.setattr(os, "fsync", noted)
    return seen


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    """Return a descriptor on the test's directory."""
    with opened(tmp_path, READ_DIRECTORY) as descriptor:
        yield descriptor


@pytest.fixture
def locked(public_path: Path) -> Iterator[Path]:
    """Return a directory with two files, and between them a directory that only root can list."""
    for name in "ac":
        (public_path / name).touch()
        (public_path / name).chmod(0o644)
    (public_path / "b").mkdir(mode=0)
    yield public_path
    (public_path / "b").chmod(0o700)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a home directory with an empty ~/.aws."""
    (tmp_path / ".aws").mkdir()
    return tmp_path
