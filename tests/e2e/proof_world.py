"""What the tests of verify, accept and prune share: documents, expectations, damage."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fixtures import MARKED_AT, NewShard, Node
from fixtures.encode import microseconds
from shardtool.datadir.layout import find_layout
from shardtool.journal import Journal
from tests.conftest import Listing, Run
from tests.needs import CAPTURES, lacking

Capture = Callable[[str], Path]
List = Callable[[Path], Listing]

PROVEN = {2, 3, *range(12, 19), 22, 25, 26, 27}
"""The shards of migrated-08 whose every value is in the new storage."""
PROVEN_NAMES = sorted(f"{number:05d}" for number in PROVEN)
AT = microseconds(MARKED_AT) - 86_400_000_000  # a day before the migration


def document(done: subprocess.CompletedProcess[str]) -> Any:
    """Return the JSON document on stdout; there must be no traceback beside it."""
    assert "Traceback" not in done.stderr, done.stderr
    assert "mistake in shardtool" not in done.stderr, done.stderr
    assert done.stdout, (done.returncode, done.stderr)
    return json.loads(done.stdout)


def verify(run: Run, data: Path, *args: str | Path, **settings: Any) -> dict[str, Any]:
    """Verify and return the document's shards by id."""
    found = document(run("--data", data, "verify", "--json", *args, **settings))
    return {shard["id"]: shard for shard in found["shards"]}


def verdicts(shards: dict[str, Any]) -> dict[str, str]:
    """Given verify's shards, return the verdicts by id."""
    return {name: shard["verdict"] for name, shard in shards.items()}


def prune(run: Run, data: Path, *args: str | Path, **settings: Any) -> dict[str, Any]:
    """Prune without a question and return the document."""
    found: dict[str, Any] = document(run("--data", data, "prune", "--json", *args, **settings))
    return found


def kept(pruned: dict[str, Any]) -> dict[str, list[str]]:
    """Given prune's document, return the reasons by shard that stays, planned or in the end."""
    shards = [*pruned["keep"], *pruned.get("changed", ())]
    return {shard["id"]: shard["reasons"] for shard in shards}


def expected(name: str) -> dict[str, Any]:
    """Return what an independent reader found of a capture."""
    file = CAPTURES / f"expected/{name}.json"
    if not file.is_file():
        lacking(str(file))
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def old_shards(data: Path) -> list[str]:
    """Return what is in shard_db."""
    return sorted(os.listdir(data / "db/shard_db"))


def in_trash(data: Path) -> list[str]:
    """Return what is in the trash."""
    trash = data / "db/.shardtool/trash"
    return sorted(os.listdir(trash)) if trash.is_dir() else []


def receipts(data: Path) -> list[str]:
    """Return the names in the directory of receipts."""
    proofs = data / "db/.shardtool/proofs"
    return sorted(os.listdir(proofs)) if proofs.is_dir() else []


def sound_receipts(data: Path) -> dict[str, Any]:
    """Assert that each receipt under its name is whole; return them by shard."""
    found = {}
    for name in receipts(data):
        if not name.startswith("."):
            content = json.loads((data / "db/.shardtool/proofs" / name).read_text())
            assert content["schema"] == "shardtool/receipt/1"
            found[name[:5]] = content
    return found


def events(data: Path, event: str) -> list[dict[str, Any]]:
    """Return the journal's records of one kind."""
    records = Journal(find_layout(str(data), None, {})).read().records
    return [record for record in records if record["event"] == event]


def not_ours(listing: Listing) -> Listing:
    """Leave out of a listing what shardtool keeps for itself."""
    return {path: entry for path, entry in listing.items() if not path.startswith("db/.shardtool")}


def new_of(node: Node, old: int) -> NewShard:
    """Return a new shard that has values of an old shard."""
    start, end = node.old[old].start, node.old[old].end
    return next(one for one in node.new.values() if one.start < end and start < one.end)


def rewrite(shard: Path, keep: Callable[[bytes, bytes], bool]) -> None:
    """Write a new shard anew, as a LevelDB with only those pairs that are to be kept."""
    from fixtures import leveldb, pairs
    from fixtures.encode import moment

    left = [pair for pair in pairs(shard) if keep(*pair)]
    engine = (shard / "type").read_bytes()
    at = moment(shard.stat().st_mtime_ns // 1000)
    shutil.rmtree(shard)
    leveldb.create(shard, name=str(shard), at=at)
    leveldb.append(shard, left)
    (shard / "type").write_bytes(engine)


def lose_one_value(shard: Path) -> None:
    """Write a new shard anew without its last value; it holds nothing else than before."""
    from fixtures import values

    last = list(values(shard))[-1][0]
    rewrite(shard, lambda key, value: key != last)


def one_line(done: subprocess.CompletedProcess[str], code: int) -> str:
    """Assert that a run ended with `code` and one line on stderr; return the line."""
    assert done.returncode == code, (done.stdout, done.stderr)
    (line,) = done.stderr.splitlines()
    assert line.startswith("shardtool: ")
    return line


def lost_by_column(shard: dict[str, Any]) -> dict[str, int]:
    """Return the missing values of one shard of the document by `database~series~column`."""
    found: Counter[str] = Counter()
    for one in shard["columns"]:
        found["~".join((one["database"], one["series"], one["column"]))] += one["missing"]
    return dict(found)


def agrees(shards: dict[str, Any], name: str) -> None:
    """Assert that a document says what an independent reader found, value for value."""
    wanted = expected(name)
    assert set(shards) == set(wanted)
    for number, shard in shards.items():
        assert shard["values"] == wanted[number]["values"], number
        assert shard["missing"] == wanted[number]["missing"], number
        assert shard["different"] == 0, number
        assert lost_by_column(shard) == wanted[number]["missing_by_column"], number
        complete = wanted[number]["missing"] == 0
        assert shard["verdict"] == ("proven" if complete else "incomplete"), number
        words = ([] if wanted[number]["marked"] else ["no-marker"]) + ["values-missing"]
        assert shard["reasons"] == ([] if complete else words), number
