"""What the tests of a prune by proof share."""

from __future__ import annotations

import shutil

from fixtures import Node
from tests.e2e.proof_world import (
    lose_one_value,
    new_of,
)


def value_lost(node: Node) -> None:
    """Write shard 1's new shard anew without one value."""
    lose_one_value(new_of(node, 1).path)


def file_lost(node: Node) -> None:
    """Remove the file that has the values of shard 1's new shard."""
    (new_of(node, 1).path / "000003.log").unlink()


def directory_lost(node: Node) -> None:
    """Remove shard 1's new shard."""
    shutil.rmtree(new_of(node, 1).path)


NOT_FOUND = {"values-missing", "values-different", "engine-unreadable"}
