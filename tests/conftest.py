"""What tests share: captures, the command, a listing, and other processes, users and mounts.

Everything here is a real thing: a real child that holds a real lock, a real mount, a real user
without rights. What the machine does not permit is skipped, with the reason.
"""

from __future__ import annotations

import codecs
import contextlib
import ctypes
import gc
import hashlib
import os
import pickle
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import pytest
from hypothesis import settings

from fixtures import Node
from tests import archives
from tests.needs import archive_of, lacking

# No database of examples in the repository, and no failure because a machine was slow.
settings.register_profile("shardtool", deadline=None, database=None)
settings.load_profile("shardtool")

REPOSITORY = Path(__file__).parents[1]
_END_TO_END = REPOSITORY / "tests" / "e2e"
_INSTALLED = Path(sys.executable).with_name("shardtool")
COMMAND = (str(_INSTALLED),) if _INSTALLED.exists() else (sys.executable, "-m", "shardtool")
"""The command as pip installed it beside this Python; the module where it was not installed."""
_NOBODY = 65534
_PR_SET_DUMPABLE = 4

Entry: TypeAlias = tuple[int, int, int, int, str]
"""mode, size, mtime in ns, inode, SHA-256 of what is in it (or where a link leads)."""
Listing: TypeAlias = dict[str, Entry]
Run: TypeAlias = Callable[..., subprocess.CompletedProcess[str]]
Hold: TypeAlias = Callable[[Path, str], int]
Mount: TypeAlias = Callable[..., Path]
Unprivileged: TypeAlias = Callable[[Callable[[], Any]], Any]


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, Any, Any]:
    """Spare the garbage collector the thousands of tests: none of them goes before the end."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session", autouse=True)
def no_early_end() -> Iterator[None]:
    """Fail a test in which this process leaves by os._exit(0), as if all tests had passed.

    That is for a child alone: by a mistake in who is who its parent would do so.
    """
    tests, leave = os.getpid(), os._exit

    def left(status: int) -> NoReturn:
        assert status or os.getpid() != tests, "the tests' own process was to leave"
        leave(status)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "_exit", left)
        yield


@pytest.fixture(autouse=True)
def directory_of_a_mutant() -> Iterator[None]:
    """Give a mutant a working directory of its own.

    One that has lost a dir_fd works in there: in what others have left it might be right by chance.
    """
    if "MUTANT_UNDER_TEST" not in os.environ:
        yield
        return
    with tempfile.TemporaryDirectory() as directory, contextlib.chdir(directory):
        yield


@pytest.fixture
def capture(tmp_path: Path) -> Callable[[str], Path]:
    """Unpack a capture by its name into tmp_path and return its directory."""

    def unpack(name: str) -> Path:
        archives.unpack(archive_of(name), tmp_path)
        return tmp_path / name

    return unpack


@pytest.fixture
def strace() -> None:
    """Insist on strace, which kills or fails a process at its n-th system call."""
    if shutil.which("strace") is None:
        lacking("strace")


def run_shardtool(
    *args: str | Path, env: Mapping[str, str | None] | None = None, **settings: Any
) -> subprocess.CompletedProcess[str]:
    """Run the installed shardtool; `env` adds to the environment, `None` takes a name away."""
    return subprocess.run(
        [*COMMAND, *map(str, args)],
        env=environment_of(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **settings,
    )


def environment_of(more: Mapping[str, str | None] | None) -> dict[str, str]:
    """Return the environment that shardtool runs in, with `more`; `None` takes a name away."""
    wanted: dict[str, str | None] = {**os.environ, "SHARDTOOL_DATA": None, **(more or {})}
    wanted["PYTHONPATH"] = str(REPOSITORY)
    return {name: value for name, value in wanted.items() if value is not None}


@pytest.fixture
def shardtool(request: pytest.FixtureRequest) -> Run:
    """Return what runs shardtool: the installed one (see run_shardtool), or one that is preloaded.

    What a user does with each command is tested by the installed one, in tests/e2e. Slow tests,
    those that are marked `preloaded`, and those of other directories are further cases of the same,
    and thousands of runs: they spare what comes before shardtool's first line.
    """
    if request.path.is_relative_to(_END_TO_END) and not any(
        request.node.get_closest_marker(name) for name in ("slow", "preloaded")
    ):
        return run_shardtool
    from tests.preloaded import run_preloaded  # it needs what is here

    return run_preloaded


@pytest.fixture
def listing() -> Callable[[Path], Listing]:
    """List everything below a path, itself as '.': two equal listings mean nothing changed."""
    return _listing


def _listing(root: Path) -> Listing:
    found = {".": _entry(root)}
    for directory, directories, files in os.walk(root):
        for name in directories + files:
            path = Path(directory, name)
            found[str(path.relative_to(root))] = _entry(path)
    return found


def _entry(path: Path) -> Entry:
    found = path.lstat()
    content = b""
    if stat.S_ISLNK(found.st_mode):
        content = os.fsencode(os.readlink(path))
    elif stat.S_ISREG(found.st_mode) and found.st_size < 1 << 30:
        content = path.read_bytes()
    return (
        found.st_mode,
        found.st_size,
        found.st_mtime_ns,
        found.st_ino,
        hashlib.sha256(content).hexdigest(),
    )


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """Make a 0.8 node with three old shards, all marked, without values worth reading."""
    made = Node(tmp_path / "data", version="0.8")
    for number in (1, 2, 3):
        made.old_shard(number, points=4)
        made.mark(number)
    return made


# -- other processes --

_HOLDERS = {
    # LevelDB itself, where it is there to ask; otherwise the lock that it would take. (RocksDB
    # takes the same, but writes files into the shard that no LevelDB writes.)
    "database": """
