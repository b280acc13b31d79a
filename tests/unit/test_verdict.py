"""The verdict over an old shard, from its facts alone: no disk is touched here."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardtool.datadir.holders import OpenFile
from shardtool.datadir.inventory import OldShard, is_shard_name
from shardtool.datadir.marker import Marker
from shardtool.datadir.verdict import (
    Evidence,
    Judged,
    Reason,
    as_found,
    judge,
    reclaimable_together,
)
from shardtool.disk.locks import Lock, LockState
from shardtool.disk.tree import LinkedFile, Oddity, Tree, reclaimable_links

SOUND = Marker(present=True, written_at_ns=1_000)
MARKED = OldShard("00007", marker=SOUND, tree=Tree(inode=1, files=8), has_database=True)


def words(judged: Judged) -> list[str]:
    """Return the reasons' words alone."""
    return [reason.word for reason in judged.reasons]


def with_oddity(kind: str, path: str = "x", detail: str = "") -> OldShard:
    """Return a marked shard with one odd thing in it."""
    return replace(MARKED, tree=replace(MARKED.tree, oddities=(Oddity(path, kind, detail),)))


def test_a_shard_with_a_sound_marker_and_nothing_else_to_say_is_marked() -> None:
    assert (judge(MARKED).verdict, words(judge(MARKED))) == ("marked", [])


def test_a_shard_without_a_marker_is_unmigrated() -> None:
    judged = judge(replace(MARKED, marker=Marker()))
    assert (judged.verdict, words(judged)) == ("unmigrated", ["no-marker"])


@pytest.mark.parametrize("name", ["7", "007", "000007", "lost+found", "00007~", "0000\u0667", ""])
def test_what_no_server_names_so_is_no_shard_however_sound_its_marker(name: str) -> None:
    judged = judge(replace(MARKED, name=name))
    assert (judged.verdict, words(judged), judged.is_shard) == ("suspect", ["not-a-shard"], False)


@pytest.mark.parametrize("kind", ["file", "special"])
def test_a_file_with_a_shards_name_is_no_shard(kind: str) -> None:
    judged = judge(OldShard("00007", kind))
    assert (judged.verdict, words(judged)) == ("suspect", ["not-a-shard"])


def test_a_symlinked_shard_is_suspect() -> None:
    judged = judge(OldShard("00007", "symlink"))
    assert (judged.verdict, words(judged)) == ("suspect", ["symlink"])


def test_a_shard_with_something_mounted_is_suspect() -> None:
    judged = judge(replace(MARKED, mounts=("/data/db/shard_db/00007",)))
    assert (judged.verdict, words(judged)) == ("suspect", ["mount-point"])


def test_a_mount_that_only_the_walk_met_counts_as_well() -> None:
    judged = judge(with_oddity("mount-point"))
    assert (judged.verdict, words(judged)) == ("suspect", ["mount-point"])


def test_a_directory_without_a_database_is_no_shard_though_it_is_marked() -> None:
    judged = judge(replace(MARKED, has_database=False))
    assert (judged.verdict, words(judged)) == ("suspect", ["not-a-shard"])


@pytest.mark.parametrize("kind", ["symlink", "socket", "fifo", "device", "directory"])
def test_a_shard_with_something_in_it_that_is_no_file_is_suspect(kind: str) -> None:
    judged = judge(with_oddity(kind))
    assert (judged.verdict, words(judged)) == ("suspect", ["foreign-files"])
    assert kind in judged.reasons[0].detail


def test_a_shard_with_somebody_elses_files_is_suspect_and_one_of_them_is_named() -> None:
    judged = judge(replace(MARKED, foreign=("notes.txt", "precious.tar")))
    assert (judged.verdict, words(judged)) == ("suspect", ["foreign-files"])
    assert judged.reasons[0].detail.startswith("notes.txt and 1 more")


@pytest.mark.parametrize("problem", ["marker-not-a-file", "marker-content"])
def test_a_wrong_marker_makes_a_shard_suspect(problem: str) -> None:
    judged = judge(replace(MARKED, marker=Marker(True, 1_000, problem, "a directory")))
    assert (judged.verdict, words(judged)) == ("suspect", [problem])


def test_a_marker_that_is_a_directory_is_not_told_twice() -> None:
    marker = Marker(True, 1_000, "marker-not-a-file", "a directory")
    shard = replace(with_oddity("directory", "MIGRATED"), marker=marker)
    assert words(judge(shard)) == ["marker-not-a-file"]


