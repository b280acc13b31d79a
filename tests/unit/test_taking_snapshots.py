"""A snapshot that was taken: all that was there, whose it is, in which order, and what is told."""

from __future__ import annotations

import grp
import os
import pwd
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shardtool import __version__
from shardtool.datadir.layout import find_layout
from shardtool.datadir.server import Search, Server
from shardtool.disk.durable import READ_DIRECTORY, opened
from shardtool.snapshots.backup import Backup, Onward, find_sources
from shardtool.snapshots.metadata import CONFIG, Metadata
from shardtool.snapshots.verify import verify
from tests.conftest import Mount
from tests.needs import needs_root
from tests.real.snapshot_world import Uncounted, make_node, state
from tests.unit.staging_world import STAMP, acting, noted, rights_of, stopped_clock, take

NOBODY = 65534
NAMED = {user.pw_uid for user in pwd.getpwall()} | {group.gr_gid for group in grp.getgrall()}
WITHOUT_A_NAME = next(number for number in range(40_000, 60_000) if number not in NAMED)


@pytest.fixture
def node(tmp_path: Path) -> Path:
    return make_node(tmp_path / "node")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    (tmp_path / "store").mkdir(0o755)
    return tmp_path / "store"


@pytest.fixture
def other_disk(tmp_path: Path, mount: Mount) -> Path:
    (tmp_path / "disk").mkdir()
    return mount(tmp_path / "disk")


def metadata_of(made: Backup) -> Metadata:
    assert made.verified.metadata is not None
    return made.verified.metadata


def owners(root: Path) -> set[tuple[int, int]]:
    return {(p.lstat().st_uid, p.lstat().st_gid) for p in (root, *root.rglob("*"))}


# -- what is in it --


def test_it_is_where_it_is_told_to_be_and_verifies_as_what_it_was_told_to_be(
    node: Path, store: Path
) -> None:
    made = take(node, store)
    assert made.path == store / made.verified.id
    assert os.listdir(store) == [made.verified.id]
    with opened(store, READ_DIRECTORY) as directory:
        assert verify(directory, made.verified.id, Uncounted) == made.verified
    assert made.verified.good


def test_every_name_is_in_it_as_it_was(node: Path, store: Path) -> None:
    made = take(node, store)
    kinds = {"file": stat.S_IFREG, "directory": stat.S_IFDIR, "link": stat.S_IFLNK}
    found = {
        entry.path: (
            kinds[entry.kind] | (entry.mode if entry.kind != "link" else 0),
            entry.uid,
            entry.gid,
            entry.mtime_ns,
            made.verified.digests.get(f"data/{entry.path}", entry.target),
        )
        for entry in metadata_of(made).entries
    }
    config = found.pop(CONFIG)
    assert found == state(node)
    assert config[3] == (node / CONFIG).stat().st_mtime_ns
    assert (made.path / "data" / CONFIG).read_bytes() == (node / CONFIG).read_bytes()


def test_it_tells_years_later_what_it_is_of(node: Path, store: Path) -> None:
    for shard in ("shard_db/00001", "shard_db/00002", "shard_db_v2/00003"):
        (node / "db" / shard).mkdir(parents=True)
    search = Search(Server(4711, "influxdb", "has a file open"), 3)
    metadata = metadata_of(take(node, store, live=True, search=search))
    assert metadata.live
    assert metadata.sources == {name: str(node / name) for name in ("raft", "wal", CONFIG)}
    assert metadata.node == {
        "db": str(node / "db"),
        "old_shards": 2,
        "new_shards": 1,
        "server": "pid 4711 (influxdb), which has a file open",
        "unseen_processes": 3,
    }
    assert metadata.made_by == {"host": socket.gethostname(), "shardtool": __version__}


def test_of_a_node_without_shards_or_server_it_tells_none(node: Path, store: Path) -> None:
    (node / "db/shard_db").rmdir()
    metadata = metadata_of(take(node, store))
    assert not metadata.live
    assert metadata.node == {
        "db": str(node / "db"),
        "old_shards": 0,
        "new_shards": 0,
        "server": None,
        "unseen_processes": 0,
    }


@needs_root
def test_owners_that_have_names_here_are_in_it_by_name_too(node: Path, store: Path) -> None:
    os.chown(node / "wal/log.1", WITHOUT_A_NAME, WITHOUT_A_NAME)
    metadata = metadata_of(take(node, store))
    assert {entry.uid for entry in metadata.entries} == {0, WITHOUT_A_NAME}
    assert metadata.users == {0: pwd.getpwuid(0).pw_name}
    assert metadata.groups == {0: grp.getgrgid(0).gr_name}


