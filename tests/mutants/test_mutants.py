"""No mutant lives of what decides whether a shard goes, but those that somebody looked at."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.mutants.run import CRITICAL, outdated, report, try_mutants, unknown, without_decorators
from tests.needs import lacking


def test_decorators_become_assignments_so_that_mutmut_sees_the_functions() -> None:
    source = """\
class Some:
    @property
    def name(self):
        return 1

    @classmethod
    @contextlib.contextmanager
    def opened(cls):
        yield cls()

    @staticmethod
    def plain():
        return 2


@lru_cache(maxsize=1)
def table():
    return 3
"""
    made = without_decorators(source)
    assert "    name = property(name)\n" in made
    assert "    opened = classmethod(contextlib.contextmanager(opened))\n" in made
    assert made.endswith("table = lru_cache(maxsize=1)(table)\n")
    assert made.count("@") == made.count("@staticmethod") == 1


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_no_mutant_lives_that_nobody_has_looked_at(tmp_path: Path) -> None:
    if importlib.util.find_spec("mutmut") is None:
        lacking("mutmut")
    mutants = try_mutants(tmp_path, modules=CRITICAL)
    assert len(mutants) > 200
    assert not unknown(mutants), report(mutants)
    assert outdated(mutants) == []
