"""The file on its way: what compresses has no last words once it was given up."""

from __future__ import annotations

import fcntl
import gc
import os
import re
import sys
from pathlib import Path

import pytest

from shardtool.errors import BusyError, ShardtoolError, UsageError
from shardtool.export import target as module
from shardtool.export.parquet import arrow
from shardtool.export.target import Target

ENDS = pytest.mark.parametrize("end", ["", ".gz", ".zst"])


@ENDS
def test_what_was_given_up_writes_into_no_other_file(end: str, tmp_path: Path) -> None:
    with Target(str(tmp_path / f"x{end}"), force=False) as target:
        target.write(b"words" * 1000)
    # The next file gets the descriptor that was free.
    other = os.open(tmp_path / "other", os.O_WRONLY | os.O_CREAT)
    del target
    gc.collect()
    os.close(other)
    assert (tmp_path / "other").read_bytes() == b""
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


@ENDS
def test_the_umask_decides_who_may_read_what_is_complete(end: str, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with Target(str(tmp_path / f"x{end}"), force=False) as target:
            target.complete()
    finally:
        os.umask(before)
    (file,) = tmp_path.iterdir()
    assert file.stat().st_mode & 0o777 == 0o640


def test_a_link_under_the_temporary_name_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    (tmp_path / ".x.shardtool-part").symlink_to(tmp_path / "precious")
    with (
        pytest.raises(ShardtoolError, match="can't be written"),
        Target(str(tmp_path / "x"), force=True),
    ):
        pass
    assert (tmp_path / "precious").read_text() == "mine"


# From 3.14 on Python has zstd itself, and no extra for it can be missing.
EXTRAS = ["pyarrow", *(["zstandard"] if sys.version_info < (3, 14) else [])]


@pytest.mark.parametrize("module", EXTRAS)
def test_an_extra_that_is_missing_is_named(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    if module == "pyarrow":
        with pytest.raises(UsageError, match=re.escape("shardtool[parquet]")):
            arrow()
        return
    with pytest.raises(UsageError, match=re.escape("shardtool[zstd]")):
        Target(str(tmp_path / "x.zst"), force=False)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_another_run_took_for_a_leftover_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = tmp_path / ".x.shardtool-part"
    calls: list[int] = []

    def slow(descriptor: int, how: int) -> None:
        """Lock a file, after another run has found it without a lock, the first time."""
        calls.append(descriptor)
        if len(calls) == 1:
            part.unlink()
        fcntl.flock(descriptor, how)

    monkeypatch.setattr(module, "fcntl", type("Slow", (), {**vars(fcntl), "flock": slow}))
    with Target(str(tmp_path / "x"), force=False) as target:
        target.write(b"ours")
        target.complete()
    assert (tmp_path / "x").read_bytes() == b"ours"
    assert len(calls) == 2


def test_no_other_runs_file_is_named_nor_removed(tmp_path: Path) -> None:
    part = tmp_path / ".x.shardtool-part"
    with Target(str(tmp_path / "x"), force=False) as target:
        target.write(b"ours")
        part.unlink()
        part.write_text("half of theirs")
        with pytest.raises(ShardtoolError, match="took"):
            target.complete()
    assert part.read_text() == "half of theirs"
    assert [path.name for path in tmp_path.iterdir()] == [part.name]


def test_two_at_once_are_one_and_a_busy_one(tmp_path: Path) -> None:
    with (
        Target(str(tmp_path / "x"), force=True) as target,
        pytest.raises(BusyError, match="another shardtool"),
        Target(str(tmp_path / "x"), force=True),
    ):
        pass
    assert target.name == str(tmp_path / "x")
