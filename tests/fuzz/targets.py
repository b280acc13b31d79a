"""What is fuzzed in memory: each target reads bytes that anyone may have written.

A target raises nothing but what it finds: the documented errors are caught, and their text is
looked at, for it ends up on a terminal. targets_on_disk.py has those that need files.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import zlib
from bisect import bisect_left
from collections.abc import Callable, Iterator
from pathlib import Path

from shardtool.cli.export import microseconds_of
from shardtool.cli.options import bytes_of, count_of, interval_of, pause_of, seconds_of
from shardtool.cli.output import safe, short
from shardtool.errors import ShardtoolError
from shardtool.influxdb import answers, gob, leveldb, raft, wal
from shardtool.influxdb.catalogue import from_configuration
from shardtool.influxdb.credentials import base_url
from shardtool.influxdb.engines import EngineError, Pair
from shardtool.influxdb.errors import LogError
from shardtool.influxdb.messages import MessageError, Name, parse, stored, text, value_of
from shardtool.influxdb.model import Catalogue, Dropped, Space
from shardtool.influxdb.regex import compiled, encoded
from shardtool.influxdb.spaces import duration_us, problems, takes
from shardtool.influxdb.wire import Wire
from shardtool.proof.columns import read_index
from shardtool.proof.compare import pieces
from shardtool.report.model import Made
from shardtool.report.page import page_of
from shardtool.report.reading import merged, read_nodes
from shardtool.report.view import view_of
from shardtool.snapshots import bag
from shardtool.snapshots.metadata import DamagedError, age_order, created_at, decoded, is_id
from shardtool.upgrade.spaces_file import read_spaces

Target = Callable[[bytes], None]

MOST_TOLD = 4096
"""Characters of a message: it quotes a little of what it found, and not all of it."""
MESSAGES: tuple[Name, ...] = ("FieldValue", "LogEntry", "Point", "Series", "Request")


def check_told(message: str) -> None:
    """Insist that a message is short, and that what is shown of it holds no control character."""
    assert len(message) <= MOST_TOLD, f"a message of {len(message)} characters"
    assert safe(message).isprintable(), message


@contextlib.contextmanager
def may_raise(*documented: type[Exception]) -> Iterator[None]:
    """Let a documented error pass, if its message may be shown."""
    try:
        yield
    except documented as error:
        check_told(str(error))


# -- raft and the WAL --


def fuzz_gob(data: bytes) -> None:
    """Decode a stream, and a time."""
    for decode in (gob.decode, gob.time_us):
        with may_raise(gob.GobError):
            decode(data)


def fuzz_raft_log(data: bytes) -> None:
    """Read the log's entries."""
    with may_raise(LogError):
        list(raft.parse_log(io.BytesIO(data), len(data)))


def fuzz_raft_snapshot(data: bytes) -> None:
    """Take a snapshot with the right checksum apart, and the state in it."""
    with may_raise(ValueError):  # GobError is one
        gob.decode(raft.parse_snapshot(b"%08x\n" % zlib.crc32(data) + data).state)


def fuzz_wal(data: bytes) -> None:
    """Read the requests of a log.N."""
    with may_raise(LogError):
        list(wal.parse_log(io.BytesIO(data), len(data)))


def fuzz_messages(data: bytes) -> None:
    """Parse each kind of message; a value that was read is written as the same value."""
    for name in MESSAGES:
        with may_raise(MessageError):
            found = parse(name, data)
            if name == "FieldValue":
                value = value_of(found)
                if value is not None:
                    again = value_of(parse(name, stored(value)))
                    assert repr(again) == repr(value)


# -- shards --


class Pairs:
    """A shard of these pairs, as an engine would give them."""

    path = Path("shard")

    def __init__(self, pairs: list[Pair], place: int = 0) -> None:
        """Begin at the pair number `place`."""
        self._pairs, self._place = pairs, place

    def pairs(self, start: bytes) -> Pairs:
        """Return the pairs from the key `start` on."""
        return Pairs(self._pairs, bisect_left(self._pairs, (start, b"")))

    def take(self, count: int) -> list[Pair]:
        """Return the next `count` pairs."""
        first, self._place = self._place, self._place + count
        return self._pairs[first : self._place]

    def value(self, key: bytes) -> bytes | None:
        """Return the value under a key."""
        return dict(self._pairs).get(key)

    def tables(self) -> list[tuple[bytes, int]]:
        """Return no tables."""
        return []


def fuzz_keys(data: bytes) -> None:
    """Read an old shard's index and values: a byte each for a key's and a value's length."""
    pairs: dict[bytes, bytes] = {}
    file = io.BytesIO(data)
    while head := file.read(2):
        key = file.read(head[0])
        pairs[key] = file.read(head[-1])
    shard = Pairs(sorted(pairs.items()))
    catalogue = Catalogue(frozenset({"a"}), {"a": {}}, {}, (), (), None, Dropped())
    with may_raise(EngineError):
        index = read_index(shard, catalogue)
        for piece in pieces(shard, lambda key: None):
            index.stumbles(index.column(piece.column).name)


