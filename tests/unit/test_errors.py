"""The exception tree, where its shape matters."""

from __future__ import annotations

import contextlib

import pytest

from shardtool.errors import InterruptedByUserError


def test_whoever_goes_on_after_a_failure_does_not_go_on_after_a_signal() -> None:
    # SIGTERM in the midst of writing a receipt was taken for a receipt that can't be written.
    with pytest.raises(InterruptedByUserError), contextlib.suppress(Exception):
        raise InterruptedByUserError("interrupted by SIGTERM")
