"""fixtures/standin.py: the servers of a cluster as processes that reach each other."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures import cluster07, standin
from fixtures.peers import port_of
from tests.conftest import Run
from tests.e2e.proof_world import verdicts, verify

ENV: dict[str, str | None] = {"SHARDTOOL_PASSWORD": "root"}


@pytest.fixture
def homes(tmp_path: Path) -> Iterator[list[Path]]:
    """Two servers of one cluster, 0.8 after 0.7; what still runs at the end is killed."""
    made = cluster07.build(tmp_path, servers=2, shards=3, points=20)
    for home in made:
        standin.install(home, "0.8.3")
        standin.start(home)
    yield made
    for home in made:
        standin.stop(home, signal.SIGKILL)


def migrate(run: Run, home: Path) -> None:
    """Migrate a node, and insist that it was fine."""
    words = ("--wait", "--pause", "0s", "--override", "no-snapshot")
    url = standin.url_of(home)
    done = run("--data", home / "data", "migrate", "--api", url, *words, env=ENV)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_each_server_migrates_into_the_shards_of_the_others(
    homes: list[Path], shardtool: Run
) -> None:
    spaces = ("spaces", "apply", "--like-0.7", *cluster07.SERIES, "--yes")
    assert shardtool(*spaces, "--api", standin.url_of(homes[0]), env=ENV).returncode == 0
    for home in homes:
        migrate(shardtool, home)
    first, second = ((home / "data/raft/log").read_bytes() for home in homes)
    assert first.count(b"create_shards") == second.count(b"create_shards")
    for home in homes:
        data = home / "data"
        alone = verdicts(verify(shardtool, data))
        assert "incomplete" in alone.values()  # some of its values are on the other's disk
        asked = verify(shardtool, data, "--api", standin.url_of(home), env=ENV)
        assert {*verdicts(asked).values()} == {"proven"}


def test_a_server_of_07_has_its_old_shards_open(tmp_path: Path, shardtool: Run) -> None:
    (home,) = cluster07.build(tmp_path, servers=1, shards=2, points=20)
    standin.start(home)
    try:
        assert standin.installed(home) == "0.7.3"
        shown = shardtool("--data", home / "data", "status").stdout
        assert shown.count("busy") == 2
    finally:
        standin.stop(home)
    assert standin.pid_of(home) is None
    assert "busy" not in shardtool("--data", home / "data", "status").stdout


def test_no_server_has_a_port_that_another_gets_while_it_is_stopped(tmp_path: Path) -> None:
    given = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    homes = cluster07.build(tmp_path, servers=3, shards=1, points=1)
    tables = {"api": "port", "cluster": "protobuf_port"}
    ports = {port_of(home / "data", *names) for home in homes for names in tables.items()}
    assert len(ports) == 6
    assert not ports & {*range(int(given[0]), int(given[1]) + 1)}
