"""Points on their way to the tests' own server, and what is on disk after it."""

from __future__ import annotations

import http.client
import json
import struct
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from fixtures import Node, read
from fixtures.cluster import Catalogue
from fixtures.encode import Value, parse_field_value, split_value_key
from tests.real.exchanges import Answer

AS_ROOT = "u=root&p=root"
NOON = 1_400_000_000_000_000  # in microseconds
IDENTITY = ["time", "sequence_number"]

Found = dict[tuple[str, str, int, int], bytes]
"""FieldValues by (series, column, time, sequence)."""


def entry(name: str, columns: list[str], *points: list[Any]) -> dict[str, Any]:
    """Return an entry of a body; `columns` come after those of the identity."""
    return {"name": name, "columns": [*IDENTITY, *columns], "points": list(points)}


def target(database: str = "test", precision: str = "u") -> str:
    """Return where points are written to."""
    return f"/db/{quote(database, safe='')}/series?{AS_ROOT}&time_precision={precision}"


def post(url: str, body: str | bytes, where: str = "", **headers: str) -> Answer:
    """POST a body that need be no text."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    content = body.encode() if isinstance(body, str) else body
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    try:
        connection.request("POST", where or target(), content, named)
        came = connection.getresponse()
        return Answer(came.status, dict(came.getheaders()), came.read().decode())
    except (http.client.RemoteDisconnected, ConnectionResetError):
        return Answer(0, {}, "")
    finally:
        connection.close()


def write(url: str, *entries: dict[str, Any], database: str = "test") -> Answer:
    """POST entries in microseconds."""
    return post(url, json.dumps(entries), target(database))


def said(answer: Answer) -> tuple[int, str]:
    """Return a status and a text."""
    return answer.status, answer.body


def catalogue(path: Path) -> Catalogue:
    """Return what the raft log on disk leads to."""
    return Catalogue.replay((path / "raft/log").read_bytes())


def stored(node: Node | Path, database: str = "test") -> Found:
    """Return the FieldValues on disk by (series, column, time, sequence), of all new shards."""
    path = node.path if isinstance(node, Node) else node
    known = catalogue(path)
    names = {
        number: (series, column)
        for series, columns in known.ids.get(database, {}).items()
        for column, number in columns.items()
    }
    found: Found = {}
    for shard in known.real_shards():
        for key, value in read.values(path / f"db/shard_db_v2/{shard.id:05}"):
            column_id, time_us, sequence = split_value_key(key)
            (number,) = struct.unpack(">Q", column_id)
            if number in names:
                found[(*names[number], time_us, sequence)] = value
    return found


def values(node: Node | Path) -> dict[tuple[str, str, int, int], Value | None]:
    """Return what `stored` finds, decoded."""
    return {identity: parse_field_value(one) for identity, one in stored(node).items()}
