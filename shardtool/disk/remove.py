"""Remove a tree by descriptors: follow no link, cross no mount, count what comes back."""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass

from shardtool.disk.durable import READ_DIRECTORY_ITSELF, opened
from shardtool.disk.mounts import mount_id
from shardtool.disk.tree import BLOCK
from shardtool.errors import reason_of

LIFTED = ".below."  # between the tree's name and a number: a directory lifted out of it
_BATCH = 1024
_MOST_PASSES = 100  # each but the last removes something: more are somebody's making


@dataclass
class Removal:
    """What a removal did.

    Args:
        files: names removed, directories not among them.
        freed_bytes: blocks of the files whose last name went, and of the directories.
        failures: 'path: reason' of the first few names that are still there.
        failed: how many names could not be removed.
    """

    files: int = 0
    freed_bytes: int = 0
    failures: tuple[str, ...] = ()
    failed: int = 0


def remove_tree(
    parent: int,
    name: str,
    progress: Callable[[int], None] = lambda names: None,
    done: Removal | None = None,
) -> Removal:
    """Remove `name` and all below it from the directory that descriptor `parent` is open on.

    A directory inside is lifted into `parent` (as NAME.below.N) and removed there: the walk is
    never more than one directory deep, however deep the tree, and has no path that somebody
    could swap under it. A mount point can't be lifted, so what is mounted stays.

    Args:
        parent: a directory of ours; names in it that begin with `name` are ours too.
        name: one name, no slash.
        progress: called now and then with the number of files removed since the last call.
        done: filled as the work goes, so that an interrupted removal can still be told.

    Returns:
        What was removed and what was not; it raises nothing for the tree's own content.

    Raises:
        OSError: /proc does not tell the mount of `parent`.
    """
    remover = _Remover(parent, name, progress, done or Removal())
    while remover.waiting:
        remover.remove(remover.waiting.pop())
    return remover.done


class _Remover:
    """One removal: the names in `parent` that wait for theirs, and what was done so far."""

    def __init__(
        self, parent: int, name: str, progress: Callable[[int], None], done: Removal
    ) -> None:
        self.done = done
        self.waiting = [name]
        self._parent = parent
        self._mount = mount_id(parent)
        self._lifted = (f"{name}{LIFTED}{number}" for number in itertools.count())
        self._progress = progress

    def remove(self, name: str) -> None:
        try:
            entry = os.stat(name, dir_fd=self._parent, follow_symlinks=False)
            if not stat.S_ISDIR(entry.st_mode):
                self._unlink(self._parent, name, entry)
                return
            with opened(name, READ_DIRECTORY_ITSELF, dir_fd=self._parent) as directory:
                if mount_id(directory) != self._mount:
                    self._fail(name, "something is mounted there")
                    return
                if not self._empty(directory, name):
                    return
            os.rmdir(name, dir_fd=self._parent)
            self.done.freed_bytes += entry.st_blocks * BLOCK
        except FileNotFoundError:
            return
        except OSError as error:
            self._fail(name, reason_of(error))

    def _empty(self, directory: int, path: str) -> bool:
        """Remove all names in `directory`; say whether it is empty now.

        Pass after pass, since a name may be passed over while others go, until one removes
        nothing more: what is left then is what can't be removed.
        """
        for _ in range(_MOST_PASSES):
            failures: list[tuple[str, str]] = []
            gone = 0
            with os.scandir(directory) as entries:
                while names := [entry.name for entry in itertools.islice(entries, _BATCH)]:
                    files = self.done.files
                    for name in names:
                        reason = self._remove_from(directory, name)
                        gone += not reason
                        if reason:
                            failures.append((f"{path}/{name}", reason))
                    self._progress(self.done.files - files)
            if not gone:
                for name, reason in failures:
                    self._fail(name, reason)
                return not failures
        self._fail(path, "names keep appearing in it")
        return False

    def _remove_from(self, directory: int, name: str) -> str:
        """Remove or lift one name; return the reason why it can't be, or nothing."""
        try:
            entry = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if stat.S_ISDIR(entry.st_mode):
                self._lift(directory, name)
            else:
                self._unlink(directory, name, entry)
        except FileNotFoundError:
            pass
        except OSError as error:
            return reason_of(error)
        return ""

    def _lift(self, directory: int, name: str) -> None:
        for lifted in self._lifted:
            try:
                # rename(2) replaces an empty directory without a word, so look first: a kill
                # may have left some of these names.
                os.stat(lifted, dir_fd=self._parent, follow_symlinks=False)
            except FileNotFoundError:
                os.rename(name, lifted, src_dir_fd=directory, dst_dir_fd=self._parent)
                self.waiting.append(lifted)
                return

    def _unlink(self, directory: int, name: str, entry: os.stat_result) -> None:
        os.unlink(name, dir_fd=directory)
        self.done.files += 1
        if entry.st_nlink == 1:
            self.done.freed_bytes += entry.st_blocks * BLOCK

    def _fail(self, path: str, reason: str) -> None:
        self.done.failed += 1
        if len(self.done.failures) < 3:
            self.done.failures += (f"{path}: {reason}",)
