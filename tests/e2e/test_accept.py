"""`shardtool accept`: losses are shown, counted back, recorded; and no others go with them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures import Node, Row, values
from fixtures.encode import microseconds
from tests.conftest import Hold, Listing, Run
from tests.e2e.proof_world import (
    Capture,
    List,
    document,
    events,
    kept,
    lose_one_value,
    new_of,
    not_ours,
    old_shards,
    prune,
    rewrite,
    verify,
)
from tests.e2e.terminal_world import Terminal

pytestmark = pytest.mark.preloaded

WHY = ("--because", "test data")


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """A node whose shard 1 loses 3 of its 40 values; shard 50 is proven, shard 60 not migrated."""
    made = Node(tmp_path / "data", version="0.8")
    for number in (1, 50, 60):
        made.old_shard(number, points=10, databases={"test": ("cpu",)})
    made.migrate(1, lose=3)
    made.migrate(50)
    return made


def refused(run: Run, node: Node, code: int, *words: str | Path) -> str:
    """Run an accept that fails with `code`; assert that nothing was recorded; return its line."""
    done = run("--data", node.path, "accept", *words)
    assert done.returncode == code, (done.stdout, done.stderr)
    (line,) = done.stderr.splitlines()
    assert line.startswith("shardtool: ")
    assert events(node.path, "accepted") == []
    assert kept(prune(run, node.path, "--yes", "--dry-run"))["00001"] == ["values-missing"]
    return line


# -- the count --


def test_the_losses_are_shown_and_their_number_is_typed_back(node: Node, shardtool: Run) -> None:
    terminal = Terminal("--data", node.path, "accept", "1", *WHY)
    shown = terminal.wait_for("Type their number to accept that:")
    assert "00001: 3 values of 40 would be lost with it" in shown
    assert "cpu" in shown
    terminal.type("3\n")
    assert terminal.end() == 0
    (record,) = events(node.path, "accepted")
    assert (record["shard"], record["because"]) == ("00001", "test data")
    assert (record["values"], record["missing"], record["different"]) == (40, 3, 0)


@pytest.mark.parametrize("answer", ["\n", "2\n", "4\n", "yes\n", "3 3\n", "03\n", "\x04", "-3\n"])
def test_another_answer_is_1_and_records_nothing(answer: str, node: Node, shardtool: Run) -> None:
    terminal = Terminal("--data", node.path, "accept", "1", *WHY)
    terminal.wait_for("Type their number to accept that:")
    terminal.type(answer)
    assert terminal.end() == 1
    assert "nothing was recorded" in terminal.shown
    assert events(node.path, "accepted") == []


def test_a_script_says_the_number(node: Node, shardtool: Run) -> None:
    done = shardtool("--data", node.path, "accept", "1", *WHY, "--missing", "3", "--json")
    found = document(done)
    assert done.returncode == 0
    assert (found["schema"], found["accepted"]) == ("shardtool/accept/1", True)
    assert (found["shard"], found["missing"], found["different"]) == ("00001", 3, 0)
    assert found["because"] == "test data"


@pytest.mark.slow
@pytest.mark.parametrize("number", ["0", "2", "4", "40", "-3"])
def test_another_number_is_1_and_records_nothing(number: str, node: Node, shardtool: Run) -> None:
    assert "expected 3" in refused(shardtool, node, 1, "1", *WHY, f"--missing={number}")


def test_different_values_count_as_lost(tmp_path: Path, shardtool: Run) -> None:
    node = Node(tmp_path / "data", version="0.8")
    node.old_shard(1, points=10)
    node.migrate(1, lose=2, change=3)
    accept = ("--data", node.path, "accept", "1", *WHY)
    assert shardtool(*accept, "--missing", "2").returncode == 1
    assert shardtool(*accept, "--missing", "5").returncode == 0
    assert prune(shardtool, node.path, "--yes")["deleted"] == ["00001"]


# -- wrong usage --


def test_nobody_to_ask_is_2(node: Node, shardtool: Run) -> None:
    assert "--missing" in refused(shardtool, node, 2, "1", *WHY)


def test_json_asks_nothing_and_is_2(node: Node, shardtool: Run) -> None:
    assert "--missing" in refused(shardtool, node, 2, "1", *WHY, "--json")


@pytest.mark.parametrize("because", ["", "  \t\n", "x" * 1001], ids=["empty", "blank", "too long"])
def test_a_reason_is_needed_and_has_its_limits(because: str, node: Node, shardtool: Run) -> None:
    refused(shardtool, node, 2, "1", "--because", because, "--missing", "3")


@pytest.mark.parametrize(
    "words",
    [["1", "--missing", "3"], [*WHY], ["1", "50", *WHY], ["1", *WHY, "--missing", "three"]],
    ids=["no reason", "no shard", "two shards", "no number"],
)
def test_wrong_words_are_2(words: list[str], node: Node, shardtool: Run) -> None:
    refused(shardtool, node, 2, *words)


# -- shards that can't be accepted --


def test_an_unknown_shard_is_1(node: Node, shardtool: Run) -> None:
    assert "00077" in refused(shardtool, node, 1, "77", *WHY, "--missing", "3")


def test_a_proven_shard_has_nothing_to_accept(node: Node, shardtool: Run) -> None:
    done = shardtool("--data", node.path, "accept", "50", *WHY, "--missing", "0")
    assert done.returncode == 0
    assert "nothing to accept" in done.stdout
    assert events(node.path, "accepted") == []


def test_an_unmigrated_shard_is_1(node: Node, shardtool: Run) -> None:
    assert "no-marker" in refused(shardtool, node, 1, "60", *WHY, "--missing", "40")


def test_a_shard_in_use_is_1(node: Node, shardtool: Run, hold: Hold) -> None:
    hold(node.shard_db / "00001/LOCK", "lock")
    done = shardtool("--data", node.path, "accept", "1", *WHY, "--missing", "3")
    assert done.returncode == 1
    assert "busy (locked" in done.stderr
    assert events(node.path, "accepted") == []


def unreadable_old(node: Node) -> None:
    """Take the MANIFEST from shard 1."""
    next(iter((node.shard_db / "00001").glob("MANIFEST-*"))).unlink()


def unreadable_new(node: Node) -> None:
    """Take the MANIFEST from shard 1's new shard."""
    next(iter(new_of(node, 1).path.glob("MANIFEST-*"))).unlink()


