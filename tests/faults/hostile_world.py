"""A node of two shards in a hostile tree, and what every command has to do there all the same."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from fixtures import Node
from tests.conftest import Run
from tests.e2e.proof_world import document, events

LOOKING = [
    ("status",),
    ("check",),
    ("history",),
    ("snapshots",),
    ("snapshots", "verify"),
    ("prune", "--dry-run"),
    ("verify",),
]
CHANGING = [
    ("backup", "-q"),
    ("export", "--to", "OUT", "--force", "-q"),
    ("prune", "--trust", "marker", "--yes"),
    ("forget", "--keep-last", "1"),
    ("restore", "--yes"),
]
PRUNE = ("prune", "--trust", "marker", "--yes", "--json")
SHARD = "db/shard_db/00001"


@contextlib.contextmanager
def two_shards(path: Path) -> Iterator[Node]:
    """Make a node at `path` whose two shards are marked and whole in the new storage."""
    made = Node(path, version="0.8")
    for number in (1, 2):
        made.old_shard(number, points=4, databases={"test": ("cpu",)})
        made.migrate(number)
    yield made
    # Of a tree 1,000 deep Python's rmtree, and so pytest, runs out of its stack.
    subprocess.run(["rm", "-rf", "--one-file-system", made.path], check=False)


def every_command(run: Run, data: Path, out: Path, commands: list[tuple[str, ...]]) -> None:
    """Run commands, and assert of each what holds for all of them on any tree."""
    for words in commands:
        done = run("--data", data, *(str(out) if word == "OUT" else word for word in words))
        assert done.returncode in (0, 1, 3), (words, done.returncode, done.stderr)
        assert "Traceback" not in done.stderr, (words, done.stderr)
        assert "mistake in shardtool" not in done.stderr, (words, done.stderr)
        assert done.returncode != 1 or done.stderr, words
        for text in (done.stdout, done.stderr):
            assert "\x1b" not in text, words
            assert "\r" not in text, words


def begun(node: Node, run: Run) -> Path:
    """Leave an empty shard in the trash whose removal was begun; return it."""
    done = run("--data", node.path, *PRUNE, "1")
    assert document(done)["deleted"] == ["00001"]
    # As a kill leaves it that came right after the rename.
    (intent,) = events(node.path, "intent")
    left = node.db / ".shardtool/trash" / str(intent["trash"])
    left.mkdir()
    journal = node.db / ".shardtool/journal"
    journal.write_text(
        "".join(
            line.replace(f'"inode": {intent["inode"]}', f'"inode": {left.stat().st_ino}') + "\n"
            for line in journal.read_text().splitlines()
            if '"deleted"' not in line
        )
    )
    return left
