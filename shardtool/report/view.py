"""All nodes as one: which old shards are proven wherever they lie, what can be reclaimed where.

Pure: a function of the nodes' documents.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from shardtool.datadir.inventory import by_age
from shardtool.report.model import Gone, Node, OldShard, Report
from shardtool.report.reading import instant
from shardtool.words import duration, names, plural

# Of several copies' verdicts the first of these stands for the shard.
WORST_FIRST = (
    "unreadable",
    "suspect",
    "incomplete",
    "busy",
    "marked",
    "unmigrated",
    "absent",
    "proven",
    "gone",
)
_STAGES = {name: rank for rank, name in enumerate(("0.7", "upgraded", "migrating", "migrated"))}
_STAGES["done"] = _STAGES["migrated"]  # a node whose last shard is gone has nothing to wait for
# Seconds between two reports that can hardly be of one state, nor of the present one.
_FAR_APART = 86_400


@dataclass(frozen=True)
class Copy:
    """An old shard on one node.

    Args:
        node: the place of the node in the report.
        verdict: the shard's; 'gone' where prune has deleted it; 'absent' where raft has it on
            that server, and it is neither there nor in the journal.
        evidence: on which it is gone: 'proof', 'accepted', 'marker', or empty.
        is_proven: every value was found in the new storage; of a shard that is gone, before.
        is_accepted: it loses values, or did, and the operator has accepted that.
    """

    node: int
    verdict: str
    evidence: str
    is_proven: bool
    is_accepted: bool


@dataclass(frozen=True)
class ClusterShard:
    """An old shard wherever it lies.

    Args:
        id: its number as a name.
        verdict: the worst of its copies.
        proven_everywhere: each copy is proven, or went on proof, and of each server that has it
            there is a report.
        copies: one a node.
        unreported: servers that have it by raft, and of which there is no report.
        values: how many it has, by its proofs.
        lost: how many of them are nowhere in the new storage.
        elsewhere: some of the lost ones may be on servers that were not asked.
        accepted: each copy that loses values was accepted.
    """

    id: str
    verdict: str
    proven_everywhere: bool
    copies: tuple[Copy, ...]
    unreported: tuple[int, ...]
    values: int
    lost: int
    elsewhere: bool
    accepted: bool

    @property
    def is_there(self) -> bool:
        """It lies on some node."""
        return any(copy.verdict not in ("gone", "absent") for copy in self.copies)


@dataclass(frozen=True)
class NodeSummary:
    """A node in a line.

    Args:
        label: the host; with the directory where several nodes have one host, and the server
            where they have one directory too.
        is_behind: another node is at a later stage.
        verdicts: how many old shards have which.
        allocated_bytes: what its old shards take.
        reclaimable_bytes: what prune would give back now, on receipts alone.
        lost: values of its shards that are nowhere in the new storage.
    """

    label: str
    host: str
    data: str
    stage: str
    next: str | None
    is_behind: bool
    old_shards: int
    gone: int
    verdicts: dict[str, int]
    allocated_bytes: int
    reclaimable_bytes: int
    free_bytes: int
    lost: int


@dataclass(frozen=True)
class Totals:
    """Of all nodes; a shard that lies on several counts once, its bytes count on each.

    Args:
        old_shards: those that lie on some node.
        proven_everywhere: how many of them are.
        gone: shards that lie nowhere any more.
        values, lost: of those that lie somewhere and have proofs that hold.
        losing_shards: shards with losses.
        accepted_values, accepted_shards: how much of that was accepted.
        elsewhere_values, elsewhere_shards: how much of that may be on other servers.
    """

    nodes: int
    old_shards: int
    proven_everywhere: int
    gone: int
    verdicts: dict[str, int]
    values: int
    lost: int
    losing_shards: int
    accepted_values: int
    accepted_shards: int
    elsewhere_values: int
    elsewhere_shards: int
    allocated_bytes: int
    reclaimable_bytes: int


@dataclass(frozen=True)
class View:
    """All nodes as one.

    Args:
        unreported: servers of the cluster of which nothing is known.
        problems: what keeps it from being the whole truth, a line each.
    """

    totals: Totals
    nodes: tuple[NodeSummary, ...]
    shards: tuple[ClusterShard, ...]
    unreported: tuple[int, ...]
    problems: tuple[str, ...]


def view_of(report: Report) -> View:
    """Given a report, return all of its nodes as one."""
    shards = tuple(_shards(report.nodes, is_merged=bool(report.sources)))
    summaries = tuple(_summaries(report.nodes))
    unreported = _unreported(report.nodes) if report.sources else ()
    problems = tuple(_problems(report, summaries, unreported)) if report.sources else ()
    return View(_totals(shards, summaries), summaries, shards, unreported, problems)


def _shards(nodes: Sequence[Node], *, is_merged: bool) -> Iterator[ClusterShard]:
    there = [{shard.id: shard for shard in node.shards} for node in nodes]
    gone = [{one.id: one for one in node.gone} for node in nodes]
    reported = {node.raft.server for node in nodes if node.raft.server is not None}
    owners: dict[str, set[int]] = {}
    for shard in (shard for shards in there for shard in shards.values()):
        owners.setdefault(shard.id, set()).update(shard.servers)
    found = {name for shards in there for name in shards}
    found |= {name for deleted in gone for name in deleted}
    for name in sorted(found, key=by_age):
        servers = owners.get(name, set())
        copies = (
            _copy(place, node, there[place].get(name), gone[place].get(name), servers)
            for place, node in enumerate(nodes)
        )
        here = tuple(copy for copy in copies if copy is not None)
        lying = [shards[name] for shards in there if name in shards]
        unreported = tuple(sorted(servers - reported)) if is_merged else ()
        yield _shard(name, here, lying, unreported)


def _copy(
    place: int, node: Node, shard: OldShard | None, gone: Gone | None, servers: set[int]
) -> Copy | None:
    if shard is not None:
        losing = shard.losing
        accepted = losing is not None and losing.accepted
        proof = shard.proof
        # Anyone may have written the document: the word alone proves nothing.
        is_proven = proof is not None and proof.holds
        is_proven &= shard.verdict == "proven"
        return Copy(place, shard.verdict, "", is_proven, accepted)
    if gone is not None:
        is_proven = gone.evidence == "proof"
        return Copy(place, "gone", gone.evidence, is_proven, gone.evidence == "accepted")
    if node.raft.server in servers:
        return Copy(place, "absent", "", is_proven=False, is_accepted=False)
    return None


def _shard(
    name: str, copies: tuple[Copy, ...], there: Sequence[OldShard], unreported: tuple[int, ...]
) -> ClusterShard:
    # The same losses on two servers are the same values: they count once.
    holding = [s.proof for s in there if s.proof is not None and s.proof.holds]
    losing = [s.losing for s in there if s.losing is not None]
    lost: dict[str, int] = {}
    for proof in losing:
        lost[proof.losses_digest] = max(lost.get(proof.losses_digest, 0), proof.lost)
    return ClusterShard(
        id=name,
        verdict=min((copy.verdict for copy in copies), key=WORST_FIRST.index),
        proven_everywhere=all(copy.is_proven for copy in copies) and not unreported,
        copies=copies,
        unreported=unreported,
        values=max((proof.values for proof in holding), default=0),
        lost=sum(lost.values()),
        # What one server has found missing for sure no other one need be asked for.
        elsewhere=not lost.keys() <= {p.losses_digest for p in losing if not p.elsewhere},
        accepted=bool(losing) and all(proof.accepted for proof in losing),
    )


def _summaries(nodes: Sequence[Node]) -> Iterator[NodeSummary]:
    latest = max((_STAGES.get(node.stage, -1) for node in nodes), default=-1)
    hosts = Counter(node.made.host for node in nodes)
    places = Counter((node.made.host, node.data) for node in nodes)
    for node in nodes:
        host = node.made.host
        number = f" (server {node.raft.server})" if places[host, node.data] > 1 else ""
        yield NodeSummary(
            label=host if hosts[host] == 1 else f"{host}:{node.data}{number}",
            host=host,
            data=node.data,
            stage=node.stage,
            next=node.next,
            is_behind=0 <= _STAGES.get(node.stage, latest) < latest,
            old_shards=len(node.shards),
            gone=len(node.gone),
            verdicts=dict(Counter(shard.verdict for shard in node.shards)),
            allocated_bytes=sum(shard.allocated_bytes for shard in node.shards),
            reclaimable_bytes=node.plan.reclaimable_bytes if node.plan else 0,
            free_bytes=node.filesystem.free_bytes,
            lost=sum(shard.losing.lost for shard in node.shards if shard.losing),
        )


def _totals(shards: Iterable[ClusterShard], nodes: Sequence[NodeSummary]) -> Totals:
    all_shards = tuple(shards)
    there = [shard for shard in all_shards if shard.is_there]
    losing = [shard for shard in there if shard.lost]
    elsewhere = [shard for shard in losing if shard.elsewhere]
    accepted = [shard for shard in losing if shard.accepted and not shard.elsewhere]
    return Totals(
        nodes=len(nodes),
        old_shards=len(there),
        proven_everywhere=sum(shard.proven_everywhere for shard in there),
        gone=len(all_shards) - len(there),
        verdicts=dict(Counter(shard.verdict for shard in there)),
        values=sum(shard.values for shard in there),
        lost=_lost(losing),
        losing_shards=len(losing),
        accepted_values=_lost(accepted),
        accepted_shards=len(accepted),
        elsewhere_values=_lost(elsewhere),
        elsewhere_shards=len(elsewhere),
        allocated_bytes=sum(node.allocated_bytes for node in nodes),
        reclaimable_bytes=sum(node.reclaimable_bytes for node in nodes),
    )


def _lost(shards: Iterable[ClusterShard]) -> int:
    return sum(shard.lost for shard in shards)


def _problems(
    report: Report, summaries: Sequence[NodeSummary], unreported: Sequence[int]
) -> Iterator[str]:
    by_server: dict[int, list[str]] = {}
    for node, summary in zip(report.nodes, summaries, strict=True):
        if node.raft.server is not None:
            by_server.setdefault(node.raft.server, []).append(summary.label)
    if unreported:
        yield f"no report of {_servers(unreported)} of the cluster"
    for number, labels in sorted(by_server.items()):
        if len(labels) > 1:
            yield (
                f"{names(labels)} are each server {number}: not of one cluster, or one is a copy; "
                "shards of one number may be different ones"
            )
    moments = [instant(node.made.at) for node in report.nodes]
    newest = max(moments, default=0.0)
    for summary, at in zip(summaries, moments, strict=True):
        if newest - at > _FAR_APART:
            yield f"{summary.label}: its report is {duration(newest - at)} older than the newest"
    age = instant(report.made.at) - newest
    if age > _FAR_APART:
        yield f"the newest report is {duration(age)} old: much may have changed; make them anew"


def _unreported(nodes: Sequence[Node]) -> tuple[int, ...]:
    known = {number for node in nodes for number in node.raft.servers}
    return tuple(sorted(known - {node.raft.server for node in nodes}))


def _servers(numbers: Iterable[int]) -> str:
    return names(f"server {number}" for number in numbers)


def unreported_words(view: View) -> str:
    """Say of which servers nothing is known; empty where there are none."""
    return f"nothing is known of {_servers(view.unreported)}" if view.unreported else ""


def unaccounted(node: Node) -> str:
    """Say what a report of one node of a cluster can't tell; empty where there are no others."""
    others = len(node.raft.servers) - 1
    if others < 1:
        return ""
    return (
        f"server {node.raft.server or '?'} of {others + 1}: {plural(others, 'other')} "
        f"{'has' if others == 1 else 'have'} old shards of their own; merge their reports"
    )
