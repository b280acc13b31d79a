"""A machine of its own to install deploy/ on: a real systemd as process 1, or a real cron.

Its root is this machine's, under an overlay that takes what is written; process numbers, mounts,
host name and the tree of cgroups are its own, and it ends with the block that started it. Beside
the packages it has shardtool for all users, and the server's user `influxdb` with a data directory
where InfluxDB's packages have it.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.conftest import REPOSITORY
from tests.needs import lacking

DATA = "/opt/influxdb/shared/data"
SYSTEMD = "/lib/systemd/systemd"
UID = 4711
UNITS = "/etc/units"
_TARGETS = ("sysinit", "basic", "shutdown", "timers", "network", "machine")
_JOURNAL = (
    "systemd-journald.service",
    "systemd-journald.socket",
    "systemd-journald-dev-log.socket",
)
_SECONDS = 60  # that anything in it may take
_ENVIRONMENT = {
    "container": "shardtool-test",
    "SYSTEMD_UNIT_PATH": UNITS,
    "PATH": os.environ["PATH"],
}

# $1 an empty directory, $2 the node's, $3 to $5 Python's prefix, its packages and the repository;
# what follows becomes process 1.
_START = r"""
set -e
work=$1 node=$2 python=$3 packages=$4 repository=$5
shift 5
mount -t tmpfs -o mode=755 none "$work"
mkdir "$work/upper" "$work/work" "$work/root"
mount -t overlay -o "lowerdir=/,upperdir=$work/upper,workdir=$work/work" none "$work/root"
cd "$work/root"
mount -t proc none proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro none sys
[ -z "$CGROUP" ] || mount -t cgroup2 none sys/fs/cgroup
mount -t tmpfs -o mode=755 none dev
for name in null zero full random urandom tty; do
  : > "dev/$name"
  mount --bind "/dev/$name" "dev/$name"
done
ln -s /proc/self/fd dev/fd
mkdir dev/shm dev/pts
mount -t devpts -o newinstance,ptmxmode=0666 none dev/pts
ln -s pts/ptmx dev/ptmx
mount -t tmpfs -o mode=755 none run
mount -t tmpfs -o mode=1777 none tmp
mount -t tmpfs -o mode=755 none etc/cron.d
mkdir -p opt/influxdb/shared opt/python opt/packages opt/shardtool
mount --bind "$node" opt/influxdb/shared
mount --bind "$python" opt/python
mount --bind "$packages" opt/packages
mount --bind "$repository" opt/shardtool
cp -a "$INSTALLED/." .
printf 'influxdb:*:4711:4711::/nonexistent:/bin/sh\n' >> etc/passwd
printf 'influxdb:*:4711:\n' >> etc/group
pivot_root . mnt
umount -l /mnt
mount --make-rshared /
exec "$@"
"""


class Machine:
    """One that runs."""

    def __init__(self, pid: int) -> None:
        """Name it by its process 1, as it is known out here."""
        self._pid = pid

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command in it as root."""
        inside = ["nsenter", "--target", str(self._pid), "--mount", "--pid", "--uts", "--ipc"]
        return subprocess.run(
            [*inside, "--cgroup", "--root", "--wd=/", *words],
            env=_ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )

    def read(self, path: str) -> str:
        """Return what is in a file of it; nothing where there is none."""
        return self.run("sh", "-c", f"cat {shlex.quote(path)} 2>/dev/null").stdout

    def start(self, unit: str) -> str:
        """Start a unit, wait for its end, and return its result: 'success', 'exit-code'."""
        done = self.run("systemctl", "start", unit)
        # One that has ended well may be forgotten already, and then has any property's default.
        return self.show(unit, "Result") if done.returncode else "success"

    def show(self, unit: str, name: str) -> str:
        """Return a property of a unit."""
        shown = self.run("systemctl", "show", "--value", f"--property={name}", unit)
        return shown.stdout.strip()

    def settle(self) -> None:
        """Wait until no job is left."""
        wait_for(lambda: "No jobs" in self.run("systemctl", "list-jobs").stdout)

    def modes(self, *paths: str) -> list[str]:
        """Return the owner and the mode of each path: 'influxdb 644'."""
        return self.run("stat", "-c", "%U %a", *paths).stdout.splitlines()

    def told(self, unit: str) -> str:
        """Return what a unit has printed since the machine runs."""
        return self.journal(f"_SYSTEMD_UNIT={unit}")

    def journal(self, *matches: str) -> str:
        """Return the journal's messages."""
        self.run("journalctl", "--sync")
        words = ("--quiet", "--no-pager", "--output=cat")
        return self.run("journalctl", *words, *matches).stdout


