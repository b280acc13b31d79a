"""The commands that change a disk, each with what it works on and the laws it must keep."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from fixtures import Node
from fixtures.server import serve
from shardtool.datadir.layout import find_layout
from shardtool.journal import Journal
from tests.conftest import Run
from tests.e2e.proof_world import (
    document,
    in_trash,
    old_shards,
    prune,
    receipts,
    sound_receipts,
    verify,
)
from tests.faults.every_kill import Words, World, contents, records
from tests.faults.every_kill_snapshots import backed_up, forgotten, restored, restored_elsewhere
from tests.faults.injection import injected

PASSWORD = {"SHARDTOOL_PASSWORD": "root"}
_ACCEPT = ("accept", "1", "--because", "test data", "--missing", "2", "-q")
_ENGINES_OWN = ("LOG", "LOCK")


# -- prune --


ENDS = ("deleted", "finished", "put-back")


class Pruned:
    """What holds of a node at every moment of a prune."""

    def __init__(self, start: Path, data: Path, goes: set[str], new: set[str]) -> None:
        """Take the node as it is before.

        Args:
            start: the node.
            data: where the prune is at work.
            goes: the shards that may go.
            new: the new shards that the proof of these rests on, if they go by proof.
        """
        self.data, self.goes = data, goes
        db = start / "db"
        self.whole = {path.name: contents(path) for path in (db / "shard_db").iterdir()}
        self.new = {name: contents(db / "shard_db_v2" / name) for name in new}
        self.raft = (start / "raft/log").read_bytes()

    def laws(self) -> None:
        """Assert that each shard is whole in its place or in the trash, or went as it may."""
        found = records(self.data)
        intents = {one["trash"] for one in found if one["event"] == "intent"}
        renamed = {one["trash"] for one in found if one["event"] == "renamed"}
        # What was told to be deleted may come back from the trash whole, if the removal was lost.
        ends = {one["shard"]: one["event"] for one in found if one["event"] in ENDS}
        deleted = {shard for shard, end in ends.items() if end != "put-back"}
        place, trash = self.data / "db/shard_db", self.data / "db/.shardtool/trash"
        in_place, bases = set(old_shards(self.data)), set()
        for name in in_place:
            assert contents(place / name) == self.whole[name], f"{name} is in ruins in its place"
        for name in in_trash(self.data):
            base = name.partition(".below.")[0]
            bases.add(base)
            assert base in intents, f"{name} is in the trash, and the journal does not know it"
            if base not in renamed:
                assert contents(trash / name) == self.whole[name[:5]], f"{name} is in ruins"
        gone = set(self.whole) - in_place - {base[:5] for base in bases}
        known = {name[:5] for name in renamed}
        assert gone <= known, f"{gone - known} are gone, and the journal does not know it"
        assert gone <= self.goes
        assert not deleted & in_place
        if self.new:
            ruined = {
                base[:5] for base in bases if contents(trash / base) != self.whole[base[:5]]
            } | gone
            if ruined:
                self._insist_on_the_new()

    def _insist_on_the_new(self) -> None:
        """Assert that what replaces the old shards is there, engines' diaries aside."""
        for name, files in self.new.items():
            there = contents(self.data / "db/shard_db_v2" / name)
            for file, digest in files.items():
                if file not in _ENGINES_OWN:
                    assert there.get(file) == digest, f"{name}/{file} did not last"
        # Under which ids values are found, raft's log tells.
        raft = (self.data / "raft/log").read_bytes()
        assert raft == self.raft, "raft did not last"

    def outcome(self) -> object:
        """Return what is left in the end, and what the journal says went."""
        ended = ("deleted", "finished")
        gone = {one["shard"] for one in records(self.data) if one["event"] in ended}
        place = self.data / "db/shard_db"
        return {s: contents(place / s) for s in old_shards(self.data)}, in_trash(self.data), gone


def marked(tmp_path: Path, run: Run) -> World:
    """Prune a node whose shards 2 and 3 are marked, and 1 is not, by their markers."""
    node = Node(tmp_path / "start", version="0.8")
    for number in (1, 2, 3):
        node.old_shard(number, points=5)
    node.migrate(3)
    node.migrate(2)
    data = tmp_path / "data"
    holds = Pruned(node.path, data, {"00002", "00003"}, set())
    words = ("--data", data, "prune", "--trust", "marker", "--yes", "-q")

    def rerun(more: Words) -> None:
        done = run(*words)
        assert done.returncode == 0, done.stderr
        # A line that a power cut has torn is told of for ever.
        torn = Journal(find_layout(str(data), None, {})).read().damaged
        assert run("--data", data, "status", "-q").returncode == (3 if torn else 0)

    def promised() -> None:
        assert old_shards(data) == ["00001"], "a shard that was told to be gone is back"

    return World(data, node.path, words, holds.laws, rerun, holds.outcome, promised=promised)