def unreadable_raft(node: Node) -> None:
    """Take raft away."""
    shutil.rmtree(node.raft)


@pytest.mark.slow
@pytest.mark.parametrize("harm", [unreadable_old, unreadable_new, unreadable_raft])
def test_what_cant_be_read_cant_be_accepted(
    harm: Callable[[Node], None], node: Node, shardtool: Run
) -> None:
    harm(node)
    for missing in ("0", "3", "40"):
        done = shardtool("--data", node.path, "accept", "1", *WHY, "--missing", missing)
        assert done.returncode == 1
        assert "unreadable" in done.stderr
    assert events(node.path, "accepted") == []


def test_a_suspect_shard_cant_be_accepted(node: Node, shardtool: Run) -> None:
    (node.shard_db / "00001/notes.txt").touch()
    done = shardtool("--data", node.path, "accept", "1", *WHY, "--missing", "3")
    assert done.returncode == 1
    assert "foreign-files" in done.stderr
    assert events(node.path, "accepted") == []


# -- afterwards --


def accepted(run: Run, node: Node, *words: str) -> None:
    """Accept shard 1's three losses."""
    done = run("--data", node.path, "accept", "1", *WHY, "--missing", "3", *words)
    assert done.returncode == 0, done.stderr


def test_nothing_but_our_own_directory_changes(node: Node, shardtool: Run, listing: List) -> None:
    def rest() -> Listing:
        # The journal makes db/.shardtool and so dates db.
        return {path: entry for path, entry in not_ours(listing(node.path)).items() if path != "db"}

    before = rest()
    accepted(shardtool, node)
    assert rest() == before


def test_prune_deletes_an_accepted_shard_on_that_evidence(node: Node, shardtool: Run) -> None:
    accepted(shardtool, node)
    assert verify(shardtool, node.path)["00001"]["accepted"]
    planned = prune(shardtool, node.path, "--dry-run")
    assert {one["id"]: one["evidence"] for one in planned["delete"]} == {
        "00001": "accepted",
        "00050": "proof",
    }
    prune(shardtool, node.path, "--yes")
    assert old_shards(node.path) == ["00060"]


def test_prune_on_receipts_alone_takes_it_too(node: Node, shardtool: Run) -> None:
    accepted(shardtool, node)
    assert prune(shardtool, node.path, "--no-verify", "--yes", "1")["deleted"] == ["00001"]


def test_history_shows_the_reason_and_the_counts_for_ever(node: Node, shardtool: Run) -> None:
    accepted(shardtool, node)
    prune(shardtool, node.path, "--yes", "1")
    records = document(shardtool("--data", node.path, "history", "--json"))["events"]
    (record,) = [one for one in records if one["event"] == "accepted"]
    assert record["because"] == "test data"
    assert (record["values"], record["missing"], record["different"]) == (40, 3, 0)
    assert sum(record["causes"].values()) == 3
    (deleted,) = [one for one in records if one["event"] == "deleted"]
    assert (deleted["evidence"], deleted["missing"]) == ("accepted", 3)
    text = shardtool("--data", node.path, "history").stdout
    assert "test data" in text
    assert "accepted" in text


def test_a_reason_reaches_the_terminal_escaped(node: Node, shardtool: Run) -> None:
    evil = "\x1b]0;owned\x07\nnext"
    accept = ("--data", node.path, "accept", "1", "--because", evil, "--missing", "3")
    assert shardtool(*accept).returncode == 0
    terminal = Terminal("--data", node.path, "history", NO_COLOR="1")
    assert terminal.end() == 0
    assert "\x1b" not in terminal.shown
    assert "\nnext" not in terminal.shown


