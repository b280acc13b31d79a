"""A snapshot's life by the installed command: taken, read again, put back and forgotten."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from tests.conftest import Run
from tests.e2e.s3_world import S3World
from tests.real.snapshot_world import damage, make_node, state


def lives(node: Path, store: str | Path, shardtool: Run, env: Mapping[str, str | None]) -> None:
    """Insist that a node's snapshots in `store` live as they should."""

    def run(*words: str | Path) -> str:
        done = shardtool(*words, env=env)
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout

    def names() -> list[str]:
        found = json.loads(run("snapshots", "--store", store, "--json"))
        return [one["id"] for one in found["snapshots"]]

    before = state(node)
    backup = ("--data", node, "backup", "--to", store)
    run(*backup)
    (old,) = names()
    run("snapshots", "verify", "--store", store)
    damage(node)
    run("--data", node, "restore", "--yes", "--store", store)
    assert state(node) == before
    run(*backup)
    assert old in names()
    run("--data", node, "forget", "--keep-last", "1", "--store", store)
    (left,) = names()
    assert left != old
    elsewhere = node.parent / "elsewhere"
    run("restore", left, "--store", store, "--to", elsewhere)
    assert state(elsewhere) == before


def test_in_a_directory(tmp_path: Path, shardtool: Run) -> None:
    lives(make_node(tmp_path / "node"), tmp_path / "store", shardtool, {})


def test_in_a_bucket(s3: S3World, shardtool: Run) -> None:
    own = {name: None for name in os.environ if name.startswith("AWS_")}
    lives(s3.node, s3.url, shardtool, {**own, **s3.environment()})