def lossy_and_whole(tmp_path: Path) -> Path:
    """Make a node whose shard 1 loses two values and whose shard 2 is proven; no receipt yet."""
    node = Node(tmp_path / "start", version="0.8")
    for number in (1, 2):
        node.old_shard(number, points=5, databases={"test": ("cpu",)})
    node.migrate(2)
    node.migrate(1, lose=2)
    return node.path


def proven(tmp_path: Path, run: Run) -> World:
    """Prune a node by proof: shard 2 goes, shard 1 lacks values in the new storage and stays."""
    start, data = lossy_and_whole(tmp_path), tmp_path / "data"
    shutil.copytree(start, tmp_path / "look", symlinks=True)
    verify(run, tmp_path / "look")
    new = set(sound_receipts(tmp_path / "look")["00002"]["new_states"])
    holds = Pruned(start, data, {"00002"}, new)
    words = ("--data", data, "prune", "--yes", "-q")

    def rerun(more: Words) -> None:
        assert prune(run, data, "--yes")["failed"] == []

    def put_back() -> bool:
        return any(one["event"] == "put-back" for one in records(data))

    laws, outcome = holds.laws, holds.outcome
    return World(data, start, words, laws, rerun, outcome, code=3, put_back=put_back)


def proven_by_what_is_not_synced(tmp_path: Path, run: Run) -> World:
    """Prune by proof, while nothing of what a server wrote has reached the disk for sure."""
    world = proven(tmp_path, run)
    raft = tuple(f"raft/{path.name}" for path in (world.start / "raft").iterdir())

    def rerun(more: Words) -> None:
        # What it finds may be all of the new storage or nothing: then the shard stays.
        assert prune(run, world.root, "--yes")["failed"] == []

    return replace(world, rerun=rerun, outcome=lambda: None, unsynced=("db/shard_db_v2", *raft))


def _killed_before(world: World, call: str, number: int) -> Callable[[], None]:
    """Return what runs the world's command until it is killed at a call, as an earlier run was."""

    def prepare() -> None:
        came, _ = injected(world.words, world.trace, call, number, "signal=KILL")
        assert came

    return prepare


def left_in_trash(tmp_path: Path, run: Run) -> World:
    """Go on with a prune that was killed when it removed: one shard in ruins, one whole."""
    world = marked(tmp_path, run)
    return replace(world, prepare=_killed_before(world, "unlinkat", 3))


def left_whole(tmp_path: Path, run: Run) -> World:
    """Go on with a prune that was killed between its two renames: the journal does not have the
    first of them yet."""
    world = marked(tmp_path, run)
    return replace(world, prepare=_killed_before(world, "renameat", 2))


def put_back(tmp_path: Path, run: Run) -> World:
    """Put back what a prune that was killed had taken out, and what was written to since."""
    world = marked(tmp_path, run)
    data, kill = world.root, _killed_before(world, "renameat", 2)
    written = b"points of a server that still had it open"

    def prepare() -> None:
        kill()
        (name,) = in_trash(data)
        (data / "db/.shardtool/trash" / name / "000009.log").write_bytes(written)

    def laws() -> None:
        records(data)
        places = [data / "db/shard_db/00002", *(data / "db/.shardtool/trash").glob("00002.*")]
        (there,) = [path for path in places if path.exists()]
        assert (there / "000009.log").read_bytes() == written
        assert "00001" in old_shards(data)

    def rerun(more: Words) -> None:
        done = run(*world.words)
        assert done.returncode == 3, done.stderr

    def outcome() -> object:
        place = data / "db/shard_db"
        return {s: contents(place / s) for s in old_shards(data)}, in_trash(data)

    return replace(world, laws=laws, rerun=rerun, outcome=outcome, prepare=prepare, code=3)


# -- verify, accept, rescue --


class Untouched:
    """What holds of a node that nothing is taken from: all but shardtool's own is as it was."""

    def __init__(self, start: Path, data: Path) -> None:
        """Take the node as it is before."""
        self.data, self._whole = data, contents(start)

    def laws(self) -> None:
        """Assert that every file is as it was."""
        now = contents(self.data)
        assert {p: d for p, d in now.items() if not p.startswith("db/.shardtool/")} == self._whole
        records(self.data)


