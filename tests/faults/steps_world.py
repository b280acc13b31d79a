"""Every command on a small node: how it is run, and how to tell that all of it was done."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from fixtures import Node
from fixtures.server import serve
from shardtool.snapshots.store import list_store, opened_store
from shardtool.snapshots.verify import verify as check_snapshot
from tests.conftest import Run
from tests.e2e.proof_world import events, in_trash, old_shards, receipts, verdicts, verify
from tests.real.snapshot_world import Uncounted

World: TypeAlias = Path
"""A directory with data/ (the node), tmp/ (TMPDIR) and room for what a command writes."""
Words: TypeAlias = tuple[str | Path, ...]


@dataclass(frozen=True)
class Step:
    """A command in its place on the journey.

    Args:
        words: after `--data DIR`.
        code: how a run ends that nothing befalls.
        prepare: what came before it; called with the world and what runs shardtool.
        ended: what a run that was not disturbed leaves, in a form that can be compared.
        served: a server answers for the node, and its URL comes last in the words.
    """

    words: Callable[[World], Words]
    code: int
    ended: Callable[[World, Run], object]
    prepare: Callable[[World, Run], None] = lambda world, run: None
    served: bool = False

    @contextmanager
    def ready(self, world: World) -> Iterator[Words]:
        """Yield the words of the command line, while there is a server where one is needed."""
        words = ("--data", world / "data", *self.words(world))
        if not self.served:
            yield words
            return
        with serve(world / "data") as url:
            yield (*words, "--api", url)


def environment(world: World) -> dict[str, str]:
    """Return what of the environment leads into the world, and no password prompt out of it."""
    return {"TMPDIR": str(world / "tmp"), "SHARDTOOL_PASSWORD": "root"}


def make_world(world: World) -> None:
    """Make a node whose shard 1 loses two values, whose 2 is proven, and 3 is not migrated."""
    node = Node(world / "data", version="0.8")
    for number in (1, 2, 3):
        node.old_shard(number, points=5, databases={"test": ("cpu",)})
    node.migrate(2)
    node.migrate(1, lose=2)
    (world / "tmp").mkdir()
    (world / "out").mkdir()


def copy_world(original: World, world: World) -> World:
    """Copy a world; what was at `world` goes."""
    shutil.rmtree(world, ignore_errors=True)
    shutil.copytree(original, world, symlinks=True)
    return world


def users(data: Path) -> dict[str, tuple[object, ...]]:
    """Return all of a node that is the user's: kinds, modes, files' times and contents.

    Snapshots and what shardtool keeps for itself are not in it, nor what a restore set aside.
    """
    return {
        str(path.relative_to(data)): _entry(path)
        for path in sorted(data.rglob("*"))
        if not _is_ours(path.relative_to(data))
    }


def everything(world: World) -> dict[str, tuple[object, ...]]:
    """Return all that is in a world: two that are equal mean that nothing has changed."""
    found = {}
    for path in sorted(world.rglob("*")):
        link = os.readlink(path) if path.is_symlink() else ""
        found[str(path.relative_to(world))] = (*_entry(path), link)
    return found


def _is_ours(path: Path) -> bool:
    first = path.parts[0]
    return first == "snapshots" or ".before-restore-" in first or ".shardtool" in path.parts


def _entry(path: Path) -> tuple[object, ...]:
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode):
        return (found.st_mode,)
    content = hashlib.sha256(path.read_bytes()).hexdigest()
    return found.st_mode, found.st_mtime_ns, content


def _volatile(document: Any) -> Any:
    """Leave out of a document what no two runs have in common."""
    if isinstance(document, dict):
        left_out = ("filesystem", "seconds", "time", "generated_at", "unseen", "free_bytes")
        return {k: _volatile(v) for k, v in document.items() if k not in left_out}
    if isinstance(document, list):
        return [_volatile(one) for one in document if not _is_of_the_machine(one)]
    return document


def _is_of_the_machine(one: object) -> bool:
    """Say whether it is a finding of check about the machine: how much is free, of what."""
    return isinstance(one, dict) and one.get("id") in ("disk-space", "open-files")


def answer(stdout: str) -> object:
    """Return what a command that only reads has found, its document or its lines."""
    try:
        return _volatile(json.loads(stdout))
    except ValueError:
        return stdout


# -- what comes before --


def _with_snapshots(world: World, run: Run) -> None:
    for _ in range(2):
        assert run("--data", world / "data", "backup", "-q").returncode == 0


def _damaged(world: World, run: Run) -> None:
    assert run("--data", world / "data", "backup", "-q").returncode == 0
    (world / "data/raft/log").write_bytes(b"cut")
    (world / "data/wal/new").write_bytes(b"new")


def _pruned(world: World, run: Run) -> None:
    assert run("--data", world / "data", "prune", "--yes", "-q").returncode == 3


# -- what is left behind --


def _same(world: World, run: Run) -> object:
    return users(world / "data")


def _names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []


def _after_verify(world: World, run: Run) -> object:
    found = {}
    for name in receipts(world / "data"):
        content = json.loads((world / "data/db/.shardtool/proofs" / name).read_text())
        found[name] = (content["values"], content["missing"], content["digest"])
    return found, users(world / "data")


def _after_prune(world: World, run: Run) -> object:
    data = world / "data"
    ended = [r["shard"] for event in ("deleted", "finished") for r in events(data, event)]
    return old_shards(data), in_trash(data), sorted(ended), users(data)


def _after_backup(world: World, run: Run) -> object:
    store = world / "data/snapshots"
    # A run that failed at its very end has left a whole snapshot, and the next makes another.
    whole = all(name[0].isdigit() for name in _names(store))
    return _are_good(store), whole, users(world / "data")


def _are_good(store: Path) -> bool:
    if not store.is_dir():
        return False
    with opened_store(store) as opened:
        found = list_store(store)
        names = [one.id for one in found.snapshots]
        sound = all(check_snapshot(opened, name, Uncounted).good for name in names)
        return bool(names) and sound and not found.others


def _after_restore(world: World, run: Run) -> object:
    aside = sorted(
        (path.name.partition(".")[0], _entry(file)[2])
        for path in (world / "data").glob("*.before-restore-*")
        for file in path.rglob("*")
        if file.is_file()
    )
    pending = (world / "data/db/.shardtool/restore.json").exists()
    staged = [path.name for path in (world / "data").glob("*.restoring-*")]
    return aside, pending, staged, users(world / "data")


def _after_elsewhere(world: World, run: Run) -> object:
    target = world / "out/target"
    return users(target) if target.is_dir() else None, users(world / "data"), _names(world / "out")


def _after_forget(world: World, run: Run) -> object:
    return len(_names(world / "data/snapshots")), users(world / "data")


def _after_accept(world: World, run: Run) -> object:
    accepted = [(r["shard"], r["missing"]) for r in events(world / "data", "accepted")]
    return accepted, users(world / "data")


def _after_export(world: World, run: Run) -> object:
    out = world / "out"
    return {name: (out / name).read_text() for name in _names(out)}, users(world / "data")


def _after_rescue(world: World, run: Run) -> object:
    shards = verify(run, world / "data", "1", "2", "--again")
    old = {k: v for k, v in users(world / "data").items() if "shard_db/" in k}
    return verdicts(shards), old


def _constant(*words: str) -> Callable[[World], Words]:
    return lambda world: words


READING = {
    "status": Step(_constant("status", "--json"), 0, _same),
    "check": Step(_constant("check", "--json"), 3, _same),
    "history": Step(_constant("history", "--json"), 0, _same, _pruned),
    "snapshots": Step(_constant("snapshots", "--json"), 0, _same, _with_snapshots),
    "snapshots-verify": Step(_constant("snapshots", "verify", "--json"), 0, _same, _with_snapshots),
    "prune-dry-run": Step(_constant("prune", "--dry-run", "--trust", "marker", "--json"), 0, _same),
}
"""The commands that read: a fault changes nothing, and what they then say is not 'fine'."""

CHANGING = {
    "verify": Step(_constant("verify", "-q", "2"), 0, _after_verify),
    "prune": Step(_constant("prune", "--yes", "-q", "2"), 0, _after_prune),
    "prune-marker": Step(_constant("prune", "--trust", "marker", "--yes", "-q"), 0, _after_prune),
    "backup": Step(_constant("backup", "-q"), 0, _after_backup),
    "restore": Step(_constant("restore", "--yes", "-q"), 0, _after_restore, _damaged),
    "restore-elsewhere": Step(
        lambda world: ("restore", "latest", "--to", world / "out/target", "-q"),
        0,
        _after_elsewhere,
        _damaged,
    ),
    "forget": Step(
        _constant("forget", "--keep-last", "1", "-q"), 0, _after_forget, _with_snapshots
    ),
    "accept": Step(
        _constant("accept", "1", "--because", "a test", "--missing", "2", "-q"), 0, _after_accept
    ),
    "export": Step(
        lambda world: ("export", "--to", world / "out/x.lp", "--force", "-q"), 0, _after_export
    ),
    "rescue": Step(_constant("rescue", "--yes", "-q"), 0, _after_rescue, served=True),
}
"""The commands that write something: of the user's, or for him, or their own evidence."""


def prepared(step: Step, world: World, run: Run) -> World:
    """Make the world in which a step stands; return it."""
    make_world(world)
    step.prepare(world, run)
    for path in (world / "data/db/.shardtool").glob("proofs"):
        # Receipts name inodes: in a copy of the world none of them holds.
        with contextlib.suppress(OSError):
            shutil.rmtree(path)
    os.sync()
    return world
