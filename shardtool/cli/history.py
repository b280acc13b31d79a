"""`shardtool history`: what was done to this node, when, on what evidence."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Any

from shardtool.cli import exits
from shardtool.cli.output import Output, safe
from shardtool.datadir.layout import find_layout
from shardtool.journal import History, Journal
from shardtool.words import plural, size

DESCRIPTION = """\
Shows the journal of a data directory: each deletion, restore and forget, with
its time and its evidence. The journal is db/.shardtool/journal, one JSON object
a line, only ever appended to."""

EPILOG = """\
events of a prune, in their order: intent (about to be renamed out of shard_db),
renamed (in the trash, whole), deleted (gone). kept: it changed after the plan.
accepted: the operator let its losses go, and why. failed: the error says where
the shard is. finished, put-back: what a later
prune did about one that was interrupted. migration-started, -joined (one ran
already), -failed (the request did), -unknown (its answer was lost), -ended:
what migrate did and saw.
space-created, -changed, -removed: what spaces apply did.
rescue-started, -ended: what rescue was to send, and what it sent.
Times are UTC.

examples:
  shardtool history
  shardtool history --all
  shardtool history --json | jq '.events[] | select(.event == "deleted")'

Exit code 3 if a line of the journal can't be read."""

_SHOWN = (
    "space",
    "migration",
    "rescue",
    "evidence",
    "lost",
    "because",
    "freed_bytes",
    "reasons",
    "error",
    "snapshot",
    "path",
)
_COUNTED = (("marked", "marked"), ("left", "left"), ("passed_over", "passed over"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what only this command takes."""
    parser.add_argument("--all", action="store_true", help="intents and renames too")


def run(args: argparse.Namespace, out: Output) -> int:
    """Show the journal; exit code 3 where lines of it can't be read."""
    layout = find_layout(args.data, args.influx_config, dict(os.environ))
    journal = Journal(layout)
    history = journal.read()
    out.document("history", {"events": list(history.records), "damaged": list(history.damaged)})
    if out.quiet:
        out.line(plural(len(history.records), "record"))
    else:
        _show(history, args.all, out)
    if history.damaged:
        out.warn(
            f"{journal.path}: expected JSON lines, found {plural(len(history.damaged), 'line')} "
            f"that can't be read (first: line {history.damaged[0]}); torn by a crash, or edited"
        )
        return exits.ATTENTION
    return exits.DONE


def _show(history: History, everything: bool, out: Output) -> None:
    rows = rows_of(history.records, everything=everything)
    if not rows:
        out.line("nothing was done here yet")
        return
    out.table(("TIME", "EVENT", "SHARD", "DETAIL"), rows)


def rows_of(
    records: Sequence[dict[str, Any]], *, everything: bool = False
) -> list[tuple[str, str, str, str]]:
    """Given a journal's records, return what people are shown of them, safe to show.

    Args:
        records: each with an event; what else is in one may be anything.
        everything: also the intents and renames for which a later record speaks.

    Returns:
        Time, event, shard and detail of each.
    """
    # A completed step speaks for the two before it; an intent is shown only while nothing
    # followed it: no end of its own, and nothing that was done later to the same shard.
    last_end = {
        _subject(record): number for number, record in enumerate(records) if _is_end(record)
    }
    return [
        (
            safe(str(record.get("time", "-"))[:19].replace("T", " ")),
            safe(str(record["event"])),
            safe(str(record.get("shard", "-"))),
            _detail(record),
        )
        for number, record in enumerate(records)
        if everything or _is_end(record) or last_end.get(_subject(record), -1) < number
    ]


def _subject(record: dict[str, Any]) -> str:
    # As text: a record that was tampered with may have anything there.
    return str(record.get("shard"))


def _is_end(record: dict[str, Any]) -> bool:
    return record["event"] not in ("intent", "renamed")


def count_of(value: object) -> int | None:
    """Return a count; a record that was tampered with may have anything there, and the sum of two
    numbers of 4,300 digits is one that Python does not print."""
    return value if type(value) is int and 0 <= value < 1 << 63 else None


def _lost(record: dict[str, Any]) -> str | None:
    """Say what a proof that a record rests on found, where values were lost."""
    missing, different = count_of(record.get("missing")), count_of(record.get("different"))
    values = count_of(record.get("values"))
    if missing is None or different is None or values is None:
        return None
    return f"{missing + different:,} of {values:,} values lost" if missing or different else None


def _migration(record: dict[str, Any]) -> str | None:
    """Say how a migration was started, or how it ended."""
    # A record that was tampered with may have anything there.
    lists = {
        key: value
        for key in ("shards", "overridden", "marked", "left", "passed_over")
        if isinstance(value := record.get(key), list)
    }
    if record["event"] == "migration-started":
        parts = [f"{plural(len(lists.get('shards', [])), 'shard')}, pause {record.get('pause')}"]
        if lists.get("overridden"):
            parts.append(f"overridden: {', '.join(map(str, lists['overridden']))}")
        return "; ".join(parts)
    if record["event"] == "migration-ended":
        counts = [f"{len(lists.get(key, []))} {word}" for key, word in _COUNTED]
        return f"{record.get('how')}: {', '.join(counts)}; {record.get('errors')} errors"
    return None


def _rescue(record: dict[str, Any]) -> str | None:
    """Say what a rescue was to send, or what it has sent."""
    shards = record.get("shards")
    if record["event"] == "rescue-started" and isinstance(shards, list):
        return f"{record.get('values')} values of {plural(len(shards), 'shard')}"
    if record["event"] == "rescue-ended":
        refused = f", {record['refused']} refused" if record.get("refused") else ""
        return f"{record.get('how')}: {record.get('sent')} values sent{refused}"
    return None


def _space(record: dict[str, Any]) -> str | None:
    """Say which shard space was made, changed or removed, and what it is (or was) like."""
    space = record.get("space")
    if not isinstance(space, dict):
        return None
    keys = ("database", "name", "regex", "retentionPolicy", "shardDuration")
    database, name, regex, kept, duration = (space.get(key) for key in keys)
    return f"{database}: {name} {regex}, kept {kept}, {duration} a shard"


_SAID = {"lost": _lost, "migration": _migration, "rescue": _rescue, "space": _space}


def _detail(record: dict[str, Any]) -> str:
    parts = []
    for key in _SHOWN:
        value = _SAID[key](record) if key in _SAID else record.get(key)
        if value is None:
            continue
        if key == "freed_bytes" and (freed := count_of(value)) is not None:
            parts.append(f"freed {size(freed)}")
        elif isinstance(value, list):
            parts.append(", ".join(str(item) for item in value))
        else:
            parts.append(f"{key} {value}" if key in ("evidence", "snapshot") else str(value))
    return safe("; ".join(parts))
