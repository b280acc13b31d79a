"""Servers of 0.7 that run, and real ansible-core to take them through upgrade.yml."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fixtures import cluster07, standin
from fixtures.encode import Row
from shardtool.datadir.layout import find_layout
from shardtool.journal import Journal
from tests.conftest import REPOSITORY

ANSIBLE = REPOSITORY / "deploy" / "ansible"
CHILDREN = Path(__file__).with_name("children")  # see sitecustomize.py there
PLAYBOOK = Path(sys.executable).with_name("ansible-playbook")
SHARDTOOL = Path(sys.executable).with_name("shardtool")
SECRET = "s3cret-p4ss"
_RECAP = re.compile(r"^(node\d) +: ok=\d+ +changed=(\d+) +unreachable=0 +failed=(\d)", re.MULTILINE)


@dataclass(frozen=True)
class Done:
    """What a run of the playbook came to."""

    code: int
    printed: str

    @property
    def changed(self) -> dict[str, int]:
        """How many tasks changed something, by node."""
        return {node: int(changed) for node, changed, _ in _RECAP.findall(self.printed)}

    @property
    def failed(self) -> list[str]:
        """The nodes on which a task failed."""
        return [node for node, _, failed in _RECAP.findall(self.printed) if int(failed)]

    @property
    def text(self) -> str:
        """What was printed, in one line: Ansible breaks messages wherever it likes."""
        return " ".join(self.printed.split())

    def tasks(self) -> list[str]:
        """Return the names of the tasks that were run, in order."""
        return re.findall(r"^TASK \[(?:shardtool : )?(.*?)\] \**$", self.printed, re.MULTILINE)


class World:
    """The nodes, their servers, and the inventory for them."""

    def __init__(
        self, path: Path, servers: int = 3, rows: Mapping[int, Iterable[Row]] | None = None
    ) -> None:
        """Build the nodes; see fixtures.cluster07. Their servers run, with a password."""
        self.path = path
        self.homes = cluster07.build(path / "cluster", servers=servers, points=60, rows=rows)
        self.variables: dict[str, object] = {
            "shardtool_password": SECRET,
            "shardtool_busy_delay": 1,
        }
        for home in self.homes:
            (home / "password").write_text(SECRET)
            standin.start(home)

    def close(self) -> None:
        """Stop all servers."""
        for home in self.homes:
            standin.stop(home, signal.SIGKILL)

    def data(self, number: int) -> Path:
        """Return a node's data directory; the first is node 1."""
        return self.homes[number - 1] / "data"

    def run(self, *options: str, **variables: object) -> Done:
        """Run the playbook, with what differs from the inventory of fixtures.standin."""
        inventory = standin.inventory(self.path / "cluster", **self.variables | variables)
        file = self.path / "inventory.json"
        file.write_text(json.dumps(inventory))
        return playbook("-i", str(file), *options)

    def running(self) -> list[str]:
        """Return the versions of those servers that run."""
        return [standin.installed(home) for home in self.homes if standin.pid_of(home)]

    def old_shards(self) -> list[str]:
        """Return the old shards, 'NODE/NUMBER'."""
        return [
            f"{number}/{path.name}"
            for number, home in enumerate(self.homes, 1)
            for path in sorted((home / "data/db/shard_db").iterdir())
        ]

    def marked(self) -> list[str]:
        """Return those of the old shards that have a marker."""
        homes = [home / "data/db/shard_db" for home in self.homes]
        return [
            one
            for one in self.old_shards()
            if (homes[int(one[0]) - 1] / one[2:] / "MIGRATED").exists()
        ]

    def events(self, number: int) -> list[str]:
        """Return what a node's journal tells."""
        journal = Journal(find_layout(str(self.data(number)), None, {}))
        return [record["event"] for record in journal.read().records]

    def report(self, name: str = "shardtool") -> Any:
        """Return the report that the playbook has kept."""
        return json.loads((self.path / f"cluster/report/{name}.json").read_text())


def _is_ours(name: str) -> bool:
    # A run starts Python hundreds of times: without bytecode each start takes twice as long.
    return "SHARDTOOL" in name or name == "PYTHONDONTWRITEBYTECODE"


def playbook(*options: str) -> Done:
    """Run upgrade.yml with ansible-core, as an operator does from its directory."""
    done = subprocess.run(
        [str(PLAYBOOK), str(ANSIBLE / "upgrade.yml"), *options],
        cwd=ANSIBLE,
        env={
            **{name: value for name, value in os.environ.items() if not _is_ours(name)},
            "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{CHILDREN}",
            "ANSIBLE_CONFIG": str(ANSIBLE / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=500,
        check=False,
    )
    return Done(done.returncode, done.stdout)
