"""A small node, the real command in a process of its own, and trees as they can be compared."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests import archives
from tests.needs import archive_of
from tests.preloaded import preloaded

# How long a command may take; far more than any takes.
_SECONDS = 60


def make_node(root: Path) -> Path:
    """Make a node with awkward modes, times, an empty directory and a link; return `root`."""
    (root / "db" / "shard_db").mkdir(parents=True)
    (root / "raft" / "snapshot").mkdir(parents=True)
    (root / "wal").mkdir()
    (root / "raft" / "log").write_bytes(b"a raft log\n")
    (root / "raft" / "name").write_bytes(b"0123")
    (root / "wal" / "log.1").write_bytes(bytes(range(256)) * 9000)
    (root / "wal" / "empty").write_bytes(b"")
    (root / "wal" / "current").symlink_to("log.1")
    (root / "config.toml").write_text("# made up\n")
    (root / "raft" / "log").chmod(0o600)
    (root / "raft" / "name").chmod(0o604)
    for number, path in enumerate([*(root / "raft").rglob("*"), *(root / "wal").glob("[le]*")]):
        os.utime(path, ns=(1, 1_400_000_000_123_456_789 + number))
    (root / "raft" / "snapshot").chmod(0o2750)
    (root / "wal").chmod(0o711)
    return root


def unpacked(capture: str, tmp_path: Path) -> Path:
    """Unpack a capture of a real server."""
    archives.unpack(archive_of(capture), tmp_path)
    return tmp_path / capture


def shardtool(*words: object, prefix: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """Run the command and return what became of it."""
    if not prefix:
        return preloaded().run([*map(str, words)], environment())
    return subprocess.run(
        command(*words, prefix=prefix),
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )


def command(*words: object, prefix: Sequence[str] = ()) -> list[str]:
    """Return the words that run shardtool."""
    return [*prefix, sys.executable, "-m", "shardtool", *(str(word) for word in words)]


def environment() -> dict[str, str]:
    """Return an environment in which nothing but the command line names a directory."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("SHARDTOOL_")}
    return {**kept, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}


def document(*words: object) -> Any:
    """Run the command with --json and return its document, which must be on stdout alone."""
    result = shardtool(*words, "--json")
    assert result.stdout, result.stderr
    return json.loads(result.stdout)


def backed_up(node: Path, *words: object) -> Path:
    """Take a snapshot of `node` and return its directory."""
    return Path(document("--data", node, "backup", *words)["snapshot"]["path"])


def state(node: Path) -> dict[str, tuple[object, ...]]:
    """Return everything of raft and wal that a restore has to bring back."""
    return {
        str(path.relative_to(node)): _facts(path)
        for top in (node / "raft", node / "wal")
        for path in (top, *top.rglob("*"))
    }


def _facts(path: Path) -> tuple[object, ...]:
    found = path.lstat()
    mode = stat.S_IFMT(found.st_mode) if path.is_symlink() else found.st_mode
    content = ""
    if path.is_symlink():
        content = os.readlink(path)
    elif path.is_file():
        content = hashlib.sha256(path.read_bytes()).hexdigest()
    return mode, found.st_uid, found.st_gid, found.st_mtime_ns, content


def damage(node: Path) -> None:
    """Do to raft and wal what a snapshot is for."""
    (node / "raft" / "log").write_bytes(b"cut")
    (node / "wal" / "log.1").unlink()
    (node / "wal" / "log.2").write_bytes(b"new")


@contextmanager
def holding_open(path: Path) -> Iterator[int]:
    """Yield the pid of another process that has `path` open."""
    script = "import sys; f = open(sys.argv[1], 'rb'); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.kill()


class Uncounted:
    """What counts bytes for nobody."""

    def __init__(self, doing: str, total: int) -> None:
        """Take what a progress bar takes."""

    def __enter__(self) -> Uncounted:
        return self

    def __exit__(self, *error: object) -> None:
        """Leave the block as it ended."""

    def advance(self, count: int) -> None:
        """Forget `count`."""
