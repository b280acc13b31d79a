"""deploy/systemd: how runs end that shardtool itself could not end, and who is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.deploy.deploy_world import migrated
from tests.deploy.machine import UNITS, booted, wait_for
from tests.deploy.test_systemd import FILES, mails, unit

_WAY = "/run/shardtool"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "result", "said"),
    [("kill -9 $$$$", "signal", "status=9/KILL"), ("exec sleep 60", "timeout", "timed out")],
)
def test_a_run_that_was_killed_is_a_mail_that_says_so(
    command: str, result: str, said: str, tmp_path: Path
) -> None:
    node = migrated(tmp_path / "shared" / "data")
    settings = f"[Service]\nTimeoutStartSec=1\nExecStart=\nExecStart=/bin/sh -c '{command}'\n"
    drop_in = f"{UNITS.lstrip('/')}/{unit('status')}.d/end.conf"
    with booted(tmp_path, node.path.parent, FILES | {drop_in: settings}) as made:
        assert made.start(unit("status")) == result
        (text,) = mails(made)
    assert f": {result}\n" in text
    assert said in text.partition("\n\n")[2]


def test_what_is_told_to_stop_while_it_waits_for_another_is_no_alarm(tmp_path: Path) -> None:
    node = migrated(tmp_path / "shared" / "data")
    held = f"flock {_WAY} sh -c 'touch /run/held; exec sleep 60' >/dev/null 2>&1 &"
    with booted(tmp_path, node.path.parent, FILES) as made:
        made.run("install", "-d", "-o", "influxdb", "-g", "influxdb", _WAY)
        made.run("sh", "-c", held)
        wait_for(lambda: made.run("test", "-e", "/run/held").returncode == 0)
        for name in ("backup", "verify", "prune"):
            made.run("systemctl", "start", "--no-block", unit(name))
            # Before, the process that is to become flock has another name.
            wait_for(lambda: made.run("pgrep", "-xu", "influxdb", "flock").returncode == 0)
            made.run("systemctl", "stop", unit(name))
            assert made.show(unit(name), "Result") == "success"
        assert mails(made) == []
