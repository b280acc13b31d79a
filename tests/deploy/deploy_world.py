"""What tests of cron.d and systemd share: a node to look after, and what a mail may be."""

from __future__ import annotations

import os
from pathlib import Path

from fixtures import Node
from tests.conftest import REPOSITORY

DEPLOY = REPOSITORY / "deploy"
MOST_LINES, WIDTH = 60, 80


def migrated(path: Path, *, lost: int = 0) -> Node:
    """Return a node with two old shards, migrated long ago; values of the second one are lost."""
    node = Node(path, version="0.8")
    for number in (1, 2):
        node.old_shard(number, points=10)
        node.migrate(number, lose=lost if number == 2 else 0)
    return node


def old_shards(node: Node) -> list[str]:
    """Return the names of the old shards that are there."""
    return sorted(os.listdir(node.shard_db))


def is_mail(text: str) -> bool:
    """Say whether a text has the size of a mail."""
    lines = text.splitlines()
    return 0 < len(lines) <= MOST_LINES and max(map(len, lines)) <= WIDTH
