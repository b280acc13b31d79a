"""deploy/cron.d: parsed as cron does it, each line run in cron's environment, and by cron."""

from __future__ import annotations

import re
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from tests.conftest import COMMAND, REPOSITORY, Hold
from tests.deploy.deploy_world import DEPLOY, is_mail, migrated, old_shards
from tests.deploy.machine import DATA, machine, wait_for
from tests.needs import lacking

FILE = DEPLOY / "cron.d" / "shardtool"
STATE = "/var/lib/shardtool"
_SETTING = re.compile(r"([A-Z_]+)=(.*)")
_JOB = re.compile(r"((?:\S+\s+){5})(\S+)\s+(.*)")
_LONGEST = 999  # characters of a command in Debian's cron


class Table:
    """The file as cron reads it, with the directories of a test in the place of its own."""

    def __init__(self, node: Path, state: Path) -> None:
        text = FILE.read_text().replace(DATA, str(node)).replace(STATE, str(state))
        lines = [line for line in text.splitlines() if line and not line.startswith("#")]
        settings = [found for line in lines if (found := _SETTING.fullmatch(line))]
        jobs = [found for line in lines if (found := _JOB.fullmatch(line))]
        assert len(settings) + len(jobs) == len(lines)
        self.settings = {found[1]: found[2] for found in settings}
        self.times = [found[1].split() for found in jobs]
        self.users = [found[2] for found in jobs]
        self.commands = {_name(job[3]): job[3] for job in jobs}
        assert len(self.commands) == len(jobs)


