"""Ask a running cluster for what other servers' shards hold."""

from __future__ import annotations

from shardtool.influxdb.api import Api
from shardtool.influxdb.keys import time_and_sequence
from shardtool.influxdb.messages import MessageError, parse, value_of
from shardtool.influxdb.query import EARLIEST_US, LATEST_US, CannotAskError, same
from shardtool.proof.columns import Name
from shardtool.proof.compare import Suffix, Wanted


class ApiAsker:
    """An Asker (see proof.prove) over HTTP; the server asks the others by itself."""

    def __init__(self, api: Api) -> None:
        """Take an open connection; it stays the caller's to close."""
        self._api = api

    def strike_out(self, name: Name, wanted: Wanted) -> int:
        """Take out of `wanted` what the cluster has under `name`; return how many that were.

        JSON can't tell a whole double from an integer: such values are compared as numbers.

        Raises:
            ShardtoolError: the server can't be reached, or refuses.
        """
        if not wanted.missing:
            return 0
        places: dict[tuple[int, int], Suffix] = {time_and_sequence(s): s for s in wanted.missing}
        times = [time for time, _ in places]
        struck = 0
        # What can't be asked for stays missing.
        beyond = {s for (time, _), s in places.items() if not EARLIEST_US <= time < LATEST_US}
        wanted.unanswered |= beyond
        try:
            points = self._api.points(
                name.database, name.series, name.column, min(times), max(times) + 1
            )
            for time_us, sequence, value in points:
                suffix = places.get((time_us, sequence))
                stored = wanted.missing.get(suffix) if suffix is not None else None
                if suffix is None or stored is None:
                    continue
                if _is_stored(value, stored):
                    del wanted.missing[suffix]
                    wanted.different.pop(suffix, None)
                    struck += 1
                else:  # its bytes nobody tells, but there is something
                    wanted.different.setdefault(suffix, b"")
        except CannotAskError:
            wanted.unanswered.update(wanted.missing)
        return struck


def _is_stored(value: str | int | float | bool, stored: bytes) -> bool:
    try:
        kept = value_of(parse("FieldValue", stored))
    except MessageError:
        return False
    return kept is not None and same(value, kept)