def test_the_same_losses_need_no_second_acceptance(node: Node, shardtool: Run) -> None:
    accepted(shardtool, node)
    done = shardtool("--data", node.path, "accept", "1", *WHY)
    assert done.returncode == 0
    assert "accepted before" in done.stdout
    assert len(events(node.path, "accepted")) == 1


@pytest.mark.slow
def test_it_does_not_cover_a_value_that_is_lost_later(node: Node, shardtool: Run) -> None:
    accepted(shardtool, node)
    lose_one_value(new_of(node, 1).path)
    assert kept(prune(shardtool, node.path, "--yes", "1")) == {"00001": ["values-missing"]}
    assert "00001" in old_shards(node.path)
    # The four can be accepted as such.
    done = shardtool("--data", node.path, "accept", "1", *WHY, "--missing", "4")
    assert done.returncode == 0
    assert prune(shardtool, node.path, "--yes", "1")["deleted"] == ["00001"]


def test_it_does_not_cover_as_many_other_values(tmp_path: Path, shardtool: Run) -> None:
    """Three values back and three others lost: the number is the same, the losses are not."""
    node = Node(tmp_path / "data", version="0.8")
    node.old_shard(1, points=10, databases={"test": ("cpu",)})
    node.migrate(1)
    new = new_of(node, 1).path
    whole = tmp_path / "whole"
    shutil.copytree(new, whole)
    for _ in range(3):
        lose_one_value(new)
    accepted(shardtool, node)
    shutil.rmtree(new)
    shutil.copytree(whole, new)
    first = [key for key, _ in values(new)][:3]
    rewrite(new, lambda key, value: key not in first)
    assert verify(shardtool, node.path)["00001"]["missing"] == 3
    assert kept(prune(shardtool, node.path, "--yes")) == {"00001": ["values-missing"]}


def test_it_does_not_cover_a_value_that_the_old_shard_takes_later(
    node: Node, shardtool: Run
) -> None:
    accepted(shardtool, node)
    at = microseconds(node.old[1].start)
    node.write_old(1, [Row("test", "cpu", "n", at + 3, 90_001, 5)])
    assert kept(prune(shardtool, node.path, "--yes", "1")) == {"00001": ["values-missing"]}


def test_it_holds_when_something_else_is_written_to_the_new_side(
    node: Node, shardtool: Run
) -> None:
    """The same losses, in another state of the new shard: they are accepted still."""
    accepted(shardtool, node)
    at = microseconds(node.old[1].start)
    node.write_new([Row("test", "other", "n", at + 3, 90_001, 5)])
    assert prune(shardtool, node.path, "--yes", "1")["deleted"] == ["00001"]


def test_an_acceptance_of_one_shard_is_none_of_another(node: Node, shardtool: Run) -> None:
    node.old_shard(70, points=10, databases={"test": ("cpu",)})
    node.migrate(70, lose=3)
    accepted(shardtool, node)
    assert kept(prune(shardtool, node.path, "--yes", "1", "70")) == {"00070": ["values-missing"]}


def test_a_forged_line_in_the_journal_accepts_nothing(node: Node, shardtool: Run) -> None:
    verify(shardtool, node.path)
    journal = node.db / ".shardtool/journal"
    journal.write_text('{"schema": "shardtool/journal/1", "event": "accepted", "shard": "00001"}\n')
    assert "00001" in kept(prune(shardtool, node.path, "--yes", "1"))


@pytest.mark.slow
def test_the_real_future_shard_of_migrated_08_goes_once_accepted(
    capture: Capture, shardtool: Run
) -> None:
    data = capture("migrated-08")
    accept = ("--data", data, "accept", "23", "--because", "test data, dated into the future")
    assert shardtool(*accept, "--missing", "19").returncode == 1
    assert shardtool(*accept, "--missing", "20").returncode == 0
    assert prune(shardtool, data, "--yes", "23", "24")["deleted"] == ["00023"]


def test_another_shardtool_at_work_is_4(node: Node, shardtool: Run, hold: Hold) -> None:
    hold(node.db, "flock")
    done = shardtool("--data", node.path, "accept", "1", *WHY, "--missing", "3")
    assert done.returncode == 4
    assert events(node.path, "accepted") == []


@pytest.mark.slow
def test_status_counts_an_accepted_shard_as_reclaimable(node: Node, shardtool: Run) -> None:
    verify(shardtool, node.path)
    before = document(shardtool("--data", node.path, "status", "--json"))["totals"]
    accepted(shardtool, node)
    after = document(shardtool("--data", node.path, "status", "--json"))["totals"]
    planned = prune(shardtool, node.path, "--dry-run")["reclaimable_bytes"]
    assert before["reclaimable_bytes"] < after["reclaimable_bytes"] == planned


def test_quiet_hides_no_losses_from_whoever_is_asked_to_accept_them(node: Node) -> None:
    terminal = Terminal("--data", node.path, "accept", "1", "--because", "why", "--quiet")
    terminal.wait_for("Type their number")
    assert "would be lost" in terminal.shown
    terminal.type("no\n")
    assert terminal.end() == 1
