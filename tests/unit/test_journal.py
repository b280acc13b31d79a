"""The journal: what was written is read again, whatever tears or touches it in between."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures import Node
from shardtool.datadir.layout import Layout
from shardtool.errors import ShardtoolError
from shardtool.journal import SCHEMA, Journal
from tests.conftest import Run

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 70), 1 << 70)
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec=None, exclude_categories=())),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.dictionaries(
    st.text().filter(lambda name: name not in ("event", "schema", "time")), JSON, max_size=4
)


def layout_in(path: Path) -> Layout:
    """Make an empty db in `path` and return the layout of its node."""
    (path / "db").mkdir()
    return Layout(path / "db", path / "raft", path / "wal", None, str(path))


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """Make a node without a journal."""
    return Journal(layout_in(tmp_path))


def events(journal: Journal) -> list[str]:
    """Return the events that a reader sees."""
    return [record["event"] for record in journal.read().records]


def test_an_absent_journal_is_empty_and_reading_makes_none(journal: Journal) -> None:
    assert journal.read().records == ()
    assert not journal.path.parent.exists()


def test_records_come_back_in_order_with_time_and_schema(journal: Journal) -> None:
    journal.append("intent", shard="00007")
    journal.append_all([{"event": "renamed"}, {"event": "deleted"}])
    assert events(journal) == ["intent", "renamed", "deleted"]
    first = journal.read().records[0]
    assert (first["schema"], first["shard"]) == (SCHEMA, "00007")
    assert first["time"].endswith("Z")


@pytest.mark.slow
@given(st.lists(FIELDS, max_size=4))
def test_any_fields_come_back_as_they_were(fields: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        journal = Journal(layout_in(Path(directory)))
        journal.append_all([{"event": "e", **one} for one in fields])
        read = journal.read()
    assert read.damaged == ()
    assert [
        {name: value for name, value in r.items() if name not in ("event", "schema", "time")}
        for r in read.records
    ] == fields


@given(st.lists(FIELDS, min_size=1, max_size=3), st.data())
def test_a_torn_last_line_costs_that_line_alone(
    fields: list[dict[str, Any]], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        journal = Journal(layout_in(Path(directory)))
        journal.append_all([{"event": str(n), **one} for n, one in enumerate(fields)])
        whole = journal.path.read_bytes()
        start = whole.rstrip(b"\n").rfind(b"\n") + 1
        end = data.draw(st.integers(start, len(whole) - 1))
        journal.path.write_bytes(whole[:end])
        before = [str(n) for n in range(len(fields) - 1)]
        assert events(journal) == before
        assert bool(journal.read().damaged) == (end > start)


@pytest.mark.slow
@given(FIELDS, st.data())
def test_what_is_written_after_a_torn_line_is_read(
    fields: dict[str, Any], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        journal = Journal(layout_in(Path(directory)))
        journal.append("first")
        kept = journal.path.stat().st_size
        journal.append("torn", **fields)
        os.truncate(journal.path, data.draw(st.integers(kept, journal.path.stat().st_size - 2)))
        journal.append("last")
        assert events(journal) == ["first", "last"]


def test_a_record_that_was_not_there_once_is_never_there_later(journal: Journal) -> None:
    """A line that lacks nothing but its end is not there; the next writer must not revive it."""
    journal.append("first")
    journal.append("torn")
    os.truncate(journal.path, journal.path.stat().st_size - 1)
    assert events(journal) == ["first"]
    journal.append("last")
    assert events(journal) == ["first", "last"]


def test_no_line_is_ever_changed(journal: Journal) -> None:
    journal.append("first")
    before = journal.path.read_bytes()
    os.truncate(journal.path, len(before) - 5)
    journal.append("second")
    assert journal.path.read_bytes().startswith(before[:-5])


@pytest.mark.parametrize(
    "garbage",
    [
        b"\n",
        b"not json\n",
        b"\x00" * 4096 + b"\n",
        b"\xff\xfe\xfd\n",
        b"[" * 100_000 + b"\n",
        b'{"a":' * 50_000 + b"\n",
        b"9" * 10_000 + b"\n",
        b"null\n",
        b"[]\n",
        b"{}\n",
        b'{"schema": "shardtool/journal/1"}\n',
        b'{"schema": "shardtool/journal/1", "event": 7}\n',
        b'{"schema": "shardtool/journal/2", "event": "deleted"}\n',
        b'{"schema": "shardtool/journal/1", "event": "deleted", "n": ' + b"9" * 10_000 + b"}\n",
    ],
)
def test_garbage_in_the_middle_is_passed_over_and_numbered(
    garbage: bytes, journal: Journal
) -> None:
    journal.append("first")
    with journal.path.open("ab") as file:
        file.write(garbage)
    journal.append("last")
    assert events(journal) == ["first", "last"]
    assert journal.read().damaged == (2,)


def test_many_records_go_to_disk_in_one_write_and_one_sync(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.append("first")
    done: list[str] = []
    real_write, real_sync = os.write, os.fsync

    def write(descriptor: int, content: bytes) -> int:
        done.append("write")
        return real_write(descriptor, content)

    def sync(descriptor: int) -> None:
        done.append("sync")
        real_sync(descriptor)

    monkeypatch.setattr(os, "write", write)
    monkeypatch.setattr(os, "fsync", sync)
    journal.append_all([{"event": str(number)} for number in range(16)])
    assert done == ["write", "sync"]


def test_short_writes_are_gone_on_with(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, content: real(fd, bytes(content)[:7]))
    journal.append_all([{"event": "one"}, {"event": "two"}])
    assert events(journal) == ["one", "two"]


def test_a_disk_that_fills_up_in_mid_write_is_an_error_and_tears_one_line_at_most(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.append("first")
    real = os.write
    written: list[int] = []

    def fill_up(descriptor: int, content: bytes) -> int:
        if written:
            raise OSError(28, "No space left on device")
        written.append(1)
        return real(descriptor, bytes(content)[:150])

    monkeypatch.setattr(os, "write", fill_up)
    with pytest.raises(ShardtoolError, match="No space left on device"):
        journal.append_all([{"event": str(n), "shard": "00007"} for n in range(5)])
    monkeypatch.undo()
    assert events(journal)[0] == "first"
    assert len(journal.read().damaged) == 1
    journal.append("last")
    assert events(journal)[-1] == "last"


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_disk_that_fails_is_an_error_that_names_the_journal(
    call: str, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.append("first")

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(ShardtoolError, match="nothing is done without it") as error:
        journal.append("second")
    assert str(journal.path) in str(error.value)


def make_link(path: Path) -> None:
    """Make the journal a link to a file that is somebody's."""
    target = path.parent.parent / "precious"
    target.write_text("precious\n")
    path.symlink_to(target)