def test_a_marker_that_cannot_be_read_is_never_fine() -> None:
    marker = Marker(True, 1_000, "marker-unreadable", "Permission denied")
    judged = judge(replace(MARKED, marker=marker))
    assert (judged.verdict, words(judged)) == ("unreadable", ["marker-unreadable"])


@pytest.mark.parametrize(
    "shard",
    [
        replace(MARKED, error="Permission denied"),
        OldShard("00007", error="Input/output error"),
        with_oddity("unreadable", "000005.ldb", "Input/output error"),
    ],
)
def test_what_cannot_be_read_is_unreadable(shard: OldShard) -> None:
    judged = judge(shard)
    assert (judged.verdict, words(judged)) == ("unreadable", ["unreadable"])


def test_a_hundred_unreadable_files_are_one_reason() -> None:
    odd = tuple(Oddity(f"{n}", "unreadable", "EIO") for n in range(100))
    assert words(judge(replace(MARKED, tree=Tree(oddities=odd)))) == ["unreadable"]


def test_a_shard_that_is_locked_is_busy_and_the_process_is_named() -> None:
    judged = judge(replace(MARKED, lock=LockState(Lock.HELD, 4711)))
    assert (judged.verdict, words(judged), judged.in_use) == ("busy", ["locked"], "yes")
    assert "4711" in judged.reasons[0].detail


def test_a_holder_in_another_pid_namespace_is_a_holder() -> None:
    judged = judge(replace(MARKED, lock=LockState(Lock.HELD)))
    assert judged.verdict == "busy"
    assert "None" not in judged.reasons[0].detail


def test_a_shard_with_a_file_open_elsewhere_is_busy() -> None:
    judged = judge(replace(MARKED, open_files=(OpenFile(9, "cat", "/x/00007/000005.ldb"),)))
    assert (judged.verdict, words(judged), judged.in_use) == ("busy", ["open-files"], "yes")


def test_a_lock_that_cannot_be_looked_at_is_unknown_and_speaks_against_deletion() -> None:
    judged = judge(replace(MARKED, lock=LockState(Lock.UNKNOWN)))
    assert (judged.in_use, words(judged)) == ("unknown", ["lock-unknown"])


def test_where_processes_could_not_be_looked_into_it_is_unknown_not_free() -> None:
    assert judge(replace(MARKED, open_files_known=False)).in_use == "unknown"


def test_a_shard_that_nobody_has_open_is_free() -> None:
    assert judge(MARKED).in_use == "no"


def test_busy_is_said_before_a_wrong_marker_and_both_reasons_are_given() -> None:
    marker = Marker(True, 1_000, "marker-content", "an empty file")
    judged = judge(replace(MARKED, marker=marker, lock=LockState(Lock.HELD, 1)))
    assert (judged.verdict, words(judged)) == ("busy", ["locked", "marker-content"])


def test_a_wrong_structure_is_said_before_busy() -> None:
    shard = replace(with_oddity("symlink"), lock=LockState(Lock.HELD, 1))
    assert judge(shard).verdict == "suspect"


@pytest.mark.parametrize("name", ["000005.ldb", "000005.sst", "000005.log"])
def test_a_shard_with_a_table_or_log_newer_than_its_marker_is_suspect(name: str) -> None:
    judged = judge(replace(MARKED, tree=replace(MARKED.tree, newer=(name,))))
    assert (judged.verdict, words(judged)) == ("suspect", ["written-after-marker"])
    assert name in judged.reasons[0].detail


@pytest.mark.parametrize(
    "shard",
    [
        MARKED,
        replace(MARKED, marker=Marker()),
        replace(MARKED, lock=LockState(Lock.HELD, 1)),
        replace(MARKED, foreign=("notes",)),
        replace(MARKED, error="EIO"),
    ],
)
def test_only_a_marked_shard_has_anything_to_reclaim(shard: OldShard) -> None:
    judged = judge(replace(shard, tree=replace(shard.tree, reclaimable_bytes=4096)))
    assert judged.reclaimable_bytes == (4096 if judged.verdict == "marked" else 0)


# -- any facts whatever --

