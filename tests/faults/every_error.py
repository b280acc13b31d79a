"""Find the system calls that a command makes on a node's files, and have each of them fail.

A run in a PID namespace of its own makes the same calls each time (elsewhere the look through
/proc depends on who else is there), so that the n-th of them is the same in the next run.
"""

from __future__ import annotations

import itertools
import re
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import COMMAND, environment_of
from tests.faults.compiled import write_bytecode
from tests.faults.injection import alike, befalling
from tests.needs import lacking
from tests.preloaded import NAMESPACE, has_namespaces, preloaded_alone

_CALL = re.compile(r"(\d+) +(\w+)\((.*)")
_RESUMED = re.compile(r"(\d+) +<\.\.\. \w+ resumed>(.*)")
_PLACE = re.compile(r'(?:(?:\d+|AT_FDCWD)<([^>]*)>(?:, )?)?(?:"([^"]*)")?')
_NUMBERS = re.compile(r"0x[0-9a-f]+|\d+")

# What a file system, a disk, a quota or a limit answers to each call. A call that is not here
# (lseek, ioctl, dup by fcntl) fails on no disk; nor does close, of a file that was synced.
ERRNOS = {
    "openat": ("EACCES", "EMFILE", "EIO", "ENFILE", "EPERM"),
    "newfstatat": ("EIO", "EACCES"),
    "readlink": ("EIO",),
    "getdents64": ("EIO",),
    "statfs": ("EIO", "EACCES"),
    "fstatfs": ("EIO",),
    "read": ("EIO",),
    "readv": ("EIO",),
    "pread64": ("EIO",),
    "write": ("ENOSPC", "EIO", "EDQUOT"),
    "writev": ("ENOSPC",),
    "fsync": ("EIO", "ENOSPC"),
    "fdatasync": ("EIO", "ENOSPC"),
    "flock": ("ENOLCK",),
    "mkdir": ("ENOSPC", "EROFS", "EACCES", "EDQUOT"),
    "mkdirat": ("ENOSPC", "EROFS", "EACCES", "EDQUOT"),
    "rename": ("EROFS", "EIO", "EACCES", "ENOSPC"),
    "renameat": ("EROFS", "EIO", "EACCES", "ENOSPC"),
    "link": ("EPERM", "EMLINK", "EROFS"),
    "linkat": ("EPERM", "EMLINK", "EROFS"),
    "symlink": ("EPERM", "ENOSPC"),
    "symlinkat": ("EPERM", "ENOSPC"),
    "unlink": ("EROFS", "EIO", "EACCES"),
    "unlinkat": ("EROFS", "EIO", "EACCES"),
    "rmdir": ("EROFS", "EIO", "EACCES"),
    "fchmod": ("EPERM", "EROFS", "EIO"),
    "fchmodat": ("EPERM", "EROFS", "EIO"),
    "lchown": ("EPERM", "EROFS", "EDQUOT"),
    "fchown": ("EPERM", "EROFS", "EDQUOT"),
    "fchownat": ("EPERM", "EROFS", "EDQUOT"),
    "utimensat": ("EPERM", "EROFS", "EIO"),
}

# What the kernel may answer EINTR to, and Python asks again then (PEP 475).
INTERRUPTIBLE = ("openat", "read", "readv", "pread64", "write", "fsync", "flock")


@dataclass(frozen=True)
class Fault:
    """The `number`-th `call` of a process fails, of those that have to do with `place` or what is
    below it.

    A child has its own count. `site` says what the call was, and `path` what it had to do with.
    """

    call: str
    number: int
    errno: str
    site: str
    place: str
    path: str
    of_child: bool


def faults(
    words: Sequence[str | Path],
    world: Path,
    *,
    only: str = "",
    turn: int = 0,
    env: dict[str, str] | None = None,
) -> list[Fault]:
    """Run `shardtool *words` and return a fault for each call that had to do with `world`.

    Calls that differ in numbers alone (the same on shard 1 and on shard 2) are one, and so are
    looks at the files of one directory. The errors of a call take turns.

    Args:
        words: of the command line.
        world: the directory that everything lies in which a disk could lose.
        only: an error to take, for all calls that can be interrupted; else those of ERRNOS.
        turn: which of a call's errors comes first: what all commands do meets another in each.
        env: more for the environment.
    """
    write_bytecode()
    trace = world.parent / "trace-of-all"
    _run(["strace", "-f", "-y", "-qq", "-o", str(trace)], words, env)
    turns = {
        call: itertools.islice(itertools.cycle((only,) if only else errnos), turn, None)
        for call, errnos in ERRNOS.items()
    }
    counts: Counter[tuple[str, str]] = Counter()
    found: dict[str, Fault] = {}
    parent = ""
    for pid, call, rest in _calls(trace):
        parent = parent or pid
        # A child's temporary files have other names in each run.
        of_child = pid != parent
        paths = _paths_below(f"{world}/data" if of_child else str(world), call, rest)
        if not paths:
            continue
        # The file and not the world, where it has the same name in each run: how often others are
        # looked at is another number where a server answers sooner or later.
        path, place, number = paths[0], str(paths[0]), 1
        if not of_child:
            place = _steady(path, world)
            counts.update({(call, str(above)) for one in paths for above in (one, *one.parents)})
            number = counts[call, place]
        site = _site(call, rest)
        if site not in found and call in (INTERRUPTIBLE if only else ERRNOS):
            found[site] = Fault(call, number, next(turns[call]), site, place, str(path), of_child)
    return list(found.values())


