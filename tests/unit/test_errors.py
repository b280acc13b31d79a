"""The exception tree, where its shape matters."""

from __future__ import annotations

import pytest

from shardtool.errors import InterruptedByUserError, ShardtoolError


def test_whoever_goes_on_after_a_failure_does_not_go_on_after_a_signal() -> None:
    # SIGTERM in the midst of writing a receipt was taken for a receipt that can't be written.
    with pytest.raises(InterruptedByUserError):
        try:
            raise InterruptedByUserError("interrupted by SIGTERM")
        except (ShardtoolError, Exception):  # noqa: BLE001 - the widest that there is
            pass
