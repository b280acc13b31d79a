"""Finding a node's directories from what the operator said."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pyfakefs.fake_filesystem import FakeFilesystem

from fixtures import Node
from shardtool.datadir import layout as layout_module
from shardtool.datadir.layout import find_layout
from shardtool.errors import ShardtoolError, UsageError

CONFIG = """
[storage]
dir = "{db}"
[raft]
dir = "{raft}"
[wal]
dir = "{wal}"
"""


def write_config(path: Path, **directories: Path | str) -> Path:
    """Write a config.toml that names directories, which are made too."""
    named = {name: directories.get(name, path.parent / name) for name in ("db", "raft", "wal")}
    for directory in named.values():
        if isinstance(directory, Path):
            directory.mkdir(parents=True, exist_ok=True)
    path.write_text(CONFIG.format(**named))
    return path


def test_a_data_directory_is_found_by_its_name(tmp_path: Path) -> None:
    node = Node(tmp_path / "data")
    found = find_layout(str(node.path), None, {})
    assert (found.db, found.raft, found.wal) == (node.db, node.raft, node.wal)
    assert (found.old_shards, found.new_shards) == (node.shard_db, node.shard_db_v2)
    assert found.own == node.db / ".shardtool"


def test_its_own_config_is_found_in_it(tmp_path: Path) -> None:
    node = Node(tmp_path / "data")
    assert find_layout(str(node.path), None, {}).config == node.config


@pytest.mark.parametrize("directory", ["db", "raft", "wal"])
def test_one_of_the_three_directories_is_enough(directory: str, tmp_path: Path) -> None:
    (tmp_path / directory).mkdir()
    assert find_layout(str(tmp_path), None, {}).anchor == tmp_path / directory


def test_a_relative_name_means_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data/db").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    found = find_layout("data", None, {})
    monkeypatch.chdir("/")
    assert found.db == tmp_path / "data/db"


def test_the_environment_names_the_directory_where_no_option_does(tmp_path: Path) -> None:
    (tmp_path / "db").mkdir()
    assert find_layout(None, None, {"SHARDTOOL_DATA": str(tmp_path)}).db == tmp_path / "db"


def test_an_option_is_stronger_than_the_environment(tmp_path: Path) -> None:
    (tmp_path / "db").mkdir()
    assert find_layout(str(tmp_path), None, {"SHARDTOOL_DATA": "/nowhere"}).db == tmp_path / "db"


def test_a_config_may_name_three_directories_that_lie_apart(tmp_path: Path) -> None:
    places = {name: tmp_path / f"disk-{name}" for name in ("db", "raft", "wal")}
    found = find_layout(None, str(write_config(tmp_path / "config.toml", **places)), {})
    assert {"db": found.db, "raft": found.raft, "wal": found.wal} == places
    assert found.snapshots == tmp_path / "snapshots"


def test_both_options_at_once_are_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give one of them"):
        find_layout(str(tmp_path), str(tmp_path), {})


def test_the_packages_own_place_is_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "shared/data"
    data.mkdir(parents=True)
    places = {name: data / name for name in ("db", "raft", "wal")}
    config = write_config(tmp_path / "shared/config.toml", **places)
    monkeypatch.setattr(layout_module, "PACKAGED_DATA", data)
    found = find_layout(None, None, {})
    assert (found.db, found.config) == (data / "db", config)


def test_where_nothing_is_said_and_nothing_is_there_the_message_tells_what_to_say(
    fs: FakeFilesystem,
) -> None:
    with pytest.raises(ShardtoolError, match=r"--data DIR, --influx-config FILE"):
        find_layout(None, None, {})


def test_some_other_programs_config_beside_the_data_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "data/db").mkdir(parents=True)
    write_config(tmp_path / "config.toml")
    assert find_layout(str(tmp_path / "data"), None, {}).config is None


@pytest.mark.parametrize("spelling", ["{0}", "{0}/", "{0}/../data", "{0}/db/.."])
def test_the_config_beside_is_found_however_the_directory_is_spelled(
    spelling: str, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    write_config(tmp_path / "config.toml", db=data / "db", raft=data / "raft", wal=data / "wal")
    found = find_layout(spelling.format(data), None, {})
    assert found.config is not None
    assert found.config.samefile(tmp_path / "config.toml")


def test_the_config_beside_is_found_through_a_link_to_the_directory(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_config(tmp_path / "config.toml", db=data / "db", raft=data / "raft", wal=data / "wal")
    (tmp_path / "link").symlink_to(data)
    assert find_layout(str(tmp_path / "link"), None, {}).config is not None


@pytest.mark.parametrize("name", ["nowhere", "file", "empty"])
def test_what_is_no_data_directory_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ShardtoolError, match=r"expected a directory with db/, raft/ and wal/") as e:
        find_layout(str(tmp_path / name), None, {})
    assert str(tmp_path / name) in str(e.value)


@pytest.mark.parametrize("entry", ["db", "db/shard_db", "db/shard_db_v2"])
def test_a_file_in_a_directorys_place_is_refused(entry: str, tmp_path: Path) -> None:
    (tmp_path / "raft").mkdir()
    (tmp_path / entry).parent.mkdir(exist_ok=True)
    (tmp_path / entry).touch()
    with pytest.raises(ShardtoolError, match=r"found something that is none"):
        find_layout(str(tmp_path), None, {})


@pytest.mark.parametrize("entry", ["db", "db/shard_db", "db/shard_db_v2"])
def test_a_link_that_leads_nowhere_is_refused(entry: str, tmp_path: Path) -> None:
    (tmp_path / "raft").mkdir()
    (tmp_path / entry).parent.mkdir(exist_ok=True)
    (tmp_path / entry).symlink_to("/mnt/that-is-not-mounted")
    with pytest.raises(ShardtoolError, match=r"found a link that leads nowhere"):
        find_layout(str(tmp_path), None, {})


def test_a_shard_db_that_is_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "disk2/shard_db").mkdir(parents=True)
    (tmp_path / "data/db").mkdir(parents=True)
    (tmp_path / "data/db/shard_db").symlink_to(tmp_path / "disk2/shard_db")
    assert find_layout(str(tmp_path / "data"), None, {}).old_shards.is_dir()


def test_a_missing_shard_db_is_fine(tmp_path: Path) -> None:
    (tmp_path / "db").mkdir()
    assert not find_layout(str(tmp_path), None, {}).old_shards.exists()


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"[storage\n", "no TOML"),
        (b"\xff\xfe", "no UTF-8 at offset 0"),
        (b"", r"\[storage\] section"),
        (b"storage = 3", r"\[storage\] section"),
        (b"[storage]\ndir = 3", r"\[storage\] section"),
        (b'[storage]\ndir = ""', r"\[storage\] section"),
        (b'[storage]\ndir = "data/db"', "absolute path"),
        (b'[[storage]]\ndir = "/x"', r"\[storage\] section"),
        (b"a=" + b"[" * 100_000, "no TOML"),
        (b"[api]\nport = " + b"9" * 5000, "no TOML"),
        (b"#" * (1 << 21), "over 1 MiB"),
    ],
)
def test_a_config_that_is_none_is_refused_and_named(
    content: bytes, found: str, tmp_path: Path
) -> None:
    config = tmp_path / "config.toml"
    config.write_bytes(content)
    with pytest.raises(ShardtoolError, match=found) as error:
        find_layout(None, str(config), {})
    assert str(error.value).startswith(str(config))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["nowhere.toml", "directory.toml"])
def test_a_config_that_cannot_be_read_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "directory.toml").mkdir()
    with pytest.raises(ShardtoolError, match=r"check --influx-config"):
        find_layout(None, str(tmp_path / name), {})


def test_a_config_whose_directories_are_on_another_machine_is_refused(tmp_path: Path) -> None:
    config = write_config(tmp_path / "config.toml", db="/no/db", raft="/no/raft", wal="/no/wal")
    with pytest.raises(ShardtoolError, match=r"found none of /no/db, /no/raft, /no/wal"):
        find_layout(None, str(config), {})


def test_a_directory_with_a_nul_in_its_name_is_refused(tmp_path: Path) -> None:
    config = write_config(tmp_path / "config.toml", db="/tmp/a\\u0000b")
    with pytest.raises(ShardtoolError):
        find_layout(None, str(config), {})


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_directory_without_rights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "db").mkdir()
    tmp_path.chmod(0o000)
    with pytest.raises(ShardtoolError, match="Permission denied"):
        find_layout(str(tmp_path), None, {})


def test_a_directory_that_may_be_listed_but_not_entered_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mode 0444, which root can't try."""
    (tmp_path / "db").mkdir()

    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_dir", refuse)
    with pytest.raises(ShardtoolError, match="Permission denied"):
        find_layout(str(tmp_path), None, {})