try:
    import plyvel
    held = plyvel.DB(path)
except ImportError:
    import fcntl
    held = open(path + "/LOCK", "r+b")
    fcntl.lockf(held, fcntl.LOCK_EX)
""",
    "lock": """
import fcntl
held = open(path, "r+b")
fcntl.lockf(held, fcntl.LOCK_EX)
""",
    "open": "held = open(path, 'rb')",
    "mapped": """
import mmap, os
file = os.open(path, os.O_RDONLY)
held = mmap.mmap(file, 0, prot=mmap.PROT_READ)
os.close(file)
# Python's mmap keeps a descriptor of its own, LevelDB's does not: close that one too.
for number in os.listdir('/proc/self/fd'):
    try:
        if os.path.samefile('/proc/self/fd/' + number, path):
            os.close(int(number))
    except OSError:
        pass
""",
    "mapped often": """
import ctypes, mmap
libc, size, file = ctypes.CDLL(None), ctypes.c_size_t, open(path, 'rb')
libc.mmap.restype = ctypes.c_void_p
for _ in range(30_000):  # Linux takes some 65,000 of one process
    at = libc.mmap(None, size(1), mmap.PROT_READ, mmap.MAP_SHARED, file.fileno(), ctypes.c_long(0))
    assert at != ctypes.c_void_p(-1).value
""",
    "flock": """
import fcntl, os
held = os.open(path, os.O_RDONLY)
fcntl.flock(held, fcntl.LOCK_EX)
""",
}


@pytest.fixture
def hold() -> Iterator[Hold]:
    """Have another process hold a path until the test ends; return its pid.

    How: 'database' (LevelDB open), 'lock' (a POSIX write lock), 'open', 'mapped' (without a
    descriptor), 'mapped often' or 'flock'.
    """
    children: list[subprocess.Popen[bytes]] = []

    def start(path: Path, how: str) -> int:
        end = "import os, sys; print(os.getpid(), flush=True); sys.stdin.read()"
        script = f"path = {str(path)!r}\n{_HOLDERS[how]}\n{end}\n"
        # A child of a shell and not of ours: shardtool's own children are nobody else to it.
        child = subprocess.Popen(
            ["sh", "-c", '"$@"; :', "sh", sys.executable, "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        children.append(child)
        assert child.stdout is not None
        return int(child.stdout.readline())

    yield start
    for child in children:
        child.communicate()


@pytest.fixture
def unprivileged() -> Unprivileged:
    """Call a function as a user without rights, in a child; return what it returns."""

    def call(function: Callable[[], Any]) -> Any:
        if os.geteuid() != 0:
            return function()
        reader, writer = os.pipe()
        codecs.lookup("ascii")  # it is imported at its first use: that user may not read Python's
        pid = os.fork()
        if not pid:
            try:
                os.setgroups([])
                os.setgid(_NOBODY)
                os.setuid(_NOBODY)
                # As after an exec: otherwise the process may not look into its own /proc.
                ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)
                try:
                    answer = (True, function())
                except Exception as error:  # noqa: BLE001 - the parent raises it again
                    answer = (False, error)
                with open(writer, "wb") as pipe:
                    pickle.dump(answer, pipe)
            finally:
                os._exit(0)
        os.close(writer)
        with open(reader, "rb") as pipe:
            content = pipe.read()
        os.waitpid(pid, 0)
        returned, answer = pickle.loads(content)
        if not returned:
            raise answer
        return answer

    return call


@pytest.fixture
def public_path() -> Iterator[Path]:
    """Make a directory that every user can reach, which pytest's own tmp_path is not."""
    path = Path(tempfile.mkdtemp(prefix="shardtool-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


# -- mounts --


@pytest.fixture
def mount() -> Iterator[Mount]:
    """Mount a tmpfs, or bind `source`, at a target; return the target; see lacking."""
    mounted: list[Path] = []

    def mount_at(target: Path, *, source: Path | None = None, size: str = "64m") -> Path:
        if os.geteuid() != 0:
            lacking("root's right to mount")
        tmpfs = ["-t", "tmpfs", "-o", f"size={size}", "none"]
        words = tmpfs if source is None else ["--bind", str(source)]
        done = subprocess.run(
            ["mount", *words, str(target)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            lacking(f"mounts: {done.stderr.strip()}")
        mounted.append(target)
        return target

    yield mount_at
    busy = []
    for target in reversed(mounted):
        if subprocess.run(["umount", str(target)], check=False).returncode:
            subprocess.run(["umount", "--lazy", str(target)], check=True)
            busy.append(target)
    assert busy == [], "they go when who has them open lets go"


@pytest.fixture
def file_limit() -> Iterator[Callable[[int], None]]:
    """Limit how many files this process may have open, until the test ends."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)

    def limit(count: int) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture
def no_orphans() -> Iterator[None]:
    """Fail where a test leaves a child process behind, dead or alive."""
    yield
    left = []
    with contextlib.suppress(ChildProcessError):
        while True:
            left.append(os.waitpid(-1, 0)[0])
    assert left == []
