"""Cut the power at every call of a run: build what the disk may hold then, and look at the laws."""

from __future__ import annotations

import os
import random
import re
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, combinations
from pathlib import Path

from shardtool.disk.durable import READ_DIRECTORY, opened
from shardtool.disk.tree import measure
from tests.faults.every_kill import World, about, held, nothing
from tests.faults.injection_calls import Call
from tests.faults.power_loss import SHAPES, Change, Content, Disk, Image, Node, shaped

_MOST_SUBSETS = 4  # so many changes of names are tried in all their subsets; of more, some
_AT_RANDOM = 6
_INODE = re.compile(rb'("inode": )(\d+)')

Choice = tuple[int, tuple[Change, ...], dict[Node, str]]


def choices(disk: Disk, *, since: int = 0, seed: int = 1) -> Iterator[Choice]:
    """Yield, for every point from `since` on at which the power may go, what may have reached the
    disk.

    Of the names that are not certain all, none, each alone, all but each, and some at random (all
    subsets where they are few); with each of them data in several of the SHAPES.
    """
    chance = random.Random(seed)
    for point in range(since, disk.now + 1):
        open_, nodes = disk.uncertain(point), disk.unsynced(point)
        for kept in _subsets(open_, chance):
            is_extreme = len(kept) in (0, len(open_))
            for shape in SHAPES if is_extreme else ("all", "none"):
                yield point, kept, dict.fromkeys(nodes, shape)
                if not nodes:
                    break
            if is_extreme:
                for node in nodes:
                    yield point, kept, {node: "none"}
            if nodes:
                yield point, kept, {node: chance.choice(SHAPES) for node in nodes}


def _subsets(changes: list[Change], chance: random.Random) -> Iterator[tuple[Change, ...]]:
    if len(changes) <= _MOST_SUBSETS:
        sizes = range(len(changes) + 1)
        yield from chain.from_iterable(combinations(changes, size) for size in sizes)
        return
    yield tuple(changes)
    yield ()
    for one in changes:
        yield (one,)
        yield tuple(change for change in changes if change is not one)
    for _ in range(_AT_RANDOM):
        yield tuple(change for change in changes if chance.random() < 0.5)


def cut_the_power_everywhere(
    world: World, *, most_states: int = 1_000_000, most_reruns: int = 1_000_000
) -> None:
    """Cut the power at every call of a command; the laws hold for all that may be left, and a
    plain rerun ends as an uninterrupted run does.

    Args:
        world: the command.
        most_states: look at so many of the states, chosen at random.
        most_reruns: and run the command again for so many of those.
    """
    assert world.prepare is nothing, "what a run before it did is in no copy"
    world.fresh()
    disk = Disk(world.root, world.unsynced)
    then = _Recorded(world.root)
    for call in world.record():
        disk.take(call)
    then.ends(world.root, disk)
    _look_at_states(world, disk, then, most_states=most_states, most_reruns=most_reruns)


def cut_the_power_after_each_kill(
    world: World,
    choose: Callable[[Sequence[Call]], Sequence[Call]],
    *,
    most_states: int,
    most_reruns: int,
) -> None:
    """Kill a command, run it again, and cut the power at every call of the second run: what the
    first one has done and not synced may be lost as well.

    Args:
        world: the command.
        choose: given the calls of a whole run, returns those to be killed at.
        most_states: look at so many of the states for each kill, chosen at random.
        most_reruns: and run the command a third time for so many of those.
    """
    assert world.prepare is nothing, "what a run before it did is in no copy"
    world.fresh()
    chosen = [call for call in choose(world.record()) if not call.creates]
    assert chosen, "no call is left to be killed at"
    for call in chosen:
        world.fresh()
        disk = Disk(world.root, world.unsynced)
        then = _Recorded(world.root)
        with about(f"killed at {call}, and run again"):
            for one in world.record_killed(call):
                disk.take(one)
            killed = disk.now
            for one in world.record_again():
                disk.take(one)
            then.ends(world.root, disk)
            _look_at_states(
                world, disk, then, since=killed, most_states=most_states, most_reruns=most_reruns
            )