def _name(command: str) -> str:
    if ">/dev/null" in command:
        return "metrics"
    return str(re.findall(r" shardtool (\w+)", command)[0])


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Make what the file says is to be made before the first run."""
    path = tmp_path / "state"
    (path / "metrics").mkdir(parents=True)
    (path / "snapshots").mkdir(mode=0o700)
    return path


def mailed(name: str, node: Path, state: Path, *changes: tuple[str, str]) -> str:
    """Run a line as cron does: no terminal, no variables but cron's; return what it would mail.

    Args:
        name: one of JOBS.
        node: the data directory.
        state: what stands for /var/lib/shardtool.
        changes: words of the line that a test has no time for, and what stands in their place.
    """
    table = Table(node, state)
    command = table.commands[name]
    for words, others in changes:
        assert words in command
        command = command.replace(words, others)
    tools = state / "bin"
    tools.mkdir(exist_ok=True)
    tool = tools / "shardtool"
    words = " ".join(COMMAND)
    tool.write_text(f'#!/bin/sh\nPYTHONPATH={REPOSITORY} exec {words} "$@"\n')
    tool.chmod(0o755)
    settings = {k: v for k, v in table.settings.items() if k not in ("MAILTO", "SHELL")}
    done = subprocess.run(
        [table.settings["SHELL"], "-c", command],
        env={
            "HOME": str(state),
            "LOGNAME": "influxdb",
            "SHELL": table.settings["SHELL"],
            **settings,
            "PATH": f"{tools}:{settings['PATH']}",
        },
        cwd=state,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        timeout=60,
        check=False,
    )
    return done.stdout


JOBS = ["metrics", "backup", "verify", "prune", "status"]


def test_cron_takes_the_file(tmp_path: Path) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_-]+", FILE.name)  # others are passed over in silence
    assert FILE.read_text().endswith("\n")  # cron refuses a file whose last line has no end
    table = Table(tmp_path, tmp_path)
    assert list(table.commands) == JOBS
    assert set(table.users) == {"influxdb"}
    assert all("%" not in line for line in table.commands.values())
    assert max(map(len, table.commands.values())) <= _LONGEST
    # A setting's value is taken as it stands: nothing in it is expanded, quotes are optional.
    assert all(re.fullmatch(r"[\w/:.;= -]+", value) for value in table.settings.values())


def test_no_two_begin_at_once_and_the_proof_comes_before_the_deletion(tmp_path: Path) -> None:
    daily = [
        int(hour) * 60 + int(minute) for minute, hour, *_ in Table(tmp_path, tmp_path).times[1:]
    ]
    assert daily == sorted(daily)
    assert all(later - earlier >= 30 for earlier, later in pairwise(daily))


def test_every_line_stands_back_behind_the_server(tmp_path: Path) -> None:
    for command in Table(tmp_path, tmp_path).commands.values():
        for part in command.split(" && "):
            assert " -qq" in part
            assert re.search(r"nice -n 10 ionice -t -c (3|2 -n 7) shardtool ", part)


@pytest.mark.slow
def test_a_healthy_node_is_looked_after_without_a_word(tmp_path: Path, state: Path) -> None:
    node = migrated(tmp_path / "data")
    assert {name: mailed(name, node.path, state) for name in JOBS} == dict.fromkeys(JOBS, "")
    assert old_shards(node) == []
    assert len(list((state / "snapshots").iterdir())) == 1
    assert "shardtool_status_success" in (state / "metrics/shardtool.prom").read_text()
    # And on the next day, with nothing left to do.
    assert {name: mailed(name, node.path, state) for name in JOBS} == dict.fromkeys(JOBS, "")


@pytest.mark.slow
def test_losses_are_one_short_mail_each_day_and_nothing_of_theirs_goes(
    tmp_path: Path, state: Path
) -> None:
    node = migrated(tmp_path / "data", lost=3)
    mails = {name: mailed(name, node.path, state) for name in JOBS}
    assert {name for name, text in mails.items() if text} == {"verify", "prune"}
    assert is_mail(mails["verify"])
    assert is_mail(mails["prune"])
    assert "3 missing" in mails["verify"]
    assert "00002: incomplete, kept" in mails["prune"]
    assert old_shards(node) == ["00002"]


def test_a_line_beside_another_shardtool_says_nothing(
    tmp_path: Path, state: Path, hold: Hold
) -> None:
    node = migrated(tmp_path / "data", lost=3)
    hold(node.db, "flock")
    for name in ("verify.lock", "status.lock"):
        (state / name).touch()
        hold(state / name, "flock")
    assert mailed("metrics", node.path, state) == ""
    assert list((state / "metrics").iterdir()) == []
    assert {name: mailed(name, node.path, state) for name in JOBS} == dict.fromkeys(JOBS, "")
    assert old_shards(node) == ["00001", "00002"]
    assert list((state / "snapshots").iterdir()) == []


@pytest.mark.parametrize("name", ["backup", "verify", "prune"])
def test_what_has_waited_for_hours_in_vain_says_that_it_has_not_run(
    name: str, tmp_path: Path, state: Path, hold: Hold
) -> None:
    node = migrated(tmp_path / "data")
    hold(state, "flock")
    text = mailed(name, node.path, state, ("-w 36000", "-w 0"))
    assert is_mail(text)
    assert text.startswith(f"shardtool {name} has not run: ")


def test_metrics_that_can_not_be_written_are_in_the_mail_of_the_morning(
    tmp_path: Path, state: Path
) -> None:
    node = migrated(tmp_path / "data")
    (state / "metrics").rmdir()
    assert mailed("metrics", node.path, state) == ""
    text = mailed("status", node.path, state)
    assert is_mail(text)
    assert "expected to write the metrics, found: No such file" in " ".join(text.split())


def test_a_look_that_does_not_come_to_an_end_is_told_to(tmp_path: Path, state: Path) -> None:
    node = migrated(tmp_path / "data")
    # In the place of a disk that answers no more, and of the mail that a signal is.
    hanging = """sh -c 'trap "echo ended; exit 130" TERM; sleep 50 & wait' """
    changes = ("timeout 10m", "timeout 0.2"), ("shardtool status ", hanging)
    assert mailed("metrics", node.path, state, *changes) == ""
    assert mailed("status", node.path, state, *changes) == "ended\n"


@pytest.mark.slow
def test_a_directory_that_is_not_there_is_a_mail_from_each(tmp_path: Path, state: Path) -> None:
    assert mailed("metrics", tmp_path / "gone", state) == ""
    assert "shardtool_status_success" in (state / "metrics/shardtool.prom").read_text()
    for name in JOBS[1:]:
        text = mailed(name, tmp_path / "gone", state)
        assert is_mail(text), name
        # Where a line is broken depends on how long the path before it is.
        assert "No such file or directory" in " ".join(text.split())


def test_a_snapshot_directory_that_is_full_of_damage_is_a_mail(tmp_path: Path, state: Path) -> None:
    node = migrated(tmp_path / "data")
    (state / "snapshots" / "20141001T000000Z").mkdir()
    text = mailed("backup", node.path, state)
    assert is_mail(text)
    assert "20141001T000000Z" in text


# -- cron itself --

_SENDMAIL = """#!/bin/sh
cat > "/tmp/mail.$$"
"""


@pytest.mark.slow
def test_cron_itself_runs_every_line_as_the_server_s_user_and_mails_what_is_wrong(
    tmp_path: Path,
) -> None:
    if shutil.which("cron") is None:
        lacking("Debian's cron")
    node = migrated(tmp_path / "shared" / "data", lost=3)
    files = {
        "etc/cron.d/shardtool": each_minute(FILE.read_text()),
        "etc/crontab": "",
        "usr/sbin/sendmail": _SENDMAIL,
    }
    state = ("install", "-d", "-o", "influxdb", "-g", "influxdb")
    with machine(tmp_path, node.path.parent, files, ["/usr/sbin/cron", "-f"]) as made:
        assert made.run(*state, STATE, f"{STATE}/metrics").returncode == 0
        assert made.run(*state, "-m", "700", f"{STATE}/snapshots").returncode == 0

        def mails() -> list[str]:
            names = made.run("sh", "-c", "ls /tmp/mail.* 2>/dev/null").stdout.split()
            return sorted(made.read(name) for name in names)

        wait_for(lambda: len(mails()) >= 2, seconds=120)
        wait_for(lambda: "success" in made.read(f"{STATE}/metrics/shardtool.prom"))
        # It has waited for prune. (What begins with a dot is still being written.)
        wait_for(lambda: made.run("ls", f"{STATE}/snapshots").stdout != "")
        found = mails()
        owner = made.run("stat", "-c", "%U", f"{STATE}/metrics/shardtool.prom").stdout.strip()
    assert len(found) == 2
    for command, text in zip(("verify", "prune"), found, strict=True):
        head, _, body = text.partition("\n\n")
        assert "To: root" in head
        assert f"shardtool {command}" in head
        assert is_mail(body)
        assert "00002: incomplete" in body
    assert owner == "influxdb"
    assert old_shards(node) == ["00002"]


def each_minute(text: str) -> str:
    """Return the table with all its times replaced."""
    return re.sub(r"^(?:[\d*/]+ ){5}", "* * * * * ", text, flags=re.MULTILINE)
