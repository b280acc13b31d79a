"""Receipts: what a proof found, kept in db/.shardtool/proofs/NNNNN.json for as long as it holds.

A receipt holds while the old shard and the new shards that it rests on are in the state in which
they were read, and raft still knows those shards and the columns' ids as it did. Whatever is
wrong with one (torn, foreign, another version's), it holds not: the shard is proven again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from shardtool.datadir.inventory import is_shard_name
from shardtool.datadir.layout import Layout
from shardtool.disk.durable import (
    READ_DIRECTORY_ITSELF,
    made_directory,
    make_directories,
    open_quietly,
    opened,
    opened_quietly,
    replace_file,
)
from shardtool.errors import ShardtoolError, reason_of
from shardtool.influxdb.engines import EngineError
from shardtool.proof.basis import basis_now
from shardtool.proof.causes import CAUSES
from shardtool.proof.columns import Name
from shardtool.proof.prove import Finding, Loss
from shardtool.proof.source import RaftCatalogue
from shardtool.proof.state import state_of

SCHEMA = "shardtool/receipt/1"
_UNFINISHED = re.compile(r"\..*\.json\.([1-9]\d{0,18})", re.ASCII | re.DOTALL)
_MOST_BYTES = 256 << 20  # of a receipt; one with a million columns of losses has some 200 MB
# What other servers answered can't be looked at again: a receipt that rests on it holds a day.
ANSWERS_HOLD = timedelta(days=1)


@dataclass(frozen=True)
class Receipt:
    """What a proof of an old shard found, and when.

    Args:
        shard: the old shard's name.
        proven_at: when the proof ended.
        finding: what it found.
    """

    shard: str
    proven_at: datetime
    finding: Finding


def is_same_old_side(receipt: Receipt, layout: Layout) -> bool:
    """Say whether the old shard is as it was when the receipt's proof read it."""
    return _state(layout.old_shards / receipt.shard) == receipt.finding.old_state


class NewSide:
    """The new storage as it is now: what raft knows, and the shards, each looked at once."""

    def __init__(self, layout: Layout, raft: RaftCatalogue) -> None:
        """Name the new storage of `layout`; nothing is looked at yet."""
        self._layout = layout
        self._raft = raft
        self._now = datetime.now(UTC)
        self._states: dict[str, str | None] = {}

    def is_same(self, receipt: Receipt) -> bool:
        """Say whether what a proof found is still where it found it, and still what it was."""
        finding = receipt.finding
        if finding.asked and not timedelta() <= self._now - receipt.proven_at < ANSWERS_HOLD:
            return False
        states = finding.new_states
        if any(self._state(name) != state for name, state in states.items()):
            return False
        known = self._raft.now()
        try:
            return known is not None and basis_now(*known, finding.ids, states) == finding.basis
        except (ValueError, OverflowError):
            return False  # no ranges that shardtool wrote

    def _state(self, name: str) -> str | None:
        if name not in self._states:
            self._states[name] = _state(self._layout.new_shards / name)
        return self._states[name]


def _state(shard: Path) -> str | None:
    try:
        return state_of(shard)
    except EngineError:
        return None


class Receipts:
    """A node's receipts."""

    def __init__(self, layout: Layout) -> None:
        """Name the receipts of `layout`; nothing is read or created yet."""
        self._layout = layout
        self.directory: Path = layout.own / "proofs"
        self._swept = False

    def names(self) -> frozenset[str]:
        """Return the names of the shards that have a receipt, whether it holds or not."""
        try:
            with self._opened() as directory:
                return frozenset(n[:-5] for n in os.listdir(directory) if n.endswith(".json"))
        except OSError:
            return frozenset()

    def read(self, shard: str) -> Receipt | None:
        """Return a shard's receipt, or None where there is none that can be read."""
        content = self._content(shard)
        return None if content is None else _receipt_in(content, shard)

    def read_with_checksum(self, shard: str) -> tuple[Receipt, str] | None:
        """Return a shard's receipt with the SHA-256 of its file, as sha256sum gives it.

        None where there is no receipt that can be read.
        """
        content = self._content(shard)
        receipt = None if content is None else _receipt_in(content, shard)
        if content is None or receipt is None:
            return None
        return receipt, hashlib.sha256(content).hexdigest()

    def _content(self, shard: str) -> bytes | None:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            with (
                self._opened() as directory,
                opened_quietly(f"{shard}.json", flags, dir_fd=directory) as file,
            ):
                entry = os.fstat(file)
                if not stat.S_ISREG(entry.st_mode) or entry.st_size > _MOST_BYTES:
                    return None
                with open(file, "rb", closefd=False) as content:
                    return content.read()
        except (OSError, ValueError):  # a name with a NUL is none
            return None

    def holding(self, shard: str, new_side: NewSide) -> Receipt | None:
        """Return a shard's receipt if there is one and both sides are as its proof read them."""
        receipt = self.read(shard)
        if receipt is None or not is_same_old_side(receipt, self._layout):
            return None
        return receipt if new_side.is_same(receipt) else None

    def write(self, receipt: Receipt) -> None:
        """Write a receipt in the place of the shard's last one: whole, or not at all.

        Raises:
            ShardtoolError: it can't be written; the last one stands.
        """
        document = _document(receipt)
        content = _encoded(document | {"sha256": _checksum(document)}) + b"\n"
        name = f"{receipt.shard}.json"
        try:
            if not self._swept:
                self._make_directory()
            with self._opened() as directory:
                if not self._swept:
                    self._swept = True
                    _sweep(directory)
                replace_file(directory, name, content, like=self._layout.db)
        except OSError as error:
            raise ShardtoolError(
                f"{self.directory / name}: expected to write a receipt, "
                f"found: {reason_of(error)}; without it the shard is proven again next time"
            ) from None

    def end(self, shard: str) -> None:
        """Remove a shard's receipt: what it rests on is to be read again.

        Raises:
            OSError: it can't be removed, or there is none.
        """
        with self._opened() as directory:
            os.unlink(f"{shard}.json", dir_fd=directory)

    def _make_directory(self) -> None:
        with _times_kept(self._layout.db):
            make_directories(self.directory.parent, like=self._layout.db)
        with (
            opened(self.directory.parent, READ_DIRECTORY_ITSELF) as own,
            made_directory(self.directory.name, dir_fd=own, like=self._layout.db),
        ):
            pass

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        # db/.shardtool must be no link either: nothing is to be read or written elsewhere.
        with opened_quietly(self.directory.parent, READ_DIRECTORY_ITSELF) as own:
            directory = open_quietly(self.directory.name, READ_DIRECTORY_ITSELF, dir_fd=own)
            try:
                yield directory
            finally:
                os.close(directory)