def make_socket(path: Path) -> None:
    """Make the journal a socket."""
    here = os.getcwd()
    os.chdir(path.parent)  # a socket's whole path has to fit 108 bytes
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
    finally:
        os.chdir(here)


@pytest.mark.parametrize(
    "make",
    [
        make_link,
        os.mkfifo,
        os.mkdir,
        make_socket,
        lambda path: path.symlink_to("nowhere"),
    ],
    ids=["link", "fifo", "directory", "socket", "dangling-link"],
)
def test_what_is_no_file_is_neither_read_nor_written_nor_waited_for(
    make: Callable[[Path], None], journal: Journal
) -> None:
    journal.path.parent.mkdir()
    make(journal.path)
    with pytest.raises(ShardtoolError):
        journal.append("deleted")
    with pytest.raises(ShardtoolError):
        journal.read()
    precious = journal.path.parent.parent / "precious"
    assert not precious.exists() or precious.read_text() == "precious\n"
    assert not (journal.path.parent / "nowhere").exists()


def test_a_link_in_place_of_shardtools_own_directory_is_not_followed(
    journal: Journal, tmp_path: Path
) -> None:
    """Root must not be led to write, and to give away, a file elsewhere."""
    (tmp_path / "elsewhere").mkdir()
    journal.path.parent.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ShardtoolError):
        journal.append("deleted")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_file_in_place_of_shardtools_own_directory_is_an_error(journal: Journal) -> None:
    journal.path.parent.write_text("precious")
    with pytest.raises(ShardtoolError):
        journal.append("deleted")
    assert journal.path.parent.read_text() == "precious"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files for others")
def test_what_root_writes_belongs_to_the_owner_of_the_database(
    journal: Journal, tmp_path: Path
) -> None:
    os.chown(tmp_path / "db", 4711, 4712)
    journal.append("deleted")
    for path in (journal.path, journal.path.parent):
        assert (path.stat().st_uid, path.stat().st_gid) == (4711, 4712)
        assert not path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def record(**fields: Any) -> bytes:
    """Return a line that a journal takes for one of its own."""
    return (json.dumps({"schema": SCHEMA, "event": "deleted", **fields}) + "\n").encode()


TAMPERED: list[dict[str, Any]] = [
    {"run": []},
    {"shard": {"a": 1}},
    {"freed_bytes": 10**400},
    {"freed_bytes": -1},
    {"freed_bytes": "much"},
    {"time": 7, "reasons": [1, None, {}], "error": ["y"]},
    {"event": "\x1b[2J", "shard": "\x1b[31m\n\udcff"},
    {"trash": [], "event": "intent"},
    {"trash": "00007.run", "event": "intent", "inode": "x", "fingerprint": []},
    {"event": "x" * 100_000},
]


@pytest.fixture(scope="module")
def tampered(tmp_path_factory: pytest.TempPathFactory) -> Node:
    """Make a node with an entry in the trash that a journal may tell lies about."""
    node = Node(tmp_path_factory.mktemp("node") / "data", version="0.8")
    node.old_shard(7, points=2)
    (node.db / ".shardtool/trash/00007.run").mkdir(parents=True)
    return node


def no_harm_done(done: subprocess.CompletedProcess[str]) -> None:
    """Assert that a command ended as a command should."""
    assert "mistake in shardtool" not in done.stderr
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert done.returncode in (0, 3)


@pytest.mark.parametrize("fields", TAMPERED)
def test_a_record_that_was_tampered_with_crashes_no_history_and_no_terminal(
    fields: dict[str, Any], tampered: Node, shardtool: Run
) -> None:
    (tampered.db / ".shardtool/journal").write_bytes(record(**fields))
    no_harm_done(shardtool("history", "--data", tampered.path))


@pytest.mark.parametrize("command", [["status"], ["prune", "--dry-run"]])
def test_records_that_were_tampered_with_crash_no_other_command(
    command: list[str], tampered: Node, shardtool: Run
) -> None:
    lines = b"".join(record(**fields) for fields in TAMPERED)
    (tampered.db / ".shardtool/journal").write_bytes(lines)
    no_harm_done(shardtool(*command, "--data", tampered.path))
