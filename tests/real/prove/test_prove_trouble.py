"""Many shards, readers that die, files that change while they are read."""

from __future__ import annotations

import faulthandler
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fixtures import Node
from shardtool.influxdb.catalogue import Catalogue
from shardtool.influxdb.engines import EngineError
from shardtool.proof import run
from shardtool.proof.prove import Asker, Finding, Question, Watcher, prove
from shardtool.proof.run import Job, Outcome, Setting, prove_all
from shardtool.proof.storage import LocalShard, NewStorage
from tests.needs import needs_plyvel
from tests.real.prove.world import NOW, START, Quiet, question, rows, setting


def outcomes(node: Node, *numbers: int) -> dict[str, Outcome]:
    """Prove shards as the commands do, a process each."""
    jobs = [Job(question(node, number), number) for number in numbers or node.old]
    return {outcome.shard: outcome for outcome in prove_all(jobs, setting(node), Quiet())}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
@pytest.mark.usefixtures("no_orphans")
def test_a_reader_that_dies_makes_one_shard_unreadable(
    number: signal.Signals, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    for shard in (1, 2, 3):
        node.old_shard(shard, rows=rows(5), start=START)
        node.migrate(shard)

    def deadly(asked: Question, *others: Any) -> Finding:
        if asked.shard.name == "00002":
            faulthandler.disable()  # pytest's would fill the screen
            os.kill(os.getpid(), number)
        return prove(asked, *others)

    monkeypatch.setattr(run, "prove", deadly)
    found = outcomes(node)
    assert {name: outcome.word for name, outcome in found.items()} == {
        "00001": "",
        "00002": "engine-unreadable",
        "00003": "",
    }
    assert number.name in found["00002"].detail
    assert str(node.shard_db / "00002") in found["00002"].detail


@pytest.mark.usefixtures("no_orphans")
def test_one_bad_shard_hides_no_other(node: Node) -> None:
    for shard in (1, 2, 3, 4):
        node.old_shard(shard, rows=rows(5), start=START)
        node.migrate(shard)
    (node.shard_db / "00002/CURRENT").write_bytes(b"garbage")
    shutil.rmtree(node.shard_db / "00003")
    jobs = [Job(Question(node.shard_db / f"{n:05d}", 1, NOW, ""), n) for n in (1, 2, 3, 4)]
    found = {outcome.shard: outcome for outcome in prove_all(jobs, setting(node), Quiet())}
    words = {name: outcome.word for name, outcome in found.items()}
    assert words == {
        "00001": "",
        "00002": "engine-unreadable",
        "00003": "engine-unreadable",
        "00004": "",
    }
    assert "No such file" in found["00003"].detail


@pytest.mark.parametrize("side", ["old", "new"])
def test_an_unreadable_shard_on_either_side_is_named(side: str, node: Node) -> None:
    node.old_shard(7, rows=rows(5), start=START)
    node.migrate(7)
    (new,) = node.new.values()
    damaged = node.old[7].path if side == "old" else new.path
    (damaged / "CURRENT").unlink()
    found = outcomes(node)["00007"]
    assert (found.finding, found.word) == (None, "engine-unreadable")
    assert str(damaged) in found.detail


def test_an_old_shard_that_changes_while_it_is_read_gives_no_finding(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.old_shard(7, rows=rows(5), start=START)
    node.migrate(7)

    def meanwhile(asked: Question, *others: Any) -> Finding:
        found = prove(asked, *others)
        with (asked.shard / "000003.log").open("ab") as file:
            file.write(b"\0")
        return found

    monkeypatch.setattr(run, "prove", meanwhile)
    found = outcomes(node)["00007"]
    assert (found.finding, found.word) == (None, "changing")


def test_an_old_shard_that_changes_once_is_read_again(
    node: Node, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    node.old_shard(7, rows=rows(5), start=START)
    node.migrate(7)
    once = tmp_path / "once"

    def meanwhile(asked: Question, *others: Any) -> Finding:
        found = prove(asked, *others)
        if not once.exists():
            once.touch()
            node.write_old(7, rows(3, first=50))
        return found

    monkeypatch.setattr(run, "prove", meanwhile)
    found = outcomes(node)["00007"].finding
    assert found is not None
    assert (found.values, found.missing) == (8, 3)


def test_a_table_that_vanishes_from_a_new_shard_is_read_again_by_its_new_name(
    node: Node, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    node.old_shard(7, rows=rows(5), start=START)
    node.migrate(7)
    (new,) = node.new.values()
    once = tmp_path / "once"

    def meanwhile(
        asked: Question,
        catalogue: Catalogue,
        new_storage: NewStorage,
        scratch: Path,
        watcher: Watcher,
        asker: Asker | None = None,
    ) -> Finding:
        if not once.exists():
            once.touch()
            new_storage.cursor(new.path.name)
            (new.path / "000003.log").rename(new.path / "x")
            (new.path / "x").rename(new.path / "000003.log")
            raise EngineError("a file that vanished")
        return prove(asked, catalogue, new_storage, scratch, watcher, asker)

    monkeypatch.setattr(run, "prove", meanwhile)
    found = outcomes(node)["00007"].finding
    assert found is not None
    assert found.missing == 0


def test_an_lmdb_that_a_server_has_open_is_in_use(node: Node) -> None:
    node.old_shard(7, rows=rows(5), start=START)
    node.migrate(7, engine="lmdb")
    of = setting(node)
    local = {
        name: LocalShard(shard.path, shard.engine, in_use=True) for name, shard in of.local.items()
    }
    (found,) = prove_all([Job(question(node, 7), 1)], Setting(of.catalogue, local), Quiet())
    assert (found.finding, found.word) == (None, "in-use")


_WRITER = """
import os, struct, sys
import plyvel
database = plyvel.DB(sys.argv[1], write_buffer_size=1 << 16)
column = int(sys.argv[2])
print("ready", flush=True)
number = 0
while True:
    with database.write_batch() as batch:
        for _ in range(200):
            number += 1
            batch.put(struct.pack(">QQQ", column, 1 << 63 | number, 1), os.urandom(40))
    if number % 2000 == 0:
        database.compact_range()
"""


@needs_plyvel
@pytest.mark.usefixtures("no_orphans")
def test_a_server_that_writes_and_compacts_never_makes_a_value_seem_found(node: Node) -> None:
    node.old_shard(7, rows=rows(4000), start=START)
    node.migrate(7, lose=5, storage="tables")
    (new,) = node.new.values()
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(new.path), "77"], stdout=subprocess.PIPE
    )
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        for _ in range(6):
            found = outcomes(node)["00007"]
            if found.finding is None:
                assert found.word in ("changing", "in-use"), found
            else:
                assert (found.finding.values, found.finding.missing) == (4000, 5)
    finally:
        writer.kill()
        writer.communicate()
    found = outcomes(node)["00007"]
    assert found.finding is not None
    assert found.finding.missing == 5


@pytest.mark.usefixtures("no_orphans")
def test_a_run_that_is_left_early_leaves_no_process(node: Node) -> None:
    for shard in (1, 2, 3):
        node.old_shard(shard, rows=rows(5), start=START)
    jobs = [Job(question(node, shard), shard) for shard in (1, 2, 3)]
    going = prove_all(jobs, setting(node), Quiet())
    next(going)
    going.close()


def test_proving_changes_nothing_of_either_side(node: Node, listing: object) -> None:
    node.old_shard(7, points=50)
    node.migrate(7)
    assert callable(listing)
    before = listing(node.path)
    outcomes(node)
    assert listing(node.path) == before
