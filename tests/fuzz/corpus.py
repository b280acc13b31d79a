"""Valid input for each target, to begin with: from fixtures, and pieces of captures.

Made anew for each run into a temporary directory; nothing of it is kept in the repository.
"""

from __future__ import annotations

import json
import tarfile
import tempfile
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

from fixtures import Node, encode, leveldb
from fixtures import raft as raft_fixture
from fixtures import wal as wal_fixture
from fixtures.encode import message
from shardtool.datadir.inventory import ENGINES
from shardtool.disk.copy import Entry
from shardtool.influxdb.raft import parse_snapshot
from shardtool.journal import SCHEMA
from shardtool.proof.columns import Name
from shardtool.proof.prove import Finding, Loss
from shardtool.proof.receipts import Receipt, _document
from shardtool.snapshots import bag
from shardtool.snapshots.metadata import Metadata
from shardtool.snapshots.pending import SCHEMA as PENDING
from tests import archives
from tests.fuzz.targets_on_disk import joined
from tests.report_world import document, node, report, shard

VECTORS = Path(__file__).parents[1] / "vectors" / "gob"
_MOST = 48 << 10  # bytes of one seed: what is longer is fuzzed no better, only slower
_ID = "20261124T175153Z"


def write(target: str, directory: Path, captures: Path | None) -> None:
    """Write the seeds of a target into a directory, a file each.

    Args:
        target: its name.
        directory: an empty one.
        captures: where archives of real servers' directories are; None where there are none.
    """
    seeds = [*_MADE[target]()]
    if captures is not None and target in _CAPTURED:
        seeds += _CAPTURED[target](captures)
    for place, seed in enumerate(seeds):
        (directory / f"seed{place}").write_bytes(seed[:_MOST])


def _commands() -> list[raft_fixture.Command]:
    day = datetime(2014, 9, 1, tzinfo=UTC)
    return [
        raft_fixture.join(),
        raft_fixture.nop(),
        raft_fixture.create_db("test"),
        *(raft_fixture.add_shard_space("test", space) for space in raft_fixture.SPACES),
        raft_fixture.create_series_field_ids("test", "cpu", ["load", "host"]),
        raft_fixture.drop_series("test", "cpu"),
        raft_fixture.drop_shard(1),
        raft_fixture.drop_db("test"),
        raft_fixture.Command("nothing_that_anyone_knows", {"time": day.isoformat()}),
    ]


def _states() -> list[bytes]:
    """Return snapshots without their checksum."""
    states = [path.read_bytes() for path in sorted(VECTORS.glob("saved-*.gob"))]
    return [raft_fixture.encode_snapshot(9, 1, state)[9:] for state in states]


def _log() -> bytes:
    return raft_fixture.encode_log([_commands()])


def _requests() -> list[bytes]:
    point = wal_fixture.Point(-1, 1, (1, "x", 0.5, None, True))
    request = wal_fixture.Request(1, 1, "test", "cpu", ("a", "b", "c", "d", "e"), (point,))
    return [wal_fixture.encode([request, request])[0], message((1, 1))]


def _values() -> list[bytes]:
    return [encode.field_value(value) for value in (None, True, 7, 0.5, "text")]


def _keys() -> list[bytes]:
    column = encode.Column("a", "b~c", "d")
    found = [encode.id_entry(column, 1), encode.series_entry("a", "b~c")]
    found += [encode.last_id_entry(1), (encode.value_key(encode.old_id(1), 0, 1), b"")]
    return [b"".join(bytes((len(k), len(v))) + k + v for k, v in found)]


def _files_of(shard: Path) -> bytes:
    """Return a shard's files as one input: name, content, name, content."""
    pieces: list[bytes] = []
    for path in sorted(shard.iterdir()):
        if path.is_file() and path.name not in ("LOCK", "LOG", "type"):
            pieces += [path.name.encode(), path.read_bytes()]
    return joined(*pieces)


def _shards() -> list[bytes]:
    with tempfile.TemporaryDirectory() as scratch:
        node = Node(Path(scratch) / "data", version="0.8")
        return [_files_of(node.old_shard(1, points=4))]


def _batches() -> list[bytes]:
    pairs = [(b"key", b"value"), (b"k" * 200, b"")]
    puts = b"".join(
        b"\x01" + encode.uvarint(len(k)) + k + encode.uvarint(len(v)) + v for k, v in pairs
    )
    return [leveldb._BATCH.pack(1, len(pairs)) + puts, leveldb._BATCH.pack(1, 1) + b"\x00\x01k"]


def _in_engines(seeds: Iterable[bytes]) -> list[bytes]:
    return [bytes([engine]) + seed for seed in seeds for engine in range(len(ENGINES))]


