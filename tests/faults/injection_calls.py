"""Read what strace wrote: the calls of a run that change the disk, in their order."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

CHANGING = (
    *("open", "openat", "openat2", "creat", "mknod", "mknodat", "mkdir", "mkdirat"),
    *("write", "writev", "pwrite64", "pwritev", "pwritev2", "truncate", "ftruncate", "fallocate"),
    *("copy_file_range", "sendfile", "splice", "sync_file_range", "memfd_create"),
    *("rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat"),
    *("unlink", "unlinkat", "rmdir"),
    *("chmod", "fchmod", "fchmodat", "chown", "fchown", "lchown", "fchownat"),
    *("utime", "utimes", "futimesat", "utimensat"),
    *("setxattr", "lsetxattr", "fsetxattr", "removexattr", "lremovexattr", "fremovexattr"),
    *("fsync", "fdatasync", "sync", "syncfs"),
)
"""Every call that changes a file system, or makes changes last."""

OPENING = ("open", "openat", "openat2", "creat")
WHOLE = 1 << 26
"""As strace's -s: longer than any string that a traced run writes."""

_LINE = re.compile(r"(\d+) +(\w+)\((.*)\) += (-?\d+)(<[^>]*>)?.*")
_UNFINISHED = re.compile(r"(\d+) +(.*) <unfinished \.\.\.>")
_RESUMED = re.compile(r"(\d+) +<\.\.\. \w+ resumed>(.*)")
_DESCRIPTOR = re.compile(r"(?:-?\d+|AT_FDCWD)<(.*)>", re.DOTALL)
_BYTE = re.compile(r"\\x([0-9a-f]{2})")


@dataclass(frozen=True)
class Call:
    """One system call that succeeded.

    Args:
        process: the number of the thread that made it.
        name: of the call.
        number: which of its thread's calls of this name it is, from 1 on; of those that open,
            which that may create.
        words: its arguments as strace prints them.
        returned: what it gave back.
        opened: the path of the descriptor that it gave back, if it did.
        inside: which it is of those that have to do with the place that was asked for; 0 if it has
            not.
    """

    process: int
    name: str
    number: int
    words: tuple[str, ...]
    returned: int
    opened: str = ""
    inside: int = 0

    @property
    def creates(self) -> bool:
        """It opens what it may create."""
        return self.name in OPENING and any("O_CREAT" in word for word in self.words)

    def path(self, at: int = 0) -> str:
        """Return the path that argument `at` names, alone or with the one after it."""
        word = self.words[at]
        found = _DESCRIPTOR.fullmatch(word)
        if found is None:
            return _text(word)
        directory = _unhexed(found[1]).decode("utf-8", "surrogateescape").removesuffix(" (deleted)")
        if at + 1 < len(self.words) and self.words[at + 1].startswith('"'):
            name = _text(self.words[at + 1])
            return name if name.startswith("/") else f"{directory}/{name}" if name else directory
        return directory

    def content(self) -> bytes:
        """Return what a write wrote: its second argument, as far as it was taken."""
        assert not self.words[1].endswith("..."), "strace has cut a string: raise WHOLE"
        return _unhexed(self.words[1][1:-1])[: self.returned]

    def text(self, at: int) -> str:
        """Return argument `at`, a string."""
        return _text(self.words[at])

    @property
    def paths(self) -> tuple[str, ...]:
        """All paths that it has to do with."""
        if self.name.startswith(("write", "pwrite", "fsync", "fdatasync")):
            return (self._descriptor(),)
        if self.name in ("symlink", "symlinkat"):
            return (self.path(1),)
        if self.name in ("renameat", "renameat2", "linkat"):
            return (self.path(0), self.path(2))
        if self.name in ("rename", "link"):
            return (self.path(0), self.path(1))
        return (self.path(0),)

    def _descriptor(self) -> str:
        found = _DESCRIPTOR.fullmatch(self.words[0])
        path = _unhexed(found[1]).decode("utf-8", "surrogateescape") if found else ""
        return path.removesuffix(" (deleted)")

    def __str__(self) -> str:
        """Show the call for people."""
        shown = ", ".join(_unhexed(word).decode("utf-8", "replace")[:120] for word in self.words)
        return f"{self.name} number {self.number}: {self.name}({shown}) = {self.returned}"

    def is_at(self, place: Path) -> bool:
        """Say whether it has to do with a place, or with what is below it."""
        return any(f"{path}/".startswith(f"{place}/") for path in self.paths)


def calls_in(log: Path, place: Path) -> list[Call]:
    """Given what `strace -f -y -xx` wrote, return the calls that succeeded.

    Args:
        log: what was written.
        place: calls that have to do with it have numbers of their own.
    """
    found: list[Call] = []
    numbers: Counter[tuple[int, str]] = Counter()
    insides: Counter[tuple[int, str]] = Counter()
    begun: dict[str, str] = {}
    for written in log.read_text("ascii").splitlines():
        line = written
        if unfinished := _UNFINISHED.fullmatch(written):
            begun[unfinished[1]] = unfinished[2]
            continue
        if resumed := _RESUMED.fullmatch(written):
            line = f"{resumed[1]} {begun.pop(resumed[1])}{resumed[2]}"
        match = _LINE.fullmatch(line)
        if match is None:
            continue
        process, name, words = int(match[1]), match[2], _split(match[3])
        call = Call(process, name, 0, words, int(match[4]), _opened(match[5] or ""))
        if name in OPENING and not call.creates:
            continue
        numbers[process, name] += 1
        inside = call.is_at(place)
        insides[process, name] += inside
        if call.returned >= 0:
            number, nth = numbers[process, name], insides[process, name] if inside else 0
            found.append(replace(call, number=number, inside=nth))
    return found


def _split(text: str) -> tuple[str, ...]:
    """Split arguments at the commas that are in no brackets; strings are hex, without any."""
    words, depth, begin = [], 0, 0
    for at, letter in enumerate(text):
        depth += (letter in "[{(") - (letter in "]})")
        if letter == "," and not depth:
            words.append(text[begin:at].strip())
            begin = at + 1
    return (*words, text[begin:].strip())


def _opened(text: str) -> str:
    return _unhexed(text[1:-1]).decode("utf-8", "surrogateescape") if text else ""


def _text(word: str) -> str:
    return _unhexed(word.strip('"')).decode("utf-8", "surrogateescape")


def _unhexed(text: str) -> bytes:
    if "\\x" not in text:
        return text.encode("utf-8", "surrogateescape")
    return _BYTE.sub(lambda m: chr(int(m[1], 16)), text).encode("latin-1")
