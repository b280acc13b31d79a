"""Which snapshot an operator means, and where a store may lie: one clear line, or what he said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from shardtool.datadir.layout import Layout
from shardtool.errors import ShardtoolError
from shardtool.snapshots.address import Address, Place
from shardtool.snapshots.store import (
    Listing,
    Snapshot,
    choose_another,
    find_snapshot,
    refuse_another_nodes,
    refuse_inside,
    refuse_overlap,
    sources_of,
)

STORES: tuple[Place, ...] = (Path("/store"), Address("backups", "node1"))
OLD, MIDDLE, NEW = (Snapshot(f"2026112{day}T080000Z", Path("/store")) for day in (4, 5, 6))
ALL = Listing((OLD, MIDDLE, NEW), (("20261127T080000Z", "a link or a file, not followed"),))


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """Return a node whose directories are there."""
    node = tmp_path / "node"
    for name in ("db/shard_db", "db/shard_db_v2", "db/.shardtool", "raft", "wal"):
        (node / name).mkdir(parents=True)
    return Layout(node / "db", node / "raft", node / "wal", None, str(node))


def refusal(act: Callable[[], object]) -> str:
    with pytest.raises(ShardtoolError) as told:
        act()
    return str(told.value)


# -- the snapshot that is meant --


@pytest.mark.parametrize("wanted", [OLD, MIDDLE, NEW])
def test_an_id_means_that_snapshot(wanted: Snapshot) -> None:
    assert find_snapshot(ALL, STORES[0], wanted.id) is wanted


def test_the_latest_is_the_newest_be_it_good_or_not() -> None:
    bad = replace(NEW, problem="no raft in it")
    assert find_snapshot(Listing((OLD, MIDDLE, bad)), STORES[0], "latest") is bad


@pytest.mark.parametrize("store", STORES)
def test_where_there_is_none_at_all_one_is_to_be_made(store: Place) -> None:
    told = refusal(lambda: find_snapshot(Listing((), ALL.others), store, "latest"))
    assert told == f"{store}: expected a snapshot, found none; make one with backup"


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("wanted", ["20261127T080000Z", "2026112", OLD.id.lower(), "", "newest"])
def test_a_name_that_no_snapshot_has_means_none(wanted: str, store: Place) -> None:
    told = refusal(lambda: find_snapshot(ALL, store, wanted))
    words = f"expected a snapshot {wanted!r}, found none of that name; see shardtool snapshots"
    assert told == f"{store}: {words}"


@pytest.mark.parametrize("store", STORES)
def test_another_nodes_newest_is_not_taken_for_this_nodes(store: Place) -> None:
    mine = [replace(one, origin="a:/raft") for one in (OLD, MIDDLE)]
    theirs = replace(NEW, origin="b:/raft")
    listing = Listing((*mine, theirs))
    assert refusal(lambda: refuse_another_nodes(listing, theirs, "a:/raft", store)) == (
        f"{store}: expected the latest snapshot to be of this node, found {NEW.id}, which is of "
        f"b:/raft; the newest of this node is {MIDDLE.id}: name the ID"
    )


@pytest.mark.parametrize(
    ("origins", "own"),
    [
        (("b:/raft", "a:/raft"), "a:/raft"),
        (("a:/raft", ""), "a:/raft"),
        (("b:/raft", "b:/raft"), "a:/raft"),
    ],
    ids=["its own", "one that can't be read", "a node that has none there"],
)
def test_the_newest_is_taken_where_it_is_ours_or_nobody_can_tell(
    origins: tuple[str, str], own: str
) -> None:
    first, latest = (
        replace(one, origin=origin) for one, origin in zip((OLD, NEW), origins, strict=True)
    )
    refuse_another_nodes(Listing((first, latest)), latest, own, STORES[0])


def test_instead_of_a_bad_one_the_newest_other_that_looks_good_is_named() -> None:
    listing = Listing((OLD, MIDDLE, replace(NEW, problem="no raft in it")))
    looks_good = "the newest other one that looks good is "
    assert choose_another(listing, NEW.id) == looks_good + MIDDLE.id
    assert choose_another(listing, MIDDLE.id) == looks_good + OLD.id
    assert choose_another(ALL, OLD.id) == looks_good + NEW.id


def test_where_no_other_looks_good_none_is_named() -> None:
    listing = Listing((replace(OLD, problem="no raft in it"), NEW))
    assert choose_another(listing, NEW.id) == "there is no other one that looks good"


# -- where a store may lie --


@pytest.mark.parametrize("below", ["", "/some/store"])
@pytest.mark.parametrize("name", ["raft", "wal", "db/shard_db", "db/shard_db_v2", "db/.shardtool"])
def test_no_store_lies_in_what_it_is_to_hold_or_where_the_server_or_shardtool_look(
    name: str, below: str, layout: Layout
) -> None:
    place = layout.raft.parent / name
    store = Path(f"{place}{below}")
    assert refusal(lambda: refuse_overlap(layout, store)) == (
        f"{store}: expected a snapshot directory of its own, found one inside {place}; "
        "name another one with --to DIR"
    )


@pytest.mark.parametrize("name", ["snapshots", "db", "db/snapshots", "raft2", "db/shard_db_old"])
def test_a_store_beside_them_is_taken(name: str, layout: Layout) -> None:
    refuse_overlap(layout, layout.raft.parent / name)


def test_no_link_hides_what_a_directory_lies_in(layout: Layout, tmp_path: Path) -> None:
    (tmp_path / "into").symlink_to(layout.raft)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    words = "expected a directory of its own, found one inside "
    for path, directory in (
        (tmp_path / "into/store", layout.raft),  # the directory is told as it was named
        (tmp_path / "real/store", tmp_path / "link"),
        (layout.wal / "../raft/store", layout.raft),
    ):
        with pytest.raises(ShardtoolError, match=f"^{path}: {words}{directory}; "):
            refuse_inside(path, (layout.wal, directory), "directory")


def test_what_a_snapshot_is_of_is_where_it_really_lies(layout: Layout, tmp_path: Path) -> None:
    (tmp_path / "raft").symlink_to(layout.raft)
    found = sources_of(replace(layout, raft=tmp_path / "raft", wal=tmp_path / "missing"))
    assert found == {"raft": layout.raft, "wal": tmp_path / "missing"}


@pytest.mark.parametrize(
    ("inner", "outer"),
    [
        ("raft", "wal"),
        ("wal", "raft"),
        ("raft", "db"),
        ("wal", "db"),
        ("db", "raft"),
        ("db", "wal"),
    ],
)
@pytest.mark.parametrize("below", ["", "below/it"])
def test_what_a_snapshot_is_of_lies_in_nothing_else_of_the_node(
    below: str, inner: str, outer: str, layout: Layout, tmp_path: Path
) -> None:
    """A restore would rename the one away with the other; and no link hides that."""
    lies = getattr(layout, outer) / below
    lies.mkdir(parents=True, exist_ok=True)
    (tmp_path / "link").symlink_to(lies)
    node = {"raft": layout.raft, "wal": layout.wal, "db": layout.db, inner: tmp_path / "link"}
    told = refusal(lambda: sources_of(Layout(**node, config=None, name="node")))
    # Of two in the same place either lies in the other.
    names = {(inner, outer), (outer, inner)} if not below else {(inner, outer)}
    assert told in {
        f"{lies}: expected {one} and {other} to lie apart, found {one} in {other}; "
        "correct the paths in config.toml"
        for one, other in names
    }


def test_names_that_begin_alike_lie_apart(layout: Layout) -> None:
    found = sources_of(replace(layout, wal=Path(f"{layout.raft}-wal")))
    assert found["wal"] == Path(f"{layout.raft}-wal")
