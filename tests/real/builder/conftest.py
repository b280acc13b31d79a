"""Fixtures of the tests of the fixtures."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import archives
from tests.needs import archive_of


@pytest.fixture(scope="session")
def captures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The captures, unpacked."""
    target = tmp_path_factory.mktemp("captures")
    for name in ("original-07", "migrated-08"):
        archives.unpack(archive_of(name), target)
    return target
