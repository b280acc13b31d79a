"""What the tests of migrate share: nodes, and a run of the command."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from typing import Any

from fixtures import Node
from shardtool.datadir.layout import find_layout
from shardtool.journal import Journal

Migrate = Callable[..., subprocess.CompletedProcess[str]]


READY = ("--override", "no-snapshot", "--override", "no-spaces", "--no-read")


"""What lets a node that was only just upgraded through."""


PASSWORD = {"SHARDTOOL_PASSWORD": "root"}


SHARDS = ["00001", "00002", "00003", "00004"]


SLOW = ("--seconds-per-shard", "0.7")


"""What is said of the two overridden blockers on stderr."""


def marked(node: Node) -> list[str]:
    return sorted(path.parent.name for path in node.shard_db.glob("*/MIGRATED"))


def wait_for(what: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


def events(node: Node) -> list[str]:
    return [record["event"] for record in records(node)]


def records(node: Node) -> list[dict[str, Any]]:
    return list(Journal(find_layout(str(node.path), None, {})).read().records)
