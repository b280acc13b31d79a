"""deploy/systemd: read by systemd's own tools, and run by a systemd, sandbox and all."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures import Node
from fixtures.engines import Engine
from fixtures.server import Pace, serve
from tests.conftest import Hold
from tests.deploy.deploy_world import DEPLOY, WIDTH, migrated, old_shards
from tests.deploy.machine import DATA, UNITS, Machine, booted, wait_for
from tests.needs import lacking

SERVICES = ("status", "backup", "verify", "prune", "migrate", "rescue")
BY_TIMER = SERVICES[:4]
METRICS = "/var/lib/shardtool/metrics/shardtool.prom"
_SENDMAIL = """#!/bin/sh
cat > "/run/mail.$(date +%s%N)"
"""
_MOST_MAIL_LINES = 100
FILES = {"usr/sbin/sendmail": _SENDMAIL}


def service(name: str) -> str:
    """Return the text of a unit."""
    return (DEPLOY / "systemd" / f"shardtool-{name}.service").read_text()


def unit(name: str) -> str:
    """Return the name of a unit."""
    return f"shardtool-{name}.service"


def mails(made: Machine) -> list[str]:
    """Return the mails of a machine."""
    made.settle()
    names = made.run("sh", "-c", "ls /run/mail.* 2>/dev/null").stdout.split()
    return [made.read(name) for name in names]


# -- the files --


def test_all_units_are_closed_alike() -> None:
    blocks = {service(name).partition("# The same in all units")[2] for name in SERVICES}
    assert len(blocks) == 1
    assert "ProtectSystem=strict" in blocks.pop()


@pytest.mark.parametrize("name", SERVICES)
def test_systemd_calls_the_exposure_low(name: str) -> None:
    done = _tool("security", "--offline=yes", "--threshold=20", str(_path(unit(name))))
    assert done.returncode == 0, done.stdout[-2000:]


def _path(name: str) -> Path:
    return DEPLOY / "systemd" / name


def _tool(*words: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["systemd-analyze", *words], capture_output=True, text=True, timeout=60, check=False
        )
    except FileNotFoundError:
        lacking("systemd")


def test_timers_catch_up_and_are_spread() -> None:
    for name in BY_TIMER:
        text = _path(f"shardtool-{name}.timer").read_text()
        assert "\nPersistent=yes\n" in text
        assert re.search(r"\nRandomizedDelaySec=\d+min\n", text)
    assert {path.stem for path in _path("").glob("*.timer")} == {f"shardtool-{n}" for n in BY_TIMER}


def test_only_migrate_and_rescue_have_a_network() -> None:
    for name in SERVICES:
        closed = "\nPrivateNetwork=yes\n" in service(name)
        assert closed == (name not in ("migrate", "rescue")), name
        assert "\nIPAddressDeny=any\n" in service(name)


# -- what they do --


@pytest.mark.slow
def test_on_a_fresh_node_each_does_its_work_in_silence(tmp_path: Path) -> None:
    node = migrated(tmp_path / "shared" / "data")
    with booted(tmp_path, node.path.parent, FILES) as made:
        checked = made.run("systemd-analyze", "verify", "--man=no", *map(_installed, _all()))
        assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
        for day in range(2):
            for name in BY_TIMER:
                assert made.start(unit(name)) == "success", (day, name, made.told(unit(name)))
                assert made.told(unit(name)) == ""
        assert mails(made) == []
        assert made.modes(METRICS, "/var/lib/shardtool/snapshots") == [
            "influxdb 644",
            "influxdb 700",
        ]
        assert "shardtool_status_success" in made.read(METRICS)
        assert len(made.run("ls", "/var/lib/shardtool/snapshots").stdout.split()) == 2
        shown = made.run("shardtool", "--data", DATA, "history").stdout
    assert old_shards(node) == []
    assert shown.count("deleted") >= 2


def _all() -> list[str]:
    return sorted(path.name for path in _path("").iterdir() if path.is_file())


def _installed(name: str) -> str:
    return f"{UNITS}/{name.replace('@', '@shardtool-verify')}"


@pytest.mark.slow
def test_losses_are_a_mail_from_verify_and_from_prune(tmp_path: Path) -> None:
    node = migrated(tmp_path / "shared" / "data", lost=3)
    with booted(tmp_path, node.path.parent, FILES) as made:
        results = {name: made.start(unit(name)) for name in BY_TIMER}
        found = mails(made)
    assert results == dict.fromkeys(BY_TIMER, "success") | {
        "verify": "exit-code",
        "prune": "exit-code",
    }
    assert len(found) == 2
    for name, text in zip(("verify", "prune"), found, strict=True):
        head, _, body = text.partition("\n\n")
        assert f"Subject: shardtool-{name} on " in head
        assert "To: root\n" in head
        lines = body.splitlines()
        assert len(lines) <= _MOST_MAIL_LINES
        assert max(map(len, lines)) <= WIDTH
        assert "00002: incomplete" in body
        assert "command  shardtool" in body
    assert "3 missing" in found[0]
    assert old_shards(node) == ["00002"]


def test_a_node_that_stays_wrong_is_one_mail_a_day_from_status(tmp_path: Path) -> None:
    node = migrated(tmp_path / "shared" / "data")
    (node.shard_db / "00009").mkdir()
    with booted(tmp_path, node.path.parent, FILES) as made:
        for _ in range(3):
            assert made.start(unit("status")) == "exit-code"
        found = mails(made)
        assert 'verdict="suspect"} 1.0' in made.read(METRICS)
    assert len(found) == 1
    assert "00009: suspect: not-a-shard" in found[0]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["hyperleveldb", "rocksdb", "lmdb"])
def test_every_engine_is_read_inside(engine: Engine, tmp_path: Path) -> None:
    node = Node(tmp_path / "shared" / "data", version="0.8")
    node.old_shard(1, points=10)
    node.migrate(1, engine=engine)
    with booted(tmp_path, node.path.parent, FILES) as made:
        assert made.start(unit("verify")) == "success", made.told(unit("verify"))


def test_another_shardtool_at_work_is_no_failure(tmp_path: Path, hold: Hold) -> None:
    node = migrated(tmp_path / "shared" / "data")
    hold(node.db, "flock")
    with booted(tmp_path, node.path.parent, FILES) as made:
        for name in ("backup", "prune"):
            assert made.start(unit(name)) == "success"
            assert made.told(unit(name)) == ""
        assert mails(made) == []
    assert old_shards(node) == ["00001", "00002"]


def test_a_data_directory_that_is_not_there_is_told_by_shardtool_itself(tmp_path: Path) -> None:
    node = migrated(tmp_path / "shared" / "data")
    node.path.rename(node.path.with_name("gone"))
    with booted(tmp_path, node.path.parent, FILES) as made:
        for name in BY_TIMER:
            assert made.start(unit(name)) == "exit-code"
            assert made.show(unit(name), "ExecMainStatus") == "1"
        found = mails(made)
    assert len(found) == len(BY_TIMER)
    for text in found:
        assert f"{DATA}: expected" in text


_SERVER = f"""\
[Service]
Type=exec
User=influxdb
ExecStart=/bin/sh -c 'exec 3<{DATA}/db/shard_db/00001/CURRENT; exec sleep 1000'
"""


def test_who_has_a_shard_open_is_seen_from_inside(tmp_path: Path) -> None:
    node = migrated(tmp_path / "shared" / "data")
    server = {**FILES, f"{UNITS[1:]}/influxdb.service": _SERVER}
    with booted(tmp_path, node.path.parent, server) as made:
        made.start("influxdb.service")
        assert made.start(unit("prune")) == "exit-code"
        told = made.told(unit("prune"))
    assert "00001: busy" in told or "open-files" in told
    assert "(sleep)" in told
    assert old_shards(node) == ["00001"]


# -- what they can't do --

_PROBE = f"""#!/bin/sh
# Say which of these places can be written, and whether there is a network.
cd {DATA}
for place in . raft wal db db/shard_db db/shard_db/00001 db/shard_db_v2 db/.shardtool \\
  /var/lib/shardtool/metrics /var/lib/shardtool/snapshots /etc /usr /home /root /run /var/log; do
  if ( : > "$place/probe" ) 2>/dev/null; then
    rm "$place/probe"
    printf '%s ' "$place"
  fi
