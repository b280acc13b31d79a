"""Deleting real shards: what goes is what was planned, and nothing is ever lost on the way."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fixtures import MARKED_AT, Node
from shardtool.datadir.inventory import FileSystem, take_inventory
from shardtool.datadir.layout import Layout, find_layout
from shardtool.datadir.verdict import judge_all
from shardtool.errors import ShardtoolError
from shardtool.journal import Journal
from shardtool.prune import execute as execute_module
from shardtool.prune.execute import Outcome, execute
from shardtool.prune.plan import Plan, make_plan
from shardtool.prune.policy import Policy
from shardtool.prune.trash import leftovers, trash_of
from tests.conftest import Hold, Listing, Mount
from tests.needs import needs_root

NAMES = ["00001", "00002", "00003"]


def layout_of(node: Node) -> Layout:
    """Find a node's layout."""
    return find_layout(str(node.path), None, {})


def plan_for(node: Node, **policy: Any) -> Plan:
    """Plan as `shardtool prune --trust marker` does."""
    layout = layout_of(node)
    inventory = take_inventory(layout, fingerprints=True)
    return make_plan(
        judge_all(inventory),
        Policy(trust_marker=True, **policy),
        leftovers(trash_of(layout), Journal(layout).read(), lambda intent: True),
        {},
        free_bytes=inventory.file_system.free_bytes,
        now_ns=time.time_ns(),
    )


def carry_out(node: Node, plan: Plan | None = None) -> Outcome:
    """Execute a plan, a fresh one if none is given."""
    outcome = Outcome()
    execute(plan or plan_for(node), layout_of(node), outcome, lambda names: None)
    return outcome


def kept(outcome: Outcome) -> dict[str, list[str]]:
    """Return the reasons' words by what was kept."""
    return {name: [reason.word for reason in reasons] for name, reasons in outcome.kept}


def in_trash(node: Node) -> list[str]:
    """Return what is in the trash."""
    trash = node.db / ".shardtool/trash"
    return sorted(os.listdir(trash)) if trash.is_dir() else []


def shards(node: Node) -> list[str]:
    """Return what is in shard_db."""
    return sorted(os.listdir(node.shard_db))


def events(node: Node) -> list[tuple[str, str]]:
    """Return event and shard of each record in the journal."""
    records = Journal(layout_of(node)).read().records
    return [(record["event"], record["shard"]) for record in records]


def contents(directory: Path) -> dict[str, bytes]:
    """Return the names in a directory and what is in them."""
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def before_rename(monkeypatch: pytest.MonkeyPatch, name: str, action: Callable[[], object]) -> None:
    """Have something happen in the moment between the last look at a shard and its rename."""
    real = os.rename

    def rename(source: Any, target: Any, **settings: Any) -> None:
        if source == name and not done:
            done.append(True)
            action()
        real(source, target, **settings)

    done: list[bool] = []
    monkeypatch.setattr(os, "rename", rename)


# -- the normal course --


def test_what_was_planned_goes_and_gives_back_what_was_said(node: Node) -> None:
    plan = plan_for(node)
    outcome = carry_out(node, plan)
    assert (outcome.deleted, outcome.kept, outcome.failed) == (NAMES, [], [])
    assert (shards(node), in_trash(node)) == ([], [])
    assert outcome.freed_bytes == plan.reclaimable_bytes > 0


def test_nothing_else_of_the_users_changes(node: Node, listing: Callable[[Path], Listing]) -> None:
    def rest() -> Listing:
        everything = listing(node.path)
        ours = ("db/shard_db/", "db/.shardtool")
        parents = ("db", "db/shard_db")
        return {p: e for p, e in everything.items() if p not in parents and not p.startswith(ours)}

    before = rest()
    carry_out(node)
    assert rest() == before
    assert any(path.startswith("db/shard_db_v2/") for path in before)


def test_the_journal_tells_intent_rename_and_end_of_each(node: Node) -> None:
    carry_out(node)
    assert events(node) == [
        *(("intent", name) for name in NAMES),
        *(("renamed", name) for name in NAMES),
        *(("deleted", name) for name in NAMES),
    ]