def _look_at_states(
    world: World,
    disk: Disk,
    then: _Recorded,
    *,
    since: int = 0,
    most_states: int,
    most_reruns: int,
) -> None:
    """Look at what may be left of what was recorded, from the call number `since` on."""
    wanted = world.outcome()
    states: dict[object, Choice] = {}
    for choice in choices(disk, since=since):
        key = disk.image(*choice).key(disk.root), choice[0] == disk.now
        states.setdefault(key, choice)
    chance = random.Random(2)
    found = [choice for choice in states.values() if choice[0] < disk.now]
    found = chance.sample(found, min(most_states, len(found)))
    # What was promised is looked at in all that may be left at the end of a run that is whole.
    ends = [choice for choice in states.values() if choice[0] == disk.now]
    found += chance.sample(ends, min(most_states, len(ends))) if since else ends
    again = set(chance.sample(range(len(found)), min(most_reruns, len(found))))
    for number, (point, kept, shapes) in enumerate(found):
        with about(f"power lost after call {point}: {_in_words(disk, point, kept, shapes)}"):
            _build(world, disk.image(point, kept, shapes), disk, then)
            held(world.laws)
            if point == disk.now:
                held(world.promised)
            if number in again:
                world.rerun(())
                held(world.laws)
                if world.put_back():
                    # In a tree that was built anew no receipt holds: what was whole in the trash
                    # is put back, and the next run takes it.
                    world.rerun(())
                ended = held(world.outcome)
                assert ended == wanted, (ended, wanted)


def _in_words(disk: Disk, point: int, kept: tuple[Change, ...], shapes: dict[Node, str]) -> str:
    lost = [
        "/".join(f"{name}" for _, name, _, _ in change.edits) + f" (call {change.at})"
        for change in disk.uncertain(point)
        if change not in kept
    ]
    return f"lost {lost}, data {sorted(shapes.values())}"


class _Recorded:
    """By what names of numbers the run that was recorded knew things: inodes, fingerprints."""

    def __init__(self, root: Path) -> None:
        """Look at the tree before the run."""
        self.inodes: dict[int, Node] = {}
        shards = [path for path in root.rglob("shard_db/*") if path.is_dir()]
        self.marks = {str(path.relative_to(root)): _marks(path) for path in shards}
        self.names = {str(path.relative_to(root)): set(os.listdir(path)) for path in shards}
        self._before = {path: os.lstat(root / path).st_ino for path in _paths(root)}

    def ends(self, root: Path, disk: Disk) -> None:
        """Look at it after the run, and insist that the model has it as it is."""
        image = disk.image(disk.now, disk.uncertain(disk.now))
        _insist_same(root, image, disk.root, root)
        for node in _nodes(image, disk.root):
            if node.start in self._before:
                self.inodes[self._before[node.start]] = node
        for path in _paths(root):
            there = disk.node_at(path)
            assert there is not None
            self.inodes[os.lstat(root / path).st_ino] = there
        # What is gone by now is known by what it was before.
        for change in disk.changes:
            for _, _, old, _ in change.edits:
                if old is not None and old.start in self._before:
                    self.inodes[self._before[old.start]] = old


def _paths(root: Path) -> list[str]:
    return [str(path.relative_to(root)) for path in root.rglob("*")]


def _nodes(image: Image, directory: Node) -> Iterator[Node]:
    for node in image.entries[directory].values():
        yield node
        if node.kind == "directory":
            yield from _nodes(image, node)


def _insist_same(path: Path, image: Image, node: Node, root: Path) -> None:
    """Assert that the model has what is really there: otherwise it proves nothing."""
    names = image.entries[node]
    assert sorted(names) == sorted(os.listdir(path)), path
    for name, child in names.items():
        there = path / name
        mode = there.lstat().st_mode
        if child.kind == "directory":
            _insist_same(there, image, child, root)
        elif child in image.contents:
            content = image.contents[child]
            assert b"".join((*content.certain, *content.rest)) == there.read_bytes(), there
        if child.kind != "link":
            assert image.modes.get(child, child.made) == stat.S_IMODE(mode), there
        if child in image.times:
            assert image.times[child] == there.lstat().st_mtime_ns, there


