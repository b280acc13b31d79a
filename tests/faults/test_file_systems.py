"""Full disks, limits, read-only mounts and missing rights under every command.

The file systems are real: what they answer is not what a test thinks of, and comes at moments
(a sync, a rename) that no list has.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import COMMAND, REPOSITORY, Mount, Run
from tests.faults.steps_world import (
    CHANGING,
    READING,
    Step,
    World,
    answer,
    copy_world,
    environment,
    everything,
    prepared,
)
from tests.needs import lacking, needs_root

# Served steps have a server that writes to the same disk: what it answers then is its own matter.
ALONE = [name for name, step in CHANGING.items() if not step.served]
# These write to another place than the node.
ELSEWHERE = ("export", "restore-elsewhere")
PAGE = 4096
# Verify's result is the proof; where its receipt can't be kept, it says so, and that is all.
NO_RECEIPT = "expected to write a receipt"
# Where neither receipt nor journal could be written, the next prune puts the shard back, and the
# one after that proves it and deletes it.
PUT_BACK = "put back from the trash"

Done = subprocess.CompletedProcess[str]


def clearly(done: Done, step: Step) -> None:
    """Assert that a run ended as it should, or says in a line why not."""
    assert "Traceback" not in done.stderr, done.stderr
    assert "mistake in shardtool" not in done.stderr, done.stderr
    assert done.returncode in (step.code, 1, 3), done.stderr
    if done.returncode == 1:
        said = ("shardtool: warning: ", "shardtool: the present ", "shardtool: the snapshot stays ")
        lines = [line for line in done.stderr.splitlines() if not line.startswith(said)]
        assert lines, "it does not say why"
        assert all(line.startswith("shardtool: ") for line in lines), lines


# -- full disks, and quotas --


class Disk:
    """A small file system that can be filled."""

    levels = tuple(pages * PAGE for pages in (0, 1, 2, 4, 8, 16, 32))
    """How many bytes are left in it, one after the other."""
    refusal = ""  # some are refused up front, in words of ours

    def __init__(self, place: Path) -> None:
        """Take what is mounted at `place`."""
        self.place = place
        self._ballast = place / "ballast"

    def fill(self, left: int) -> None:
        """Fill it until `left` bytes are free."""
        with self._ballast.open("wb", buffering=0) as file:
            room = os.statvfs(self.place)
            with_room = room.f_bavail * room.f_frsize - left
            for size in (1 << 20, PAGE):
                while with_room >= size:
                    try:
                        file.write(bytes(size))
                    except OSError:
                        break
                    with_room -= size
            os.fsync(file)

    def release(self) -> None:
        """Make room."""
        self._ballast.unlink()


class Quota(Disk):
    """A directory of btrfs that may hold so much and no more, names and trees included."""

    levels = tuple(pages * PAGE for pages in (0, 4, 16, 64, 256))
    refusal = "Disk quota exceeded"

    def fill(self, left: int) -> None:
        """Forbid it to hold more than `left` bytes beside what it holds."""
        btrfs("filesystem", "sync", self.place)
        self._limit(str(self._group()[1] + left))

    def release(self) -> None:
        """Let it hold what it wants to."""
        self._limit("none")

    def _group(self) -> tuple[str, int]:
        """Return the name of its quota group, and how many bytes that holds."""
        told = btrfs("qgroup", "show", "--raw", "-f", self.place)
        name, held, *_ = told.splitlines()[-1].split()
        return name, int(held)

    def _limit(self, most: str) -> None:
        # Asked for in the directory itself, the change of a limit that is reached needs room there.
        btrfs("qgroup", "limit", most, self._group()[0], self.place.parent)


def btrfs(*words: str | Path) -> str:
    return subprocess.run(["btrfs", *words], check=True, capture_output=True, text=True).stdout


@contextlib.contextmanager
def formatted(tmp_path: Path, size: int, *make: str) -> Iterator[Path]:
    """Mount a new file system of `size` bytes, made by a command."""
    image, target = tmp_path / "image", tmp_path / "disk"
    target.mkdir()
    for needed in (make[0], "mount"):
        if shutil.which(needed) is None:
            lacking(needed)
    with image.open("wb") as file:
        file.truncate(size)
    subprocess.run([*make, str(image)], check=True)
    done = subprocess.run(
        ["mount", "-o", "loop", str(image), str(target)], capture_output=True, check=False
    )
    if done.returncode:
        lacking(f"a loop device that can be mounted, and what {make[0]} makes")
    yield target
    subprocess.run(["umount", str(target)], check=True)


@pytest.fixture
def ext4(tmp_path: Path) -> Iterator[Disk]:
    """Mount a small ext4, whose blocks are given out when they are written back."""
    with formatted(tmp_path, 12 << 20, "mkfs.ext4", "-q", "-m", "0") as target:
        yield Disk(target)


@pytest.fixture
def quota(tmp_path: Path) -> Iterator[Disk]:
    """Mount a btrfs of much room, with a directory in it that has a quota."""
    with formatted(tmp_path, 256 << 20, "mkfs.btrfs", "-q") as target:
        btrfs("quota", "enable", target)
        btrfs("subvolume", "create", target / "limited")
        yield Quota(target / "limited")


@pytest.fixture
def tmpfs(tmp_path: Path, mount: Mount) -> Disk:
    """Mount a small tmpfs."""
    target = tmp_path / "disk"
    target.mkdir()
    return Disk(mount(target, size="12m"))


@needs_root
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["tmpfs", "ext4", "quota"])
@pytest.mark.parametrize("name", ALONE)
def test_on_a_full_disk_a_step_fails_in_a_line_and_is_done_once_there_is_room(
    name: str, kind: str, request: pytest.FixtureRequest, shardtool: Run, tmp_path: Path
) -> None:
    disk: Disk = request.getfixturevalue(kind)
    step, world = CHANGING[name], disk.place / "world"
    original = prepared(step, tmp_path / "original", shardtool)
    with step.ready(copy_world(original, tmp_path / "world")) as words:
        assert shardtool(*words, env=environment(tmp_path / "world")).returncode == step.code
    wanted = step.ended(tmp_path / "world", shardtool)
    failures: list[str] = []
    for left in disk.levels:
        copy_world(original, world)
        with step.ready(world) as words:
            disk.fill(left)
            done = shardtool(*words, env=environment(world))
            disk.release()
            clearly(done, step)
            if done.returncode != step.code or NO_RECEIPT in done.stderr:
                failures.append(done.stderr)
                again = shardtool(*words, env=environment(world))
                assert again.returncode == step.code, (left, done.stderr, again.stderr)
        assert step.ended(world, shardtool) == wanted, (left, done.stderr)
    assert any(disk.refusal in told for told in failures)


@pytest.mark.parametrize(("words", "code"), [(("status",), 1), (("no-such-command",), 2)])
def test_where_stderr_is_full_the_exit_code_still_tells(
    words: tuple[str, ...], code: int, tmp_path: Path
) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*COMMAND, "--data", str(tmp_path / "nowhere"), *words],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": ""},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=full,
            check=False,
        )
    assert (done.returncode, done.stdout) == (code, b"")


# -- limits --


def limited(what: int, most: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(what, (most, most))


@pytest.mark.slow
@pytest.mark.parametrize("name", ALONE)
@pytest.mark.parametrize(
    ("what", "limits"),
    [
        # Of a file's size, as a quota is one: EFBIG.
        (resource.RLIMIT_FSIZE, (0, 100, 700, 2000)),
        # Of open files: EMFILE, wherever it comes first.
        (resource.RLIMIT_NOFILE, (4, 5, 6, 7, 8, 9, 10, 12, 14, 20)),
    ],
    ids=["size of a file", "open files"],
)
def test_below_a_limit_a_step_fails_in_a_line_and_is_done_without_it(
    name: str, what: int, limits: tuple[int, ...], shardtool: Run, tmp_path: Path
) -> None:
    step, world = CHANGING[name], tmp_path / "world"
    original = prepared(step, tmp_path / "original", shardtool)
    with step.ready(copy_world(original, world)) as words:
        assert shardtool(*words, env=environment(world)).returncode == step.code
    wanted = step.ended(world, shardtool)
    for most in limits:
        copy_world(original, world)
        with step.ready(world) as words:
            done = shardtool(*words, env=environment(world), preexec_fn=limited(what, most))
            if "Fatal Python error" in done.stderr or "shardtool: " not in done.stderr:
                # Python itself does not start with so few.
                assert what == resource.RLIMIT_NOFILE or done.returncode == step.code
            else:
                clearly(done, step)
            if done.returncode != step.code or NO_RECEIPT in done.stderr:
                done = shardtool(*words, env=environment(world))
                if PUT_BACK in done.stderr:
                    done = shardtool(*words, env=environment(world))
                assert done.returncode == step.code, (most, done.stderr)
        assert step.ended(world, shardtool) == wanted, (most, done.stderr)


# -- read-only --


def read_only(mount: Mount, place: Path) -> None:
    """Mount a directory over itself, so that nothing can be written to it."""
    mount(place, source=place)
    done = subprocess.run(
        ["mount", "-o", "remount,ro,bind", str(place)], capture_output=True, check=False
    )
    if done.returncode:
        lacking("the right to make a mount read-only")


@pytest.mark.slow
@pytest.mark.parametrize("name", READING)
def test_on_a_read_only_mount_a_command_that_reads_says_the_same(
    name: str, mount: Mount, shardtool: Run, tmp_path: Path
) -> None:
    step = READING[name]
    world = prepared(step, tmp_path / "world", shardtool)
    with step.ready(world) as words:
        before = shardtool(*words, env=environment(world))
        read_only(mount, world / "data")
        after = shardtool(*words, env=environment(world))
    assert (after.returncode, after.stderr) == (before.returncode, before.stderr)
    assert answer(after.stdout) == answer(before.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALONE)
def test_on_a_read_only_mount_a_step_fails_in_a_line(
    name: str, mount: Mount, shardtool: Run, tmp_path: Path
) -> None:
    step = CHANGING[name]
    world = prepared(step, tmp_path / "world", shardtool)
    read_only(mount, world / "data")
    before = everything(world / "data")
    with step.ready(world) as words:
        done = shardtool(*words, env=environment(world))
    clearly(done, step)
    assert everything(world / "data") == before
    if name not in ELSEWHERE:
        assert "Read-only file system" in done.stderr
        assert done.returncode in (1, 3) or name == "verify"


# -- another's files --

# Python itself may lie where nobody may look (in /root): what a command imports is imported by a
# run of root's on a copy, and the run that counts is made by the same process as nobody.
_AS_NOBODY = """
import ctypes, os, sys
from shardtool.cli import app
at = sys.argv.index("then")
first, second = sys.argv[1:at], sys.argv[at + 1:]
kept = [os.dup(1), os.dup(2)]
for stream in (1, 2):
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
sys.argv = ["shardtool", *first]
app.main()
for stream in (1, 2):
    os.dup2(kept[stream - 1], stream)
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
sys.argv = ["shardtool", *second]
sys.exit(app.main())
"""


def as_nobody(step: Step, world: World, copy: World) -> Done:
    """Run a step as a user without rights, after root has run it on a copy of the world."""
    copy_world(world, copy)
    with step.ready(copy) as first, step.ready(world) as second:
        return subprocess.run(
            [sys.executable, "-c", _AS_NOBODY, *map(str, (*first, "then", *second))],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment(world)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@pytest.mark.slow
@needs_root
@pytest.mark.parametrize("name", [*READING, *ALONE])
def test_on_anothers_files_a_command_reads_or_fails_in_a_line_and_changes_nothing(
    name: str, public_path: Path, shardtool: Run
) -> None:
    step = {**READING, **CHANGING}[name]
    world, copy = prepared(step, public_path / "world", shardtool), public_path / "copy"
    for directory in ("tmp", "out"):
        (world / directory).chmod(0o777)
    before = everything(world / "data")
    done = as_nobody(step, world, copy)
    clearly(done, step)
    if name in ALONE and name not in ELSEWHERE:
        assert "Permission denied" in done.stderr
        assert done.returncode in (1, 3) or name == "verify"
    assert everything(world / "data") == before
    (world / "data").chmod(0o700)
    shut = as_nobody(step, world, copy)
    (line,) = shut.stderr.splitlines()
    assert (shut.returncode, line.startswith("shardtool: ")) == (1, True)
    assert "Permission denied" in line
    assert everything(world / "data") == before