def _sweep(directory: int) -> None:
    """Remove what runs that were killed had begun to write."""
    for name in os.listdir(directory):
        match = _UNFINISHED.fullmatch(name)
        if match and (int(match[1]) == os.getpid() or not _is_alive(int(match[1]))):
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=directory)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


@contextlib.contextmanager
def _times_kept(directory: Path) -> Iterator[None]:
    """Set a directory's times back after something was made in it: verify changes none of them."""
    before = directory.stat()
    yield
    after = directory.stat()
    if after.st_mtime_ns != before.st_mtime_ns:
        os.utime(directory, ns=(after.st_atime_ns, before.st_mtime_ns))


def _encoded(document: dict[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=True, sort_keys=True).encode("ascii")


def _checksum(document: dict[str, Any]) -> str:
    """Return what tells a receipt that a disk, or an editor, has altered from a whole one."""
    return hashlib.sha256(_encoded(document)).hexdigest()


def _document(receipt: Receipt) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "shard": receipt.shard,
        "proven_at": receipt.proven_at.isoformat(),
        **asdict(receipt.finding),
    }


def _receipt_in(content: bytes, shard: str) -> Receipt | None:
    try:
        receipt = _parsed(json.loads(content))
    except (ValueError, RecursionError):
        return None
    return receipt if receipt is not None and receipt.shard == shard else None


def _parsed(document: Any) -> Receipt | None:
    """Given a receipt's JSON, return it; None where it is none that shardtool wrote."""
    if not isinstance(document, dict) or document.pop("sha256", None) != _checksum(document):
        return None
    if document.pop("schema", None) != SCHEMA:
        return None
    try:
        shard, proven_at = document.pop("shard"), document.pop("proven_at")
        losses = tuple(
            Loss(Name(**_typed(loss.pop("name"))), **_typed(loss))
            for loss in document.pop("losses")
        )
        new_states = _typed(document.pop("new_states"))
        finding = Finding(losses=losses, new_states=new_states, **_typed(document))
        receipt = Receipt(str(shard), datetime.fromisoformat(proven_at).astimezone(UTC), finding)
    except (TypeError, KeyError, AttributeError, ValueError, OverflowError):
        return None
    return receipt if _agrees_with_itself(finding) else None


_NUMBERS = frozenset({"values", "missing", "different", "asked", "first_us", "last_us"})


def _typed(fields: dict[str, Any]) -> dict[str, Any]:
    for name, value in fields.items():
        expected = bool if name in ("elsewhere", "unasked") else int if name in _NUMBERS else str
        if type(value) is not expected:
            raise TypeError(f"{name}: expected {expected.__name__}")
    return fields


def _agrees_with_itself(finding: Finding) -> bool:
    losses = finding.losses
    counts = (finding.missing, finding.different, finding.asked)
    found_here = finding.values - sum(counts)
    return (
        min(*counts, found_here) >= 0
        and all(min(loss.missing, loss.different) >= 0 for loss in losses)
        and all(loss.cause in CAUSES for loss in losses)
        and sum(loss.missing for loss in losses) == finding.missing
        and sum(loss.different for loss in losses) == finding.different
        and all(map(is_shard_name, finding.new_states))
        # What was found here rests on something.
        and (not found_here or bool(finding.new_states))
    )