ODDITIES = st.builds(
    Oddity,
    st.sampled_from(["MIGRATED", "x", "000005.ldb"]),
    st.sampled_from(["directory", "symlink", "fifo", "mount-point", "unreadable"]),
    st.just("why"),
)
MARKERS = st.builds(
    Marker,
    st.booleans(),
    st.none() | st.integers(0, 10**19),
    st.sampled_from(["", "marker-not-a-file", "marker-content", "marker-unreadable"]),
    st.just("what"),
)
SHARDS = st.builds(
    OldShard,
    st.sampled_from(["00007", "123456", "7", "lost+found", "\x1b[2J"]),
    st.sampled_from(["directory", "symlink", "file", "special"]),
    MARKERS,
    st.builds(
        Tree,
        newer=st.lists(st.sampled_from(["LOG", "000009.log"])).map(tuple),
        oddities=st.lists(ODDITIES, max_size=3).map(tuple),
    ),
    st.booleans(),
    st.lists(st.just("notes"), max_size=1).map(tuple),
    st.builds(LockState, st.sampled_from(Lock)),
    st.lists(st.just(OpenFile(1, "p", "/f")), max_size=1).map(tuple),
    st.booleans(),
    st.lists(st.just("/m"), max_size=1).map(tuple),
    st.sampled_from(["", "EIO"]),
)


@given(SHARDS)
def test_whatever_the_facts_a_verdict_other_than_marked_has_a_reason(shard: OldShard) -> None:
    judged = judge(shard)
    assert judged.verdict in ("unmigrated", "marked", "suspect", "busy", "unreadable")
    assert judged.verdict == "marked" or judged.reasons


@given(SHARDS)
def test_whatever_the_facts_only_a_sound_shard_is_marked(shard: OldShard) -> None:
    if judge(shard).verdict == "marked":
        assert is_shard_name(shard.name)
        assert shard.kind == "directory"
        assert shard.marker.valid
        assert shard.has_database
        assert shard.lock.state is not Lock.HELD
        assert not (shard.error or shard.mounts or shard.open_files or shard.foreign)
        assert all(oddity.path == "MIGRATED" for oddity in shard.tree.oddities)
        assert "000009.log" not in shard.tree.newer


@given(st.one_of(st.integers(0, 1 << 80).map(str), st.text("0123456789", max_size=30), st.text()))
def test_a_shards_name_is_what_the_server_writes_for_its_number(name: str) -> None:
    is_number = name.isascii() and name.isdigit()
    assert is_shard_name(name) == (is_number and len(name) < 21 and f"{int(name):05d}" == name)


@given(st.integers(0, (1 << 64) - 1))
def test_every_number_that_the_server_can_have_is_a_shards_name(number: int) -> None:
    assert is_shard_name(f"{number:05d}")


def test_a_name_of_thousands_of_digits_is_no_shard_and_no_crash() -> None:
    assert not is_shard_name("9" * 5000)


# -- what comes back --

# Two trees on one file system agree about a file's number of names and its blocks.
WORLDS = st.dictionaries(
    st.integers(1, 5),
    st.tuples(st.integers(2, 4), st.integers(0, 1 << 40)),
    max_size=5,
)


@st.composite
def shares(draw: st.DrawFn) -> list[tuple[LinkedFile, ...]]:
    """Draw files with several names, dealt out to some trees and to nowhere."""
    trees: list[list[LinkedFile]] = [[] for _ in range(draw(st.integers(1, 4)))]
    for inode, (links, size) in draw(WORLDS).items():
        places = draw(st.lists(st.integers(0, len(trees)), min_size=links, max_size=links))
        for number, tree in enumerate(trees):
            if seen := places.count(number):
                tree.append(LinkedFile(1, inode, links, seen, size))
    return [tuple(tree) for tree in trees]


@given(shares())
def test_never_more_comes_back_than_is_allocated(trees: list[tuple[LinkedFile, ...]]) -> None:
    for linked in trees:
        assert 0 <= reclaimable_links(linked) <= sum(file.allocated_bytes for file in linked)
    everything = tuple(file for linked in trees for file in linked)
    sizes = {file.inode: file.allocated_bytes for file in everything}
    assert reclaimable_links(everything) <= sum(sizes.values())


@given(shares())
def test_the_more_goes_the_more_comes_back(trees: list[tuple[LinkedFile, ...]]) -> None:
    gone: tuple[LinkedFile, ...] = ()
    before = 0
    for linked in trees:
        gone += linked
        assert reclaimable_links(gone) >= before + reclaimable_links(linked)
        before = reclaimable_links(gone)


@given(shares(), st.integers(0, 1 << 30))
def test_shards_together_give_back_at_least_what_each_gives_alone(
    trees: list[tuple[LinkedFile, ...]], single: int
) -> None:
    judged = tuple(
        judge(
            replace(
                MARKED,
                tree=Tree(
                    linked=linked,
                    allocated_bytes=single + sum(file.allocated_bytes for file in linked),
                    reclaimable_bytes=single + reclaimable_links(linked),
                ),
            )
        )
        for linked in trees
    )
    together = reclaimable_together(judged)
    assert together >= sum(j.shard.tree.reclaimable_bytes for j in judged)
    assert together <= sum(j.shard.tree.allocated_bytes for j in judged)


