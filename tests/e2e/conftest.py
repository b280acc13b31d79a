"""Fixtures that several tests of the installed command share."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fixtures import Node, Row
from fixtures.answers import Faults
from fixtures.raft import Space
from fixtures.server import serve
from tests.conftest import Run
from tests.e2e.export_world import ALL_KINDS
from tests.e2e.spaces_world import PASSWORD, World
from tests.real.snapshot_world import make_node

if TYPE_CHECKING:
    from tests.e2e.s3_world import S3World


@pytest.fixture
def proven(tmp_path: Path) -> Node:
    """A node with two shards whose every value is in the new storage."""
    node = Node(tmp_path / "data", version="0.8")
    for number in (1, 2):
        node.old_shard(number, points=10)
        node.migrate(number)
    return node


@pytest.fixture
def kinds(tmp_path: Path) -> Node:
    """A node with a shard of eight values of two points, and one of four."""
    node = Node(tmp_path / "data", version="0.8")
    node.old_shard(
        1, rows=[Row("test", "cpu", n, t, t, v) for t in (7, 9) for n, v in ALL_KINDS.items()]
    )
    node.old_shard(2, rows=[Row("test", "mem", n, 8, 1, v) for n, v in ALL_KINDS.items()])
    return node


@pytest.fixture
def spaces_world(tmp_path: Path, shardtool: Run) -> Iterator[Callable[..., World]]:
    """Serve a node with metrics and test, as 0.8's without spaces unless others are given."""
    with ExitStack() as stack:

        def make(
            *spaces: Space, rows: tuple[Row, ...] = (), version: str = "0.8.3", **settings: Any
        ) -> World:
            node = Node(
                tmp_path / "data",
                version="0.8",
                databases=["metrics", "test"],
                spaces=spaces,
                **settings,
            )
            if rows:
                node.write_new(rows)
            faults = Faults()
            url = stack.enter_context(
                serve(node, password=PASSWORD, faults=faults, version=version)
            )
            return World(node.path, shardtool, url, faults)

        yield make


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """A real S3 server for all tests of a process; each has its own bucket."""
    from tests.e2e.s3_world import moto  # moto's import takes a while that others need not wait

    with moto() as url:
        yield url


@pytest.fixture
def s3(s3_server: str, tmp_path: Path) -> Iterator[S3World]:
    """A bucket behind a proxy, and a small node to back up."""
    from tests.e2e.s3_world import s3_world

    bucket = f"bucket-{uuid.uuid4().hex[:12]}"
    with s3_world(s3_server, bucket, tmp_path / "home", make_node(tmp_path / "node")) as world:
        yield world


@pytest.fixture
def here(s3: S3World, monkeypatch: pytest.MonkeyPatch) -> S3World:
    """A world for calls in this process."""
    for name, value in s3.environment().items():
        if name.startswith("AWS_") or name in ("HOME", "TMPDIR"):
            monkeypatch.setenv(name, value)
    return s3
