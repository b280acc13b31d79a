"""SECURITY.md: each promise names its tests, and they are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.conftest import REPOSITORY

PAGE = (REPOSITORY / "SECURITY.md").read_text()
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)


def functions_in(path: Path) -> set[str]:
    """Return the names of the test functions in a module."""
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def test_each_test_that_security_md_names_is_there() -> None:
    assert [one for one in NAMED if one[1] not in functions_in(REPOSITORY / one[0])] == []


def test_each_promise_names_a_test() -> None:
    promised = PAGE.partition("## What is promised")[2].partition("## What is not promised")[0]
    promises = re.split(r"\n\n(?=\*\*)", promised.strip())
    assert len(promises) > 10
    assert [one.partition("\n")[0] for one in promises if "\n- `tests/" not in one] == []
