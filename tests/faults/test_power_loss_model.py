"""The model of a file system after a power cut, on the classic mistakes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.injection_calls import Call
from tests.faults.power_loss import SHAPES, Disk, Image, Node, shaped
from tests.faults.power_loss_states import choices


def hexed(text: str | bytes) -> str:
    """Return a string as strace -xx prints it."""
    content = os.fsencode(text)
    return '"' + "".join(f"\\x{byte:02x}" for byte in content) + '"'


class Script:
    """Calls as a traced run makes them, one after the other."""

    def __init__(self, root: Path, unsynced: tuple[str, ...] = ()) -> None:
        """Begin with what is in `root`."""
        self.root, self.disk = root, Disk(root, unsynced)

    def call(self, name: str, *words: str, returned: int = 0) -> Script:
        """Make a call."""
        self.disk.take(Call(1, name, 1, words, returned))
        return self

    def write(self, name: str, content: bytes) -> Script:
        """Create a file and write to it."""
        self.call("open", hexed(str(self.root / name)), "O_WRONLY|O_CREAT|O_EXCL", "0644")
        descriptor = f"3<{hexed(str(self.root / name))[1:-1]}>"
        return self.call(
            "write", descriptor, hexed(content), str(len(content)), returned=len(content)
        )

    def sync(self, name: str = "") -> Script:
        """Sync a file or a directory."""
        path = str(self.root / name) if name else str(self.root)
        return self.call("fsync", f"3<{hexed(path)[1:-1]}>")

    def rename(self, old: str, new: str) -> Script:
        """Rename."""
        return self.call("rename", *(hexed(str(self.root / name)) for name in (old, new)))

    def ends(self) -> set[frozenset[tuple[str, bytes]]]:
        """Return all that the disk may hold after the last call."""
        return {
            frozenset(found(self.disk, self.disk.image(point, kept, shapes)))
            for point, kept, shapes in choices(self.disk)
            if point == self.disk.now
        }


def found(disk: Disk, image: Image) -> Iterator[tuple[str, bytes]]:
    """Yield each file's path and content."""

    def below(directory: Node, path: str) -> Iterator[tuple[str, bytes]]:
        for name, node in image.entries[directory].items():
            if node.kind == "directory":
                yield from below(node, f"{path}{name}/")
                continue
            content = image.contents.get(node)
            rest = b"" if content is None else shaped(b"".join(content.rest), content.shape)
            yield f"{path}{name}", b"".join(content.certain if content else ()) + rest

    yield from below(disk.root, "")


def test_a_file_that_was_renamed_without_a_sync_may_be_empty_under_its_name(tmp_path: Path) -> None:
    ends = Script(tmp_path).write("new", b"text").rename("new", "name").sync().ends()
    assert frozenset({("name", b"")}) in ends
    assert frozenset({("name", b"te")}) in ends
    assert frozenset({("name", b"\0\0\0\0")}) in ends


def test_a_name_whose_directory_was_not_synced_may_be_absent(tmp_path: Path) -> None:
    ends = Script(tmp_path).write("new", b"text").sync("new").rename("new", "name").ends()
    assert ends == {frozenset(), frozenset({("new", b"text")}), frozenset({("name", b"text")})}


def test_what_was_synced_in_the_right_order_is_certain(tmp_path: Path) -> None:
    (tmp_path / "name").write_bytes(b"old")
    script = Script(tmp_path).write("new", b"text").sync("new").rename("new", "name").sync()
    assert script.ends() == {frozenset({("name", b"text")})}


def test_until_then_the_old_one_is_there_or_the_new_one_and_never_none(tmp_path: Path) -> None:
    (tmp_path / "name").write_bytes(b"old")
    script = Script(tmp_path).write("new", b"text").sync("new").rename("new", "name")
    assert all("name" in dict(end) for end in script.ends())


def test_a_rename_between_directories_needs_both_synced(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "a/x").touch()
    at_a, at_b = frozenset({("a/x", b"")}), frozenset({("b/x", b"")})
    moved = Script(tmp_path).rename("a/x", "b/x")
    assert moved.ends() == {at_a, at_b}
    assert moved.sync("a").ends() == {at_a, at_b}
    assert moved.sync("b").ends() == {at_b}


def test_what_is_in_a_directory_that_is_lost_is_lost(tmp_path: Path) -> None:
    script = Script(tmp_path).call("mkdir", hexed(str(tmp_path / "d")), "0755")
    script.write("d/x", b"1").sync("d/x").sync("d")
    assert script.ends() == {frozenset(), frozenset({("d/x", b"1")})}


def test_unlinks_that_are_not_synced_may_be_lost_one_by_one(tmp_path: Path) -> None:
    script = Script(tmp_path).write("a", b"").write("b", b"").sync()
    for name in ("a", "b"):
        script.call("unlink", hexed(str(tmp_path / name)))
    assert {frozenset(name for name, _ in end) for end in script.ends()} == {
        frozenset(names) for names in ((), ("a",), ("b",), ("a", "b"))
    }


def test_what_somebody_else_wrote_and_did_not_sync_may_be_lost(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/x").write_bytes(b"value")
    script = Script(tmp_path, unsynced=("d",))
    assert {frozenset(), frozenset({("d/x", b"")}), frozenset({("d/x", b"value")})} <= script.ends()
    script.sync("d/x").sync("d").sync()
    assert script.ends() == {frozenset({("d/x", b"value")})}


def test_a_line_that_is_appended_may_be_torn_but_what_was_before_it_stays(tmp_path: Path) -> None:
    script = Script(tmp_path).write("log", b"one\n").sync("log").sync()
    descriptor = f"3<{hexed(str(tmp_path / 'log'))[1:-1]}>"
    script.call("write", descriptor, hexed(b"two\n"), "4", returned=4)
    contents = {dict(end)["log"] for end in script.ends()}
    assert contents == {b"one\n" + shaped(b"two\n", shape) for shape in SHAPES}


def test_a_call_that_the_model_does_not_have_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    with pytest.raises(AssertionError, match="no ftruncate"):
        Script(tmp_path).call("ftruncate", f"3<{hexed(str(tmp_path / 'x'))[1:-1]}>", "0")
