"""What the tests of export share: values as their own readers find them, and the command."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from line_protocol_parser import parse_line

from fixtures import values
from fixtures.encode import ID_PREFIX, Value, parse_field_value, split_value_key
from fixtures.read import pairs
from tests.conftest import Run
from tests.e2e.proof_world import document

Cell = tuple[bytes, tuple[str, str]]
"""database~series~column~time~sequence, and the value's type and text."""

ALL_KINDS: dict[str, Value] = {"host": "web", "n": 1 << 60, "ok": True, "value": 0.1}


def typed(value: object) -> tuple[str, str]:
    """Return a value that is equal to no value of another type."""
    return type(value).__name__, repr(value)


def stored(data: Path) -> Counter[Cell]:
    """Return the values of all old shards, as the fixtures' own reader finds them."""
    found: Counter[Cell] = Counter()
    for shard in sorted((data / "db/shard_db").iterdir()):
        names = {v: k[8:] for k, v in pairs(shard) if k.startswith(ID_PREFIX)}
        for key, value in values(shard):
            column, time_us, sequence = split_value_key(key)
            text = b"%s~%d~%d" % (names[column], time_us, sequence)
            found[text, typed(parse_field_value(value))] += 1
    return found


def cell(
    database: str, series: str, column: str, time_us: int, sequence: int, value: object
) -> Cell:
    return f"{database}~{series}~{column}~{time_us}~{sequence}".encode(), typed(value)


def export(run: Run, data: Path, *words: str | Path, code: int = 0) -> dict[str, Any]:
    done = run("--data", data, "export", "--json", *words)
    assert done.returncode == code, done.stderr
    found: dict[str, Any] = document(done)
    assert found["schema"] == "shardtool/export/1"
    for file in found["files"]:
        content = Path(file["path"]).read_bytes()
        assert (file["bytes"], file["sha256"]) == (
            len(content),
            hashlib.sha256(content).hexdigest(),
        )
    return found


def json_cells(text: str, database: str) -> Iterator[Cell]:
    for line in text.splitlines():
        (one,) = json.loads(line)
        for time_us, sequence, *row in one["points"]:
            for name, value in zip(one["columns"][2:], row, strict=True):
                yield cell(database, one["name"], name, time_us, sequence, value)


def line_cells(line: str, database: str) -> Iterator[Cell]:
    """Yield a line's fields, by a parser that is not ours.

    It takes no float that is too small to be normal and no NUL: others stand in for these two.
    """
    point = parse_line(line.replace("=5e-324 ", "=1e-300 ").replace("\0", "\ue000"))
    for name, value in point["fields"].items() if point is not None else ():
        time_us, rest = divmod(point["time"], 1000)
        assert rest == 0
        sequence = int(point["tags"]["sequence_number"])
        true = value.replace("\ue000", "\0") if isinstance(value, str) else value
        true = 5e-324 if true == 1e-300 else true
        yield cell(database, point["measurement"], name, time_us, sequence, true)


def left_cells(path: Path) -> Iterator[Cell]:
    if path.exists():
        for line in path.read_text().splitlines():
            one = json.loads(line)
            names = one["database"], one["series"], one["column"]
            yield cell(*names, one["time_us"], one["sequence_number"], one["value"])
