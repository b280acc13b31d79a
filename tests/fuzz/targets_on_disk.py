"""What is fuzzed in files: raft's directory, shards, and what shardtool keeps beside them.

Several files are one input: `joined` puts them into it, `parts` takes them out again.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import tempfile
import traceback
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest

from shardtool.cli import history
from shardtool.cli.output import Output
from shardtool.datadir.config import setting
from shardtool.datadir.inventory import ENGINES
from shardtool.datadir.layout import Layout, find_layout
from shardtool.datadir.marker import MARKER, read_marker
from shardtool.disk.durable import READ_DIRECTORY, opened
from shardtool.errors import ShardtoolError
from shardtool.influxdb import leveldb
from shardtool.influxdb.catalogue import read_catalogue
from shardtool.influxdb.engines import open_shard
from shardtool.influxdb.errors import CatalogueError
from shardtool.influxdb.serverlog import LogReader, MigrationLog
from shardtool.journal import SCHEMA, Journal
from shardtool.proof.causes import CAUSES
from shardtool.proof.columns import Name
from shardtool.proof.listing import Listing
from shardtool.proof.prove import Lost
from shardtool.proof.receipts import NewSide, Receipts, is_same_old_side
from shardtool.proof.source import RaftCatalogue
from shardtool.prune.trash import leftovers
from shardtool.rescue.spool import Spool, columns_in, values_of
from shardtool.snapshots.pending import pending_restore
from shardtool.snapshots.remote.settings import find_settings
from tests.fuzz.targets import Target, check_told, may_raise

_LENGTH = 3  # bytes
_CPU_SECONDS = 20  # of a child that reads a shard
_DIED = 99  # exit code of a child with a traceback


def joined(*pieces: bytes) -> bytes:
    """Return one input of several pieces."""
    return b"".join(len(piece).to_bytes(_LENGTH, "little") + piece for piece in pieces)


def parts(data: bytes) -> Iterator[bytes]:
    """Yield the pieces of an input; the last may be short."""
    at = 0
    while at < len(data):
        start = at + _LENGTH
        at = start + int.from_bytes(data[at:start], "little")
        yield data[start:at]


@lru_cache(maxsize=1)
def _node() -> Layout:
    """Make an empty node for this process; the whole TMPDIR is the caller's to remove."""
    root = Path(tempfile.mkdtemp(prefix="fuzz-"))
    for name in ("db/.shardtool/proofs", "db/.shardtool/trash", "db/shard_db", "raft", "wal"):
        (root / name).mkdir(parents=True)
    (root / "db/.shardtool/trash/00001.20261124T175153Z-1").mkdir()
    return Layout(root / "db", root / "raft", root / "wal", None, str(root))


@contextlib.contextmanager
def _directory() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        yield made
    finally:
        shutil.rmtree(made)


def fuzz_catalogue(data: bytes) -> None:
    """Read a raft directory: a snapshot's state, whatever it is, and a log."""
    state, log, *_ = [*parts(data), b"", b""]
    with _directory() as made:
        (made / "snapshot").mkdir()
        if state:
            (made / "snapshot" / "1_9.ss").write_bytes(b"%08x\n" % zlib.crc32(state) + state)
        (made / "log").write_bytes(log)
        (made / "name").write_bytes(data[:32])
        with may_raise(CatalogueError):
            read_catalogue(made)


def _fill(directory: Path, data: bytes) -> None:
    """Make files in a directory: name, content, name, content."""
    pieces = list(parts(data))
    for name, content in zip(pieces[::2], pieces[1::2], strict=False):
        with contextlib.suppress(OSError, ValueError):  # no name that a directory can hold
            (directory / os.fsdecode(name.replace(b"/", b"_"))).write_bytes(content)


def fuzz_leveldb(data: bytes) -> None:
    """Check a LevelDB's files."""
    with _directory() as made:
        _fill(made, data)
        for at_rest in (False, True):
            with may_raise(leveldb.LevelDBError, OSError):
                leveldb.check(made, is_at_rest=at_rest)
        with may_raise(leveldb.LevelDBError, OSError):
            leveldb.check_form(made)


