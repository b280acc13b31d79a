"""Execute a plan: journal, rename, journal, remove, journal; a kill anywhere loses nothing.

Shards go in small batches, so that the journal is synced a few times a batch instead of a few
times a shard. For each shard the order is the same: the intent is on disk before its rename,
the rename is on disk before its first file is removed.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from shardtool.datadir.holders import find_holders
from shardtool.datadir.inventory import Others, file_system_at, scan_old_shard
from shardtool.datadir.layout import Layout
from shardtool.datadir.verdict import Reason, judge
from shardtool.disk.durable import (
    READ_DIRECTORY,
    READ_DIRECTORY_ITSELF,
    opened,
    sync_directory,
)
from shardtool.disk.locks import Lock, look_at_lock
from shardtool.disk.remove import Removal, remove_tree
from shardtool.disk.tree import measure
from shardtool.errors import ShardtoolError, reason_of
from shardtool.journal import Journal
from shardtool.proof.receipts import NewSide, Receipts
from shardtool.proof.source import RaftCatalogue
from shardtool.proof.state import drop_from_memory, make_durable
from shardtool.prune.plan import Deletion, Plan
from shardtool.prune.policy import decide
from shardtool.prune.trash import Leftover, open_trash, trash_name, trash_of

_BATCH = 16
_WHOLE_IN_TRASH = "the shard is whole in the trash, and the next prune goes on"
_IN_TRASH = "what is left of the shard is in the trash, and the next prune goes on"
_NO_DIRECTORY = -1  # as a descriptor: whatever is tried through it fails


@dataclass
class Outcome:
    """What a run did; filled as it goes, so that an interrupted one can still be told.

    Args:
        run: the run's name in the journal.
        deleted: shards that are gone, with their directories.
        finished: shards that an interrupted run had left in the trash and that are gone now.
        put_back: shards that it had left there, not as it meant them: in their place again.
        kept: shards that the plan meant to delete and that changed since, with the reasons.
        failed: shard and error: still in place, or whole or in part in the trash, as it says.
        freed_bytes: blocks of the files whose last name went, counted as they were removed.
        free_before: bytes free on the file system before.
        free_after: and after.
    """

    run: str = ""
    deleted: list[str] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    put_back: list[str] = field(default_factory=list)
    kept: list[tuple[str, tuple[Reason, ...]]] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    freed_bytes: int = 0
    free_before: int = 0
    free_after: int = 0


@dataclass(frozen=True)
class _Site:
    """What every step needs: where, through which descriptors, and whom to tell."""

    layout: Layout
    shards: int
    trash: int
    trash_path: Path
    journal: Journal
    outcome: Outcome
    progress: Callable[[int], None]
    raft: RaftCatalogue
    synced: dict[Path, str]  # what this run has synced, or why that failed


def execute(plan: Plan, layout: Layout, outcome: Outcome, progress: Callable[[int], None]) -> None:
    """Do what `plan` says; the caller holds the node's lock.

    Args:
        plan: as make_plan made it.
        layout: the node.
        outcome: filled as the work goes.
        progress: called with the number of names removed since the last call.

    Raises:
        ShardtoolError: the trash can't be used. A shard that fails is in outcome.failed.
    """
    outcome.run = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()) + f"-{os.getpid()}"
    trash = trash_of(layout)
    with contextlib.ExitStack() as stack:
        shards = _NO_DIRECTORY  # there may be no shard_db any more, and leftovers all the same
        if os.path.lexists(layout.old_shards):
            shards = stack.enter_context(opened(layout.old_shards, READ_DIRECTORY))
        descriptor = stack.enter_context(open_trash(trash, layout))
        outcome.free_before = outcome.free_after = file_system_at(trash).free_bytes
        site = _Site(
            layout,
            shards,
            descriptor,
            trash,
            Journal(layout),
            outcome,
            progress,
            RaftCatalogue(layout.raft),
            synced={},
        )
        try:
            _do(plan, site)
        except _JournalLostError:
            pass  # told in outcome.failed, shard by shard
        finally:
            outcome.free_after = file_system_at(trash).free_bytes


def _do(plan: Plan, site: _Site) -> None:
    _finish_leftovers(plan, site)
    for batch in _batches(plan):
        if _is_enough(plan, site):
            reason = (Reason("enough-free", "enough is free already"),)
            site.outcome.kept += [(d.name, reason) for d in batch]
        else:
            _delete_batch(batch, plan, site)


def _batches(plan: Plan) -> list[tuple[Deletion, ...]]:
    """Given the plan, return its deletions in the groups that are renamed together.

    Shards that share a file by hard links go in one: removing one's name for it changes the
    ctime of the other's, which would then look as if somebody had changed it since the plan.
    """
    owners: dict[tuple[int, int], int] = {}
    for deletion in plan.delete:
        for file in deletion.judged.shard.tree.linked:
            owners[file.device, file.inode] = owners.get((file.device, file.inode), 0) + 1
    shared = {key for key, count in owners.items() if count > 1}
    together: list[Deletion] = []
    alone: list[Deletion] = []
    for deletion in plan.delete:
        files = {(file.device, file.inode) for file in deletion.judged.shard.tree.linked}
        (together if files & shared else alone).append(deletion)
    size = 1 if plan.policy.until_free is not None else _BATCH
    chunks = [tuple(alone[start : start + size]) for start in range(0, len(alone), size)]
    return [tuple(together), *chunks] if together else chunks


class _JournalLostError(ShardtoolError):
    """The journal can't be written any more: the run ends where it is."""