def _journals() -> list[bytes]:
    head = f'{{"schema": "{SCHEMA}", "time": "2026-11-24T17:51:53Z", "event": "'
    intent = (
        'intent", "shard": "00001", "trash": "00001.20261124T175153Z-1", "inode": 5, "files": 3, '
        '"evidence": "proof", "fingerprint": "ab", "changes": 7, "run": "r"}\n'
    )
    told = (
        'rescue-ended", "how": "done", "sent": 3, "refused": 1}\n',
        'migration-ended", "migration": 1, "how": "done", "left": ["00001"], "errors": 0}\n',
        'migration-started", "migration": 1, "shards": ["00001"], "pause": "1s"}\n',
        'space-created", "space": {"database": "d", "name": "n", "regex": "/a/"}}\n',
        'deleted", "shard": "00001", "freed_bytes": 4096, "lost": 1, "values": 3, '
        '"missing": 1, "different": 0, "because": "old"}\n',
        'failed", "shard": "00001", "error": "no space", "reasons": ["a", "b"]}\n',
    )
    return [(head + intent).encode(), *((head + one).encode() for one in told), b'@kept"}\n']


def _receipts() -> list[bytes]:
    loss = Loss(Name("d", "s", "c"), 3, 1, 0, "future", first_us=1, last_us=1)
    finding = Finding(
        values=3,
        missing=1,
        different=0,
        asked=0,
        losses=(loss,),
        elsewhere=False,
        unasked=False,
        digest="12",
        losses_digest="34",
        old_state="ab",
        new_states={"00002": "cd"},
        ids="1-3",
        basis="ef",
    )
    receipt = Receipt("00001", datetime(2026, 11, 24, tzinfo=UTC), finding)
    return [json.dumps(_document(receipt)).encode()]


def _metadata() -> Metadata:
    entries = (
        Entry("config.toml", "file", 0o644, 0, 0, 5, 0),
        Entry("raft", "directory", 0o755, 0, 0, 0, 0),
        Entry("raft/log", "file", 0o600, 1000, 1000, 7, 1),
        Entry("wal", "directory", 0o755, 0, 0, 0, 0),
        Entry("wal/a", "link", 0o777, 0, 0, 0, 0, "log.1"),
    )
    return Metadata(_ID, False, {"raft": "/raft", "wal": "/wal"}, entries, {0: "root"}, {0: "root"})


def _pending() -> list[bytes]:
    staged = [{"place": f"/{name}", "inode": 7, "mtime_ns": 1} for name in ("raft", "wal")]
    document = {"schema": PENDING, "snapshot": _ID, "path": "/s", "stamp": _ID, "staged": staged}
    return [json.dumps(document).encode()]


def _spaces() -> list[bytes]:
    space = {"name": "a", "regex": "/.*/", "retentionPolicy": "inf", "shardDuration": "7d"}
    toml = '[[spaces]]\nname = "a"\nregex = "/.*/"\nretentionPolicy = "inf"\nsplit = 1\n'
    return [json.dumps({"spaces": [space]}).encode(), json.dumps(space).encode(), toml.encode()]


def _configs() -> list[bytes]:
    return [b'[storage]\ndir = "/a/db"\n[raft]\ndir = "/a/raft"\n[wal]\ndir = "/a/wal"\n']


def _server_logs() -> list[bytes]:
    head = "[2026/11/24 16:19:56 UTC] [{}] (github.com/influxdb/influxdb/{}:83) {}\n"
    lines = (
        head.format("INFO", "api/http.(*HttpServer).migrateData.func", "Starting Migration"),
        head.format("INFO", "migration.(*DataMigrator).migrateDir", "Migrating 00001"),
        head.format(
            "EROR",
            "migration.(*DataMigrator).migrateDir",
            "Error looking up fields for cpu: Field a doesn't exist in series cpu",
        ),
        head.format("EROR", "migration.x", "Problem writing migration marker for shard 00001: no"),
    )
    whole = "".join(lines).encode()
    return [joined(whole, whole), joined(whole[:100], whole[100:])]


def _options() -> list[bytes]:
    texts = ("100G", "1.5T", "7d", "1w2d", "90s", "100ms", "2014-01-31T12:00:00+01:00", _ID)
    return [one.encode() for one in (*texts, f"{_ID}-2", "http://[::1]:8086", "https://a.b:1/")]


def _spool() -> list[bytes]:
    suffix = b"\1" * 16
    return [joined(*(bytes([flags]) + suffix + b"v" * flags for flags in (0, 4, 9, 17, 30)))]


def _reports() -> list[bytes]:
    script = "<script>alert(1)</script>"
    shards = [shard(1), shard(2, "incomplete", lost=3), shard(3, "unmigrated", id=script)]
    found = document(report(node(script, shards, data=script), node("db2")))
    return [json.dumps(found).encode(), json.dumps(found, indent=1).encode() * 2]


def _s3_settings() -> list[bytes]:
    config = b"[default]\nregion = eu-west-1\n[profile a]\nendpoint_url = https://[::1]:9000/\n"
    keys = b"[a]\naws_access_key_id = AKIA\naws_secret_access_key = some secret\n"
    named = (b"AWS_PROFILE", b"a", b"AWS_REGION", b"us-east-1", b"AWS_ENDPOINT_URL", b"http://h:1")
    elsewhere = (b"AWS_CONFIG_FILE", b"~root/config", b"AWS_CA_BUNDLE", b"bundle")
    role = b"[profile a]\nrole_arn = x\n"
    return [joined(config, keys, *named), joined(role, keys, *named[:2], *elsewhere)]


