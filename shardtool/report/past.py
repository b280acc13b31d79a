"""What the journal tells of shards that are gone and of losses that were accepted. Pure.

A journal may have been tampered with: anything may stand in a record but for its event.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from shardtool.cli.history import count_of
from shardtool.disk.remove import LIFTED
from shardtool.report.model import Accepted, Gone


def deleted_shards(records: Sequence[dict[str, Any]], present: Collection[str]) -> tuple[Gone, ...]:
    """Return the old shards that prune has deleted and that are not there again.

    Args:
        records: the journal's, in their order.
        present: the names that are in shard_db now.
    """
    intents: dict[str, dict[str, Any]] = {}
    gone: dict[str, Gone] = {}
    for record in records:
        shard = _text(record, "shard")
        trash = _text(record, "trash").partition(LIFTED)[0]
        if record["event"] == "intent":
            intents[trash] = record
        elif record["event"] == "put-back":
            gone.pop(shard, None)
        elif record["event"] in ("deleted", "finished") and shard:
            # What an interrupted run had in mind is in its intent alone.
            gone[shard] = _gone(shard, record, {**intents.get(trash, {}), **record})
    return tuple(gone[name] for name in sorted(gone) if name not in present)


def _gone(shard: str, record: dict[str, Any], whole: dict[str, Any]) -> Gone:
    return Gone(
        id=shard,
        at=_text(record, "time"),
        evidence=_text(whole, "evidence"),
        values=count_of(whole.get("values")),
        missing=count_of(whole.get("missing")),
        different=count_of(whole.get("different")),
        freed_bytes=count_of(record.get("freed_bytes")) or 0,
        digest=_text(whole, "digest"),
    )


def accepted_losses(
    records: Sequence[dict[str, Any]], holding: Collection[str]
) -> tuple[Accepted, ...]:
    """Return which losses were accepted, the last word on each shard.

    Args:
        records: the journal's, in their order.
        holding: the shards whose losses are accepted as they are now.
    """
    found = {}
    for record in records:
        shard = _text(record, "shard")
        if record["event"] == "accepted" and shard:
            found[shard] = Accepted(
                shard=shard,
                at=_text(record, "time"),
                because=_text(record, "because"),
                values=count_of(record.get("values")) or 0,
                missing=count_of(record.get("missing")) or 0,
                different=count_of(record.get("different")) or 0,
                holds=shard in holding,
            )
    return tuple(found[shard] for shard in sorted(found))


def _text(record: dict[str, Any], key: str) -> str:
    value = record.get(key)
    return value if isinstance(value, str) else ""