def fuzz_engine(data: bytes) -> None:
    """Open a shard and read it to its end, in a child, as a proof does.

    The engine may kill its process, which proof.children takes for an unreadable shard; it may
    not raise anything but the documented, nor go on for ever.
    """
    engine = sorted(ENGINES)[data[0] % len(ENGINES)] if data else ""
    with _directory() as made:
        (made / "shard").mkdir()
        (made / "links").mkdir()
        _fill(made / "shard", data[1:])
        pid = os.fork()
        if not pid:
            status = _DIED
            try:
                import resource

                resource.setrlimit(resource.RLIMIT_CPU, (_CPU_SECONDS, _CPU_SECONDS))
                with may_raise(ShardtoolError):
                    _read_all(made, engine)
                status = 0
            finally:
                if status:  # whatever it is that goes through here, the parent must hear of it
                    traceback.print_exc()
                os._exit(status)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) != _DIED, "see the traceback above"
        assert not os.WIFSIGNALED(status) or os.WTERMSIG(status) not in (9, 24), "it went on"


def _read_all(made: Path, engine: str) -> None:
    with open_shard(made / "shard", engine, made / "links", is_at_rest=True) as reader:
        stream = reader.pairs(b"")
        keys = [key for key, _ in stream.take(1000)]
        while stream.take(1000):
            pass
        for key in keys[:10]:
            reader.value(key)
        reader.tables()


def fuzz_journal(data: bytes) -> None:
    """Read a journal, show it, and ask it what to do with what is in the trash."""
    layout = _node()
    # Half of the records are of our schema, or nothing would get past it.
    lines = [
        line.replace(b"@", b'{"schema": "%s", "event": "' % SCHEMA.encode(), 1)
        for line in data.split(b"\n")
    ]
    (layout.own / "journal").write_bytes(b"\n".join(lines))
    with may_raise(ShardtoolError):
        found = Journal(layout).read()
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown):
            history._show(found, True, Output(as_json=False, quiet=False))
            history._show(found, False, Output(as_json=False, quiet=False))
        assert all(line.isprintable() for line in shown.getvalue().split("\n"))
        leftovers(layout.own / "trash", found, lambda intent: True)


def fuzz_receipt(data: bytes) -> None:
    """Read a receipt, as it is and with the right checksum, and ask whether it holds."""
    layout = _node()
    receipts = Receipts(layout)
    path = receipts.directory / "00001.json"
    path.write_bytes(data)
    receipts.read("00001")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return
    if isinstance(document, dict):
        document.pop("sha256", None)
        canonical = json.dumps(document, ensure_ascii=True, sort_keys=True).encode("ascii")
        document["sha256"] = hashlib.sha256(canonical).hexdigest()
        path.write_text(json.dumps(document))
        receipt = receipts.read("00001")
        if receipt is not None:
            assert not is_same_old_side(receipt, layout)
            NewSide(layout, RaftCatalogue(layout.raft)).is_same(receipt)


def fuzz_pending(data: bytes) -> None:
    """Read the file that a restore leaves while it swaps."""
    layout = _node()
    layout.pending_restore.write_bytes(data)
    with may_raise(ShardtoolError):
        pending_restore(layout)


def fuzz_config(data: bytes) -> None:
    """Find the node that a config.toml names."""
    path = _node().raft.parent / "config.toml"
    path.write_bytes(data)
    with may_raise(ShardtoolError):
        find_layout(None, str(path), {})
    setting(path, "api", "port")


def fuzz_marker(data: bytes) -> None:
    """Look at a marker."""
    shard = _node().old_shards
    (shard / MARKER).write_bytes(data)
    with opened(shard, READ_DIRECTORY) as descriptor:
        found = read_marker(descriptor)
    assert found.valid == (data == b"done.\n")
    check_told(found.detail)


