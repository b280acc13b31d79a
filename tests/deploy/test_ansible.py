"""deploy/ansible with real ansible-core: nodes on this machine, a server process for each."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from fixtures import standin
from fixtures.encode import Row
from tests.conftest import Hold, Listing
from tests.deploy.ansible_world import PLAYBOOK, SECRET, SHARDTOOL, Done, World, playbook
from tests.needs import lacking

# The old shards of a cluster of two: each third one is on both.
COPIES = [f"1/{n:05}" for n in (1, 3, 5, 6)] + [f"2/{n:05}" for n in (2, 3, 4, 6)]

pytestmark = pytest.mark.timeout(900)
Build: TypeAlias = Callable[..., World]
List: TypeAlias = Callable[[Path], Listing]


@pytest.fixture
def build(tmp_path: Path) -> Iterator[Build]:
    """Build a world whose servers end with the test."""
    if not PLAYBOOK.exists():
        lacking("ansible-core")
    worlds: list[World] = []

    def make(servers: int = 3, rows: Mapping[int, Iterable[Row]] | None = None) -> World:
        worlds.append(World(tmp_path, servers, rows))
        return worlds[-1]

    yield make
    for world in worlds:
        world.close()


def fine(done: Done) -> Done:
    """Insist that a run came to its end."""
    assert (done.code, done.failed) == (0, []), done.printed[-5000:]
    return done


def ended(done: Done, *nodes: str) -> Done:
    """Insist that a run ended on these nodes."""
    assert (done.code, done.failed) == (2, [*nodes]), done.printed[-5000:]
    return done


@pytest.fixture
def listed(listing: List) -> Callable[[World], dict[str, Listing]]:
    """List all that is on the disks of a world's nodes: bytes, times, modes."""
    return lambda world: {home.name: listing(home) for home in world.homes}


@pytest.mark.slow
def test_three_nodes_of_07_are_taken_to_pruned_and_a_second_run_changes_nothing(
    build: Build, tmp_path: Path, listed: Callable[[World], dict[str, Listing]]
) -> None:
    world = build()
    spaces = tmp_path / "spaces.toml"
    spaces.write_text(_SPACES)
    words = tmp_path / "words"
    command = tmp_path / "shardtool"
    command.write_text(f'#!/bin/sh\necho "$@" >> {words}\nexec {SHARDTOOL} "$@"\n')
    command.chmod(0o755)
    world.variables |= {
        "shardtool_spaces_like_07": [],
        "shardtool_spaces_file": str(spaces),
        "shardtool_command": str(command),
        "shardtool_secrets": {"ANOTHER_KEY": f"{SECRET}-too"},
    }

    # --check looks, says what there is to do, and changes nothing.
    before = listed(world)
    looked = fine(world.run("--check"))
    assert looked.changed == {"node1": 0, "node2": 0, "node3": 0}
    assert "to do: stop, back up, install 0.8.3, start, migrate 4 old shards" in looked.text
    assert listed(world) == before
    assert world.running() == ["0.7.3"] * 3

    # All of it. Whatever Ansible shows of what it does, no secret is in it.
    done = fine(world.run("-vvv"))
    assert SECRET not in done.printed
    assert SECRET not in words.read_text()
    assert world.running() == ["0.8.3"] * 3
    assert world.old_shards() == []
    for number in (1, 2, 3):
        data = world.data(number)
        assert len([*(data / "snapshots").glob("2*Z")]) == 1
        assert len([*(data / "db/shard_db_v2").iterdir()]) > 4
        assert world.events(number).count("migration-started") == 1
        assert "deleted" in world.events(number)
    # Before anything was deleted, every copy of every shard was proven.
    proven = world.report("before-prune")["cluster"]["shards"]
    assert [one["id"] for one in proven] == [f"{number:05}" for number in range(1, 7)]
    assert all(one["proven_everywhere"] for one in proven)
    assert [len(one["copies"]) for one in proven] == [1, 1, 2, 1, 1, 2]
    assert "No old shard is left: 6 were deleted." in done.text
    assert (tmp_path / "cluster/report/shardtool.html").read_text().startswith("<!DOCTYPE html>")

    # Once more there is nothing to do.
    before = listed(world)
    assert fine(world.run()).changed == looked.changed
    assert listed(world) == before
    assert not [name for name in done.tasks() if "censored" in name]

    # But prune is asked even then: what was left half done may be known to the journal alone.
    journal = world.data(2) / "db/.shardtool/journal"
    journal.unlink()
    journal.mkdir()
    unread = ended(world.run("--tags", "prune"), "node2")
    assert "shardtool prune --yes --json: exit code 1: shardtool: " in unread.text
    assert f"{journal}: expected the journal, found no regular file" in unread.text


