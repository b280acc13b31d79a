"""Nodes for the tests of report: one of several verdicts, one with hostile names, a cluster."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from fixtures import Node, Row
from fixtures.server import serve
from tests.conftest import Run
from tests.e2e.proof_world import AT, document

PASSWORD = "s3cret-p4ss"
ENV: dict[str, str | None] = {"SHARDTOOL_PASSWORD": PASSWORD}
SCRIPT = "<script>document.title='run'</script>"
HOSTILE = (
    SCRIPT,
    '"><img src=x onerror="document.title=1">',
    "\u202ertl \u05d0\u05d1",
    "nul\x00 esc\x1b[31m",
    "long" * 60 + "tail",
    "&amp; {{ 7 * 7 }} {% raw %}",
)
WEEK = 7 * 86_400_000_000


def look(run: Run, data: Path, **settings: Any) -> dict[str, Any]:
    """Return the document of a node."""
    found: dict[str, Any] = document(run("--data", data, "report", "--json", **settings))
    return found


def several_verdicts(path: Path, run: Run) -> Node:
    """Make a node with a proven shard, one that loses values, one that was accepted, a marked, an
    unmigrated, a suspect and an unreadable one, one that was deleted, and a snapshot."""
    node = Node(path, version="0.8")
    for number in range(1, 9):
        node.old_shard(number, points=20)
    for number in (1, 2, 3, 4, 8):
        node.migrate(number, lose=5 if number in (2, 3) else 0)
    node.mark(5, content=b"done")
    (node.shard_db / "00007/CURRENT").unlink()
    run("--data", path, "verify", "1", "2", "3", "8")
    run("--data", path, "accept", "3", "--because", SCRIPT, "--missing", "5")
    run("--data", path, "prune", "--yes", "8")
    run("--data", path, "backup")
    return node


def hostile(path: Path, run: Run) -> Node:
    """Make a node whose series, columns and strays have names that mean harm."""
    node = Node(path, version="0.8")
    rows = [
        Row("test", name.replace("\x00", "\x01"), name[:40].replace("\x00", "\x01"), AT + n, n, 1.5)
        for n, name in enumerate(HOSTILE, 1)
    ]
    node.old_shard(1, rows=rows)
    node.mark(1)
    for name in (
        b"\xff\xfe",
        b"a\x1b]0;owned\x07",
        "\u202efdp.exe".encode(),
        b"<b>bold",
        b"n" * 255,
    ):
        os.mkdir(os.path.join(os.fsencode(node.shard_db), name))
    run("--data", path, "verify")
    return node


def cluster(path: Path, run: Run) -> list[Path]:
    """Make a cluster of three that is half way, look at each, and return the documents' files."""
    nodes = [Node(path / f"db{n}", version="0.8", servers=3, server_id=n) for n in (1, 2, 3)]
    rows = [Row("test", "cpu", f"c{n % 4}", AT + n % 3 * WEEK, n, float(n)) for n in range(1, 37)]
    for node in nodes:
        for number in (1, 2, 3):
            node.old_shard(number, rows=rows[number - 1 :: 3])
            node.migrate(number, mark=(node, number) != (nodes[2], 3))
    files = []
    for place, node in enumerate(nodes):
        others = [other for other in nodes if other is not node]
        with serve(node, *others, password=PASSWORD) as url:
            run("--data", node.path, "verify", "--api", url, env=ENV)
            if place == 0:
                run("--data", node.path, "prune", "1", "--yes", "--api", url, env=ENV)
        found = look(run, node.path)
        found["nodes"][0]["made"]["host"] = f"db{place + 1}"  # they are on one host here
        files.append(path / f"db{place + 1}.json")
        files[-1].write_text(json.dumps(found))
    return files
