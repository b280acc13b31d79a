"""What a server answers: any JSON is taken for what it is, or refused in one line."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardtool.errors import UsageError
from shardtool.influxdb import answers
from shardtool.influxdb.credentials import base_url
from tests.any_json import JSON, change

SERIES = {
    "name": "cpu",
    "columns": ["time", "sequence_number", "load"],
    "points": [[5, 7, 0.5], [6, 8, None]],
}
SPACE = {"name": "a", "database": "d", "regex": "/x/", "retentionPolicy": "inf", "split": 1}
SERVER = {"id": 1, "raftName": "r", "isLeader": True, "protobufConnectString": "http://a:1"}
EVERYTHING = range(-(1 << 63), 1 << 63)


@pytest.mark.parametrize(
    ("take", "document"),
    [
        (answers.databases_in, [{"name": "d"}]),
        (answers.servers_in, [SERVER]),
        (answers.spaces_in, {"d": [SPACE]}),
    ],
)
@given(data=st.data(), value=JSON)
def test_an_answer_with_any_part_changed_is_read_or_refused(
    take: Callable[[bytes], object], document: Any, data: st.DataObject, value: Any
) -> None:
    changed = json.loads(json.dumps(document))
    change(data, changed, value)
    with contextlib.suppress(answers.BrokenAnswerError):
        take(json.dumps(changed).encode())


@given(data=st.data(), value=JSON)
def test_points_with_any_part_changed_are_read_or_refused(data: st.DataObject, value: Any) -> None:
    changed = json.loads(json.dumps(SERIES))
    change(data, changed, value)
    with contextlib.suppress(answers.BrokenAnswerError):
        for point in answers.points_in(changed, "cpu", "load", EVERYTHING[0], EVERYTHING[-1]):
            assert type(point.time_us) is type(point.sequence) is int


@given(st.text(max_size=60))
def test_any_text_is_a_url_or_wrong_usage(text: str) -> None:
    with contextlib.suppress(UsageError):
        assert base_url(text).lower().startswith(("http://", "https://"))