_SPACES = """
[[spaces]]
database = "test"
name = "everything"
regex = "/.*/"
retentionPolicy = "inf"
shardDuration = "7d"
replicationFactor = 2

[[spaces]]
database = "metrics"
name = "everything"
regex = "/.*/"
retentionPolicy = "inf"
shardDuration = "30d"
split = 2
"""


@pytest.mark.slow
def test_a_run_that_ended_in_the_middle_is_gone_on_with_by_the_same_command(build: Build) -> None:
    world = build()

    # The install command fails on node 3: no server is started, on no node. The server of node 1
    # comes only after its check, and is stopped all the same.
    standin.stop(world.homes[0])
    late = f"{sys.executable} -m fixtures.standin start {world.homes[0]}"
    command = world.path / "shardtool"
    command.write_text(_LATE.format(shardtool=SHARDTOOL, data=world.data(1), start=late))
    command.chmod(0o755)
    broken = f"[ {{{{ inventory_hostname }}}} != node3 ] && {_command(world, 'install')} 0.8.3"
    done = world.run(shardtool_install_command=broken, shardtool_command=str(command))
    ended(done, "node3")
    assert Path(f"{command}.started").exists()
    assert [standin.installed(home) for home in world.homes] == ["0.8.3", "0.8.3", "0.7.3"]
    assert world.running() == []

    # The server of node 2 dies in its second shard: node 3 does not begin.
    (world.homes[1] / "options").write_text("--die-after 1")
    done = ended(world.run(), "node2")
    assert "expected the server to answer, found it gone" in done.text
    assert done.changed["node1"] > 0
    snapshots = [[*(world.data(number) / "snapshots").glob("2*Z")] for number in (1, 2, 3)]
    assert [len(several) for several in snapshots] == [1, 1, 1]
    assert [one[0] for one in world.marked()] == [*"11112"]  # all of node 1, one of node 2
    assert "migration-started" not in world.events(3)

    # It is started again, and all goes on from there.
    (world.homes[1] / "options").unlink()
    fine(world.run())
    assert world.old_shards() == []
    assert [world.events(number).count("migration-started") for number in (1, 2, 3)] == [1, 2, 1]


# A shardtool whose first check of all that is there is followed by a start of the server.
_LATE = """#!/bin/sh
{shardtool} "$@"
code=$?
case "$*" in
*"{data} check "*--pause*) [ -e "$0.started" ] || {{ : > "$0.started"; {start}; }} >&2 ;;
esac
exit $code
"""


def _command(world: World, action: str) -> str:
    inventory: Any = standin.inventory(world.path / "cluster")
    command: str = inventory["influxdb"]["vars"][f"shardtool_{action}_command"]
    return command.removesuffix(" 0.8.3")


@pytest.mark.slow
def test_a_blocker_on_one_node_ends_the_run_before_any_node_is_changed(
    build: Build, listed: Callable[[World], dict[str, Listing]]
) -> None:
    world = build(servers=2)
    ruin = world.data(2) / "db/shard_db/00002"
    (ruin / "CURRENT").unlink()
    before = listed(world)
    done = ended(world.run(), "node2")
    assert "0.8 makes a new LevelDB in it" in done.text
    assert "Nothing was changed." in done.text
    assert (done.changed, listed(world)) == ({"node1": 0, "node2": 0}, before)
    assert world.running() == ["0.7.3"] * 2

    # And so it does where one node of the cluster was left out.
    limited = ended(world.run("--limit", "node1"), "node1")
    assert "raft knows 2 servers, and this play has 1 nodes" in limited.text
    assert listed(world) == before


@pytest.mark.slow
def test_a_blocker_that_shows_only_when_07_is_stopped_starts_it_again_everywhere(
    build: Build,
) -> None:
    world = build(servers=2)
    standin.stop(world.homes[1])
    _unflushed(world.data(2))
    standin.start(world.homes[1])
    done = ended(world.run(), "node2")
    assert "in 0.7's WAL alone" in done.text
    assert "0.7 was started again." in done.text
    assert world.running() == ["0.7.3"] * 2
    assert not any((world.data(number) / "snapshots").exists() for number in (1, 2))

    # Whoever knows what it is may pass it by its id.
    assert fine(world.run("--tags", "check,stop", shardtool_override=["wal-only"])).changed == {
        "node1": 1,
        "node2": 1,
    }