@contextlib.contextmanager
def machine(
    tmp_path: Path, node: Path, files: dict[str, str], init: Sequence[str], *, systemd: bool = False
) -> Iterator[Machine]:
    """Start a machine, yield it, and end it with all that runs in it.

    Args:
        tmp_path: where it may lie meanwhile.
        node: becomes /opt/influxdb/shared, with the data directory `data` in it; it is given to
            the user influxdb.
        files: what is installed beforehand, by path without a leading slash.
        init: its process 1.
        systemd: it needs a tree of cgroups.
    """
    if os.geteuid() != 0:
        lacking("root's rights, without which no machine can be made")
    for path in (node, *node.rglob("*")):
        os.chown(path, UID, UID, follow_symlinks=False)
    installed, work = tmp_path / "installed", tmp_path / "machine"
    work.mkdir()
    for name, content in {"usr/local/sbin/shardtool": _command(), **files}.items():
        path = installed / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        path.chmod(0o755 if content.startswith("#!") else 0o644)
    for path in installed.glob("**/"):
        path.chmod(0o755)
    packages = sysconfig.get_paths()["purelib"]
    words = [str(work), str(node), sys.base_prefix, packages, str(REPOSITORY), *init]
    with _cgroup(needed=systemd) as group, (tmp_path / "machine.log").open("w+") as log:
        environment = _ENVIRONMENT | {"INSTALLED": str(installed), "CGROUP": group}
        enter = '[ -z "$CGROUP" ] || echo $$ > "$CGROUP/cgroup.procs"; exec unshare "$@"'
        apart = ["--mount", "--pid", "--fork", "--kill-child", "--uts", "--ipc", "--cgroup"]
        process = subprocess.Popen(
            ["sh", "-c", enter, "sh", *apart, "sh", "-c", _START, "sh", *words],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            yield Machine(_first_process(process, init[0], log.name))
        finally:
            process.kill()
            process.wait()


def _command() -> str:
    """Return shardtool as a command for every user: /root and /tmp are not everybody's."""
    name = Path(os.path.realpath(sys.executable)).name
    return (
        "#!/bin/sh\n"
        "export PYTHONPATH=/opt/shardtool:/opt/packages PYTHONDONTWRITEBYTECODE=1\n"
        # A Python with a library of its own looks for it where it was built.
        "export LD_LIBRARY_PATH=/opt/python/lib\n"
        f'exec /opt/python/bin/{name} -m shardtool "$@"\n'
    )


def _first_process(process: subprocess.Popen[bytes], name: str, log: str) -> int:
    """Wait until the machine's process 1 is what it is to be; return its number out here."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    wanted = os.path.realpath(shutil.which(name) or name)

    def found() -> int:
        if process.poll() is not None:
            said = Path(log).read_text()
            lacking(f"a kernel that lets root make a machine: {said.strip()[-300:]}")
        pids = [int(pid) for pid in children.read_text().split()]
        is_there = pids and os.path.realpath(f"/proc/{pids[0]}/exe").endswith(wanted)
        return pids[0] if is_there else 0

    return wait_for(found)


def wait_for(found: Callable[[], int], *, seconds: int = _SECONDS) -> int:
    """Wait until `found` returns something and return that.

    Raises:
        TimeoutError: it did not in so many seconds.
    """
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        value = found()
        if value:
            return value
        time.sleep(0.1)
    raise TimeoutError(f"nothing within {seconds} s")


@contextlib.contextmanager
def _cgroup(*, needed: bool) -> Iterator[str]:
    """Make a cgroup of the second version below this process's own; yield its directory."""
    if not needed:
        yield ""
        return
    mounts = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    trees = [fields[1] for fields in mounts if fields[2] == "cgroup2"]
    if not trees:
        lacking("cgroups of the second version")
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    own = next(line[3:] for line in lines if line.startswith("0::"))
    group = Path(trees[0] + own, f"shardtool-test-{os.getpid()}")
    try:
        group.mkdir()
    except OSError as error:
        lacking(f"cgroups that can be made: {error}")
    try:
        yield str(group)
    finally:
        _remove(group)


def _remove(group: Path) -> None:
    """Remove a cgroup and those in it; what was killed takes a moment to leave them."""

    def is_gone() -> int:
        for path in sorted(group.glob("**/"), reverse=True):
            with contextlib.suppress(OSError):
                path.rmdir()
        return not group.exists()

    wait_for(is_gone)


def units() -> dict[str, str]:
    """Return what a systemd needs, and the units of deploy/, as files for `machine`."""
    if not Path(SYSTEMD).exists():
        lacking("systemd")
    journal = {f"{UNITS[1:]}/{name}": _system_unit(name) for name in _JOURNAL}
    targets = {f"{UNITS[1:]}/{name}.target": "[Unit]\n" for name in _TARGETS}
    machine = "[Unit]\nDefaultDependencies=no\nRequires=systemd-journald.service\n"
    deployed = {
        f"{UNITS[1:]}/{path.name}": path.read_text()
        for path in (REPOSITORY / "deploy" / "systemd").iterdir()
        if path.is_file()
    }
    return {**journal, **targets, f"{UNITS[1:]}/machine.target": machine, **deployed}


def _system_unit(name: str) -> str:
    return Path("/lib/systemd/system", name).read_text()


@contextlib.contextmanager
def booted(tmp_path: Path, node: Path, files: dict[str, str] | None = None) -> Iterator[Machine]:
    """Start a machine with systemd and the units of deploy/, and wait until it is up."""
    init = [SYSTEMD, "--system", "--unit=machine.target"]
    with machine(tmp_path, node, {**units(), **(files or {})}, init, systemd=True) as made:
        wait_for(lambda: made.run("systemctl", "is-active", "machine.target").returncode == 0)
        yield made
