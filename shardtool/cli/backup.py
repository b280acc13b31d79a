"""`shardtool backup`: snapshot raft, wal and config.toml."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from shardtool.cli import exits
from shardtool.cli.options import amount
from shardtool.cli.output import Output, safe
from shardtool.cli.snapshots import add_store, meter, store_of, verified_json
from shardtool.datadir.layout import Layout, find_layout
from shardtool.datadir.server import Search, find_server
from shardtool.disk.locks import exclusive
from shardtool.errors import BusyError
from shardtool.snapshots.address import Address
from shardtool.snapshots.backup import Backup, find_sources, take_snapshot
from shardtool.snapshots.pending import refuse_half_restored
from shardtool.snapshots.store import create_store, refuse_overlap

if TYPE_CHECKING:
    from shardtool.snapshots.remote.upload import Sent

DESCRIPTION = """\
Copies raft, wal and InfluxDB's config.toml into a snapshot: a directory named
by its UTC time that appears only when every byte is on the disk and has been
read back and compared. Changes nothing in raft and wal."""

EPILOG = """\
A snapshot is a BagIt bag (RFC 8493): data/ holds the files as they were,
shardtool.json their modes, owners, times and links. Its directories are
private, for raft holds password hashes: to whoever ran the backup, or where
that was root and the snapshot directory is the server's, to the server's user.

With a server running it refuses (exit 4). --live copies all the same, until two
passes find the same bytes, and marks the snapshot as live.

With --to s3://BUCKET/PREFIX (pip install 'shardtool[s3]') it is staged in a
private directory below $TMPDIR, else /var/tmp, as large as raft and wal are;
each object is sent with its SHA-256, read back and compared, and the tag
manifest makes it a snapshot at last. Requests that fail are done again for a
minute. What a kill leaves there goes with a later backup or forget, when it is
a day old. Let the bucket end incomplete multipart uploads by a lifecycle rule.

For s3:// the usual settings count: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and
AWS_SESSION_TOKEN; or AWS_PROFILE with ~/.aws/credentials and ~/.aws/config
(keys, region, endpoint_url, credential_process); or the role of the container,
the web identity or the machine; AWS_REGION, AWS_ENDPOINT_URL, AWS_CA_BUNDLE. An
endpoint may be http:// where it is written so. A profile's SSO and role_arn are
AWS's own: eval "$(aws configure export-credentials --format env)"

examples:
  shardtool backup
  shardtool backup --to /backup/influxdb
  shardtool backup --to s3://backups/influxdb/node1
  shardtool --influx-config /opt/influxdb/shared/config.toml backup --live

Verify without shardtool, in the snapshot's directory:
  sha256sum -c manifest-sha256.txt"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's own arguments to `parser`."""
    add_store(parser, "--to")
    parser.add_argument(
        "--live", action="store_true", help="copy although a server is running on the directory"
    )


def run(args: argparse.Namespace, out: Output) -> int:
    """Take a snapshot and tell where it is; return the exit code."""
    layout = find_layout(args.data, args.influx_config, dict(os.environ))
    store = store_of(args, layout)
    made: Backup | Sent
    if isinstance(store, Address):
        made = _into_bucket(layout, store, args, out)
    else:
        made = _into_directory(layout, store, args, out)
    _tell(made, _same_options(args), out)
    return exits.DONE


def _into_directory(layout: Layout, store: Path, args: argparse.Namespace, out: Output) -> Backup:
    with _held(layout):
        refuse_overlap(layout, store)
        find_sources(layout)  # what is missing is told before a store is created
        search = _look_for_server(layout, live=args.live)
        create_store(store)
        with exclusive(store, purpose="snapshot directory"):
            return take_snapshot(layout, store, meter(out), live=args.live, search=search)


def _into_bucket(layout: Layout, store: Address, args: argparse.Namespace, out: Output) -> Sent:
    from shardtool.snapshots.remote.bucket import Bucket
    from shardtool.snapshots.remote.upload import back_up

    with Bucket(store) as bucket:
        return back_up(
            layout,
            bucket,
            meter(out),
            _held(layout),
            lambda: _look_for_server(layout, live=args.live),
            live=args.live,
        )


@contextlib.contextmanager
def _held(layout: Layout) -> Iterator[None]:
    with exclusive(layout.anchor, purpose="data directory"):
        refuse_half_restored(layout)
        yield


def _look_for_server(layout: Layout, *, live: bool) -> Search:
    search = find_server(layout)
    if search.server is not None and not live:
        raise BusyError(
            f"{layout.name}: expected no server on it, found {search.server}; "
            "stop it, or copy all the same with --live"
        )
    return search


def _same_options(args: argparse.Namespace) -> str:
    """Return the options that the commands to come need too, as they were given."""
    named = (("--data", args.data), ("--influx-config", args.influx_config))
    given = [*named, ("--store", args.store)]
    return "".join(f" {option} {shlex.quote(value)}" for option, value in given if value)


def _tell(made: Backup | Sent, option: str, out: Output) -> None:
    for warning in made.warnings:
        out.warn(f"warning: {warning}")
    snapshot = verified_json(made.path, made.verified)
    out.document("backup", {"snapshot": snapshot, "warnings": list(made.warnings)})
    metadata = made.verified.metadata
    if metadata is None:
        return
    live = "live snapshot" if metadata.live else "snapshot"
    content = amount(len(metadata.files), "file", metadata.payload_bytes)
    path = safe(str(made.path))
    out.line(f"{live} {metadata.id}: {content}, verified, in {path}")
    if not out.quiet:
        out.line()
        out.line(f"verify again  shardtool snapshots verify {metadata.id}{safe(option)}")
        quoted = safe(shlex.quote(str(made.path)))
        if isinstance(made.path, Address):
            out.line(f"by hand       aws s3 sync {quoted} {metadata.id}")
            out.line(f"              cd {metadata.id} && sha256sum -c manifest-sha256.txt")
        else:
            out.line(f"by hand       cd {quoted} && sha256sum -c manifest-sha256.txt")
        out.line(f"put it back   shardtool restore {metadata.id}{safe(option)}")
