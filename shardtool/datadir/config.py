"""InfluxDB's own config.toml (FORMATS.md, "Where things are")."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from shardtool.disk.durable import opened_quietly
from shardtool.errors import ShardtoolError, reason_of

_MOST_BYTES = 1 << 20


def read_config(path: Path) -> dict[str, Any]:
    """Read a config.toml whole.

    Raises:
        ShardtoolError: it is not there, can't be read or is no TOML.
    """
    import tomllib  # most runs read no config, and start-up counts

    expected = "expected InfluxDB's config.toml"
    try:
        # O_NONBLOCK: a FIFO must not make us wait for a writer.
        with opened_quietly(path, os.O_RDONLY | os.O_NONBLOCK) as descriptor:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ShardtoolError(
                    f"{path}: {expected}, found no regular file; check --influx-config"
                )
            text = os.read(descriptor, _MOST_BYTES + 1)
        if len(text) > _MOST_BYTES:
            raise ShardtoolError(f"{path}: {expected}, found a file of over 1 MiB; check the name")
        return tomllib.loads(text.decode("utf-8"))
    except OSError as error:
        raise ShardtoolError(
            f"{path}: {expected}, found: {reason_of(error)}; check --influx-config"
        ) from None
    except UnicodeDecodeError as error:
        raise ShardtoolError(
            f"{path}: {expected}, found bytes that are no UTF-8 at offset {error.start}; "
            "name the directories with --data"
        ) from None
    except (ValueError, RecursionError) as error:  # TOMLDecodeError, and numbers beyond belief
        raise ShardtoolError(
            f"{path}: {expected}, found no TOML: {error}; "
            "correct it, or name the directories with --data"
        ) from None


def setting(config: Path | None, section: str, key: str) -> object:
    """Return one setting of a config.toml; None where that, or the file, can't be had.

    For what has a default: a config that is broken must not stop what does without it.
    """
    if config is None:
        return None
    try:
        table = read_config(config).get(section)
    except ShardtoolError:
        return None
    return table.get(key) if isinstance(table, dict) else None
