"""Stored values as what they are: the fast way says what protobuf says."""

from __future__ import annotations

import math
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fixtures.encode import field_value
from shardtool.export.left import WHY
from shardtool.export.values import NoValueError, Texts, Value, decoded
from shardtool.influxdb.messages import MessageError, message_class, parse, value_of

VALUES = st.one_of(
    st.text(),
    st.booleans(),
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.floats(allow_nan=False),
)


@given(VALUES)
@example(-1)
@example((1 << 63) - 1)
@example(-(1 << 63))
@example(1 << 56)
@example("x" * 127)
@example("x" * 128)
@example("")
@example(-0.0)
def test_a_value_is_decoded_as_what_was_stored(value: Value) -> None:
    found = decoded(field_value(value))
    assert (type(found), repr(found)) == (type(value), repr(value))


@given(
    st.one_of(
        st.binary(max_size=14),
        st.builds(
            bytes.__add__, st.sampled_from([b"\x19", b"\x28", b"\x20", b"\x0a"]), st.binary()
        ),
    )
)
@example(b"\x28\x80\x80\x80\x80\x80\x80\x80\x80\x80\x02")
@example(b"\x20\x05")
@example(b"\x28\x01\x28\x02")
@example(b"\x0a\x01\xff")
@example(b"\x30\x01")
@example(b"")
def test_any_bytes_are_what_protobuf_says_or_a_word(stored: bytes) -> None:
    try:
        expected = value_of(parse("FieldValue", stored))
        word = "null" if expected is None else ""
        if isinstance(expected, str) and not _is_utf8(expected):
            word = "bytes"
    except MessageError:
        expected, word = None, "unreadable"
    if word:
        with pytest.raises(NoValueError, match=word):
            decoded(stored)
        assert word in WHY
    else:
        found = decoded(stored)
        assert type(found) is type(expected)
        assert (
            struct.pack("d", found) == struct.pack("d", expected)
            if isinstance(found, float)
            else (found == expected)
        )


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def test_a_string_of_several_fields_is_what_protobuf_takes_it_for() -> None:
    message = message_class("FieldValue")(string_value=b"a", int64_value=7)
    assert decoded(message.SerializeToString()) == "a"


@given(st.lists(st.one_of(st.floats(), st.integers(-9, 9)), min_size=1))
def test_texts_are_the_same_for_many_as_for_one(values: list[Value]) -> None:
    def write(value: Value) -> str:
        if isinstance(value, float) and not math.isfinite(value):
            raise NoValueError("number")
        return repr(value)

    stored = [field_value(value) for value in values]
    for value, text in zip(values, Texts(write).of(stored), strict=True):
        if isinstance(value, float) and not math.isfinite(value):
            assert str(text) == "number"
        else:
            assert text == repr(value)


def test_what_is_remembered_is_bounded() -> None:
    texts = Texts(repr)
    for number in range(200_000):
        texts[field_value(number)]
    texts[field_value("x" * 1000)]
    assert len(texts) <= 1 << 15
    assert max(map(len, texts)) < 100
