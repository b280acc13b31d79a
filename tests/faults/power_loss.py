"""A model of a file system that promises what POSIX promises, and nothing more.

What a file holds is certain once the file was synced; a name that came, went or was moved is
certain once its directory was synced. All else may have reached the disk before a power cut or
not, each change for itself: data in part or as zeros, names in any order. A rename is one change;
one from directory to directory is certain when both were synced.

It is fed with the calls of a run (injection_calls) and tells what the disk may hold if the power
goes after any of them. Owners are left out: everything belongs to one user.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.injection_calls import Call

SHAPES = ("all", "none", "zeros", "half", "hole", "last")
"""What may have become of data that was written and not synced; see shaped."""

_SYNC_FILE = ("fsync", "fdatasync")
# Without meaning here: what a file belongs to, and a hint to begin with what a sync completes.
_PASSED_OVER = ("chown", "fchown", "lchown", "fchownat", "sync_file_range")


@dataclass(eq=False)
class Node:
    """A file, directory or link. It stays the same one whatever its name is.

    Args:
        kind: 'file', 'directory' or 'link'.
        made: its mode when it was made.
        start: its path in the tree of before; empty for what came later.
        target: where a link leads.
        mtime_ns: when it was changed last before; 0 for what came later.
    """

    kind: str
    made: int
    start: str = ""
    target: str = ""
    mtime_ns: int = 0


@dataclass(eq=False)
class Change:
    """One change that the disk may have or not have.

    Args:
        at: the number of the call that made it.
        edits: of names: the directory, the name, what it stood for and what it stands for.
        node: what was written to, or was given a mode or a time.
        piece: what was written, behind all before it.
        mode: the new permission bits.
        mtime_ns: the new time of change.
        waits: for a sync of these.
        certain: the number of the call since which it is certain; None: it never is.
    """

    at: int
    edits: tuple[tuple[Node, str, Node | None, Node | None], ...] = ()
    node: Node | None = None
    piece: bytes | None = None
    mode: int | None = None
    mtime_ns: int | None = None
    waits: set[Node] = field(default_factory=set)
    certain: int | None = None


@dataclass
class Content:
    """What a file holds: certain pieces, and those that come in one of the SHAPES."""

    certain: tuple[bytes, ...]
    rest: tuple[bytes, ...]
    shape: str


@dataclass
class Image:
    """What the disk holds: directories' names, files' contents, modes and times that were set."""

    entries: dict[Node, dict[str, Node]]
    contents: dict[Node, Content]
    modes: dict[Node, int]
    times: dict[Node, int]

    def key(self, directory: Node) -> object:
        """Return what is the same for two images that are the same tree."""
        found: list[object] = []
        for name, node in sorted(self.entries[directory].items()):
            what: object = node.target
            if node.kind == "directory":
                what = self.key(node)
            elif node in self.contents:
                one = self.contents[node]
                what = (b"".join(one.certain), shaped(b"".join(one.rest), one.shape))
            found.append((name, id(node), self.modes.get(node), self.times.get(node), what))
        return tuple(found)


class Disk:
    """All that happened to a tree, and what of it may be lost."""

    def __init__(self, root: Path, unsynced: Collection[str] = ()) -> None:
        """Take the tree below `root` as certain.

        Args:
            root: the tree; calls about what is outside it are passed over.
            unsynced: directories in it whose files somebody else wrote and did not sync: nothing
                in them is certain, nor are their own names.
        """
        self.path = str(root)
        self.now = 0
        self.changes: list[Change] = []
        self._live: dict[Node, dict[str, Node]] = {}
        self._first: dict[Node, dict[str, Node]] = {}
        self._sizes: dict[Node, int] = {}
        self._base: dict[Node, bytes] = {}
        self._appends: set[Node] = set()
        self.root = Node("directory", 0o755)
        self._take_directory(root, self.root, root, tuple(unsynced))

    def _take_directory(
        self, path: Path, node: Node, root: Path, unsynced: tuple[str, ...]
    ) -> None:
        self._live[node], self._first[node] = {}, {}
        for entry in sorted(os.scandir(path), key=lambda entry: entry.name):
            relative = str(Path(entry.path).relative_to(root))
            found = entry.stat(follow_symlinks=False)
            kind = "link" if entry.is_symlink() else "directory" if entry.is_dir() else "file"
            target = os.readlink(entry.path) if kind == "link" else ""
            made = Node(kind, stat.S_IMODE(found.st_mode), relative, target, found.st_mtime_ns)
            is_dirty = any(f"{relative}/".startswith(f"{one}/") for one in unsynced)
            content = Path(entry.path).read_bytes() if kind == "file" else b""
            if is_dirty:
                self._edit((node, entry.name, None, made))
            else:
                self._live[node][entry.name] = self._first[node][entry.name] = made
            self._sizes[made] = len(content)
            if kind == "file" and is_dirty:
                self.changes.append(Change(self.now, node=made, piece=content, waits={made}))
            elif kind == "file":
                self._base[made] = content
            if kind == "directory":
                self._take_directory(Path(entry.path), made, root, unsynced)

    # -- what happens --

    def take(self, call: Call) -> None:
        """Take one call; one that is not modelled and could change something is an error."""
        self.now += 1
        if call.name in _PASSED_OVER or not any(map(self._is_ours, call.paths)):
            return
        assert all(map(self._is_ours, call.paths)), f"out of the tree or into it: {call}"
        handle = getattr(self, f"_{call.name.removesuffix('at2').removesuffix('at')}", None)
        if call.name in _SYNC_FILE:
            self._sync(self._found(call.path()))
        elif call.name in ("chmod", "fchmod", "fchmodat"):
            at = 2 if call.name == "fchmodat" else 1
            mode = int(call.words[at], 8)
            node = self._found(call.path())
            self.changes.append(Change(self.now, node=node, mode=mode, waits={node}))
        elif handle is not None:
            handle(call)
        else:
            raise AssertionError(f"the model has no {call.name}: {call}")

    def _open(self, call: Call) -> None:
        path, flags = call.path(), " ".join(call.words)
        node = self._lookup(path)
        assert "O_TRUNC" not in flags or node is None or not self._sizes[node], f"cuts: {call}"
        if node is None:
            node = self._make("file", path, int(call.words[-1], 8))
            self._appends.add(node)
        if "O_APPEND" in flags:
            self._appends.add(node)

    def _mkdir(self, call: Call) -> None:
        node = self._make("directory", call.path(), int(call.words[-1], 8))
        self._live[node], self._first[node] = {}, {}

    def _symlink(self, call: Call) -> None:
        self._make("link", call.path(1), 0o777, call.text(0))

    def _write(self, call: Call) -> None:
        path = call.paths[0]
        node = self._found(path)
        assert node in self._appends, f"writes over what is there: {call}"
        content = call.content()
        self._sizes[node] += len(content)
        self.changes.append(Change(self.now, node=node, piece=content, waits={node}))

    def _rename(self, call: Call) -> None:
        (old_in, old), (new_in, new) = map(self._parent, call.paths)
        node = self._live[old_in][old]
        replaced = self._live[new_in].get(new)
        self._edit((old_in, old, node, None), (new_in, new, replaced, node))

    def _link(self, call: Call) -> None:
        (new_in, new) = self._parent(call.paths[1])
        self._edit((new_in, new, None, self._found(call.paths[0])))

    def _unlink(self, call: Call) -> None:
        parent, name = self._parent(call.path())
        self._edit((parent, name, self._live[parent][name], None))

    _rmdir = _unlink

    def _utimens(self, call: Call) -> None:
        word = next(word for word in call.words if word.startswith("["))
        seconds, nanoseconds = word.split("tv_sec=")[2].split("tv_nsec=")
        mtime = int(seconds.rstrip(", ")) * 10**9 + int(nanoseconds.split("}")[0].split()[0])
        node = self._found(call.path())
        # Nothing opens a link to sync it: it goes to the disk with its directory.
        synced = self._parent(call.path())[0] if node.kind == "link" else node
        self.changes.append(Change(self.now, node=node, mtime_ns=mtime, waits={synced}))

    def _sync(self, node: Node) -> None:
        for change in self.changes:
            if node in change.waits:
                change.waits.discard(node)
                if not change.waits:
                    change.certain = self.now

    def _make(self, kind: str, path: str, mode: int, target: str = "") -> Node:
        mask = os.umask(0o022)
        os.umask(mask)
        node = Node(kind, mode & ~mask, target=target)
        parent, name = self._parent(path)
        self._edit((parent, name, None, node))
        self._sizes[node] = 0
        return node

    def _edit(self, *edits: tuple[Node, str, Node | None, Node | None]) -> None:
        self.changes.append(Change(self.now, edits=edits, waits={edit[0] for edit in edits}))
        for directory, name, _, new in edits:
            if new is None:
                del self._live[directory][name]
            else:
                self._live[directory][name] = new

    # -- where things are --

    def _is_ours(self, path: str) -> bool:
        return path == self.path or path.startswith(f"{self.path}/")

    def _lookup(self, path: str) -> Node | None:
        node: Node | None = self.root
        for part in Path(path).relative_to(self.path).parts:
            node = self._live.get(node, {}).get(part) if node is not None else None
        return node

    def _found(self, path: str) -> Node:
        node = self._lookup(path)
        assert node is not None, f"{path}: the model does not have it"
        return node

    def _parent(self, path: str) -> tuple[Node, str]:
        return self._found(os.path.dirname(path)), os.path.basename(path)

    # -- what may be left --

    def uncertain(self, point: int) -> list[Change]:
        """Return the changes of names that may be lost if the power goes after call `point`."""
        return [change for change in self._open_at(point) if change.edits]

    def unsynced(self, point: int) -> list[Node]:
        """Return what has data, a mode or a time that may be lost then."""
        nodes = [change.node for change in self._open_at(point) if change.node is not None]
        return list(dict.fromkeys(nodes))

    def _open_at(self, point: int) -> list[Change]:
        return [
            change
            for change in self.changes
            if change.at <= point and (change.certain is None or change.certain > point)
        ]

    def image(
        self, point: int, kept: Collection[Change], shapes: Mapping[Node, str] | None = None
    ) -> Image:
        """Return what the disk holds if the power goes after call `point`.

        Args:
            point: the number of the call, from 1 on; 0: before the first.
            kept: those of the uncertain changes of names that have reached it.
            shapes: what has become of unsynced data: one of SHAPES by node, else 'all'.
        """
        shapes = shapes or {}
        lost = set(self.uncertain(point)).difference(kept)
        entries = {node: dict(names) for node, names in self._first.items()}
        image = Image(entries, {}, {}, {})
        may_be_lost = set(map(id, self._open_at(point)))
        for change in self.changes:
            if change.at > point:
                break
            if change.edits:
                if change not in lost:
                    _apply(change, entries)
                continue
            assert change.node is not None
            shape = shapes.get(change.node, "all") if id(change) in may_be_lost else "all"
            if change.piece is not None:
                base = (self._base.get(change.node, b""),)
                content = image.contents.setdefault(change.node, Content(base, (), shape))
                if id(change) in may_be_lost:
                    content.rest, content.shape = (*content.rest, change.piece), shape
                else:
                    content.certain = (*content.certain, change.piece)
            elif change.mode is not None and shape != "none":
                image.modes[change.node] = change.mode
            elif change.mtime_ns is not None and shape != "none":
                image.times[change.node] = change.mtime_ns
        return image

    def node_at(self, path: str) -> Node | None:
        """Return what is at a path, relative to the root, after all that happened."""
        return self._lookup(f"{self.path}/{path}")


def _apply(change: Change, entries: dict[Node, dict[str, Node]]) -> None:
    """Have a change of names happen, where what it takes away is still there."""
    for directory, name, old, new in change.edits:
        if new is None and entries[directory].get(name) is not old:
            return
    for directory, name, _, new in change.edits:
        if new is None:
            del entries[directory][name]
        else:
            entries[directory][name] = new


def shaped(rest: bytes, shape: str) -> bytes:
    """Return what may be on disk of data that was written and not synced.

    Example: b'abcd' -> all b'abcd', none b'', zeros b'\\0\\0\\0\\0', half b'ab',
    hole b'ab\\0\\0', last b'abc'
    """
    half = len(rest) // 2
    return {
        "all": rest,
        "none": b"",
        "zeros": bytes(len(rest)),
        "half": rest[:half],
        "hole": rest[:half] + bytes(len(rest) - half),
        "last": rest[:-1],
    }[shape]