def fuzz_batch(data: bytes) -> None:
    """Look at a record of a LevelDB's log."""
    check_told(leveldb.what_is_wrong(data) or "")


# -- HTTP --


def fuzz_configuration(data: bytes) -> None:
    """Take the answer to GET /cluster/configuration for a catalogue."""
    with may_raise(answers.BrokenAnswerError, ShardtoolError):
        from_configuration(answers.configuration_in(data))


def fuzz_answers(data: bytes) -> None:
    """Take the other answers apart, a version and a text that is to be shown among them."""
    for take in (answers.databases_in, answers.servers_in, answers.spaces_in):
        with may_raise(answers.BrokenAnswerError):
            take(data)
    with may_raise(answers.BrokenAnswerError):
        for document in answers.documents(data):
            for series in document if isinstance(document, list) else [document]:
                list(answers.points_in(series, "cpu", "load", -(1 << 63), 1 << 63))
    shown = Wire.shown(_NO_SECRETS, data.decode(errors="replace"))
    assert shown.isprintable()
    assert len(shown) <= 160
    version = answers.version_in(data[:200].decode("latin-1"))
    assert version is None or version.isprintable()


class _NoSecrets(Wire):
    """A wire that has no password and is connected to nothing."""

    def __init__(self) -> None:
        self._secrets = ()


_NO_SECRETS = _NoSecrets()


# -- snapshots --


def fuzz_manifest(data: bytes) -> None:
    """Read a manifest; what it holds stays in the bag and is written as it was read."""
    with may_raise(DamagedError):
        found = bag.parsed_manifest(data)
        assert not any(path.startswith("/") or ".." in path.split("/") for path in found)
        assert bag.parsed_manifest(bag.manifest(found)) == found
        bag.problem_with_names(found)


def fuzz_metadata(data: bytes) -> None:
    """Read a shardtool.json; one that is sound can be written, and is read again as the same."""
    with may_raise(DamagedError):
        found = decoded(data)
        assert decoded(found.encoded()) == found
        age_order(found.id)
        digests = {f"data/{entry.path}": "0" * 64 for entry in found.files}
        if bag.problem_with_names(digests) is None:
            bag.tag_files(found, digests)


# -- what an operator gives --


def fuzz_spaces_file(data: bytes) -> None:
    """Read a file of shard spaces in each form."""
    for name in ("spaces.toml", "spaces.json", "spaces"):
        found = read_spaces(name, data, None if data[:1] == b"[" else "test")
        for problem in found.problems:
            check_told(problem)


def fuzz_report(data: bytes) -> None:
    """Merge a file of reports, of which there may be several of a node, and write the page."""
    with may_raise(ShardtoolError):
        read = read_nodes(data, "FILE")
        report = merged(_MADE, [read, read])
        page = page_of(report, view_of(report))
        assert "<script" not in page[page.index("<body") :]


_MADE = Made("0", "host", "2026-11-26T20:41:00Z", "shardtool report FILE")


def fuzz_options(data: bytes) -> None:
    """Read the values of options: sizes, durations, times, URLs, names of snapshots."""
    given = text(data)
    for take in (bytes_of, seconds_of, interval_of, pause_of, count_of, microseconds_of):
        with contextlib.suppress(argparse.ArgumentTypeError):
            take(given)
    with contextlib.suppress(ShardtoolError):
        base_url(given)
    duration_us(given)
    if is_id(given):
        assert created_at(given)
        age_order(given)
    assert short(given).isprintable()


def fuzz_regex(data: bytes) -> None:
    """Compile a space's regex, search with it, and say what is wrong with the space."""
    regex, _, series = text(data).partition("\n")
    space = Space("test", "some", regex, "inf", "7d", 1, 1)
    compiled(regex)
    takes(space, series)
    encoded(series)
    for problem in problems(space):
        check_told(problem)


def fuzz_json_text(data: bytes) -> None:
    """Show any text as JSON and as a line."""
    shown = text(data)
    assert json.dumps(shown).isprintable()
    assert safe(shown).isprintable()


TARGETS: dict[str, Target] = {
    "answers": fuzz_answers,
    "batch": fuzz_batch,
    "configuration": fuzz_configuration,
    "gob": fuzz_gob,
    "json_text": fuzz_json_text,
    "keys": fuzz_keys,
    "manifest": fuzz_manifest,
    "messages": fuzz_messages,
    "metadata": fuzz_metadata,
    "options": fuzz_options,
    "raft_log": fuzz_raft_log,
    "raft_snapshot": fuzz_raft_snapshot,
    "regex": fuzz_regex,
    "report": fuzz_report,
    "spaces_file": fuzz_spaces_file,
    "wal": fuzz_wal,
}
