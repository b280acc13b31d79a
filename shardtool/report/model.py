"""The document shardtool/report/1, as dataclasses: what `report --json` prints is just these.

The same classes read it back (see shape), so that a report of one host can be merged on another.
Sizes are in bytes, times are ISO 8601 UTC. Names may hold any bytes, as surrogates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

SCHEMA = "shardtool/report/1"

Verdict: TypeAlias = Literal[
    "unmigrated", "marked", "proven", "incomplete", "suspect", "busy", "unreadable"
]
VERDICTS: tuple[Verdict, ...] = (
    "proven",
    "incomplete",
    "marked",
    "unmigrated",
    "suspect",
    "busy",
    "unreadable",
)
"""In the order in which they are shown."""
WhyNot: TypeAlias = Literal[
    "", "old-side-changed", "new-side-changed", "answers-too-old", "catalogue-unreadable"
]


@dataclass(frozen=True)
class Marker:
    """What stands under the marker's name in an old shard; as in `status --json`."""

    present: bool
    valid: bool
    written_at: str | None


@dataclass(frozen=True)
class Range:
    """The times of an old shard's values as raft has it: from `start` on, before `end`."""

    start: str
    end: str


@dataclass(frozen=True)
class Proof:
    """What `verify` found of an old shard, and when.

    Args:
        proven_at: when the proof ended.
        holds: both sides are as the proof read them. If not, the shard has to be proven again
            and the counts are of the past.
        why_not: why it does not hold; empty if it does.
        values, missing, different: counts of values.
        found_by_asking: how many were found in other servers' answers, not on this disk.
        elsewhere: some of the missing ones may be on other servers, which were not asked.
        accepted: the operator has accepted just these losses.
        rests_on: the new shards in which the values were found.
        digest: SHA-256 over all values of the shard.
        losses_digest: SHA-256 over what is missing or different.
        receipt_sha256: of the receipt's file, db/.shardtool/proofs/NNNNN.json.
    """

    proven_at: str
    holds: bool
    why_not: WhyNot
    values: int
    missing: int
    different: int
    found_by_asking: int
    elsewhere: bool
    accepted: bool
    rests_on: tuple[str, ...]
    digest: str
    losses_digest: str
    receipt_sha256: str

    @property
    def lost(self) -> int:
        """Values that would be gone with the old shard."""
        return self.missing + self.different


@dataclass(frozen=True)
class Looked:
    """An entry of shard_db, as in `status --json`."""

    id: str
    verdict: Verdict
    reasons: tuple[str, ...]
    details: tuple[str, ...]
    marker: Marker
    in_use: Literal["yes", "no", "unknown"]
    files: int
    apparent_bytes: int
    allocated_bytes: int
    reclaimable_bytes: int
    last_write_at: str | None


@dataclass(frozen=True)
class OldShard(Looked):
    """An entry of shard_db, and what is known of it beyond its own directory.

    Args:
        is_shard: it has a shard's name; what has not counts as none.
        range: of its values' times; None where raft does not tell.
        servers: the servers that have it, as raft tells; empty where it does not.
        proof: the last one; None where there is none.
    """

    is_shard: bool
    range: Range | None
    servers: tuple[int, ...]
    proof: Proof | None

    @property
    def losing(self) -> Proof | None:
        """The proof by which values of it are nowhere else; None where nothing is lost.

        Until the migration has been at a shard, that its values are missing is as it should be.
        """
        proof = self.proof
        lost = proof is not None and proof.holds and proof.lost and self.marker.present
        return proof if lost else None


@dataclass(frozen=True)
class NewShard:
    """An entry of shard_db_v2, as in `status --json`."""

    id: str
    engine: str
    files: int
    allocated_bytes: int
    error: str | None


@dataclass(frozen=True)
class Gone:
    """An old shard that prune has deleted here, as the journal tells.

    Args:
        id: the shard.
        at: when.
        evidence: 'proof', 'accepted', 'marker'; empty where the journal does not tell.
        values, missing, different: of its proof; None where there was none.
        freed_bytes: what that gave back.
        digest: SHA-256 over all values of it; empty where there was no proof.
    """

    id: str
    at: str
    evidence: str
    values: int | None
    missing: int | None
    different: int | None
    freed_bytes: int
    digest: str


@dataclass(frozen=True)
class Loss:
    """Values of one column of an old shard that the new storage lacks, for one cause."""

    shard: str
    database: str
    series: str
    column: str
    cause: str
    values: int
    missing: int
    different: int
    first: str
    last: str


@dataclass(frozen=True)
class Losses:
    """What marked shards would lose, by proofs that hold.

    Args:
        values: how many values, those that were accepted included.
        columns: how many columns of shards and causes.
        by_cause: values by cause.
        largest: the columns with the largest losses; MOST_LOSSES at most. `verify --json` has all
            columns, `verify --list` each value.
    """

    values: int
    columns: int
    by_cause: dict[str, int]
    largest: tuple[Loss, ...]


