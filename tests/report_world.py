"""Reports as values: a node of so many shards, with what a test is about changed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from shardtool.report import model
from shardtool.report.view import view_of

DIGEST = "d" * 64
MADE = model.Made("0.1.0", "db1", "2026-11-26T20:41:00Z", "shardtool report --json")


def proof(values: int = 100, missing: int = 0, **changes: Any) -> model.Proof:
    """Return a proof that holds, with `missing` of `values` lost."""
    fields: dict[str, Any] = {
        "proven_at": "2026-11-26T20:40:00Z",
        "holds": True,
        "why_not": "",
        "values": values,
        "missing": missing,
        "different": 0,
        "found_by_asking": 0,
        "elsewhere": False,
        "accepted": False,
        "rests_on": ("00033",),
        "digest": DIGEST,
        "losses_digest": "e" * 64 if missing else "0" * 64,
        "receipt_sha256": "f" * 64,
    }
    return model.Proof(**fields | changes)


def shard(
    number: int, verdict: model.Verdict = "proven", *, lost: int = 0, **changes: Any
) -> model.OldShard:
    """Return an old shard of a week of its own, with a proof where its verdict says so."""
    proven = verdict in ("proven", "incomplete")
    year, week = divmod(number, 52)
    fields: dict[str, Any] = {
        "id": f"{number:05d}",
        "verdict": verdict,
        "reasons": ("values-missing",) if verdict == "incomplete" else (),
        "details": (f"{lost} of 100 are nowhere",) if verdict == "incomplete" else (),
        "marker": model.Marker(verdict != "unmigrated", True, "2026-11-24T16:19:57Z"),
        "in_use": "no",
        "files": 8,
        "apparent_bytes": 30_000,
        "allocated_bytes": 32_768 + number,
        "reclaimable_bytes": 32_768 if verdict == "proven" else 0,
        "last_write_at": "2026-11-24T16:19:57Z",
        "is_shard": True,
        "range": model.Range(
            f"{2012 + year % 100}-{week // 5 + 1:02d}-{week % 5 * 5 + 1:02d}T00:00:00Z",
            f"{2012 + year % 100}-{week // 5 + 1:02d}-{week % 5 * 5 + 6:02d}T00:00:00Z",
        ),
        "servers": (),
        "proof": proof(missing=lost) if proven else None,
    }
    return model.OldShard(**fields | changes)


def gone(number: int, evidence: str = "proof") -> model.Gone:
    """Return a shard that prune has deleted."""
    return model.Gone(f"{number:05d}", "2026-11-26T20:41:00Z", evidence, 100, 0, 0, 32_768, DIGEST)


def node(host: str = "db1", shards: Iterable[model.OldShard] = (), **changes: Any) -> model.Node:
    """Return a node of these shards; it is as it should be."""
    made = model.Made("0.1.0", host, "2026-11-26T20:41:00Z", "shardtool report --json")
    fields: dict[str, Any] = {
        "data": "/opt/influxdb/shared/data",
        "db": "/opt/influxdb/shared/data/db",
        "made": made,
        "stage": "migrated",
        "stage_words": "every old shard is marked as migrated",
        "next": "shardtool prune --dry-run",
        "advice": "",
        "attention": (),
        "filesystem": model.FileSystem(10 << 30, 1 << 30),
        "raft": model.Raft(None, "", (), ""),
        "old_shards": tuple(shards),
        "new_shards": (),
        "gone": (),
        "trash": (),
        "unseen_processes": 0,
        "losses": model.Losses(0, 0, {}, ()),
        "accepted": (),
        "plan": model.Plan((), (), (), 0),
        "snapshots": model.Snapshots("/opt/influxdb/shared/data/snapshots", True, (), ""),
        "history": model.History((), 0, 0),
    }
    return model.Node(**fields | changes)


def report(*nodes: model.Node, **changes: Any) -> model.Report:
    """Return a report of these nodes; of several it is merged."""
    sources = tuple(model.Source(f"{one.made.host}.json", "a" * 64, 1) for one in nodes)
    fields: dict[str, Any] = {"sources": sources if len(nodes) > 1 else (), "replaced": ()}
    return model.Report(MADE, nodes, **fields | changes)


def document(made: model.Report) -> dict[str, Any]:
    """Return a report as `report --json` prints it."""
    return {"schema": model.SCHEMA, **asdict(made), "cluster": asdict(view_of(made))}