class _Translation:
    """From what the recorded run wrote to what it would have written on this tree.

    The journal tells a shard's inode, its fingerprint and its times of change, which are others
    here. (What receipts are bound to is not brought over: here they do not hold, and shards are
    proven again.)
    """

    def __init__(self, then: _Recorded) -> None:
        self._then = then
        self._marks: list[tuple[bytes, bytes]] = []
        self._inodes: dict[Node, int] = {}

    def placed(self, node: Node, path: Path, image: Image) -> None:
        """Take note that a thing has its name, and all that is in it its own."""
        self._inodes[node] = path.lstat().st_ino
        marks = self._then.marks.get(node.start)
        if marks is not None:
            # Of a shard in ruins there is no fingerprint that anybody had written down.
            is_whole = set(image.entries[node]) == self._then.names[node.start]
            now = _marks(path) if is_whole else tuple("1" * len(mark) for mark in marks)
            self._marks += [
                (old.encode(), new.encode()) for old, new in zip(marks, now, strict=True)
            ]

    def __call__(self, content: bytes) -> bytes:
        for old, new in self._marks:
            content = content.replace(old, new)
        return _INODE.sub(self._inode, content)

    def _inode(self, match: re.Match[bytes]) -> bytes:
        node = self._then.inodes.get(int(match[2]))
        inode = self._inodes.get(node, 0) if node is not None else int(match[2])
        return match[1] + str(inode).encode()


def _marks(shard: Path) -> tuple[str, ...]:
    """Return by what shardtool knows an old shard again, as it stands in its journal."""
    with opened(shard, READ_DIRECTORY) as descriptor:
        tree = measure(descriptor, fingerprint=True)
    return tree.fingerprint, str(tree.changes)


def _build(world: World, image: Image, disk: Disk, then: _Recorded) -> None:
    """Build what the disk holds where the command worked: what was there before the run is moved
    and not copied, so that it is the same file still."""
    world.fresh()
    root, hold = world.root, world.root.with_name(f"{world.root.name}-hold")
    shutil.rmtree(hold, ignore_errors=True)
    hold.mkdir()
    os.rename(root, hold / "before")
    root.mkdir()
    held: dict[Node, Path] = {}
    deepest_first = sorted(_nodes(image, disk.root), key=lambda node: -node.start.count("/"))
    for node in deepest_first:
        if node.start:
            held[node] = hold / str(len(held))
            os.rename(hold / "before" / node.start, held[node])
    for left in held.values():
        if left.is_dir() and not left.is_symlink():
            for name in left.iterdir():  # it is not there any more in this image
                _remove(name)
    translation = _Translation(then)
    _place(root, image, disk.root, held, translation)
    _fill(root, image, disk.root, held, translation)
    shutil.rmtree(hold)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _place(
    path: Path, image: Image, directory: Node, held: Mapping[Node, Path], translation: _Translation
) -> None:
    """Put each thing under its name; note the inode that it has here."""
    for name, node in image.entries[directory].items():
        here = path / name
        if node in held:
            os.rename(held[node], here)
        elif node.kind == "directory":
            here.mkdir()
        elif node.kind == "link":
            here.symlink_to(node.target)
        else:
            here.touch()
        if node.kind == "directory":
            _place(here, image, node, held, translation)
        translation.placed(node, here, image)


def _fill(
    path: Path, image: Image, directory: Node, held: Mapping[Node, Path], translation: _Translation
) -> None:
    """Write contents, then modes and times, from below."""
    for name, node in image.entries[directory].items():
        here = path / name
        mtime = image.times.get(node, node.mtime_ns)
        if node.kind == "directory":
            _fill(here, image, node, held, translation)
        elif node in image.contents:
            content = _content(image.contents[node], translation)
            if node not in held or content != here.read_bytes():
                here.write_bytes(content)
                mtime = image.times.get(node, 0)
        if node.kind != "link" and (node not in held or node in image.modes):
            here.chmod(image.modes.get(node, node.made))
        if mtime and (node.kind == "directory" or node in image.times):
            os.utime(here, ns=(mtime, mtime), follow_symlinks=False)


def _content(content: Content, translation: _Translation) -> bytes:
    certain = b"".join(map(translation, content.certain))
    return certain + shaped(b"".join(map(translation, content.rest)), content.shape)