def fuzz_server_log(data: bytes) -> None:
    """Read a log that grows, and what the migrator says in it."""
    path = _node().wal / "influxdb.log"
    first, second, *_ = [*parts(data), b"", b""]
    path.write_bytes(first)
    reader = LogReader(path, of_last_migration=True)
    said = MigrationLog(reader)
    said.poll()
    with path.open("ab") as file:
        file.write(second)
    for _ in range(3):
        said.poll()
    said.close()


def fuzz_s3_settings(data: bytes) -> None:
    """Find how a bucket is reached: variables in pairs, then ~/.aws's two files."""
    config, credentials, *rest = [*parts(data), b"", b""]
    home = _node().wal
    (home / ".aws").mkdir(exist_ok=True)
    for name, content in ("config", config), ("credentials", credentials):
        # It would be run, and there is nothing to decode in it.
        (home / ".aws" / name).write_bytes(content.replace(b"credential_process", b"x"))
    texts = [os.fsdecode(piece.replace(b"\0", b"")) for piece in rest]
    variables = dict(zip(texts[::2], texts[1::2], strict=False))
    for of_file in "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_CA_BUNDLE":
        if variables.get(of_file, "")[:1] in ("", "/"):  # some device, that may be read for ever
            variables.pop(of_file, None)
    with may_raise(ShardtoolError):
        found = find_settings({**variables, "HOME": str(home)})
        assert str(found.config.get("region", "a")).isascii()
        assert str(found.config.get("endpoint", "a")).isprintable()
        secret = found.config.get("secret_access_key")
        assert not secret or len(secret) < 8 or secret not in repr(found)


def fuzz_listing(data: bytes) -> None:
    """List lost values as JSON: a line each, whatever was stored."""
    listing = Listing("00001")
    pieces = [*parts(data)][:200]
    for place, piece in enumerate(pieces):
        suffix, stored = piece[:16].ljust(16, b"\0"), piece[16:]
        name = Name("d", stored[:9].decode(errors="replace"), "c")
        cause = "" if piece[:1] == b"?" else "future"
        listing.add(Lost(name, suffix, stored, stored[::-1] if place % 2 else None, cause))
    listing.column_ends("not-migrated")
    lines = b"".join(listing.chunks()).splitlines()
    assert len(lines) == len(pieces)
    for line in lines:
        found = json.loads(line, parse_constant=pytest.fail)
        assert found["cause"] in CAUSES
        assert line.isascii()


def fuzz_spool(data: bytes) -> None:
    """Write lost values and read the same: a byte for the column and the flags, then the value."""
    directory = _node().wal
    spool = Spool("00001")
    written: list[tuple[str, bytes, bytes, str, bool]] = []
    column = ""
    causes = sorted(CAUSES)
    for piece in [*parts(data)][:200]:
        flags = piece[0] if piece else 0
        wanted = f"c{flags & 3}"
        if column and wanted != column:
            spool.column_ends(causes[0])
        column = wanted
        suffix, stored = piece[1:17].ljust(16, b"\0"), piece[17:]
        cause = causes[flags % len(causes)] if flags & 4 else ""
        found = b"" if flags & 8 else None
        name = Name("d", "s", column)
        spool.add(Lost(name, suffix, stored, found, cause, name if flags & 16 else None))
        written.append((column, suffix, stored, cause or causes[0], found is not None))
    if column:
        spool.column_ends(causes[0])
    path = directory / "spool"
    path.write_bytes(b"".join(spool.chunks()))
    read = [
        (of.name.column, value.suffix, value.stored, value.cause, value.is_different)
        for of in columns_in(path)
        for value in values_of(path, of, of_many=len(data) or 1)
    ]
    assert read == written, (read, written)


TARGETS: dict[str, Target] = {
    "catalogue": fuzz_catalogue,
    "config": fuzz_config,
    "engine": fuzz_engine,
    "journal": fuzz_journal,
    "leveldb": fuzz_leveldb,
    "listing": fuzz_listing,
    "marker": fuzz_marker,
    "pending": fuzz_pending,
    "receipt": fuzz_receipt,
    "s3_settings": fuzz_s3_settings,
    "server_log": fuzz_server_log,
    "spool": fuzz_spool,
}