def _unflushed(data: Path) -> None:
    """Have a node's WAL hold a value that none of its shards has."""
    from fixtures import wal

    point = wal.Point(1_340_000_000_000_000, 7, (1,))
    request = wal.Request(1, 6, "test", "unflushed", ("n",), (point,))
    log, index = wal.encode([request])
    (data / "wal/log.1").write_bytes(log)
    (data / "wal/index.1").write_bytes(index)


@pytest.mark.slow
def test_losses_end_the_run_before_any_node_is_pruned_until_they_are_rescued(
    build: Build, tmp_path: Path, hold: Hold
) -> None:
    trap = tmp_path / "trap"
    hostile = "{{ lookup('pipe', 'touch " + str(trap) + "') }} \x1b[31m\"<script>"
    world = build(2, {5: [*_rows(hostile, 20), *_rows("cpu_load", 40)]})
    done = ended(world.run(), "node1")
    assert "00005: not proven, so nothing is pruned on any node" in done.text
    assert "00005 incomplete: 20 of 60 values missing, 0 different" in done.text
    assert "shardtool accept SHARD --because WHY" in done.text
    assert world.old_shards() == COPIES
    assert world.report("before-prune")["cluster"]["totals"]
    assert "\x1b" not in done.printed
    assert not trap.exists()

    fine(world.run("--tags", "verify", shardtool_rescue=True))
    assert "rescue-ended" in world.events(1)
    assert world.old_shards() == COPIES
    assert not trap.exists()

    # Another shardtool at work is waited for, though not for ever; the node before it is pruned.
    hold(world.data(2) / "db", "flock")
    busy = ended(world.run("--tags", "prune", shardtool_busy_retries=1), "node2")
    assert "FAILED - RETRYING: [node2]: Run shardtool prune" in busy.text
    assert "exit code 4: shardtool: " in busy.text
    assert world.old_shards() == [copy for copy in COPIES if not copy.startswith("1/")]


def _rows(series: str, count: int) -> list[Row]:
    start = 1_330_000_000_000_000
    return [
        Row("test", series, "value", start + n * 1_000_000, n * 10_000 + 1, n / 3)
        for n in range(1, count + 1)
    ]


# -- what is wrong with the variables: no node is asked anything --


@pytest.fixture
def alone(tmp_path: Path) -> Callable[..., Done]:
    """Run the playbook for a node that is not there, with these variables."""
    if not PLAYBOOK.exists():
        lacking("ansible-core")

    def run(**variables: object) -> Done:
        shared = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "shardtool_data": str(tmp_path / "nothing"),
            "shardtool_password": SECRET,
            "shardtool_install_command": "true",
            "shardtool_spaces_like_07": ["test"],
            **variables,
        }
        file = tmp_path / "inventory.json"
        kept = {name: value for name, value in shared.items() if value is not None}
        file.write_text(json.dumps({"influxdb": {"hosts": {"node1": {}}, "vars": kept}}))
        begun = time.monotonic()
        done = playbook("-i", str(file), "-vvv")
        assert time.monotonic() - begun < 60
        assert SECRET not in done.printed
        return ended(done, "node1")

    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"shardtool_install_command": None}, "missing required arguments: shardtool_install_c"),
        ({"shardtool_version": "0.8.8"}, "value of shardtool_version must be one of: 0.8.0, 0.8.1"),
        ({"shardtool_keep_snapshots": "many"}, "shardtool_keep_snapshots"),
        ({"shardtool_pasword": "x"}, "shardtool_pasword: no variable of the role"),
        ({"shardtool_influx_config": "/x"}, "one of shardtool_data and shardtool_influx_config"),
        ({"shardtool_spaces_like_07": []}, "shardtool_spaces_file and shardtool_spaces_like_07"),
        ({"shardtool_password_file": "/x"}, "one of shardtool_password and shardtool_password_fil"),
        ({"shardtool_secrets": {"A KEY": SECRET}}, "A KEY: expected the name of an environment"),
        ({"shardtool_secrets": {"KEY": f"{SECRET}\nmore"}}, "KEY: expected the name of an env"),
        ({"shardtool_environment": {"AWS_SECRET_ACCESS_KEY": "x"}}, "put it into shardtool_secre"),
        ({"shardtool_command": "/no/such"}, "/no/such: expected shardtool on node1, found: sh:"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_wrong_variable_ends_the_run_at_once_and_says_which(
    variables: dict[str, object], told: str, alone: Callable[..., Done]
) -> None:
    assert told in alone(**variables).text


def test_the_playbook_and_the_example_are_sound() -> None:
    if not PLAYBOOK.exists():
        lacking("ansible-core")
    done = playbook("-i", "inventory.example.yml", "--syntax-check")
    assert done.code == 0, done.printed
