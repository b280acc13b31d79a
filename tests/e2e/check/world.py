"""What the tests of check share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.conftest import Run
from tests.e2e.proof_world import document


def check(run: Run, data: Path, *args: str, **settings: Any) -> dict[str, Any]:
    """Check and return the document."""
    found: dict[str, Any] = document(run("--data", data, "check", "--json", *args, **settings))
    return found


def ids(found: dict[str, Any], level: str) -> list[str]:
    """Return the ids of the findings of one level."""
    return sorted(one["id"] for one in found["findings"] if one["level"] == level)


def finding(found: dict[str, Any], word: str) -> dict[str, str]:
    """Return the finding with an id."""
    several: list[dict[str, str]] = found["findings"]
    (one,) = [one for one in several if one["id"] == word]
    return one
