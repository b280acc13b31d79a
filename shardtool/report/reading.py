"""Read what `report --json` printed on the nodes, and keep the newest of each node. Pure.

Only shardtool/report/1 is taken: what status, verify and prune print does not say of which node
it is, nor when that was.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from shardtool.errors import ShardtoolError
from shardtool.report.model import SCHEMA, Made, Node, Report, Source
from shardtool.report.shape import ShapeError, shaped

_BLANKS = " \t\r\n"


def read_nodes(content: bytes, name: str) -> tuple[Source, tuple[Node, ...]]:
    """Read a file of one or several documents, one after the other.

    Args:
        content: what is in it.
        name: what to call it.

    Returns:
        The file as a source, and the nodes in it.

    Raises:
        ShardtoolError: it is none of shardtool report --json.
    """
    try:
        nodes = tuple(node for found in _documents(content) for node in _nodes(found))
    except (ShapeError, RecursionError) as error:
        found = "a document that is nested too deeply"
        raise ShardtoolError(
            f"{name}: expected what shardtool report --json prints, found: "
            f"{found if isinstance(error, RecursionError) else error}; make it anew on the node"
        ) from None
    return Source(name, hashlib.sha256(content).hexdigest(), len(nodes)), nodes


def _documents(content: bytes) -> Iterator[Any]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ShapeError("no text in UTF-8") from None
    decoder, place = json.JSONDecoder(), _after_blanks(text, 0)
    if place == len(text):
        raise ShapeError("an empty file")
    while place < len(text):
        try:
            found, end = decoder.raw_decode(text, place)
        except json.JSONDecodeError as error:
            raise ShapeError(
                f"no JSON at line {error.lineno}, column {error.colno}: {error.msg}"
            ) from None
        except ValueError as error:  # a number of more than 4,300 digits
            raise ShapeError(f"no JSON that can be read: {error}") from None
        yield found
        place = _after_blanks(text, end)


def _after_blanks(text: str, place: int) -> int:
    while place < len(text) and text[place] in _BLANKS:
        place += 1
    return place


def _nodes(document: Any) -> tuple[Node, ...]:
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema != SCHEMA:
        raise ShapeError(_not_ours(schema))
    nodes = document.get("nodes")
    if not isinstance(nodes, list) or not nodes:
        raise ShapeError("nodes: expected a list of nodes, found none")
    found = tuple(shaped(Node, node, f"nodes[{place}]") for place, node in enumerate(nodes))
    for place, node in enumerate(found):
        for number, event in enumerate(node.history.events):
            if not isinstance(event.get("event"), str):
                raise ShapeError(f"nodes[{place}].history.events[{number}]: a record of no event")
    return found


def _not_ours(schema: object) -> str:
    if not isinstance(schema, str) or not schema.startswith("shardtool/"):
        return f"a document that is not {SCHEMA}"
    if schema.startswith("shardtool/report/"):
        return f"{schema:.40}, and this shardtool knows {SCHEMA}"
    return f"{schema:.40}, which does not say of which node it is, nor when that was"


def merged(made: Made, read: Sequence[tuple[Source, Sequence[Node]]]) -> Report:
    """Merge what several files hold: of each node the newest report, by host, directory and server.

    Args:
        made: who merges them.
        read: the files, and the nodes in each.
    """
    newest: dict[tuple[str, str, int], Node] = {}
    counts: dict[tuple[str, str, int], int] = {}
    for _, nodes in read:
        for node in nodes:
            counts[node.key] = counts.get(node.key, 0) + 1
            known = newest.get(node.key)
            if known is None or instant(node.made.at) >= instant(known.made.at):
                newest[node.key] = node
    replaced = tuple(
        f"{key[0]} {newest[key].data}: {count} reports, the newest of them counts: "
        f"{newest[key].made.at}"
        for key, count in sorted(counts.items())
        if count > 1
    )
    nodes = tuple(newest[key] for key in sorted(newest))
    return Report(made, nodes, tuple(source for source, _ in read), replaced)


def instant(text: str | None) -> float:
    """Return the seconds since the epoch of a time that a document has; minus infinity for what
    is none."""
    try:
        moment = datetime.fromisoformat(text or "")
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return (moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()
    except (ValueError, OverflowError):
        return float("-inf")
