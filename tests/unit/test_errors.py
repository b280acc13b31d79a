"""The exception tree, where its shape matters."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from shardtool.errors import InterruptedByUserError, placed


def test_whoever_goes_on_after_a_failure_does_not_go_on_after_a_signal() -> None:
    # SIGTERM in the midst of writing a receipt was taken for a receipt that can't be written.
    with pytest.raises(InterruptedByUserError), contextlib.suppress(Exception):
        raise InterruptedByUserError("interrupted by SIGTERM")


def test_an_error_is_told_by_its_path_which_no_descriptors_number_is(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with open(tmp_path / "file", "rb") as file, pytest.raises(OSError, match="Not a") as of_number:
        os.listdir(file.fileno())
    with pytest.raises(OSError, match="Not a directory") as of_path:
        os.listdir(tmp_path / "file")
    assert isinstance(of_number.value.filename, int)
    assert placed(of_number.value) == "Not a directory"
    assert placed(of_number.value, "/scratch") == "/scratch: Not a directory"
    assert placed(of_path.value, "/scratch") == f"{tmp_path}/file: Not a directory"
    with pytest.raises(OSError, match="Not a directory") as of_bytes:
        os.listdir(os.fsencode(tmp_path / "file"))
    assert placed(of_bytes.value) == f"{tmp_path}/file: Not a directory"