class _StrandedError(ShardtoolError):
    """A shard that should be back in its place could not be put back."""


def _is_enough(plan: Plan, site: _Site) -> bool:
    wanted = plan.policy.until_free
    return wanted is not None and file_system_at(site.trash_path).free_bytes >= wanted


def _write(site: _Site, records: list[dict[str, object]], states: dict[str, str]) -> None:
    """Write journal records of this run, or end the run: nothing is done without a journal.

    Args:
        site: the run.
        records: what to write.
        states: for each shard to be told of if they can't be written, where it is then.
    """
    try:
        site.journal.append_all([{**r, "run": site.outcome.run} for r in records])
    except ShardtoolError as error:
        _lose(site, str(error), states)


def _lose(site: _Site, error: str, states: dict[str, str]) -> NoReturn:
    site.outcome.failed += [(name, f"{error}; {where}") for name, where in states.items()]
    raise _JournalLostError(error)


def _finish_leftovers(plan: Plan, site: _Site) -> None:
    recorded = {left.shard: _IN_TRASH for left in plan.finish if left.recorded}
    if recorded:
        try:
            site.journal.sync()  # what says that they may go may be in memory alone
        except ShardtoolError as error:
            _lose(site, str(error), recorded)
    for left in plan.finish:
        if left.action == "remove" and not left.recorded:
            # Before its first file goes: the run that renamed it was killed before it could sync
            # that and write it down, and without it what a kill leaves now would be nobody's.
            states = {left.shard: _WHOLE_IN_TRASH}
            _sync_renames(site, states)
            _write(site, [{"shard": left.shard, "trash": left.name, "event": "renamed"}], states)
        event = _put_back(left, site) if left.action == "put-back" else _finish(left, site)
        record = {"shard": left.shard, "trash": left.name, **event}
        _write(site, [record], {left.shard: "the next prune goes on"})


def _put_back(left: Leftover, site: _Site) -> dict[str, object]:
    try:
        os.rename(left.name, left.shard, src_dir_fd=site.trash, dst_dir_fd=site.shards)
    except OSError as error:
        message = f"whole in the trash as {left.name}, can't be put back: {reason_of(error)}"
        site.outcome.failed.append((left.shard, message))
        return {"event": "failed", "error": message}
    site.outcome.put_back.append(left.shard)
    try:
        os.fsync(site.shards)
        os.fsync(site.trash)
    except OSError as error:
        message = f"put back, but a power cut may undo that: {reason_of(error)}"
        site.outcome.failed.append((left.shard, message))
    return {"event": "put-back"}


def _finish(left: Leftover, site: _Site) -> dict[str, object]:
    removal = _remove(left.name, site)
    if removal.failed:
        message = f"in the trash, not all of it could be removed: {_in_words(removal)}"
        site.outcome.failed.append((left.shard, message))
        return {"event": "failed", "error": message, "freed_bytes": removal.freed_bytes}
    site.outcome.finished.append(left.shard)
    return {"event": "finished", "freed_bytes": removal.freed_bytes}


