"""`shardtool status --prometheus FILE`: the look as a file for node_exporter's textfile collector.

Where the look fails, the file says so: one that only went stale would be found out much later.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

from shardtool import __version__
from shardtool.cli.options import node_named
from shardtool.cli.output import safe
from shardtool.cli.snapshots import STORE_VARIABLE
from shardtool.cli.standing import Standing
from shardtool.datadir.layout import Layout, find_layout
from shardtool.disk.durable import READ_DIRECTORY, opened, opened_quietly, replace_file
from shardtool.errors import ShardtoolError, UsageError, reason_of
from shardtool.monitor.metrics import Found, Look, text_of
from shardtool.proof.evidence import held
from shardtool.proof.receipts import Receipts
from shardtool.snapshots.address import SCHEME
from shardtool.snapshots.metadata import age_order, is_id

_SUFFIX = ".prom"  # the collector reads no other files
_LONG_AGO = 3600.0  # seconds; nobody is writing a file of some KB since then


class UnwrittenError(ShardtoolError):
    """The node was looked at, and the metrics can't be written.

    Attributes:
        report: what was found.
    """

    report: Standing


def look_and_write(
    args: argparse.Namespace, look: Callable[[Layout], Standing]
) -> tuple[Standing, str]:
    """Find the node, look at it and write its metrics to args.prometheus.

    Args:
        args: the command line.
        look: takes the look.

    Returns:
        What was found, and a line that says what was written.

    Raises:
        UsageError: the file can't be one of the collector's, or it would lie in the node's own
            directories.
        UnwrittenError: the file can't be written.
        Exception: what find_layout and the look raise; the file says that it failed.
    """
    target = _target(args.prometheus)
    begun = time.monotonic()
    found: Found | None = None
    layout: Layout | None = None
    try:
        layout = find_layout(args.data, args.influx_config, dict(os.environ))
        _refuse_inside(target, layout)
        found = _found(look(layout))
    except UsageError:
        raise
    except BaseException:
        # Ctrl-C and a time limit too: whoever watches the file has to learn of it.
        with contextlib.suppress(ShardtoolError):
            if layout is None:
                _refuse_unknown(args, target)
            _write(args, target, begun, None)
        raise
    try:
        written = _write(args, target, begun, found)
    except ShardtoolError as error:
        unwritten = UnwrittenError(str(error))
        unwritten.report = found.report
        raise unwritten from None
    return found.report, f"metrics: {written:,} bytes in {safe(str(target))}"


def _target(text: str) -> Path:
    target = Path(text).absolute()
    if target.suffix != _SUFFIX or text.endswith("/"):
        raise UsageError(
            f"--prometheus {text!r}: expected a file that ends in {_SUFFIX}, because the textfile "
            "collector reads no other"
        )
    return target


def _refuse_inside(target: Path, layout: Layout) -> None:
    """Refuse to write among InfluxDB's own files, and our own."""
    layout.refuse_inside(f"--prometheus {str(target)!r}", Path(os.path.realpath(target.parent)))


def _refuse_unknown(args: argparse.Namespace, target: Path) -> None:
    """Refuse to write where InfluxDB's files may be, of a node that was not found.

    Raises:
        UsageError: the file would lie among them.
        ShardtoolError: which directories a config.toml means is not known, and no look that
            succeeded has written there before.
    """
    kind, named = node_named(args.data, args.influx_config, os.environ)
    if kind == "data":
        db, raft, wal = (Path(named, name) for name in ("db", "raft", "wal"))
        _refuse_inside(target, Layout(db, raft, wal, None, named))
    elif not target.exists():
        raise ShardtoolError(f"{target}: not written, for it may lie among InfluxDB's files")


def _found(report: Standing) -> Found:
    layout = report.layout
    receipts = held(layout, (j.shard.name for j in report.shards), report.history).receipts
    return Found(report, receipts, _last_proof(layout), _snapshots(layout))


def _last_proof(layout: Layout) -> float | None:
    """Return when a receipt was written last, holding or not: a server that goes on writing ends
    those of the shards that it writes to."""
    times = []
    receipts = Receipts(layout)
    for name in receipts.names():
        with contextlib.suppress(OSError):
            times.append((receipts.directory / f"{name}.json").lstat().st_mtime)
    return max(times, default=None)


def _snapshots(layout: Layout) -> tuple[float, ...] | None:
    """Return when each snapshot was made; its name tells, and none has one that is not whole.

    None where they are in a bucket: that is not asked, and a 0 would be a figure of nothing.
    """
    store = os.environ.get(STORE_VARIABLE) or str(layout.snapshots)
    if store.startswith(SCHEME):
        return None
    try:
        with opened_quietly(Path(store), READ_DIRECTORY) as directory:
            return tuple(age_order(name)[0] for name in os.listdir(directory) if is_id(name))
    except OSError:
        return ()


def _write(args: argparse.Namespace, target: Path, begun: float, found: Found | None) -> int:
    """Write the file and return its length in bytes.

    Raises:
        ShardtoolError: it can't be written; the one that was there stands.
    """
    _, named = node_named(args.data, args.influx_config, os.environ)
    seconds = time.monotonic() - begun
    content = text_of(Look(safe(named), __version__, time.time(), seconds, found))
    try:
        with opened(target.parent, READ_DIRECTORY) as directory:
            _sweep(directory, target.name)
            replace_file(directory, target.name, content)
    except OSError as error:
        raise ShardtoolError(
            f"{target}: expected to write the metrics, found: {reason_of(error)}; the directory "
            "has to be there, and writable for this user"
        ) from None
    return len(content)


def _sweep(directory: int, name: str) -> None:
    """Remove what killed runs had begun to write. By age: a process of another container has a
    number that says nothing here."""
    unfinished = re.compile(rf"\.{re.escape(name)}\.[1-9]\d*", re.ASCII)
    for entry in os.listdir(directory):
        if unfinished.fullmatch(entry):
            with contextlib.suppress(OSError):
                written = os.stat(entry, dir_fd=directory, follow_symlinks=False).st_mtime
                if time.time() - written > _LONG_AGO:
                    os.unlink(entry, dir_fd=directory)