def test_raft_wal_and_config_may_be_links(node: Path, store: Path, tmp_path: Path) -> None:
    before, config = state(node), (node / CONFIG).read_bytes()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("raft", "wal", CONFIG):
        (node / name).rename(elsewhere / name)
        (node / name).symlink_to(elsewhere / name)
    expected = {name: elsewhere / name for name in ("raft", "wal", CONFIG)}
    assert find_sources(find_layout(str(node), None, {})) == expected
    made = take(node, store)
    assert metadata_of(made).sources == {name: str(path) for name, path in expected.items()}
    assert (made.path / "data" / CONFIG).read_bytes() == config
    assert state(elsewhere) == before


def test_the_store_may_be_a_link(node: Path, store: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(store)
    made = take(node, link)
    assert (made.path.parent, os.listdir(store)) == (link, [made.verified.id])


# -- its name --


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> str:
    return stopped_clock(monkeypatch)


def test_its_name_is_the_time_at_which_it_was_begun(now: str, node: Path, store: Path) -> None:
    assert take(node, store).verified.id == now == STAMP


@pytest.mark.parametrize("is_link", [False, True])
def test_a_name_that_is_taken_stays_what_it_is(
    is_link: bool, now: str, node: Path, store: Path
) -> None:
    """A link that leads nowhere has the name as well: a rename would not go over it."""
    if is_link:
        (store / now).symlink_to("nowhere")
    else:
        (store / now).mkdir()
    assert take(node, store).verified.id == f"{now}-2"
    assert (store / now).is_symlink() == is_link


def test_it_goes_on_only_under_a_name_that_is_free_in_both_places(
    now: str, node: Path, store: Path
) -> None:
    """Whoever is asked whether an id is taken takes it: he is not asked for what can't be used."""
    (store / now).mkdir()
    asked: list[str] = []

    def is_taken(name: str) -> bool:
        asked.append(name)
        return name.endswith("-2")

    made = take(node, store, onward=Onward(is_taken, "go elsewhere"))
    assert made.verified.id == f"{now}-3"
    assert asked == [f"{now}-2", f"{now}-3"]


@needs_root
def test_what_a_kill_left_and_nobody_can_remove_is_told_and_not_written_into(
    now: str, node: Path, store: Path, mount: Mount
) -> None:
    left = store / f".partial-{now}" / "data"
    left.mkdir(parents=True)
    mount(left)
    made = take(node, store)
    assert made.verified.id == f"{now}-2"
    told = f"{store}: what a killed run left could not be removed: .partial-{now}/data: "
    assert [text for text in made.warnings if text.startswith(told)] != []
    assert os.listdir(left) == []


@pytest.mark.parametrize("kind", ["partial", "forgotten"])
def test_what_a_kill_left_is_removed(kind: str, node: Path, store: Path) -> None:
    (store / f".{kind}-20200101T000000Z" / "data/raft").mkdir(parents=True)
    made = take(node, store)
    assert os.listdir(store) == [made.verified.id]


# -- the order --


def test_all_is_on_disk_before_it_is_read_back_and_only_then_has_it_a_name(
    now: str, node: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = noted(monkeypatch)
    take(node, store, steps.meter)
    read = steps.seen.index("verifying")
    assert steps.seen[0] == "copying"
    names = [path.name for path in (store / now).rglob("*")]
    assert sorted(steps.seen[1:read]) == sorted(
        f"sync {name}" for name in (*names, f".partial-{now}")
    )
    assert steps.seen[read - 1] == f"sync .partial-{now}"
    assert steps.seen[read:] == ["verifying", f"rename .partial-{now} {now}", "sync store"]


def test_it_counts_what_it_copies_and_what_it_reads(node: Path, store: Path) -> None:
    totals: dict[str, int] = {}

    def meter(doing: str, total: int) -> Uncounted:
        totals[doing] = total
        return Uncounted(doing, total)

    metadata = metadata_of(take(node, store, meter))
    files = [path for path in node.rglob("*") if path.is_file() and not path.is_symlink()]
    whole = sum(path.stat().st_size for path in files)
    assert totals == {"copying": whole, "verifying": whole}
    assert metadata.payload_bytes == whole


@pytest.mark.parametrize("doing", ["copying", "verifying"])
def test_nobody_else_can_look_into_it_while_it_is_taken(
    doing: str, now: str, node: Path, store: Path
) -> None:
    umask = os.umask(0)
    seen: list[int] = []
    try:
        take(
            node,
            store,
            acting(
                doing,
                lambda: seen.extend(
                    stat.S_IMODE(path.stat().st_mode)
                    for path in (store / f".partial-{now}", *store.glob(".partial-*/**/*"))
                ),
            ),
        )
    finally:
        os.umask(umask)
    assert seen != []
    assert {mode & 0o077 for mode in seen} == {0}


# -- whose it is --


@needs_root
@pytest.mark.parametrize(
    ("store_owner", "expected"), [(12345, (12345, 4712)), (0, (0, 0)), (NOBODY, (0, 0))]
)
def test_the_servers_user_gets_it_in_a_store_of_its_own_alone(
    store_owner: int, expected: tuple[int, int], node: Path, store: Path
) -> None:
    os.chown(node / "raft", 12345, 4712)
    os.chown(store, store_owner, 0)
    assert owners(take(node, store).path) == {expected}


@needs_root
def test_whose_it_is_is_on_disk_before_it_has_its_name(
    node: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.chown(node / "raft", 12345, 12345)
    os.chown(store, 12345, 12345)
    seen: list[str] = []

    def noting(name: str) -> Callable[..., None]:
        call = getattr(os, name)

        def noted(*words: object, **more: object) -> None:
            seen.append(name)
            call(*words, **more)

        return noted

    for name in ("chown", "fchown", "fsync"):
        monkeypatch.setattr(os, name, noting(name))
    made = take(node, store)
    assert {"chown", "fchown"} < set(seen)
    assert "fsync" not in seen[: max(i for i, name in enumerate(seen) if "chown" in name)]
    assert owners(made.path) == {(12345, 12345)}


@needs_root
def test_the_servers_user_gets_the_top_last(
    node: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then it can't reach what is inside, and can't put a link where root gives away."""
    os.chown(node / "raft", 12345, 12345)
    os.chown(store, 12345, 12345)
    tops: list[int] = []
    below: list[str] = []
    chown = os.chown

    def changed(path: str, uid: int, gid: int, *, dir_fd: int, follow_symlinks: bool) -> None:
        tops.append(os.fstat(dir_fd).st_uid)
        below.append(path)
        chown(path, uid, gid, dir_fd=dir_fd, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(os, "chown", changed)
    made = take(node, store)
    assert set(tops) == {0}
    places = {path: place for place, path in enumerate(below)}
    assert all(places[str(Path(p).parent)] > places[p] for p in below if "/" in p)
    assert owners(made.path) == {(12345, 12345)}


@needs_root
def test_who_is_not_root_keeps_what_he_took(public_path: Path) -> None:
    """He may not give it to the group of raft, where that is none of his."""
    node, store = make_node(public_path / "node"), public_path / "store"
    store.mkdir()
    for path in (store, node, *node.rglob("*")):
        os.chown(path, NOBODY, 4711, follow_symlinks=False)
    with rights_of(NOBODY, 4712):
        made = take(node, store)
    assert owners(made.path) == {(NOBODY, 4712)}


# -- what is told --


@pytest.fixture
def apart(node: Path, other_disk: Path) -> Iterator[Path]:
    """A store on another disk than the node's: of it there is nothing to warn of."""
    assert take(node, other_disk).warnings == ()
    yield other_disk


def test_a_store_on_the_same_disk_is_told(node: Path, store: Path) -> None:
    (warning,) = take(node, store).warnings
    assert warning.startswith(f"{store} is on the same file system as {node / 'raft'}: ")
    assert "use --to DIR" in warning


def test_where_it_only_passes_through_the_same_disk_is_nothing_to_tell(
    node: Path, store: Path
) -> None:
    made = take(node, store, onward=Onward(lambda name: False, "go elsewhere"))
    assert made.warnings == ()


@needs_root
def test_a_node_without_a_config_is_told(node: Path, apart: Path) -> None:
    (node / CONFIG).unlink()
    made = take(node, apart)
    assert made.warnings == (
        "no config.toml was found, so none is in the snapshot; --influx-config names it",
    )
    assert not (made.path / "data" / CONFIG).exists()


@needs_root
def test_what_has_no_content_is_told_and_left_out(node: Path, apart: Path) -> None:
    os.mkfifo(node / "wal/fifo")
    with socket.socket(socket.AF_UNIX) as listener, pytest.MonkeyPatch.context() as patch:
        patch.chdir(node / "raft")  # a socket's path may not be long
        listener.bind("sock")
    made = take(node, apart)
    assert made.warnings == (
        f"{node}/raft/sock is a socket: it has no content and was not copied",
        f"{node}/wal/fifo is a fifo: it has no content and was not copied",
    )
    assert metadata_of(made).left_out == (("raft/sock", "socket"), ("wal/fifo", "fifo"))


@needs_root
@pytest.mark.parametrize("top", ["raft", "wal"])
def test_what_is_mounted_inside_is_copied_and_told(
    top: str, node: Path, apart: Path, mount: Mount
) -> None:
    (node / top / "mounted").mkdir()
    mounted = mount(node / top / "mounted")
    (mounted / "file").write_bytes(b"content")
    made = take(node, apart)
    assert made.warnings == (
        f"{mounted} is a mount point: what is in it was copied as plain files",
    )
    assert (made.path / "data" / top / "mounted/file").read_bytes() == b"content"


@needs_root
def test_a_disk_of_rafts_own_is_nothing_to_tell(node: Path, apart: Path, mount: Mount) -> None:
    mount(node / "raft")
    assert take(node, apart).warnings == ()


@needs_root
def test_a_server_that_could_not_be_ruled_out_is_told(node: Path, apart: Path) -> None:
    search = Search(unseen=3)
    assert take(node, apart, search=search).warnings == (search.doubt,)
