"""Tests of the tests: each of these mistakes in a copy of the tree must make its test fail.

To add one, add a row: what is wrong, where, the old text and the new one, and the test that must
find it. `make planted` plants them all, one after the other.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.planted import Fault, insist_that_it_is_found, mistaken, plant


def power(world: str) -> str:
    """Name the test that cuts the power everywhere in a world."""
    test = "test_a_power_cut_breaks_no_law_and_a_rerun_finishes"
    return f"tests/faults/test_power_loss.py::{test}[{world}]"


def kill(world: str, part: int) -> str:
    """Name a part of the test that kills at every call in a world."""
    test = "test_a_kill_at_any_call_breaks_no_law_and_a_rerun_finishes"
    return f"tests/faults/test_every_kill.py::{test}[{world}-{part}]"


def around_renames(world: str) -> str:
    """Name the test that kills around the renames in a world."""
    test = "test_a_kill_around_any_rename_breaks_no_law_and_a_rerun_finishes"
    return f"tests/faults/test_every_kill.py::{test}[{world}]"


def swaps(name: str) -> str:
    """Name a test that swaps a link in at any look."""
    return f"tests/faults/test_swaps.py::test_{name}"


EXECUTE = "shardtool/prune/execute.py"
EVIDENCE = "shardtool/proof/evidence.py"
# The races of test_races need luck for a window of microseconds; these swap just in it.
REMOVED_LINK = (
    "tests/real/test_remove.py"
    "::test_a_directory_that_becomes_a_link_during_the_removal_is_not_followed"
)
WALKED_LINK = (
    "tests/real/tree/test_tree_trouble.py"
    "::test_a_directory_that_becomes_a_link_during_the_walk_is_not_followed"
)
PROOF = (
    "tests/e2e/prune_proof/test_prune_proof.py"
    "::test_a_change_in_the_moment_of_the_rename_puts_the_shard_back"
)
IN_TRASH = (
    "tests/real/prune/test_prune_evidence.py"
    "::test_what_was_left_in_the_trash_is_put_back_once_its_receipt_is_of_other"
)
ACCEPTANCE = (
    "tests/real/prune/test_prune_evidence.py"
    "::test_an_acceptance_ends_with_the_values_that_it_saw_though_the_losses_are_the_same"
)
ANSWERS = (
    "tests/real/receipts/test_receipts_evidence.py"
    "::test_what_rests_on_others_answers_is_left_out_of_all_that_is_known_and_nothing_else"
)
RESCUE = (
    "tests/real/test_rescue_ended.py"
    "::test_a_rescue_whose_server_fails_in_its_middle_is_journaled_as_failed"
)
SYNC_TREE = """\
            with opened(entry.path, READ_DIRECTORY_ITSELF, dir_fd=root) as descriptor:
                os.fsync(descriptor)
"""
SET_APART = """\
            os.rename(name, FORGOTTEN + name, src_dir_fd=store, dst_dir_fd=store)
