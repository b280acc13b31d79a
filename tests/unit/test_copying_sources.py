"""Raft, wal and config.toml are copied as they are, in one state, or it is told why not."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from shardtool.disk.durable import READ_DIRECTORY, opened
from shardtool.errors import ShardtoolError
from shardtool.snapshots.copying import Copy, place_of, survey_sources
from shardtool.snapshots.metadata import CONFIG
from tests.conftest import Mount
from tests.needs import needs_root
from tests.real.snapshot_world import make_node
from tests.unit.copying_world import (
    CHANGES,
    FREE_ROOM,
    PIECES,
    Acting,
    World,
    append,
    node_and_bag,
)
from tests.unit.staging_world import rights_of

NOBODY = 65534
AS_WHOM = "run this as the server's user or as root"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return node_and_bag(tmp_path, monkeypatch)


# -- of a stopped server --


def test_every_byte_is_copied_in_one_pass_and_nothing_waited_for(world: World) -> None:
    counter = Acting()
    job = world.copy(counter)
    assert not job.live
    assert (counter.pieces, counter.done) == (PIECES, world.size)
    assert world.pauses == [0.0]


def test_the_copy_is_its_owners_alone_whatever_the_modes_were(world: World) -> None:
    (world.node / "raft").chmod(0o777)
    (world.node / "raft/log").chmod(0o666)
    mask = os.umask(0)
    try:
        world.copy()
    finally:
        os.umask(mask)
    found = {stat.S_IMODE(path.stat().st_mode) for path in world.bag.glob("data/**/*")}
    assert found == {0o700, 0o600}
    assert not any(stat.S_IMODE(path.stat().st_mode) & 0o77 for path in world.bag.glob("data/*"))


def test_no_access_time_is_left_behind(world: World) -> None:
    paths = [path for path in world.node.rglob("*") if not path.is_symlink()]
    for path in paths:
        os.utime(path, ns=(1, path.stat().st_mtime_ns))
    with opened(world.bag, READ_DIRECTORY) as target:
        Copy(world.sources, world.bag, live=True, free_room="").run(target, Acting())
    assert {path.stat().st_atime_ns for path in paths} == {1}


def test_what_has_no_content_is_left_out_and_known(world: World) -> None:
    os.mkfifo(world.node / "wal/pipe")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(world.node / "raft/socket"))
    job = world.copy()
    assert job.left_out == (("raft/socket", "socket"), ("wal/pipe", "fifo"))


def test_without_a_config_there_are_raft_and_wal(world: World) -> None:
    (world.node / CONFIG).unlink()
    sources = {name: world.node / name for name in ("raft", "wal")}
    with opened(world.bag, READ_DIRECTORY) as target:
        Copy(sources, world.bag, live=False, free_room="").run(target, Acting())
    assert sorted(os.listdir(world.bag / "data")) == ["raft", "wal"]


def test_what_the_bag_has_and_the_node_has_not_goes(world: World) -> None:
    data = world.bag / "data"
    (data / "more/and/more").mkdir(parents=True)
    (data / "more/and/more/file").touch()
    (data / "raft").write_bytes(b"no directory")
    (data / CONFIG).mkdir()
    (data / "wal").symlink_to(world.node)
    world.copy()
    assert (world.node / "wal/log.1").is_file()


@pytest.mark.parametrize(("change", "found"), CHANGES.values(), ids=CHANGES)
def test_what_changes_while_it_is_copied_is_told(
    change: Callable[[Path], object], found: str, world: World
) -> None:
    line = world.refusal(Acting({1: lambda: change(world.node)}))
    assert line == (
        f"{world.node}/raft: expected nobody to write, found that {world.node}/{found} changed "
        "while it was copied; stop what writes there, or take a --live snapshot"
    )
    assert world.pauses == [0.0]


def test_of_a_file_that_grows_no_more_is_read_than_it_had(world: World) -> None:
    size = world.size
    path = world.node / "wal/log.1"
    counter = Acting(dict.fromkeys(range(1, 20), lambda: append(path, bytes(1 << 20))))
    assert "wal/log.1 changed while it was copied" in world.refusal(counter)
    assert counter.done == size


def test_a_file_that_was_out_of_reach_for_a_moment_is_not_taken_for_copied(world: World) -> None:
    """All is as it was when that is looked for, and yet the copy lacks it."""
    apart = world.with_wal_on_a_disk_of_its_own()
    line = apart.refusal(Acting({1: apart.take_away, 4: apart.bring_back}))
    assert f"found that {apart.sources['wal']}/empty changed while it was copied; stop" in line


# -- what can't be copied --


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def link_to(target: Path) -> Callable[[Path], None]:
    def act(path: Path) -> None:
        path.rename(path.with_name("moved"))
        path.symlink_to(target)

    return act


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize(
    ("name", "act", "told", "reason"),
    [
        ("wal/log.1", pipe, "wal/log.1", "no regular file"),
        (CONFIG, pipe, CONFIG, "no regular file"),
        (
            "wal/log.1",
            link_to(Path("/etc/passwd")),
            "wal/log.1",
            "Too many levels of symbolic links",
        ),
        (CONFIG, link_to(Path("/etc/passwd")), CONFIG, "Too many levels of symbolic links"),
        ("raft/snapshot", link_to(Path("moved")), "raft/snapshot/1", "Not a directory"),
    ],
)
def test_what_takes_a_files_place_is_neither_followed_nor_waited_for(
    name: str, act: Callable[[Path], object], told: str, reason: str, live: bool, world: World
) -> None:
    line = world.refusal(Acting({1: lambda: act(world.node / name)}), live=live)
    assert line == f"{world.node}/{told}: expected to read it, found: {reason}; {AS_WHOM}"
    assert not (world.bag / "data" / told).exists()


@needs_root
def test_a_full_disk_is_told_with_the_file_that_did_not_fit(world: World, mount: Mount) -> None:
    mount(world.bag, size="1m")
    (world.bag / "data").mkdir()
    assert world.refusal() == (
        f"{world.node}/wal/log.1: expected to copy it to {world.bag.parent}, found: "
        f"No space left on device; {FREE_ROOM}"
    )


@needs_root
@pytest.mark.parametrize(("name", "mode"), [("raft/snapshot", 0), ("wal", 0), ("raft/log", 0)])
def test_what_may_not_be_read_is_told(name: str, mode: int, public_path: Path) -> None:
    node = make_node(public_path / "node")
    (public_path / "bag/data").mkdir(parents=True)
    for path in (node, *node.rglob("*"), *public_path.glob("bag/**")):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    (node / name).chmod(mode)
    with rights_of(NOBODY, NOBODY):
        line = World(node, public_path / "bag").refusal()
    assert line == f"{node}/{name}: expected to read it, found: Permission denied; {AS_WHOM}"


# -- what is in the sources --


def test_raft_wal_and_config_are_listed_as_they_are_in_the_snapshot(world: World) -> None:
    entries = survey_sources(world.sources)
    assert [(entry.path, entry.kind) for entry in entries] == [
        ("raft", "directory"),
        ("raft/log", "file"),
        ("raft/name", "file"),
        ("raft/snapshot", "directory"),
        ("raft/snapshot/1", "file"),
        ("wal", "directory"),
        ("wal/current", "link"),
        ("wal/empty", "file"),
        ("wal/log.1", "file"),
        (CONFIG, "file"),
    ]


@pytest.mark.parametrize("name", ["raft", "wal", CONFIG])
def test_a_source_that_is_not_there_is_told(name: str, world: World) -> None:
    (world.node / name).rename(world.node / "moved")
    with pytest.raises(ShardtoolError) as told:
        survey_sources(world.sources)
    assert str(told.value) == (
        f"{world.node}/{name}: expected to read it, found: No such file or directory; {AS_WHOM}"
    )


def test_a_link_that_takes_the_configs_place_is_listed_and_not_followed(world: World) -> None:
    link_to(Path("moved"))(world.node / CONFIG)
    config = survey_sources(world.sources)[-1]
    assert (config.path, config.kind) == (CONFIG, "link")


BAD_NAMES = {
    "a\nb": "a line break in its name",
    "a%b": "a % in its name",
    "a ": "white space at the end of its name",
    os.fsdecode(b"a\xff"): "bytes that are no UTF-8 in its name",
}


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, lambda path: path.symlink_to("x")])
@pytest.mark.parametrize("name", BAD_NAMES, ids=["break", "percent", "blank", "bytes"])
def test_a_name_that_no_manifest_carries_is_refused_before_anything_is_copied(
    name: str, make: Callable[[Path], object], world: World
) -> None:
    path = world.node / "wal" / name
    make(path)
    assert world.refusal() == (
        f"{path}: expected a name that a manifest can carry, found {BAD_NAMES[name]}; the server "
        "writes no such name: move it away"
    )
    assert os.listdir(world.bag / "data") == []


def test_two_names_that_are_one_to_a_reader_are_refused(world: World) -> None:
    for name in ("e\u0301", "\xe9"):
        (world.node / "raft" / name).touch()
    words = "found a name that differs from another only in Unicode normalization; "
    assert words in world.refusal()


def test_the_name_of_what_is_left_out_may_be_any(world: World) -> None:
    os.mkfifo(world.node / "wal/100%")
    assert world.copy().left_out == (("wal/100%", "fifo"),)


@pytest.mark.parametrize(
    ("path", "place"),
    [("raft", "/r"), ("raft/log", "/r/log"), ("wal/a/b", "/w/x/a/b"), (CONFIG, "/etc/influx.toml")],
)
def test_a_place_on_the_node_is_found_by_its_path_in_the_snapshot(path: str, place: str) -> None:
    sources = {"raft": Path("/r"), "wal": Path("/w/x"), CONFIG: Path("/etc/influx.toml")}
    assert place_of(path, sources) == Path(place)