def test_the_journal_tells_where_each_shard_was_and_what_came_back(node: Node) -> None:
    outcome = carry_out(node)
    records = Journal(layout_of(node)).read().records
    places = {record["event"]: record["trash"] for record in records if record["shard"] == "00002"}
    assert places == dict.fromkeys(("intent", "renamed", "deleted"), f"00002.{outcome.run}")
    ends = [record for record in records if record["event"] == "deleted"]
    assert sum(record["freed_bytes"] for record in ends) == outcome.freed_bytes > 0
    assert all(record["run"] == outcome.run for record in records)
    assert all(record["files"] > 0 and record["evidence"] == "marker" for record in ends)


def test_each_intent_is_on_disk_before_its_rename_and_each_rename_before_a_file_goes(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    rename, unlink, append = os.rename, os.unlink, Journal.append_all

    def note_rename(*args: Any, **settings: Any) -> None:
        seen.append("rename")
        rename(*args, **settings)

    def note_unlink(*args: Any, **settings: Any) -> None:
        seen.append("unlink")
        unlink(*args, **settings)

    def note_append(journal: Journal, records: Any) -> None:
        records = list(records)
        append(journal, records)
        seen.append(records[0]["event"])

    monkeypatch.setattr(os, "rename", note_rename)
    monkeypatch.setattr(os, "unlink", note_unlink)
    monkeypatch.setattr(Journal, "append_all", note_append)
    carry_out(node)
    first = list(dict.fromkeys(seen))
    assert first == ["intent", "rename", "renamed", "unlink", "deleted"]
    assert seen.index("renamed") > len(seen) - 1 - seen[::-1].index("rename")


def syncs_and_events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that fills with the names of what is synced and with the journal's events."""
    seen: list[str] = []
    fsync, append = os.fsync, Journal.append_all

    def note_sync(descriptor: int) -> None:
        seen.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    def note_append(journal: Journal, records: Any) -> None:
        records = list(records)
        seen.append(records[0]["event"])
        append(journal, records)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Journal, "append_all", note_append)
    return seen