done
grep ':' /proc/net/dev | grep -qv '^ *lo:' && printf 'network '
unshare --user true 2>/dev/null && printf 'namespaces '
mount -t tmpfs none /mnt 2>/dev/null && printf 'mount '
grep -q '^NoNewPrivs:.1' /proc/self/status || printf 'privileges '
grep -q '^CapBnd:.0*$' /proc/self/status || printf 'capabilities '
[ -e /proc/1/comm ] || printf 'blind '
ls /root >/dev/null 2>&1 && printf 'root '
"""

CAN = {
    "status": "/var/lib/shardtool/metrics",
    "backup": "db db/.shardtool /var/lib/shardtool/snapshots",
    "verify": "db db/.shardtool",
    "rescue": "db db/.shardtool network",
    "prune": "db db/shard_db db/shard_db/00001 db/.shardtool",
    "migrate": "db db/shard_db db/shard_db/00001 db/.shardtool network",
}


def test_each_can_write_what_it_has_to_and_nothing_else(tmp_path: Path) -> None:
    node = migrated(tmp_path / "shared" / "data")
    (node.db / ".shardtool").mkdir()
    probe = "[Service]\nExecStart=\nExecStart=/usr/local/sbin/probe\n"
    files = {
        **FILES,
        "usr/local/sbin/probe": _PROBE,
        "etc/shardtool/password": "root\n",
        **{f"{UNITS[1:]}/{unit(name)}.d/probe.conf": probe for name in SERVICES},
    }
    with booted(tmp_path, node.path.parent, files) as made:
        found = {}
        for name in SERVICES:
            made.start(unit(name))
            found[name] = made.told(unit(name)).strip()
    assert found == CAN


# -- by hand --


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Node, str]]:
    """Serve a node whose two shards are to be migrated, slowly."""
    node = Node(tmp_path / "shared" / "data", version="0.8")
    for number in (1, 2):
        node.old_shard(number, points=10)
    with serve(node, pace=Pace(seconds_per_shard=1)) as url:
        yield node, url


def asking(url: str) -> dict[str, str]:
    """Return the files that tell migrate and rescue about a server."""
    words = f"--api {url} --override no-snapshot"
    return {
        **FILES,
        "etc/shardtool/password": "root\n",
        "etc/default/shardtool": f'SHARDTOOL_MIGRATE_OPTIONS="{words}"\n'
        f'SHARDTOOL_RESCUE_OPTIONS="--api {url}"\n',
    }


@pytest.mark.slow
def test_migrate_and_rescue_ask_the_server(tmp_path: Path, served: tuple[Node, str]) -> None:
    node, url = served
    with booted(tmp_path, node.path.parent, asking(url)) as made:
        made.run("chmod", "600", "/etc/shardtool/password")
        for name in ("migrate", "rescue"):
            assert made.start(unit(name)) == "success", made.told(unit(name))
        assert made.start(unit("verify")) == "success"
        assert mails(made) == []
    assert all((node.shard_db / name / "MIGRATED").exists() for name in old_shards(node))


@pytest.mark.slow
def test_told_to_stop_is_no_alarm(tmp_path: Path, served: tuple[Node, str]) -> None:
    node, url = served
    with booted(tmp_path, node.path.parent, asking(url)) as made:
        made.run("systemctl", "start", "--no-block", unit("migrate"))
        wait_for(lambda: "has started" in made.told(unit("migrate")))
        made.run("systemctl", "stop", unit("migrate"))
        assert made.show(unit("migrate"), "Result") == "success"
        assert "interrupted" in made.told(unit("migrate"))
        assert mails(made) == []


# -- the timers, and what the README shows --


@pytest.mark.slow
def test_after_a_night_switched_off_all_is_done_though_all_begin_at_once(
    tmp_path: Path,
) -> None:
    node = migrated(tmp_path / "shared" / "data")
    at_once = "[Timer]\nRandomizedDelaySec=0\n"
    names = [f"shardtool-{name}.timer" for name in ("prune", "verify", "backup")]
    files = {**FILES, **{f"{UNITS[1:]}/{name}.d/now.conf": at_once for name in names}}
    with booted(tmp_path, node.path.parent, files) as made:
        made.run("mkdir", "-p", "/var/lib/systemd/timers")
        for name in names:
            made.run("touch", "-d", "2 days ago", f"/var/lib/systemd/timers/stamp-{name}")
        made.run("systemctl", "start", *names)
        ends = [f"Finished {unit(name)}" for name in ("backup", "verify", "prune")]
        wait_for(lambda: all(end in made.journal("_PID=1") for end in ends))
        assert made.run("ls", "/var/lib/shardtool/snapshots").stdout
        assert mails(made) == []
    assert old_shards(node) == []


def dropins() -> dict[str, str]:
    """Return the drop-ins that the README shows, by path."""
    found = {}
    readme = (DEPLOY / "README.md").read_text()
    for block in re.findall(r"```\n(# /etc/systemd.*?)```", readme, re.DOTALL):
        for path in re.findall(r"^# /etc/systemd/system/(\S+)$", block, re.MULTILINE):
            found[f"{UNITS[1:]}/{path}"] = block
    return found


@pytest.mark.slow
def test_the_readme_s_drop_ins_take_another_user_and_other_directories(tmp_path: Path) -> None:
    node = migrated(tmp_path / "shared" / "data")
    shown = {path: text for path, text in dropins().items() if "/shardtool-.service.d/" in path}
    assert sorted(Path(path).name for path in shown) == ["node.conf", "snapshots.conf"]
    files = {**FILES, **shown}
    with booted(tmp_path, node.path.parent, files) as made:
        made.run("sh", "-c", "echo 'tsdb:*:4712:4712::/:/bin/sh' >> /etc/passwd")
        made.run("sh", "-c", "echo 'tsdb:*:4712:' >> /etc/group")
        made.run("mkdir", "-p", "/srv/influxdb", "/backup/influxdb")
        made.run("mount", "--bind", DATA, "/srv/influxdb")
        made.run("umount", "-l", "/opt/influxdb/shared")
        made.run("chown", "-R", "tsdb:tsdb", "/srv/influxdb", "/backup/influxdb")
        for name in BY_TIMER:
            assert made.start(unit(name)) == "success", made.told(unit(name))
        assert made.modes(METRICS, "/srv/influxdb/db/.shardtool/journal") == ["tsdb 644"] * 2
        assert made.run("ls", "/backup/influxdb").stdout
    assert old_shards(node) == []


@pytest.mark.slow
def test_a_shard_leaves_for_a_trash_beside_it_where_shard_db_is_on_another_disk(
    tmp_path: Path,
) -> None:
    node = migrated(tmp_path / "shared" / "data")
    shown = {path: text for path, text in dropins().items() if "disk2" in path}
    with booted(tmp_path, node.path.parent, FILES | shown) as made:
        move = f"""mkdir /disk2; mount -t tmpfs none /disk2; mkdir /disk2/influxdb
        mv {DATA}/db/shard_db /disk2/influxdb/; ln -s /disk2/influxdb/shard_db {DATA}/db/
        chown influxdb:influxdb /disk2/influxdb"""
        assert made.run("sh", "-ec", move).returncode == 0
        for name in ("verify", "prune", "status"):
            assert made.start(unit(name)) == "success", made.told(unit(name))
        assert made.run("ls", "-A", "/disk2/influxdb/shard_db").stdout == ""
        assert made.run("ls", "-A", "/disk2/influxdb").stdout.split() == [".shardtool", "shard_db"]


@pytest.mark.slow
def test_the_readme_s_drop_in_for_a_cluster_lets_verify_and_prune_ask(
    tmp_path: Path,
) -> None:
    node = migrated(tmp_path / "shared" / "data")
    shown = {path: text for path, text in dropins().items() if "cluster.conf" in path}
    assert len(shown) == 2
    with serve(node) as url:
        files = {
            **FILES,
            "etc/shardtool/password": "root\n",
            **{p: text.replace("http://localhost:8086", url) for p, text in shown.items()},
        }
        with booted(tmp_path, node.path.parent, files) as made:
            for name in ("verify", "prune"):
                assert made.start(unit(name)) == "success", made.told(unit(name))
    assert old_shards(node) == []
