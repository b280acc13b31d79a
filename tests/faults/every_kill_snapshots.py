"""The worlds of snapshots, for kills and power cuts: backup, restore, forget."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path

from tests.conftest import Run
from tests.faults.every_kill import Words, World, contents, records
from tests.real.snapshot_world import state


def small_node(root: Path) -> Path:
    """Make a node of some small files with modes and times of their own; return it."""
    for directory in ("db/shard_db", "raft/snapshot", "wal"):
        (root / directory).mkdir(parents=True)
    files = {"raft/log": b"a raft log\n", "raft/name": b"0123", "raft/snapshot/1": b"s" * 100}
    files |= {"wal/log.1": bytes(range(256)) * 20, "wal/empty": b""}
    for name, content in files.items():
        (root / name).write_bytes(content)
    (root / "raft/log").chmod(0o600)
    (root / "wal/current").symlink_to("log.1")
    (root / "raft/snapshot").chmod(0o2750)
    for number, name in enumerate([*files, "raft/snapshot", "raft", "wal"]):
        os.utime(root / name, ns=(1, 1_400_000_000_123_456_789 + number))
    return root


def payload(snapshot: Path) -> dict[str, str]:
    """Assert that a snapshot is complete, as its manifests have it; return its payload."""
    for name in ("manifest-sha256.txt", "tagmanifest-sha256.txt"):
        for line in (snapshot / name).read_text().splitlines():
            digest, _, path = line.partition("  ")
            assert hashlib.sha256((snapshot / path).read_bytes()).hexdigest() == digest, path
    json.loads((snapshot / "shardtool.json").read_text())
    found = contents(snapshot / "data")
    manifest = (snapshot / "manifest-sha256.txt").read_text().splitlines()
    assert len(manifest) == len(found)
    return found


def complete(store: Path) -> dict[str, dict[str, str]]:
    """Assert that each snapshot with a name is complete; return their payloads."""
    if not store.is_dir():
        return {}
    return {p.name: payload(p) for p in sorted(store.iterdir()) if not p.name.startswith(".")}


def leftovers(*directories: Path) -> list[str]:
    """Return the names of what a run that died has left in these directories."""
    words = (".partial-", ".forgotten-", ".restoring-")
    names = [n for place in directories if place.is_dir() for n in os.listdir(place)]
    return [name for name in names if any(word in name for word in words)]


def node_and_snapshots(tmp_path: Path, run: Run, count: int) -> tuple[Path, list[str]]:
    """Make a node in `start/node` with some snapshots; return it and their names."""
    node = small_node(tmp_path / "start/node")
    for _ in range(count):
        assert run("--data", node, "backup", "-q").returncode == 0
    store = node / "snapshots"
    return node, sorted(os.listdir(store)) if count else []


def backed_up(tmp_path: Path, run: Run) -> World:
    """Take a snapshot in a store of its own, which is not there yet."""
    node, _ = node_and_snapshots(tmp_path, run, 0)
    root = tmp_path / "root"
    data, store = root / "node", root / "store"
    before, wanted = state(node), contents(node)
    words = ("--data", data, "backup", "--to", store, "-q")

    def laws() -> None:
        assert state(data) == before
        for found in complete(store).values():
            assert found == wanted

    def rerun(more: Words) -> None:
        done = run(*words)
        assert done.returncode == 0, done.stderr

    def outcome() -> object:
        found = list(complete(store).values())
        return leftovers(store), found[-1], state(data)

    def promised() -> None:
        assert len(complete(store)) == 1, "a snapshot that was told is lost"

    return World(root, tmp_path / "start", words, laws, rerun, outcome, promised=promised)


def spoil(node: Path) -> None:
    """Do to raft and wal what a snapshot is for."""
    (node / "raft/log").write_bytes(b"cut")
    (node / "wal/log.1").unlink()
    (node / "wal/log.2").write_bytes(b"new")


def pending(data: Path) -> bool:
    """Say whether a restore is known to be unfinished."""
    file = data / "db/.shardtool/restore.json"
    return file.exists() and bool(json.loads(file.read_text())["staged"])


def restored(tmp_path: Path, run: Run) -> World:
    """Put a snapshot in the place of a raft and a wal that are spoilt."""
    node, (snapshot,) = node_and_snapshots(tmp_path, run, 1)
    good = state(node)
    whole = {top: contents(node / top) for top in ("raft", "wal")}
    spoil(node)
    spoilt = {top: contents(node / top) for top in ("raft", "wal")}
    root = tmp_path / "root"
    data = root / "node"
    kept = payload(node / "snapshots" / snapshot)
    words = ("--data", data, "restore", "--yes", "-q")

    def laws() -> None:
        assert complete(data / "snapshots") == {snapshot: kept}
        for top, files in spoilt.items():
            places = [data / top, *data.glob(f"{top}.before-restore-*")]
            assert files in [contents(p) for p in places if p.is_dir()], f"{top} of before is lost"
        there = {top: contents(data / top) for top in spoilt}
        # Of two sets, half of each is none: unless it is known that there is more to be done.
        assert there in (spoilt, whole) or pending(data), "raft and wal of two sets"
        records(data)

    def rerun(more: Words) -> None:
        done = run(*words)
        assert done.returncode == 0, done.stderr
        assert not (data / "db/.shardtool/restore.json").exists()

    def outcome() -> object:
        return state(data), leftovers(data)

    def promised() -> None:
        assert state(data) == good, "what was told to be restored is lost"
        assert not (data / "db/.shardtool/restore.json").exists()

    return World(root, tmp_path / "start", words, laws, rerun, outcome, promised=promised)


def restored_elsewhere(tmp_path: Path, run: Run) -> World:
    """Restore a snapshot to a directory that is not there."""
    node, (snapshot,) = node_and_snapshots(tmp_path, run, 1)
    wanted, root = state(node), tmp_path / "root"
    data, target = root / "node", root / "above/target"
    kept = payload(node / "snapshots" / snapshot)
    words = ("--data", data, "restore", "--to", target, "-q")

    def laws() -> None:
        assert complete(data / "snapshots") == {snapshot: kept}
        assert state(data) == wanted
        assert not target.exists() or state(target) == wanted

    def rerun(more: Words) -> None:
        was = target.exists()
        done = run(*words)
        # Where all of it is there, the same command refuses to write over it.
        assert done.returncode == (1 if was else 0), done.stderr

    def outcome() -> object:
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (target, target.parent)}
        return state(target), modes, leftovers(target.parent)

    def promised() -> None:
        assert state(target) == wanted, "what was told to be restored is lost"

    return World(root, tmp_path / "start", words, laws, rerun, outcome, promised=promised)


def forgotten(tmp_path: Path, run: Run) -> World:
    """Forget all snapshots but the newest of three."""
    node, names = node_and_snapshots(tmp_path, run, 3)
    root = tmp_path / "root"
    data = root / "node"
    kept = {name: payload(node / "snapshots" / name) for name in names}
    words = ("--data", data, "forget", "--keep-last", "1", "-q")

    def laws() -> None:
        found = complete(data / "snapshots")
        assert names[-1] in found
        assert found == {name: kept[name] for name in found}
        said = [set(one["snapshots"]) for one in records(data) if one["event"] == "forget-intent"]
        assert set(names) - set(found) <= set().union(*said), "the journal does not know of it"

    def rerun(more: Words) -> None:
        done = run(*words)
        assert done.returncode == 0, done.stderr

    def outcome() -> object:
        return sorted(os.listdir(data / "snapshots")), state(data)

    return World(root, tmp_path / "start", words, laws, rerun, outcome)