def test_both_directories_are_synced_between_the_renames_and_the_journal(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = syncs_and_events(monkeypatch)
    carry_out(node)
    between = seen[seen.index("intent") : seen.index("renamed")]
    assert {"trash", "shard_db"} <= set(between)


def test_more_shards_than_a_batch_all_go(tmp_path: Path) -> None:
    node = Node(tmp_path / "data")
    with node.holding_back_raft():
        for number in range(1, 36):
            node.old_shard(number, points=1, marked_at=MARKED_AT)
    outcome = carry_out(node)
    assert len(outcome.deleted) == 35
    assert (shards(node), in_trash(node)) == ([], [])


def test_the_captures_four_marked_shards_go_and_the_five_others_stay(
    capture: Callable[[str], Path],
) -> None:
    layout = find_layout(str(capture("partial-08")), None, {})
    inventory = take_inventory(layout, fingerprints=True)
    plan = make_plan(
        judge_all(inventory), Policy(trust_marker=True), (), {}, free_bytes=0, now_ns=time.time_ns()
    )
    outcome = Outcome()
    execute(plan, layout, outcome, lambda names: None)
    assert len(outcome.deleted) == 4
    assert len(os.listdir(layout.old_shards)) == 5
    assert outcome.freed_bytes == plan.reclaimable_bytes


def test_it_stops_as_soon_as_enough_is_free(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_for(node, until_free=1 << 60)
    gone = len(plan.delete)

    def room(path: Path) -> FileSystem:
        return FileSystem(1 << 61, 1 << 60 if len(shards(node)) < gone else 0)

    monkeypatch.setattr(execute_module, "file_system_at", room)
    outcome = carry_out(node, plan)
    assert outcome.deleted == ["00001"]
    assert kept(outcome) == {"00002": ["enough-free"], "00003": ["enough-free"]}


def share_a_table(node: Node) -> None:
    """Have shards 1 and 2 share a table by a hard link, as a deduplicating tool leaves it."""
    table = node.shard_db / "00001/000099.ldb"
    table.write_bytes(b"x" * 100_000)
    os.utime(table, (0, 0))
    os.link(table, node.shard_db / "00002/000099.ldb")


def test_a_table_that_two_shards_share_comes_back_when_both_went(node: Node) -> None:
    share_a_table(node)
    plan = plan_for(node)
    outcome = carry_out(node, plan)
    assert outcome.deleted == NAMES
    assert outcome.freed_bytes == plan.reclaimable_bytes > 100_000


def test_a_shard_is_not_taken_for_changed_because_its_neighbour_went(node: Node) -> None:
    """Removing one name of a shared file changes the ctime of the other: our own doing."""
    share_a_table(node)
    plan = plan_for(node, until_free=1 << 60)  # one at a time, not a batch
    outcome = carry_out(node, plan)
    assert (outcome.deleted, kept(outcome)) == (NAMES, {})


# -- what changed since the plan --


def set_back(path: Path) -> None:
    """Change a file's content and set its mtime back."""
    before = path.stat()
    path.write_bytes(b"x" * before.st_size)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


CHANGES: dict[str, Callable[[Path], Any]] = {
    "content changed and mtime set back": lambda shard: set_back(shard / "CURRENT"),
    "a new table": lambda shard: (shard / "999999.ldb").write_bytes(b"values"),
    "a new file of somebody's": lambda shard: (shard / "notes").touch(),
    "the marker went": lambda shard: (shard / "MIGRATED").unlink(),
    "the marker changed": lambda shard: (shard / "MIGRATED").write_bytes(b"gone.\n"),
    "another directory in its place": lambda shard: (
        shutil.copytree(shard, shard.with_name("copy")),
        shard.rename(shard.parents[2] / "aside"),
        shard.with_name("copy").rename(shard),
    ),
    "a link in its place": lambda shard: shard.symlink_to(shard.rename(shard.parents[2] / "aside")),
    "a file in its place": lambda shard: (
        shard.rename(shard.parents[2] / "aside"),
        shard.write_bytes(b""),
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_shard_is_kept_if_since_the_plan_there_is(change: str, node: Node) -> None:
    plan = plan_for(node)
    CHANGES[change](node.shard_db / "00002")
    outcome = carry_out(node, plan)
    assert outcome.deleted == ["00001", "00003"]
    assert list(kept(outcome)) == ["00002"]
    assert (shards(node), in_trash(node)) == (["00002"], [])


@pytest.mark.parametrize("change", CHANGES)
def test_a_shard_is_kept_if_in_the_last_moment_there_is(
    change: str, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = node.shard_db / "00002"
    before_rename(monkeypatch, "00002", lambda: CHANGES[change](shard))
    outcome = carry_out(node)
    assert outcome.deleted == ["00001", "00003"]
    assert list(kept(outcome)) == ["00002"]
    assert (shards(node), in_trash(node)) == (["00002"], [])


def test_what_was_in_a_swapped_directory_is_still_there(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = node.shard_db / "00002"
    other = node.path / "precious"
    other.mkdir()
    (other / "values").write_bytes(b"precious")

    def swap() -> None:
        shard.rename(node.path / "aside")
        other.rename(shard)

    before_rename(monkeypatch, "00002", swap)
    carry_out(node)
    assert (shard / "values").read_bytes() == b"precious"
    assert (node.path / "aside/CURRENT").exists()


def test_a_shard_that_went_by_itself_is_no_error(node: Node) -> None:
    plan = plan_for(node)
    shutil.rmtree(node.shard_db / "00002")
    outcome = carry_out(node, plan)
    assert (outcome.deleted, kept(outcome)) == (["00001", "00003"], {"00002": ["gone"]})


def test_a_shard_that_goes_in_the_last_moment_is_told_and_hinders_no_other(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_rename(monkeypatch, "00002", lambda: shutil.rmtree(node.shard_db / "00002"))
    outcome = carry_out(node)
    assert outcome.deleted == ["00001", "00003"]
    assert [name for name, _ in outcome.failed] == ["00002"]


@pytest.mark.parametrize(
    ("how", "word"),
    [
        ("database", "locked"),
        ("lock", "locked"),
        ("open", "open-files"),
        ("mapped", "open-files"),
    ],
)
def test_a_shard_that_a_process_opens_after_the_plan_is_kept(
    how: str, word: str, node: Node, hold: Hold
) -> None:
    plan = plan_for(node)
    shard = node.shard_db / "00002"
    hold({"database": shard, "lock": shard / "LOCK"}.get(how, shard / "CURRENT"), how)
    before = contents(shard)
    outcome = carry_out(node, plan)
    assert outcome.deleted == ["00001", "00003"]
    assert word in kept(outcome)["00002"]
    assert contents(shard) == before


@pytest.mark.parametrize("how", ["database", "lock"])
def test_a_shard_that_a_process_opens_in_the_last_moment_is_put_back(
    how: str, node: Node, hold: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = node.shard_db / "00002"
    path = shard if how == "database" else shard / "LOCK"
    before_rename(monkeypatch, "00002", lambda: hold(path, how))
    outcome = carry_out(node)
    assert outcome.deleted == ["00001", "00003"]
    assert kept(outcome) in ({"00002": ["locked"]}, {"00002": ["changed"]})
    assert (shards(node), in_trash(node)) == (["00002"], [])
    assert ("kept", "00002") in events(node)


def test_a_shard_that_cannot_be_put_back_is_whole_in_the_trash_and_told(
    node: Node, hold: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = node.shard_db / "00002"
    whole = contents(shard)
    rename = os.rename

    def refuse(source: Any, target: Any, **settings: Any) -> None:
        if target == "00002":
            raise OSError(errno.EROFS, "Read-only file system")
        rename(source, target, **settings)

    monkeypatch.setattr(os, "rename", refuse)
    before_rename(monkeypatch, "00002", lambda: hold(shard / "LOCK", "lock"))
    outcome = carry_out(node)
    ((name, error),) = outcome.failed
    (left,) = in_trash(node)
    assert name == "00002"
    assert "whole in the trash" in error
    assert left in error
    assert contents(node.db / ".shardtool/trash" / left) == whole


# -- interrupted anywhere --


def whereabouts(node: Node, whole: dict[str, dict[str, bytes]]) -> None:
    """Assert that each shard is whole in its place, or in the trash, whole or being removed."""
    begun = {name for event, name in events(node) if event == "renamed"}
    gone = {name for event, name in events(node) if event == "deleted"}
    for name, files in whole.items():
        place = node.shard_db / name
        waiting = [entry for entry in in_trash(node) if entry.startswith(name)]
        if place.exists():
            assert contents(place) == files
            assert not waiting
        elif waiting:
            left = contents(node.db / ".shardtool/trash" / waiting[0])
            assert left == files or (name in begun and left.items() <= files.items())
        else:
            # All of its files may be gone a moment before the journal says so.
            assert name in gone | begun


def next_run_ends_it(node: Node) -> None:
    """Assert that one fresh run leaves what an uninterrupted one leaves."""
    outcome = carry_out(node)
    assert outcome.failed == []
    assert (shards(node), in_trash(node)) == ([], [])
    assert carry_out(node).run
    ends = [name for event, name in events(node) if event in ("deleted", "finished")]
    assert len(ends) == len(set(ends))


@pytest.mark.parametrize("lasting", [True, False])
@pytest.mark.parametrize("call", range(5))
def test_a_journal_that_cannot_be_written_ends_the_run_and_loses_nothing(
    call: int, lasting: bool, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = {name: contents(node.shard_db / name) for name in NAMES}
    real, calls = Journal.append_all, [0]

    def fail(journal: Journal, records: Any) -> None:
        calls[0] += 1
        if calls[0] == call + 1 or (lasting and calls[0] > call):
            raise ShardtoolError("the journal can't be written: no space")
        real(journal, records)

    monkeypatch.setattr(Journal, "append_all", fail)
    outcome = carry_out(node)
    monkeypatch.undo()
    assert calls[0] == call + 1
    assert outcome.failed
    whereabouts(node, whole)
    next_run_ends_it(node)


def test_no_file_goes_once_the_journal_is_lost(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(journal: Journal, records: Any) -> None:
        raise ShardtoolError("the journal can't be written: no space")

    monkeypatch.setattr(Journal, "append_all", fail)
    outcome = carry_out(node)
    assert (shards(node), outcome.deleted) == (NAMES, [])
    assert "the shard is in its place" in outcome.failed[0][1]


def lose_the_journal_after(calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let so many writes of the journal pass."""
    real, passed = Journal.append_all, [0]

    def fail(journal: Journal, records: Any) -> None:
        passed[0] += 1
        if passed[0] > calls:
            raise ShardtoolError("the journal can't be written: no space")
        real(journal, records)

    monkeypatch.setattr(Journal, "append_all", fail)


def test_every_shard_that_a_lost_journal_leaves_in_the_trash_is_told(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_the_journal_after(1, monkeypatch)
    outcome = carry_out(node)
    stranded = [entry.split(".")[0] for entry in in_trash(node)]
    assert stranded == NAMES
    assert sorted(name for name, _ in outcome.failed) == stranded


def test_what_failed_before_the_journal_was_lost_is_told_too(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, rename = plan_for(node), os.rename

    def refuse(source: Any, target: Any, **settings: Any) -> None:
        if source == "00001":
            raise PermissionError(1, "Operation not permitted")
        rename(source, target, **settings)

    monkeypatch.setattr(os, "rename", refuse)
    lose_the_journal_after(1, monkeypatch)
    outcome = carry_out(node, plan)
    assert [name for name, _ in outcome.failed] == NAMES
    assert "it is in its place" in outcome.failed[0][1]


def test_a_shard_that_was_kept_is_not_said_to_be_in_the_trash(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of a batch was kept, the others were renamed, then the journal is lost."""
    plan = plan_for(node)
    set_back(node.shard_db / "00001/CURRENT")
    lose_the_journal_after(1, monkeypatch)
    outcome = carry_out(node, plan)
    assert "00001" in shards(node)
    for name, error in outcome.failed:
        assert name != "00001" or "in the trash" not in error


CALLS = ["rename", "unlink", "rmdir", "fsync", "mkdir", "write"]


def interrupt_at(call: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Have Ctrl-C arrive just before the call-th change of the disk; return the count."""
    count = [0]

    def wrap(name: str) -> None:
        real = getattr(os, name)

        def interrupted(*args: Any, **settings: Any) -> Any:
            count[0] += 1
            if count[0] == call:
                raise KeyboardInterrupt
            return real(*args, **settings)

        monkeypatch.setattr(os, name, interrupted)

    for name in CALLS:
        wrap(name)
    return count


@pytest.mark.slow
def test_an_interruption_before_any_change_of_the_disk_loses_nothing(tmp_path: Path) -> None:
    call = 0
    while True:
        call += 1
        node = Node(tmp_path / f"{call}", phantoms=False)
        with node.holding_back_raft():
            for number in (1, 2):
                node.old_shard(number, points=1, marked_at=MARKED_AT)
        whole = {name: contents(node.shard_db / name) for name in NAMES[:2]}
        with pytest.MonkeyPatch.context() as patch:
            count = interrupt_at(call, patch)
            with contextlib.suppress(KeyboardInterrupt):
                carry_out(node)
        if count[0] < call:
            break
        whereabouts(node, whole)
        next_run_ends_it(node)
    assert call > 20


def test_a_file_that_cannot_go_is_told_and_the_next_run_finishes(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink = os.unlink

    def refuse(name: Any, *, dir_fd: int) -> None:
        if name == "CURRENT" and "/00001." in os.readlink(f"/proc/self/fd/{dir_fd}"):
            raise PermissionError(1, "Operation not permitted")
        unlink(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", refuse)
    outcome = carry_out(node)
    assert [name for name, _ in outcome.failed] == ["00001"]
    assert outcome.deleted == ["00002", "00003"]
    assert "CURRENT: Operation not permitted" in outcome.failed[0][1]
    records = Journal(layout_of(node)).read().records
    (told,) = [record for record in records if record["event"] == "failed"]
    assert (told["shard"], told["error"]) == outcome.failed[0]
    assert (told["trash"], told["freed_bytes"] > 0) == (f"00001.{outcome.run}", True)
    monkeypatch.undo()
    assert carry_out(node).finished == ["00001"]
    assert in_trash(node) == []


@pytest.mark.parametrize(("stuck", "more"), [(3, ""), (5, " and 2 more")])
def test_of_many_files_that_cannot_go_three_are_named_and_the_others_counted(
    stuck: int, more: str, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(stuck):
        (node.shard_db / f"00001/{number:06d}.ldb").touch()
    plan, unlink = plan_for(node, only=frozenset({"00001"})), os.unlink

    def refuse(name: Any, *, dir_fd: int) -> None:
        if str(name).endswith(".ldb"):
            raise PermissionError(1, "Operation not permitted")
        unlink(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", refuse)
    ((name, error),) = carry_out(node, plan).failed
    assert error.count(".ldb: Operation not permitted") == 3
    assert error.endswith("not permitted" + more)
    assert events(node)[-1] == ("failed", name)


def test_a_disk_that_becomes_read_only_leaves_the_shards_in_their_place(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = {name: contents(node.shard_db / name) for name in NAMES}

    def refuse(*args: Any, **settings: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    plan = plan_for(node)
    monkeypatch.setattr(os, "rename", refuse)
    outcome = carry_out(node, plan)
    assert [name for name, _ in outcome.failed] == NAMES
    assert {name: contents(node.shard_db / name) for name in NAMES} == whole


# -- what an interrupted run left --


def interrupted_after_rename(node: Node, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Interrupt a prune of shard 2 between its rename and the journal's word for it."""
    plan = plan_for(node, only=frozenset({"00002"}))
    with monkeypatch.context() as patch:
        lose_the_journal_after(1, patch)
        carry_out(node, plan)
    (left,) = in_trash(node)
    return node.db / ".shardtool/trash" / left


def test_a_whole_leftover_that_is_as_it_was_is_removed(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted_after_rename(node, monkeypatch)
    outcome = carry_out(node, plan_for(node, only=frozenset()))
    assert (outcome.finished, outcome.put_back) == (["00002"], [])
    assert in_trash(node) == []


def test_a_whole_leftover_that_changed_is_put_back_with_what_it_has_now(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = interrupted_after_rename(node, monkeypatch)
    (left / "999999.ldb").write_bytes(b"values")
    outcome = carry_out(node, plan_for(node, only=frozenset()))
    assert (outcome.finished, outcome.put_back) == ([], ["00002"])
    assert (node.shard_db / "00002/999999.ldb").read_bytes() == b"values"
    assert in_trash(node) == []


def test_a_put_back_is_on_disk_before_the_journal_tells_it(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = interrupted_after_rename(node, monkeypatch)
    (left / "999999.ldb").write_bytes(b"values")
    plan = plan_for(node, only=frozenset())
    seen = syncs_and_events(monkeypatch)
    carry_out(node, plan)
    assert {"trash", "shard_db"} <= set(seen[: seen.index("put-back")])
    assert events(node)[-1] == ("put-back", "00002")


def test_a_leftover_that_cannot_go_is_told_and_the_next_run_finishes(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = interrupted_after_rename(node, monkeypatch)
    plan, unlink = plan_for(node, only=frozenset()), os.unlink

    def refuse(name: Any, *, dir_fd: int) -> None:
        if name == "CURRENT":
            raise PermissionError(1, "Operation not permitted")
        unlink(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", refuse)
    outcome = carry_out(node, plan)
    assert (outcome.finished, [name for name, _ in outcome.failed]) == ([], ["00002"])
    assert (left / "CURRENT").exists()
    record = Journal(layout_of(node)).read().records[-1]
    assert (record["event"], record["error"]) == ("failed", outcome.failed[0][1])
    monkeypatch.undo()
    assert carry_out(node, plan_for(node, only=frozenset())).finished == ["00002"]
    assert events(node)[-1] == ("finished", "00002")


def test_a_whole_leftover_whose_content_changed_and_mtime_was_set_back_is_put_back(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = interrupted_after_rename(node, monkeypatch)
    set_back(left / "CURRENT")
    assert carry_out(node, plan_for(node, only=frozenset())).put_back == ["00002"]


def test_a_whole_leftover_that_a_process_has_open_is_put_back(
    node: Node, hold: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = interrupted_after_rename(node, monkeypatch)
    hold(left / "LOCK", "lock")
    assert carry_out(node, plan_for(node, only=frozenset())).put_back == ["00002"]


def test_a_leftover_whose_place_is_taken_stays_in_the_trash_and_is_told(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = interrupted_after_rename(node, monkeypatch)
    (left / "999999.ldb").write_bytes(b"values")
    node.old_shard(12, points=1).rename(node.shard_db / "00002")
    other = contents(node.shard_db / "00002")
    outcome = carry_out(node, plan_for(node, only=frozenset()))
    assert [name for name, _ in outcome.failed] == ["00002"]
    assert contents(node.shard_db / "00002") == other
    assert (left / "999999.ldb").exists()
    record = Journal(layout_of(node)).read().records[-1]
    assert (record["event"], record["error"]) == ("failed", outcome.failed[0][1])


def test_leftovers_are_finished_where_no_shard_db_is_left(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All shards are gone, so the operator removed the empty directory."""
    interrupted_after_rename(node, monkeypatch)
    shutil.rmtree(node.shard_db)
    outcome = carry_out(node)
    assert outcome.finished == ["00002"]


def test_what_the_journal_does_not_know_is_never_touched(
    node: Node, listing: Callable[[Path], Listing]
) -> None:
    trash = node.db / ".shardtool/trash"
    node.old_shard(9, points=1)
    trash.mkdir(parents=True)
    (node.shard_db / "00009").rename(trash / "00009.20261124T175153Z-4711")
    (trash / "00001.below.0").mkdir()
    (trash / "precious").mkdir()
    (trash / "precious/file").write_bytes(b"x")
    (trash / "00007.link").symlink_to(node.raft)
    (trash / "file").write_bytes(b"x")
    before = listing(trash)
    carry_out(node)
    after = listing(trash)
    for found in (before, after):
        del found["."]
    assert after == before


# -- hostile places --


@pytest.mark.parametrize("link", [".shardtool", ".shardtool/trash"])
def test_a_trash_that_is_a_link_is_refused_and_nothing_moves(
    link: str, node: Node, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (node.db / link).parent.mkdir(exist_ok=True)
    (node.db / link).symlink_to(elsewhere)
    plan = plan_for(node)
    with pytest.raises(ShardtoolError, match="directory of shardtool's own"):
        carry_out(node, plan)
    assert shards(node) == NAMES
    assert [path for path in elsewhere.rglob("*") if path.name.startswith("0000")] == []


def test_a_link_in_place_of_shardtools_own_directory_leads_to_nothing_being_made(
    node: Node, tmp_path: Path
) -> None:
    """Root must not be led to make, and to give away, a directory elsewhere."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (node.db / ".shardtool").symlink_to(elsewhere)
    plan = plan_for(node)
    with contextlib.suppress(ShardtoolError):
        carry_out(node, plan)
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("file", [".shardtool", ".shardtool/trash"])
def test_a_trash_that_is_a_file_is_refused_and_nothing_moves(file: str, node: Node) -> None:
    (node.db / file).parent.mkdir(exist_ok=True)
    (node.db / file).write_bytes(b"precious")
    with pytest.raises(ShardtoolError, match=r"\.shardtool"):
        carry_out(node)
    assert shards(node) == NAMES
    assert (node.db / file).read_bytes() == b"precious"


def test_a_shard_db_that_becomes_a_file_is_named_in_the_error(node: Node) -> None:
    plan, layout = plan_for(node), layout_of(node)
    node.shard_db.rename(node.path / "aside")
    node.shard_db.write_bytes(b"")
    with pytest.raises((ShardtoolError, OSError)) as error:
        execute(plan, layout, Outcome(), lambda names: None)
    assert ".shardtool" not in str(error.value)


def test_a_shard_db_on_another_disk_has_its_trash_there(
    node: Node, tmp_path: Path, mount: Mount
) -> None:
    disk = tmp_path / "disk2"
    disk.mkdir()
    mount(disk)
    shutil.move(node.shard_db, disk / "shard_db")
    node.shard_db.symlink_to(disk / "shard_db")
    outcome = carry_out(node)
    assert (outcome.deleted, outcome.failed) == (NAMES, [])
    assert os.listdir(disk / ".shardtool/trash") == []
    assert os.listdir(disk / "shard_db") == []


@pytest.mark.parametrize("what", ["tmpfs", "bind"])
def test_a_shard_db_that_is_a_mount_point_is_refused_before_anything_is_done(
    what: str, node: Node, tmp_path: Path, mount: Mount
) -> None:
    outside = tmp_path / "outside"
    node.shard_db.rename(outside)
    node.shard_db.mkdir()
    if what == "bind":
        mount(node.shard_db, source=outside)
    else:
        mount(node.shard_db)
        for shard in outside.iterdir():
            shutil.copytree(shard, node.shard_db / shard.name)
    with pytest.raises(ShardtoolError, match="mount point"):
        trash_of(layout_of(node))


def test_a_mount_below_a_shard_that_appears_after_the_plan_keeps_it(
    node: Node, tmp_path: Path, mount: Mount
) -> None:
    plan = plan_for(node)
    (tmp_path / "file").write_bytes(b"x")
    mount(node.shard_db / "00002/CURRENT", source=tmp_path / "file")
    outcome = carry_out(node, plan)
    assert "mount-point" in kept(outcome)["00002"]
    assert shards(node) == ["00002"]


@needs_root
def test_what_root_makes_belongs_to_the_owner_of_the_database(node: Node) -> None:
    os.chown(node.db, 4711, 4712)
    carry_out(node)
    own = node.db / ".shardtool"
    for path in (own, own / "trash", own / "journal"):
        assert (path.stat().st_uid, path.stat().st_gid) == (4711, 4712)
