"""`shardtool verify` and its receipts: what a second run knows, and one that was interrupted."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fixtures import Node, Row
from fixtures.encode import microseconds
from fixtures.server import Faults, serve
from tests.conftest import COMMAND, REPOSITORY, Run
from tests.e2e.proof_world import (
    AT,
    Capture,
    new_of,
    receipts,
    verdicts,
    verify,
)

pytestmark = pytest.mark.preloaded

# -- receipts --


def without(shards: dict[str, Any], *keys: str) -> dict[str, Any]:
    """Given verify's shards, return them without some of what is said of each."""
    return {n: {k: v for k, v in s.items() if k not in keys} for n, s in shards.items()}


@pytest.mark.slow
def test_a_second_run_says_the_same_from_receipts(capture: Capture, shardtool: Run) -> None:
    data = capture("migrated-08")
    first = verify(shardtool, data)
    assert not any(shard["from_receipt"] for shard in first.values())
    second = verify(shardtool, data)
    assert all(shard["from_receipt"] for shard in second.values())
    assert without(second, "from_receipt") == without(first, "from_receipt")


def test_again_reads_what_has_a_receipt(proven: Node, shardtool: Run) -> None:
    first = verify(shardtool, proven.path)
    again = verify(shardtool, proven.path, "--again")
    assert not any(shard["from_receipt"] for shard in again.values())
    assert all(again[name]["proven_at"] > first[name]["proven_at"] for name in first)
    volatile = ("proven_at", "from_receipt")
    assert without(again, *volatile) == without(first, *volatile)


@pytest.mark.slow
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"schema": "shardtool/receipt/1"}',
        b"\xff" * 100,
        b"[" * 100_000,
        b'{"schema": "shardtool/receipt/2", "shard": "00001"}',
    ],
    ids=range(7),
)
def test_a_damaged_receipt_does_not_hold(content: bytes, proven: Node, shardtool: Run) -> None:
    verify(shardtool, proven.path)
    (proven.db / ".shardtool/proofs/00001.json").write_bytes(content)
    shards = verify(shardtool, proven.path)
    assert [shard["from_receipt"] for shard in shards.values()] == [False, True]
    assert set(verdicts(shards).values()) == {"proven"}


def test_a_receipt_of_another_shard_does_not_hold(proven: Node, shardtool: Run) -> None:
    verify(shardtool, proven.path)
    proofs = proven.db / ".shardtool/proofs"
    shutil.copy(proofs / "00001.json", proofs / "00002.json")
    shards = verify(shardtool, proven.path)
    assert [shard["from_receipt"] for shard in shards.values()] == [True, False]


def touch_old(node: Node) -> None:
    """Change the mtime of a file of old shard 1."""
    os.utime(node.old[1].path / "000003.log")


def rewrite_old_in_place(node: Node) -> None:
    """Write other bytes into old shard 1 and set its mtime back."""
    file = node.old[1].path / "000003.log"
    entry = file.stat()
    content = file.read_bytes()
    file.write_bytes(content)
    os.utime(file, ns=(entry.st_atime_ns, entry.st_mtime_ns))


def touch_new(node: Node) -> None:
    """Change the mtime of a file of a new shard."""
    os.utime(new_of(node, 1).path / "000003.log")


def write_to_new(node: Node) -> None:
    """Have a client write one more point beside old shard 1's."""
    at = microseconds(node.old[1].start)
    node.write_new([Row("test", "cpu", "n", at + 5, 50_001, 5)])


@pytest.mark.slow
@pytest.mark.parametrize("change", [touch_old, rewrite_old_in_place, touch_new, write_to_new])
def test_a_receipt_holds_only_while_both_sides_are_unchanged(
    change: Callable[[Node], None], proven: Node, shardtool: Run
) -> None:
    verify(shardtool, proven.path)
    change(proven)
    assert not verify(shardtool, proven.path, "1")["00001"]["from_receipt"]


def test_receipts_can_be_read_by_all_and_belong_to_the_owner_of_db(
    proven: Node, shardtool: Run
) -> None:
    if os.geteuid() == 0:
        os.chown(proven.db, 65534, 65534)
    verify(shardtool, proven.path)
    owner = proven.db.stat().st_uid
    own = proven.db / ".shardtool"
    for path in (own, own / "proofs", own / "proofs/00001.json"):
        assert path.stat().st_uid == owner, path
    assert (own / "proofs/00001.json").stat().st_mode & 0o777 == 0o644


# -- interrupted --


@contextmanager
def hanging(tmp_path: Path) -> Iterator[tuple[Node, str, Faults, Path]]:
    """A node whose shard 2 is proven at once, and whose shard 1 waits for another server's answer.

    Yields node, URL, the server's faults (hang = 0 ends the waiting) and an empty TMPDIR.
    """
    node = Node(tmp_path / "data", version="0.8", servers=2)
    other = Node(tmp_path / "other", version="0.8", servers=2, server_id=2)
    rows = [Row("test", "cpu", "v", AT, 10_001, 1)]
    for one in (node, other):
        one.old_shard(2, rows=rows)
        one.migrate(2)  # the first new shard is the first server's
        one.old_shard(1, points=20, databases={"test": ("cpu",)})
        one.migrate(1)
    assert node.elsewhere
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    faults = Faults(only="/db/", hang=60)
    with serve(node, other, faults=faults) as url:
        yield node, url, faults, scratch


def begun(node: Node, url: str, scratch: Path) -> subprocess.Popen[str]:
    """Start a verify and return it once it has written a receipt and waits for the other shard."""
    process = subprocess.Popen(
        [*COMMAND, "--data", str(node.path), "verify", "--json", "--api", url],
        env={
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "TMPDIR": str(scratch),
            "SHARDTOOL_PASSWORD": "root",
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    end = time.monotonic() + 30
    while receipts(node.path) != ["00002.json"]:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "no receipt was written"
        time.sleep(0.01)
    return process


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_an_interrupted_run_keeps_the_finished_shards_receipts(
    number: signal.Signals, tmp_path: Path, shardtool: Run
) -> None:
    with hanging(tmp_path) as (node, url, faults, scratch):
        process = begun(node, url, scratch)
        process.send_signal(number)
        assert process.wait(30) == (-number if number == signal.SIGKILL else 130)
        if number != signal.SIGKILL:
            stdout, stderr = process.communicate()
            assert stdout == ""
            assert re.fullmatch("shardtool: interrupted; 1 of 2 shards [^\n]*\n", stderr), stderr
            assert list(scratch.iterdir()) == []
        assert receipts(node.path) == ["00002.json"]
        faults.hang = 0
        env: dict[str, str | None] = {"SHARDTOOL_PASSWORD": "root", "TMPDIR": str(scratch)}
        shards = verify(shardtool, node.path, "--api", url, env=env)
        assert list(scratch.iterdir()) == []  # nor anything of the killed run, now
    assert verdicts(shards) == {"00001": "proven", "00002": "proven"}
    assert {name for name, shard in shards.items() if shard["from_receipt"]} == {"00002"}


@pytest.mark.slow
def test_a_finished_run_leaves_nothing_in_tmpdir(
    proven: Node, shardtool: Run, tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    for words in (["--list"], ["--json"]):
        shardtool("--data", proven.path, "verify", *words, env={"TMPDIR": str(scratch)})
        assert list(scratch.iterdir()) == []