def _delete_batch(batch: tuple[Deletion, ...], plan: Plan, site: _Site) -> None:
    """Take a batch of shards out of shard_db, then remove them."""
    in_place = {d.name: "the shard is in its place" for d in batch}
    _write(site, [_intent(d, site) for d in batch], in_place)
    others = Others.of(site.layout.old_shards, find_holders([site.layout.old_shards]))
    events: list[dict[str, object]] = []
    renamed: list[Deletion] = []
    for deletion in batch:
        event = _try_to_take_out(deletion, plan, site, others)
        trash = trash_name(deletion.name, site.outcome.run)
        events.append({"shard": deletion.name, "trash": trash, **event})
        if event["event"] == "renamed":
            renamed.append(deletion)
    states = {d.name: _WHOLE_IN_TRASH for d in renamed} or in_place
    _sync_renames(site, states)
    _write(site, events, states)
    for deletion in renamed:
        _remove_shard(deletion, site)


def _sync_renames(site: _Site, states: dict[str, str]) -> None:
    """Make the renames durable, or end the run; see _write for `states`."""
    try:
        os.fsync(site.trash)
        if site.shards != _NO_DIRECTORY:
            os.fsync(site.shards)
    except OSError as error:
        _lose(site, f"the rename can't be made durable: {reason_of(error)}", states)


def _try_to_take_out(
    deletion: Deletion, plan: Plan, site: _Site, others: Others
) -> dict[str, object]:
    """Rename one shard into the trash unless something speaks against it; return the event."""
    try:
        reasons = _changes(deletion, plan, site, others) or _take_out(deletion, site)
    except OSError as error:
        message = f"can't be renamed into the trash: {reason_of(error)}; it is in its place"
    except _StrandedError as error:
        message = str(error)
    else:
        if not reasons:
            return {"event": "renamed"}
        site.outcome.kept.append((deletion.name, reasons))
        return {"event": "kept", "reasons": [reason.word for reason in reasons]}
    site.outcome.failed.append((deletion.name, message))
    return {"event": "failed", "error": message}


def _intent(deletion: Deletion, site: _Site) -> dict[str, object]:
    tree = deletion.judged.shard.tree
    return {
        "event": "intent",
        "shard": deletion.name,
        "trash": trash_name(deletion.name, site.outcome.run),
        "trash_in": str(site.trash_path),
        "inode": tree.inode,
        "evidence": deletion.evidence,
        "fingerprint": tree.fingerprint,
        "changes": tree.changes,
        "files": tree.files,
        "reclaimable_bytes": tree.reclaimable_bytes,
        **_proof(deletion),
    }


def _proof(deletion: Deletion) -> dict[str, object]:
    """Return what the journal keeps of a shard's proof, for ever."""
    if deletion.receipt is None:
        return {}
    finding = deletion.receipt.finding
    return {
        "proven_at": deletion.receipt.proven_at.isoformat().replace("+00:00", "Z"),
        "values": finding.values,
        "missing": finding.missing,
        "different": finding.different,
        "asked": finding.asked,
        "digest": finding.digest,
    }


def _changes(deletion: Deletion, plan: Plan, site: _Site, others: Others) -> tuple[Reason, ...]:
    """Look at the shard once more, right before its rename; return what now speaks against it."""
    found = scan_old_shard(site.layout.old_shards, deletion.name, fingerprint=True)
    if found is None:
        return (Reason("gone", "it is not there any more"),)
    judged = judge(others.add_to(found), deletion.judged.evidence)
    decision = decide(judged, plan.policy, time.time_ns())
    if not decision.evidence:
        return decision.reasons
    if not deletion.judged.shard.tree.is_same_as(found.tree):
        return (Reason("changed", "it changed since the plan was made"),)
    return _not_durable(deletion, site) or _new_side_changes(deletion, site)


def _new_side_changes(deletion: Deletion, site: _Site) -> tuple[Reason, ...]:
    """Say whether the new shards that a proof rests on are still as they were then."""
    receipt = deletion.receipt
    if receipt is None or NewSide(site.layout, site.raft).is_same(receipt):
        return ()
    if site.raft.now() is None:
        words = f"what raft knows can't be read from {site.layout.raft}: see shardtool verify"
        return (Reason("catalogue-unreadable", words),)
    words = "new shards, or what raft knows of them, changed since; the next prune proves it again"
    return (Reason("new-side-changed", words),)