@dataclass(frozen=True)
class Accepted:
    """Losses that the operator has let go, and why.

    Args:
        holds: the shard is there, and its losses are still just these.
    """

    shard: str
    at: str
    because: str
    values: int
    missing: int
    different: int
    holds: bool


@dataclass(frozen=True)
class Deletion:
    """A shard that would go; as in `prune --dry-run --json`."""

    id: str
    reclaimable_bytes: int
    evidence: str
    files: int
    marked_at: str | None


@dataclass(frozen=True)
class Kept:
    """A shard that would stay; as in `prune --dry-run --json`."""

    id: str
    verdict: str
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Leftover:
    """Something in the trash, and what the next prune does with it."""

    name: str
    action: str


@dataclass(frozen=True)
class Plan:
    """What `prune --dry-run --no-verify` would show now."""

    delete: tuple[Deletion, ...]
    keep: tuple[Kept, ...]
    finish: tuple[Leftover, ...]
    reclaimable_bytes: int


@dataclass(frozen=True)
class Snapshot:
    """A snapshot of raft and wal, as in `snapshots --json`; its payload was not read."""

    id: str
    created_at: str
    state: Literal["complete", "damaged"]
    live: bool
    files: int
    bytes: int
    problem: str


@dataclass(frozen=True)
class Snapshots:
    """The snapshots of a node, oldest first.

    Args:
        store: the directory, or the URL of a store elsewhere.
        is_listed: they were looked for; a store elsewhere is not asked by a report.
        problem: why they can't be listed, else empty.
    """

    store: str
    is_listed: bool
    snapshots: tuple[Snapshot, ...]
    problem: str


@dataclass(frozen=True)
class History:
    """The journal.

    Args:
        events: its records, the last MOST_EVENTS of them; `history --json` has all.
        total: how many there are.
        damaged: how many lines can't be read.
    """

    events: tuple[dict[str, Any], ...]
    total: int
    damaged: int


@dataclass(frozen=True)
class Trash:
    """Something that an interrupted prune left; action 'leave': the journal does not know it."""

    name: str
    action: str
    reclaimable_bytes: int


@dataclass(frozen=True)
class FileSystem:
    """The one that the old shards lie on."""

    total_bytes: int
    free_bytes: int


@dataclass(frozen=True)
class Raft:
    """The node's place in its cluster, as its raft directory tells.

    Args:
        server: its number; None where that is not known.
        name: its own name; empty where it has none.
        servers: the numbers of all servers.
        problem: why it can't be told, else empty.
    """

    server: int | None
    name: str
    servers: tuple[int, ...]
    problem: str


@dataclass(frozen=True)
class Made:
    """Who made a report: shardtool's version, the host, when, and the command."""

    version: str
    host: str
    at: str
    command: str


@dataclass(frozen=True)
class Node:
    """What is known of one node.

    Args:
        data: what the operator called the directory.
        db: where its db really lies; host, db and the number in raft tell nodes apart.
        made: who made this part of the report, and when.
        stage, stage_words, next, advice: where it is in the journey, as `status` says.
        attention: what is not as it should be, a line each; with any the exit code is 3.
    """

    data: str
    db: str
    made: Made
    stage: str
    stage_words: str
    next: str | None
    advice: str
    attention: tuple[str, ...]
    filesystem: FileSystem
    raft: Raft
    old_shards: tuple[OldShard, ...]
    new_shards: tuple[NewShard, ...]
    gone: tuple[Gone, ...]
    trash: tuple[Trash, ...]
    unseen_processes: int
    losses: Losses
    accepted: tuple[Accepted, ...]
    plan: Plan | None
    snapshots: Snapshots
    history: History

    @property
    def key(self) -> tuple[str, str, int]:
        """What tells nodes apart: hosts may be called alike, and have their data in one place."""
        number = self.raft.server
        return self.made.host, self.db, -1 if number is None else number

    @property
    def shards(self) -> tuple[OldShard, ...]:
        """Those entries of shard_db that have a shard's name."""
        return tuple(shard for shard in self.old_shards if shard.is_shard)


@dataclass(frozen=True)
class Source:
    """A file that was merged: its name, the SHA-256 of what was in it, how many nodes that had."""

    name: str
    sha256: str
    nodes: int


@dataclass(frozen=True)
class Report:
    """All that a report is made of.

    Args:
        made: who made it.
        nodes: one, or those that were merged, by host and directory.
        sources: the files that were merged; empty where the node itself was looked at.
        replaced: reports of the same nodes that were older, a line each.
    """

    made: Made
    nodes: tuple[Node, ...]
    sources: tuple[Source, ...] = ()
    replaced: tuple[str, ...] = ()
