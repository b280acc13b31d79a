"""Copy a node's raft, wal and configuration into a bag, until nothing of them moves."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from shardtool.disk.copy import (
    Counter,
    Entry,
    Reader,
    entry_of,
    new_file,
    open_regular,
    opened_below,
    survey,
)
from shardtool.disk.durable import (
    READ_DIRECTORY,
    READ_DIRECTORY_ITSELF,
    opened,
    opened_quietly,
)
from shardtool.errors import ShardtoolError
from shardtool.snapshots import bag
from shardtool.snapshots.metadata import CONFIG
from shardtool.snapshots.store import (
    AS_WHOM,
    PRIVATE_DIRECTORY,
    describe,
    told,
)

# How often a live copy looks again, and how long it waits before: some 12 s in all. A server
# that never pauses for so long can't be copied while it runs.
_LIVE_PAUSES = (0.1, 0.2, 0.4, 0.8, 1.0, 1.5, 2.0, 2.0, 2.0, 2.0)

# What a snapshot holds of a tree; sockets, FIFOs and devices have no content to copy.
_COPIED = ("file", "directory", "link")


class Copy:
    """One copy of the sources into a directory, brought up to date until nothing moves."""

    def __init__(
        self, sources: Mapping[str, Path], store: Path, *, live: bool, free_room: str
    ) -> None:
        self.sources = sources
        self.live = live
        self._free_room = free_room
        self._store = store
        self._target = -1
        self._copied: dict[str, tuple[Entry, str]] = {}  # files, with their SHA-256
        self.entries: list[Entry] = []
        self.left_out: tuple[tuple[str, str], ...] = ()

    def digests(self) -> dict[str, str]:
        """Return SHA-256 in hex of each file, by its path in the bag."""
        return {f"{bag.PAYLOAD}/{path}": digest for path, (_, digest) in self._copied.items()}

    def run(self, target: int, counter: Counter) -> None:
        """Copy; a live one again and again until a pass finds every byte as the one before.

        Args:
            target: the new bag's directory.
            counter: counts the bytes.

        Raises:
            ShardtoolError: the sources changed under a copy of a stopped server, or did not
                keep still for one pass of a live copy.
        """
        changed: list[str] = []
        with (
            Reader() as reader,
            opened(bag.PAYLOAD, READ_DIRECTORY_ITSELF, dir_fd=target) as self._target,
        ):
            for pause in (0.0, *_LIVE_PAUSES) if self.live else (0.0,):
                time.sleep(pause)
                seen = survey_sources(self.sources)
                changed = self._update(seen, reader, counter)
                moved = _difference(seen, survey_sources(self.sources)) or self._lacks(seen)
                if moved is None and not (changed and self.live):
                    self._keep(seen)
                    return
                changed = [moved] if moved is not None else changed
        found = f"{place_of(changed[0], self.sources)} changed while it was copied"
        if self.live:
            raise ShardtoolError(
                f"{self.sources['raft']}: expected raft and wal to keep still for one pass, found "
                f"them still being written ({found}); try again, or stop the server"
            )
        raise ShardtoolError(
            f"{self.sources['raft']}: expected nobody to write, found that {found}; "
            "stop what writes there, or take a --live snapshot"
        )

    def _lacks(self, seen: list[Entry]) -> str | None:
        """Return the first file that is not in the copy: out of reach for a moment, as on a disk
        that was away, and back as it was before it was looked for."""
        paths = (entry.path for entry in seen if entry.kind == "file")
        return next((path for path in paths if path not in self._copied), None)

    def _keep(self, seen: list[Entry]) -> None:
        self.entries = [entry for entry in seen if entry.kind in _COPIED]
        self.left_out = tuple((e.path, e.kind) for e in seen if e.kind not in _COPIED)

    def _update(self, seen: list[Entry], reader: Reader, counter: Counter) -> list[str]:
        """Bring the copy to what was `seen`; return the paths whose bytes were not the same."""
        self._remove_what_is_not_in(seen)
        changed = []
        for entry in seen:
            if entry.kind == "directory":
                with contextlib.suppress(FileExistsError):
                    os.mkdir(entry.path, PRIVATE_DIRECTORY, dir_fd=self._target)
            elif entry.kind == "file" and not self._is_as_copied(entry, reader, counter):
                changed.append(entry.path)
                self._copy_file(entry, reader, counter)
        return changed

    def _remove_what_is_not_in(self, seen: list[Entry]) -> None:
        kinds = {entry.path: entry.kind for entry in seen}
        for entry in reversed(survey(self._target)):
            if kinds.get(entry.path) == entry.kind:
                continue
            if entry.kind == "directory":
                os.rmdir(entry.path, dir_fd=self._target)
            else:
                self._remove_file(entry.path)

    def _remove_file(self, path: str) -> None:
        self._copied.pop(path, None)
        os.unlink(path, dir_fd=self._target)

    def _is_as_copied(self, entry: Entry, reader: Reader, counter: Counter) -> bool:
        """Say whether a file still has the bytes that were copied: by its stat, and by reading."""
        old, digest = self._copied.get(entry.path, (None, ""))
        if old != entry:
            return False
        try:
            with self._opened_source(entry.path) as source:
                return reader.digest(source, counter, most=entry.size) == (digest, entry.size)
        except FileNotFoundError:
            return False

    def _copy_file(self, entry: Entry, reader: Reader, counter: Counter) -> None:
        if entry.path in self._copied:
            self._remove_file(entry.path)
        place = place_of(entry.path, self.sources)
        try:
            with (
                self._opened_source(entry.path) as source,
                told(place, f"to copy it to {self._store}", self._free_room),
                new_file(entry.path, dir_fd=self._target) as target,
            ):
                digest, _ = reader.digest(source, counter, target=target, most=entry.size)
        except FileNotFoundError:
            return  # it vanished: the survey after this pass, or _lacks, will tell
        self._copied[entry.path] = (entry, digest)

    @contextlib.contextmanager
    def _opened_source(self, path: str) -> Iterator[int]:
        """Open a source's file.

        Raises:
            FileNotFoundError: it is not there any more.
            ShardtoolError: it can't be read.
        """
        top, _, rest = path.partition("/")
        with contextlib.ExitStack() as stack:
            try:
                if rest:
                    root = stack.enter_context(opened_quietly(self.sources[top], READ_DIRECTORY))
                    source = stack.enter_context(opened_below(root, rest))
                else:
                    source = stack.enter_context(open_regular(self.sources[top]))
            except FileNotFoundError:
                raise
            except OSError as error:
                raise _unreadable(path, self.sources, describe(error)) from None
            yield source


def survey_sources(sources: Mapping[str, Path]) -> list[Entry]:
    """List all that is in the sources, and refuse what a snapshot can't carry.

    Raises:
        ShardtoolError: something can't be read or has a name that no manifest carries.
    """
    entries: list[Entry] = []
    for name, path in sources.items():
        with told(path, "to read it", AS_WHOM):
            if name == CONFIG:
                entries.append(entry_of(name, os.stat(path, follow_symlinks=False)))
            else:
                with opened_quietly(path, READ_DIRECTORY) as root:
                    entries += survey(root, name)
    problem = bag.problem_with_names(entry.path for entry in entries if entry.kind in _COPIED)
    if problem:
        raise ShardtoolError(
            f"{place_of(problem[0], sources)}: expected a name that a manifest can carry, found "
            f"{problem[1]}; the server writes no such name: move it away"
        )
    for entry in entries:
        if entry.kind == "unreadable":
            raise _unreadable(entry.path, sources, entry.target)
    return entries


def place_of(path: str, sources: Mapping[str, Path]) -> Path:
    """Given a path in the snapshot, return where it was on the node."""
    top, _, rest = path.partition("/")
    return sources[top] / rest if rest else sources[top]


def _unreadable(path: str, sources: Mapping[str, Path], reason: str) -> ShardtoolError:
    return ShardtoolError(
        f"{place_of(path, sources)}: expected to read it, found: {reason}; {AS_WHOM}"
    )


def _difference(before: Iterable[Entry], after: Iterable[Entry]) -> str | None:
    """Return the first path that is not the same in two surveys, or None."""
    changed = set(before) ^ set(after)
    return min((entry.path for entry in changed), default=None)