def _not_durable(deletion: Deletion, site: _Site) -> tuple[Reason, ...]:
    """Have what a proof found written to the disk itself; say why if that fails."""
    if deletion.receipt is None:
        return ()
    layout = site.layout
    new = [layout.new_shards / name for name in deletion.receipt.finding.new_states]
    # The ids under which values are found are in raft's log alone.
    log = Path(os.path.realpath(layout.raft))  # it may be an operator's link
    raft = [log, log / "snapshot"]
    content = [(make_durable, path) for path in [*new, *(p for p in raft if p.is_dir())]]
    # Where the names of those directories are, and those of links to them.
    above = (layout.new_shards, layout.new_shards.parent, layout.raft.parent, log.parent)
    for sync, directory in [*content, *((sync_directory, path) for path in above)]:
        if directory not in site.synced:
            site.synced[directory] = _why_not_synced(sync, directory)
        if site.synced[directory]:
            # The next proof reads it from the disk, and finds what has come there.
            with contextlib.suppress(OSError):
                Receipts(layout).end(deletion.name)
            words = f"{directory} can't be synced to disk: {site.synced[directory]}"
            return (Reason("new-side-not-durable", words),)
    return ()


def _why_not_synced(sync: Callable[[Path], None], directory: Path) -> str:
    """Sync a directory once a run, and return why that failed, or nothing.

    Not twice: after a failed sync the kernel takes what it holds for written, and the next sync
    of the same bytes succeeds (fsync(2)).
    """
    try:
        sync(directory)
    except OSError as error:
        drop_from_memory(directory)
        return reason_of(error)
    return ""


def _take_out(deletion: Deletion, site: _Site) -> tuple[Reason, ...]:
    """Rename the shard into the trash; put it back if it is not what the plan means, or in use.

    Once it is in the trash nobody can open it by its name any more, so that what is seen then is
    the last word: whoever changed or opened it since we looked is found out here.
    """
    name = trash_name(deletion.name, site.outcome.run)
    os.rename(deletion.name, name, src_dir_fd=site.shards, dst_dir_fd=site.trash)
    reasons = _seen_in_trash(deletion, name, site)
    if reasons:
        try:
            os.rename(name, deletion.name, src_dir_fd=site.trash, dst_dir_fd=site.shards)
        except OSError as error:
            raise _StrandedError(
                f"whole in the trash as {name} ({reasons[0].detail}), "
                f"can't be put back: {reason_of(error)}"
            ) from None
    return reasons


def _seen_in_trash(deletion: Deletion, name: str, site: _Site) -> tuple[Reason, ...]:
    try:
        with opened(name, READ_DIRECTORY_ITSELF, dir_fd=site.trash) as shard:
            lock = look_at_lock("LOCK", dir_fd=shard)
            found = measure(shard, fingerprint=True)
    except OSError as error:
        return (Reason("changed", f"it can't be opened any more: {reason_of(error)}"),)
    if lock.state is not Lock.FREE:
        who = f"pid {lock.pid}" if lock.pid else "another process"
        return (Reason("locked", f"{who} opened it just now"),)
    if not deletion.judged.shard.tree.is_same_as(found):
        return (Reason("changed", "it changed in the last moment"),)
    return _new_side_changes(deletion, site)


def _remove_shard(deletion: Deletion, site: _Site) -> None:
    removal = _remove(trash_name(deletion.name, site.outcome.run), site)
    trash = trash_name(deletion.name, site.outcome.run)
    record: dict[str, object] = {"shard": deletion.name, "trash": trash}
    record["freed_bytes"] = removal.freed_bytes
    if removal.failed:
        message = f"out of shard_db, but not all of it could be removed: {_in_words(removal)}"
        site.outcome.failed.append((deletion.name, message))
        record |= {"event": "failed", "error": message}
    else:
        site.outcome.deleted.append(deletion.name)
        record |= {"event": "deleted", "evidence": deletion.evidence, "files": removal.files}
        record |= _proof(deletion)
    _write(site, [record], {deletion.name: "the shard is out of shard_db"})


def _remove(name: str, site: _Site) -> Removal:
    removal = Removal()
    try:
        return remove_tree(site.trash, name, site.progress, removal)
    finally:
        site.outcome.freed_bytes += removal.freed_bytes


def _in_words(removal: Removal) -> str:
    more = removal.failed - len(removal.failures)
    return "; ".join(removal.failures) + (f" and {more} more" if more else "")
