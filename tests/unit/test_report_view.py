"""All nodes as one: what is proven everywhere, what counts once, who is behind, what is unknown."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardtool.report.model import VERDICTS, Made, Node, OldShard, Proof, Raft
from shardtool.report.view import ClusterShard, Copy, View, unaccounted, view_of
from shardtool.report.words import headline, is_good, steps
from tests.report_world import gone, node, proof, report, shard


def of(view: View, number: int) -> ClusterShard:
    """Return one old shard of a view."""
    return next(one for one in view.shards if one.id == f"{number:05d}")


def server(number: int, of: int = 3) -> Raft:
    """Return the place of a node in a cluster."""
    return Raft(number, f"ab{number:02}", tuple(range(1, of + 1)), "")


def three(*nodes: Node) -> list[Node]:
    """Return nodes as servers 1, 2, ... of a cluster of that many."""
    return [replace(one, raft=server(at, len(nodes))) for at, one in enumerate(nodes, 1)]


def test_a_shard_is_proven_everywhere_only_where_each_copy_is() -> None:
    nodes = three(node("a", [shard(1), shard(2)]), node("b", [shard(1), shard(2, "marked")]))
    view = view_of(report(*nodes))
    assert of(view, 1).proven_everywhere
    assert not of(view, 2).proven_everywhere
    assert (of(view, 2).verdict, view.totals.proven_everywhere) == ("marked", 1)


def test_a_copy_that_went_on_proof_counts_as_proven_and_one_by_the_marker_does_not() -> None:
    by_proof = node("a", gone=(gone(1),))
    by_marker = node("a", gone=(gone(1, "marker"),))
    there = node("b", [shard(1)])
    assert of(view_of(report(*three(by_proof, there))), 1).proven_everywhere
    assert not of(view_of(report(*three(by_marker, there))), 1).proven_everywhere


def test_a_shard_that_is_nowhere_any_more_is_gone_and_no_old_shard() -> None:
    view = view_of(report(*three(node("a", gone=(gone(1),)), node("b", gone=(gone(1),)))))
    assert (view.totals.old_shards, view.totals.gone) == (0, 1)
    assert headline(view) == "No old shard is left: 1 was deleted."


def test_a_shard_of_a_server_without_a_report_is_not_proven_everywhere() -> None:
    one = node("a", [shard(1, servers=(1, 3))], raft=server(1))
    two = node("b", [], raft=server(2))
    view = view_of(report(one, two))
    assert of(view, 1).unreported == (3,)
    assert not of(view, 1).proven_everywhere
    assert view.problems == ("no report of server 3 of the cluster",)
    assert not is_good(report(one, two), view)


def test_a_copy_that_raft_tells_of_and_nobody_deleted_is_absent() -> None:
    view = view_of(report(*three(node("a", [shard(1, servers=(1, 2))]), node("b", [shard(2)]))))
    assert of(view, 1).copies[1] == Copy(1, "absent", "", is_proven=False, is_accepted=False)
    assert not of(view, 1).proven_everywhere


def test_losses_of_two_copies_are_the_same_values_where_their_digests_say_so() -> None:
    same = [node(host, [shard(1, "incomplete", lost=7)]) for host in "ab"]
    assert view_of(report(*three(*same))).totals.lost == 7
    other = proof(missing=5, losses_digest="9" * 64)
    differ = [same[0], node("b", [shard(1, "incomplete", proof=other)])]
    assert view_of(report(*three(*differ))).totals.lost == 12


@pytest.mark.parametrize("found", [None, proof(holds=False)])
def test_the_word_proven_without_a_proof_that_holds_proves_nothing(found: Proof | None) -> None:
    view = view_of(report(node("a", [shard(1, proof=found)])))
    assert not of(view, 1).proven_everywhere


def test_the_sentence_says_of_which_servers_nothing_is_known() -> None:
    there = [node("a", [shard(1)], raft=server(1, 4)), node("b", raft=server(2, 4))]
    assert headline(view_of(report(*there))).endswith("; nothing is known of server 3, server 4.")
    done = [node(host, gone=(gone(1),), raft=server(at)) for at, host in enumerate("ab", 1)]
    assert headline(view_of(report(*done))) == (
        "No old shard is left: 1 was deleted; nothing is known of server 3."
    )


def test_what_one_server_knows_to_be_missing_is_not_elsewhere() -> None:
    unsure = node("a", [shard(1, "incomplete", proof=proof(missing=7, elsewhere=True))])
    sure = node("b", [shard(1, "incomplete", lost=7)])
    assert view_of(report(*three(unsure))).totals.elsewhere_values == 7
    assert view_of(report(*three(unsure, sure))).totals.elsewhere_values == 0


def test_values_of_what_is_not_migrated_yet_are_not_lost() -> None:
    waiting = shard(1, "unmigrated", proof=proof(missing=100))
    view = view_of(report(node("a", [waiting])))
    assert view.totals.lost == 0
    assert headline(view) == "1 old shard, not migrated yet."


def test_a_proof_that_does_not_hold_counts_for_nothing() -> None:
    stale = proof(missing=7, holds=False, why_not="new-side-changed")
    view = view_of(report(node("a", [shard(1, "marked", proof=stale)])))
    assert (view.totals.values, view.totals.lost) == (0, 0)


def test_nodes_at_an_earlier_stage_are_behind_and_come_first() -> None:
    nodes = three(
        node("a"),
        node("b", stage="upgraded", next="shardtool check"),
        node("c", stage="done", next=None),
    )
    made = report(*nodes)
    view = view_of(made)
    assert [one.is_behind for one in view.nodes] == [False, True, False]
    assert [(who, command) for who, command, _ in steps(made, view)] == [
        ("b", "shardtool check"),
        ("a", "shardtool prune --dry-run"),
    ]


def test_an_empty_node_is_never_behind() -> None:
    view = view_of(report(*three(node("a"), node("b", stage="empty"))))
    assert not any(one.is_behind for one in view.nodes)


def test_two_nodes_of_one_server_number_are_told() -> None:
    nodes = [node(host, raft=server(1, 1)) for host in ("a", "b")]
    (problem,) = view_of(report(*nodes)).problems
    assert problem.startswith("a, b are each server 1: not of one cluster")


def test_reports_that_are_days_apart_are_told() -> None:
    old = node("b", made=Made("0.1.0", "b", "2026-11-20T20:41:00Z", "x"))
    assert view_of(report(*three(node("a"), old))).problems == (
        "b: its report is 6d older than the newest",
    )


def test_reports_that_are_all_old_are_told() -> None:
    made = report(*three(node("a"), node("b")))
    later = replace(made, made=replace(made.made, at="2027-01-05T20:41:00Z"))
    (problem,) = view_of(later).problems
    assert problem == "the newest report is 40d old: much may have changed; make them anew"


def test_nodes_of_one_host_are_told_apart_by_their_directories() -> None:
    nodes = [node("a", data="/one"), node("a", data="/two"), node("b", data="/one")]
    assert [one.label for one in view_of(report(*nodes)).nodes] == ["a:/one", "a:/two", "b"]


def test_nodes_of_one_host_and_directory_are_told_apart_by_their_servers() -> None:
    nodes = three(node("a"), node("a", made=Made("0.1.0", "a", "2026-11-20T20:41:00Z", "x")))
    view = view_of(report(*nodes))
    old = "a:/opt/influxdb/shared/data (server 2)"
    assert [one.label for one in view.nodes] == [old.replace("2", "1"), old]
    assert view.problems == (f"{old}: its report is 6d older than the newest",)


def test_a_node_alone_says_that_there_are_others_and_is_no_problem() -> None:
    alone = node("a", [shard(1, servers=(1, 2, 3))], raft=server(1))
    view = view_of(report(alone))
    assert view.problems == ()
    assert of(view, 1).proven_everywhere  # as far as this node is asked for
    assert unaccounted(alone).startswith("server 1 of 3: 2 others have old shards")
    assert unaccounted(node("a", raft=server(1, 1))) == ""


@pytest.mark.parametrize(
    ("shards", "sentence"),
    [
        ([], "There are no old shards here."),
        ([shard(1)], "1 old shard, it is proven; each of 100 values is in the new storage."),
        (
            [shard(1), shard(2)],
            "2 old shards, all are proven; each of 200 values is in the new storage.",
        ),
        (
            [shard(1), shard(2, "incomplete", lost=1)],
            "1 of 2 old shards is proven; 1 value of 1 shard exists nowhere else.",
        ),
        (
            [
                shard(1, "incomplete", proof=proof(missing=3, accepted=True)),
                shard(2, "incomplete", lost=4),
                shard(3, "marked"),
                shard(4, "unreadable"),
            ],
            "0 of 4 old shards are proven; 7 values of 2 shards exist nowhere else "
            "(3 of them accepted); 1 is marked and not proven; 1 is unreadable.",
        ),
        (
            [shard(1, "incomplete", proof=proof(missing=3, accepted=True))],
            "1 old shard, not proven; 3 values of 1 shard exist nowhere else, which was accepted.",
        ),
    ],
)
def test_the_state_in_one_sentence(shards: list[OldShard], sentence: str) -> None:
    assert headline(view_of(report(node("a", shards)))) == sentence


SHARDS = st.builds(
    lambda number, verdict, lost: shard(number, verdict, lost=lost),
    st.integers(1, 30),
    st.sampled_from(VERDICTS),
    st.integers(0, 9),
)
NODES = st.lists(
    st.builds(
        lambda shards, deleted: node(
            shards=sorted({one.id: one for one in shards}.values(), key=lambda one: one.id),
            gone=tuple(gone(n) for n in deleted if f"{n:05d}" not in {s.id for s in shards}),
        ),
        st.lists(SHARDS, max_size=12),
        st.sets(st.integers(1, 30), max_size=5),
    ),
    min_size=1,
    max_size=4,
)


@given(NODES)
def test_the_view_agrees_with_its_nodes(found: list[Node]) -> None:
    nodes = three(*(replace(n, made=replace(n.made, host=f"h{i}")) for i, n in enumerate(found)))
    view = view_of(report(*nodes))
    assert len({one.id for one in view.shards}) == len(view.shards)
    for one in view.shards:
        copies = [(c.node, c.verdict) for c in one.copies]
        there = [(i, s.verdict) for i, n in enumerate(nodes) for s in n.shards if s.id == one.id]
        deleted = [(i, "gone") for i, n in enumerate(nodes) for g in n.gone if g.id == one.id]
        assert copies == sorted(there + deleted)
        everywhere = all(verdict in ("proven", "gone") for _, verdict in copies)
        assert one.proven_everywhere == everywhere
        assert one.is_there == bool(there)
    assert view.totals.old_shards + view.totals.gone == len(view.shards)
    assert sum(view.totals.verdicts.values()) == view.totals.old_shards
    assert sum(one.old_shards for one in view.nodes) == sum(len(n.shards) for n in nodes)
    assert headline(view).endswith(".")
    assert headline(view).count(".") == 1


@given(NODES, st.randoms(use_true_random=False))
def test_the_order_of_the_nodes_changes_no_total(found: list[Node], random: Random) -> None:
    nodes = [replace(n, made=replace(n.made, host=f"h{i}")) for i, n in enumerate(found)]
    shuffled = nodes[:]
    random.shuffle(shuffled)
    assert view_of(report(*nodes)).totals == view_of(report(*shuffled)).totals
