"""What check and migrate share: a node is looked at, and findings are made of it."""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from collections.abc import Collection, Iterator

from shardtool.cli.options import pause_of
from shardtool.cli.output import Output
from shardtool.cli.progress import Progress
from shardtool.cli.proving import Reading
from shardtool.cli.snapshots import add_store, meter, store_of
from shardtool.cli.standing import Standing
from shardtool.datadir.layout import Layout
from shardtool.datadir.server import answers_at, find_server
from shardtool.datadir.verdict import Judged
from shardtool.errors import ShardtoolError, placed
from shardtool.influxdb.api import Api
from shardtool.influxdb.catalogue import read_catalogue
from shardtool.influxdb.errors import CatalogueError
from shardtool.influxdb.model import Catalogue
from shardtool.influxdb.raft import entries, own_name, snapshot_files
from shardtool.influxdb.wal import WalError, log_files
from shardtool.proof.children import Children, Died
from shardtool.proof.evidence import is_readable
from shardtool.proof.run import Outcome
from shardtool.snapshots.freshness import Newest, newest_snapshot
from shardtool.upgrade.facts import Asked, Facts, is_todo
from shardtool.upgrade.foresight import Foresight, foresight, read_ahead
from shardtool.upgrade.pause import Pause
from shardtool.upgrade.room import room_for
from shardtool.upgrade.wal_only import Shards, WalOnly, compare


def add_examination(parser: argparse.ArgumentParser) -> None:
    """Add what decides what is looked at: --pause, --no-read, --store."""
    parser.add_argument(
        "--pause",
        type=pause_of,
        default=Pause.of("100ms"),
        metavar="TIME",
        help="how long the migrator rests after each 10,000 points, 0s to 60m "
        "(units u ms s m; default: 100ms)",
    )
    parser.add_argument(
        "--no-read",
        action="store_true",
        help="leave the old shards and the WAL unread, which takes as long as verify: what the "
        "migrator will skip is then not known",
    )
    add_store(parser)


def look_at(args: argparse.Namespace, node: Standing, out: Output, api: Api | None) -> Facts:
    """Gather all that a check goes by; nothing is changed.

    Args:
        args: the command line, with what add_examination adds.
        node: one look at it.
        out: shows the progress bars.
        api: a running server to ask; None to ask none.

    Raises:
        ShardtoolError: the server can't be asked, or there is no room for links.
    """
    layout, inventory = node.layout, node.inventory
    search = find_server(layout)
    # Before all that takes its time: a wrong password is told at once.
    pids = {file.pid for file in inventory.holders.files}
    asked = None if api is None else _ask(api, pids)
    catalogue, problem = _raft(layout)
    todo = [judged for judged in node.old if is_todo(judged)]
    snapshot, snapshot_problem = _snapshot(args, layout, out)
    seen, wal = None, None
    if not args.no_read:
        seen = _read_ahead(todo, layout, catalogue, out)
        wal = _compare(node, catalogue, snapshot, out)
    return Facts(
        old=node.old,
        is_08=inventory.new is not None,
        new_unreadable=tuple((s.name, s.error) for s in inventory.new or () if s.error),
        raft=catalogue,
        raft_problem=problem,
        own_name=_own_name(layout),
        raft_snapshot=inventory.new is None and _has_raft_snapshot(layout),
        raft_of_07_since=_raft_of_07_since(layout, snapshot),
        search=search,
        snapshot=snapshot,
        snapshot_problem=snapshot_problem,
        half_restored=os.path.lexists(layout.pending_restore),
        is_read=not args.no_read,
        foresight=seen,
        wal=wal,
        room=room_for(
            layout,
            inventory,
            (judged.shard for judged in todo),
            databases=0 if catalogue is None else len(catalogue.databases),
            server_pid=search.server.pid if search.server else None,
        ),
        asked=asked,
        pause_us=args.pause.us,
    )