def verified(tmp_path: Path, run: Run) -> World:
    """Verify a node that has no receipts yet."""
    start, data = lossy_and_whole(tmp_path), tmp_path / "data"
    untouched = Untouched(start, data)

    def laws() -> None:
        untouched.laws()
        sound_receipts(data)
        assert not (data / "db/.shardtool/journal").exists()

    def outcome() -> object:
        return {
            name: (one["values"], one["missing"], one["digest"])
            for name, one in sound_receipts(data).items()
        }

    def rerun(more: Words) -> None:
        shards = verify(run, data)
        assert {name: one["missing"] for name, one in shards.items()} == {"00001": 2, "00002": 0}
        # Nor is anything left of a receipt that was begun.
        assert [name for name in receipts(data) if name.startswith(".")] == []

    return World(data, start, ("--data", data, "verify", "-q"), laws, rerun, outcome, code=3)


def verified_again(tmp_path: Path, run: Run) -> World:
    """Verify a node anew whose shards all have receipts: at no moment may one be lost."""
    world = verified(tmp_path, run)
    data = world.root

    before: list[object] = []

    def laws() -> None:
        world.laws()
        # The old one or a whole new one: both say the same.
        assert world.outcome() == before[-1]

    def prepare() -> None:
        verify(run, data)
        assert set(sound_receipts(data)) == {"00001", "00002"}
        before.append(world.outcome())

    def rerun(more: Words) -> None:
        assert all(shard["from_receipt"] for shard in verify(run, data).values())
        verify(run, data, "--again")
        world.rerun(more)

    return replace(
        world,
        words=(*world.words, "--again"),
        laws=laws,
        rerun=rerun,
        prepare=prepare,
    )


def accepted(tmp_path: Path, run: Run) -> World:
    """Accept that shard 1 loses two values."""
    start, data = lossy_and_whole(tmp_path), tmp_path / "data"
    untouched = Untouched(start, data)
    words = ("--data", data, *_ACCEPT)

    def found() -> list[dict[str, Any]]:
        return [one for one in records(data) if one["event"] == "accepted"]

    def laws() -> None:
        untouched.laws()
        sound_receipts(data)
        assert len(found()) <= 1
        assert all((one["shard"], one["missing"]) == ("00001", 2) for one in found())

    def rerun(more: Words) -> None:
        was = bool(found())
        assert bool(prune(run, data, "--dry-run", "1")["delete"]) == was
        assert run(*words).returncode == 0
        assert len(found()) == 1
        planned = prune(run, data, "--dry-run")["delete"]
        assert {one["id"]: one["evidence"] for one in planned} == {
            "00001": "accepted",
            "00002": "proof",
        }

    def promised() -> None:
        assert found(), "an acceptance that was told is lost"

    return World(data, start, words, laws, rerun, lambda: len(found()), promised=promised)


def begun_before(world: World) -> World:
    """Return the world after a run that was killed when it had made its directories and its
    journal, and had synced none of their names."""
    own = world.start / "db/.shardtool"
    (own / "trash").mkdir(parents=True)
    (own / "journal").touch()
    return replace(world, unsynced=("db/.shardtool",))


def accepted_after_a_kill(tmp_path: Path, run: Run) -> World:
    """Accept where an earlier run was killed early."""
    return begun_before(accepted(tmp_path, run))


def marked_after_a_kill(tmp_path: Path, run: Run) -> World:
    """Prune by markers where an earlier run was killed early."""
    return begun_before(marked(tmp_path, run))


def rescued(tmp_path: Path, run: Run) -> World:
    """Rescue the two values of shard 1, with a server on the node."""
    start, data = lossy_and_whole(tmp_path), tmp_path / "data"
    old = contents(start / "db/shard_db")

    @contextmanager
    def session() -> Iterator[Words]:
        with serve(data) as url:
            yield ("--api", url)

    def laws() -> None:
        assert contents(data / "db/shard_db") == old
        sound_receipts(data)
        events = [one["event"] for one in records(data) if one["event"].startswith("rescue")]
        assert events.count("rescue-ended") <= events.count("rescue-started")

    def rerun(more: Words) -> None:
        done = document(run("--data", data, "rescue", "--yes", "--json", *more, env={**PASSWORD}))
        assert done["missing"] == 0

    def outcome() -> object:
        shards = verify(run, data)
        return {name: (one["verdict"], one["values"]) for name, one in shards.items()}

    words = ("--data", data, "rescue", "--yes", "-q")
    return World(data, start, words, laws, rerun, outcome, session=session, env=PASSWORD)


WORLDS = {
    made.__name__: made
    for made in (
        *(marked, proven, proven_by_what_is_not_synced, left_in_trash, left_whole, put_back),
        *(verified, verified_again, accepted, rescued, accepted_after_a_kill, marked_after_a_kill),
        *(backed_up, restored, restored_elsewhere, forgotten),
    )
}
"""All of them by name: made from a directory and a way to run shardtool."""