def test_a_file_that_two_shards_share_comes_back_when_both_go() -> None:
    half = LinkedFile(1, 7, links=2, seen=1, allocated_bytes=4096)
    assert (reclaimable_links((half,)), reclaimable_links((half, half))) == (0, 4096)


def test_a_file_with_a_name_elsewhere_never_comes_back() -> None:
    third = LinkedFile(1, 7, links=3, seen=1, allocated_bytes=4096)
    assert reclaimable_links((third, third)) == 0


def test_the_same_inode_number_on_two_devices_is_two_files() -> None:
    one, other = (LinkedFile(device, 7, 2, 1, 4096) for device in (1, 2))
    assert reclaimable_links((one, other)) == 0


# -- with a proof --

WHOLE = Evidence(values=10)
LOSSES = Evidence(values=10, missing=2, different=1)


def test_a_marked_shard_whose_every_value_was_found_is_proven() -> None:
    assert (judge(MARKED, WHOLE).verdict, words(judge(MARKED, WHOLE))) == ("proven", [])


def test_a_marked_shard_with_losses_is_incomplete_and_says_how_many() -> None:
    judged = judge(MARKED, LOSSES)
    assert (judged.verdict, words(judged)) == ("incomplete", ["values-missing", "values-different"])
    assert "2 of 10" in judged.reasons[0].detail
    assert judged.reclaimable_bytes == 0


def test_an_unmigrated_shard_stays_that_and_verify_counts_it_all_the_same() -> None:
    unmarked = replace(MARKED, marker=Marker())
    assert words(judge(unmarked, LOSSES)) == ["no-marker"]
    assert judge(unmarked, WHOLE).verdict == judge(unmarked, LOSSES).verdict == "unmigrated"
    assert as_found(judge(unmarked, LOSSES)).verdict == "incomplete"
    assert (as_found(judge(unmarked, WHOLE)).verdict) == "proven"
    assert words(as_found(judge(unmarked, WHOLE))) == ["no-marker"]
    assert as_found(judge(unmarked)) == judge(unmarked)


def test_a_proof_ends_the_doubt_about_what_was_written_after_the_marker() -> None:
    later = replace(MARKED, tree=replace(MARKED.tree, newer=("000005.ldb",)))
    assert judge(later).verdict == "suspect"
    assert (judge(later, WHOLE).verdict, words(judge(later, WHOLE))) == ("proven", [])
    assert judge(later, LOSSES).verdict == "incomplete"


def test_a_proof_ends_no_doubt_about_who_wrote_the_marker_or_the_files() -> None:
    forged = replace(MARKED, marker=replace(MARKED.marker, problem="marker-content"))
    assert (judge(forged, WHOLE).verdict, words(judge(forged, WHOLE))) == (
        "suspect",
        ["marker-content"],
    )
    strange = replace(MARKED, foreign=("notes",))
    assert judge(strange, WHOLE).verdict == "suspect"
    assert words(judge(strange, LOSSES))[0] == "foreign-files"


def test_what_is_in_use_or_unreadable_is_so_whatever_was_proven() -> None:
    assert judge(replace(MARKED, lock=LockState(Lock.HELD)), WHOLE).verdict == "busy"
    assert judge(replace(MARKED, error="Input/output error"), WHOLE).verdict == "unreadable"


def test_a_lock_that_cannot_be_looked_at_is_still_a_reason_beside_a_proof() -> None:
    unknown = replace(MARKED, lock=LockState(Lock.UNKNOWN))
    assert words(judge(unknown, WHOLE)) == ["lock-unknown"]


@pytest.mark.parametrize(("busy", "verdict"), [(False, "unreadable"), (True, "busy")])
def test_a_shard_that_could_not_be_proven_says_why(busy: bool, verdict: str) -> None:
    failed = Evidence(failure=Reason("engine-unreadable", "why"), busy=busy)
    assert judge(MARKED, failed).verdict == verdict
    assert words(judge(MARKED, failed)) == ["engine-unreadable"]


def test_values_that_may_be_on_other_servers_are_named() -> None:
    judged = judge(MARKED, Evidence(values=10, missing=2, elsewhere=True))
    assert words(judged) == ["values-missing", "on-other-servers"]