def _lost() -> list[bytes]:
    suffixes = (b"?" * 16, bytes(16), b"\xff" * 16)
    return [joined(*(suffix + value for suffix in suffixes for value in [*_values(), b"\xff"]))]


_ANSWERS = (
    b'[{"name": "test"}]',
    b'[{"id": 1, "raftName": "a", "isLeader": true, "protobufConnectString": "http://a:1"}]',
    b'[{"name": "cpu", "columns": ["time", "sequence_number", "load"], "points": [[1, 2, 0.5]]}]',
    b"InfluxDB v0.8.3 (git: fbf9a47405) (leveldb: 1.23)",
)

_MADE: dict[str, Callable[[], Iterable[bytes]]] = {
    "answers": lambda: _ANSWERS,
    "batch": _batches,
    "catalogue": lambda: [joined(state, _log()) for state in [b"", *_states()]],
    "config": _configs,
    "configuration": lambda: [b'{"MetaStore": {"StringsToIds": {"a": {"b": {"c": 1}}}}}'],
    "engine": lambda: _in_engines(_shards()),
    "gob": lambda: [path.read_bytes() for path in sorted(VECTORS.glob("*.gob"))],
    "journal": _journals,
    "json_text": lambda: [b"\x1b[31m\xc3\xa9\xff"],
    "keys": _keys,
    "leveldb": _shards,
    "listing": _lost,
    "manifest": lambda: [bag.manifest({"data/raft/log": "0" * 64, "data/a b": "1" * 64})],
    "marker": lambda: [b"done.\n"],
    "messages": lambda: [*_values(), *_requests()],
    "metadata": lambda: [_metadata().encoded()],
    "options": _options,
    "pending": _pending,
    "raft_log": lambda: [_log()],
    "raft_snapshot": _states,
    "receipt": _receipts,
    "regex": lambda: [b"/^[A-Z].*/i\nCpu", rb"/\p{Greek}\Qa.b\E(?P<n>x)/" + b"\na"],
    "report": _reports,
    "s3_settings": _s3_settings,
    "server_log": _server_logs,
    "spaces_file": _spaces,
    "spool": _spool,
    "wal": _requests,
}


# -- of captures --


def _from_archive(captures: Path, name: str, inside: str) -> list[bytes]:
    """Return the files of a capture whose path within it begins with `inside`."""
    with tarfile.open(captures / f"{name}.tar.gz") as archive:
        found = [
            archive.extractfile(member)
            for member in archive
            if member.isfile() and member.name.removeprefix(f"{name}/").startswith(inside)
        ]
        return [file.read() for file in found if file is not None]


def _captured_shards(captures: Path) -> list[bytes]:
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, below in (("original-07", "db/shard_db"), ("shards-2014", "")):
            archives.unpack(captures / f"{name}.tar.gz", Path(scratch))
            for shard in sorted((Path(scratch) / name / below).iterdir())[:6]:
                seed = _files_of(shard)
                if len(seed) < _MOST:
                    found.append(seed)
    return found


def _captured_raft(captures: Path) -> list[bytes]:
    names = ("original-07", "compacted-07", "migrated-08", "partial-08")
    return [log for name in names for log in _from_archive(captures, name, "raft/log")]


def _captured_snapshots(captures: Path) -> list[bytes]:
    return [s[9:] for s in _from_archive(captures, "compacted-07", "raft/snapshot/")]


def _captured_catalogues(captures: Path) -> list[bytes]:
    whole = [joined(b"", log) for log in _captured_raft(captures)]
    logs = _from_archive(captures, "compacted-07", "raft/log")
    return whole + [joined(state, logs[0]) for state in _captured_snapshots(captures)]


def _captured_gobs(captures: Path) -> list[bytes]:
    files = _from_archive(captures, "compacted-07", "raft/snapshot/")
    return [parse_snapshot(file).state for file in files]


def _captured_answers(captures: Path) -> list[bytes]:
    answers = [path.read_bytes() for path in sorted((captures / "http-08").glob("*.txt"))]
    bodies = [answer.rpartition(b"\r\n\r\n")[2].rpartition(b"\n\n")[2] for answer in answers]
    return [body for body in bodies if body[:1] in (b"[", b"{")]


_CAPTURED: dict[str, Callable[[Path], list[bytes]]] = {
    "answers": _captured_answers,
    "catalogue": _captured_catalogues,
    "config": lambda captures: _from_archive(captures, "original-07", "config"),
    "configuration": _captured_answers,
    "engine": lambda captures: _in_engines(_captured_shards(captures)),
    "gob": _captured_gobs,
    "leveldb": _captured_shards,
    "raft_log": _captured_raft,
    "raft_snapshot": _captured_snapshots,
    "server_log": lambda captures: [
        joined(log, b"") for log in _from_archive(captures, "migrated-08", "influxdb.log")
    ],
    "wal": lambda captures: _from_archive(captures, "original-07", "wal/log"),
}
