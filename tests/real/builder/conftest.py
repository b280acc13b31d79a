"""Fixtures of the tests of the fixtures."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from tests.needs import archive_of


@pytest.fixture(scope="session")
def captures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The captures, unpacked."""
    target = tmp_path_factory.mktemp("captures")
    for name in ("original-07", "migrated-08"):
        with tarfile.open(archive_of(name)) as archive:
            archive.extractall(target, filter="tar")  # "data" would change the modes
    return target
