"""What tests of `shardtool rescue` share: a served directory, and what was sent to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from fixtures import MARKED_AT, Node
from fixtures.encode import Row, microseconds
from fixtures.server import Faults, serve
from tests.conftest import Run
from tests.e2e.proof_world import document

PASSWORD = {"SHARDTOOL_PASSWORD": "root"}
AT = microseconds(MARKED_AT) - 86_400_000_000
LATER = microseconds(datetime.now(UTC) + timedelta(days=400))


@contextmanager
def served(data: Path | Node, **faults: Any) -> Iterator[tuple[str, Faults]]:
    """Serve a directory; yield the URL and the faults, which note what was asked."""
    seen = Faults(**faults)
    with serve(data, faults=seen) as url:
        yield url, seen


def rescue(run: Run, data: Path, url: str, *args: str, **settings: Any) -> dict[str, Any]:
    """Rescue without a question and return the document."""
    words = ("--data", data, "rescue", "--api", url, "--yes", "--json", *args)
    found: dict[str, Any] = document(run(*words, env=PASSWORD, **settings))
    return found


def sent(faults: Faults) -> list[tuple[Any, ...]]:
    """Return each value that was POSTed: database, series, column, time, sequence, value, type."""
    values = []
    for request in faults.seen:
        if request.method == "POST" and request.target.split("?")[0].endswith("/series"):
            database = unquote(request.target.split("/")[2])
            for entry in json.loads(request.content):
                assert entry["columns"][:2] == ["time", "sequence_number"]
                for point in entry["points"]:
                    for column, value in zip(entry["columns"][2:], point[2:], strict=True):
                        assert value is not None  # a null deletes what the server has
                        values.append(
                            (database, entry["name"], column, *point[:2], value, type(value))
                        )
    return values


def lossy(path: Path, rows: list[Row], **settings: Any) -> Node:
    """Return a node that was migrated as 0.8.3 does it, with one value more than these."""
    node = Node(path, version="0.8", **settings)
    node.old_shard(1, rows=[Row("test", "kept", "v", AT, 10_001, 1), *rows])
    node.migrate(1, like_083=True)
    return node


def nothing_written(database: str, series: str, columns: list[str], values: list[Any]) -> str:
    """Refuse everything."""
    return "disk full"
