"""Find a node's directories: db, raft and wal, which may lie apart, and its config.toml."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from shardtool.datadir.config import read_config
from shardtool.disk.durable import READ_DIRECTORY, opened_quietly
from shardtool.errors import ShardtoolError, UsageError, reason_of

# Where the packages of 0.7 and 0.8 put things (FORMATS.md, "Where things are").
PACKAGED_DATA = Path("/opt/influxdb/shared/data")
OLD_SHARDS = "shard_db"
NEW_SHARDS = "shard_db_v2"
OWN = ".shardtool"


@dataclass(frozen=True)
class Layout:
    """One node's directories on this machine.

    Args:
        db: holds shard_db and shard_db_v2; may be missing.
        raft: the metastore's log and snapshots.
        wal: the write-ahead log.
        config: InfluxDB's own config.toml, where it was found.
        name: what the operator called the directory, for messages and headings.
    """

    db: Path
    raft: Path
    wal: Path
    config: Path | None
    name: str

    @property
    def old_shards(self) -> Path:
        """The directory of the 0.7 shards; it may be a link, which is followed."""
        return self.db / OLD_SHARDS

    @property
    def new_shards(self) -> Path:
        """The directory of the 0.8 shards; it may be a link, which is followed."""
        return self.db / NEW_SHARDS

    @property
    def places(self) -> tuple[Path, ...]:
        """Every directory whose files are the node's; shard_db and shard_db_v2 may be links."""
        return self.db, self.old_shards, self.new_shards, self.raft, self.wal

    def refuse_inside(self, name: str, path: Path) -> None:
        """Refuse to write among InfluxDB's own files.

        Args:
            name: the file as the operator named it, for the message.
            path: where it will lie, links resolved.

        Raises:
            UsageError: it would lie in one of the node's directories.
        """
        for place in self.places:
            if path.is_relative_to(os.path.realpath(place)):
                raise UsageError(
                    f"{name}: it lies in {place}, which is InfluxDB's; write elsewhere"
                )

    @property
    def own(self) -> Path:
        """Where shardtool keeps its journal and trash; 0.8 reads nothing of it."""
        return self.db / OWN

    @property
    def pending_restore(self) -> Path:
        """The file that stands while a restore swaps raft and wal; see snapshots.pending."""
        return self.own / "restore.json"

    @property
    def anchor(self) -> Path:
        """The first of db, raft and wal that is there: its lock makes this the only shardtool on
        the node, and its file system stands for the node's where there are no shards."""
        return next(path for path in (self.db, self.raft, self.wal) if path.is_dir())

    @property
    def snapshots(self) -> Path:
        """Where snapshots go unless the operator says otherwise."""
        return self.raft.parent / "snapshots"


def find_layout(data: str | None, config: str | None, environment: dict[str, str]) -> Layout:
    """Find the node that the operator means: --data, --influx-config, SHARDTOOL_DATA, default.

    Args:
        data: --data's directory, holding db/, raft/ and wal/, or None.
        config: --influx-config's file, or None.
        environment: the process's environment.

    Raises:
        UsageError: both were given.
        ShardtoolError: the directory or the file is not there, can't be read or is no
            InfluxDB's.
    """
    if data is not None and config is not None:
        raise UsageError("--data and --influx-config name the same thing twice; give one of them")
    if "" in (data, config):
        # An unset variable in a script; the default would be another node than the one meant.
        raise UsageError("--data and --influx-config need a name, found an empty one")
    if config is not None:
        return _from_config(Path(config))
    named = data or environment.get("SHARDTOOL_DATA")
    if named:
        return _from_directory(Path(named))
    if not PACKAGED_DATA.is_dir():
        raise ShardtoolError(
            f"{PACKAGED_DATA}: expected InfluxDB's data directory (the packages' default), "
            "found nothing there; name yours with --data DIR, --influx-config FILE "
            "or SHARDTOOL_DATA"
        )
    return _from_directory(PACKAGED_DATA)


def _from_directory(root: Path) -> Layout:
    expected = "expected a directory with db/, raft/ and wal/"
    try:
        with opened_quietly(root, READ_DIRECTORY) as directory:
            os.listdir(directory)
        has_any = any((root / name).is_dir() for name in ("db", "raft", "wal"))
    except (OSError, ValueError) as error:
        reason = reason_of(error) if isinstance(error, OSError) else str(error)
        raise ShardtoolError(f"{root}: {expected}, found: {reason}; check --data") from None
    if not has_any:
        raise ShardtoolError(
            f"{root}: {expected}, found none of them; "
            "check --data, or use --influx-config where the three lie apart"
        )
    root = root.absolute()
    layout = Layout(root / "db", root / "raft", root / "wal", None, str(root))
    _check_db(layout)
    beside = Path(os.path.realpath(root)).parent
    candidates = (root / "config.toml", beside / "config.toml")
    config = next((path for path in candidates if _is_of(path, root)), None)
    return replace(layout, config=config)


def _is_of(config: Path, root: Path) -> bool:
    """Say whether `config` is the config.toml of the node at `root`.

    One inside the data directory is; the packages' own lies beside `data`, and there it must
    name the directory, or it is some other program's.
    """
    if not config.is_file():
        return False
    if config.parent == root:
        return True
    try:
        return _from_config(config).raft.samefile(root / "raft")
    except (ShardtoolError, OSError):
        return False


def _from_config(path: Path) -> Layout:
    content = read_config(path)
    layout = Layout(
        _directory(path, content, "storage"),
        _directory(path, content, "raft"),
        _directory(path, content, "wal"),
        path.absolute(),
        str(path),
    )
    if not any(directory.is_dir() for directory in (layout.db, layout.raft, layout.wal)):
        raise ShardtoolError(
            f"{path}: expected the directories that it names to be here, found none of "
            f"{layout.db}, {layout.raft}, {layout.wal}; is this the machine, is the disk mounted?"
        )
    _check_db(layout)
    return layout


def _directory(path: Path, content: dict[str, object], section: str) -> Path:
    table = content.get(section)
    value = table.get("dir") if isinstance(table, dict) else None
    if not isinstance(value, str) or not value or "\0" in value:
        raise ShardtoolError(
            f'{path}: expected a [{section}] section with dir = "...", found none; '
            "name the directories with --data"
        )
    directory = Path(value)
    if not directory.is_absolute():
        raise ShardtoolError(
            f"{path}: expected an absolute path for [{section}] dir, found {value!r}, which only "
            "the server's own working directory completes; name the directories with --data"
        )
    return directory


def _check_db(layout: Layout) -> None:
    """Refuse what stands in db's place and is no directory; a missing db is fine.

    Raises:
        ShardtoolError: db, shard_db or shard_db_v2 is a file or a link that leads nowhere.
    """
    for path in (layout.db, layout.old_shards, layout.new_shards):
        try:
            is_missing = not path.is_dir() and not (path.exists() or path.is_symlink())
            if path.is_dir() or is_missing:
                continue
        except OSError as error:
            raise ShardtoolError(
                f"{path}: expected a directory, found: {reason_of(error)}; "
                "run this as the server's user or as root"
            ) from None
        kind = "a link that leads nowhere" if path.is_symlink() else "something that is none"
        raise ShardtoolError(f"{path}: expected a directory, found {kind}; check the path")