def _ask(api: Api, pids: Collection[int]) -> Asked:
    version = api.server_version()
    # Whatever else it is gets no password.
    if not version.startswith(("0.7.", "0.8.")):
        return Asked(api.url, version, {}, ())
    spaces = api.spaces() if version.startswith("0.8.") else {}
    return Asked(api.url, version, spaces, api.servers(), answers_at(api.url, pids))


def _own_name(layout: Layout) -> str | None:
    try:
        return own_name(layout.raft)
    except CatalogueError:
        return None  # that raft can't be read is told already


def _raft_of_07_since(layout: Layout, snapshot: Newest | None) -> int:
    """Return how many commands in raft's log are 0.7's and not in the newest snapshot.

    What is plainly 0.7's: its shards, which name no space.
    """
    if snapshot is None or snapshot.raft_bytes is None:
        return 0
    try:
        later = [e for e in entries(layout.raft) if e.offset >= snapshot.raft_bytes]
    except CatalogueError:
        return 0
    return sum(
        e.name == "create_shards" and b'"SpaceName"' not in (e.command or b"") for e in later
    )


def _raft(layout: Layout) -> tuple[Catalogue | None, str]:
    try:
        return read_catalogue(layout.raft), ""
    except CatalogueError as error:
        return None, str(error)


def _has_raft_snapshot(layout: Layout) -> bool:
    try:
        return bool(snapshot_files(layout.raft))
    except CatalogueError:
        return False  # that raft can't be read is told already


def _snapshot(args: argparse.Namespace, layout: Layout, out: Output) -> tuple[Newest | None, str]:
    try:
        return newest_snapshot(layout, store_of(args, layout), meter(out)), ""
    except ShardtoolError as error:
        return None, str(error)
    except OSError as error:
        return None, placed(error)


def _read_ahead(
    todo: list[Judged], layout: Layout, catalogue: Catalogue | None, out: Output
) -> Foresight | None:
    shards = [judged.shard for judged in todo if is_readable(judged.shard)]
    if catalogue is None or not shards:
        return None
    now_us = int(time.time() * 1_000_000)

    def outcomes() -> Iterator[Outcome]:
        with (
            Reading(shards, out) as screen,
            contextlib.closing(
                read_ahead(shards, layout.old_shards, catalogue, screen, now_us=now_us)
            ) as ends,
        ):
            for outcome in ends:
                screen.ends(outcome.shard, outcome.finding.values if outcome.finding else 0)
                yield outcome

    return foresight(outcomes())


def _compare(
    node: Standing, catalogue: Catalogue | None, snapshot: Newest | None, out: Output
) -> WalOnly:
    layout, records = node.layout, node.history.records
    settled = (r.get("shard") for r in records if r["event"] in ("deleted", "finished"))
    shards = Shards(
        layout.wal,
        layout.old_shards,
        layout.new_shards,
        {shard.name: shard.engine for shard in node.inventory.new or ()},
        frozenset(str(shard) for shard in settled),
        {} if catalogue is None else catalogue.old_shards,
        None if catalogue is None else catalogue.own_server,
        snapshot.logs if snapshot is not None and node.inventory.new is not None else {},
    )
    try:
        total = sum(log.stat().st_size for log in log_files(layout.wal))
    except (WalError, OSError) as error:
        return WalOnly(problem=str(error))
    done = 0
    with Progress("comparing the WAL", total, unit="bytes", out=out) as bar:

        def heard(_: Shards, offset: int) -> None:
            nonlocal done
            bar.advance(max(0, offset - done), "")
            done = max(done, offset)

        with contextlib.closing(Children(compare, heard).answers([shards])) as answers:
            for _, answer in answers:
                if isinstance(answer, Died):
                    words = f"{layout.wal}: what compared it with the shards died ({answer.how})"
                    return WalOnly(problem=f"{words}: a corrupt shard?")
                return answer
    raise AssertionError("a child answers or dies")