def _steady(path: Path, world: Path) -> str:
    """Return a path, or what of it has the same name in each run: no time, no process's number."""
    if path.is_relative_to(world / "tmp"):
        return str(world / "tmp")
    return re.sub(r"/([^/]*\d{8}T\d{6}Z|\.[^/]*\.\d+(?=/|$)).*", "", str(path))


def _paths_below(world: str, call: str, rest: str) -> list[Path]:
    """Return the paths below `world` that a call has to do with, as strace shows its arguments.

    inject.c has the same from the process; a text that is written, or read, names none.
    """
    words = rest.partition(" = ")[0]
    if call in ("read", "readv", "pread64", "write", "writev", "readlink"):
        words = words.partition(",")[0]  # the second is what was read or written
    if call in ("symlink", "symlinkat"):
        words = words.partition(",")[2]  # the first is only a text
    found = [Path(directory, name) for directory, name in _PLACE.findall(words)]
    return [path for path in found if path.is_relative_to(world)]


def _calls(trace: Path) -> Iterator[tuple[str, str, str]]:
    """Given what strace wrote, yield each call: its process, its name, its arguments and answer."""
    begun: dict[str, str] = {}
    for written in trace.read_text(errors="replace").splitlines():
        if written.endswith("<unfinished ...>"):
            begun[written.split()[0]] = written.removesuffix("<unfinished ...>")
            continue
        resumed = _RESUMED.match(written)
        line = begun.pop(resumed[1], resumed[1]) + resumed[2] if resumed else written
        if match := _CALL.match(line):
            yield match[1], match[2], match[3]


def _site(call: str, rest: str) -> str:
    """Return what tells one call in the source from another, as far as its arguments show it."""
    words = re.sub(r"\{.*?\}|/\*.*?\*/|\s+", "", rest.partition(" = ")[0])
    # Of a temporary directory, and of those made in it, each run has other names.
    words = re.sub(r"(/tmp/shardtool-\w+-)\w{8}(?:/\w{8})?(?:/s\w{8})?", r"\1*", words)
    if call in ("read", "readv", "pread64", "getdents64"):
        words = words.partition(">")[0]  # what was read, and into what, is all the same
    if call in ("newfstatat", "unlinkat", "fsync", "fchownat", "utimensat"):
        words = re.sub(r'(/data/[^">]*/)[^/">]+([">])|>, "[^"/]+"', r"\1*\2", words)
    return _NUMBERS.sub("N", f"{call}({words}")


def fail(
    words: Sequence[str | Path],
    fault: Fault | None,
    world: Path,
    *,
    env: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `shardtool *words` with `fault`, or with none; it must not end in a traceback."""
    trace = world.parent / "trace-of-fault"
    trace.unlink(missing_ok=True)
    if fault is None:
        done = _run((), words, env)
    elif fault.of_child:
        inject = f"inject={fault.call}:error={fault.errno}:when={fault.number}"
        strace = ("strace", "-f", "--seccomp-bpf", "-qq", "-o", trace, "-P", fault.place)
        done = _run([*strace, "-e", f"trace={fault.call}", "-e", inject], words, env)
        assert "INJECTED" in trace.read_text(), f"did not come to {fault}: {done.stderr}"
    else:
        place = Path(fault.place)
        injection = befalling(fault.call, fault.number, fault.errno, trace, [place])
        done = preloaded_alone().run(words, _environment(env), injection=injection)
        assert trace.exists(), f"did not come to {fault}: {done.stderr}"
        struck = trace.read_text()
        assert alike(struck) == alike(fault.path), f"{struck} was struck, not {fault}"
    assert "Traceback" not in done.stderr, (fault, done.stderr)
    assert "mistake in shardtool" not in done.stderr, (fault, done.stderr)
    return done


def _run(
    prefix: Sequence[str | Path], words: Sequence[str | Path], env: dict[str, str] | None
) -> subprocess.CompletedProcess[str]:
    if not has_namespaces():
        lacking("the right to make a PID namespace")
    return subprocess.run(
        [*NAMESPACE, *prefix, *COMMAND, *words],
        env=_environment(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def _environment(more: dict[str, str] | None) -> dict[str, str]:
    same = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"}
    return environment_of({**same, **(more or {})})
