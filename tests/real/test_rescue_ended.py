"""A rescue that its server did not let end is journaled as that, with what was sent by then."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fixtures import MARKED_AT, Node, Row
from fixtures.encode import microseconds
from fixtures.server import Faults, serve
from shardtool.cli import rescue
from shardtool.cli.output import Output
from shardtool.cli.rescued import Told
from shardtool.cli.rescuing import look, send
from shardtool.datadir.layout import find_layout
from shardtool.influxdb.api import Api
from shardtool.journal import History, Journal
from shardtool.monitor.runs import last_runs

AT = microseconds(MARKED_AT) - 86_400_000_000


def rescued(path: Path, harm: Callable[[Faults], None]) -> tuple[Told, History]:
    """Rescue five values of `first` and three of `second` from a server that comes to harm when
    all is planned; return what is to be told and the journal."""
    node = Node(path / "data", version="0.8", databases=["first", "second"])
    lost = [("first", n) for n in range(5)] + [("second", n) for n in range(3)]
    rows = [Row(database, "cpu", "v", AT + n, 10_001, n) for database, n in lost]
    node.old_shard(1, rows=rows, marked_at=MARKED_AT)
    layout, faults = find_layout(str(node.path), None, {}), Faults()
    out = Output(as_json=True, quiet=True)
    parser = argparse.ArgumentParser()
    rescue.add_arguments(parser)
    args = parser.parse_args(["--yes"])
    with serve(node, faults=faults) as url, Api(url, "root", "root", first_wait=0.001) as api:
        told, spools = look(args, layout, api, path, out)
        harm(faults)
        send(args, layout, api, spools, told, out)
    return told, Journal(layout).read()


def ended(history: History) -> dict[str, Any]:
    """Return how the journal says that the rescue ended."""
    (record,) = [r for r in history.records if r["event"] == "rescue-ended"]
    return {key: record[key] for key in ("how", "sent", "refused")}


def fails(faults: Faults) -> None:
    faults.only, faults.status, faults.text = "/db/second/", 503, "disk full"


def refuses(faults: Faults) -> None:
    faults.only, faults.status, faults.text = "/db/second/", 404, "not here"


def knows_the_user_no_more(faults: Faults) -> None:
    faults.only, faults.method, faults.unauthorized = "/db/second/", "POST", True


def is_gone(faults: Faults) -> None:
    """Give no answer any more from the first point of `second` on."""

    def last_one(database: str, series: str, columns: list[str], values: list[Any]) -> str | None:
        if database == "second":
            faults.lost = faults.drops = 99
        return None

    faults.refuse = last_one


@pytest.mark.parametrize("harm", [fails, refuses, is_gone, knows_the_user_no_more])
def test_a_rescue_whose_server_fails_in_its_middle_is_journaled_as_failed(
    harm: Callable[[Faults], None], tmp_path: Path
) -> None:
    told, history = rescued(tmp_path, harm)
    assert ended(history) == {"how": "failed", "sent": 5, "refused": 0}
    assert "5 of 8 values were sent and stay; run rescue again" in told.failure
    assert not last_runs(history)["rescue"].succeeded


def test_a_rescue_whose_server_takes_nothing_at_all_has_failed(tmp_path: Path) -> None:
    def stop(faults: Faults) -> None:
        faults.drops = 99

    _, history = rescued(tmp_path, stop)
    assert ended(history) == {"how": "failed", "sent": 0, "refused": 0}
    assert not last_runs(history)["rescue"].succeeded


def test_a_rescue_of_which_a_value_is_refused_is_sent_all_the_same(tmp_path: Path) -> None:
    def refuse_one(faults: Faults) -> None:
        faults.refuse = lambda database, series, columns, values: (
            "no" if (database, values[-1]) == ("second", 1) else None
        )

    told, history = rescued(tmp_path, refuse_one)
    assert ended(history) == {"how": "sent", "sent": 7, "refused": 1}
    assert told.failure == ""
    assert last_runs(history)["rescue"].succeeded
