"""The catalogue of a raft directory, read again whenever it changed, and that of a server."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from fixtures import Node, Row
from fixtures.raft import add_shard_space, append, create_db, drop_db
from fixtures.server import serve
from shardtool.datadir.layout import Layout, find_layout
from shardtool.errors import ShardtoolError
from shardtool.influxdb.api import Api
from shardtool.influxdb.model import Catalogue, Dropped
from shardtool.proof import source
from shardtool.proof.source import RaftCatalogue, catalogue_of
from tests.unit.catalogue.world import SHORT, Raft

T0 = 1_400_000_000_000_000

# -- the directory, read again --


@pytest.fixture
def raft(tmp_path: Path) -> Raft:
    commands = [create_db("test"), add_shard_space("test", SHORT), create_db("other")]
    return Raft(tmp_path / "raft", commands)


def databases(found: RaftCatalogue) -> set[str]:
    now = found.now()
    assert now is not None
    return set(now[0].databases)


def test_a_log_that_grows_is_read_again(raft: Raft) -> None:
    found = RaftCatalogue(raft.path)
    assert databases(found) == {"test", "other"}
    append(raft.path / "log", drop_db("test"))
    assert databases(found) == {"other"}
    append(raft.path / "log", create_db("third"))
    assert databases(found) == {"other", "third"}


def test_a_snapshot_that_appears_or_goes_is_seen(raft: Raft, tmp_path: Path) -> None:
    later = Raft(tmp_path / "later", [create_db(f"db{number}") for number in range(8)])
    found = RaftCatalogue(raft.path)
    assert databases(found) == {"test", "other"}
    taken = shutil.copy(later.snapshot(9), raft.path / "snapshot")
    assert databases(found) == {f"db{number}" for number in range(8)}
    Path(taken).unlink()
    assert databases(found) == {"test", "other"}


def test_a_snapshot_that_is_written_under_its_name_is_seen(raft: Raft, tmp_path: Path) -> None:
    later = Raft(tmp_path / "later", [create_db(f"db{number}") for number in range(8)])
    content = later.snapshot(9).read_bytes()
    snapshot = raft.path / "snapshot" / "1_9.ss"
    snapshot.write_bytes(b"")
    found = RaftCatalogue(raft.path)
    before = found.now()
    snapshot.write_bytes(content)
    assert databases(found) == {f"db{number}" for number in range(8)}
    assert before is None or "db0" not in before[0].databases


def test_the_name_of_another_server_is_seen(raft: Raft) -> None:
    found = RaftCatalogue(raft.path)
    first = found.now()
    (raft.path / "name").write_bytes(b"somebody")
    second = found.now()
    assert first is not None
    assert second is not None
    assert (first[0].own_server, second[0].own_server) == (1, None)


@pytest.mark.parametrize(
    "harm",
    [
        lambda raft: (raft / "log").write_bytes(b"garbage" * 9),
        lambda raft: (raft / "snapshot/1_5.ss").write_bytes(b"garbage"),
        lambda raft: (raft / "name").unlink() or (raft / "name").mkdir(),
    ],
)
def test_what_became_unreadable_is_known_no_more(
    raft: Raft, harm: Callable[[Path], object]
) -> None:
    found = RaftCatalogue(raft.path)
    assert found.now() is not None
    aside = shutil.copytree(raft.path, raft.path.with_name("aside"))
    harm(raft.path)
    assert (found.now(), found.now()) == (None, None)
    shutil.rmtree(raft.path)
    aside.rename(raft.path)
    assert databases(found) == {"test", "other"}


def test_what_did_not_change_is_not_read_again(raft: Raft, monkeypatch: pytest.MonkeyPatch) -> None:
    found = RaftCatalogue(raft.path)
    first = found.now()
    monkeypatch.delattr(source, "read_catalogue")
    assert found.now() is first
    os.utime(raft.path / "log", ns=(0, 0))
    with pytest.raises(NameError):
        found.now()


# -- a running server --


class Served:
    """A node's data directory, and a server that knows what is asked of it."""

    def __init__(self, node: Node, api: Api) -> None:
        self.layout: Layout = find_layout(str(node.path), None, {})
        self.api = api

    @property
    def catalogue(self) -> Catalogue:
        return catalogue_of(self.layout, self.api)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """Serve a cluster's catalogue from a copy, so that the second server's own may be harmed."""
    with ExitStack() as stack:
        node = Node(tmp_path / "data", version="0.8", servers=2, server_id=2)
        node.write_new([Row("test", series, "n", T0, 1, 1) for series in ("kept", "gone", "last")])
        node.write_new([Row("past", "s", "n", T0, 1, 1)])
        node.drop_series("test", "gone")
        node.drop_database("past")
        shutil.copytree(node.path, tmp_path / "server")
        url = stack.enter_context(serve(tmp_path / "server"))
        yield Served(node, stack.enter_context(Api(url, "root", "root")))


def test_a_server_knows_what_exists_and_the_directory_what_is_gone(served: Served) -> None:
    local, found = catalogue_of(served.layout, None), served.catalogue
    assert found == local
    assert found.own_server == 2
    assert found.dropped == Dropped(frozenset({"past"}), frozenset({("test", "gone")}))
    assert found.heard_of == local.heard_of == {"test", "past"}


def test_a_server_whose_ids_have_gaps_forgets_only_what_the_directory_does(served: Served) -> None:
    assert (served.api.catalogue().forgets, served.catalogue.forgets) == (True, False)


def test_a_server_is_believed_where_the_directory_is_unreadable(served: Served) -> None:
    (served.layout.raft / "log").write_bytes(b"garbage" * 9)
    found = served.catalogue
    assert (set(found.databases), found.own_server) == ({"test"}, 2)
    assert (found.dropped, found.forgets) == (Dropped(), True)


def test_which_server_this_is_has_to_be_written(served: Served) -> None:
    (served.layout.raft / "name").unlink()
    with pytest.raises(ShardtoolError, match="raft/name: expected the name of this node's server"):
        _ = served.catalogue


def test_a_server_of_another_cluster_is_refused(served: Served) -> None:
    (served.layout.raft / "name").write_bytes(b"somebody")
    with pytest.raises(ShardtoolError, match=r"none that is called 'somebody' as .*raft/name is"):
        _ = served.catalogue
