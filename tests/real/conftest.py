"""Fixtures that several tests of the API share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from fixtures import Node, Row
from fixtures.server import Faults, serve
from shardtool.influxdb.api import Api
from tests.real.api_world import PASSWORD, Serve, World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Serve]:
    """Serve rows of new shards; keywords go to the client."""
    with ExitStack() as stack:

        def make(*rows: Row, database: str = "test", **options: float) -> World:
            node = Node(tmp_path / "data", version="0.8", databases=[database])
            if rows:
                node.write_new(rows)
            faults = Faults()
            url = stack.enter_context(serve(node, password=PASSWORD, faults=faults))
            settings = {"first_wait": 0.001, **options}
            api = stack.enter_context(Api(url, "root", PASSWORD, **settings))
            return World(api, faults, url, node)

        yield make
