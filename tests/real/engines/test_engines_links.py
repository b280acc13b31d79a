"""Links that something else removes are told: no shard is read without some of its files."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from shardtool.errors import ShardtoolError
from shardtool.influxdb import engines
from shardtool.influxdb.engines import EngineError, open_shard
from shardtool.influxdb.model import Catalogue, Dropped
from shardtool.proof.storage import LocalShard, NewStorage
from tests.real.engines.world import KINDS

EMPTY = Catalogue(frozenset(), {}, {}, (), (), None, Dropped())


def told_of_links(shard: Path, engine: str, scratch: Path) -> str:
    with pytest.raises(ShardtoolError) as caught, open_shard(shard, engine, scratch):
        pytest.fail("opened without a link")
    assert not isinstance(caught.value, EngineError)  # that would be the shard's fault
    return str(caught.value)


@pytest.mark.parametrize("kind", KINDS, ids="-".join)
def test_a_link_that_goes_between_the_check_and_the_opening_is_told(
    kind: tuple[str, str],
    sound: dict[tuple[str, str], Path],
    scratch: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shard, check = sound[kind], engines._check
    directory = str(scratch)
    for name in (path.name for path in shard.iterdir()):

        def checked(*args: Any, name: str = name) -> None:
            check(*args)
            (args[2] / name).unlink(missing_ok=True)

        monkeypatch.setattr(engines, "_check", checked)
        if not engines._FILES.fullmatch(name) and name != "data.mdb":
            continue
        said = told_of_links(shard, kind[0], scratch)
        assert said.startswith(directory)
        assert "something else removes files there; set TMPDIR" in said


def test_links_that_are_gone_before_anything_is_looked_at_are_told(
    log: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = engines._check

    def checked(*args: Any) -> None:
        shutil.rmtree(args[2])
        check(*args)

    monkeypatch.setattr(engines, "_check", checked)
    assert ": expected 3 links to a shard's files, found 0: " in told_of_links(
        log, "leveldb", scratch
    )


@pytest.mark.parametrize("is_gone", [False, True])
def test_what_can_not_be_read_is_the_shards_fault_only_while_its_links_are_there(
    is_gone: bool, log: Path, tmp_path: Path
) -> None:
    with pytest.raises(ShardtoolError) as caught, open_shard(log, "leveldb", tmp_path):
        if is_gone:
            for link in tmp_path.glob("*/CURRENT"):
                link.unlink()
        raise EngineError("a table can't be read")
    assert isinstance(caught.value, EngineError) is not is_gone


def test_links_of_a_new_shard_that_have_gone_are_told_by_the_storage_that_holds_it_open(
    log: Path, tmp_path: Path
) -> None:
    storage = NewStorage(EMPTY, {"00001": LocalShard(log, "leveldb")}, tmp_path)
    with pytest.raises(ShardtoolError) as caught, storage:
        storage.cursor("00001")
        for link in tmp_path.glob("*/CURRENT"):
            link.unlink()
        raise EngineError("a table can't be read")
    assert "something else removes files there" in str(caught.value)
    assert list(tmp_path.iterdir()) == []
