"""Remove snapshots: one rename out of the list first, then by descriptors."""

from __future__ import annotations

import os
from dataclasses import dataclass

from shardtool.disk.remove import remove_tree
from shardtool.errors import reason_of
from shardtool.snapshots.retention import Plan
from shardtool.snapshots.store import FORGOTTEN


@dataclass(frozen=True)
class Forgotten:
    """What was done.

    Args:
        removed: ids that are gone from the list.
        freed_bytes: what their removal gave back to the file system.
        failed: ids with what is still there of them and why.
    """

    removed: tuple[str, ...]
    freed_bytes: int
    failed: tuple[tuple[str, str], ...]


def forget(store: int, plan: Plan) -> Forgotten:
    """Remove what `plan` removes from the store that descriptor `store` is open on.

    A kill leaves each snapshot whole under its name, or under a name that no list shows and
    the next backup or forget removes. The caller holds the store's lock.
    """
    removed: list[str] = []
    failed: list[tuple[str, str]] = []
    freed = 0
    for name in plan.remove:
        try:
            os.rename(name, FORGOTTEN + name, src_dir_fd=store, dst_dir_fd=store)
            os.fsync(store)
            removal = remove_tree(store, FORGOTTEN + name)
        except OSError as error:
            failed.append((name, reason_of(error)))
            continue
        freed += removal.freed_bytes
        if removal.failed:
            failed.append((name, removal.failures[0]))
        else:
            removed.append(name)
    return Forgotten(tuple(removed), freed, tuple(failed))
