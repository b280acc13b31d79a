"""The node on which the examples run: that of `make demo`, on its way from 0.7 to pruned."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from docs.examples.blocks import Example, shortened

# As the pages tell it: the packages' own directory, and the server's own port.
SHOWN_DATA, SHOWN_API = "/opt/influxdb/shared/data", "http://localhost:8086"
SHOWN_HOME, SHOWN_HOST = "/root", "db1"
REPOSITORY = Path(__file__).parents[2]
JOURNEY = (
    *("status", "check", "backup", "snapshots", "restore", "forget"),
    *("spaces", "migrate", "verify", "export", "accept", "report", "rescue", "prune", "history"),
)
"""The pages in the order in which their examples are run: each finds what the last one left."""
NEEDS_SERVER = "spaces"
"""The first page whose examples need the server of 0.8."""
# A process that nobody may look into is on some machines and not on others.
_OF_THE_MACHINE = re.compile(
    r"^(info     server-unknown\n  whether .*\n\n|.*\bunknown\b.*\bprocess(es)?\b.*\n)",
    re.MULTILINE,
)


@contextlib.contextmanager
def new_world(shardtool: Sequence[str]) -> Iterator[World]:
    """Make a node for the examples, and remove it afterwards; see World."""
    with tempfile.TemporaryDirectory(prefix="s-", dir="/tmp") as directory:
        yield World(Path(directory), shardtool)


class World:
    """A node, made by fixtures/demo.py, and after a while the server on it.

    Args:
        directory: where it may make files; empty.
        shardtool: the command to run, as words.
    """

    def __init__(self, directory: Path, shardtool: Sequence[str]) -> None:
        self._directory = directory
        self._function = f'shardtool() {{ {shlex.join(shardtool)} "$@"; }}'
        self._data = directory / "node" / "data"
        # Lines are broken at 80 columns before the page's own name stands in them.
        assert len(str(self._data)) == len(SHOWN_DATA)
        self._data.parent.mkdir()
        self._api = ""
        # Plain and in UTC, whatever the terminal of whoever runs it is.
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "LC_ALL": "C.UTF-8",
            "PYTHONPATH": str(REPOSITORY),
            "PYTHONUNBUFFERED": "1",
            "SHARDTOOL_DATA": str(self._data),
            "SHARDTOOL_PASSWORD": "root",
        }
        self._python("fixtures.demo", str(self._data)).check_returncode()

    def _python(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-m", *words],
            cwd=self._directory,
            env=self._environment,
            stdout=subprocess.DEVNULL,
            timeout=100,
            check=False,
        )

    @contextlib.contextmanager
    def server(self) -> Iterator[None]:
        """Run the server that answers and migrates as 0.8.3 does; a write of it fails."""
        words = ("fixtures.influxd", str(self._data), "--fail-write", "00010", "Exceptions", "full")
        with subprocess.Popen(
            [sys.executable, "-m", *words],
            cwd=self._directory,
            env=self._environment,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                assert process.stdout is not None
                self._api = process.stdout.readline().strip()
                yield
            finally:
                process.kill()

    def run(self, example: Example) -> str:
        """Run the command of an example; return what the page has to show of what it prints.

        Raises:
            ValueError: the page wants a document, and it printed none.
        """
        command = example.command.replace(SHOWN_API, self._api or SHOWN_API)
        done = subprocess.run(
            ["bash", "-c", f"{self._function}\n{command}"],
            cwd=self._directory,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if example.is_json else subprocess.STDOUT,
            text=True,
            timeout=100,
            check=False,
        )
        text = done.stdout.replace(str(self._data), SHOWN_DATA)
        text = text.replace(self._api or SHOWN_API, SHOWN_API)
        text = text.replace(str(self._directory), SHOWN_HOME)
        text = re.sub(rf"\b{re.escape(os.uname().nodename)}(?=:/|\")", SHOWN_HOST, text)
        if example.is_json:
            try:
                return shortened(text)
            except ValueError:
                raise ValueError(f"{command}: printed no document: {text}{done.stderr}") from None
        text = _OF_THE_MACHINE.sub("", text)
        if text and not text.endswith("\n"):
            text += "\n"
        return text + (f"(exit code {done.returncode})\n" if done.returncode else "")