"""
INTENT = "    _write(site, [_intent(d, site) for d in batch], in_place)\n"
RENAMED = "    _write(site, events, states)\n"
REMOVED = "    for deletion in renamed:\n        _remove_shard(deletion, site)\n"
STATES = "    states = {d.name: _WHOLE_IN_TRASH for d in renamed} or in_place\n"

FAULTS = (
    Fault(
        "the journal is not synced",
        "shardtool/journal.py",
        (("                os.fsync(journal)\n", ""),),
        power("accepted"),
    ),
    Fault(
        "the journal's name is not synced",
        "shardtool/journal.py",
        (("                    os.fsync(own)\n", ""),),
        power("accepted"),
    ),
    Fault(
        "a new directory's name is not synced",
        "shardtool/disk/durable.py",
        (("        os.fsync(dir_fd)\n", ""),),
        power("restored_elsewhere"),
    ),
    Fault(
        "the journal of a run that was killed is taken for durable",
        "shardtool/journal.py",
        (("                if not self._is_named:\n", "                if is_new:\n"),),
        power("accepted_after_a_kill"),
    ),
    Fault(
        "a torn line is not closed by the next writer",
        "shardtool/journal.py",
        (("(_TORN * bool(torn) + ", "("),),
        power("marked"),
    ),
    Fault(
        "a receipt gets its name before it is synced",
        "shardtool/disk/durable.py",
        (("            os.fsync(file)\n        os.rename(new", "        os.rename(new"),),
        power("verified"),
    ),
    Fault(
        "what has come to the trash is not synced before files go",
        EXECUTE,
        (("        os.fsync(site.trash)\n        if site", "        if site"),),
        power("marked"),
    ),
    Fault(
        "what has left shard_db is not synced before files go",
        EXECUTE,
        (("            os.fsync(site.shards)\n    except", "            pass\n    except"),),
        power("marked"),
    ),
    Fault(
        "the new storage is not synced before the old one goes",
        EXECUTE,
        (("        sync(directory)\n", "        pass\n"),),
        power("proven_by_what_is_not_synced"),
    ),
    Fault(
        "the names of the new shards are not synced before the old ones go",
        EXECUTE,
        ((", *((sync_directory, path) for path in above)]", "]"),),
        power("proven_by_what_is_not_synced"),
    ),
    Fault(
        "the intent is written after the rename",
        EXECUTE,
        ((INTENT, ""), (STATES, STATES + INTENT)),
        around_renames("marked"),
    ),
    Fault(
        "files go before the journal has the rename",
        EXECUTE,
        ((RENAMED + REMOVED, REMOVED + RENAMED),),
        kill("marked", 0),
    ),
    Fault(
        "a whole leftover goes without a record of its rename",
        EXECUTE,
        (('        if left.action == "remove" and not left.recorded:\n', "        if False:\n"),),
        kill("left_whole", 0),
    ),
    Fault(
        "what went right before a kill is never recorded",
        "shardtool/prune/trash.py",
        ((" + gone_unrecorded(trash, history, layout.old_shards)\n", "\n"),),
        kill("marked", 0),
    ),
    Fault(
        "a snapshot is not synced before it is named",
        "shardtool/snapshots/backup.py",
        (("                sync_tree(target)\n", ""),),
        power("backed_up"),
    ),
    Fault(
        "a snapshot's directories are not synced",
        "shardtool/disk/copy.py",
        (
            (
                SYNC_TREE,
                "            pass\n",
            ),
        ),
        power("backed_up"),
    ),
    Fault(
        "a snapshot's name is not synced",
        "shardtool/snapshots/backup.py",
        (("        os.fsync(directory)\n", "        pass\n"),),
        power("backed_up"),
    ),
    Fault(
        "a snapshot has its name from the beginning",
        "shardtool/snapshots/store.py",
        (('PARTIAL = ".partial-"', 'PARTIAL = ""'),),
        kill("backed_up", 0),
    ),
    Fault(
        "that the pending file of a restore is gone is not synced",
        "shardtool/snapshots/pending.py",
        (("        os.fsync(own)\n", ""),),
        power("restored"),
    ),
    Fault(
        "what a restore stages is not synced",
        "shardtool/snapshots/staging.py",
        (("            sync_tree(staged)\n", ""),),
        power("restored_elsewhere"),
    ),
    Fault(
        "the last rename of a restore is not synced",
        "shardtool/snapshots/swap.py",
        (
            (
                "src_dir_fd=parent, dst_dir_fd=parent)\n            os.fsync(parent)\n    return",
                "src_dir_fd=parent, dst_dir_fd=parent)\n    return",
            ),
        ),
        power("restored"),
    ),
    Fault(
        "a forgotten snapshot is removed under its name",
        "shardtool/snapshots/forget.py",
        (
            (
                SET_APART,
                "",
            ),
            ("remove_tree(store, FORGOTTEN + name)", "remove_tree(store, name)"),
        ),
        kill("forgotten", 0),
    ),
    Fault(
        "a forgotten snapshot's rename is not synced before files go",
        "shardtool/snapshots/forget.py",
        (("            os.fsync(store)\n", ""),),
        power("forgotten"),
    ),
    Fault(
        "a removal follows links",
        "shardtool/disk/remove.py",
        (
            (
                "import READ_DIRECTORY_ITSELF, opened\n",
                "import READ_DIRECTORY as READ_DIRECTORY_ITSELF, opened\n",
            ),
        ),
        REMOVED_LINK,
    ),
    Fault(
        "O_NOFOLLOW is dropped where directories are opened",
        "shardtool/disk/durable.py",
        (("READ_DIRECTORY | os.O_NOFOLLOW\n", "READ_DIRECTORY\n"),),
        WALKED_LINK,
    ),
    Fault(
        "an old shard's fingerprint is not looked at before it goes",
        EXECUTE,
        (
            ("tree.is_same_as(found.tree):\n", "tree:\n"),
            ("tree.is_same_as(found):\n", "tree:\n"),
        ),
        "tests/real/prune/test_prune_changes.py",
    ),
    Fault(
        "the new shards' fingerprint is not looked at before an old one goes",
        EXECUTE,
        (("    if receipt is None or NewSide(", "    if True or NewSide("),),
        PROOF,
    ),
    Fault(
        "a receipt holds whatever the old shard is by now",
        "shardtool/proof/receipts.py",
        (
            (
                "_state(layout.old_shards / receipt.shard) == receipt.finding.old_state",
                "True",
            ),
        ),
        "tests/real/receipts/test_receipts_hold.py::test_each_kind_of_change_on_either_side_ends_a_receipt",
    ),
    Fault(
        "what is in the trash goes though its shard's receipt is of other values by now",
        EVIDENCE,
        ((' or receipt.finding.digest != intent.get("digest"):\n', ":\n"),),
        f"{IN_TRASH}[values]",
    ),
    Fault(
        "what is in the trash goes on what other servers answered to a run that is over",
        EVIDENCE,
        (
            (
                "        if receipt.finding.asked:\n            return False ",
                "        if receipt.finding.asked:\n            pass ",
            ),
        ),
        f"{IN_TRASH}[answers]",
    ),
    Fault(
        "what other servers answered once is evidence for a deletion",
        EVIDENCE,
        (
            (
                "            if receipt.finding.asked:\n                self.forget(name)\n",
                "            if receipt.finding.asked:\n                self.reused.add(name)\n",
            ),
        ),
        ANSWERS,
    ),
    Fault(
        "an acceptance outlives the values that it saw",
        EVIDENCE,
        (
            ("(receipt.shard, finding.digest, ", '(receipt.shard, "", '),
            ('(str(r.get("shard")), str(r.get("digest")), ', '(str(r.get("shard")), "", '),
        ),
        ACCEPTANCE,
    ),
    Fault(
        "a rescue whose server fails is journaled as sent",
        "shardtool/cli/rescuing.py",
        (('    ended = "failed"\n', '    ended = "sent"\n'),),
        RESCUE,
    ),
    Fault(
        "a shard is read without a file whose link has gone",
        "shardtool/influxdb/engines.py",
        (
            (
                "            _require_links(links, names)\n            yield reader\n",
                "            yield reader\n",
            ),
        ),
        "tests/real/engines/test_engines_links.py",
    ),
    Fault(
        "the marker goes before the shard has left its place",
        EXECUTE,
        (
            (
                "    os.rename(deletion.name, name, src_dir_fd=site.shards",
                '    os.unlink(f"{deletion.name}/MIGRATED", dir_fd=site.shards)\n'
                "    os.rename(deletion.name, name, src_dir_fd=site.shards",
            ),
        ),
        kill("marked", 0),
    ),
    Fault(
        "the trash is made by a path that somebody may swap",
        "shardtool/prune/trash.py",
        (
            (
                "            made = made_directory(trash.name, dir_fd=own, like=layout.db)\n",
                "            make_directories(trash, like=layout.db)\n"
                "            made = opened(trash.name, READ_DIRECTORY_ITSELF, dir_fd=own)\n",
            ),
        ),
        swaps("prune_deletes_nothing_through_a_link_swapped_in_at_any_look[shardtool's own]"),
    ),
    Fault(
        "a restore notes what it does through whatever link there is",
        "shardtool/snapshots/pending.py",
        (
            (
                "    with opened(layout.own, READ_DIRECTORY_ITSELF) as own:\n        replace_file",
                "    with opened(layout.own, os.O_RDONLY | os.O_DIRECTORY) as own:\n"
                "        replace_file",
            ),
        ),
        swaps("restore_touches_nothing_through_a_link_swapped_in_at_any_look[db/.shardtool]"),
    ),
    Fault(
        "what is new is made through whatever link there is",
        "shardtool/disk/durable.py",
        (
            (
                "    os.mkdir(name, 0o700, dir_fd=dir_fd)\n"
                "    with opened(name, READ_DIRECTORY_ITSELF, dir_fd=dir_fd) as made:\n",
                "    os.mkdir(name, 0o700, dir_fd=dir_fd)\n"
                "    with opened(name, READ_DIRECTORY, dir_fd=dir_fd) as made:\n",
            ),
            ("    if os.listdir(descriptor):\n", "    if False:\n"),
        ),
        swaps("restore_touches_nothing_through_a_link_swapped_in_at_any_look[wal.restoring-*]"),
    ),
)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_row_is_of_the_code_as_it_is(fault: Fault) -> None:
    assert mistaken(fault)


@pytest.mark.planted
@pytest.mark.usefixtures("strace")
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_is_found(fault: Fault, tmp_path: Path) -> None:
    plant(fault, tmp_path / "copy")
    insist_that_it_is_found(fault, tmp_path / "copy")
